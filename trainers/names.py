"""The names that a run may give, known before Keras is imported, which takes seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from engine.errors import PlanError

ARCHITECTURES = (
    "unet",
    "unet_plus_plus",
    "pan",
    "double_unet",
    "transformer_unet",
    "residual_attention_unet",
    "one_class",
)
#: Architectures that predict one class against the rest.
SPECIALISTS = ("one_class",)
PRESETS = ("tiny", "small", "base", "large")
LOSSES = ("cross-entropy", "weighted-cross-entropy", "dice", "focal", "boundary")
#: The cross-entropy of a specialist is always weighted: its two sides are never balanced.
SPECIALIST_LOSSES = tuple(name for name in LOSSES if name != "weighted-cross-entropy")

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"(?:(?P<before>{_NUMBER})\s*\*\s*)?(?P<name>[a-z][a-z-]*)(?:\s*\*\s*(?P<after>{_NUMBER}))?")
#: A plus that joins terms; that of an exponent follows an e and a digit or a point before it.
_PLUS = re.compile(r"(?<![\d.][eE])\+")


def check_name(name: str) -> None:
    """Refuse an architecture that does not exist.

    Raises:
        PlanError: the message lists the known ones.
    """
    if name not in ARCHITECTURES:
        raise PlanError(f"architecture: {name!r} is unknown; choose one of {', '.join(ARCHITECTURES)}")


def check_architecture(name: str, class_id: int | None) -> None:
    """Refuse an architecture that does not exist, or a class that does not go with it.

    Args:
        name: its name.
        class_id: the class of a specialist; None for a network of all classes.

    Raises:
        PlanError: the message lists the known ones, or says whether a class is needed.
    """
    check_name(name)
    specialist = name in SPECIALISTS
    if specialist != (class_id is not None):
        wanted = "needs --class-id, the class it predicts" if specialist else "predicts all classes: omit --class-id"
        raise PlanError(f"{name} {wanted}")


def check_preset(name: str, preset: str) -> None:
    """Refuse a size of an architecture that does not exist.

    Raises:
        PlanError: the message lists the known ones.
    """
    if preset not in PRESETS:
        raise PlanError(f"preset: {preset!r} is unknown for {name}; choose one of {', '.join(PRESETS)}")


def parse_loss(expression: str, known: Collection[str]) -> list[tuple[float, str]]:
    """Return the (coefficient, name) pairs of an expression like ``dice+0.5*focal``, in order.

    Terms are joined by ``+``; a term is a name, or a name and a number above 0 joined by ``*``, in either order.

    Args:
        expression: the text; spaces do not matter.
        known: the names that are allowed.

    Raises:
        PlanError: the text is no such sum, a name is unknown or occurs twice, or a number is not above 0 and finite.
    """
    listed = ", ".join(known)
    pairs: list[tuple[float, str]] = []
    for text in (part.strip() for part in _PLUS.split(expression)):
        found = _TERM.fullmatch(text)
        if found is None or (found["before"] and found["after"]):
            raise PlanError(
                f"loss: {expression!r} does not parse at {text!r}; write a sum such as dice+0.5*focal of {listed}"
            )
        name, weight = found["name"], float(found["before"] or found["after"] or 1.0)
        if name not in known:
            raise PlanError(f"loss: {name!r} is unknown; choose one of {listed}, or a sum such as dice+0.5*focal")
        if not 0 < weight < math.inf:
            raise PlanError(f"loss: {text!r} has the coefficient {weight:g}; it must be above 0 and finite")
        if name in (other for _, other in pairs):
            raise PlanError(f"loss: {expression!r} names {name} twice; add up its coefficients")
        pairs.append((weight, name))
    return pairs
