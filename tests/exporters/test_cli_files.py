"""The commands specialists, quantize and pack, as a user meets them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters import cli
from tests.conftest import Result
from tests.helpers.nets import save_member, save_net

SIZE = (16, 32)


@pytest.fixture
def exporters(call: Callable[..., Result]) -> Callable[..., Result]:
    """Run ``exporters ARGUMENTS`` in this process."""
    return lambda *arguments: call(cli.app, *arguments)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "tiles.npz"
    images = draw.integers(0, 256, (12, *SIZE)).astype(np.uint8)
    np.savez(path, images=images, labels=draw.integers(0, 5, (12, *SIZE)).astype(np.uint8))
    return path


def refused(done: Result, *words: str) -> None:
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for word in words:
        assert word in done.err


def test_quantize_prints_speed_and_score(exporters, data, tmp_path, read_stamp):
    source = save_member(tmp_path / "net.onnx")
    done = exporters("quantize", source, "--calibrate", data, "--max-loss", 1)
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    assert done.out.startswith("speed x")
    assert "on 12 tiles" in done.out
    assert f"wrote {tmp_path / 'net_int8.onnx'} (int8, " in done.err
    assert read_stamp(tmp_path / "net_int8.onnx").notes["precision_tiles"] == 12
    refused(exporters("quantize", source, "--calibrate", data, "--max-loss", 1), "--overwrite")
    named = tmp_path / "new" / "half.onnx"
    done = exporters("quantize", source, "--calibrate", data, "--to", "fp16", "--out", named, "--max-loss", 1)
    assert done.code == 0, done.err
    assert named.exists()


def test_quantize_refuses_in_one_line(exporters, data, tmp_path):
    source = save_member(tmp_path / "net.onnx")
    refused(exporters("quantize", source, "--calibrate", data, "--to", "int2"), "--to int2; allowed are int8 and fp16")
    refused(exporters("quantize", source, "--calibrate", tmp_path / "no.npz"), "no.npz: no such file")
    refused(
        exporters("quantize", save_net(tmp_path / "f.onnx"), "--calibrate", data),
        "how pixels are scaled",
        "exporters adopt f.onnx",
    )
    sized = save_member(tmp_path / "sized.onnx", size=(8, 8), promised={"size": (8, 8)})
    refused(exporters("quantize", sized, "--calibrate", data), "(16, 32, 1)", "(8, 8, 1)")
    np.savez(tmp_path / "bare.npz", images=np.zeros((2, *SIZE)))
    refused(exporters("quantize", source, "--calibrate", tmp_path / "bare.npz"), "no labels", "--labels")
    assert not list(tmp_path.glob("*_int8.onnx"))


def test_a_packed_plan_in_the_engine(exporters, call, data, tmp_path):
    for seed in range(3):
        save_member(tmp_path / f"m{seed}.onnx", seed)
    lowered = exporters("quantize", tmp_path / "m2.onnx", "--calibrate", data, "--max-loss", 1)
    assert lowered.code == 0, lowered.err
    tables = "".join(f'[[members]]\nmodel = "{name}.onnx"\n' for name in ("m0", "m1", "m2_int8"))
    (tmp_path / "ensemble.toml").write_text(f'strategy = "vote"\n{tables}')
    whole = tmp_path / "whole.onnx"
    done = exporters("pack", tmp_path / "ensemble.toml", "--out", whole, "--tiles", data, "--scores")
    assert done.code == 0, done.err
    assert done.out.startswith("the engine's labels on 23 tiles, 11,776 pixels; ")
    assert f"wrote {whole} (3 members, " in done.err
    from engine.cli import app as engine

    outputs = []
    for name, models in (("plan", ("--plan", tmp_path / "ensemble.toml")), ("packed", ("-m", whole))):
        ran = call(engine, "ensemble", *models, "-i", data, "-o", tmp_path / f"{name}.csv", "--labels", data)
        assert ran.code == 0, ran.err
        outputs.append(np.loadtxt(tmp_path / f"{name}.csv", delimiter=",", skiprows=1))
    assert (outputs[0] != outputs[1]).sum() <= 1
    refused(exporters("pack", tmp_path / "ensemble.toml", "--out", whole), "--overwrite")
    refused(exporters("pack", tmp_path / "none.toml", "--out", tmp_path / "x.onnx"), "none.toml")
    (tmp_path / "bad.toml").write_text('strategy = "staple"\n[[members]]\nmodel = "m0.onnx"\n')
    refused(exporters("pack", tmp_path / "bad.toml", "--out", tmp_path / "x.onnx"), "'staple' cannot be packed")


def test_specialists_from_archives(exporters, build, save, contract, tmp_path, read_stamp):
    sources = []
    for class_id in range(3):
        promised = replace(contract, kind="specialist", class_id=class_id)
        sources.append(save(tmp_path / f"k{class_id}.keras", build("specialist"), promised))
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 3, (4, *SIZE)).astype(np.uint8)
    np.savez(tmp_path / "tiles.npz", images=draw.integers(0, 256, (4, *SIZE)).astype(np.uint8), masks=labels)
    out = tmp_path / "set" / "five.onnx"
    done = exporters("specialists", *sources, "--out", out, "--tiles", tmp_path / "tiles.npz")
    assert done.code == 0, done.err
    assert [line.split(":")[0] for line in done.out.splitlines()[:3]] == list(contract.classes)
    assert "cross-entropy" in done.out
    written = [out.with_suffix("") / f"k{class_id}.onnx" for class_id in range(3)]
    assert done.err.splitlines()[:-1] == [f"wrote {path}" for path in (*written, out)]
    assert read_stamp(out).kind == "specialists"
    refused(exporters("specialists", *sources[:2], "--out", tmp_path / "x.onnx"), "no specialist of class 2 (rock)")
    (tmp_path / "text.keras").write_text("text")
    refused(exporters("specialists", tmp_path / "text.keras", "--out", tmp_path / "x.onnx"), "not a Keras archive")
    shutil.rmtree(out.parent)
    done = exporters("specialists", *sources, "--out", out)
    assert done.out == ""
    assert "not calibrated" in done.err


def test_adopt_then_everything_without_options(exporters, call, data, tmp_path):
    """A net of another tool: adopted once, then quantised, packed and run by its file alone."""
    from engine.cli import app as engine

    source, own = save_net(tmp_path / "net.onnx", seed=4, batch=1), tmp_path / "own.onnx"
    refused(exporters("adopt", source, "--out", own), "net.onnx", "--scale 1/255", "--normalize imagenet")
    assert not own.exists()
    stated = ("--scale", "1/255", "--classes", "a,b,c,d,e", "--ignored-class", "0")
    done = exporters("adopt", source, "--out", own, *stated, "--tiles", data)
    assert done.code == 0, done.err
    assert done.err.splitlines()[0] == f"wrote {own}"
    assert done.err.splitlines()[1:] == [f"next: engine ensemble --models {own} --input IMAGES --output masks.csv"]
    assert "scale: 0.00392157 (--scale)" in done.out
    assert "images run one by one" in done.out
    assert f"the same labels without options on {12 * 16 * 32:,} pixels" in done.out
    refused(exporters("adopt", own, "--out", own), "--overwrite")
    refused(
        exporters("adopt", own, "--out", tmp_path / "x.onnx", "--scale", "1"), "its contract says", "--scale says 1"
    )
    assert exporters("quantize", own, "--calibrate", data, "--max-loss", 1).code == 0
    (tmp_path / "plan.toml").write_text('[[members]]\nmodel = "own.onnx"\n')
    assert exporters("pack", tmp_path / "plan.toml", "--out", tmp_path / "whole.onnx").code == 0
    masks = []
    for model, options in ((source, stated), (own, ()), (tmp_path / "whole.onnx", ())):
        ran = call(engine, "ensemble", "-m", model, "-i", data, "-o", tmp_path / "masks.npy", "--overwrite", *options)
        assert ran.code == 0, ran.err
        masks.append(np.load(tmp_path / "masks.npy"))
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).sum() <= 1


def test_adopt_takes_a_normalization_by_name(exporters, read_stamp, tmp_path):
    source = save_net(tmp_path / "net.onnx", seed=4, channels=3)
    done = exporters("adopt", source, "--out", tmp_path / "own.onnx", "--normalize", "imagenet")
    assert done.code == 0, done.err
    assert "std: 0.229, 0.224, 0.225 (--normalize)" in done.out
    assert read_stamp(tmp_path / "own.onnx").mean == (0.485, 0.456, 0.406)
    both = ("--normalize", "imagenet", "--mean", "0.5")
    refused(exporters("adopt", source, "--out", tmp_path / "x.onnx", *both), "--normalize", "--mean 0.5")


def test_a_packed_image_that_fails_is_named_or_skipped(exporters, call, tmp_path):
    from engine.cli import app as engine
    from tests.helpers.foreign_nets import Case, pixels_of, save_foreign

    save_foreign(tmp_path / "net.onnx", 2, failing=True)
    (tmp_path / "net.toml").write_text('scale = "1/255"\nclasses = ["a", "b", "c"]\n')
    (tmp_path / "plan.toml").write_text('suppress = [0]\n[[members]]\nmodel = "net.onnx"\n')
    images = pixels_of(Case({}), count=5)
    images[3] = 7
    np.savez(tmp_path / "tiles.npz", images=images)
    whole = tmp_path / "whole.onnx"
    done = exporters("pack", tmp_path / "plan.toml", "--out", whole, "--tiles", tmp_path / "tiles.npz")
    assert done.code == 0, done.err
    run = ("ensemble", "-m", whole, "-i", tmp_path / "tiles.npz", "-o", tmp_path / "masks.npy")
    refused(call(engine, *run), "member whole computes NaN or infinity for image 3", "--on-bad-image skip")
    skipped = call(engine, *run, "--on-bad-image", "skip")
    assert skipped.code == 3
    assert len(np.load(tmp_path / "incomplete-masks.npy")) == 4
    assert "computes NaN or infinity" in (tmp_path / "masks.npy.skipped.txt").read_text()


@pytest.mark.parametrize("command", ["adopt", "specialists", "quantize", "pack"])
def test_help_stands(exporters, command):
    done = exporters(command, "--help")
    assert done.code == 0
    assert "--overwrite" in done.out
