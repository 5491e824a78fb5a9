"""From the options of a command to an open ensemble: the members of a plan, the command line's word over its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import InputError, PlanError
from engine.fusion.strategies import named_strategy
from engine.inference.early_exit import EarlyExit
from engine.inference.ensemble import Ensemble
from engine.models.members import find_models
from engine.models.net import Net, open_net
from engine.runs.plan import Plan, PlannedMember, Weight, read_plan
from engine.sources.base import Source


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
    opened: list[Net] = []
    planned: list[Weight] = []
    for item in plan.members:
        paths = find_models([item.model])
        if item.sha256 and len(paths) > 1:
            raise PlanError(f"sha256 beside model {item.model}, which names {len(paths)} files: name one of them")
        for path in paths:
            if any(path.resolve() == net.path.resolve() for net in opened):
                continue
            opened.append(open_net(path, {**options.stated, **item.contract}, sample, grey_as_rgb=options.grey_as_rgb))
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


def _check_same_file(net: Net, sha256: str) -> None:
    """Refuse a file that is not the one a plan was made with."""
    if sha256 and net.checksum != sha256:
        raise PlanError(
            f"{net.path} has SHA-256 {net.checksum[:12]}..., the plan was made with {sha256[:12]}...: "
            "put that file back, or take the line out of the plan"
        )


def _early_exit(options: Options) -> EarlyExit | None:
    if options.early_exit_agreement is not None:
        return EarlyExit(options.early_exit_agreement)
    return EarlyExit() if options.early_exit else None


def _plan_weights(opened: Sequence[Net], planned: Sequence[Weight]) -> list[float] | list[list[float]] | None:
    """Return one weight (or a row of one a class) a member of the ensemble, or None where all are 1.

    The specialists of a set share one weight, that of the first.
    """
    if set(planned) == {1.0}:
        return None
    weights: dict[object, Weight] = {}
    for net, weight in zip(opened, planned, strict=True):
        classes = len(net.contract.classes)
        if isinstance(weight, tuple) and len(weight) != classes:
            raise PlanError(f"{net.path} has {len(weight)} weights for {classes} classes: give one, or one a class")
        specialist = net.contract.kind == "specialist"
        key: object = (net.contract.group or str(net.path.parent)) if specialist else net.path
        weights.setdefault(key, weight)
    rows = [weight for weight in weights.values() if isinstance(weight, tuple)]
    if not rows:
        return [weight for weight in weights.values() if isinstance(weight, float)]
    classes = len(rows[0])
    return [list(w) if isinstance(w, tuple) else [w] * classes for w in weights.values()]


def numbers(text: str, option: str) -> list[float]:
    """Return the numbers of ``1,2,0.5``.

    Raises:
        PlanError: something else stands there.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(f"--{option} {text}: give numbers separated by commas, as in 1,2,0.5") from None
