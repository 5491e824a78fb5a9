"""The options of a command, what they name, and how they override those of a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import EngineError, PlanError, option
from engine.models.facts import Facts, stated_facts
from engine.models.members import find_members, find_models, holds_masks
from engine.models.opening import inspect_net
from engine.runs.evidence_files import EvidenceFiles
from engine.runs.plan import Plan, read_plan
from engine.runs.plan_folds import add_folds, named_again
from engine.runs.plan_input import InputTable
from engine.runs.plan_member import PlannedMember
from engine.sources.coding import PLAIN, LabelCoding
from engine.sources.reading import Reading, Taken
from engine.sources.zarr_chunks import check_missing


@dataclass(frozen=True)
class Options:
    """The user's options; empty or None means: not given."""

    models: Sequence[str] = ()
    input: str = ""
    output: Path | None = None
    plan: Path | None = None
    labels: str = ""
    strategy: str | None = None
    weights: str = ""
    suppress: Sequence[str] = ()
    no_suppress: bool = False
    vote_stage: str | None = None
    bias: str = ""
    prior: str = ""
    threshold: float | None = None
    min_region: int | None = None
    decode: str | None = None
    unknown: float | None = None
    views: str | None = None
    early_exit: bool = False
    early_exit_agreement: float | None = None
    limit: int = 0
    preview: Path | None = None
    overwrite: bool = False
    grey_as_rgb: bool = False
    image_layout: str = ""
    missing_chunks: str = ""
    resume: bool = False
    on_bad_image: str = "fail"
    rle: str = ""
    align: bool = False
    stated: dict[str, Any] = field(default_factory=dict)
    tiled: bool = False
    stitch: bool = False
    out_of_fold: bool = False
    files: EvidenceFiles = field(default_factory=EvidenceFiles)
    truth: LabelCoding = PLAIN


def planned(options: Options) -> Plan | None:
    """Return the plan named by ``--plan`` or ``--models``; None if neither is given.

    Raises:
        EngineError: both are given, or the plan cannot be read.
    """
    if options.plan is not None:
        if options.models:
            raise PlanError("--plan and --models: give one of them")
        return read_plan(options.plan)
    return Plan(tuple(PlannedMember(spec) for spec in options.models)) if options.models else None


def input_table(plan: Plan, options: Options) -> InputTable:
    """Return what is stated about images: the plan's table, with the options of the command line over it."""
    table = replace(plan.input, layout=options.image_layout) if options.image_layout else plan.input
    return replace(table, stitch=True) if options.stitch else table


def reading_of(plan: Plan, options: Options) -> Reading:
    """Return how the images of a run are read.

    Raises:
        PlanError: a layout that does not exist, or another option that is not allowed.
    """
    table = input_table(plan, options)
    repeated = options.grey_as_rgb or any(item.contract.get("grey_as_rgb") for item in plan.members)
    taken = cache(lambda: _taken(plan, options, table.rgb_as_grey))
    check_missing(options.missing_chunks)
    return Reading(table.layout, table.exif, table.rgb_as_grey, repeated, table.alpha, taken, options.missing_chunks)


def _taken(plan: Plan, options: Options, rgb_as_grey: bool) -> Taken:
    """Return how many channels all members of a plan take; nothing where that is not clear before they see an image."""
    counts: set[int] | None = None
    least = 0
    try:
        for path, item in named_files(plan, masks=True).values():
            if holds_masks(path):
                continue
            opened = inspect_net(path, facts_of(options, item, path))
            held = opened.contract or opened.found.draft
            if held is None:
                return Taken()
            if held.bands:
                least = max(least, *held.bands)
                continue
            own = {held.channels}
            own |= {1} if held.grey_as_rgb and held.channels == 3 else set()
            own |= {3} if rgb_as_grey and held.channels == 1 else set()
            counts = own if counts is None else counts & own
    except EngineError:  # reported with its reason when the members are opened
        return Taken()
    if counts is None:
        return Taken(least=least)
    return Taken(frozenset(count for count in counts if count >= least))


def named_files(plan: Plan, masks: bool) -> dict[Path, tuple[Path, PlannedMember]]:
    """Return the files (and masks, if allowed) that a plan names, each once, with the member that names it.

    Raises:
        EngineError: a name that fits no file, a checksum for several, or a file of a fold that is named again.
    """
    files: dict[Path, tuple[Path, PlannedMember]] = {}
    for item in plan.members:
        if item.folds:
            add_folds(files, item)
            continue
        paths = find_members([item.model]) if masks else find_models([item.model])
        if item.sha256 and len(paths) > 1:
            raise PlanError(f"sha256 beside model {item.model}, which names {len(paths)} files: name one of them")
        for path in paths:
            held = files.setdefault(path.resolve(), (path, item))
            if held[1].folds:
                raise named_again(path)
    return files


def facts_of(options: Options, item: PlannedMember, path: Path) -> tuple[Facts, ...]:
    """Return the contract fields given by plan and options for a file, by origin."""
    given = [Facts("the plan", dict(item.contract))] if item.contract else []
    stated = {**options.stated, "output_name": output_of(options.stated.get("output_name"), path)}
    if options.grey_as_rgb:
        stated["grey_as_rgb"] = True
    return (*given, *stated_facts(stated, option))


def output_of(named: str | Mapping[str, str] | None, path: Path) -> str | None:
    """Return the output that ``--output-name`` names for a file: by its path, name or stem, else the one for all."""
    if not isinstance(named, Mapping):
        return named
    return next((named[key] for key in (str(path), path.name, path.stem) if key in named), named.get(""))


def check_named_outputs(named: str | Mapping[str, str] | None, paths: Sequence[Path]) -> None:
    """Refuse an output that is named for a file which is no member.

    Raises:
        PlanError: naming the file.
    """
    if isinstance(named, Mapping):
        known = {text for path in paths for text in (str(path), path.name, path.stem)}
        for key in named:
            if key and key not in known:
                listed = ", ".join(path.name for path in paths)
                raise PlanError(f"--output-name {key}={named[key]}: {key} is not a member; members: {listed}")


def numbers(text: str, option: str) -> list[float]:
    """Return the numbers of ``1,2,0.5``.

    Raises:
        PlanError: the text is something else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(f"--{option} {text}: give numbers separated by commas, as in 1,2,0.5") from None
