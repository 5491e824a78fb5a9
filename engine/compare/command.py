"""``engine compare``: from options to a comparison; invalid input is refused before any member runs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import LEVEL, Bootstrap
from engine.compare.ablation import ablation
from engine.compare.abstain import abstaining
from engine.compare.disagree import disagreement, reliability
from engine.compare.facts import member_facts, provenance
from engine.compare.gallery import choose, draw, rarest_class
from engine.compare.options import CompareOptions, check_ensemble, check_options
from engine.compare.result import Comparison, Facts
from engine.compare.rows import baselines, entries, estimated, find_best, plain_rows, trap_of
from engine.compare.runfile import write_run
from engine.compare.store import LogitStore
from engine.compare.study import Study, count
from engine.errors import InputError
from engine.fusion.compiling import compile_kernels
from engine.fusion.strategies import STRATEGIES
from engine.inference.arguments import left_out
from engine.inference.ensemble import Ensemble
from engine.metrics import CONVENTIONS
from engine.models.members import voters_of
from engine.models.views import check_views, named_views, told_views
from engine.runs.provenance import resolved_plan
from engine.select.cache import pixel_hash
from engine.select.crossfit import assign_folds
from engine.select.ragged import Ragged
from engine.select.validation import open_validation
from engine.sources.base import Source
from engine.sources.coding import told_left_out
from engine.sources.unchanged import Unchanged
from engine.utils import console
from engine.version import VERSION

Starting = Callable[[str, int], Callable[[int], object]]


@dataclass(frozen=True)
class Inputs:
    """Everything opened and checked."""

    ensemble: Ensemble
    images: Source
    truth: NDArray[np.uint8] | Ragged[np.uint8] | None
    groups: NDArray[np.int64] | None
    folds: NDArray[np.int64] | None


def compare(options: CompareOptions, starting: Starting = lambda name, total: lambda count: None) -> Comparison:
    """Compare all members and strategies; write the run file if requested.

    Args:
        options: the user's options.
        starting: called with a name and a total for each long part; returns what to call as it advances.

    Raises:
        EngineError: the first problem found; nothing is written then.
    """
    check_options(options)
    read = Unchanged(options.job.input, options.job.labels, options.groups)
    given = open_inputs(options)
    compile_kernels(STRATEGIES, len(given.ensemble.classes), given.ensemble.variant.decoding.suppress)
    if voters_of(given.ensemble.members):
        # Labels have no mean over views.
        options = replace(options, views="none")
    views = named_views(options.views if options.ablation and given.truth is not None else "none")
    for net in given.ensemble.nets:
        for size in given.images.every_size:
            check_views(net, views, size)
    with tempfile.TemporaryDirectory(prefix="maskfuse-", dir=options.scratch) as temporary:
        store = LogitStore(Path(temporary), given.ensemble, given.images, len(views) > 1)
        advance = starting("running members", len(given.images))
        store.fill(given.images, views[1:], options.batch_size, options.workers, advance)
        study = Study(
            given.ensemble, store, given.truth, given.groups, given.folds, options.metric, options.pixels, options.seed
        )
        done = _compared(study, given.images, options, starting)
    read.check()
    if options.out is not None:
        write_run(options.out, done)
    return done


def open_inputs(options: CompareOptions) -> Inputs:
    """Open images, labels, groups and members, and assign the folds.

    Raises:
        EngineError: the first problem found.
    """
    data = open_validation(options.job, options.groups)
    ensemble, images, groups = data.ensemble, data.images, data.groups
    check_ensemble(ensemble, len(images), data.labels is not None)
    if data.labels is None:
        return Inputs(ensemble, images, None, None, None)
    if groups is None:
        console.say(
            "warning: no --groups, so images are drawn one by one: intervals of tiles of one scene are too narrow"
        )
    classes = len(ensemble.classes)
    truth = data.truth(classes)
    _check_counted(truth.ravel(), classes, ensemble.ignored_class, options)
    dealt = len(truth) if groups is None else int(groups.max()) + 1
    folds = assign_folds(truth, groups, min(options.folds, dealt), classes, options.seed)
    return Inputs(ensemble, images, truth, groups, folds)


def _check_counted(labels: NDArray[np.uint8], classes: int, ignored: int | None, options: CompareOptions) -> None:
    if not ((labels < classes) & (labels != (classes if ignored is None else ignored))).any():
        told = "void" if ignored is None else f"void or the ignored class {ignored}"
        raise InputError(f"{options.job.labels}: every true label is {told}: nothing can be scored")


def _compared(study: Study, images: Source, options: CompareOptions, starting: Starting) -> Comparison:
    advance, told = starting("decoding and tuning", 2), told_views(named_views(options.views))
    counts = count(study, study.variants, study.all_tiles)
    advance(1)
    found = entries(study, counts)
    advance(1)
    bootstrap, steps, baseline = None, [], {}
    if study.truth is not None:
        bootstrap = Bootstrap(study.groups, len(study.truth), study.ensemble.ignored_class, study.seed)
        values = [bootstrap.values(entry.counts.matrices) for entry in found]
        order = sorted(range(len(found)), key=lambda i: -np.nan_to_num(values[i][study.metric][0], nan=-1))
        found, values = [found[i] for i in order], [values[i] for i in order]
        baseline = baselines(found, values)
        rows = estimated(study, found, values, baseline)
        if options.ablation:
            advance = starting("adding step by step", int(study.folds.max()) + 2 if study.folds is not None else 1)
            best_raw = next(e.variant.member for e in found if e.variant.member is not None and e.state == "raw")
            steps = ablation(study, counts, best_raw, bootstrap, told, lambda: advance(1))
    else:
        rows = plain_rows(study, found)
    best = find_best(study, found)
    differing = disagreement(study)
    rarest = rarest_class(study, differing)
    chosen = choose(study, found[best].counts.matrices, differing, rarest, options.gallery)
    tiles, pictures = draw(study, images, chosen, found[best].variant, found[best].fold_biases, differing, rarest)
    curves, curve_images = reliability(study) if study.truth is not None else ([], 0)
    risk_curves, risk_bounds = abstaining(study) if study.truth is not None else ([], [])
    facts = Facts(
        version=VERSION,
        run_sha256=run_hash(study, images, options),
        command=options.command,
        **provenance(),
        workers=study.store.workers,
        images=len(images),
        height=max(height for height, _ in images.every_size),
        width=max(width for _, width in images.every_size),
        sizes=len(images.every_size),
        classes=list(study.ensemble.classes),
        ignored_class=-1 if study.ensemble.ignored_class is None else study.ensemble.ignored_class,
        void=told_truth(study),
        left_out=left_out(study.ensemble.members),
        suppressed=sorted(study.suppressed.suppress),
        input=options.job.input,
        labels=options.job.labels,
        groups=0 if study.groups is None else int(study.groups.max()) + 1,
        metric=study.metric,
        folds=0 if study.folds is None else int(study.folds.max()) + 1,
        level=LEVEL if bootstrap is not None else 0.0,
        flips=told,
        rows=rows,
        baseline=baseline,
        trap=trap_of(study, found),
        ablation=steps,
        members=member_facts(study),
        agreement=differing.agreement.tolist(),
        disputed_by_class=differing.by_class.tolist(),
        rarest=rarest,
        curves=curves,
        curve_images=curve_images,
        risk_curves=risk_curves,
        risk_bounds=risk_bounds,
        fused=best,
        tiles=tiles,
    )
    return Comparison(facts, pictures)


def told_truth(study: Study) -> str:
    """Say which class the scores leave out and what was void; nothing without labels."""
    if study.truth is None:
        return ""
    ensemble = study.ensemble
    pixels = int((study.truth.ravel() >= study.classes).sum())
    return told_left_out(ensemble.ignored_class, ensemble.classes, ensemble.coding.told_void(study.classes), pixels)


def run_hash(study: Study, images: Source, options: CompareOptions) -> str:
    """Return a SHA-256 of everything that decides the scores: members, images, labels, groups and options."""

    def digest(array: NDArray[Any] | None) -> str:
        return "" if array is None else hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()

    told = {
        "maskfuse": VERSION,
        "plan": resolved_plan(study.ensemble),
        "images": pixel_hash(images),
        "labels": digest(None if study.truth is None else study.truth.ravel()),
        "groups": digest(study.groups),
        "options": [
            options.metric,
            options.folds,
            options.pixels,
            options.seed,
            told_views(named_views(options.views)),
            options.ablation,
        ],
        "conventions": CONVENTIONS,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, allow_nan=False).encode()).hexdigest()
