"""What is known of a file from several origins: who comes first, who contradicts whom, what stays open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import ContractError, Ensemble, InputError, PlanError
from engine.errors import EngineError, naming_options
from engine.models.facts.base import Facts
from engine.models.opening import Request, inspect_net, open_net, open_nets
from tests.conftest import Result
from tests.helpers.foreign import GAIN, Form, above_middle, drawn, nearest_level, save_foreign
from tests.helpers.nets import save_member

Engine = Callable[..., Result]
SCALE = 1 / 255
PIXELS = drawn(3, 16, 24)
SAMPLE = PIXELS[0][..., None]
NAMES = ["a", "b", "c"]


def origins(path: Path, *facts: Facts) -> dict[str, str]:
    return inspect_net(path, facts, SAMPLE).found.origins


def test_the_more_exact_origin_comes_first_and_later_ones_add(tmp_path: Path) -> None:
    net = save_foreign(tmp_path / "net.onnx", Form(metadata={"class_names": '{"0": "a", "1": "b", "2": "c"}'}))
    (tmp_path / "net.toml").write_text('scale = "1/255"\n')
    plan, given = Facts("the plan", {"ignored_class": 1}), Facts("--activation", {"activation": "logits"})
    opened = inspect_net(net, (plan, given), SAMPLE)
    assert opened.questions == []
    assert opened.contract is not None
    assert opened.contract.classes == ("a", "b", "c")
    assert (opened.contract.scale, opened.contract.ignored_class) == (pytest.approx(SCALE), 1)
    found = opened.found.origins
    assert found["classes"] == "its metadata (Deepness)"
    assert found["ignored_class"] == "the plan"
    assert found["activation"] == "--activation"
    # A plan must remember what neither the file nor one beside it says.
    assert dict(opened.stated) == {"ignored_class": 1, "activation": "logits"}


@pytest.mark.parametrize(
    ("metadata", "toml", "facts", "told"),
    [
        (
            {"class_names": '{"0": "a", "1": "b", "2": "c"}'},
            'classes = ["a", "b", "d"]',
            (),
            r"its metadata \(Deepness\) says 'c', net.toml says 'd'",
        ),
        ({}, "scale = 1", (Facts("the plan", {"scale": SCALE}),), r"net.toml says 1, the plan says 0\.00392157"),
        (
            {},
            "",
            (Facts("the plan", {"bands": [2, 1, 3]}), Facts("--bands", {"bands": [3, 2, 1]})),
            r"bands\[0\]: the plan says 2, --bands says 3",
        ),
        ({}, "stride = 8", (Facts("--stride", {"stride": 16}),), "stride: net.toml says 8, --stride says 16"),
    ],
)
def test_a_contradiction_names_both_origins(
    metadata: dict[str, str], toml: str, facts: tuple[Facts, ...], told: str, tmp_path: Path
) -> None:
    net = save_foreign(tmp_path / "net.onnx", Form(metadata=metadata))
    if toml:
        (tmp_path / "net.toml").write_text(toml + "\n")
    with pytest.raises(ContractError, match=told):
        inspect_net(net, facts, SAMPLE)


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("scale", 1.0, "its contract says 0.00392157, the argument scale says 1"),
        ("classes", ["a", "b", "c", "d", "e"], "its contract says 'background', the argument classes says 'a'"),
        ("ignored_class", 2, "its contract says 0, the argument ignored_class says 2"),
        ("input_layout", "NHWC", "its contract says 'NCHW', the argument input_layout says 'NHWC'"),
        ("activation", "probabilities", "its contract says 'logits', the argument activation says"),
        ("channels", 3, "its contract says 1, the argument channels says 3"),
    ],
)
def test_an_own_contract_is_not_overruled(option: str, value: Any, told: str, tmp_path: Path) -> None:
    net = save_member(tmp_path / "net.onnx")
    with pytest.raises(ContractError, match=told):
        Ensemble.open(net, **{option: value})


def test_an_own_contract_may_be_added_to(tmp_path: Path) -> None:
    net = save_member(tmp_path / "net.onnx", size=(8, 16), promised={"size": (8, 16)})
    images = drawn(2, 30, 20)
    with pytest.raises(InputError, match=r'net.onnx: images are 30x20, it takes 8x16 alone: add fit="resize"'):
        Ensemble.open(net).predict(images)
    assert Ensemble.open(net, fit="pad", scale=SCALE).predict(images).shape == images.shape
    whole = save_member(tmp_path / "whole.onnx")
    # A convolution sees beyond a window's edge in the whole image alone: the inside of the windows is the same.
    windows, one = Ensemble.open(net, fit="pad").predict(images), Ensemble.open(whole).predict(images)
    np.testing.assert_array_equal(windows[:, 1:7, 1:15], one[:, 1:7, 1:15])


def test_keyword_facts_are_those_of_the_options(tmp_path: Path, engine: Engine) -> None:
    net = save_foreign(tmp_path / "net.onnx", Form(ending="share", channels=3, channel=2, batch=2))
    images = drawn(3, 16, 24, 3)
    np.save(tmp_path / "images.npy", images)
    facts = {"normalize": "0..1", "classes": ["sea", "ship"], "activation": "probabilities", "channel_order": "bgr"}
    ensemble = Ensemble.open(net, sample=images[0], foreground_threshold=0.3, **facts)
    assert ensemble.classes == ("sea", "ship")
    masks = ensemble.predict(images)
    np.testing.assert_array_equal(masks, above_middle(images[..., 0], 0.3))
    words = [w for key, value in facts.items() for w in (f"--{key.replace('_', '-')}", value)]
    words = [",".join(word) if isinstance(word, list) else word for word in words]
    place = ("-i", tmp_path / "images.npy", "-o", tmp_path / "m.npy")
    done = engine("ensemble", "-m", net, *place, *words, "--foreground-threshold", 0.3)
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), masks)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"scales": 1}, PlanError, "unknown argument scales; known: activation, bands"),
        ({"tile": "8x8"}, PlanError, "unknown argument tile"),
        ({"scale": "1/256x"}, ContractError, "the argument scale, scale: '1/256x' is no number"),
        ({"scale": 1, "normalize": "none"}, ContractError, "normalize and scale are both there"),
        ({"scale": 1, "stated": {"scale": 1}}, PlanError, "scale is given twice"),
        ({"normalize": "imagnet"}, ContractError, "'imagnet' is unknown; known are imagenet"),
        ({"bands": [0]}, ContractError, "the argument bands: contract field bands"),
        ({"fit": "crop"}, ContractError, "fit: 'crop' is not resize or pad"),
        ({"stated": {"colour": 1}}, ContractError, "unknown field 'colour'"),
        ({"strategy": "mean"}, PlanError, "unknown strategy 'mean'"),
    ],
)
def test_unknown_and_impossible_arguments(
    options: dict[str, Any], error: type[EngineError], told: str, tmp_path: Path
) -> None:
    net = save_foreign(tmp_path / "net.onnx")
    with pytest.raises(error, match=told):
        Ensemble.open(net, sample=SAMPLE, **{**({} if "normalize" in options else {"scale": SCALE}), **options})


def test_a_fraction_is_a_scale_in_python_too(tmp_path: Path) -> None:
    net = save_foreign(tmp_path / "net.onnx")
    np.testing.assert_array_equal(Ensemble.open(net, scale="1/255").predict(PIXELS), nearest_level(PIXELS))


@pytest.mark.parametrize(
    ("form", "stated", "python", "shell"),
    [
        (Form(), {}, "add scale=1 ", "add --scale 1 "),
        (Form(), {}, 'normalize="imagenet"', "--normalize imagenet"),
        (Form(ending="share"), {"scale": SCALE}, 'activation="logits"', "--activation logits"),
        (Form(ending="labels3"), {"scale": SCALE}, 'classes=["background", "road"]', "--classes background,road"),
        (Form(size=(8, 8)), {"scale": SCALE}, 'fit="pad"', "--fit pad"),
        (Form(takes="uint8", raw=True), {"scale": SCALE}, "leave out scale, mean and std", "leave out --scale, --mean"),
        (Form(), {"mean": [0.4], "std": [0.2]}, "scale=1/255 or normalize=", "--scale 1/255 or --normalize imagenet"),
    ],
)
def test_questions_name_arguments_in_python_and_options_in_the_shell(
    form: Form, stated: dict[str, Any], python: str, shell: str, tmp_path: Path
) -> None:
    net = save_foreign(tmp_path / "net.onnx", form)
    with pytest.raises(ContractError) as told:
        open_net(net, stated, SAMPLE)
    assert python in str(told.value)
    assert "--" not in str(told.value).replace("--tile", "")
    with naming_options(), pytest.raises(ContractError) as told:
        open_net(net, stated, SAMPLE)
    assert shell in str(told.value)


def test_what_errors_advise_in_python_works_there(tmp_path: Path) -> None:
    """Names, values and their spelling: each advice is an argument as it stands."""
    net = save_foreign(tmp_path / "net.onnx", Form(ending="labels3"))
    given: dict[str, Any] = {"sample": SAMPLE, "strategy": "vote"}
    with pytest.raises(ContractError, match=r'add classes=\["background", "road"\]'):
        Ensemble.open(net, scale=SCALE, **given)
    with pytest.raises(ContractError, match="scale=1/255 "):
        Ensemble.open(net, classes=["background", "road"], **given)
    ensemble = Ensemble.open(net, scale=1 / 255, classes=["background", "road", "tree"], **given)
    np.testing.assert_array_equal(ensemble.predict(PIXELS), nearest_level(PIXELS))
    colour = drawn(16, 24, 3)
    one = save_foreign(tmp_path / "one.onnx")
    with pytest.raises(ContractError, match=r"pick the right ones with bands=\[1\]"):
        Ensemble.open(one, sample=colour, scale=SCALE)
    masks = Ensemble.open(one, sample=colour, scale=SCALE, bands=[1]).predict(colour[None])
    np.testing.assert_array_equal(masks[0], nearest_level(colour[..., 0]))


def test_normalised_images_beside_a_mean_are_refused(tmp_path: Path) -> None:
    net = save_foreign(tmp_path / "net.onnx", Form(channels=3))
    floats = (drawn(2, 16, 24, 3) / 255 - 0.5).astype(np.float32)
    ensemble = Ensemble.open(net, sample=floats[0], normalize="imagenet")
    with pytest.raises(InputError, match=r'normalised already; net.onnx subtracts a mean itself.*normalize="none"'):
        ensemble.predict(floats)


def test_neighbours_settle_how_many_classes_labels_have(tmp_path: Path) -> None:
    labels = save_foreign(tmp_path / "labels.onnx", Form(ending="labels3"))
    maps = save_foreign(tmp_path / "maps.onnx")
    fact = (Facts("--scale", {"scale": SCALE}),)
    named = (*fact, Facts("the plan", {"classes": NAMES}))
    first, second = open_nets([Request(labels, fact), Request(maps, named)], SAMPLE)
    assert first.contract.classes == second.contract.classes == ("a", "b", "c")
    assert first.contract.kind == "labels"
    with pytest.raises(ContractError, match="nothing says of how many classes"):
        open_nets([Request(labels, fact)], SAMPLE)
    # Where its classes are mapped they are its own, and nobody else knows them.
    with pytest.raises(ContractError, match="nothing says of how many classes"):
        open_nets([Request(labels, fact, {"a": "b"}), Request(maps, named)], SAMPLE)


@pytest.mark.parametrize("fields", [{"bias": [0.1, 0.2, 0.3]}, {"bias": 0.5, "temperature": [1.0, 2.0, 4.0]}])
def test_a_foreign_set_of_specialists_may_be_calibrated(fields: dict[str, Any], tmp_path: Path) -> None:
    net = save_foreign(tmp_path / "net.onnx")
    member = open_net(net, {"scale": SCALE, "kind": "specialists", "classes": NAMES, **fields}, SAMPLE)
    out, plain = np.empty((3, 3, 16 * 24), np.float32), np.empty((3, 3, 16 * 24), np.float32)
    member.run(member.prepare(PIXELS[..., None]), out, (16, 24))
    other = open_net(net, {"scale": SCALE, "kind": "specialists", "classes": NAMES}, SAMPLE)
    other.run(other.prepare(PIXELS[..., None]), plain, (16, 24))
    bias, temperature = np.array(fields["bias"]).reshape(-1, 1), np.array(fields.get("temperature", 1.0)).reshape(-1, 1)
    np.testing.assert_allclose(out, (plain + bias) / temperature, rtol=1e-5, atol=1e-5)


def test_bands_pick_from_many_channels_in_both_layouts(tmp_path: Path) -> None:
    pixels = drawn(2, 16, 24, 64)
    for layout in ("NCHW", "NHWC"):
        for channels in (4, 13, 63):
            bands = [64 - index for index in range(channels)]
            net = save_foreign(tmp_path / "net.onnx", Form(channels=channels, channel=3, layout=layout))
            member = open_net(net, {"scale": SCALE, "bands": bands}, pixels[0])
            assert member.contract.input_layout == layout
            out = np.empty((2, 3, 16 * 24), np.float32)
            member.run(member.prepare(pixels), out, (16, 24))
            np.testing.assert_array_equal(out.argmax(1).reshape(2, 16, 24), nearest_level(pixels[..., 60]))


def test_the_layout_of_many_channels_is_found_by_the_image(tmp_path: Path) -> None:
    """An input of 12x16x12 may be either; the image of 12 channels and 16x12 pixels tells nothing, one of 5 does."""
    for layout, channels in (("NCHW", 5), ("NHWC", 5), ("NCHW", 64), ("NHWC", 64)):
        net = save_foreign(tmp_path / "net.onnx", Form(channels=channels, layout=layout, size=(16, 24)))
        member = open_net(net, {"scale": SCALE}, drawn(16, 24, channels))
        assert (member.contract.input_layout, member.contract.channels) == (layout, channels)
    net = save_foreign(tmp_path / "net.onnx", Form(channels=12, size=(16, 12)))
    with pytest.raises(ContractError, match='state input_layout="NCHW" or input_layout="NHWC"'):
        open_net(net, {"scale": SCALE}, drawn(16, 12, 12))


def test_maps_whose_layout_an_image_cannot_show_are_asked(tmp_path: Path) -> None:
    """Three classes of an eighth of 24x24: (3, 3, 3) may be either."""
    net, sample = save_foreign(tmp_path / "net.onnx", Form(reduced=8)), drawn(24, 24, 1)
    with pytest.raises(ContractError, match='output_layout="NCHW" or output_layout="NHWC"'):
        open_net(net, {"scale": SCALE}, sample)
    assert open_net(net, {"scale": SCALE, "output_layout": "NCHW"}, sample).contract.output_layout == "NCHW"
    # Where one of the two divides the sides it is that.
    assert open_net(net, {"scale": SCALE}, drawn(32, 48, 1)).contract.output_layout == "NCHW"


def test_the_contract_of_a_settled_net_opens_it_again(tmp_path: Path) -> None:
    form = Form(ending="logit", channels=3, channel=1, batch=2, reduced=2)
    stated = {"scale": SCALE, "classes": ["sea", "ship"], "foreground_threshold": 0.3, "channel_order": "bgr"}
    sample = drawn(16, 24, 3)
    member = open_net(save_foreign(tmp_path / "a.onnx", form), {**stated, "activation": "logits"}, sample)
    again = save_foreign(tmp_path / "b.onnx", form)
    text = json.loads(member.contract.to_json())
    form.metadata = {"maskfuse.contract": json.dumps(text)}
    again = open_net(save_foreign(tmp_path / "b.onnx", form))
    assert again.contract == member.contract
    pixels, outs = drawn(3, 16, 24, 3), []
    for net in (member, again):
        out = np.empty((3, 2, 16 * 24), np.float32)
        net.run(net.prepare(pixels), out, (16, 24))
        outs.append(out)
    np.testing.assert_array_equal(*outs)
    assert np.abs(outs[0]).max() < 2 * GAIN
