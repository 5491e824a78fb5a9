"""Compiled loops, private to the engine: numba, serial, GIL released. Their public twins validate and allocate."""
