"""``engine select``: from options to a plan file; nothing is written before everything is checked."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from engine.bootstrap import GroupedCounts, Interval, interval, paired_difference
from engine.fusion.calibration import Calibration
from engine.fusion.doubt import Unknown
from engine.inference.arguments import left_out
from engine.inference.ensemble import Ensemble
from engine.models.views import FLIPS, named_views
from engine.runs.options import input_table, planned
from engine.runs.plan import Plan, write_plan
from engine.runs.plan_input import InputTable
from engine.runs.provenance import plan_hash
from engine.scores.risk import Bound
from engine.select.abstain import bounded, check_groups
from engine.select.cache import Cache
from engine.select.calibrate import Calibrated, calibrate
from engine.select.crossfit import PLAIN, SINGLE, Fitted, assign_folds, cross_fit
from engine.select.deadline import NEVER, Deadline
from engine.select.filling import filled, taken
from engine.select.options import SelectOptions, check_options, check_pool, for_voters, view_sets
from engine.select.planning import planned_members
from engine.select.pool import Choice, Pool
from engine.select.refine import Step, refine
from engine.select.rows import FINALISTS
from engine.select.sample import draw
from engine.select.validation import open_validation
from engine.select.whole_images import score
from engine.sources.unchanged import Unchanged
from engine.utils import console
from engine.utils.progress import Starting


@dataclass(frozen=True)
class Selection:
    """A selection and its scores.

    Attributes:
        plan: the plan as written.
        sha256: hash of the plan, see :func:`engine.runs.provenance.plan_hash`.
        metric: the MIoU convention of all scores.
        fitted: its choices and confusion matrices.
        pool: the pool of members.
        sampled: number of pixels searched on.
        available: number of pixels that the metric counts.
        seconds: wall time of all searches.
        cross: the cross-fitted score of each level.
        same: the score of each level on the images it was selected on.
        gain_single: chosen level minus best single member, both cross-fitted, paired.
        gain_plain: chosen level minus mean of all members, likewise.
        steps: what the last steps (views, clean-up of classes) did.
        calibrated: what calibrating the chosen level did; None where it was not tried.
        bound: the threshold of doubt for the risk that was asked for; None where none was.
    """

    plan: Plan
    sha256: str
    metric: str
    fitted: Fitted
    pool: Pool
    sampled: int
    available: int
    seconds: float
    cross: tuple[Interval, ...]
    same: tuple[float, ...]
    gain_single: Interval
    gain_plain: Interval
    steps: tuple[Step, ...] = ()
    calibrated: Calibrated | None = None
    bound: Bound | None = None

    @property
    def honest(self) -> Interval:
        """Return the cross-fitted score of the chosen level."""
        return self.cross[self.fitted.chosen]

    @property
    def rate(self) -> float:
        """Return candidate ensembles scored per second, over all folds."""
        return self.fitted.tried / self.seconds


def select(options: SelectOptions, starting: Starting = lambda name, total: lambda count: None) -> Selection:
    """Select an ensemble and write its plan.

    Args:
        options: the user's options.
        starting: called with a name and a total for each of the two long parts; returns what to call as it advances.

    Raises:
        EngineError: the first problem found; nothing is written then except the cache of ``--cache``.
    """
    check_options(options)
    views, tried = view_sets(options.job.views)
    is_named = options.job.views != "auto"
    options = replace(options, job=replace(options.job, views=views))
    read = Unchanged(options.job.input, options.job.labels, options.groups)
    data = open_validation(options.job, options.groups)
    ensemble = data.ensemble
    check_pool(ensemble, options)
    tried = taken(ensemble, data.images.every_size, tried, by_name=is_named)
    if options.unknown_risk is not None:
        check_groups(len(data.images) if data.groups is None else int(data.groups.max()) + 1, options.unknown_risk)
    options = for_voters(ensemble, options)
    if options.voters:
        console.say(left_out(ensemble.members))
    truth = data.truth(len(ensemble.classes))
    if data.groups is None:
        console.say("warning: no --groups, so folds are drawn by image: images of one scene make the scores optimistic")
    with tempfile.TemporaryDirectory(prefix="maskfuse-") as temporary:
        cache = Cache(options.cache or Path(temporary))
        pool = filled(ensemble, data.images, truth, data.groups, cache, (views, *tried), starting)
        return _select(pool, options, starting, read)


def _select(pool: Pool, options: SelectOptions, starting: Starting, read: Unchanged) -> Selection:
    metric, settings = options.metric, options.settings
    dealt = len(pool.truth) if pool.groups is None else int(pool.groups.max()) + 1
    folds = assign_folds(pool.truth, pool.groups, min(options.folds, dealt), len(pool.classes), settings.seed)
    sample = draw(pool, metric, folds, options.pixels, settings.seed)
    rows = options.row_strategies
    candidates = len(rows) + len(pool.members)
    steps = int(folds.max()) + 2 + (candidates + min(FINALISTS, candidates)) * settings.bias
    advance = starting("selecting", steps)
    began = perf_counter()
    deadline = Deadline.after(options.budget) if options.budget else NEVER
    fitted = cross_fit(
        pool, sample, folds, settings, options.clean_up, options.ranked, rows, options.budget, lambda: advance(1)
    )
    refined = refine(pool, fitted, folds, metric, options.clean_up, deadline)
    fitted = refined.fitted
    calibrated = calibrate(pool, fitted, folds, metric, options.pixels) if options.calibrate else None
    fitted = fitted if calibrated is None else calibrated.fitted
    bound, unknown = None, None
    if options.unknown_risk is not None:
        bound = bounded(pool, fitted.best.fold_choices, folds, options.doubt, options.unknown_risk)
        unknown = Unknown(bound.threshold, options.doubt, bound.alpha, bound.groups)
    seconds = perf_counter() - began
    counts = [GroupedCounts.of(level.cross, pool.groups, pool.ignored_class) for level in fitted.levels]
    cross = tuple(interval(side, metric, seed=settings.seed) for side in counts)
    over_single, over_plain = (
        paired_difference(counts[fitted.chosen], counts[rival], metric, seed=settings.seed) for rival in (SINGLE, PLAIN)
    )
    same = tuple(score(pool, level.same, metric) for level in fitted.levels)
    table = input_table(planned(options.job) or Plan(()), options.job)
    plan, sha256 = plan_of(pool, fitted.best.choice, table, unknown)
    done = Selection(
        plan, sha256, metric, fitted, pool, sample.logits.shape[2], sample.available, seconds, cross, same, over_single,
        over_plain, refined.steps, calibrated, bound,
    )  # fmt: skip
    read.check()
    write_plan(options.out, plan, comment(done, options))
    return done


def plan_of(
    pool: Pool, choice: Choice, table: InputTable | None = None, unknown: Unknown | None = None
) -> tuple[Plan, str]:
    """Return the plan of a choice, with what is stated about the images, and its hash."""
    table = table or InputTable()
    decoding, views = choice.decoding, choice.views or pool.views
    members = [
        planned
        for index in choice.members
        for planned in planned_members(
            pool.members[index],
            float(choice.counts[index]),
            choice.calibrations[index] if choice.calibrations else Calibration(),
        )
    ]
    mapped = any(net.onto is not None for index in choice.members for net in pool.members[index].nets)
    plan = Plan(
        tuple(members),
        classes=pool.classes if mapped else (),
        strategy=choice.strategy,
        suppress=tuple(sorted(decoding.suppress)),
        vote_stage=None if decoding.vote_stage == "members" else decoding.vote_stage,
        threshold=decoding.threshold,
        bias=decoding.bias,
        min_region=decoding.min_region or None,
        decode=None if decoding.decode == "argmax" else decoding.decode,
        prior=decoding.prior,
        temperature=None if decoding.temperature == 1 else decoding.temperature,
        flips=views if views in FLIPS else None,
        views=None if views in FLIPS else tuple(view.name for view in named_views(views)[1:]),
        cleanup={pool.classes[item.class_id]: item.stated for item in decoding.cleanup},
        input=table,
        labels=pool.coding,
        unknown=unknown,
    )
    ensemble = Ensemble(
        [replace(pool.members[index], unseen=None) for index in choice.members],
        choice.strategy,
        None if set(choice.weights) == {1.0} else choice.weights,
        decoding.suppress,
        views=views,
        vote_stage=decoding.vote_stage,
        cleanup=decoding.cleanup,
        threshold=decoding.threshold,
        bias=decoding.bias,
        min_region=decoding.min_region,
        decode=decoding.decode,
        prior=decoding.prior,
        temperature=decoding.temperature,
        calibrations=[choice.calibrations[index] for index in choice.members] if choice.calibrations else (),
        unknown=unknown,
    )
    ensemble.input_facts = table.stated
    return plan, plan_hash(ensemble)


def comment(done: Selection, options: SelectOptions) -> str:
    """Return the comment lines above the plan."""
    by = f"{done.honest.groups} {'images' if done.pool.groups is None else 'groups'}"
    return "\n".join(
        [
            f"Selected on {len(done.pool.truth)} images ({by}) for the MIoU convention {done.metric}.",
            f"Cross-fitted score: {done.honest} ({done.honest.level:.0%} interval); level: {done.fitted.best.name}",
            f"Score on the images it was selected on (optimistic): {done.same[done.fitted.chosen]:.4f}",
            f"Best single member, cross-fitted: {done.cross[SINGLE]}; "
            f"{done.fitted.levels[PLAIN].name}: {done.cross[PLAIN]}",
            f"Searched on {done.sampled:,} of {done.available:,} pixels; scores are over all pixels.",
            *([str(done.bound)] if done.bound is not None else []),
            f"SHA-256 of the plan: {done.sha256}",
            f"Made by: {options.command}",
        ]
    )
