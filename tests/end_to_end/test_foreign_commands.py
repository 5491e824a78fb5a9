"""Foreign nets through the other commands: a plan of select is enough; compare, report, bench, resumed runs, tiles."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.compare.runfile import read_run
from tests.conftest import Result
from tests.helpers.foreign import (
    SCALED,
    SIZE,
    Form,
    above_middle,
    drawn,
    enlarged_labels,
    nearest_level,
    save_foreign,
    smooth,
)
from tests.helpers.runs import Dying, resumed

Engine = Callable[..., Result]
COUNT = 6


@dataclass
class Case:
    """Forms of two nets, the images and their truth, what is stated, and what of it a plan must hold.

    Attributes:
        forms: one a net.
        images: what is predicted.
        truth: labels.
        options: what is stated.
        remembered: contract fields of each member of the plan.
    """

    forms: tuple[Form, Form]
    images: np.ndarray
    truth: np.ndarray
    options: tuple[str, ...]
    remembered: dict[str, object]


GREY, COLOUR, LARGE = drawn(COUNT, *SIZE), drawn(COUNT, *SIZE, 3, seed=1), smooth(COUNT, block=16)
SMOOTH = smooth(COUNT)
HALVED, SURE = enlarged_labels(SMOOTH, 2)
SMOOTH, HALVED = SMOOTH[SURE.all(axis=(1, 2))], HALVED[SURE.all(axis=(1, 2))]
CASES = {
    "grey as RGB, one output": Case(
        (Form(channels=3, channel=1, auxiliary=True), Form(channels=3, channel=2, batch=1, auxiliary=True)),
        GREY,
        nearest_level(GREY),
        (*SCALED, "--grey-as-rgb", "--output-name", "out", "--ignored-class", "1", "--classes", "a,b,c"),
        {"scale": 1 / 255, "grey_as_rgb": True, "output_name": "out", "ignored_class": 1, "classes": ["a", "b", "c"]},
    ),
    "bands of one map": Case(
        (Form(ending="share", channels=2, channel=1), Form(ending="share", channels=2, channel=1, takes="float16")),
        COLOUR,
        above_middle(COLOUR[..., 0], 0.2),
        (*SCALED, "--bands", "3,1", "--activation", "probabilities", "--foreground-threshold", "0.2", "--classes", "x"),
        {
            "scale": 1 / 255,
            "bands": [3, 1],
            "activation": "probabilities",
            "foreground_threshold": 0.2,
            "classes": ["background", "x"],
        },
    ),
    "BGR, normalised": Case(
        (Form(channels=3, channel=2), Form(channels=3, channel=2, batch=4, layout="NHWC")),
        COLOUR,
        nearest_level((COLOUR[..., 0] / 255 - 0.485) / 0.229 * 255),
        ("--channel-order", "bgr", "--scale", "1/255", "--mean", "0,0,0.485", "--std", "1,1,0.229"),
        {"scale": 1 / 255, "channel_order": "bgr", "mean": [0, 0, 0.485], "std": [1, 1, 0.229]},
    ),
    "windows": Case(
        (Form(size=(16, 16)), Form(size=(16, 16), batch=2, gives="float16")),
        LARGE,
        nearest_level(LARGE),
        (*SCALED, "--fit", "pad", "--input-layout", "NCHW", "--output-layout", "NCHW"),
        {"scale": 1 / 255, "fit": "pad", "input_layout": "NCHW", "output_layout": "NCHW"},
    ),
    "halves": Case(
        (Form(reduced=2), Form(reduced=2, gives="float64", batch=3)),
        SMOOTH,
        HALVED,
        SCALED,
        {"scale": 1 / 255},
    ),
}


def words(nets: list[Path]) -> list[object]:
    return [word for net in nets for word in ("-m", net)]


def laid_out(case: Case, folder: Path) -> list[object]:
    """Write nets, images and truth; return how they are named on a command line."""
    nets = [save_foreign(folder / f"net{index}.onnx", form) for index, form in enumerate(case.forms)]
    np.save(folder / "images.npy", case.images)
    np.save(folder / "truth.npy", case.truth)
    return [*words(nets), "-i", folder / "images.npy", "--labels", folder / "truth.npy"]


@pytest.mark.parametrize("name", CASES)
def test_a_selected_plan_is_enough(name: str, tmp_path: Path, engine: Engine) -> None:
    case, plan = CASES[name], tmp_path / "plan.toml"
    named = laid_out(case, tmp_path)
    few = ("--folds", 2, "--pixels", 500, "--no-clean-up", "--no-suppress")
    made = engine("select", *named, *case.options, *few, "-o", plan, "--json")
    assert made.code == 0, made.err
    for member in tomllib.loads(plan.read_text())["members"]:
        held = member["contract"]
        # A stride is no statement: it is found again.
        assert {key: held[key] for key in held if key != "stride"} == case.remembered
    done = engine("ensemble", "--plan", plan, "-i", tmp_path / "images.npy", "-o", tmp_path / "planned.npy")
    assert done.code == 0, done.err
    masks = np.load(tmp_path / "planned.npy")
    assert (masks == case.truth).mean() > 0.999
    place = ("--plan", plan, "-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy")
    for words, said in ((("--scale", 0.5), "--scale says 0.5"), (("--normalize", "none"), "--normalize says 1")):
        told = engine("ensemble", *place, *words)
        assert told.code == 2
        assert f"the plan says 0.00392157, {said}" in told.err


@pytest.mark.parametrize("name", CASES)
def test_compare_and_report_take_them(name: str, tmp_path: Path, engine: Engine) -> None:
    pytest.importorskip("jinja2", reason="the page needs maskfuse[report]")
    case = CASES[name]
    few = ("--folds", 2, "--pixels", 500, "--gallery", 1, "--no-ablation", "--no-suppress", "--metric", "all")
    run = tmp_path / "run.npz"
    done = engine("compare", *laid_out(case, tmp_path), *case.options, *few, "-o", run, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    raw = {row["name"]: row["scores"]["all"]["value"] for row in facts["rows"] if row["state"] == "raw"}
    assert {"net0", "net1", "vote", "staple"} <= set(raw)
    assert min(raw[name] for name in ("net0", "net1", "mean-logit", "vote")) > 0.995
    assert read_run(run).pictures.images.shape[1:3] == case.images.shape[1:3]
    assert engine("report", run, "-o", tmp_path / "page.html").code == 0


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["windows", "bands of one map", "halves", "constants", "labels"])
def test_bench_runs_them(name: str, runtime: str, tmp_path: Path, engine: Engine) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="the second runtime is optional")
    made = {
        "constants": Case((Form(constants={"g": ()}), Form()), GREY, GREY, SCALED, {}),
        "labels": Case((Form(ending="labels3", batch=2), Form()), GREY, GREY, (*SCALED, "--strategy", "vote"), {}),
    }
    named = laid_out(case := made.get(name) or CASES[name], tmp_path)[:-2]
    if name == "constants":
        (tmp_path / "net0.toml").write_text("constants = { g = 0 }\n")
    options = ("--images", COUNT, "--rounds", 1, "--workers", 2, "--batch-size", 2, "--runtime", runtime)
    done = engine("bench", *named, *case.options, *options, "--json")
    assert done.code == 0, done.err
    assert [member["runtime"] for member in json.loads(done.out)["members"]] == [runtime] * 2


@pytest.mark.parametrize("name", ["bands of one map", "windows", "halves", "grey as RGB, one output"])
def test_a_run_that_was_cut_off_goes_on(
    name: str, tmp_path: Path, engine: Engine, dying: Dying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runs.durable.images.MOST_IMAGES", 8)
    case = CASES[name]
    named = laid_out(case, tmp_path)[:4]
    repeated = np.concatenate([case.images] * 8)[:40]
    np.save(tmp_path / "many.npy", repeated)
    goal = tmp_path / "masks.npy"
    options = (*named, "-i", tmp_path / "many.npy", *case.options, "--workers", 1, "--batch-size", 4)
    options += ("--no-suppress",)
    dying.at(2 * 6 + 1)
    assert engine("ensemble", *options, "-o", goal).code == 2
    dying.at(1 << 30)
    assert not goal.exists()
    done = engine("ensemble", *options, "-o", goal, "--resume")
    assert done.code == 0, done.err
    assert resumed(done) >= 8
    want = np.concatenate([case.truth] * 8)[:40]
    assert (np.load(goal) == want).mean() > 0.999
    record = json.loads((tmp_path / "masks.npy.json").read_text())
    assert any(file.get("adapted") for member in record["members"] for file in member["files"])


@pytest.mark.parametrize("flips", ["horizontal", "both"])
@pytest.mark.parametrize("form", [Form(batch=3), Form(divides=32), Form(ending="logit"), Form(takes="uint8", raw=True)])
def test_mirror_images_are_adapted_too(form: Form, flips: str, tmp_path: Path, engine: Engine) -> None:
    pixels = drawn(COUNT, 31, 33)
    np.save(tmp_path / "images.npy", pixels)
    net = save_foreign(tmp_path / "net.onnx", form)
    options = () if form.raw else SCALED
    done = engine(
        "ensemble", "-m", net, "-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy", *options, "--flips", flips
    )
    assert done.code == 0, done.err
    want = above_middle(pixels) if form.ending == "logit" else nearest_level(pixels)
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), want)


@pytest.mark.parametrize(
    "form",
    [
        Form(batch=1, size=(32, 48)),
        Form(divides=32),
        Form(ending="logit", batch=2),
        Form(ending="labels3", batch=2),
        Form(takes="uint8", raw=True),
        Form(takes="float16", gives="float16"),
        Form(auxiliary=True),
        Form(layout="NHWC", output_layout="NHWC", reduced=1, batch=5),
    ],
    ids=["batch1", "stride", "one map", "labels", "bytes", "float16", "auxiliary", "NHWC"],
)
def test_scenes_are_cut_into_tiles_for_them(form: Form, tmp_path: Path, engine: Engine) -> None:
    scene = drawn(70, 101)
    np.save(tmp_path / "scene.npy", scene)
    net = save_foreign(tmp_path / "net.onnx", form)
    options = (*(() if form.raw else SCALED), *(("--classes", "3") if form.ending == "labels3" else ()))
    place = (
        "-i",
        tmp_path / "scene.npy",
        "-o",
        tmp_path / "mask.npy",
        "--tile",
        "32x64" if form.divides > 1 else "32x48",
    )
    done = engine("ensemble", "-m", net, *place, *options)
    assert done.code == 0, done.err
    want = above_middle(scene) if form.ending == "logit" else nearest_level(scene)
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), want)


def test_smaller_maps_of_a_scene_are_those_of_the_whole(tmp_path: Path, engine: Engine) -> None:
    scene = smooth(1, (96, 96), block=16)[0]
    np.save(tmp_path / "scene.npy", scene)
    net = save_foreign(tmp_path / "net.onnx", reduced=4)
    place = ("-i", tmp_path / "scene.npy", "-o", tmp_path / "mask.npy", "--tile", "32x32")
    done = engine("ensemble", "-m", net, *place, *SCALED)
    assert done.code == 0, done.err
    want, sure = enlarged_labels(scene[None], 4)
    # Beside the seams of tiles the blend may move an edge by a pixel.
    assert ((np.load(tmp_path / "mask.npy") == want[0]) | ~sure[0]).mean() > 0.98
