"""Output of ``engine select``: one table or JSON, and a few lines on stderr."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from engine.bootstrap import Interval
from engine.fusion.calibration import Quality
from engine.fusion.doubt import Unknown
from engine.metrics import find_trap
from engine.scores.risk import Bound
from engine.select.command import Selection
from engine.select.crossfit import PLAIN, ROW_LEVELS, SINGLE
from engine.select.pool import Choice
from engine.select.whole_images import score
from engine.sources.coding import told_left_out
from engine.utils import console
from engine.utils.numbers import json_number


def print_selection(done: Selection, out: Path, as_json: bool) -> None:
    """Print the scores on stdout and a summary of the search on stderr."""
    if as_json:
        print(json.dumps(as_dict(done), indent=2))
    else:
        console.stdout().print(table(done))
    console.say(
        f"scored {done.fitted.tried:,} candidate ensembles on {done.sampled:,} of {done.available:,} pixels "
        f"in {done.seconds:.1f} s ({done.rate:,.0f}/s, clean-up and folds included)"
    )
    for place, gain in ((SINGLE, done.gain_single), (PLAIN, done.gain_plain)):
        console.say(f"cross-fitted gain over the {done.fitted.levels[place].name}: {_gain(gain)}")
    for step in done.steps:
        told = "kept" if step.kept else "does not help: left out"
        console.say(f"{step.name}, cross-fitted: {step.before:.4f} to {step.after:.4f}; {told}")
    for line in calibration_lines(done):
        console.say(line)
    if done.bound is not None:
        console.say(str(done.bound))
        console.say("its groups are judged by choices made without their folds, the plan's own is made with all")
    trap = find_trap(done.fitted.best.cross.sum(axis=0), done.pool.ignored_class)
    if trap is not None and done.metric == "keras-ignore":
        console.say(f"warning: {trap}")
    if done.fitted.passed_over is not None:
        name = done.fitted.levels[done.fitted.passed_over].name
        console.say(
            f"warning: {name!r} has the best cross-fitted score, but its plan scores below the best single member on "
            "all images: it is not taken"
        )
    console.say(f"wrote {out}: {describe(done.fitted.best.choice)}")


def calibration_lines(done: Selection) -> list[str]:
    """Say what calibrating did, one line per step; every figure is of folds that nothing was fitted on."""
    if done.calibrated is None:
        return []
    lines = []
    for step in done.calibrated.steps:
        told = "kept" if step.kept else "does not help: left out"
        lines.append(
            f"calibration, {step.name}: log loss {step.before.log_loss:.4f} to {step.after.log_loss:.4f}, calibration "
            f"error {step.before.error:.4f} to {step.after.error:.4f}, Brier {step.before.brier:.4f} to "
            f"{step.after.brier:.4f}; {told}"
        )
    return lines


def _calibration(done: Selection) -> list[dict[str, object]]:
    def row(quality: Quality) -> dict[str, float | None]:
        return {name: json_number(float(getattr(quality, name))) for name in ("log_loss", "error", "brier")}

    steps = done.calibrated.steps if done.calibrated is not None else ()
    return [{"name": s.name, "kept": s.kept, "before": row(s.before), "after": row(s.after)} for s in steps]


def _bound(bound: Bound, unknown: Unknown | None) -> dict[str, object]:
    held = {"threshold": bound.threshold, "doubt": unknown.doubt if unknown is not None else "", "risk": bound.alpha}
    measured = {"mean_risk": json_number(bound.risk), "corrected": json_number(bound.corrected)}
    return {**held, **measured, "coverage": json_number(bound.coverage), "groups": bound.groups}


def describe(choice: Choice) -> str:
    """Return a short description of a choice."""
    held = choice.decoding
    told = [f"{choice.strategy} of {len(choice.members)} members"]
    if held.bias:
        told.append("bias " + ", ".join(f"{value:g}" for value in held.bias))
    if held.threshold is not None:
        told.append(f"threshold {held.threshold:g}")
    if choice.calibrations:
        told.append("calibrated members")
    if held.prior:
        told.append("prior " + ", ".join(f"{value:g}" for value in held.prior))
    if held.temperature != 1:
        told.append(f"temperature {held.temperature:g}")
    if held.decode != "argmax":
        told.append(f"decoded by {held.decode}")
    if held.min_region:
        told.append(f"regions of {held.min_region} pixels or more")
    if held.cleanup:
        told.append("clean-up of class " + ", ".join(str(item.class_id) for item in held.cleanup))
    if choice.views:
        told.append(f"views {choice.views}")
    return "; ".join(told)


def table(done: Selection) -> Table:
    """Return one row per member and one per level, with the chosen level in bold."""
    by = "images" if done.pool.groups is None else "groups"
    pool = done.pool
    void_pixels = int((pool.truth.ravel() >= len(pool.classes)).sum())
    made = Table(
        title=f"MIoU ({done.metric}) on {len(done.pool.truth):,} images of {done.honest.groups:,} {by}",
        title_justify="left",
        header_style="bold",
        box=SIMPLE_HEAD,
        caption=f"{told_left_out(pool.ignored_class, pool.classes, pool.void, void_pixels)}\n"
        "cross-fitted: each image scored by a selection without its fold.\nsame: by a selection "
        f"with them, which is optimistic.\n{' and '.join(ROW_LEVELS)}: chosen among all by this score.",
        caption_justify="left",
    )
    made.add_column("", no_wrap=True)
    for title in ("weight", "cross-fitted", f"{done.honest.level:.0%} interval", "same"):
        made.add_column(title, justify="right")
    chosen, alone = done.fitted.best.choice, member_scores(done)
    for index, member in enumerate(done.pool.members):
        weight = str(chosen.counts[index] or "-")
        made.add_row(member.name, weight, "", "", _shown(alone[index]), end_section=index == len(alone) - 1)
    for index, level in enumerate(done.fitted.levels):
        found = done.cross[index]
        style = "bold" if index == done.fitted.chosen else ""
        mark = "chosen" if style else ""
        ends = f"{found.low:.4f} to {found.high:.4f}"
        made.add_row(level.name, mark, _shown(found.value), ends, _shown(done.same[index]), style=style)
    return made


def member_scores(done: Selection) -> list[float]:
    """Return the score of each single member."""
    return [score(done.pool, matrices, done.metric) for matrices in done.fitted.alone]


def as_dict(done: Selection) -> dict[str, object]:
    """Return the selection as plain JSON types."""
    pool, fitted = done.pool, done.fitted
    return {
        "metric": done.metric,
        "images": len(pool.truth),
        "groups": None if pool.groups is None else done.honest.groups,
        "folds": len(fitted.best.fold_choices),
        "pixels": {"searched": done.sampled, "counted": done.available},
        "candidates": fitted.tried,
        "seconds": round(done.seconds, 3),
        "plan_sha256": done.sha256,
        "steps": [
            {"name": step.name, "kept": step.kept, "before": json_number(step.before), "after": json_number(step.after)}
            for step in done.steps
        ],
        **({"calibration": _calibration(done)} if done.calibrated is not None else {}),
        **({"unknown": _bound(done.bound, done.plan.unknown)} if done.bound is not None else {}),
        "levels": [
            {
                "name": level.name,
                "chosen": index == done.fitted.chosen,
                "cross_fitted": _ends(done.cross[index]),
                "same_images": json_number(done.same[index]),
                "choice": _choice(done, level.choice),
                "fold_choices": [_choice(done, choice) for choice in level.fold_choices],
            }
            for index, level in enumerate(fitted.levels)
        ],
        "gain_over_best_single": _ends(done.gain_single),
        "gain_over_plain_mean": _ends(done.gain_plain),
        "members": [
            {"name": member.name, "sha256": member.checksum, "score": json_number(value)}
            for member, value in zip(pool.members, member_scores(done), strict=True)
        ],
    }


def _choice(done: Selection, choice: Choice) -> dict[str, object]:
    held = choice.decoding
    return {
        "strategy": choice.strategy,
        "weights": {done.pool.members[index].name: choice.counts[index] for index in choice.members},
        "suppress": sorted(held.suppress),
        "bias": list(held.bias),
        "threshold": held.threshold,
        "decode": held.decode,
        "prior": list(held.prior),
        "temperature": held.temperature,
        "calibrations": {
            done.pool.members[index].name: {
                "temperature": choice.calibrations[index].temperature,
                "bias": list(choice.calibrations[index].bias),
            }
            for index in (choice.members if choice.calibrations else ())
        },
        "min_region": held.min_region,
        "cleanup": {done.pool.classes[item.class_id]: item.stated for item in held.cleanup},
        "views": choice.views or done.pool.views,
    }


def _ends(found: Interval) -> dict[str, float | None]:
    return {"score": json_number(found.value), "low": json_number(found.low), "high": json_number(found.high)}


def _shown(value: float) -> str:
    return "-" if isnan(value) else f"{value:.4f}"


def _gain(gain: Interval) -> str:
    if gain.low == gain.value == gain.high == 0:
        return "none, this is the chosen ensemble"
    doubt = "" if gain.low > 0 else "; the interval contains 0, so it may be chance"
    return f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]{doubt}"
