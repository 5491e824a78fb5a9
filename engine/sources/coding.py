"""How true label maps are stored: ids or colours of the classes, and the values that are void (no class at all)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.metrics import MOST_CLASSES, VOID
from engine.sources.base import Source
from engine.sources.palettes import Palette, read_palette, told_colour

MOST_ID = 2**31 - 1
# So many of the ids that were seen are listed.
MOST_SHOWN = 12


@dataclass(frozen=True)
class LabelCoding:
    """What label maps hold in place of 0 to classes - 1.

    Attributes:
        void: a value whose pixels have no class; None for 255 alone (where that is no class).
        ids: the stored value of each class, in label order; empty where they are 0 to classes - 1.
        palette: the colour of each class; None where label maps hold numbers.
        output_ids: whether masks are written with ``ids`` in place of 0 to classes - 1.
        no_data: further values whose pixels have no class: what files state for pixels without data.
        unknown: a value that stays as it is: of masks, what pixels without a class hold that are too doubtful for one.
    """

    void: int | None = None
    ids: tuple[int, ...] = ()
    palette: Palette | None = None
    output_ids: bool = False
    no_data: tuple[int, ...] = ()
    unknown: int | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            PlanError: ids that appear twice or are no 32-bit integers, void that is a class, ids beside a palette.
        """
        if self.ids and self.palette is not None:
            raise PlanError("--label-ids and --palette: a palette already gives each colour its class, leave one out")
        for value in (*self.ids, *(() if self.void is None else (self.void,))):
            if abs(value) > MOST_ID:
                raise PlanError(f"a label map holds no {value}: ids and void lie within -{MOST_ID} to {MOST_ID}")
        if self.ids and not 2 <= len(self.ids) <= MOST_CLASSES:
            raise PlanError(f"--label-ids: {len(self.ids)} ids; 2 to {MOST_CLASSES} are allowed, one for each class")
        if len(set(self.ids)) < len(self.ids):
            raise PlanError(f"--label-ids {_listed(self.ids)}: an id appears twice; each class has an id of its own")
        if self.void in self.ids:
            raise PlanError(f"--void {self.void} is a class in --label-ids {_listed(self.ids)}: take it out of one")
        if self.output_ids and not self.ids:
            raise PlanError("output_ids without ids: state the id of each class, as in ids = [0, 7, 11]")
        if self.output_ids and not all(0 <= value <= 255 for value in self.ids):
            raise PlanError(f"output_ids: masks are 8-bit, so ids must lie in 0 to 255; there are {_listed(self.ids)}")

    @property
    def is_plain(self) -> bool:
        """Return whether label maps hold what :func:`engine.sources.labels.as_labels` takes by itself."""
        return self.leaves_255_open and not self.no_data

    @property
    def leaves_255_open(self) -> bool:
        """Return whether nothing says what 255 is: a class, or void."""
        return self.void is None and not self.ids and self.palette is None and VOID not in self.no_data

    def over(self, other: LabelCoding) -> LabelCoding:
        """Return this coding with what it does not state from another."""
        own = self.ids or self.palette is not None
        return LabelCoding(
            other.void if self.void is None else self.void,
            self.ids if own else other.ids,
            self.palette if own else other.palette,
            (self.output_ids or other.output_ids) and bool(self.ids if own else other.ids),
            tuple(sorted({*self.no_data, *other.no_data})),
            other.unknown if self.unknown is None else self.unknown,
        )

    def for_classes(self, classes: Sequence[str]) -> LabelCoding:
        """Return the coding for these classes: a palette with exactly their names is brought into their order.

        Raises:
            PlanError: another number of ids or colours, a void value that is a class, or one beside 256 classes.
        """
        count = len(classes)
        if self.ids and len(self.ids) != count:
            raise PlanError(f"--label-ids {_listed(self.ids)}: {len(self.ids)} ids for {count} classes; give one each")
        if self.palette is not None and len(self.palette.names) != count:
            raise PlanError(
                f"--palette {self.palette.path} has {len(self.palette.names)} classes, the models have {count}: give "
                "each class one colour, and call colours without a class void"
            )
        if self.void is not None and not self.ids and 0 <= self.void < count:
            raise PlanError(f"--void {self.void} is class {self.void} ({classes[self.void]}): void is no class")
        if self.void is not None and count >= MOST_CLASSES:
            raise PlanError(f"--void {self.void} with {count} classes: beside a void value {MOST_CLASSES - 1} fit")
        return self if self.palette is None else replace(self, palette=self.palette.named(tuple(classes)))

    def decode(self, maps: NDArray[Any], name: str, ids: Sequence[str]) -> NDArray[Any]:
        """Return stored label maps as class numbers, with 255 for void.

        Args:
            maps: (batch, height, width, channels) as stored.
            name: what messages call them.
            ids: (batch,) their names.

        Returns:
            (batch, height, width, 1); uint8 with ids or a palette, of the stored type or int64 without.

        Raises:
            InputError: a value or colour that stands for no class; the message names it and the map.
        """
        if self.palette is not None:
            return self._decode_colours(maps, self.palette, name, ids)
        if not self.ids:
            void = maps.dtype.type(VOID) if maps.dtype.kind in "uf" else np.int64(VOID)
            gone = {*self.no_data, *(() if self.void is None else (self.void,))} - {VOID}
            return np.where(np.isin(maps, sorted(gone)), void, maps) if gone else maps
        unknown = [] if self.unknown is None else [self.unknown]
        stored = np.array([*self.ids, *self._void_values(), *unknown], np.int64)
        values = np.array([*range(len(self.ids)), *[VOID] * len(self._void_values()), *unknown], np.uint8)
        order = np.argsort(stored)
        place = np.minimum(np.searchsorted(stored[order], maps), len(stored) - 1)
        wrong = stored[order][place] != maps
        if wrong.any():
            first = np.argwhere(wrong)[0]
            raise InputError(
                f"{name}: label map {ids[first[0]]} holds {maps[tuple(first)]}, which is none of --label-ids "
                f"{_listed(self.ids)}; seen are {seen_values(maps)}: add its class, or --void {maps[tuple(first)]}"
            )
        return values[order][place]

    def void_value(self, classes: int) -> int | None:
        """Return the value that tables call void: the stated one, or 255 where it is no class; None for a palette."""
        if self.void is not None:
            return self.void
        return VOID if self.palette is None and VOID not in self.ids and classes < MOST_CLASSES else None

    def told_void(self, classes: int) -> str:
        """Return what is void, in words for tables; empty where nothing can be."""
        if self.palette is not None and self.palette.void:
            return ", ".join(told_colour(colour) for colour in self.palette.void)
        value = self.void_value(classes)
        stated = () if value is None else (value,) if value == VOID or self.ids else (value, VOID)
        return ", ".join(map(str, dict.fromkeys((*stated, *self.no_data))))

    @property
    def record(self) -> dict[str, Any]:
        """Return what the record of a result says about label maps, as plain JSON types."""
        held: dict[str, Any] = {"void": self.void, "ids": list(self.ids), "output_ids": self.output_ids}
        return held if self.palette is None else {**held, "palette": [list(colour) for colour in self.palette.colours]}

    @property
    def output_table(self) -> NDArray[np.uint8] | None:
        """Return uint8 (256,): what masks hold for each class number; None for the number itself."""
        if not self.output_ids:
            return None
        table = np.arange(MOST_CLASSES).astype(np.uint8)
        table[: len(self.ids)] = self.ids
        return table

    def output_classes(self, classes: int) -> int:
        """Return how many values masks can hold, from 0 on, given the number of classes."""
        return max(self.ids) + 1 if self.output_ids else classes

    def _void_values(self) -> tuple[int, ...]:
        held = tuple(dict.fromkeys((*(() if self.void is None else (self.void,)), *self.no_data)))
        return held if VOID in (*self.ids, *held) or len(self.ids) == MOST_CLASSES else (*held, VOID)

    def _decode_colours(self, maps: NDArray[Any], palette: Palette, name: str, ids: Sequence[str]) -> NDArray[np.uint8]:
        if maps.shape[-1] != 3 or maps.dtype != np.uint8:
            raise InputError(
                f"{name} holds {maps.dtype} maps of {maps.shape[-1]} channel{'s' * (maps.shape[-1] > 1)}; --palette "
                "needs 8-bit red, green and blue: leave --palette out for maps of numbers"
            )
        labels, unknown = palette.labels(maps)
        if unknown.any():
            first = tuple(np.argwhere(unknown)[0])
            raise InputError(
                f"{name}: label map {ids[first[0]]} holds the colour {told_colour(maps[first])} in row {first[1]}, "
                f"column {first[2]}, which is not in {palette.path}: add it (as void where it is no class)"
            )
        return labels[..., None]


