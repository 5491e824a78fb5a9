"""Curves and thresholds of a comparison against plain counting over all pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine import Ensemble
from engine.compare.abstain import RISKS
from engine.compare.checks import contradiction
from engine.compare.command import compare
from engine.compare.options import CompareOptions
from engine.compare.printing import abstaining_table, bounds_table, risk_at
from engine.runs.options import Options
from tests.helpers.world import World


@pytest.fixture(scope="module")
def data(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """40 images of 20 groups, truth that is mostly what the members say, and the groups."""
    draw = np.random.default_rng(2)
    images = draw.integers(0, 240, (40, 8, 16)).astype(np.uint8)
    truth = Ensemble.open(world.models, strategy="mean-prob").predict(images)
    truth = np.where(draw.random(truth.shape) < 0.2, draw.integers(0, 5, truth.shape), truth).astype(np.uint8)
    path = tmp_path_factory.mktemp("abstain") / "val.npz"
    np.savez(path, images=images, labels=truth, groups=np.arange(40) // 2)
    return path, images, truth


def test_curves_and_thresholds_are_those_of_counting(data: tuple[Path, np.ndarray, np.ndarray], world: World) -> None:
    path, images, truth = data
    job = Options(models=(str(world.models),), input=f"{path}:images", labels=f"{path}:labels")
    done = compare(CompareOptions(job, groups=f"{path}:groups", folds=2, pixels=300, ablation=False, gallery=1))
    facts = done.facts
    assert contradiction(facts) == ""
    assert [curve.area for curve in facts.risk_curves] == sorted(curve.area for curve in facts.risk_curves)
    scored = truth != 0
    for curve in facts.risk_curves:
        found = Ensemble.open(world.models, strategy="mean-prob").predict(
            images, doubt=curve.name, doubt_type="float32"
        )
        doubt, wrong = found.doubt[scored], (found.masks != truth)[scored]
        step = np.ceil(doubt * 1024)
        mean = np.array([wrong[step == value].mean() for value in step])[np.argsort(step, kind="stable")]
        area = (mean.cumsum() / np.arange(1, len(mean) + 1)).mean()
        assert curve.area == pytest.approx(area, abs=1e-6)
        assert curve.area_low <= curve.area <= curve.area_high
        assert (curve.coverage[-1], curve.risk[-1]) == (1, pytest.approx(wrong.mean()))
        half = risk_at(curve, 0.5)
        kept = step <= np.sort(step)[int(np.ceil(0.5 * len(step))) - 1]
        assert half == pytest.approx(wrong[kept].mean())
        if curve.name == "entropy":
            entropy, labels = found.doubt, found.masks
    for bound in facts.risk_bounds:
        if bound.alpha < 1 / 21:
            assert bound.told == f"needs {round(1 / bound.alpha) - 1} groups"
        elif not bound.told:
            kept = scored & (entropy <= bound.threshold)
            groups = np.arange(40) // 2
            risks = [((labels != truth) & kept)[groups == g].sum() / scored[groups == g].sum() for g in range(20)]
            assert bound.risk == pytest.approx(np.mean(risks))
            assert (20 * bound.risk + 1) / 21 <= bound.alpha
            assert bound.coverage == pytest.approx(kept.sum() / scored.sum())
    assert [bound.alpha for bound in facts.risk_bounds] == list(RISKS)
    assert any(not bound.told for bound in facts.risk_bounds)
    assert abstaining_table(facts).row_count == 4
    assert bounds_table(facts).row_count == len(RISKS)
    assert done.pictures.doubt.max() <= 254
