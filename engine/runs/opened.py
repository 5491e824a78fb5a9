"""Opens the members of a plan as an ensemble: options of the command line override those of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.errors import InputError, PlanError, option
from engine.fusion.calibration import Calibration
from engine.fusion.doubt import DEFAULT_DOUBT, Unknown
from engine.fusion.strategies import named_strategy
from engine.inference.early_exit import EarlyExit
from engine.inference.ensemble import Ensemble
from engine.inference.mask_members import open_mask_member
from engine.models.members import Member, class_names, holds_masks
from engine.models.net import Net
from engine.models.opening import Request, open_nets
from engine.models.runtimes.providers import mixed_wheels
from engine.models.views import VIEW_MEANS, check_views
from engine.runs.options import Options, check_named_outputs, facts_of, input_table, named_files, numbers
from engine.runs.plan import Plan
from engine.runs.plan_folds import digests, with_folds
from engine.runs.plan_member import PlannedMember, Weight
from engine.sources.base import Source
from engine.sources.places import places_of
from engine.sources.resolution import is_near, metres_per_pixel
from engine.utils import console


def open_ensemble(plan: Plan, options: Options, images: Source | None, every: Source | None = None) -> Ensemble:
    """Open the members of a plan; options of the command line override those of the plan.

    Args:
        plan: the members.
        options: those of the command line.
        images: the images to predict; None if they are not available.
        every: all images that masks as members are joined with; None if all members must be nets.

    Raises:
        EngineError: the first problem found.
    """
    strategy = options.strategy or plan.strategy or "mean-logit"
    named_strategy(strategy)
    if mixed := mixed_wheels():
        console.say(mixed)
    sample = next(images.batches(1)).pixels[0] if images is not None and len(images) else None
    if images is not None and sample is None:
        raise InputError(f"{images.name} holds no images")
    files = named_files(plan, masks=every is not None)
    single = _open_members(plan, options, list(files.values()), sample, every)
    named = [item for _, item in files.values()]
    for net, digest in zip(single, digests(named), strict=True):
        _check_same_file(net, digest)
    opened, items = with_folds(single, named)
    planned = [item.weight for item in items]
    if not (options.strategy or plan.strategy) and any(net.contract.kind == "labels" for net in opened):
        strategy = "vote"
    suppress: Sequence[int | str] | None = plan.suppress
    if options.suppress:
        suppress = [name for item in options.suppress for name in item.split(",")]
    if options.no_suppress and options.suppress:
        raise PlanError("--suppress and --no-suppress: give one of them")
    if options.no_suppress:
        suppress = []
    ensemble = Ensemble.of(
        opened,
        suppress=suppress,
        strategy=strategy,
        weights=numbers(options.weights, "weights") if options.weights else _plan_weights(opened, planned),
        early_exit=_early_exit(options),
        views=options.views or plan.views or plan.flips or "none",
        view_mean=plan.view_mean or VIEW_MEANS[0],
        cleanup=plan.cleanup,
        bias=tuple(numbers(options.bias, "bias")) if options.bias else plan.bias,
        prior=tuple(numbers(options.prior, "prior")) if options.prior else plan.prior,
        **({"vote_stage": stage} if (stage := options.vote_stage or plan.vote_stage) else {}),
        threshold=plan.threshold if options.threshold is None else options.threshold,
        min_region=(plan.min_region if options.min_region is None else options.min_region) or 0,
        decode=options.decode or plan.decode or "argmax",
        temperature=plan.temperature or 1.0,
        calibrations=_plan_calibrations(opened, items),
        unknown=_unknown(plan, options),
    )
    if images is not None:
        for net in ensemble.nets:
            for size in images.every_size:
                check_views(net, ensemble.views, size)
    if options.tiled and ensemble.variant.decoding.decode != "argmax":
        raise PlanError(
            f"--decode {ensemble.variant.decoding.decode} needs whole images, not tiles of a scene: leave it out"
        )
    if ensemble.is_multilabel and options.rle:
        raise PlanError("--rle does not take multi-label members, whose pixels have several classes: leave it out")
    ensemble.input_facts = input_table(plan, options).stated
    ensemble.coding = options.truth.over(plan.labels).for_classes(ensemble.classes)
    if ensemble.is_multilabel and (options.preview is not None or options.labels or options.tiled):
        raise PlanError(
            "--preview, --labels and --tile do not take multi-label members: leave them out, and score the masks with "
            "engine evaluate MASKS --labels TRUTH"
        )
    if not options.tiled:
        _warn_of_resolution(ensemble, options)
    if plan.input.tile and not options.tiled:
        how = "puts overlapping images together" if plan.input.stitch else f"cuts images into tiles ({plan.input.tile})"
        console.say(f"note: [input] of the plan {how}; here each image is predicted as it is")
    for member in ensemble.members:
        if member.folds:
            told = f"{len(member.nets)} folds are one member, the mean of their {ensemble.view_mean}"
            console.say(f"{member.name}: {told}")
    for net in (item for item in single if isinstance(item, Net)):  # after all checks: an error stays the only line
        if net.adapted:
            console.say(f"{net.path.name}: {'; '.join(net.adapted)}")
        for text in net.warnings:
            console.say(f"warning: {net.path.name}: {text}")
    return ensemble


def _warn_of_resolution(ensemble: Ensemble, options: Options) -> None:
    """Say where images that are read as stored have another ground resolution than members state."""
    stated = [net.contract.resolution for net in ensemble.nets if net.contract.resolution is not None]
    if not stated or ensemble.input_facts.get("resolution") == "ignore":
        return
    for name, raster in places_of(options.input).items():
        pixel = metres_per_pixel(raster.place)
        if pixel is not None and not is_near(pixel, stated[0]):
            console.say(
                f"warning: {name} has pixels of {pixel[0]:g} x {pixel[1]:g} m, the members read {stated[0]:g} m per "
                "pixel; without --tile it is read as stored: add --tile HEIGHTxWIDTH"
            )
            return


def _open_members(
    plan: Plan,
    options: Options,
    files: Sequence[tuple[Path, PlannedMember]],
    sample: NDArray[Any] | None,
    every: Source | None,
) -> list[Net | Member]:
    """Open nets and masks, in the order given; the nets first, since masks do not say which classes there are."""
    masks = [every is not None and holds_masks(path) for path, _ in files]
    nets = [file for file, is_mask in zip(files, masks, strict=True) if not is_mask]
    check_named_outputs(options.stated.get("output_name"), [path for path, _ in nets])
    requests = [Request(path, facts_of(options, item, path), item.class_map) for path, item in nets]
    opened = iter(found := open_nets(requests, sample, plan.classes) if requests else [])
    ignored = None if found else options.stated.get("ignored_class")
    members: list[Net | Member] = []
    for (path, item), is_mask in zip(files, masks, strict=True):
        if not is_mask or every is None:
            members.append(next(opened))
            continue
        if item.contract or item.class_map is not None:
            raise PlanError(f"{path} holds masks, which have no contract and no map: take them out of the plan")
        members.append(open_mask_member(path, every, _class_names(plan, options, found, path), ignored))
    return members


def _class_names(plan: Plan, options: Options, nets: Sequence[Net], path: Path) -> tuple[str, ...]:
    """Return the names of the ensemble's classes, for a member that does not know them."""
    names = plan.classes or (class_names(nets) if nets else options.stated.get("classes"))
    if not names:
        raise PlanError(
            f"{path} holds masks and no member is a net, so nothing says which classes there are: add --classes"
        )
    return tuple(names)


