"""Labelled data of a selection: members with folds predict each image by the net that was trained without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError, PlanError
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from engine.runs.provenance import plan_hash
from engine.select.cache import Cache, log_softmax, pixel_hash
from engine.select.validation import open_validation, pool_plan, shared_pixels
from engine.sources.base import from_array
from engine.sources.open import open_source
from tests.conftest import Result
from tests.helpers import reference
from tests.helpers.folds import run_of, save_folds
from tests.helpers.nets import save_member

IMAGES = np.random.default_rng(4).integers(0, 240, (12, 6, 8)).astype(np.uint8)
POOL = """
strategy = "vote"
[[members]]
folds = ["pan-fold0.onnx", "pan-fold1.onnx", "pan-fold2.onnx"]
weight = 3
[[members]]
model = "unet.onnx"
[members.map]
stone = "bedrock"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    save_folds(folder, 3, IMAGES)
    save_member(folder / "unet.onnx", 8, ("background", "soil", "stone", "sand", "big rock"))
    truth = np.random.default_rng(5).integers(0, 5, IMAGES.shape).astype(np.uint8)
    np.savez(folder / "val.npz", images=IMAGES.astype(np.float64), labels=truth, groups=np.arange(12) // 2)
    (folder / "pool.toml").write_text(POOL)
    return folder


def job(place: Path, labels: bool = True) -> Options:
    val = str(place / "val.npz")
    return Options(plan=place / "pool.toml", input=val, labels=val if labels else "")


def test_what_is_stored_of_labelled_images_is_out_of_fold(place: Path, tmp_path: Path) -> None:
    data = open_validation(job(place), "")
    pan = data.ensemble.members[0]
    assert pan.unseen is not None
    assert list(pan.unseen.values()) == [0, 1, 2] * 4
    cache, shown = Cache(tmp_path), pixel_hash(data.images)
    logs, ran = cache.fetch(pan, data.images, shown, "none")
    want = reference.fold_logits([run_of(net.path) for net in pan.nets], IMAGES, ["plain"], unseen=[0, 1, 2] * 4)
    want = log_softmax(want.reshape(*want.shape[:2], -1).astype(np.float32))
    np.testing.assert_allclose(np.asarray(logs, np.float32), want, atol=2e-2)
    assert ran
    assert not cache.fetch(pan, data.images, shown, "none")[1]
    # The same files as a mean are other results.
    mean = open_validation(job(place, labels=False), "").ensemble.members[0]
    assert mean.unseen is None
    assert cache.fetch(mean, data.images, shown, "none")[1]


def test_a_selection_writes_a_plan_with_the_folds(place: Path, tmp_path: Path, engine: Callable[..., Result]) -> None:
    val, out = str(place / "val.npz"), tmp_path / "ensemble.toml"
    done = engine(
        *("select", "--plan", place / "pool.toml", "-i", val, "--labels", val, "--groups", f"{val}:groups"),
        *("-o", out, "--strategies", "mean-prob", "--no-bias", "--no-threshold", "--no-clean-up"),
    )
    assert done.code == 0
    assert "pool.toml: its members, classes" in done.err
    assert "pan: each of 12 images by the net that was trained without it" in done.err
    plan = read_plan(out)
    folded = next(item for item in plan.members if item.folds)
    assert [Path(file).name for file in folded.folds] == [f"pan-fold{k}.onnx" for k in range(3)]
    assert len(folded.sha256) == 3
    mapped = [item for item in plan.members if not item.folds]
    assert all(item.class_map is not None and item.class_map["stone"] == "bedrock" for item in mapped)
    ensemble = open_ensemble(plan, Options(), open_source(val))
    assert plan_hash(ensemble) in out.read_text()
    # A new image is predicted by all of them.
    pan = next(member for member in ensemble.members if member.folds)
    batch = next(open_source(val).batches(3))
    got = type(ensemble)([pan]).logits(batch)[0][0].reshape(3, 5, 6, 8)
    np.testing.assert_allclose(
        got, reference.fold_logits([run_of(net.path) for net in pan.nets], IMAGES[:3], ["plain"]), atol=2e-4
    )


def test_other_images_than_the_folds_are_refused(place: Path, tmp_path: Path, engine: Callable[..., Result]) -> None:
    with np.load(place / "val.npz") as held:
        images, labels = held["images"].copy(), held["labels"]
    images[3:5] = 255 - images[3:5]
    np.savez(tmp_path / "other.npz", images=images, labels=labels)
    other = str(tmp_path / "other.npz")
    done = engine(
        *("select", "--plan", place / "pool.toml", "-i", other, "--labels", other, "-o", tmp_path / "ensemble.toml")
    )
    assert done.code == 2
    assert "of 12 images 2 were held out by none of its 3 folds, 0 by several (first: image 3)" in done.err
    assert not (tmp_path / "ensemble.toml").exists()
    with pytest.raises(PlanError, match="--plan and --models"):
        pool_plan(Options(models=["a.onnx"], plan=place / "pool.toml"))
    with pytest.raises(InputError, match="held out by none"):
        open_validation(Options(plan=place / "pool.toml", input=other, labels=other), "")


def test_an_ensemble_predicts_training_tiles_out_of_fold(
    place: Path, tmp_path: Path, engine: Callable[..., Result]
) -> None:
    """The scores that a distillation learns from; a run that goes on after a kill gives the same."""
    (place / "one.toml").write_text(POOL.split("[[members]]\nmodel")[0].replace('"vote"', '"mean-prob"\nsuppress = []'))
    asked = ("ensemble", "--plan", place / "one.toml", "-i", place / "val.npz", "-o", tmp_path / "masks.npz")
    done = engine(*asked, "--scores", tmp_path / "scores.npy", "--out-of-fold", "--batch-size", 5)
    assert done.code == 0, done.err
    runs = [run_of(place / f"pan-fold{k}.onnx") for k in range(3)]
    want = reference.fold_logits(runs, IMAGES, ["plain"], "probabilities", unseen=[0, 1, 2] * 4)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), np.exp(want), atol=2e-3)
    again = engine(*asked, "--scores", tmp_path / "scores.npy", "--resume")
    assert again.code == 2
    assert "was made by another run" in again.err
    for more, words in (
        (("--tile", "4x4"), "leave one of them out"),
        (("-m", place / "unet.onnx"), "--plan and --models"),
    ):
        refused = engine(*asked, "--overwrite", "--out-of-fold", *more)
        assert refused.code == 2
        assert words in refused.err
    plain = engine(
        "ensemble", "-m", place / "unet.onnx", "-i", place / "val.npz", "-o", tmp_path / "a.npz", "--out-of-fold"
    )
    assert "no member has folds" in plain.err


def test_images_that_share_pixels_are_groups(capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 255, (8, 40), np.uint8) for _ in range(3)]
    tiles = [picture[:, start : start + 16] for picture in pictures for start in (0, 8, 16, 24)]
    order = draw.permutation(len(tiles))
    found = shared_pixels(from_array(np.stack(tiles)[order]))
    true = np.repeat(np.arange(3), 4)[order]
    assert found is not None
    assert len(set(zip(found.tolist(), true.tolist(), strict=True))) == 3
    assert "12 images share pixels (they make 3 pictures): each picture is a group" in capsys.readouterr().err
    assert shared_pixels(from_array(np.stack(tiles)[::4])) is None
    assert capsys.readouterr().err == ""
    assert shared_pixels(from_array(np.stack(tiles)[:4])) is None
    assert "the scores are of one picture" in capsys.readouterr().err
