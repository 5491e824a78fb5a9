"""Classes that do not exclude each other: a sigmoid per class, one binary mask per class, against NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from engine import Ensemble, PlanError
from engine.errors import ContractError
from tests.conftest import Result
from tests.helpers.nets import save_net

CLASSES, SIZE, COUNT = 3, (8, 16), 7
NAMES = "road,roof,tree"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        save_net(tmp_path / f"{seed}.onnx", CLASSES, seed=seed, end="sigmoid")
    pixels = np.random.default_rng(4).integers(0, 256, (COUNT, *SIZE), dtype=np.uint8)
    np.savez("images.npz", images=pixels)
    return tmp_path


def shares(index: int) -> np.ndarray[Any, Any]:
    """Probabilities of one net by ONNX Runtime alone, float64 (images, classes, height, width)."""
    pixels = (np.load("images.npz")["images"].astype(np.float32) * np.float32(1 / 255))[:, None]
    return onnxruntime.InferenceSession(f"{index}.onnx").run(["out"], {"image": pixels})[0].astype(np.float64)


FACTS = ["--scale", "1/255", "--activation", "probabilities", "--multi-label", "--classes", NAMES]


@pytest.mark.parametrize("thresholds", [(0.5,), (0.3, 0.5, 0.7)])
def test_each_class_is_decided_by_its_own_threshold(
    place: Path, engine: Callable[..., Result], thresholds: tuple[float, ...]
) -> None:
    Path("0.toml").write_text(f"thresholds = {list(thresholds)}\n")
    done = engine("ensemble", "-m", "0.onnx", "-i", "images.npz", "-o", "masks.npz", *FACTS)
    assert done.code == 0, done.err
    assert "one mask per class" in done.err
    want = shares(0) > np.array(thresholds)[:, None, None]
    with np.load("masks.npz") as held:
        got, record = held["masks"], json.loads(str(held["metadata"]))
    assert record["multi_label"] is True
    assert got.shape == (COUNT, CLASSES, *SIZE)
    assert 0.05 < want.mean() < 0.95
    assert (got != want).mean() < 1e-3  # but for rounding at the threshold


@pytest.mark.parametrize("strategy", ["mean-prob", "mean-logit", "vote"])
def test_members_are_fused_class_by_class(place: Path, strategy: str) -> None:
    stated = {"scale": 1 / 255, "activation": "probabilities", "kind": "multilabel", "classes": NAMES.split(",")}
    images = np.load("images.npz")["images"]
    ensemble = Ensemble.open(
        ["0.onnx", "1.onnx"], strategy=strategy, weights=[2, 1], sample=images[0][..., None], **stated
    )
    got = ensemble.predict(images, batch_size=3)
    both = np.stack([shares(0), shares(1)])
    if strategy == "mean-prob":
        want = (2 * both[0] + both[1]) / 3 > 0.5
    elif strategy == "mean-logit":
        odds = np.log(both / (1 - both))
        want = 2 * odds[0] + odds[1] > 0
    else:
        want = both[0] > 0.5
    assert got.shape == (COUNT, CLASSES, *SIZE)
    assert (got != want).mean() < 1e-3


def test_a_folder_holds_a_picture_per_image_and_class(place: Path, engine: Callable[..., Result]) -> None:
    assert engine("ensemble", "-m", "0.onnx", "-i", "images.npz", "-o", "masks", *FACTS).code == 0
    assert engine("ensemble", "-m", "0.onnx", "-i", "images.npz", "-o", "masks.npy", *FACTS).code == 0
    whole = np.load("masks.npy")
    for index in range(COUNT):
        for class_id, name in enumerate(NAMES.split(",")):
            np.testing.assert_array_equal(np.asarray(Image.open(f"masks/{index}_{name}.png")), whole[index, class_id])
    assert len(list(Path("masks").glob("*.png"))) == COUNT * CLASSES


def test_masks_are_scored_per_class(place: Path, engine: Callable[..., Result]) -> None:
    assert engine("ensemble", "-m", "0.onnx", "-i", "images.npz", "-o", "masks.npz", *FACTS).code == 0
    got = np.load("masks.npz")["masks"].astype(bool)
    truth = np.random.default_rng(0).random(got.shape) < 0.5
    np.savez("truth.npz", labels=truth.astype(np.uint8))
    done = engine("evaluate", "masks.npz", "--labels", "truth.npz", "--classes", NAMES, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    for class_id, row in enumerate(told["classes"]):
        ours, theirs = got[:, class_id], truth[:, class_id]
        assert row["iou"] == pytest.approx((ours & theirs).sum() / (ours | theirs).sum(), abs=1e-6)
        assert row["recall"] == pytest.approx((ours & theirs).sum() / theirs.sum(), abs=1e-6)
    assert told["mean_iou"] == pytest.approx(np.mean([row["iou"] for row in told["classes"]]), abs=1e-6)
    assert "roof" in engine("evaluate", "masks.npz", "--labels", "truth.npz", "--classes", NAMES).out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--suppress", "0"], "--suppress"),
        (["--bias", "0,0,1"], "--bias"),
        (["--tile", "8x16"], "--tile"),
        (["--labels", "images.npz"], "engine evaluate"),
        (["--early-exit", "--strategy", "vote"], "--early-exit"),
    ],
)
def test_what_has_no_meaning_is_refused(place: Path, engine: Callable[..., Result], more: list[str], told: str) -> None:
    done = engine("ensemble", "-m", "0.onnx", "-i", "images.npz", "-o", "masks.npz", *FACTS, *more)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
    assert not Path("masks.npz").exists()


@pytest.mark.parametrize("command", ["compare", "select"])
def test_it_is_not_compared_with_other_nets(place: Path, engine: Callable[..., Result], command: str) -> None:
    more = ("-o", "plan.toml") if command == "select" else ()
    np.savez("truth.npz", labels=np.zeros((COUNT, *SIZE), np.uint8))
    done = engine(command, "-m", "0.onnx", "-m", "1.onnx", "-i", "images.npz", "--labels", "truth.npz", *FACTS, *more)
    assert (done.code, done.err.count("error: ")) == (2, 1)
    told = "error: 0 is multi-label, which is not scored here: score its masks with engine evaluate\n"
    assert done.err.endswith(told)
    assert not Path("plan.toml").exists()


def test_other_nets_do_not_mix_with_it(place: Path) -> None:
    save_net(place / "other.onnx", CLASSES, seed=3)
    (place / "0.toml").write_text('kind = "multilabel"\nactivation = "probabilities"\n')
    with pytest.raises(ContractError, match="multi-label"):
        Ensemble.open(["0.onnx", "other.onnx"], scale=1 / 255)
    with pytest.raises(PlanError, match="threshold"):
        Ensemble.open("0.onnx", scale=1 / 255, threshold=0.5)
