"""A threshold of doubt from ``engine select``: counted by hand, stored, applied, and refused where it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import PlanError
from engine.fusion.decoding import Decoding
from engine.fusion.doubt import Unknown
from engine.runs.plan import read_plan
from engine.scores.risk import STEPS
from engine.select.abstain import bounded, check_groups
from engine.select.pool import Choice
from tests.conftest import Result
from tests.engine.select.test_command import made
from tests.helpers import reference
from tests.helpers.nets import save_member

Engine = Callable[..., Result]
GROUPS = 12


def test_thresholds_are_those_of_counting_by_hand() -> None:
    pool = replace(made(), groups=np.arange(12) // 2)
    folds = np.arange(12) // 4
    choices = [Choice("mean-prob", counts, Decoding(frozenset({0}))) for counts in ((1, 1, 0, 0), (2, 1, 1, 0), (0, 1, 0, 1))]  # noqa: E501  # fmt: skip
    found = bounded(pool, choices, folds, "entropy", 0.35)
    doubt, wrong = np.empty(pool.truth.shape), np.empty(pool.truth.shape, bool)
    for fold, choice in enumerate(choices):
        own = folds == fold
        logits = np.stack([pool.logs[m][own].astype(np.float32) for m in choice.members])
        labels = pool.labels(choice, np.flatnonzero(own))
        doubt[own] = reference.doubt_of("entropy", "mean-prob", logits, choice.weights, choice.decoding, labels)
        wrong[own] = labels != pool.truth[own]
    scored = pool.truth != 0
    assert 0 < found.threshold < 1

    def risk(threshold: float) -> float:
        kept = scored & wrong & (doubt <= threshold)
        return float(np.mean([kept[pool.groups == g].sum() / scored[pool.groups == g].sum() for g in range(6)]))

    assert found.risk == pytest.approx(risk(found.threshold))
    assert (6 * risk(found.threshold) + 1) / 7 <= 0.35 < (6 * risk(found.threshold + 1 / STEPS) + 1) / 7
    assert found.coverage == pytest.approx((scored & (doubt <= found.threshold)).sum() / scored.sum())


def test_a_risk_that_even_sure_pixels_exceed_is_refused() -> None:
    pool = made()
    wrong = (pool.truth % 4 + 1).astype(np.uint8)
    shown = np.ascontiguousarray(200 * np.eye(5, dtype=np.float16)[wrong].transpose(0, 2, 1))
    pool = replace(pool, logs=[shown] * 4, groups=None)
    with pytest.raises(PlanError, match=r"no threshold of entropy keeps it on 12 groups.*ask for 1 or more"):
        bounded(pool, [Choice("mean-prob", (1, 0, 0, 0), Decoding())], np.zeros(12, np.int64), "entropy", 0.3)
    with pytest.raises(PlanError, match=r"--unknown-risk: a risk of 0.05 cannot be promised on 12 groups"):
        check_groups(12, 0.05)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members, 24 small images of 12 groups, and truth that is mostly the first member's labels."""
    from engine import Ensemble

    folder = tmp_path_factory.mktemp("abstain")
    for seed in range(2):
        save_member(folder / f"{'ab'[seed]}.onnx", seed)
    draw = np.random.default_rng(5)
    images = draw.integers(0, 240, (2 * GROUPS, 8, 16)).astype(np.uint8)
    truth = Ensemble.open(folder).predict(images)
    noise = draw.random(truth.shape) < 0.1
    truth[noise] = draw.integers(0, 5, int(noise.sum()))
    np.savez(folder / "val.npz", images=images, labels=truth, groups=np.arange(2 * GROUPS) // 2)
    return folder


def given(place: Path, out: Path, *more: object) -> tuple[object, ...]:
    data = (
        "-i",
        f"{place}/val.npz:images",
        "--labels",
        f"{place}/val.npz:labels",
        "--groups",
        f"{place}/val.npz:groups",
    )
    return ("select", "-m", place, *data, "--strategies", "mean-prob", "--rounds", 3, "--folds", 3, "-o", out, *more)


def test_the_plan_holds_it_and_a_run_applies_it(place: Path, tmp_path: Path, engine: Engine) -> None:
    out = tmp_path / "p.toml"
    done = engine(*given(place, out, "--unknown-risk", 0.15, "--json"))
    assert done.code == 0, done.err
    told = json.loads(done.out)["unknown"]
    plan = read_plan(out)
    assert plan.unknown == Unknown(told["threshold"], "entropy", 0.15, GROUPS)
    assert told["corrected"] == pytest.approx((GROUPS * told["mean_risk"] + 1) / (GROUPS + 1), abs=1e-6)
    assert told["corrected"] <= 0.15
    line = next(line for line in done.err.splitlines() if line.startswith("risk control"))
    assert "is at most 0.15" in line
    assert f"n = {GROUPS} groups" in line
    assert "exchangeable" in line
    assert f"# {line}" in out.read_text("utf-8")
    run = engine("ensemble", "--plan", out, "-i", f"{place}/val.npz:images", "-o", tmp_path / "m.npy")
    assert run.code == 0, run.err
    assert "conformal, 12 groups" in run.err
    record = json.loads((tmp_path / "m.npy.json").read_text("utf-8"))
    assert record["plan_sha256"] == json.loads(done.out)["plan_sha256"]
    assert record["unknown"]["risk"] == 0.15
    score = engine("evaluate", tmp_path / "m.npy", "--labels", f"{place}/val.npz:labels", "--groups",
                   f"{place}/val.npz:groups", "--json")  # fmt: skip
    assert json.loads(score.out)["unknown"]["groups"] == GROUPS


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--unknown-risk", 0.05), "cannot be promised on 12 groups"),
        (("--unknown-risk", 1.5), "a share between 0 and 1"),
        (("--unknown-risk", 0.2, "--doubt-map", "anger"), "allowed are entropy"),
        (("--doubt-map", "votes"), "--doubt-map without --unknown-risk"),
    ],
)
def test_what_cannot_be_promised_is_refused(
    more: tuple[object, ...], told: str, place: Path, tmp_path: Path, engine: Engine
) -> None:
    done = engine(*given(place, tmp_path / "p.toml", *more))
    assert (done.code, told in done.err) == (2, True), done.err
    assert not (tmp_path / "p.toml").exists()