PLAIN = LabelCoding()


def told_left_out(ignored_class: int | None, classes: Sequence[str], void: str, void_pixels: int) -> str:
    """Say in one line which class a score leaves out, and what was void.

    Args:
        ignored_class: the class that conventions leave out, or None.
        classes: their names.
        void: what is void, see :meth:`LabelCoding.told_void`.
        void_pixels: how many pixels were.
    """
    ignored = "none" if ignored_class is None else str(ignored_class)
    if ignored_class is not None and classes[ignored_class] not in ("", f"class {ignored_class}"):
        ignored += f" ({classes[ignored_class]})"
    pixels = f"{void} ({void_pixels:,} pixel{'s' * (void_pixels != 1)}, not counted)" if void_pixels else "no pixels"
    return f"ignored class: {ignored}; void: {pixels}"


def label_coding(void: int | None = None, label_ids: str = "", palette: str = "") -> LabelCoding:
    """Return the coding that ``--void``, ``--label-ids`` and ``--palette`` state.

    Raises:
        PlanError: one of them cannot be read, or they contradict each other.
    """
    ids: tuple[int, ...] = ()
    if label_ids:
        try:
            ids = tuple(int(part) for part in label_ids.split(","))
        except ValueError:
            raise PlanError(
                f"--label-ids {label_ids[:60]}: give the id of each class in label order, as in 0,7,11"
            ) from None
    return LabelCoding(void, ids, read_palette(palette) if palette else None)


