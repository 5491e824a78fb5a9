"""The command line: a whole run in a process of its own, and its refusals."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Result
from tests.trainers.conftest import tiles
from trainers.cli import app
from trainers.contract import read_contract

Call = Callable[..., Result]


def run_process(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainers.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_fit_leaves_a_network_and_its_records(root: Path, task_file: Path, tmp_path: Path) -> None:
    out, groups = tmp_path / "runs" / "u.keras", tmp_path / "groups.npz"
    small = ("--preset", "tiny", "--option", "depth=2", "--epochs", 2, "--batch-size", 4)
    done = run_process(root, "fit", "unet", "--data", task_file, "--groups", groups, "--out", out, *small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(out))
    assert [line.split("  ")[0] for line in done.stderr.splitlines()] == [
        *("epoch 1/2", "epoch 2/2"),
        f"next: exporters onnx {out} --out {out.with_suffix('.onnx')}",
    ]
    endings = ("history.csv", "history.png", "keras", "run.toml", "validation.npz")
    assert sorted(item.name for item in out.parent.iterdir()) == [f"u.{ending}" for ending in endings]

    contract = read_contract(out)
    assert (contract.kind, contract.size, contract.ignored_class) == ("multiclass", (32, 64), 0)
    assert (contract.input_layout, contract.output_layout, contract.scale) == ("NHWC", "NHWC", 1 / 255)
    record = tomllib.loads((out.parent / "u.run.toml").read_text())
    assert record["result"]["run"] == contract.notes["run"]
    assert record["config"]["ignore_background"] is True
    rows = list(csv.DictReader((out.parent / "u.history.csv").open()))
    best = max(rows, key=lambda row: float(row["suppressed"]))
    assert int(best["epoch"]) == record["result"]["best_epoch"]
    with Image.open(out.parent / "u.history.png") as picture:
        assert picture.size[0] > picture.size[1]

    held = np.load(out.parent / "u.validation.npz")
    whole = tiles(20)
    np.testing.assert_array_equal(held["images"], whole.images[held["index"], ..., 0])
    np.testing.assert_array_equal(held["groups"], whole.groups[held["index"]])  # type: ignore[index]
    # The archive still is what Keras reads, and its weights are those that were scored.
    model = keras.saving.load_model(out)
    logits = model.predict(held["images"][..., None] * np.float32(contract.scale), verbose=0)
    metric = keras.metrics.MeanIoU(5, ignore_class=0, sparse_y_pred=False)
    logits[..., 0] = -np.inf
    metric.update_state(held["labels"].astype(np.int32), logits)
    assert float(metric.result()) == pytest.approx(record["result"]["validation_suppressed"], abs=1e-3)


def test_specialists_are_resumed_and_never_lost(call: Call, tmp_path: Path) -> None:
    data, folder = tiles(8, size=(16, 16), classes=3), tmp_path / "set"
    np.savez(tmp_path / "data.npz", images=data.images, labels=data.labels)
    options = ("fit-specialists", "--data", tmp_path / "data.npz", "--out", folder, "--ignored-class", "none")
    options += ("--preset", "tiny", "--option", "depth=1", "--epochs", 1, "--train-all")
    first = call(app, *options)
    assert first.code == 0, first.err
    paths = [folder / f"k{k}.keras" for k in range(3)]
    contracts = [read_contract(path) for path in paths]
    assert [contract.class_id for contract in contracts] == [0, 1, 2]
    assert len({contract.group for contract in contracts}) == 1
    assert not (folder / "k0.validation.npz").exists()

    paths[1].unlink()
    before = {path: path.read_bytes() for path in paths if path.exists()}
    again = call(app, *options)
    assert again.code == 0, again.err
    assert again.err.count("skipped") == 2
    assert again.out.startswith(str(paths[1]))
    assert all(path.read_bytes() == held for path, held in before.items())
    assert read_contract(paths[1]) == contracts[1]

    other = call(app, *options, "--seed", 1)
    assert other.code == 2
    assert "k0.keras: already exists" in other.err
    assert all(path.read_bytes() == held for path, held in before.items())


REFUSALS = {
    "architecture": (("fit", "resnet"), "choose one of unet, unet_plus_plus, pan"),
    "no class": (("fit", "one_class"), "needs --class-id"),
    "class for all": (("fit", "unet", "--class-id", 1), "omit --class-id"),
    "class unknown": (("fit", "one_class", "--class-id", 7), "classes 0 to 4"),
    "preset": (("fit", "unet", "--preset", "huge"), "tiny, small, base, large"),
    "loss": (("fit", "unet", "--loss", "hinge"), "cross-entropy"),
    "augment": (("fit", "unet", "--augment", "spin"), "flips-jitter"),
    "ignored": (("fit", "unet", "--ignored-class", "sky"), "class number or 'none'"),
    "names": (("fit", "unet", "--class-names", "a,b"), "labels up to 4"),
    "fold": (("fit", "unet", "--fold", 5), "0 to 4"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_one_line_and_write_nothing(call: Call, task_file: Path, tmp_path: Path, case: str) -> None:
    arguments, message = REFUSALS[case]
    result = call(
        app, *arguments, "--data", task_file, "--groups", tmp_path / "groups.npz", "--out", tmp_path / "n.keras"
    )
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert sorted(item.name for item in tmp_path.iterdir()) == ["groups.npz", "tiles.npz"]


def test_results_are_not_replaced_unasked(call: Call, task_file: Path, tmp_path: Path) -> None:
    (tmp_path / "n.history.csv").write_text("precious")
    result = call(app, "fit", "unet", "--data", task_file, "--out", tmp_path / "n.keras")
    assert result.code == 2
    assert "n.history.csv: already exists; give --overwrite" in result.err
    assert (tmp_path / "n.history.csv").read_text() == "precious"


def test_a_place_that_cannot_be_written_is_refused_before_training(call: Call, task_file: Path) -> None:
    result = call(app, "fit", "unet", "--data", task_file, "--out", task_file / "n.keras")
    assert result.code == 2
    assert f"{task_file} is not a writable folder" in result.err
    assert "epoch" not in result.err


def test_clean_says_what_it_did(call: Call, task_file: Path, tmp_path: Path) -> None:
    result = call(app, "clean", "--data", task_file, "--out", tmp_path / "c.npz")
    assert result.code == 0
    assert result.out.startswith("removed 0, kept 20")


def test_help_needs_no_framework(root: Path) -> None:
    script = "import sys, trainers.cli; print({'keras', 'tensorflow', 'numpy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "set()"


def test_without_keras_one_line_says_what_to_install(
    task_file: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for quiet in (True, False):
        with monkeypatch.context() as patch:
            patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
            if quiet:  # then messages of TensorFlow are suppressed at the file descriptor
                patch.delenv("TF_CPP_MIN_LOG_LEVEL")
            patch.setitem(sys.modules, "keras", None)
            for arguments in (("fit", "unet"), ("fit-specialists",), ("cross-validate", "unet")):
                done = call(app, *arguments, "--data", task_file, "--out", tmp_path / "out.keras")
                assert (done.code, done.out) == (2, "")
                needs = "training needs Keras and a backend for it: pip install 'maskfuse[train]'"
                assert done.err == f"error: {needs}\n"
    assert not (tmp_path / "out.keras").exists()
