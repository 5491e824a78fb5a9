"""What metadata and files beside a net say of it, one small reader per origin; all of it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.models.facts.base import Facts


def read_facts(path: Path, metadata: Mapping[str, str]) -> list[Facts]:
    """Return what is said of a net that carries no contract of ours, the more exact origins first."""
    return []
