"""The embedded default: a seeded generator of labelled sample scenes, and small sample nets beside it."""
