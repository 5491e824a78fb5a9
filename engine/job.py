"""From the options of ``engine ensemble`` to a checked job: what can be refused is refused before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.attempt import BadImages
from engine.early_exit import EarlyExit
from engine.errors import InputError, OutputError, PlanError
from engine.fingerprint import fingerprint
from engine.images import Source, open_source, split_key
from engine.labels import open_labels
from engine.masks import check_goal, check_replaceable
from engine.members import find_models
from engine.pipeline import Ensemble
from engine.plan import Plan, PlannedMember, Weight, read_plan
from engine.resume import incomplete_goal, may_replace, skipped_list
from engine.sessions import Member, open_member
from engine.sidecar import check_sidecar
from engine.strategies import named_strategy

SAMPLES = Path(__file__).parent / "samples"
SAMPLE_SCENES = 512
ON_BAD_IMAGE = ("fail", "skip")


@dataclass(frozen=True)
class Options:
    """What the user asked for; empty or None means: not stated."""

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
    flips: str | None = None
    early_exit: bool = False
    early_exit_agreement: float | None = None
    limit: int = 0
    preview: Path | None = None
    overwrite: bool = False
    grey_as_rgb: bool = False
    resume: bool = False
    on_bad_image: str = "fail"
    stated: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A checked job.

    Attributes:
        ensemble: the members, opened.
        images: what to predict.
        labels: true label maps, or None.
        output: where the masks go, or None.
        preview: where the picture goes, or None.
        resume: go on with a run that was cut off.
        replace: whether an output that is there may be replaced.
        bad: where images that cannot be predicted are noted; None when they are an error.
        input_sha256: fingerprint of the images.
        labels_sha256: fingerprint of the true label maps; empty without.
    """

    ensemble: Ensemble
    images: Source
    labels: Source | None
    output: Path | None
    preview: Path | None
    resume: bool = False
    replace: bool = False
    bad: BadImages | None = None
    input_sha256: str = ""
    labels_sha256: str = ""


def prepare(options: Options) -> Job:
    """Open and check everything a run needs.

    Raises:
        EngineError: the first thing that does not fit, in one line.
    """
    plan = planned(options)
    if plan is None and not options.input:
        return _sample_job(options)
    if plan is None:
        raise PlanError("no models: name them with --models or --plan")
    if not options.input:
        raise PlanError("no images: name them with --input")
    output = options.output or Path("submission.csv")
    replaced = _check_outputs(options, output)
    bad = _bad_images(options)
    images = limited(open_source(options.input, bad=bad.add if bad is not None else None), options.limit)
    labels = limited(open_labels(options.labels), options.limit) if options.labels else None
    ensemble = open_ensemble(plan, options, images)
    return Job(
        ensemble,
        images,
        labels,
        output,
        options.preview,
        resume=options.resume,
        replace=replaced,
        bad=bad,
        input_sha256=fingerprint(options.input),
        labels_sha256=fingerprint(options.labels) if options.labels else "",
    )


def _bad_images(options: Options) -> BadImages | None:
    if options.on_bad_image not in ON_BAD_IMAGE:
        raise PlanError(f"--on-bad-image {options.on_bad_image}; allowed are {' and '.join(ON_BAD_IMAGE)}")
    return BadImages() if options.on_bad_image == "skip" else None


def _sample_job(options: Options) -> Job:
    from engine.images import from_array
    from engine.samples.scenes import generate

    if options.labels:
        raise PlanError("--labels without --input: the sample scenes bring their own labels")
    output = options.output or Path("submission.csv")
    preview = options.preview or Path("preview.png")
    options = replace(options, preview=preview)
    replaced = _check_outputs(options, output)
    scenes = generate(min(options.limit, SAMPLE_SCENES) if options.limit else SAMPLE_SCENES)
    images = from_array(scenes.images, "images", "sample scenes")
    labels = from_array(scenes.labels, "labels", "sample labels")
    plan = Plan((PlannedMember(str(SAMPLES)),))
    ensemble = open_ensemble(plan, options, images)
    return Job(ensemble, images, labels, output, preview, options.resume, replaced, _bad_images(options), "samples")


def planned(options: Options) -> Plan | None:
    """Return the plan that ``--plan`` or ``--models`` name; None where neither is given.

    Raises:
        EngineError: both are given, or the plan cannot be read.
    """
    if options.plan is not None:
        if options.models:
            raise PlanError("--plan and --models: give one of them")
        return read_plan(options.plan)
    return Plan(tuple(PlannedMember(spec) for spec in options.models)) if options.models else None


