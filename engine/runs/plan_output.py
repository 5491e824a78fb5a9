"""The plan's ``[output]`` table: how masks are written where the name of the output does not say it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from engine.errors import PlanError


@dataclass(frozen=True)
class OutputTable:
    """What a plan states about masks; the defaults are what holds without a statement.

    Attributes:
        min_area: polygons of a smaller area are left out, in squared units of the scene's coordinate reference system.
    """

    min_area: float = 0.0

    @classmethod
    def of(cls, table: object) -> OutputTable:
        """Check a table as TOML gives it.

        Raises:
            PlanError: no table, an unknown key, or a value that is not allowed.
        """
        if not isinstance(table, dict):
            raise PlanError(f"output: {table!r} is not a table")
        unknown = [key for key in table if key != "min_area"]
        if unknown:
            raise PlanError(f"output: unknown key {unknown[0]!r}; known is min_area")
        area = table.get("min_area", 0.0)
        if isinstance(area, bool) or not isinstance(area, (int, float)) or not 0 <= area < math.inf:
            raise PlanError(f"output.min_area: {str(area)[:80]!r} does not fit; a number from 0 is needed")
        return cls(float(area))

    @property
    def stated(self) -> dict[str, Any]:
        """Return what differs from the defaults, as TOML and JSON take it."""
        return {"min_area": self.min_area} if self.min_area else {}
