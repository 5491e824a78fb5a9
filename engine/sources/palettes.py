"""Palettes: which colour of a label picture stands for which class."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.metrics import MOST_CLASSES, VOID

Colour = tuple[int, int, int]
MOST_BYTES = 1_000_000
# An entry of this name is no class: its pixels are void.
VOID_NAME = "void"


@dataclass(frozen=True)
class Palette:
    """The colours of the classes, in label order.

    Attributes:
        path: the file it was read from, as given.
        names: of the classes.
        colours: one a class, each red, green and blue from 0 to 255.
        void: colours of pixels without a class.
    """

    path: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    void: tuple[Colour, ...] = ()

    def labels(self, pixels: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the class of each pixel (255 for void), and where the colour is in no entry.

        Args:
            pixels: uint8 (..., 3), red, green, blue.
        """
        packed = _packed(pixels)
        known = _packed(np.array([*self.colours, *self.void], np.uint8))
        order = np.argsort(known)
        values = np.array([*range(len(self.colours)), *[VOID] * len(self.void)], np.uint8)[order]
        place = np.minimum(np.searchsorted(known[order], packed), len(known) - 1)
        return values[place], known[order][place] != packed

    def named(self, classes: tuple[str, ...]) -> Palette:
        """Return the palette in the order of these class names; as it is where its own names are others."""
        own = {name.casefold(): colour for name, colour in zip(self.names, self.colours, strict=True)}
        asked = [name.casefold() for name in classes]
        if set(asked) != set(own):
            return self
        return Palette(self.path, classes, tuple(own[name] for name in asked), self.void)


def read_palette(path: str) -> Palette:
    """Read lines of ``name,r,g,b`` or ``r,g,b,name``, or JSON ``{name: [r, g, b]}``.

    Commas, semicolons, tabs or blanks stand between the values. Entries are in label order; those named ``void`` are no
    classes. Lines that begin with ``#``, and a first line of names alone, are passed over.

    Raises:
        PlanError: no such file, or an entry is none; the message names the line.
    """
    file = Path(path)
    try:
        if not file.is_file() or file.stat().st_size > MOST_BYTES:
            raise PlanError(f"--palette {path}: no such file, or one of more than {MOST_BYTES} bytes")
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise PlanError(f"--palette {path[:80]} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise PlanError(f"--palette {path} is no text: give lines of name,r,g,b or JSON") from None
    entries = _from_json(path, text) if file.suffix.lower() == ".json" else _from_lines(path, text)
    classes = [(name, colour) for name, colour in entries if name.casefold() != VOID_NAME]
    void = tuple(colour for name, colour in entries if name.casefold() == VOID_NAME)
    if not 2 <= len(classes) < MOST_CLASSES:
        raise PlanError(f"--palette {path} has {len(classes)} classes; 2 to {MOST_CLASSES - 1} are allowed")
    seen: dict[Colour, str] = {}
    for name, colour in entries:
        if seen.setdefault(colour, name) != name:
            raise PlanError(f"--palette {path}: {seen[colour]} and {name} share the colour {told_colour(colour)}")
    names = tuple(name for name, _ in classes)
    if len({name.casefold() for name in names}) < len(names):
        raise PlanError(f"--palette {path}: two classes share a name: every name must be one class")
    return Palette(path, names, tuple(colour for _, colour in classes), void)


def told_colour(colour: Any) -> str:
    """Return a colour as ``(128, 64, 0)``."""
    return f"({', '.join(str(int(value)) for value in colour)})"


def _packed(pixels: NDArray[Any]) -> NDArray[np.int64]:
    wide = pixels.astype(np.int64)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _from_json(path: str, text: str) -> list[tuple[str, Colour]]:
    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"--palette {path} is not JSON ({error}): give {{name: [r, g, b]}}") from None
    if not isinstance(held, dict):
        raise PlanError(f"--palette {path}: give {{name: [r, g, b]}}")
    entries = []
    for name, value in held.items():
        if not isinstance(value, list) or not _is_colour(value):
            raise PlanError(f"--palette {path}: {name[:40]} has no colour of three whole numbers from 0 to 255")
        entries.append((name, (value[0], value[1], value[2])))
    return entries


def _from_lines(path: str, text: str) -> list[tuple[str, Colour]]:
    entries = []
    first = True
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        cells = [cell.strip() for cell in re.split("[,;]", line)] if re.search("[,;]", line) else line.split()
        found = _entry(cells)
        if found is None and not (first and not any(cell.isdecimal() for cell in cells)):
            raise PlanError(
                f"--palette {path} line {number}: {line.strip()[:60]!r} is no entry; name,r,g,b or r,g,b,name with "
                "whole numbers from 0 to 255 is allowed"
            )
        if found is not None:
            entries.append(found)
        first = False
    return entries


def _entry(cells: list[str]) -> tuple[str, Colour] | None:
    if len(cells) < 4:
        return None
    for colour, name in ((cells[-3:], cells[:-3]), (cells[:3], cells[3:])):
        if all(cell.isascii() and cell.isdecimal() and len(cell) <= 3 for cell in colour):
            values = [int(cell) for cell in colour]
            if _is_colour(values) and " ".join(name).strip():
                return " ".join(name).strip(), (values[0], values[1], values[2])
    return None


def _is_colour(values: list[Any]) -> bool:
    return len(values) == 3 and all(type(value) is int and 0 <= value <= 255 for value in values)
