"""The embedded default: a seeded generator of labelled sample scenes, and small sample nets."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parent
