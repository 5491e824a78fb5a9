"""The embedded default: a seeded generator of labelled sample scenes, and small sample nets beside it."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parent
