"""What abstaining would do: risk-coverage curves of every map of doubt, and thresholds with a bounded risk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import ROUNDS, ends, whole_and_resampled
from engine.compare.result import RiskBound, RiskCurve
from engine.compare.study import Study
from engine.fusion.doubt import DOUBTS
from engine.fusion.evidence import Evidence
from engine.metrics import VOID
from engine.scores.risk import DoubtCounts, aurc, control, groups_needed, least_aurc

# Points of a curve, evenly spread over coverage.
POINTS = 100
# Risks that thresholds are shown for, of the map that --unknown uses unless told otherwise.
RISKS = (0.01, 0.02, 0.05, 0.1, 0.2)
MEASURE = "entropy"


def abstaining(study: Study) -> tuple[list[RiskCurve], list[RiskBound]]:
    """Return the curve of each map of doubt for the suppressed mean of probabilities, the best first, and thresholds.

    Nothing is fitted to the labels there, so all groups may calibrate a threshold. Members that output labels have no
    probabilities: then there is none of either.
    """
    assert study.truth is not None
    if study.voters:
        return [], []
    counts = {name: counted.grouped(study.groups) for name, counted in _counted(study).items()}
    draws = whole_and_resampled(len(counts[MEASURE].pixels), ROUNDS, study.seed)
    curves = sorted((_curve(name, held, draws) for name, held in counts.items()), key=lambda curve: curve.area)
    return curves, [_bound(counts[MEASURE], alpha) for alpha in RISKS]


def _counted(study: Study) -> dict[str, DoubtCounts]:
    assert study.truth is not None
    truth, ensemble = study.truth, study.ensemble
    ignored = VOID if ensemble.ignored_class is None else ensemble.ignored_class

    def work(part: NDArray[np.int64]) -> list[DoubtCounts]:
        logits = study.store.read(part)
        true, found = truth[part], []
        for name in DOUBTS:
            evidence = Evidence(doubt=name, doubt_type="float32")
            held = ensemble.explain(logits, study.reference, study.store.size_of(part), evidence)
            assert held.shown.doubt is not None
            scored = (true < study.classes) & (true != ignored)
            found.append(DoubtCounts.of(held.shown.doubt, held.labels != true, scored))
        return found

    parts = list(study.in_batches(study.all_tiles, work))
    return {name: DoubtCounts.joined([part[place] for part in parts]) for place, name in enumerate(DOUBTS)}


def _curve(name: str, counts: DoubtCounts, draws: NDArray[np.float64]) -> RiskCurve:
    area = ends(aurc(draws @ counts.pixels, draws @ counts.wrong))
    coverage, selective = counts.coverage, counts.selective
    wanted = np.linspace(1 / POINTS, 1, POINTS)
    places = np.unique(np.minimum(np.searchsorted(coverage, wanted - 1e-12), len(coverage) - 1))
    places = places[~np.isnan(selective[places])]
    best = least_aurc(float(counts.pixels.sum()), float(counts.wrong.sum()))
    return RiskCurve(name, coverage[places].tolist(), selective[places].tolist(), *area, best)


def _bound(counts: DoubtCounts, alpha: float) -> RiskBound:
    found = control(counts, alpha)
    if found is None:
        none = float("nan")
        few = groups_needed(alpha) > len(counts.pixels)
        told = f"needs {groups_needed(alpha):,} groups" if few else "even the surest pixels are wrong too often"
        return RiskBound(alpha, none, none, none, told)
    return RiskBound(alpha, found.threshold, found.coverage, found.risk, "")
