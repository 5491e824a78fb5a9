"""One network per fold: what each states of the tiles it was not trained on, and resumption."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.models.folds import tile_keys
from tests.conftest import Result
from tests.trainers.conftest import tiles
from trainers.cli import app
from trainers.contract import keys_of_unseen, read_contract

Call = Callable[..., Result]


def test_each_tile_is_held_out_by_one_network(call: Call, tmp_path: Path) -> None:
    data, folder = tiles(9, size=(16, 16)), tmp_path / "folds"
    groups = np.array([f"panorama {k // 2}" for k in range(9)])
    np.savez(tmp_path / "d.npz", images=data.images, labels=data.labels, groups=groups)
    options = ("fit-folds", "unet", "--data", tmp_path / "d.npz", "--out", folder, "--folds", 3)
    options += ("--preset", "tiny", "--option", "depth=1", "--epochs", 1)
    done = call(app, *options)
    assert done.code == 0, done.err
    assert "next: for k in $(seq 0 2); do exporters onnx" in done.err
    paths = [folder / f"unet-fold{k}.keras" for k in range(3)]
    contracts = [read_contract(path) for path in paths]
    held = [set(contract.held_out) for contract in contracts]
    assert set.union(*held) == set(tile_keys(data.images))
    assert sum(map(len, held)) == len(data)
    for contract, path, own in zip(contracts, paths, held, strict=True):
        with np.load(path.with_suffix(".validation.npz")) as validation:
            assert set(tile_keys(validation["images"][..., None])) == own
        record = tomllib.loads(path.with_suffix(".run.toml").read_text("utf-8"))["result"]
        assert set(record["held_out"]) == own
        assert record["fold"] == contract.notes["fold"] == paths.index(path)
        assert record["held_out_tiles"] == len(own)
        assert 1 <= record["held_out_groups"] <= 2

    paths[1].unlink()
    before = paths[0].read_bytes()
    again = call(app, *options)
    assert again.code == 0, again.err
    assert again.err.count("skipped") == 2
    assert paths[0].read_bytes() == before
    assert read_contract(paths[1]) == contracts[1]
    other = call(app, *options, "--seed", 1)
    assert (other.code, paths[0].read_bytes()) == (2, before)
    assert "unet-fold0.keras: already exists" in other.err


def test_a_fold_takes_files_of_its_own(call: Call, tmp_path: Path) -> None:
    data = tiles(9, size=(16, 16))
    groups = np.arange(9) // 2
    np.savez(
        tmp_path / "d.npz",
        images=data.images,
        labels=data.labels,
        groups=groups,
        class_names=np.array(data.class_names),
    )
    shared = ("--data", tmp_path / "d.npz", "--folds", 2, "--preset", "tiny", "--option", "depth=1", "--epochs", 1)
    assert call(app, "fit-folds", "unet", *shared, "--out", tmp_path / "one").code == 0
    rng = np.random.default_rng(4)
    for fold in range(2):
        soft = rng.dirichlet(np.ones(5), (3 + fold, 16, 16)).transpose(0, 3, 1, 2).astype(np.float16)
        more = tiles(3 + fold, size=(16, 16), seed=7 + fold)
        names = {"class_names": np.array(data.class_names)}
        np.savez(tmp_path / f"soft{fold}.npz", images=more.images, labels=more.labels, scores=soft, **names)
    own = ("--extra", tmp_path / "soft{fold}.npz", "--from", tmp_path / "one" / "unet-fold{fold}.keras")
    done = call(app, "fit-folds", "unet", *shared, *own, "--out", tmp_path / "two")
    assert done.code == 0, done.err
    for fold in range(2):
        record = tomllib.loads((tmp_path / "two" / f"unet-fold{fold}.run.toml").read_text("utf-8"))["config"]
        for name, file in (("extra", f"soft{fold}.npz"), ("start", f"one/unet-fold{fold}.keras")):
            assert record[f"{name}_sha256"] == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    (tmp_path / "soft1.npz").unlink()
    refused = call(app, "fit-folds", "unet", *shared, *own, "--out", tmp_path / "three")
    assert refused.code == 2
    assert "soft1.npz: no such file" in refused.err
    assert not (tmp_path / "three").exists()


def test_a_copy_of_a_training_tile_was_seen() -> None:
    data = tiles(6, size=(16, 16))
    training, held_out = data.take(np.array([0, 1, 2, 3])), data.take(np.array([3, 4, 5]))
    assert set(keys_of_unseen(held_out, training)) == set(tile_keys(data.images[4:]))
    assert keys_of_unseen(None, data) == ()


@pytest.mark.parametrize(("given", "words"), [(("--fold", 1), "omit --fold"), (("--train-all",), "omit --train-all")])
def test_a_fold_is_not_chosen(given: tuple[object, ...], words: str, call: Call, task_file: Path) -> None:
    out = task_file.parent / "folds"
    done = call(app, "fit-folds", "unet", "--data", task_file, "--out", out, *given)
    assert done.code == 2
    assert words in done.err
    assert not out.exists()
