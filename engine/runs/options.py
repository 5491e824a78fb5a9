"""From the options of a command to an open ensemble: the members of a plan, the command line's word over its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import InputError, PlanError, option
from engine.fusion.strategies import named_strategy
from engine.inference.early_exit import EarlyExit
from engine.inference.ensemble import Ensemble
from engine.models.facts.base import Facts
from engine.models.members import find_models
from engine.models.net import Net
from engine.models.opening import Request, open_nets
from engine.runs.plan import Plan, PlannedMember, Weight, read_plan
from engine.sources.base import Source
from engine.utils import console


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
    align: bool = False
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
    files: dict[Path, tuple[Path, PlannedMember]] = {}
    for item in plan.members:
        paths = find_models([item.model])
        if item.sha256 and len(paths) > 1:
            raise PlanError(f"sha256 beside model {item.model}, which names {len(paths)} files: name one of them")
        for path in paths:
            files.setdefault(path.resolve(), (path, item))
    _check_named_outputs(options, [path for path, _ in files.values()])
    requests = [Request(path, _facts(options, item, path), item.class_map) for path, item in files.values()]
    opened, planned = open_nets(requests, sample, plan.classes), [item.weight for _, item in files.values()]
    for net, (_, item) in zip(opened, files.values(), strict=True):
        _check_same_file(net, item.sha256)
        if net.adapted:
            console.say(f"{net.path.name}: {'; '.join(net.adapted)}")
    if not (options.strategy or plan.strategy) and any(net.contract.kind == "labels" for net in opened):
        strategy = "vote"
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
        **({"vote_stage": stage} if (stage := options.vote_stage or plan.vote_stage) else {}),
        threshold=plan.threshold if options.threshold is None else options.threshold,
        min_region=(plan.min_region if options.min_region is None else options.min_region) or 0,
    )


def _facts(options: Options, item: PlannedMember, path: Path) -> tuple[Facts, ...]:
    """Return what the plan and the options state about a file, by origin."""
    given = [Facts("the plan", dict(item.contract))] if item.contract else []
    for name, value in options.stated.items():
        if name == "output_name" and isinstance(value, Mapping):
            value = next((value[key] for key in (str(path), path.name, path.stem) if key in value), value.get(""))
        if value is not None:
            given.append(Facts(option(name), {name: value}))
    if options.grey_as_rgb:
        given.append(Facts(option("grey_as_rgb"), {"grey_as_rgb": True}))
    return tuple(given)


def _check_named_outputs(options: Options, paths: Sequence[Path]) -> None:
    """Refuse an output that is named for a file which is no member."""
    named = options.stated.get("output_name")
    if isinstance(named, Mapping):
        known = {text for path in paths for text in (str(path), path.name, path.stem)}
        for key in named:
            if key and key not in known:
                listed = ", ".join(path.name for path in paths)
                raise PlanError(f"--output-name {key}={named[key]}: {key} is no member; there are {listed}")


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
