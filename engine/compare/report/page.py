"""From a comparison to one HTML text: figures, tables, gallery, and a policy that blocks all loading and sending."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from engine.compare.folding import folded, row_key
from engine.compare.printing import KEPT, risk_at, verdict
from engine.compare.report import figures, pictures, tables
from engine.compare.report.scatter import throughput
from engine.compare.report.svg import NEEDS, page_style
from engine.compare.result import REASONS, Comparison, Facts, Row
from engine.metrics import CONVENTIONS, RULES
from engine.utils.optional import require
from engine.utils.palette import colours

REASON_NAMES = {"worst": "Worst", "disputed": "Most disputed", "rarest": "Rarest class"}


@dataclass(frozen=True)
class Panel:
    """One picture of a tile."""

    name: str
    uri: str
    kind: str


@dataclass(frozen=True)
class Card:
    """One tile of the gallery."""

    name: str
    reasons: list[str]
    told: str
    panels: list[Panel]
    height: int
    width: int


def render(done: Comparison, everything: bool = False) -> str:
    """Return the page.

    Args:
        done: the comparison.
        everything: show every row, also those with the same scores as another one.

    Raises:
        PlanError: the packages of the extra ``report`` are not installed.
    """
    jinja2, markupsafe = (require(name, "report", NEEDS) for name in ("jinja2", "markupsafe"))
    facts = done.facts
    files = importlib.resources.files("engine.compare.report")
    style, script, layout = (
        (files / name).read_text("utf-8").strip() for name in ("style.css", "script.js", "template.html.j2")
    )
    rules, classes = class_rules(facts)
    style += "\n" + rules
    with page_style():
        plots = draw_plots(facts)
    made = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"score": score, "signed": signed, "rate": rate, "percent": percent}
    return made.from_string(layout).render(
        facts=facts,
        policy=policy(style, script),
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        plots={name: markupsafe.Markup(text) for name, text in plots.items()},
        classes=classes,
        conventions=[facts.metric, *(name for name in CONVENTIONS if name != facts.metric)] if facts.labels else [],
        notes={name: rule.note for name, rule in RULES.items()},
        rows=_table_rows(facts, everything),
        everything=everything,
        matrices=_matrices(facts),
        class_rows=_class_rows(facts),
        states=[s for s in ("raw", "suppressed", "tuned") if any(row.state == s for row in facts.rows)],
        fused=facts.rows[facts.fused],
        single=facts.rows[facts.baseline[facts.metric]] if facts.labels else None,
        verdict=verdict,
        kept=KEPT,
        risk_at=risk_at,
        cards=[_card(done, index) for index in range(len(facts.tiles))],
        reasons=[(r, REASON_NAMES[r]) for r in REASONS if any(r in tile.reasons for tile in facts.tiles)],
        reason_names=REASON_NAMES,
        disputed=_disputed(facts),
    )


def policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy: only this style and script, and pictures from the file."""

    def digest(text: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def class_rules(facts: Facts) -> tuple[str, list[tuple[str, str]]]:
    """Return CSS rules for the swatches of the classes (no inline styles), and (CSS class, name) per class."""
    palette = colours(len(facts.classes))
    rules = [f".k{index}{{background:rgb({r},{g},{b})}}" for index, (r, g, b) in enumerate(palette)]
    return "\n".join(rules), [(f"k{index}", name) for index, name in enumerate(facts.classes)]


def draw_plots(facts: Facts) -> dict[str, str]:
    """Return every plot this comparison has, by name."""
    plots = {"throughput": both(throughput, facts)}
    if len(facts.members) > 1:
        plots["disputed"] = both(figures.disputed, facts)
    if not facts.labels:
        return {**plots, "shares": both(figures.shares, facts)}
    best, single = facts.rows[facts.fused], facts.rows[facts.baseline[facts.metric]]
    plots["classes"] = both(figures.class_scores, facts, [best, single])
    if facts.curves:
        plots["reliability"] = both(figures.reliability, facts)
    if facts.risk_curves:
        plots["risk"] = both(figures.risk_coverage, facts)
    if facts.ablation:
        plots["steps"] = both(figures.steps, facts)
    return plots


def both(draw: Callable[..., str], *given: object) -> str:
    """Return a figure in its two widths; the style shows the one that fits the screen."""
    return f'<div class="wide">{draw(*given)}</div><div class="narrow">{draw(*given, narrow=True)}</div>'


def _matrices(facts: Facts) -> dict[str, tables.Matrix]:
    found = {"agreement": tables.agreement(facts)} if len(facts.members) > 1 else {}
    if facts.labels:
        best, single = facts.rows[facts.fused], facts.rows[facts.baseline[facts.metric]]
        found |= {"best": tables.confusion(facts, best), "single": tables.confusion(facts, single)}
    return found


def _class_rows(facts: Facts) -> list[tables.ClassRow]:
    if not facts.labels:
        return []
    return tables.class_rows(facts, [facts.rows[facts.fused], facts.rows[facts.baseline[facts.metric]]])


def _table_rows(facts: Facts, everything: bool) -> list[dict[str, Any]]:
    """Return every row of the strategy table; those with the scores of an earlier one are hidden at first."""
    shown = folded(facts.rows, [facts.metric] if facts.labels else (), everything)
    others = {item.places[0]: item.others for item in shown}
    return [_table_row(facts, row, place, others.get(place)) for place, row in enumerate(facts.rows)]


def _table_row(facts: Facts, row: Row, place: int, others: str | None) -> dict[str, Any]:
    """Return a row of the strategy table, with the ends of its intervals on a scale of 0 to 100."""
    bars = {}
    for convention, found in row.scores.items():
        values = [
            held for other in facts.rows for held in (other.scores[convention].low, other.scores[convention].high)
        ]
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        span = max(high - low, 1e-9)
        known = not any(map(isnan, (found.low, found.high, found.value)))
        bars[convention] = (
            [round(100 * (v - low) / span, 1) for v in (found.low, found.high, found.value)] if known else []
        )
    return {
        "row": row,
        "place": place,
        "others": others or "",
        "hidden": others is None,
        "bars": bars,
        "baseline": {convention: facts.baseline[convention] == place for convention in row.scores},
        "same": {convention: _short_key(row, [convention]) for convention in row.scores} or {"": _short_key(row, ())},
    }


def _short_key(row: Row, conventions: Sequence[str]) -> str:
    return hashlib.sha256(row_key(row, conventions).encode()).hexdigest()[:12]


def _card(done: Comparison, index: int) -> Card:
    facts, held = done.facts, done.pictures
    tile, count = facts.tiles[index], len(facts.classes)
    rows, columns = slice(tile.height), slice(tile.width)
    panels = [Panel("image", pictures.photograph(held.images[index, rows, columns]), "image")]
    if len(held.truth):
        panels.append(Panel("truth", pictures.mask(held.truth[index, rows, columns], count), "mask"))
    row, fused = facts.rows[facts.fused], held.fused[index, rows, columns]
    panels.append(Panel(f"fused: {row.name}", pictures.mask(fused, count), "mask"))
    told_doubt = "doubt (votes)" if facts.left_out else "doubt (entropy)"
    panels.append(Panel(told_doubt, pictures.doubt(held.doubt[index, rows, columns]), "doubt"))
    own = held.members[index][:, rows, columns]
    for member, labels in zip(facts.members, own, strict=True):
        panels.append(Panel(member.name, pictures.mask(labels, count), "mask"))
    against = (own != fused).mean(axis=0)
    panels.append(Panel("disagreement", pictures.dispute(against), "dispute"))
    told = [] if isnan(tile.score) else [f"MIoU {tile.score:.3f}"]
    told.append(f"{tile.disputed:.0%} of the members' labels disputed")
    told.append(f"{tile.rare:.1%} {facts.classes[facts.rarest]}")
    return Card(tile.name, tile.reasons, " \N{MIDDLE DOT} ".join(told), panels, tile.height, tile.width)


def _disputed(facts: Facts) -> str:
    """Return which class is disputed most."""
    held = [
        (value, name) for value, name in zip(facts.disputed_by_class, facts.classes, strict=True) if not isnan(value)
    ]
    if not held or len(facts.members) < 2:
        return ""
    value, name = max(held)
    return f"{name} is disputed most: there, {value:.0%} of the members disagree with the mean of all."


def score(value: float) -> str:
    """Return a score with four digits."""
    return "\N{EN DASH}" if isnan(value) else f"{value:.4f}"


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return "\N{EN DASH}" if isnan(value) else f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def rate(value: float) -> str:
    """Return images per second."""
    return "\N{EN DASH}" if isnan(value) else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def percent(value: float) -> str:
    """Return a share."""
    return "\N{EN DASH}" if isnan(value) else f"{value:.1%}"
