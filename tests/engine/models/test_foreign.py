"""ONNX files of other tools: what is evident is found, what is stated is believed, what is open is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engine import ContractError, Ensemble
from engine.models.opening import open_net
from tests.conftest import Result
from tests.helpers.nets import FIVE, save_member, save_net, save_specialists
from tests.helpers.world import World

HEIGHT, WIDTH, COUNT = 8, 16, 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def pixels(channels: int) -> np.ndarray:
    drawn = np.random.default_rng(8).integers(0, 256, (COUNT, HEIGHT, WIDTH, channels))
    return drawn.astype(np.uint8)


def plain(paths: list[Path], images: np.ndarray, layouts: tuple[str, str], end: str, norm: bool = False) -> np.ndarray:
    """The mean-logit labels by ONNX Runtime and NumPy alone."""
    total: Any = 0
    for path in paths:
        scaled = images.astype(np.float32) / 255
        if norm:
            scaled = (scaled - np.float32(MEAN)) / np.float32(STD)
        given = scaled.transpose(0, 3, 1, 2) if layouts[0] == "NCHW" else scaled
        maps = onnxruntime.InferenceSession(path).run(["out"], {"image": given.astype(np.float32)})[0]
        maps = maps.astype(np.float64).transpose(0, 3, 1, 2) if layouts[1] == "NHWC" else maps.astype(np.float64)
        total = total + (np.log(maps) if end == "softmax" else maps)
    return total.argmax(axis=1).astype(np.uint8)


@pytest.mark.parametrize("end", ["logits", "softmax"])
@pytest.mark.parametrize("layouts", [("NCHW", "NCHW"), ("NHWC", "NHWC"), ("NCHW", "NHWC"), ("NHWC", "NCHW")])
@pytest.mark.parametrize(("channels", "classes"), [(1, 3), (3, 5), (1, 21)])
def test_a_foreign_net_predicts_what_one_with_a_contract_does(
    channels: int, classes: int, layouts: tuple[str, str], end: str, tmp_path: Path
) -> None:
    shape = {"channels": channels, "input_layout": layouts[0], "output_layout": layouts[1], "end": end}
    names = tuple(f"kind {index}" for index in range(classes))
    own = [save_member(tmp_path / f"own{seed}.onnx", seed, names, **shape) for seed in range(2)]
    foreign = [save_net(tmp_path / f"foreign{seed}.onnx", classes, seed=seed, **shape) for seed in range(2)]
    images = pixels(channels)
    want = Ensemble.open(own, suppress=()).predict(images)
    stated = {"scale": 1 / 255}
    got = Ensemble.open(foreign, stated=stated, sample=images[0]).predict(images)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(got, plain(foreign, images, layouts, end))
    assert len(np.unique(got)) > 1
    member = open_net(foreign[0], stated, images[0])
    held = member.contract
    assert (held.input_layout, held.output_layout, held.channels, len(held.classes)) == (*layouts, channels, classes)
    assert held.activation == ("probabilities" if end == "softmax" else "logits")


def test_mean_and_std_are_applied_in_that_order(tmp_path: Path) -> None:
    net = save_net(tmp_path / "net.onnx", channels=3)
    images = pixels(3)
    stated = {"scale": 1 / 255, "mean": list(MEAN), "std": list(STD)}
    got = Ensemble.open(net, stated=stated, sample=images[0]).predict(images)
    np.testing.assert_array_equal(got, plain([net], images, ("NCHW", "NCHW"), "logits", norm=True))


def test_sigmoid_needs_a_word(tmp_path: Path) -> None:
    net = save_net(tmp_path / "net.onnx", end="sigmoid")
    images = pixels(1)
    with pytest.raises(ContractError, match='activation="logits" or activation="probabilities"'):
        open_net(net, {"scale": 1 / 255}, images[0])
    for activation in ("probabilities", "logits"):
        stated = {"scale": 1 / 255, "activation": activation}
        got = Ensemble.open(net, stated=stated, sample=images[0]).predict(images)
        # The logarithm keeps the order, so one net alone must say the same either way.
        np.testing.assert_array_equal(got, plain([net], images, ("NCHW", "NCHW"), "logits"))


def test_sure_probabilities_stay_finite(tmp_path: Path) -> None:
    net = save_net(tmp_path / "net.onnx", end="softmax")
    images = pixels(1)
    # Raw pixels drive the softmax to exact zeros and ones.
    scaled = images.astype(np.float32).transpose(0, 3, 1, 2)
    assert (onnxruntime.InferenceSession(net).run(["out"], {"image": scaled})[0] == 0).any()
    got = Ensemble.open([net, save_net(tmp_path / "b.onnx", seed=1)], stated={"scale": 1.0}, sample=images[0])
    assert got.predict(images).max() < 5


def test_grey_images_are_repeated_only_when_asked(tmp_path: Path) -> None:
    net = save_net(tmp_path / "net.onnx", channels=3)
    grey = pixels(1)
    stated = {"scale": 1 / 255}
    with pytest.raises(Exception, match="grey_as_rgb"):
        open_net(net, stated, grey[0])
    got = Ensemble.open(net, stated=stated, sample=grey[0], grey_as_rgb=True).predict(grey)
    np.testing.assert_array_equal(got, plain([net], grey.repeat(3, axis=3), ("NCHW", "NCHW"), "logits"))


def test_an_output_is_chosen_by_name(tmp_path: Path) -> None:
    net = save_net(tmp_path / "net.onnx", two_outputs=True)
    images = pixels(1)
    masks = {
        name: Ensemble.open(net, stated={"scale": 1 / 255, "output_name": name}, sample=images[0]).predict(images)
        for name in ("out", "aux")
    }
    np.testing.assert_array_equal(masks["out"], plain([net], images, ("NCHW", "NCHW"), "logits"))
    assert (masks["out"] != masks["aux"]).mean() > 0.5


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_ambiguous_layout_is_asked_and_then_believed(layout: str, tmp_path: Path) -> None:
    """A picture three pixels wide and of three channels shows nothing."""
    net = save_net(tmp_path / "net.onnx", 3, channels=3, input_layout=layout, output_layout=layout, size=(3, 3))
    images = np.random.default_rng(2).integers(0, 256, (4, 3, 3, 3)).astype(np.uint8)
    with pytest.raises(ContractError, match='input_layout="NCHW" or input_layout="NHWC"'):
        open_net(net, {"scale": 1 / 255}, images[0])
    with pytest.raises(ContractError, match="output_layout="):
        open_net(net, {"scale": 1 / 255, "input_layout": layout}, images[0])
    stated = {"scale": 1 / 255, "input_layout": layout, "output_layout": layout}
    got = Ensemble.open(net, stated=stated, sample=images[0]).predict(images)
    np.testing.assert_array_equal(got, plain([net], images, (layout, layout), "logits"))


def test_what_is_stated_must_not_contradict_the_graph(tmp_path: Path) -> None:
    net = save_net(tmp_path / "net.onnx")
    for stated, told in (
        ({"channels": 3}, "does not run on an image of 8x16"),
        ({"output_layout": "NHWC"}, "height and width"),
        ({"input_layout": "NHWC"}, "--input-layout"),
        ({"classes": ["a", "b"]}, "5 maps"),
        ({"size": [4, 4]}, "8x16"),
    ):
        with pytest.raises(ContractError, match=told):
            open_net(net, {"scale": 1.0, **stated}, pixels(1)[0])


def test_foreign_and_own_members_mix(world: World, tmp_path: Path, engine: Callable[..., Result]) -> None:
    """Class names come from the member that has them; the foreign one comes first here."""
    net = save_net(tmp_path / "0.onnx", seed=9)
    twin = save_member(tmp_path / "twin.onnx", 9)
    masks = []
    for index, models in enumerate(((net, world.models), (twin, world.models))):
        output = tmp_path / f"{index}.npy"
        arguments = [word for model in models for word in ("-m", model)]
        done = engine(
            "ensemble", *arguments, "-i", world.images_file, "-o", output, "--scale", 1 / 255, "--suppress", "big rock"
        )
        assert done.code == 0, done.err
        masks.append(np.load(output))
    np.testing.assert_array_equal(*masks)
    assert not (masks[0] == 4).any()


def test_a_plan_states_what_a_file_does_not(world: World, tmp_path: Path, engine: Callable[..., Result]) -> None:
    save_net(tmp_path / "net.onnx", seed=2, two_outputs=True)
    for class_id in range(5):
        save_net(tmp_path / f"only{class_id}.onnx", 1, seed=50 + class_id)
    own = save_specialists(tmp_path / "set")
    classes = f"classes = {json.dumps(list(FIVE))}\nscale = {1 / 255!r}\n"
    tables = [f'[[members]]\nmodel = "net.onnx"\n[members.contract]\noutput_name = "out"\n{classes}']
    for class_id in range(5):
        tables.append(
            f'[[members]]\nmodel = "only{class_id}.onnx"\n[members.contract]\nkind = "specialist"\n'
            f'class_id = {class_id}\ngroup = "set"\nactivation = "logits"\n{classes}'
        )
    plan = tmp_path / "plan.toml"
    plan.write_text("suppress = [0]\n" + "\n".join(tables))
    output = tmp_path / "masks.npy"
    done = engine("ensemble", "--plan", plan, "-i", world.images_file, "-o", output)
    assert done.code == 0, done.err
    want = Ensemble.open([world.models / "c.onnx", own]).predict(world.images)
    np.testing.assert_array_equal(np.load(output), want)


def test_inspect_takes_the_same_options(tmp_path: Path, engine: Callable[..., Result]) -> None:
    net = save_net(tmp_path / "net.onnx", size=(HEIGHT, WIDTH))
    done = engine("inspect", net, "--scale", 1, "--activation", "logits", "--classes", "a, b,c,d,e", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)[0]
    assert told["classes"] == ["a", "b", "c", "d", "e"]
    assert told["size"] == [HEIGHT, WIDTH]
