"""Pseudo-labels: held against a plain computation of the members' probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engine.errors import InputError, PlanError
from engine.runs.plan import Plan, write_plan
from engine.runs.plan_member import PlannedMember
from tests.conftest import Result
from tests.helpers.nets import FIVE, save_member
from tests.trainers.conftest import tiles
from trainers.cli import app
from trainers.config import FitConfig
from trainers.data import load
from trainers.fit import prepared, split
from trainers.pseudo import pseudo_label


@pytest.fixture
def members(tmp_path: Path) -> Path:
    folder = tmp_path / "members"
    folder.mkdir()
    for seed in (1, 2):
        save_member(folder / f"m{seed}.onnx", seed)
    return folder


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 24), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    return tmp_path / "images.npz"


def mean_probability(members: Path, images: np.ndarray, weights: tuple[float, float]) -> np.ndarray:
    total = np.zeros((len(images), 5, *images.shape[1:]))
    for path, weight in zip(sorted(members.glob("*.onnx")), weights, strict=True):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        logits = session.run(None, {"image": (images[:, None] / 255).astype(np.float32)})[0].astype(np.float64)
        terms = np.exp(logits - logits.max(axis=1, keepdims=True))
        total += weight * terms / terms.sum(axis=1, keepdims=True)
    return total / sum(weights)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0)])
def test_labels_are_the_confident_mean_of_the_members(
    members: Path, unlabelled: Path, tmp_path: Path, weights: tuple[float, float]
) -> None:
    plan = None
    if weights != (1.0, 1.0):
        plan = tmp_path / "ensemble.toml"
        paths = sorted(members.glob("*.onnx"))
        write_plan(plan, Plan(tuple(PlannedMember(str(p), w) for p, w in zip(paths, weights, strict=True))))
    models = [] if plan else [str(members)]
    result = pseudo_label(str(unlabelled), tmp_path / "p.npz", models, plan, confidence=0.5, min_share=0.0)
    images = np.load(unlabelled)["images"]
    chance = mean_probability(members, images, weights)
    chance[:, 0] = -1
    expected = np.where(chance.max(axis=1) >= 0.5, chance.argmax(axis=1), 0)
    found = np.load(tmp_path / "p.npz")
    kept = found["index"]
    np.testing.assert_array_equal(found["images"], images[kept])
    near = np.abs(chance.max(axis=1) - 0.5) < 1e-5
    assert ((found["labels"] == expected[kept]) | near[kept]).all()
    assert 0 < result.confident < 1
    assert not expected[np.setdiff1d(np.arange(9), kept)].any()
    assert sum(result.shares.values()) == pytest.approx(1)
    assert load(tmp_path / "p.npz", class_names=FIVE).labels.shape == (len(kept), 16, 24)


def test_extra_tiles_are_trained_on_and_never_validated(members: Path, tmp_path: Path) -> None:
    data = tiles(20, size=(16, 24))
    np.savez(tmp_path / "d.npz", images=data.images, labels=data.labels, groups=data.groups)
    np.savez(tmp_path / "u.npz", images=255 - data.images[:7, ..., 0])
    pseudo_label(str(tmp_path / "u.npz"), tmp_path / "p.npz", [str(members)], confidence=0.3, min_share=0.0)
    extra = np.load(tmp_path / "p.npz")
    config = FitConfig(arch="unet", data=str(tmp_path / "d.npz"), out="n.keras", class_names=FIVE)
    whole = load(tmp_path / "d.npz", class_names=FIVE)
    training, held_out = split(config, whole)
    more, same = split(replace(config, extra=str(tmp_path / "p.npz")), whole)
    assert held_out is not None
    assert same is not None
    np.testing.assert_array_equal(same.images, held_out.images)
    assert len(more) == len(training) + len(extra["labels"]) > len(training)
    np.testing.assert_array_equal(more.labels[len(training) :], extra["labels"])
    with pytest.raises(PlanError, match="--ignore-background"):
        prepared(replace(config, extra=str(tmp_path / "p.npz"), ignore_background=False))
    np.savez(tmp_path / "small.npz", images=data.images[:, :8], labels=data.labels[:, :8])
    with pytest.raises(InputError, match=r"\(16, 24, 1\) are needed"):
        split(replace(config, extra=str(tmp_path / "small.npz")), whole)


def test_refusals_are_one_line(call: Callable[..., Result], members: Path, unlabelled: Path, tmp_path: Path) -> None:
    save_member(tmp_path / "no_ignored.onnx", promised={"ignored_class": None})
    base = ("pseudo-label", "--images", unlabelled, "--out", tmp_path / "p.npz")
    for options, message in (
        ((), "--models or with --plan"),
        (("--models", members, "--confidence", 2), "allowed are 0 to 1"),
        (("--models", members, "--confidence", 1), "lower --confidence"),
        (("--models", tmp_path / "no_ignored.onnx"), "declare no ignored class"),
        (("--models", tmp_path / "absent.onnx"), "absent.onnx"),
    ):
        result = call(app, *base, *options)
        assert result.code == 2
        assert message in result.err
        assert len(result.err.strip().splitlines()) == 1
        assert not (tmp_path / "p.npz").exists()
    done = call(app, *base, "--models", members, "--confidence", 0.4)
    assert done.code == 0, done.err
    assert "of 9 images" in done.out
