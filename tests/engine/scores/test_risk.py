"""Risk-coverage curves against brute force, conformal thresholds against MAPIE, and the guarantee by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.scores.risk import STEPS, Coverage, DoubtCounts, aurc, control, least_aurc, too_few
from tests.helpers.properties import examples

DRAW = np.random.default_rng(7)


def some(images: int, pixels: int, seed: int, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Doubt on a grid, wrong where it is great more often than where it is small, and which pixels are scored."""
    draw = np.random.default_rng(seed)
    doubt = draw.integers(0, steps + 1, (images, pixels)) / steps
    wrong = draw.random((images, pixels)) < 0.1 + 0.5 * doubt
    return doubt.astype(np.float32), wrong, draw.random((images, pixels)) < 0.8


@given(st.integers(0, 10**6), st.sampled_from([1, 3, STEPS]))
@examples(25, interpreted=5)
def test_area_is_the_expectation_over_the_order_of_ties(seed: int, steps: int) -> None:
    doubt, wrong, scored = some(1, 40, seed, steps)
    counts = DoubtCounts.of(doubt, wrong, scored)
    found = aurc(counts.pixels[0], counts.wrong[0])
    d, w = doubt[scored], wrong[scored].astype(np.float64)
    # A pixel among ties stands for all of them: the expected number of errors among the first ones is linear there.
    mean = np.array([w[d == value].mean() for value in d])
    order = np.argsort(d, kind="stable")
    expected = (mean[order].cumsum() / np.arange(1, len(d) + 1)).mean() if len(d) else np.nan
    np.testing.assert_allclose(found, expected, atol=1e-9)
    if len(d):
        best = (np.sort(w).cumsum() / np.arange(1, len(d) + 1)).mean()
        np.testing.assert_allclose(least_aurc(len(d), w.sum()), best, atol=1e-9)
        assert found >= least_aurc(len(d), w.sum()) - 1e-9


@given(st.integers(0, 10**6))
@examples(15, interpreted=5)
def test_curve_is_what_counting_at_every_threshold_gives(seed: int) -> None:
    doubt, wrong, scored = some(4, 30, seed)
    doubt *= np.float32(0.9)  # between the steps
    groups = np.array([0, 1, 1, 2])
    counts = DoubtCounts.of(doubt, wrong, scored).grouped(groups)
    for k in (0, 1, 300, 777, STEPS):
        kept = scored & (np.minimum(doubt, 1) <= np.float32(k / STEPS))
        np.testing.assert_allclose(counts.coverage[k], kept.sum() / scored.sum())
        if kept.any():
            np.testing.assert_allclose(counts.selective[k], (wrong & kept).sum() / kept.sum())
        for group in range(3):
            own = groups == group
            np.testing.assert_allclose(counts.risks[group, k], (wrong & kept)[own].sum() / max(scored[own].sum(), 1))


def test_without_pixels() -> None:
    counts = DoubtCounts.of(np.zeros((2, 3), np.float32), np.ones((2, 3), bool), np.zeros((2, 3), bool))
    assert np.isnan(counts.coverage).all()
    assert (counts.risks == 0).all()
    assert np.isnan(aurc(counts.pixels.sum(axis=0), counts.wrong.sum(axis=0)))


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.35])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_thresholds_are_those_of_mapie(alpha: float, seed: int) -> None:
    """MAPIE controls 1 - recall: here every pixel counts, and kept wrong ones are missed."""
    mapie = pytest.importorskip("mapie.risk_control")
    doubt, wrong, scored = some(40, 50, seed, 64)
    scored[:] = True
    found = control(DoubtCounts.of(doubt, wrong, scored), alpha)
    steps = np.arange(0, STEPS + 1, STEPS // 64) / STEPS
    chance = np.where(wrong, doubt, 2.0)
    oracle = mapie.MultiLabelClassificationController(
        predict_function=lambda x: x, target_level=1 - alpha, risk="recall", method="crc", predict_params=steps
    )
    oracle.calibrate(chance, np.ones(chance.shape))
    expected = float(np.ravel(oracle.best_predict_param)[0])
    if found is None:
        # MAPIE gives its least threshold where none fits.
        assert expected == 0
        return
    assert np.floor(found.threshold * 64) / 64 == expected
    assert found.corrected <= alpha
    kept = wrong & (doubt <= found.threshold)
    np.testing.assert_allclose(found.risk, kept.mean(axis=1).mean())


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_bound_holds_for_new_groups(alpha: float) -> None:
    """Groups of very different difficulty: pixels are not exchangeable, groups are."""
    draw = np.random.default_rng(3)
    risks = []
    for _ in range(300):
        hard = draw.beta(0.4, 1.0, (15, 1))
        doubt = np.clip(draw.random((15, 60)) * 0.6 + 0.4 * hard, 0, 1).astype(np.float32)
        counts = DoubtCounts.of(doubt, draw.random((15, 60)) < hard * doubt, np.ones((15, 60), bool))
        found = control(counts.chosen(np.arange(14)), alpha)
        risks.append(0.0 if found is None else counts.risks[14, round(found.threshold * STEPS)])
    # A risk of 0 to 1 varies at most as a coin does.
    assert np.mean(risks) <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / len(risks))
    assert np.mean(risks) > alpha / 10


def test_how_many_groups_are_needed_is_said() -> None:
    assert too_few(19, 0.05) == ""
    assert "at least" not in too_few(18, 0.05)
    assert "give 19 groups or more, or a risk of 0.0526 or more" in too_few(18, 0.05)
    assert "give 9 groups or more" in too_few(2, 0.1)


def test_coverage_by_image_and_group() -> None:
    covered = DRAW.integers(0, 9, (5, 3, 3))
    scored = covered[:, 1:].sum(axis=(1, 2)) + np.array([4, 0, 3, 1, 0])
    groups = np.array([0, 0, 1, 1, 1])
    found = Coverage.of(scored, covered, 0, groups)
    wrong = covered[:, 1, 0] + covered[:, 1, 2] + covered[:, 2, 0] + covered[:, 2, 1]
    assert (found.kept, found.wrong) == (covered[:, 1:].sum(), wrong.sum())
    expected = np.mean([wrong[groups == g].sum() / scored[groups == g].sum() for g in range(2)])
    assert found.group_risk == pytest.approx(expected)
    assert "mean of 2 groups" in str(found)
