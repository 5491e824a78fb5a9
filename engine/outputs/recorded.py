"""What is known of masks that are to be scored: what the options state, else what their record says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from engine.errors import InputError, PlanError
from engine.fusion.doubt import UNKNOWN
from engine.metrics import MOST_CLASSES, VOID
from engine.sources.coding import PLAIN, LabelCoding
from engine.sources.labels import open_labels
from engine.sources.places import with_nodata
from engine.sources.record import read_record
from engine.sources.spec import is_url, split_key
from engine.utils import console

BATCH = 64


@dataclass(frozen=True)
class Known:
    """What is known.

    Attributes:
        names: of the classes; empty where nobody says.
        ignored_class: the class that scores leave out, or None.
        truth: what the true masks hold.
        masks: what the masks hold.
        unknown: the record of unknown pixels, see :attr:`engine.fusion.doubt.Unknown.record`; empty where none can be.
    """

    names: tuple[str, ...]
    ignored_class: int | None
    truth: LabelCoding
    masks: LabelCoding
    unknown: Mapping[str, Any] = field(default_factory=dict)


def known_facts(predicted: str, classes: str, ignored_class: str, coding: LabelCoding, labels: str = "") -> Known:
    """Gather what is known of masks, and say where options and record contradict each other.

    Args:
        predicted: the masks, as options name them.
        classes: names separated by commas, or their number; empty where not stated.
        ignored_class: id, or ``none``; empty where not stated.
        coding: what is stated about the true masks.
        labels: the true masks, as options name them: rasters state values for pixels without data.

    Raises:
        PlanError: impossible options, or options that do not fit the classes.
        InputError: the masks cannot be read.
    """
    record = {} if is_url(predicted) else read_record(split_key(predicted)[0])
    recorded = _recorded_names(record)
    names = _names(classes)
    if names and recorded and len(names) == len(recorded) and classes.isdecimal():
        names = recorded
    elif names and recorded and names != recorded:
        _contradiction(predicted, f"--classes {classes[:60]}", f"classes {','.join(recorded)}")
    names = names or recorded
    written = _recorded_coding(record)
    _check_coding(predicted, coding, written)
    truth = coding.over(replace(written, output_ids=False))
    if not names and truth.palette is not None:
        names = truth.palette.names
    if not names and truth.ids:
        names = tuple(f"id {value}" for value in truth.ids)
    ignored = _ignored(predicted, ignored_class, record)
    if names and ignored is not None and ignored >= len(names):
        raise PlanError(f"--ignored-class {ignored}: there are {len(names)} classes, 0 to {len(names) - 1}")
    if names:
        truth = truth.for_classes(names)
    if labels:
        truth = with_nodata(truth, labels, len(names))
    unknown: Mapping[str, Any] = {}
    if record:
        masks = LabelCoding(None, written.ids) if written.output_ids else PLAIN
        unknown = _recorded_unknown(record)
        masks = replace(masks, no_data=_recorded_no_data(record), unknown=unknown.get("value"))
    else:
        masks = _coding_of_masks(predicted, truth, len(names))
    return Known(names, ignored, truth, with_nodata(masks, predicted, len(names)), unknown)


def _recorded_names(record: Mapping[str, Any]) -> tuple[str, ...]:
    held = record.get("classes")
    fits = isinstance(held, list) and all(isinstance(name, str) for name in held) and 2 <= len(held) <= MOST_CLASSES
    return tuple(held) if fits and held is not None else ()


def _recorded_no_data(record: Mapping[str, Any]) -> tuple[int, ...]:
    held = record.get("no_data")
    return tuple(held) if isinstance(held, list) and all(type(value) is int for value in held) else ()


def _recorded_unknown(record: Mapping[str, Any]) -> Mapping[str, Any]:
    held = record.get("unknown")
    return held if isinstance(held, dict) and held.get("value") == UNKNOWN else {}


def _recorded_coding(record: Mapping[str, Any]) -> LabelCoding:
    held = record.get("labels")
    if not isinstance(held, dict):
        return PLAIN
    ids, void = held.get("ids"), held.get("void")
    ids = tuple(ids) if isinstance(ids, list) and all(type(value) is int for value in ids) else ()
    try:
        return LabelCoding(void if type(void) is int else None, ids, None, held.get("output_ids") is True and bool(ids))
    except PlanError:
        return PLAIN


def _check_coding(predicted: str, coding: LabelCoding, written: LabelCoding) -> None:
    if coding.ids and written.ids and coding.ids != written.ids:
        stated, held = (",".join(map(str, ids)) for ids in (coding.ids, written.ids))
        _contradiction(predicted, f"--label-ids {stated}", f"ids {held}")
    if coding.void is not None and written.void is not None and coding.void != written.void:
        _contradiction(predicted, f"--void {coding.void}", f"void {written.void}")


def _ignored(predicted: str, text: str, record: Mapping[str, Any]) -> int | None:
    held = record.get("ignored_class")
    told = "ignored_class" in record and (held is None or (type(held) is int and 0 <= held < MOST_CLASSES))
    if not text:
        return held if told else 0
    stated = None if text == "none" else _whole(text)
    if text != "none" and (stated is None or stated >= MOST_CLASSES):
        raise PlanError(f"--ignored-class {text[:40]}: give a class id from 0 to {MOST_CLASSES - 1}, or none")
    if told and held != stated:
        _contradiction(predicted, f"--ignored-class {text}", f"ignored class {'none' if held is None else held}")
    return stated


def _contradiction(predicted: str, option: str, recorded: str) -> None:
    console.say(f"{option} is used, though the record of {predicted} says {recorded}")


def _coding_of_masks(predicted: str, truth: LabelCoding, classes: int) -> LabelCoding:
    """Return what masks without a record hold: class numbers, or what the truth holds; which of them is said."""
    if truth.palette is not None:
        try:
            open_labels(predicted, any_size=True)
        except InputError:
            console.say(f"{predicted} has no record; its colours are read by --palette, as the truth's are")
            return truth
        return PLAIN
    if not truth.ids:
        return LabelCoding(truth.void)
    values = set(range(classes))
    for batch in open_labels(predicted, any_size=True).batches(BATCH):
        seen = set(np.unique(batch.pixels).tolist()) - {truth.void, VOID if VOID not in truth.ids else None}
        if seen - values:
            break
        if seen - set(truth.ids):
            console.say(f"{predicted} has no record; its values are taken as class numbers, as some are no --label-ids")
            return PLAIN
    console.say(f"{predicted} has no record; its values are taken as --label-ids, as the truth's are")
    return truth


def _whole(text: str) -> int | None:
    """Return the whole number a text of at most four digits stands for, or None."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 4 else None


def _names(classes: str) -> tuple[str, ...]:
    if not classes:
        return ()
    count = _whole(classes)
    names = tuple(classes.split(",")) if count is None else tuple(f"class {index}" for index in range(count))
    if not 2 <= len(names) <= MOST_CLASSES:
        raise PlanError(f"--classes {classes[:40]}: give their names or their number, 2 to {MOST_CLASSES} of them")
    return names
