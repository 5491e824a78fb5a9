"""The plan's ``[input]`` table: how images are read where the data does not say it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from engine.errors import PlanError
from engine.inference.tiles.grid import parse_tile
from engine.sources.reading import EXIF, LAYOUTS

RESOLUTION = ("apply", "ignore")


@dataclass(frozen=True)
class InputTable:
    """What a plan states about images; the defaults are what holds without a statement.

    Attributes:
        layout: axes of an array of images, out of :data:`engine.sources.reading.LAYOUTS`; empty to find them.
        exif: ``apply`` or ``ignore`` the EXIF orientation of pictures.
        rgb_as_grey: whether RGB images become grey by ITU-R BT.601.
        alpha: whether the last band of a raster says which pixels hold data, and is no band of the picture.
        resolution: ``apply`` the ground resolution that members state, or ``ignore`` it.
        tile: ``HEIGHTxWIDTH`` of the tiles that images are cut into, as ``--tile``; empty for whole images.
        stitch: whether overlapping images are put back together before they are cut into tiles, as ``--stitch``.
    """

    layout: str = ""
    exif: str = "apply"
    rgb_as_grey: bool = False
    alpha: bool = False
    resolution: str = "apply"
    tile: str = ""
    stitch: bool = False

    @classmethod
    def of(cls, table: object) -> InputTable:
        """Check a table as TOML gives it.

        Raises:
            PlanError: no table, an unknown key, or a value that is not allowed.
        """
        if not isinstance(table, dict):
            raise PlanError(f"input: {table!r} is not a table")
        known = asdict(cls())
        for key, value in table.items():
            if key not in known:
                raise PlanError(f"input: unknown key {key!r}; known are {', '.join(sorted(known))}")
            allowed = {"layout": LAYOUTS, "exif": EXIF, "resolution": RESOLUTION}.get(key)
            if allowed is not None and value not in allowed:
                raise PlanError(f"input.{key}: {str(value)[:80]!r} is unknown; allowed are {', '.join(allowed)}")
            if key == "tile":
                if not isinstance(value, str):
                    raise PlanError(f'input.tile: {str(value)[:80]} is not a text; give one as in "64x128"')
                parse_tile(value, "input.tile")
            elif allowed is None and not isinstance(value, bool):
                raise PlanError(f"input.{key}: {str(value)[:80]!r} is unknown; allowed are true and false")
        if table.get("stitch") and not table.get("tile"):
            raise PlanError('input.stitch: say how large tiles of the pictures are, as in tile = "128x256"')
        return cls(**table)

    @property
    def stated(self) -> dict[str, Any]:
        """Return what differs from the defaults, as TOML and JSON take it."""
        defaults = asdict(type(self)())
        return {key: value for key, value in asdict(self).items() if value != defaults[key]}
