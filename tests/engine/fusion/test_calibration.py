"""Temperature and bias: the fit against SciPy, and what plans, packed files and select make of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss, log_loss

from engine import Ensemble
from engine.errors import PlanError
from engine.fusion.calibration import BINS, RIDGE, Calibration, Quality, fit, summed
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan, write_plan
from engine.runs.provenance import plan_hash
from tests.conftest import Result
from tests.helpers import reference
from tests.helpers.nets import save_member
from tests.helpers.world import World

Engine = Callable[..., Result]


def drawn(seed: int, classes: int = 4, pixels: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the softmax of 0.6 times them plus a bias: too sure by far."""
    draw = np.random.default_rng(seed)
    z = draw.normal(0, 3, (pixels, classes))
    p = reference.softmax((0.6 * z + draw.normal(0, 0.7, classes)).T[None].astype(np.float32))[0].T
    return z, (p.cumsum(axis=1) < draw.random((pixels, 1))).sum(axis=1).clip(0, classes - 1)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_the_fit_is_scipys(seed: int, with_bias: bool) -> None:
    z, y = drawn(seed)

    def loss(values: np.ndarray) -> float:
        moved = values[0] * z + (values[1:] if with_bias else 0)
        total = np.log(np.exp(moved - moved.max(axis=1, keepdims=True)).sum(axis=1)) + moved.max(axis=1)
        return (total - moved[np.arange(len(y)), y]).mean() + RIDGE / 2 * (values[1:] ** 2).sum()

    start = np.concatenate([[1.0], np.zeros(4 if with_bias else 0)])
    best = minimize(loss, start, method="BFGS", options={"gtol": 1e-9})
    got = fit(z, y, with_bias)
    assert 1 / got.temperature == pytest.approx(best.x[0], rel=1e-4)
    if with_bias:
        expected = best.x[1:] / best.x[0]
        np.testing.assert_allclose(got.bias, expected - expected.mean(), atol=2e-3)
        assert got.temperature == pytest.approx(1 / 0.6, rel=0.15)


def test_what_has_no_answer_stays_in_bounds() -> None:
    z, y = drawn(1)
    right = 3 * np.eye(4)[y]
    assert 0.05 <= fit(right, y).temperature < 0.2  # always right: as sure as the loss can tell
    assert not fit(z[:0], y[:0])
    lacking = fit(z, np.where(y == 2, 1, y))
    assert np.isfinite(lacking.bias).all()
    for wrong in ({"temperature": 0.0}, {"temperature": float("nan")}, {"bias": (float("inf"), 0.0)}):
        with pytest.raises(PlanError):
            Calibration(**wrong)


def test_quality_is_scikit_learns() -> None:
    z, y = drawn(2)
    p = reference.softmax(z.T[None].astype(np.float32))[0].T
    parts = [Quality.of(p[:1000], y[:1000]), Quality.of(p[1000:], y[1000:])]
    got = summed(parts)
    assert got.log_loss == pytest.approx(log_loss(y, p), rel=1e-6)
    assert got.brier == pytest.approx(sum(brier_score_loss(y == c, p[:, c]) for c in range(4)), rel=1e-6)
    sure, right = p.max(axis=1), p.argmax(axis=1) == y
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(sure[place == b].sum() - right[place == b].sum()) for b in range(BINS)]
    assert got.error == pytest.approx(sum(gaps) / len(y))
    assert np.isnan(Quality(np.zeros(2 + 3 * BINS)).error)


def test_plans_apply_it_and_records_tell_it(world: World, tmp_path: Path) -> None:
    files = sorted(world.models.iterdir())
    tables = [
        f'[[members]]\nmodel = "{files[0].as_posix()}"\ntemperature = 2\nbias = [0, 0.5, 0, 0, -1]\n',
        f'[[members]]\nmodel = "{files[1].as_posix()}"\n',
    ]
    (tmp_path / "e.toml").write_text("temperature = 1.5\n" + "".join(tables))
    plan = read_plan(tmp_path / "e.toml")
    write_plan(tmp_path / "again.toml", plan)
    again = read_plan(tmp_path / "again.toml")
    assert [member.calibration for member in again.members] == [member.calibration for member in plan.members]
    assert again.temperature == plan.temperature == 1.5
    ensemble = open_ensemble(plan, Options(), None)
    plain = Ensemble.open(files[:2])
    assert plan_hash(ensemble) != plan_hash(plain)
    _, scores, _ = ensemble.predict(world.images, scores="float32")
    z = np.stack([Ensemble.open([file], suppress=[]).predict(world.images, scores="float32")[1] for file in files[:2]])
    logits = np.log(z.astype(np.float64))
    logits[0] = (logits[0] + np.array([0, 0.5, 0, 0, -1])[:, None, None]) / 2
    fused = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    fused = fused.mean(axis=0)[:, 1:] / 1.5
    expected = np.exp(fused) / np.exp(fused).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores[:, 1:], expected, atol=2e-5)
    (tmp_path / "bad.toml").write_text(tables[0].replace("-1]", "-1, 2]"))
    with pytest.raises(PlanError, match="6 values of bias for 5 classes"):
        open_ensemble(read_plan(tmp_path / "bad.toml"), Options(), None)


