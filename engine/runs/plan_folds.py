"""Members of a plan that name the nets of a cross-validation: their files found, their nets made one member."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.errors import PlanError
from engine.models.folds import fold_member
from engine.models.members import Member, find_models
from engine.models.net import Net
from engine.runs.plan_member import PlannedMember


def add_folds(files: dict[Path, tuple[Path, PlannedMember]], item: PlannedMember) -> None:
    """Add the files of a member with folds to those of a plan.

    Raises:
        InputError: a name that fits no file.
        PlanError: a name that fits several, or a file that another member has.
    """
    for name in item.folds:
        found = find_models([name])
        if len(found) > 1:
            raise PlanError(f"folds: {name} names {len(found)} files: name one net per fold")
        if found[0].resolve() in files:
            raise named_again(found[0])
        files[found[0].resolve()] = (found[0], item)


def named_again(path: Path) -> PlanError:
    """Return the error of a file of a fold that a plan names twice."""
    return PlanError(f"folds: {path} is named twice in the plan: a net counts in one member alone, take it out of one")


def digests(items: Sequence[PlannedMember]) -> Iterator[str]:
    """Yield the checksum that a plan states for each file, by the member that names it; empty for none."""
    for place, item in enumerate(items):
        if isinstance(item.sha256, str):
            yield item.sha256
        else:
            yield item.sha256[sum(other is item for other in items[:place])]


def with_folds(
    nets: Sequence[Net | Member], items: Sequence[PlannedMember]
) -> tuple[list[Net | Member], list[PlannedMember]]:
    """Return nets with those of folds gathered into members, and the planned member of each.

    Raises:
        ContractError: nets of folds that cannot be one member.
    """
    found: list[Net | Member] = []
    kept: list[PlannedMember] = []
    for net, item in zip(nets, items, strict=True):
        if not item.folds:
            found.append(net)
            kept.append(item)
        elif not any(item is other for other in kept):
            own = [other for other, held in zip(nets, items, strict=True) if held is item and isinstance(other, Net)]
            found.append(fold_member(own))
            kept.append(item)
    return found, kept
