"""How a STAC Item says that pixels are scaled: three generations of one part of the extension."""

from __future__ import annotations

from typing import Any

from engine.models.facts.base import Facts
from engine.models.facts.checks import number, refuse, shown, table

# What can be written as (pixel - mean) / std, and the keys it needs.
LINEAR = ("min-max", "z-score", "offset", "scale", None)
OTHER = "cannot be written as scale, mean and std: do it to the images and state --scale"


def read_scaling(item: dict[str, Any], where: str) -> Facts:
    """Return scale, mean and std of one input object; no fields where it does not say or says what is not linear.

    Args:
        item: an object of ``mlm:input``: ``value_scaling`` since version 1.4, ``scaling`` in drafts of it,
            ``norm_type`` with ``statistics`` before.
        where: for messages.

    Raises:
        ContractError: a value is missing, of a wrong type, or divides by 0.
    """
    notes: dict[str, str] = {}
    function = item.get("pre_processing_function")
    if function is not None:
        expression = function.get("expression") if isinstance(function, dict) else function
        notes["preprocessing"] = f"a function of its own, {shown(expression)}, that is not run here"
    key = next((key for key in ("value_scaling", "scaling") if key in item), None)
    where = f"{where}, {key or 'statistics'}"
    if key is not None and item[key] is not None:
        steps = item[key] if isinstance(item[key], list) else [item[key]]
    elif key is not None and function is None:
        steps = [{"type": None}]  # an explicit null: no scaling
    else:
        steps = _older(item, where)
    if not 0 <= len(steps) <= 64:
        raise refuse(where, f"has {len(steps)} entries; one per channel, 64 at most, is allowed")
    steps = [table(step, where) for step in steps]
    kinds = [step.get("type") for step in steps]
    foreign = next((kind for kind in kinds if kind not in LINEAR), None)
    if foreign is not None:
        notes["scaling"] = f"{shown(foreign)} {OTHER}"
    if foreign is not None or not steps:
        return Facts(where, {}, notes)
    return Facts(where, _linear([_pair(step, where) for step in steps]), notes)


def _pair(step: dict[str, Any], where: str) -> tuple[float, float]:
    """Return what is subtracted and what is then divided by."""
    kind = step.get("type")
    if kind is None:
        return 0.0, 1.0

    def given(key: str) -> float:
        return number(step.get(key), f"{where}, {key} of {kind}")

    mean = {"min-max": "minimum", "z-score": "mean", "offset": "value"}.get(kind)
    low = given(mean) if mean else 0.0
    if kind == "min-max":
        width = given("maximum") - low
    else:
        width = given({"z-score": "stddev", "scale": "value"}[kind]) if kind in ("z-score", "scale") else 1.0
    if not abs(width) > 1e-30:
        raise refuse(where, f"{kind} divides by {width:g}; correct it")
    return low, width


def _linear(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    lows, widths = zip(*pairs, strict=True)
    if not any(lows) and len(set(widths)) == 1:
        return {"scale": 1 / widths[0], "mean": (0.0,), "std": (1.0,)}
    return {"scale": 1.0, "mean": lows, "std": widths}


def _older(item: dict[str, Any], where: str) -> list[Any]:
    """Return versions 1.0 to 1.3 in the shape of 1.4: one norm_type, statistics as one object or one per channel."""
    kind = item.get("norm_type")
    statistics = item.get("statistics")
    if kind is None or statistics is None:
        return []
    kind = kind.replace("_", "-") if isinstance(kind, str) else kind  # before 1.0: z_score
    if kind == "none" or item.get("norm_clip") or item.get("norm_with_clip_values"):
        kind = "clip" if kind != "none" else None
    if isinstance(statistics, list):
        return [{**table(entry, where), "type": kind} for entry in statistics[:65]]
    columns = {
        key: value if isinstance(value, list) else [value]
        for key, value in table(statistics, where).items()
        if value is not None and key in ("minimum", "maximum", "mean", "stddev")
    }
    length = max((len(column) for column in columns.values()), default=1)
    if any(len(column) not in (1, length) for column in columns.values()):
        raise refuse(where, "its lists have different lengths: one value per channel is needed")
    wide = {key: column * (length // len(column)) for key, column in columns.items()}
    return [{"type": kind, **{key: column[index] for key, column in wide.items()}} for index in range(min(length, 65))]