def open_ensemble(plan: Plan, options: Options, images: Source | None) -> Ensemble:
    """Open the members of a plan, with the options of the command line over those of the plan.

    Raises:
        EngineError: the first thing that does not fit.
    """
    strategy = options.strategy or plan.strategy or "mean-logit"
    named_strategy(strategy)
    sample = next(images.batches(1)).pixels[0] if images is not None and len(images) else None
    if images is not None and sample is None:
        raise InputError(f"{images.name} holds no images")
    opened: list[Member] = []
    planned: list[Weight] = []
    for item in plan.members:
        paths = find_models([item.model])
        if item.sha256 and len(paths) > 1:
            raise PlanError(f"sha256 beside model {item.model}, which names {len(paths)} files: name one of them")
        for path in paths:
            if any(path.resolve() == member.path.resolve() for member in opened):
                continue
            opened.append(
                open_member(path, {**options.stated, **item.contract}, sample, grey_as_rgb=options.grey_as_rgb)
            )
            _check_same_file(opened[-1], item.sha256)
            planned.append(item.weight)
    suppress: Sequence[int | str] | None = plan.suppress
    if options.suppress:
        suppress = [name for item in options.suppress for name in item.split(",")]
    if options.no_suppress and options.suppress:
        raise PlanError("--suppress and --no-suppress: give one of them")
    if options.no_suppress:
        suppress = []
    return Ensemble.of(
        opened,
        suppress=suppress,
        strategy=strategy,
        weights=numbers(options.weights, "weights") if options.weights else _plan_weights(opened, planned),
        early_exit=_early_exit(options),
        flips=options.flips or plan.flips or "none",
        bias=tuple(numbers(options.bias, "bias")) if options.bias else plan.bias,
        prior=tuple(numbers(options.prior, "prior")) if options.prior else plan.prior,
        vote_stage=options.vote_stage or plan.vote_stage or "members",
        threshold=plan.threshold if options.threshold is None else options.threshold,
        min_region=(plan.min_region if options.min_region is None else options.min_region) or 0,
    )


def _check_same_file(member: Member, sha256: str) -> None:
    """Refuse a file that is not the one a plan was made with."""
    if sha256 and member.checksum != sha256:
        raise PlanError(
            f"{member.path} has SHA-256 {member.checksum[:12]}..., the plan was made with {sha256[:12]}...: "
            "put that file back, or take the line out of the plan"
        )


def _early_exit(options: Options) -> EarlyExit | None:
    if options.early_exit_agreement is not None:
        return EarlyExit(options.early_exit_agreement)
    return EarlyExit() if options.early_exit else None


def _plan_weights(opened: Sequence[Member], planned: Sequence[Weight]) -> list[float] | list[list[float]] | None:
    """Return one weight (or a row of one a class) a member of the ensemble, or None where all are 1.

    The specialists of a set share one weight, that of the first.
    """
    if set(planned) == {1.0}:
        return None
    weights: dict[object, Weight] = {}
    for member, weight in zip(opened, planned, strict=True):
        classes = len(member.contract.classes)
        if isinstance(weight, tuple) and len(weight) != classes:
            raise PlanError(f"{member.path} has {len(weight)} weights for {classes} classes: give one, or one a class")
        specialist = member.contract.kind == "specialist"
        key: object = (member.contract.group or str(member.path.parent)) if specialist else member.path
        weights.setdefault(key, weight)
    rows = [weight for weight in weights.values() if isinstance(weight, tuple)]
    if not rows:
        return [weight for weight in weights.values() if isinstance(weight, float)]
    classes = len(rows[0])
    return [list(w) if isinstance(w, tuple) else [w] * classes for w in weights.values()]


def _check_outputs(options: Options, output: Path) -> bool:
    """Refuse outputs that cannot be written; return whether those that are there may be replaced."""
    replaced = may_replace(output, options.resume, options.overwrite)
    goals = [output, incomplete_goal(output)] if options.on_bad_image == "skip" else [output]
    for goal in goals:
        check_goal(goal, replaced)
        check_sidecar(goal, replaced)
    if len(goals) > 1:
        check_replaceable(skipped_list(output), replaced)
    for option, source in (("--input", options.input), ("--labels", options.labels)):
        if source and output.resolve() == split_key(source)[0].resolve():
            raise OutputError(f"{output} is what {option} reads: choose another name for the masks")
    if options.preview is not None:
        if options.preview.is_dir():
            raise OutputError(f"--preview {options.preview} is a folder: name a .png file")
        if options.preview.suffix.lower() != ".png":
            raise PlanError(f"--preview {options.preview}: the picture is a .png")
        check_replaceable(options.preview, options.overwrite or options.resume)
    return replaced


def limited(source: Source, limit: int) -> Source:
    """Return the first ``limit`` images of a source; all of them for 0.

    Raises:
        PlanError: the limit is negative.
    """
    if limit < 0:
        raise PlanError(f"--limit {limit}: give a number above 0")
    if limit == 0 or limit >= len(source):
        return source

    def read(size: int) -> Iterator[np.ndarray[Any, Any]]:
        left = limit
        for pixels in source.read(min(size, limit)):
            yield pixels[:left]
            left -= len(pixels[:left])
            if not left:
                return

    return replace(source, ids=list(source.ids[:limit]), read=read)


def numbers(text: str, option: str) -> list[float]:
    """Return the numbers of ``1,2,0.5``.

    Raises:
        PlanError: something else stands there.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(f"--{option} {text}: give numbers separated by commas, as in 1,2,0.5") from None