@pytest.mark.parametrize("strategy", ["mean-logit", "mean-prob", "vote"])
def test_packed_files_hold_it(strategy: str, world: World, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    packing = pytest.importorskip("exporters.pack")
    save_member(tmp_path / "a.onnx", 1)
    save_member(tmp_path / "b.onnx", 2)
    tables = '[[members]]\nmodel = "a.onnx"\ntemperature = 3\nbias = [0, 1, 0, 0, 0.2]\n[[members]]\nmodel = "b.onnx"\n'
    (tmp_path / "e.toml").write_text(f'strategy = "{strategy}"\ntemperature = 0.7\n' + tables)
    done = packing.pack(tmp_path / "e.toml", tmp_path / "p.onnx", scores=True)
    given = {"images": world.images[:, None].astype(np.float32)}
    labels, scores = onnxruntime.InferenceSession(done.path).run(["labels", "scores"], given)
    ensemble = open_ensemble(read_plan(tmp_path / "e.toml"), Options(), None)
    masks, expected, _ = ensemble.predict(world.images, scores="float32")
    same = masks == labels
    assert same.mean() > 0.999
    assert np.abs(scores - expected).max(axis=1)[same].max() < 1e-5


def test_select_keeps_what_helps_other_folds(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nets; the truth is drawn from the softmax of a third of their mean logits, so they are far too sure."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        save_member(tmp_path / f"{name}.onnx", seed)
    draw = np.random.default_rng(5)
    images = draw.integers(0, 240, (24, 16, 16)).astype(np.uint8)
    scores = Ensemble.open([tmp_path / "a.onnx", tmp_path / "b.onnx"]).predict(images, scores="float32")[1]
    p = np.maximum(scores.astype(np.float64), 1e-9) ** (1 / 3)
    p[:, 0] = 0
    p /= p.sum(axis=1, keepdims=True)
    truth = (p.cumsum(axis=1) < draw.random((24, 1, 16, 16))).sum(axis=1).clip(1, 4).astype(np.uint8)
    np.savez("d.npz", images=images, labels=truth, groups=np.arange(24) // 3)
    given = ("select", "-m", "a.onnx", "-m", "b.onnx", "-i", "d.npz:images", "--labels", "d.npz:labels", "--groups",
             "d.npz:groups", "--folds", 3, "--pixels", 4000, "--no-bias", "--no-threshold", "--no-clean-up",
             "--strategies", "mean-prob")  # fmt: skip
    done = engine(*given, "-o", "e.toml", "--calibrate", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    steps = told["calibration"]
    assert any(step["kept"] for step in steps)
    for step in steps:
        assert step["kept"] == (step["after"]["log_loss"] <= step["before"]["log_loss"] - 1e-4) or not step["kept"]
    last = [step["after"] for step in steps if step["kept"]][-1]
    assert last["log_loss"] < steps[0]["before"]["log_loss"] - 0.05
    assert last["error"] < steps[0]["before"]["error"]
    assert told["levels"][-1]["name"] == "+ calibration"
    assert told["levels"][-1]["chosen"]
    plan = read_plan(Path("e.toml"))
    assert plan_hash(open_ensemble(plan, Options(), None)) == told["plan_sha256"]
    again = open_ensemble(plan, Options(), None).predict(images, scores="float32")[1]
    counted = np.take_along_axis(again, truth[:, None].astype(int), axis=1)
    before = np.take_along_axis(scores, truth[:, None].astype(int), axis=1)
    assert -np.log(np.maximum(counted, 1e-9)).mean() < -np.log(np.maximum(before, 1e-9)).mean() - 0.05
    shown = engine(*given, "-o", "f.toml", "--calibrate")
    assert "calibration, " in shown.err
    assert "log loss" in shown.err
