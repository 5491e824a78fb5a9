"""Members of a pool as they stand in the plan that is written."""

from __future__ import annotations

from collections.abc import Mapping

from engine.fusion.calibration import Calibration
from engine.models.members import Member
from engine.models.net import Net
from engine.runs.plan_member import PlannedMember


def planned_members(member: Member, weight: float, calibration: Calibration) -> list[PlannedMember]:
    """Return the ``[[members]]`` tables of a member: one, or one per specialist.

    Args:
        member: the member.
        weight: its weight in the plan.
        calibration: temperature and bias of its logits.
    """
    if member.folds:
        first, files = member.nets[0], tuple(str(net.path) for net in member.nets)
        sums = tuple(net.checksum for net in member.nets)
        return [PlannedMember("", weight, first.stated, sums, class_map_of(first), calibration, files)]
    return [
        PlannedMember(str(net.path), weight, net.stated, net.checksum, class_map_of(net), calibration)
        for net in member.nets
    ]


def class_map_of(net: Net) -> Mapping[str, str] | None:
    """Return the ensemble's name of each class of a net whose classes are mapped; None where they are the same."""
    if net.onto is None or tuple(net.onto.targets) == tuple(range(len(net.onto.classes))):
        return None
    named = zip(net.contract.classes, net.onto.targets, strict=True)
    return {own: "" if target is None else net.onto.classes[target] for own, target in named}
