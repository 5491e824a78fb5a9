"""Compiled loops, private to the engine: numba, serial, GIL released. Their public callers validate and allocate."""
