"""Nets as other tools export them, each by one command, against labels that NumPy gives without running a net."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Result
from tests.helpers import reference
from tests.helpers.foreign import (
    LEVELS,
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

Engine = Callable[..., Result]
COUNT = 7


@dataclass
class Place:
    """A folder and the command line that predicts in it."""

    folder: Path
    engine: Engine

    def net(self, name: str, **form: object) -> Path:
        return save_foreign(self.folder / name, Form(**form))  # type: ignore[arg-type]

    def images(self, pixels: np.ndarray, name: str = "tiles.npy") -> Path:
        np.save(self.folder / name, pixels)
        return self.folder / name

    def run(self, nets: Sequence[Path], images: Path, *options: object, output: str = "masks.npy") -> Result:
        named = [word for net in nets for word in ("-m", net)]
        done = self.engine("ensemble", *named, "-i", images, "-o", self.folder / output, "--overwrite", *options)
        assert "Traceback" not in done.err
        return done

    def masks(self, nets: Sequence[Path], images: Path, *options: object) -> tuple[np.ndarray, str]:
        done = self.run(nets, images, *options)
        assert done.code == 0, done.err
        return np.load(self.folder / "masks.npy"), done.err

    def refusal(self, nets: Sequence[Path], images: Path, *options: object) -> str:
        done = self.run(nets, images, *options, output="none.npy")
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1
        assert not (self.folder / "none.npy").exists()
        return done.err


@pytest.fixture
def place(tmp_path: Path, engine: Engine) -> Place:
    return Place(tmp_path, engine)


# What needs no further word: name, form, channels of the images, what is said.
PLAIN = {
    "open": (Form(), ""),
    "batch1": (Form(batch=1, size=SIZE), "images run one by one"),
    "batch1, any size": (Form(batch=1), "images run one by one"),
    "batch3": (Form(batch=3, size=SIZE), "images run in groups of 3, the last one filled up"),
    "batch3, NHWC": (Form(batch=3, layout="NHWC", output_layout="NHWC"), "images run in groups of 3"),
    "batch9": (Form(batch=9), "images run in groups of 9"),
    "float16": (Form(takes="float16", gives="float16"), "input is float16"),
    "float64": (Form(takes="float64", gives="float64"), "output is float64"),
    "softmax": (Form(ending="softmax"), ""),
    "softmax, float16, batch2": (Form(ending="softmax", gives="float16", batch=2), "output is float16"),
    "auxiliary": (Form(auxiliary=True), "output out is read of aux, out"),
    "labels3": (Form(ending="labels3"), "labels (int64): it votes"),
    "labels4": (Form(ending="labels4"), "labels (int64): it votes"),
    "labels4, NHWC, int32": (Form(ending="labels4", output_layout="NHWC", gives="int32"), "labels (int32)"),
    "labels3, uint8, batch2": (Form(ending="labels3", gives="uint8", batch=2), "labels (uint8)"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_net_is_taken_as_it_is(place: Place, name: str) -> None:
    form, said = PLAIN[name]
    net, pixels = save_foreign(place.folder / "net.onnx", form), drawn(COUNT, *SIZE)
    images = place.images(pixels)
    classes = ("--classes", "3") if form.ending.startswith("labels") else ()
    for batch_size, workers in ((0, 0), (1, 2), (4, 1), (16, 2)):
        options = (*SCALED, *classes, "--batch-size", batch_size, "--workers", workers)
        masks, err = place.masks([net], images, *options)
        np.testing.assert_array_equal(masks, nearest_level(pixels))
        assert said in err
        assert ("net.onnx: " in err) == bool(said)


@pytest.mark.parametrize("runtime", ["openvino", "auto"])
@pytest.mark.parametrize(
    "form",
    [
        Form(batch=1, size=SIZE),
        Form(batch=3),
        Form(takes="float16", gives="float16"),
        Form(takes="uint8", raw=True),
        Form(constants={"gamma": (), "beta": (1, 3)}),
        Form(reduced=4),
        Form(ending="labels3"),
        Form(auxiliary=True, batch=2),
    ],
    ids=["batch1", "batch3", "float16", "uint8", "constants", "quarter", "labels", "auxiliary"],
)
def test_another_runtime_takes_the_same_nets(place: Place, form: Form, runtime: str) -> None:
    pytest.importorskip("openvino", reason="the second runtime is optional")
    net, pixels = save_foreign(place.folder / "net.onnx", form), smooth(COUNT)
    if form.constants:
        (place.folder / "net.toml").write_text("[constants]\ngamma = 0\nbeta = [0.5, -0.25, -0.25]\n")
    options = () if form.raw else SCALED
    classes = ("--classes", "3") if form.ending == "labels3" else ()
    masks, _ = place.masks([net], place.images(pixels), *options, *classes, "--runtime", runtime, "--batch-size", 4)
    want, sure = enlarged_labels(pixels, 4) if form.reduced == 4 else (nearest_level(pixels), np.True_)
    assert ((masks == want) | ~sure).all()


@pytest.mark.parametrize("ending", ["logit", "share"])
def test_one_map_is_two_classes(place: Place, ending: str) -> None:
    net, pixels = place.net("net.onnx", ending=ending), drawn(COUNT, *SIZE)
    images = place.images(pixels)
    options = (*SCALED, "--classes", "background,thing")
    if ending == "share":
        told = place.refusal([net], images, *options)
        assert "--activation logits or --activation probabilities" in told
        options += ("--activation", "probabilities")
    masks, err = place.masks([net], images, *options)
    np.testing.assert_array_equal(masks, above_middle(pixels))
    assert "one map: background or thing, decided at a probability of 0.5" in err
    for strategy in ("mean-prob", "vote", "borda", "max-confidence", "median-prob"):
        masks, _ = place.masks([net], images, *options, "--strategy", strategy, "--foreground-threshold", 0.2)
        np.testing.assert_array_equal(masks, above_middle(pixels, 0.2))


def test_one_name_alone_is_that_of_the_foreground(place: Place) -> None:
    net, pixels = place.net("net.onnx", ending="logit"), drawn(COUNT, *SIZE)
    _, err = place.masks([net], place.images(pixels), *SCALED, "--classes", "road")
    assert "background or road" in err


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_smaller_maps_are_enlarged_before_fusion(place: Place, factor: int) -> None:
    pixels = smooth(COUNT)
    nets = [place.net("net.onnx", reduced=factor)]
    want, sure = enlarged_labels(pixels, factor)
    assert sure.mean() > 0.99
    masks, err = place.masks(nets, place.images(pixels), *SCALED, "--batch-size", 3)
    assert ((masks == want) | ~sure).all()
    assert f"maps of 1/{factor} of the input's sides are resized (bilinear)" in err


def test_maps_are_resized_to_the_nearest_pixel_where_that_is_stated(place: Place) -> None:
    pixels = smooth(COUNT, block=4)
    net = place.net("net.onnx", reduced=4)
    (place.folder / "net.toml").write_text('maps_resize = "nearest"\n')
    masks, err = place.masks([net], place.images(pixels), *SCALED)
    np.testing.assert_array_equal(masks, nearest_level(pixels))
    assert "resized (nearest)" in err


def test_one_size_alone_asks_how_and_each_answer_works(place: Place) -> None:
    net, pixels = place.net("net.onnx", size=(16, 16)), smooth(COUNT, block=16)
    images = place.images(pixels)
    told = place.refusal([net], images, *SCALED)
    for word in ("images are 32x48", "takes 16x16 alone", "--fit resize", "--fit pad", "--tile 16x16"):
        assert word in told
    masks, err = place.masks([net], images, *SCALED, "--fit", "pad")
    np.testing.assert_array_equal(masks, nearest_level(pixels))
    assert "images are mirrored up to multiples of 16x16, run as windows" in err
    masks, err = place.masks([net], images, *SCALED, "--fit", "resize")
    assert "images are resized to 16x16 and maps back" in err
    # The net is linear, so resizing its input and its maps is resizing the image twice.
    twice = reference.bilinear(reference.bilinear(pixels, (16, 16)), SIZE)
    sure = np.abs(np.stack([twice - edge for edge in (70, 170)])).min(axis=0) > 0.01
    assert ((masks == nearest_level(twice)) | ~sure).all()
    folder = place.folder / "scenes.npy"
    np.save(folder, pixels[0])
    done = place.run([net], folder, *SCALED, "--tile", "16x16", output="scene.npy")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(place.folder / "scene.npy"), nearest_level(pixels[0]))


@pytest.mark.parametrize("size", [(30, 45), (7, 50), (16, 16)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_padding_to_one_size_gives_every_pixel_its_own_label(place: Place, size: tuple[int, int], layout: str) -> None:
    net, pixels = place.net("net.onnx", size=(16, 16), layout=layout, output_layout=layout, batch=2), drawn(3, *size)
    masks, _ = place.masks([net], place.images(pixels), *SCALED, "--fit", "pad")
    np.testing.assert_array_equal(masks, nearest_level(pixels))


@pytest.mark.parametrize("kind", ["float16", "half labels", "labels"])
def test_a_fixed_size_of_another_type_is_padded_too(place: Place, kind: str) -> None:
    form = {"float16": {"takes": "float16", "gives": "float16"}, "half labels": {"ending": "labels4", "reduced": 2}}
    net = place.net("net.onnx", size=(16, 16), **form.get(kind, {"ending": "labels3"}))
    pixels = smooth(3, (30, 46), block=2)
    classes = () if kind == "float16" else ("--classes", "3")
    masks, _ = place.masks([net], place.images(pixels), *SCALED, "--fit", "pad", *classes)
    np.testing.assert_array_equal(masks, nearest_level(pixels))


@pytest.mark.parametrize("sides", [(32, 48), (31, 33), (64, 32)])
def test_sides_are_mirrored_up_to_the_stride_and_cut_back(place: Place, sides: tuple[int, int]) -> None:
    net, pixels = place.net("net.onnx", divides=32), drawn(4, *sides)
    masks, err = place.masks([net], place.images(pixels), *SCALED)
    np.testing.assert_array_equal(masks, nearest_level(pixels))
    assert ("sides are mirrored up to multiples of 32 and cut back" in err) == (sides != (64, 32))


def test_sides_that_a_net_would_cut_are_mirrored_up_too(place: Place) -> None:
    """A net that halves three times and doubles three times takes any sides, and loses what eight does not divide."""
    pixels = smooth(4, (36, 50), block=8)
    net, images = place.net("net.onnx", shrinks=8), place.images(pixels)
    masks, err = place.masks([net], images, *SCALED)
    np.testing.assert_array_equal(masks[:, :32, :48], nearest_level(pixels)[:, :32, :48])
    assert masks.shape == pixels.shape
    assert "sides are mirrored up to multiples of 8 and cut back" in err
    own = place.net("own.onnx", shrinks=8)
    (place.folder / "own.toml").write_text("stride = 4\n")
    assert "maps must have the input's sides or a whole fraction of them" in place.refusal([own], images, *SCALED)


def test_a_stride_that_no_trial_meets_is_asked(place: Place) -> None:
    net, pixels = place.net("net.onnx", divides=48), drawn(4, 50, 50)
    images = place.images(pixels)
    told = place.refusal([net], images, *SCALED)
    assert "does not run on an image of 50x50, nor on 56x56, 64x64" in told
    assert "stride" in told
    (place.folder / "net.toml").write_text("stride = 48\n")
    masks, _ = place.masks([net], images, *SCALED)
    np.testing.assert_array_equal(masks, nearest_level(pixels))


def test_raw_bytes_need_no_scale_and_refuse_one(place: Place) -> None:
    net, pixels = place.net("net.onnx", takes="uint8", raw=True, layout="NHWC"), drawn(COUNT, *SIZE)
    images = place.images(pixels)
    masks, err = place.masks([net], images)
    np.testing.assert_array_equal(masks, nearest_level(pixels))
    assert "input is uint8" in err
    told = place.refusal([net], images, *SCALED)
    assert "takes raw pixels, so the net scales them itself: leave out --scale, --mean and --std" in told
    wide = place.images(pixels.astype(np.uint16), "wide.npy")
    assert "net.onnx: images hold uint16; the net takes raw uint8 pixels" in place.refusal([net], wide)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_order_of_the_channels_is_stated(place: Place, layout: str) -> None:
    pixels = drawn(COUNT, *SIZE, 3)
    net, images = place.net("net.onnx", channels=3, channel=2, layout=layout), place.images(pixels)
    masks, err = place.masks([net], images, *SCALED, "--channel-order", "bgr")
    np.testing.assert_array_equal(masks, nearest_level(pixels[..., 0]))
    assert "channels are turned from RGB to BGR" in err
    masks, _ = place.masks([net], images, *SCALED)
    np.testing.assert_array_equal(masks, nearest_level(pixels[..., 2]))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_bands_are_picked_in_order(place: Place, layout: str) -> None:
    pixels = drawn(3, *SIZE, 3)
    net, images = place.net("net.onnx", channels=2, channel=1, layout=layout), place.images(pixels)
    assert "pick the right ones with --bands 1,2" in place.refusal([net], images, *SCALED)
    masks, err = place.masks([net], images, *SCALED, "--bands", "3,1")
    np.testing.assert_array_equal(masks, nearest_level(pixels[..., 0]))
    assert "bands 3, 1 are taken" in err
    for bands, told in (
        ("4,1", "the images have 3 channels"),
        ("1,1", "bands"),
        ("0,1", "bands"),
        ("1", "bands: 1 of"),
    ):
        assert told in place.refusal([net], images, *SCALED, "--bands", bands)


def test_statistics_of_imagenet_without_a_scale_are_refused(place: Place) -> None:
    pixels = drawn(COUNT, *SIZE, 3)
    net, images = place.net("net.onnx", channels=3), place.images(pixels)
    imagenet = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    told = place.refusal([net], images, *imagenet)
    assert "--scale 1/255 or --normalize imagenet" in told
    want = nearest_level((pixels[..., 0] / 255 - 0.485) / 0.229 * 255)
    for options in ((*imagenet, *SCALED), ("--normalize", "imagenet")):
        masks, _ = place.masks([net], images, *options)
        np.testing.assert_array_equal(masks, want)
    floats = place.images((pixels / 255 - 0.5).astype(np.float32), "floats.npy")
    assert "so they are normalised already" in place.refusal([net], floats, "--normalize", "imagenet")


def test_labels_vote_beside_maps_and_nothing_else_takes_them(place: Place) -> None:
    pixels = drawn(COUNT, *SIZE)
    images, truth = place.images(pixels), place.images(nearest_level(pixels), "truth.npy")
    nets = [place.net("labels.onnx", ending="labels3"), place.net("maps.onnx")]
    for options in ((), ("--strategy", "vote"), ("--strategy", "staple"), ("--early-exit",)):
        masks, _ = place.masks(nets, images, *SCALED, *options)
        np.testing.assert_array_equal(masks, nearest_level(pixels))
    told = place.refusal(nets, images, *SCALED, "--strategy", "mean-prob")
    assert "labels outputs labels, which mean-prob cannot fuse: use --strategy vote or --strategy staple" in told
    assert "leave out --views" in place.refusal(nets, images, *SCALED, "--flips", "horizontal")
    scored = place.run(nets, images, *SCALED, "--labels", truth, "--json")
    assert scored.code == 0, scored.err
    rows = json.loads(scored.out)["scores"]
    assert {row["name"] for row in rows} == {"labels", "maps", "vote", "staple"}
    assert all(row["miou"]["all"] == 1 for row in rows)


@pytest.mark.parametrize("strategy", ["vote", "staple"])
def test_suppression_beside_labels_replaces_what_was_voted(place: Place, strategy: str) -> None:
    pixels = drawn(COUNT, *SIZE)
    images = place.images(pixels)
    nets = [place.net("labels.onnx", ending="labels3"), place.net("maps.onnx")]
    options = (*SCALED, "--strategy", strategy, "--suppress", "1")
    masks, _ = place.masks(nets, images, *options)
    truth = nearest_level(pixels)
    np.testing.assert_array_equal(masks[truth != 1], truth[truth != 1])
    assert set(np.unique(masks)) == {0, 2}
    if strategy == "vote":  # the member with maps decides where both vote for the suppressed class
        np.testing.assert_array_equal(masks, nearest_level(pixels, (0, 2)) * 2)
    assert "--vote-stage fused" in place.refusal(nets, images, *options, "--vote-stage", "members")
    told = place.refusal(nets[:1], images, *SCALED, "--classes", "3", "--suppress", "1")
    assert "labels alone hold no second choice for a suppressed class" in told
    masks, _ = place.masks(nets[:1], images, *SCALED, "--classes", "3", "--ignored-class", "1")
    np.testing.assert_array_equal(masks, truth)


def test_labels_beyond_the_classes_end_the_run_in_one_line(place: Place) -> None:
    pixels = drawn(COUNT, *SIZE)
    net, images = place.net("net.onnx", ending="labels3"), place.images(pixels)
    done = place.run([net], images, *SCALED, "--classes", "background,road", output="none.npy")
    assert done.code == 2
    said, told = done.err.splitlines()
    assert said == "net.onnx: labels (int64): it votes"
    assert "outputs label 2; its classes are 0 to 1" in told
    assert not (place.folder / "none.npy").exists()
    assert "add --classes" in place.refusal([net], images, *SCALED)


@pytest.mark.parametrize("gives", ["float32", "float16"])
def test_labels_that_are_cast_to_floats_are_asked_about(place: Place, gives: str) -> None:
    pixels = drawn(COUNT, *SIZE)
    net, images = place.net("net.onnx", ending="labels3", gives=gives, batch=2), place.images(pixels)
    told = place.refusal([net], images, *SCALED, "--classes", "3")
    assert "its one map holds whole numbers alone here, up to 2" in told
    (place.folder / "net.toml").write_text('kind = "labels"\n')
    masks, err = place.masks([net], images, *SCALED, "--classes", "3")
    np.testing.assert_array_equal(masks, nearest_level(pixels))
    assert f"labels ({gives}): it votes" in err
    shares = place.net("shares.onnx", ending="share")
    (place.folder / "shares.toml").write_text('kind = "labels"\n')
    done = place.run([shares], images, *SCALED, "--classes", "3", output="none.npy")
    assert done.code == 2
    assert "outputs float32 that are not whole numbers; stated are labels" in done.err


@pytest.mark.parametrize("command", ["compare", "select"])
def test_labels_are_compared_and_selected_as_votes(place: Place, command: str) -> None:
    pixels = drawn(COUNT, *SIZE)
    images, truth = place.images(pixels), place.images(nearest_level(pixels), "truth.npy")
    nets = [word for name in ("labels3", "logits") for word in ("-m", place.net(f"{name}.onnx", ending=name))]
    more = ("-o", place.folder / "made.toml") if command == "select" else ("--json",)
    done = place.engine(command, *nets, "-i", images, "--labels", truth, *SCALED, "--folds", 2, *more)
    assert done.code == 0, done.err
    assert "left out: mean-logit" in (done.err if command == "select" else done.out)


def test_one_output_a_file_is_named(place: Place) -> None:
    pixels = drawn(COUNT, *SIZE)
    nets = [place.net(f"{name}.onnx", auxiliary=True) for name in ("one", "two")]
    images = place.images(pixels)
    worst = np.abs(pixels[..., None] - LEVELS).argmax(-1)
    options = (*SCALED, "--weights", "1,3")
    masks, _ = place.masks(nets, images, *options, "--output-name", "two.onnx=aux")
    np.testing.assert_array_equal(masks, worst)
    masks, _ = place.masks(nets, images, *options, "--output-name", "aux", "--output-name", f"{nets[1]}=out")
    np.testing.assert_array_equal(masks, nearest_level(pixels))
    for names, told in (
        (("three=aux",), "three is not a member; members: one.onnx, two.onnx"),
        (("one=maps",), "it has no output 'maps'; there are: aux, out"),
        (("aux", "out"), "--output-name aux and out: one output is read"),
        (("one=aux", "one=out"), "--output-name one=aux and one=out: one output of one is read"),
    ):
        assert told in place.refusal(nets, images, *options, *[w for name in names for w in ("--output-name", name)])


def test_further_inputs_have_constant_values(place: Place) -> None:
    net, pixels = place.net("net.onnx", constants={"gamma": (), "beta": ("k", 3)}), drawn(COUNT, *SIZE)
    images = place.images(pixels)
    told = place.refusal([net], images, *SCALED)
    assert "its input gamma float32 () is no image: state its value in its TOML file" in told
    facts = place.folder / "net.toml"
    facts.write_text("[constants]\ngamma = 100.0\nbeta = [1, 2, 3]\n")
    masks, err = place.masks([net], images, *SCALED)
    assert (masks == 0).all()
    assert "constant inputs: gamma, beta" in err
    facts.write_text("[constants]\ngamma = 0\nbeta = 0\n")
    masks, _ = place.masks([net], images, *SCALED, "--batch-size", 2)
    np.testing.assert_array_equal(masks, nearest_level(pixels))
    for text, said in (
        ("gamma = 0\nbeta = [1, 2]", "beta = [1, 2] does not fill the input beta float32 (k, 3)"),
        ("gamma = 0\nbeta = 0\ndelta = 1", "it has no input 'delta'; there are pixels, gamma, beta"),
        ("gamma = 0\nbeta = 'x'", "constants"),
    ):
        facts.write_text(f"[constants]\n{text}\n")
        assert said in place.refusal([net], images, *SCALED)
