"""Intervals against a plain loop over resampled groups; the vectorised score against the plain one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bootstrap import GroupedCounts, interval, paired_difference, resampled
from engine.errors import InputError, PlanError
from engine.metrics import CONVENTIONS, Score, confusion_matrices, mean_ious
from engine.sources.groups import read_groups
from tests.conftest import Result
from tests.helpers import reference
from tests.helpers.properties import examples

IMAGES, CLASSES = 23, 4


def drawn(seed: int, wrong: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction, uint8 (images, pixels); class 3 is rare and some images hold nothing but class 0."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(CLASSES, (IMAGES, 30), p=[0.4, 0.3, 0.28, 0.02]).astype(np.uint8)
    truth[::7] = 0
    guess = np.where(rng.random(truth.shape) < wrong, rng.integers(0, CLASSES, truth.shape), truth).astype(np.uint8)
    return truth, guess


GROUPS = np.random.default_rng(5).integers(0, 6, IMAGES)


def plain(truth: np.ndarray, guess: np.ndarray, groups: np.ndarray, convention: str, seed: int, rounds: int) -> list:
    """The score of each resample, gathered image by image."""
    count = int(groups.max()) + 1
    picked = np.random.default_rng(seed).integers(0, count, (rounds, count))
    values = []
    for row in picked:
        images = np.concatenate([np.flatnonzero(groups == group) for group in row])
        score = Score(CLASSES)
        score.update(truth[images], guess[images])
        values.append(score.mean_iou(convention))
    return values


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("by_tile", [False, True])
def test_against_a_plain_loop(convention: str, by_tile: bool) -> None:
    truth, guess = drawn(1)
    groups = np.arange(IMAGES) if by_tile else GROUPS
    matrices = confusion_matrices(truth, guess, CLASSES)
    counts = GroupedCounts.of(matrices, None if by_tile else groups, 0)
    values = plain(truth, guess, groups, convention, 9, 80)
    np.testing.assert_allclose(counts.scores(resampled(int(groups.max()) + 1, 80, 9), convention), values)
    found = interval(counts, convention, rounds=80, level=0.9, seed=9)
    np.testing.assert_allclose([found.low, found.high], np.nanpercentile(values, [5, 95]))
    whole = Score(CLASSES)
    whole.update(truth, guess)
    assert found.value == pytest.approx(whole.mean_iou(convention))
    assert found.low < found.value < found.high
    assert found.groups == int(groups.max()) + 1


@pytest.mark.parametrize("convention", ["labelled", "per-image"])
def test_a_paired_difference_sees_the_same_groups(convention: str) -> None:
    truth, guess = drawn(1)
    better = np.where(np.random.default_rng(2).random(truth.shape) < 0.3, truth, guess).astype(np.uint8)
    sides = [GroupedCounts.of(confusion_matrices(truth, made, CLASSES), GROUPS, 0) for made in (better, guess)]
    found = paired_difference(*sides, convention, rounds=60, seed=4)
    one, other = (np.array(plain(truth, made, GROUPS, convention, 4, 60)) for made in (better, guess))
    np.testing.assert_allclose([found.low, found.high], np.nanpercentile(one - other, [2.5, 97.5]))
    assert found.low > 0
    alone = [interval(side, convention, rounds=60, seed=4) for side in sides]
    assert found.value == pytest.approx(alone[0].value - alone[1].value)
    nothing = paired_difference(sides[0], sides[0], convention)
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)


def test_a_seed_gives_the_same_interval_again() -> None:
    counts = GroupedCounts.of(confusion_matrices(*drawn(1), CLASSES), GROUPS, 0)
    assert interval(counts, "labelled") == interval(counts, "labelled")
    assert interval(counts, "labelled") != interval(counts, "labelled", seed=1)


@examples(60)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.none() | st.integers(0, 1))
def test_many_matrices_score_as_their_pixels_one_by_one(classes: int, seed: int, ignored: int | None) -> None:
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 4, (3, 2, classes, classes)) * (rng.random((3, 2, classes, classes)) < 0.3)

    def from_pixels(matrix: np.ndarray, convention: str) -> float:
        truth, predicted = (axis.repeat(matrix.ravel())[None] for axis in np.indices(matrix.shape).reshape(2, -1))
        return reference.mean_iou(truth, predicted, classes, convention, ignored)

    for convention in CONVENTIONS:
        want = [[from_pixels(matrix, convention) for matrix in row] for row in matrices]
        np.testing.assert_allclose(mean_ious(matrices, convention, ignored), want)


def test_what_cannot_be_resampled_is_refused() -> None:
    matrices = confusion_matrices(*drawn(1), CLASSES)
    counts = GroupedCounts.of(matrices, GROUPS, 0)
    with pytest.raises(InputError, match="1 group: at least two"):
        interval(GroupedCounts.of(matrices, np.zeros(IMAGES, np.int64), 0), "labelled")
    with pytest.raises(InputError, match="same images"):
        paired_difference(counts, GroupedCounts.of(matrices, None, 0), "labelled")
    with pytest.raises(PlanError, match="unknown metric convention"):
        interval(counts, "miou")
    for options in ({"rounds": 0}, {"level": 1.0}):
        with pytest.raises(PlanError, match="bootstrap of"):
            interval(counts, "labelled", **options)


def test_groups_are_read_from_every_form(tmp_path: Path) -> None:
    names = np.array(["b", "a", "b", "c"])
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 2, 2)), groups=names, other=np.arange(4))
    np.save(tmp_path / "x.npy", np.array([7, 5, 7, 9], np.int32))
    np.savez(tmp_path / "one.npz", images=np.zeros((4, 2, 2)), place=np.array([7.0, 5.0, 7.0, 9.0]))
    for spec in (tmp_path / "x.npz", f"{tmp_path}/x.npz:groups", tmp_path / "x.npy", tmp_path / "one.npz"):
        assert read_groups(spec, 4).tolist() == [1, 0, 1, 2]
    assert read_groups(f"{tmp_path}/x.npz:other", 4).tolist() == [0, 1, 2, 3]
    np.savez(tmp_path / "bad.npz", images=np.zeros((4, 2, 2)), a=np.arange(4), b=np.arange(4))
    np.save(tmp_path / "bad.npy", np.array([0.5, 1, 1, 2]))
    for spec, count, told in (
        (tmp_path / "x.npz", 5, "4 groups for 5 images"),
        (tmp_path / "bad.npz", 4, "which array holds the groups"),
        (f"{tmp_path}/x.npz:images", 4, "which array holds the groups"),
        (tmp_path / "bad.npy", 4, "fractions"),
        (tmp_path / "none.npz", 4, "no such file"),
        (tmp_path / "x.csv", 4, ".npz or .npy"),
    ):
        with pytest.raises(InputError, match=told):
            read_groups(spec, count)


def test_evaluate_prints_the_interval(tmp_path: Path, engine: Callable[..., Result]) -> None:
    truth, guess = drawn(1)
    for name, maps in (("truth", truth), ("guess", guess)):
        np.save(tmp_path / f"{name}.npy", maps.reshape(IMAGES, 5, 6))
    np.save(tmp_path / "groups.npy", GROUPS)
    arguments = ("evaluate", tmp_path / "guess.npy", "--labels", tmp_path / "truth.npy")
    counts = GroupedCounts.of(confusion_matrices(truth, guess, CLASSES), GROUPS, 0)
    for more in ((), ("--classes", "4")):
        told = json.loads(engine(*arguments, "--groups", tmp_path / "groups.npy", "--json", *more).out)
        for name in CONVENTIONS:
            found = interval(counts, name)
            assert told["interval"][name] == [pytest.approx(found.low, abs=1e-6), pytest.approx(found.high, abs=1e-6)]
    shown = engine(*arguments, "--groups", tmp_path / "groups.npy").out
    found = interval(counts, "labelled")
    assert f"{found.low:.4f} to {found.high:.4f}" in shown
    assert "6 groups" in shown
    assert "interval" not in json.loads(engine(*arguments, "--json").out)
    np.save(tmp_path / "short.npy", GROUPS[:-1])
    refused = engine(*arguments, "--groups", tmp_path / "short.npy")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "22 groups for 23 images" in refused.err
