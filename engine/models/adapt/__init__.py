"""A foreign net's input and output brought into the engine's form: one small module per kind of difference.

Each is a pure function of arrays with a plain NumPy twin in the tests. Which of them a net needs is decided once, when
it is opened (:mod:`engine.models.foreign`), and carried out by :class:`engine.models.net.Net`.
"""
