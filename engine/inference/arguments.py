"""What an ensemble's arguments may be, given its members: refused in one line before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.errors import PlanError, option
from engine.fusion.calibration import Calibration
from engine.fusion.cleanup import ClassCleanup, read_cleanup
from engine.fusion.decoding import Decoding
from engine.fusion.strategies import STRATEGIES
from engine.inference.early_exit import EarlyExit
from engine.inference.mask_members import MaskMember
from engine.models.members import Member, class_number, label_members
from engine.models.views import VIEW_MEANS, View, named_views

if TYPE_CHECKING:
    from engine.inference.ensemble import Ensemble

# Labels have neither scores nor probabilities: only strategies that count labels accept members that output them.
LABEL_STRATEGIES = ("vote", "staple")


def cleanup_of(table: Mapping[int | str, Any], names: Sequence[str]) -> tuple[ClassCleanup, ...]:
    """Return the clean-up of each class that a table names, in the order of the classes."""
    found = [replace(read_cleanup(str(key), own), class_id=_class_id(key, names)) for key, own in table.items()]
    return tuple(sorted((item for item in found if item.stated), key=lambda item: item.class_id))


def _class_id(key: int | str, names: Sequence[str]) -> int:
    class_id = class_number(key, names)
    if not 0 <= class_id < len(names):
        raise PlanError(f"clean-up of class {class_id}: there are {len(names)} classes, 0 to {len(names) - 1}")
    return class_id


def views_of(views: str | Sequence[str], flips: str, view_mean: str) -> tuple[View, ...]:
    """Return the views that two arguments name, one of which says nothing, the image itself first."""
    if flips != "none" and len(named_views(views)) > 1:
        raise PlanError(f"views {views} and flips {flips}: flips are views too; give views alone")
    if view_mean not in VIEW_MEANS:
        raise PlanError(f"view mean {view_mean[:40]!r}; allowed are {' and '.join(VIEW_MEANS)}")
    return named_views(views if flips == "none" else flips)


def check_untouched(
    name: str, strategy: str, weights: object, suppress: object, views: Sequence[View], decoding: Mapping[str, Any]
) -> None:
    """Refuse options that a packed ensemble has built in."""
    given = weights is not None or suppress is not None or (strategy, len(views)) != ("mean-logit", 1)
    built_in = Decoding(**{**decoding, "min_region": 0})
    if given or built_in.has_thresholds or replace(built_in, cleanup=()) != Decoding():
        raise PlanError(
            f"{name} is a packed ensemble: strategy, weights, suppression and biases are built in; "
            "leave those options out, or name its members instead"
        )


def check_calibrations(members: Sequence[Member], calibrations: Sequence[Calibration], classes: int) -> None:
    """Refuse calibrations of members that have no logits of classes, and such that do not fit."""
    if calibrations and len(calibrations) != len(members):
        raise PlanError(f"{len(calibrations)} calibrations for {len(members)} members: give one per member")
    for member, calibration in zip(members, calibrations, strict=False):
        if calibration and member.contract.kind in ("labels", "packed", "multilabel"):
            raise PlanError(f"{member.name} is {member.contract.kind}: it has no temperature and bias, leave them out")
        calibration.check(classes, member.name)


def check_exclusive(ensemble: Ensemble) -> None:
    """Refuse multi-label members where one label per pixel is scored.

    Raises:
        PlanError: naming the first of them.
    """
    if ensemble.is_multilabel:
        raise PlanError(
            f"{ensemble.members[0].name} is multi-label, which is not scored here: score its masks with engine evaluate"
        )


def left_out(members: Sequence[Member]) -> str:
    """Say which strategies are left out because a member outputs labels; nothing where none does."""
    if not (names := label_members(members)):
        return ""
    others = ", ".join(name for name in STRATEGIES if name not in LABEL_STRATEGIES)
    return f"left out: {others}; {names[0]} outputs labels, which have no probabilities"


def check_label_members(
    members: Sequence[Member], strategy: str, suppress: Collection[int], views: Sequence[View], decoding: dict[str, Any]
) -> None:
    """Refuse what members that output labels do not support; their votes for a suppressed class are not counted.

    Among the allowed classes such a member has no second choice, so votes are counted first and replaced afterwards.
    """
    names = label_members(members)
    if not names:
        return
    if strategy not in LABEL_STRATEGIES:
        allowed = " or ".join(option("strategy", name) for name in LABEL_STRATEGIES)
        raise PlanError(f"{names[0]} outputs labels, which {strategy} cannot fuse: use {allowed}")
    if decoding.get("decode", "argmax") != "argmax":
        raise PlanError(f"{names[0]} outputs labels, which have no probabilities: leave out {option('decode')}")
    if any(item.threshold for item in decoding.get("cleanup", ())):
        raise PlanError(f"{names[0]} outputs labels, which have no probabilities: leave out a threshold per class")
    if len(views) > 1:
        raise PlanError(f"{names[0]} outputs labels, which have no mean over views: leave out {option('views')}")
    if suppress and len(names) == len(members):
        raise PlanError(
            f"{', '.join(names[:8])}: labels alone hold no second choice for a suppressed class: suppress none, or add "
            "a member that outputs maps"
        )
    if suppress and decoding.setdefault("vote_stage", "fused") != "fused":
        raise PlanError(
            f"{names[0]} outputs labels, so it has no second choice for a suppressed class: use "
            f"{option('vote_stage', 'fused')}"
        )


def check_all_run(members: Sequence[Member]) -> None:
    """Refuse early exit for members that are read, not run: they cost nothing that it could save."""
    masks = next((member.name for member in members if isinstance(member, MaskMember)), None)
    if masks is not None:
        raise PlanError(f"{masks} holds finished masks, which cost nothing to run: leave out {option('early_exit')}")


def check_multilabel(suppress: Collection[int], decoding: Mapping[str, Any], early_exit: EarlyExit | None) -> None:
    """Refuse what has no meaning where each class is decided by itself."""
    stated = {name for name in ("bias", "prior", "threshold") if decoding.get(name)}
    stated |= {"suppress"} if suppress else set()
    stated |= {"decode"} if decoding.get("decode", "argmax") != "argmax" else set()
    stated |= {"early_exit"} if early_exit is not None else set()
    stated |= {"cleanup"} if decoding.get("cleanup") else set()
    if stated:
        named = ", ".join(option(name) for name in sorted(stated))
        raise PlanError(
            f"multi-label members decide each class by itself: leave out {named}; their thresholds go into the net's "
            "TOML file, as thresholds = [0.5, 0.3]"
        )