def coded(source: Source, coding: LabelCoding) -> Source:
    """Return label maps with class numbers in place of what is stored."""
    if coding.is_plain:
        return source

    def read(count: int) -> Iterator[NDArray[Any]]:
        start = 0
        for maps in source.read(count):
            yield coding.decode(maps, source.name, source.ids[start : start + len(maps)])
            start += len(maps)

    stored = source.at
    at = None
    if stored is not None:

        def at(start: int, stop: int) -> NDArray[Any]:
            return coding.decode(stored(start, stop), source.name, source.ids[start:stop])

    return replace(source, read=read, at=at, channels=1)


def check_values(seen: NDArray[Any], name: str) -> None:
    """Refuse label maps that hold 0 and 255 and nothing else: 255 may be a class there, or void.

    Args:
        seen: all values of a whole set.
        name: what messages call it.

    Raises:
        InputError: naming both options.
    """
    if set(np.asarray(seen).tolist()) == {0, VOID}:
        raise InputError(
            f"{name} holds the ids 0 and 255 alone: add --label-ids 0,255 where 255 is class 1, or --void 255 where it "
            "is no class"
        )


def seen_values(maps: NDArray[Any]) -> str:
    """Return the values of some label maps as a list for messages."""
    found = np.unique(maps[~np.isnan(maps)] if maps.dtype.kind == "f" else maps)
    told = _listed(found[:MOST_SHOWN].tolist(), ", ")
    return told if len(found) <= MOST_SHOWN else f"{told} and {len(found) - MOST_SHOWN} more"


def _listed(values: Sequence[float], between: str = ",") -> str:
    return between.join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