def _check_same_file(net: Net | Member, sha256: str) -> None:
    """Refuse a file other than the one a plan was made with."""
    if sha256 and net.checksum != sha256:
        raise PlanError(
            f"{net.path} has SHA-256 {net.checksum[:12]}..., the plan was made with {sha256[:12]}...: "
            "restore that file, or remove the line from the plan"
        )


# What changes labels: a bound that was calibrated without it holds no longer.
_DECIDING = (
    "strategy", "weights", "suppress", "no_suppress", "vote_stage", "bias", "prior", "threshold", "min_region",
    "decode", "views",
)  # fmt: skip


def _unknown(plan: Plan, options: Options) -> Unknown | None:
    """Return which pixels are unknown; a calibrated bound is dropped, and that is said, where options change labels."""
    planned = plan.unknown
    if options.unknown is not None:
        return Unknown(options.unknown, options.files.doubt_map or (planned.doubt if planned else DEFAULT_DOUBT))
    changed = [name for name in _DECIDING if getattr(options, name) not in (None, "", (), [], False)]
    if planned is None or planned.risk is None or not changed:
        return planned
    console.say(
        f"warning: {', '.join(map(option, changed))} changes what the plan's risk of {planned.risk:g} was calibrated "
        "with: its threshold stays, the bound holds no longer"
    )
    return Unknown(planned.threshold, planned.doubt)


def _early_exit(options: Options) -> EarlyExit | None:
    if options.early_exit_agreement is not None:
        return EarlyExit(options.early_exit_agreement)
    return EarlyExit() if options.early_exit else None


def _plan_weights(opened: Sequence[Net | Member], planned: Sequence[Weight]) -> list[float] | list[list[float]] | None:
    """Return one weight (or one per class) per member of the ensemble, or None if all are 1.

    The specialists of a set share one weight, that of the first.
    """
    if set(planned) == {1.0}:
        return None
    weights: dict[object, Weight] = {}
    for net, weight in zip(opened, planned, strict=True):
        onto = net.onto if isinstance(net, Net) else None
        classes = len(net.contract.classes if onto is None else onto.classes)
        if isinstance(weight, tuple) and len(weight) != classes:
            raise PlanError(f"{net.path} has {len(weight)} weights for {classes} classes: give one, or one per class")
        weights.setdefault(_member_key(net), weight)
    rows = [weight for weight in weights.values() if isinstance(weight, tuple)]
    if not rows:
        return [weight for weight in weights.values() if isinstance(weight, float)]
    classes = len(rows[0])
    return [list(w) if isinstance(w, tuple) else [w] * classes for w in weights.values()]


def _plan_calibrations(opened: Sequence[Net | Member], planned: Sequence[PlannedMember]) -> list[Calibration]:
    """Return the calibration of each member of the ensemble; that of a set of specialists is its first net's."""
    found: dict[object, Calibration] = {}
    for net, item in zip(opened, planned, strict=True):
        found.setdefault(_member_key(net), item.calibration)
    return list(found.values())


def _member_key(net: Net | Member) -> object:
    """Return what nets of one member share."""
    specialist = net.contract.kind == "specialist"
    return (net.contract.group or str(net.path.parent)) if specialist else net.path
