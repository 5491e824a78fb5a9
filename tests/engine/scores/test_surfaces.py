"""Scores of borders against SciPy's morphology and distances, OpenCV's erosion, and brute force."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from engine.errors import PlanError
from engine.scores.surfaces import BOUNDARY, DICE, HD95, METRICS, SURFACE, SurfaceCounts, SurfaceRules, over_classes
from tests.conftest import Result

Engine = Callable[..., Result]
CLASSES = 4


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A blobby truth with void, and a guess that differs in shifts and noise; some classes are absent from either."""
    draw = np.random.default_rng(seed)
    size = tuple(draw.integers(3, 70, 2))
    smooth = ndimage.gaussian_filter(draw.normal(size=(CLASSES, *size)), (0, *draw.uniform(0.3, 4, 2)))
    truth = smooth.argmax(axis=0).astype(np.uint8)
    guess = np.roll(truth, draw.integers(-2, 3, 2), (0, 1))
    hit = draw.random(size) < draw.choice([0.0, 0.05])
    guess[hit] = draw.integers(0, CLASSES, hit.sum())
    for array in (truth, guess):
        gone = draw.integers(0, 2 * CLASSES)
        array[array == gone] = 0
    if seed % 2:
        truth[draw.random(size) < 0.03] = 255
    return truth, guess


def boundary_by_opencv(mask: np.ndarray, width: int) -> np.ndarray:
    """The authors' way: a frame of zeros, ``width`` erosions with a 3x3 square."""
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)
    return mask & ~eroded[1:-1, 1:-1].astype(bool)


def distances_by_scipy(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cross = ndimage.generate_binary_structure(2, 1)
    rims = [mask & ~ndimage.binary_erosion(mask, cross) for mask in (a, b)]
    return tuple(ndimage.distance_transform_edt(~rims[1 - side])[rims[side]] for side in (0, 1))


@pytest.mark.parametrize("missing", ["diagonal", "infinite"])
def test_fifty_maps_equal_scipys_and_opencvs(missing: str) -> None:
    for seed in range(50):
        truth, guess = maps(seed)
        rules = SurfaceRules(tolerance=1.5, width=0.05, missing=missing)
        counts = SurfaceCounts(CLASSES, rules)
        counts.add(truth, guess)
        got = counts.values()
        diagonal = math.hypot(*truth.shape)
        width = max(1, round(0.05 * diagonal))
        for c in range(CLASSES):
            a, b = (truth == c) & (truth < 255), (guess == c) & (truth < 255)
            if not (a.any() or b.any()):
                assert np.isnan(got[c]).all()
                assert counts.absent[c] == 1
                continue
            bands = boundary_by_opencv(a, width), boundary_by_opencv(b, width)
            expected = {DICE: 2 * (a & b).sum() / (a.sum() + b.sum())}
            expected[BOUNDARY] = (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
            if a.any() and b.any():
                to_b, to_a = distances_by_scipy(a, b)
                expected[HD95] = max(np.percentile(to_b, 95), np.percentile(to_a, 95))
                expected[SURFACE] = ((to_b <= 1.5).sum() + (to_a <= 1.5).sum()) / (to_a.size + to_b.size)
            else:
                assert counts.lone[c] == 1
                expected |= {HD95: diagonal if missing == "diagonal" else math.inf, SURFACE: 0.0}
            for metric, value in expected.items():
                assert got[c, metric] == pytest.approx(value, abs=1e-6), (seed, c, METRICS[metric])


def test_distances_by_brute_force() -> None:
    """A square against the same one moved by three columns, by hand: the sides are three apart, the rest less."""
    truth, guess = np.zeros((2, 20, 20), np.uint8)
    truth[5:12, 4:11] = 1
    guess[5:12, 7:14] = 1
    counts = SurfaceCounts(2, SurfaceRules(tolerance=2, width=1 / math.hypot(20, 20)))
    counts.add(truth, guess)
    rims = [[(r, c) for r in range(5, 12) for c in range(s, s + 7) if r in (5, 11) or c in (s, s + 6)] for s in (4, 7)]
    sides = [[min(math.dist(p, q) for q in rims[1 - k]) for p in rims[k]] for k in (0, 1)]
    got = counts.values()[1]
    assert got[HD95] == pytest.approx(max(np.percentile(side, 95) for side in sides))
    assert got[SURFACE] == pytest.approx(sum(d <= 2 for side in sides for d in side) / sum(map(len, sides)))
    assert got[BOUNDARY] == pytest.approx(len({*rims[0]} & {*rims[1]}) / len({*rims[0]} | {*rims[1]}))


def test_sums_means_and_resamples() -> None:
    counts, pairs = SurfaceCounts(CLASSES), [maps(seed) for seed in range(0, 12, 2)]
    for truth, guess in pairs:
        counts.add(truth, guess)
    groups = np.array([0, 0, 1, 1, 2, 2])
    draws = np.array([[1.0, 1, 1], [2, 0, 1], [0, 3, 0]])
    got = counts.values(draws, groups)
    np.testing.assert_allclose(got[0], counts.values())
    for draw, values in zip(draws, got, strict=True):
        again = SurfaceCounts(CLASSES)
        for (truth, guess), group in zip(pairs, groups, strict=True):
            for _ in range(int(draw[group])):
                again.add(truth, guess)
        np.testing.assert_allclose(values, again.values(), atol=1e-12)
    assert over_classes(np.array([[1.0], [np.nan], [3.0], [5.0]]), 0) == [4.0]
    assert np.isnan(over_classes(np.full((2, 1), np.nan), None)).all()


def test_the_command(tmp_path: Path, engine: Engine) -> None:
    pairs = [maps(seed) for seed in (3, 5, 7)]
    size = tuple(min(pair[0].shape[axis] for pair in pairs) for axis in (0, 1))
    truth, guess = (np.stack([pair[side][: size[0], : size[1]] for pair in pairs]) for side in (0, 1))
    np.save(tmp_path / "y.npy", truth)
    np.save(tmp_path / "m.npy", guess)
    np.save(tmp_path / "g.npy", np.array([0, 1, 1]))
    given = (
        "evaluate",
        tmp_path / "m.npy",
        "--labels",
        tmp_path / "y.npy",
        "--classes",
        4,
        "--groups",
        tmp_path / "g.npy",
    )
    done = engine(*given, "--surfaces", "--json", "--missing", "infinite")
    assert done.code == 0, done.err
    told = json.loads(done.out)["borders"]
    counts = SurfaceCounts(4, SurfaceRules(missing="infinite"))
    for one, other in zip(truth, guess, strict=True):
        counts.add(one, other)
    for row, values in zip(told["classes"], counts.values(), strict=True):
        for name, value in zip(METRICS, values, strict=True):
            shown = math.inf if row[name] == "infinite" else math.nan if row[name] is None else row[name]
            assert shown == pytest.approx(value, abs=1e-6, nan_ok=True)
    assert told["mean"]["dice interval"][0] <= told["mean"]["dice"] <= told["mean"]["dice interval"][1]
    shown = engine(*given, "--surfaces").out
    assert "Borders (every pixel but void)" in shown
    assert "surface Dice within 2 pixels" in " ".join(shown.split())
    refused = engine(*given, "--tolerance", 3)
    assert (refused.code, "go with --surfaces" in refused.err) == (2, True)


@pytest.mark.parametrize("wrong", [{"tolerance": -1}, {"width": 0}, {"missing": "nothing"}, {"tolerance": math.nan}])
def test_rules_without_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PlanError):
        SurfaceRules(**wrong)  # type: ignore[arg-type]
