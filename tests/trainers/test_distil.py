"""Distillation: its loss against NumPy, soft targets that turn with their tiles, and a student of an ensemble."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from PIL import Image

from engine import Ensemble
from engine.cli import app as engine_app
from engine.errors import InputError, OutputError, PlanError
from engine.metrics import VOID
from engine.models.folds import tile_keys
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from engine.runs.provenance import plan_hash
from tests.conftest import Result
from tests.helpers import reference
from tests.helpers.folds import run_of
from tests.helpers.nets import save_member
from tests.helpers.properties import examples
from tests.trainers.conftest import tiles
from trainers import soft_targets
from trainers.augment import TRANSFORMS
from trainers.cli import app
from trainers.config import FitConfig
from trainers.contract import read_contract
from trainers.data import Dataset
from trainers.fit import prepared
from trainers.losses import make_loss
from trainers.losses.base import Target
from trainers.losses.distillation import Distillation, soft_divergence
from trainers.soft import load_extra, with_soft
from trainers.soft_batches import SoftBatches
from trainers.soft_targets import write_soft_targets

Call = Callable[..., Result]
SIZE = (16, 24)


def shares(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities (..., classes), some of them 0."""
    return rng.dirichlet(np.full(shape[-1], 0.5), shape[:-1])


@examples(20)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 2.0, 8.0]))
def test_the_divergence_is_that_of_softened_distributions(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    logits, teacher_logits = rng.normal(0, 3, (2, 2, 4, 3, 5))
    teacher = reference.softmax(teacher_logits.transpose(0, 3, 1, 2).reshape(2, 5, -1)).transpose(0, 2, 1)
    teacher = teacher.reshape(2, 4, 3, 5)
    without = rng.random((2, 4, 3)) < 0.3
    without[0, 0, 0] = False
    # Hinton's form: both sets of logits are divided by the temperature.
    p, q = (
        reference.softmax((z / temperature).reshape(2, 12, 5).transpose(0, 2, 1)).transpose(0, 2, 1).reshape(z.shape)
        for z in (teacher_logits, logits)
    )
    want = temperature**2 * (p * (np.log(p) - np.log(q))).sum(axis=-1)[~without].mean()
    teacher[without] = 0
    got = soft_divergence(ops.cast(logits, "float32"), ops.cast(teacher, "float32"), temperature)
    assert float(got) == pytest.approx(want, rel=1e-3, abs=1e-5)


def test_a_network_that_agrees_loses_nothing_and_a_pixel_without_a_teacher_counts_nothing() -> None:
    rng = np.random.default_rng(1)
    teacher = shares(rng, (1, 4, 4, 5)).astype(np.float32)
    teacher[..., 2] = 0  # suppressed
    teacher /= teacher.sum(axis=-1, keepdims=True)
    logits = np.log(np.maximum(teacher, 1e-12))
    assert float(soft_divergence(ops.cast(logits, "float32"), teacher, 1.0)) == pytest.approx(0, abs=1e-5)
    assert float(soft_divergence(ops.cast(logits + rng.normal(0, 1, logits.shape), "float32"), teacher, 1.0)) > 0.05
    assert float(soft_divergence(ops.cast(logits, "float32"), np.zeros_like(teacher), 3.0)) == 0.0


@pytest.mark.parametrize("expression", ["cross-entropy", "dice+0.5*boundary"])
def test_hard_and_soft_are_mixed_in_stated_shares(expression: str) -> None:
    rng = np.random.default_rng(2)
    target = Target(5, ignored=0, soft=True)
    hard = make_loss(expression, target)
    logits = rng.normal(0, 1, (2, 4, 4, 5)).astype(np.float32)
    labels = rng.integers(0, 5, (2, 4, 4, 1)).astype(np.float32)
    labels[0] = VOID
    between = rng.normal(0, 1, (2, 4, 4, 5 if hard.needs_distances else 0)).astype(np.float32)
    soft = shares(rng, (2, 4, 4, 5)).astype(np.float32)
    truth = np.concatenate([labels, between], axis=-1)
    one = float(hard(truth, logits))
    other = float(soft_divergence(logits, soft, 2.0))
    both = Distillation(hard, 0.3, 2.0)
    assert both.needs_distances == hard.needs_distances
    assert float(both(np.concatenate([truth, soft], axis=-1), logits)) == pytest.approx(
        0.7 * one + 0.3 * other, rel=1e-4
    )


def softened(count: int = 7) -> Dataset:
    """Tiles whose soft targets are their labels: what becomes of a label must become of its target."""
    data = tiles(count, size=SIZE)
    return replace(data, soft=np.eye(5, dtype=np.float16)[data.labels].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("ignored", [0, None])
@pytest.mark.parametrize("policy", ["none", "flips-jitter", "+".join(TRANSFORMS)])
def test_soft_targets_go_where_their_labels_go(policy: str, ignored: int | None) -> None:
    data = softened(11)
    # A class that no tile has fills in what comes from outside, so that it is told from labels.
    config = FitConfig("unet", "d.npz", "n.keras", augment=policy, batch_size=4, ignored_class=ignored, seed=3)
    batches = SoftBatches(data, config, 2)
    filled = 0
    for step in range(len(batches)):
        _, targets = batches[step]
        labels, soft = targets[..., 0].astype(int), targets[..., 1:]
        outside = soft.sum(axis=-1) == 0
        np.testing.assert_array_equal(soft[~outside].argmax(axis=-1), labels[~outside])
        np.testing.assert_array_equal(soft[~outside].max(axis=-1), 1)
        assert (labels[outside] == ignored).all()
        filled += int(outside.sum())
    assert (filled > 0) == (ignored is not None and "translate" in policy)


def test_files_of_soft_targets_are_checked(tmp_path: Path) -> None:
    data = softened(4)
    assert data.soft is not None
    path = tmp_path / "soft.npz"

    def saved(**arrays: np.ndarray) -> Path:
        np.savez(path, **{"images": data.images[..., 0], "scores": data.soft, **arrays})
        return path

    found = load_extra(saved(), data.class_names)
    assert (found.labels == VOID).all()
    np.testing.assert_array_equal(found.soft, data.soft)
    plain = replace(data, soft=None)
    both = plain.joined(found, path)
    assert both.soft is not None
    assert not both.soft[:4].any()
    np.testing.assert_array_equal(both.take(np.array([5])).soft, data.soft[1:2])
    for wrong, words in (
        ({"scores": data.soft[:3]}, "scores of shape"),
        ({"scores": data.soft * 2}, "no probabilities"),
        ({"scores": data.soft - 1}, "no probabilities"),
        ({"scores": np.full_like(data.soft, np.nan)}, "no probabilities"),
        ({"class_names": np.array(list("abcde"))}, "its teacher knows a, b, c, d, e"),
    ):
        with pytest.raises(InputError, match=words):
            with_soft(plain, saved(**wrong))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Training tiles, tiles without labels, and a teacher of three folds and a net."""
    data, more = tiles(12, size=SIZE), tiles(5, size=SIZE, seed=9)
    np.savez(tmp_path / "d.npz", images=data.images, labels=data.labels, groups=data.groups)
    np.save(tmp_path / "more.npy", more.images[..., 0])
    keys = np.array(tile_keys(data.images))
    for fold in range(3):
        save_member(tmp_path / f"pan-fold{fold}.onnx", fold, promised={"held_out": tuple(keys[fold::3].tolist())})
    (tmp_path / "teacher.toml").write_text(
        'strategy = "mean-prob"\nsuppress = []\n[[members]]\nfolds = ["pan-fold0.onnx", "pan-fold1.onnx", '
        '"pan-fold2.onnx"]\n'
    )
    return tmp_path


def test_a_student_learns_from_its_teacher(place: Path, call: Call) -> None:
    out = place / "student.keras"
    asked = ("distil", "unet", "--teacher", place / "teacher.toml", "--data", place / "d.npz", "--out", out)
    asked += ("--unlabelled", place / "more.npy", "--preset", "tiny", "--option", "depth=1", "--epochs", 1)
    asked += ("--folds", 3)
    asked += ("--soft-weight", 0.9, "--temperature", 2, "--ignored-class", "none", "--class-names")
    asked += ("background,soil,bedrock,sand,big rock",)
    done = call(app, *asked)
    assert done.code == 0, done.err
    digest = plan_hash(open_ensemble(read_plan(place / "teacher.toml"), Options(), None))
    notes = read_contract(out).notes
    assert (notes["teacher"], notes["soft_weight"], notes["temperature"]) == (digest, 0.9, 2.0)
    record = tomllib.loads(out.with_suffix(".run.toml").read_text("utf-8"))
    assert record["config"]["teacher"] == digest
    runs = [run_of(place / f"pan-fold{k}.onnx") for k in range(3)]
    with np.load(place / "d.npz") as held:
        images = held["images"][..., 0]
    # Training tiles out of fold, the others by the mean of all folds.
    targets = place / "student.teacher"
    assert sorted(path.name for path in targets.iterdir()) == ["labelled.npz", "unlabelled.npz"]
    for name, shown, unseen in (("labelled", images, [0, 1, 2] * 4), ("unlabelled", np.load(place / "more.npy"), None)):
        want = reference.fold_logits(runs, shown, ["plain"], unseen=unseen)
        want = reference.softmax(want.reshape(*want.shape[:2], -1)).reshape(want.shape)
        with np.load(targets / f"{name}.npz") as soft:
            assert soft["scores"].dtype == np.float16
            np.testing.assert_allclose(soft["scores"], want, atol=2e-3)
    # Its record describes the whole run; the teacher is not asked again.
    assert prepared(FitConfig.from_toml(out.with_suffix(".run.toml").read_text("utf-8"))).hash == notes["run"]
    before = {path: path.stat().st_mtime_ns for path in targets.iterdir()}
    more = call(app, *asked, "--resume")
    assert more.code == 0, more.err
    assert "already finished" in more.err
    assert {path: path.stat().st_mtime_ns for path in targets.iterdir()} == before


def test_a_student_goes_on_from_the_weights_of_a_network(place: Path, call: Call) -> None:
    shared = ("--data", place / "d.npz", "--folds", 3, "--preset", "tiny", "--option", "depth=1", "--epochs", 1)
    shared += ("--class-names", "background,soil,bedrock,sand,big rock")
    done = call(app, "fit", "unet", *shared, "--out", place / "first.keras")
    assert done.code == 0, done.err
    asked = ("distil", "unet", *shared, "--teacher", place / "teacher.toml", "--out", place / "student.keras")
    done = call(app, *asked, "--from", place / "first.keras")
    assert done.code == 0, done.err
    record = tomllib.loads((place / "student.run.toml").read_text("utf-8"))["config"]
    assert record["start_sha256"] == hashlib.sha256((place / "first.keras").read_bytes()).hexdigest()


def test_the_nets_of_one_fold_are_a_teacher_that_saw_none_of_its_labels(place: Path, call: Call) -> None:
    asked = ("pseudo-label", "--soft", "--plan", place / "teacher.toml", "--images", place / "more.npy", "--out")
    done = call(app, *asked, place / "fold1.npz", "--fold", 1)
    assert done.code == 0, done.err
    assert "soft targets of 5 images" in done.out
    want = reference.fold_logits([run_of(place / "pan-fold1.onnx")], np.load(place / "more.npy"), ["plain"])
    with np.load(place / "fold1.npz") as found:
        np.testing.assert_allclose(
            found["scores"], reference.softmax(want.reshape(5, 5, -1)).reshape(want.shape), atol=2e-3
        )
    assert not list(place.glob("fold1.*.*"))
    save_member(place / "pan-fold1.onnx", 1, promised={"notes": {"fold": 2}})
    with_net = (place / "teacher.toml").read_text() + '[[members]]\nmodel = "pan-fold3.onnx"\n'
    (place / "with_net.toml").write_text(with_net)
    for more, words in (
        (("--fold", 1), "is of fold 2"),
        (("--fold", 3), "has 3 folds"),
        (("--fold", 0, "--plan", place / "with_net.toml"), "may have seen every label"),
    ):
        refused = call(app, *asked, place / "other.npz", *more)
        assert refused.code == 2
        assert words in refused.err
        assert not (place / "other.npz").exists()


def test_a_teacher_whose_plan_puts_images_together_sees_whole_pictures(place: Path, call: Call) -> None:
    picture = np.random.default_rng(3).integers(0, 250, (32, 48), np.uint8)
    cut = np.stack([picture[row : row + 16, col : col + 24] for row in (0, 8, 16) for col in (0, 12, 24)])
    np.save(place / "cut.npy", cut)
    plan = place / "stitched.toml"
    plan.write_text((place / "teacher.toml").read_text() + '[input]\ntile = "16x24"\nstitch = true\n')
    asked = ("--plan", plan, "--images", place / "cut.npy", "--fold", 1)
    done = call(app, "pseudo-label", "--soft", *asked, "--out", place / "soft.npz")
    assert done.code == 0, done.err
    assert "9 images make 1 picture" in done.err
    Image.fromarray(picture).save(place / "picture.png")
    (place / "one.toml").write_text('strategy = "mean-prob"\nsuppress = []\n[[members]]\nmodel = "pan-fold1.onnx"\n')
    given = ("--plan", place / "one.toml", "--tile", "16x24")
    more = ("--input", place / "picture.png", "--output", place / "mask.npy", "--scores", place / "whole.npy")
    found = call(engine_app, "ensemble", *given, *more)
    assert found.code == 0, found.err
    whole = np.load(place / "whole.npy").reshape(5, 32, 48)
    with np.load(place / "soft.npz") as soft:
        np.testing.assert_array_equal(soft["images"], cut)
        want = [whole[:, row : row + 16, col : col + 24] for row in (0, 8, 16) for col in (0, 12, 24)]
        np.testing.assert_array_equal(soft["scores"], np.stack(want))
        assert str(soft["teacher"]).endswith(", stitched, tiles of 16x24")
    assert not list(place.glob("soft.*.*"))


def test_soft_targets_of_another_teacher_are_kept(place: Path) -> None:
    out, more = place / "soft.npz", str(place / "more.npy")
    write_soft_targets(place / "teacher.toml", more, out)
    held = out.read_bytes()
    text = (place / "teacher.toml").read_text()
    (place / "teacher.toml").write_text(text.replace("mean-prob", "mean-logit"))
    with pytest.raises(OutputError, match="of another teacher"):
        write_soft_targets(place / "teacher.toml", more, out)
    assert out.read_bytes() == held
    write_soft_targets(place / "teacher.toml", more, out, overwrite=True)
    assert out.read_bytes() != held


def test_a_killed_teacher_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, more = place / "soft.npz", str(place / "more.npy")
    write_soft_targets(place / "teacher.toml", more, place / "whole.npz")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(soft_targets, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            write_soft_targets(place / "teacher.toml", more, out)
    assert not out.exists()
    with monkeypatch.context() as context:
        # What is predicted is not predicted again.
        context.setattr(Ensemble, "stream", killed)
        write_soft_targets(place / "teacher.toml", more, out)
    with np.load(out) as one, np.load(place / "whole.npz") as other:
        np.testing.assert_array_equal(one["scores"], other["scores"])
    assert not list(place.glob("soft.*.npy*"))


def test_a_teacher_that_is_refused_leaves_nothing(place: Path) -> None:
    (place / "other.toml").write_text('[[members]]\nmodel = "missing.onnx"\n')
    with pytest.raises(InputError, match="no model"):
        write_soft_targets(place / "other.toml", str(place / "more.npy"), place / "made" / "here" / "soft.npz")
    assert not (place / "made").exists()


def test_what_soft_targets_do_not_go_with_is_refused(place: Path, call: Call) -> None:
    write_soft_targets(place / "teacher.toml", str(place / "more.npy"), place / "soft.npz")
    config = FitConfig("unet", str(place / "d.npz"), str(place / "n.keras"), extra=str(place / "soft.npz"))
    for changed, words in (
        ({"paste": 0.5}, "paste"),
        ({"repeat": 2}, "repeat"),
        ({"arch": "one_class", "class_id": 1}, "class-id"),
    ):
        with pytest.raises(PlanError, match=words):
            prepared(replace(config, preset="tiny", **changed))
    # Without labels nothing needs the ignored class, as unconfident pixels do.
    assert prepared(replace(config, ignored_class=None, ignore_background=False)).extra_sha256
    asked = (
        "distil",
        "unet",
        "--teacher",
        place / "teacher.toml",
        "--data",
        place / "d.npz",
        "--out",
        place / "n.keras",
    )
    done = call(app, *asked, "--extra", place / "soft.npz")
    assert done.code == 2
    assert "--unlabelled" in done.err
    assert not (place / "n.teacher").exists()


def test_runs_from_before_soft_targets_keep_their_hash() -> None:
    config = FitConfig("unet", "d.npz", "n.keras")
    assert config.hash == "34ba3030eedffd20"
    assert replace(config, temperature=2.0).hash != config.hash
    assert replace(config, soft="elsewhere.npz").hash == config.hash
