"""``NAME.toml`` beside ``NAME.onnx``: what a person writes down about a net whose file they leave as it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.models.facts.base import Facts
from engine.models.facts.checks import file_text, number, refuse, shown

# Means and deviations of the ImageNet training images on the scale 0..1, as torchvision states them.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALIZATIONS: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (1 / 255, *IMAGENET),
    "0..1": (1 / 255, (0.0,), (1.0,)),
    "-1..1": (1 / 255, (0.5,), (0.5,)),
    "none": (1.0, (0.0,), (1.0,)),
}
# What only a plan of an ensemble holds.
PLAN_KEYS = frozenset({"members"})
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?"
_FRACTION = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")


def normalization(name: str, origin: str = "--normalize") -> dict[str, Any]:
    """Return ``scale``, ``mean`` and ``std`` of a named way to scale raw pixels 0..255.

    Args:
        name: ``imagenet``, ``0..1``, ``-1..1`` or ``none``.
        origin: where the name stands, for messages.

    Raises:
        ContractError: another name.
    """
    if name not in NORMALIZATIONS:
        raise refuse(origin, f"{shown(name)} is unknown; known are {', '.join(NORMALIZATIONS)}")
    return dict(zip(("scale", "mean", "std"), NORMALIZATIONS[name], strict=True))


def parse_scale(text: str, origin: str = "--scale") -> float:
    """Return the number of a text: ``0.00392157`` or ``1/255``.

    Raises:
        ContractError: another text, or a number that float32 does not hold.
    """
    match = _FRACTION.fullmatch(text)
    if match is None:
        raise refuse(origin, f"{shown(text)} is no number; write 0.00392157 or 1/255")
    numerator, divisor = float(match[1]), float(match[2] or "1")
    value = numerator / divisor if divisor else 0.0
    if not value:
        raise refuse(origin, f"{shown(text)} is 0 or divides by 0; write 0.00392157 or 1/255")
    return number(value, origin)


def read_toml(path: Path) -> Facts | None:
    """Return what ``NAME.toml`` beside a model says, or None where there is none.

    It holds contract fields at its top level; ``scale`` may be the text of a fraction, ``normalize`` stands for
    ``scale``, ``mean`` and ``std``. A plan of an ensemble that happens to have this name is left alone.

    Args:
        path: the model.

    Raises:
        ContractError: it is not TOML, or a field is unknown or of a wrong type.
    """
    file = path.with_suffix(".toml")
    text = file_text(file)
    if text is None:
        return None
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(file.name, f"is not TOML ({error}): correct that line") from None
    if PLAN_KEYS & raw.keys():
        return None
    return Facts(file.name, expanded(raw, file.name))


def stated_facts(stated: Mapping[str, Any], origin: Callable[[str], str]) -> tuple[Facts, ...]:
    """Return what a user states, one origin a field, ``normalize`` standing for scale, mean and std.

    Args:
        stated: contract fields by name.
        origin: what the user calls a field, for messages.

    Raises:
        ContractError: an unknown field, a wrong type or range, or a name of a normalization beside numbers.
    """
    given = {name: value for name, value in stated.items() if value is not None}
    _check_normalization(given, origin("normalize"))
    return tuple(Facts(origin(name), expanded({name: value}, origin(name))) for name, value in given.items())


def _check_normalization(fields: Mapping[str, Any], origin: str) -> None:
    numbers = sorted({"scale", "mean", "std"} & fields.keys())
    if "normalize" in fields and numbers:
        raise refuse(origin, f"normalize and {', '.join(numbers)} are both there; keep one of them")


def expanded(raw: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return contract fields with ``normalize`` and a ``scale`` that is a text turned into numbers.

    Raises:
        ContractError: an unknown name, or both a name and numbers.
    """
    fields = {key: value for key, value in raw.items() if key != "normalize" or value is not None}
    _check_normalization(fields, origin)
    way = fields.pop("normalize", None)
    if way is not None:
        if not isinstance(way, str):
            raise refuse(f"{origin}, normalize", f"is {shown(way)}; known are {', '.join(NORMALIZATIONS)}")
        fields.update(normalization(way, f"{origin}, normalize"))
    if isinstance(fields.get("scale"), str):
        fields["scale"] = parse_scale(fields["scale"], f"{origin}, scale")
    return fields
