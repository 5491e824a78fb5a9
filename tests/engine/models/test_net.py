"""A file with the maps of all specialists, and a packed ensemble as input of the engine."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engine import Ensemble
from engine.errors import ContractError, ModelError, NotFiniteError, PlanError
from engine.models.contract import ModelContract
from engine.models.opening import open_net
from engine.runs.predict import run
from engine.sources.base import from_array
from tests.helpers.foreign import Form, drawn, save_foreign
from tests.helpers.nets import FIVE, save_graph, save_member, save_specialists

PACKED = ModelContract(classes=FIVE, kind="packed", input_layout="NCHW", ignored_class=0)
SET = {"kind": "specialists"}


def save_packed(path, factor=1 / 51, metadata=PACKED, dtype=TensorProto.UINT8, rank=3, name="labels"):
    """A file that labels a grey value by its size, 0..254 into five classes, after other outputs."""
    nodes = [
        helper.make_node("Mul", ["image", "factor"], ["scores"]),
        helper.make_node("Squeeze", ["scores", "axis"], ["plane"]) if rank == 3 else
        helper.make_node("Identity", ["scores"], ["plane"]),
        helper.make_node("Cast", ["plane"], [name], to=dtype),
    ]  # fmt: skip
    shape = ["N", "H", "W"] if rank == 3 else ["N", 1, "H", "W"]
    return save_graph(
        path,
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 1, "H", "W"]),
            helper.make_tensor_value_info(name, dtype, shape),
        ],
        {"factor": np.array(factor, np.float32), "axis": np.array([1], np.int64)},
        metadata,
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return save_packed(tmp_path_factory.mktemp("packed") / "whole.onnx")


def join_set(folder, path, bias=0.0, temperature=1.0, **promised):
    """Write one file with the maps of the five nets in a folder."""
    nodes, weights, maps = [], {}, []
    for index, file in enumerate(sorted(folder.glob("*.onnx"))):
        model = onnx.compose.add_prefix(onnx.load(file), f"n{index}_", rename_inputs=False)
        nodes += model.graph.node
        weights |= {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
        maps.append(f"n{index}_out")
    nodes.append(helper.make_node("Concat", maps, ["out"], axis=1))
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, "H", "W"]) for n, c in (("image", 1), ("out", 5))
    ]
    contract = ModelContract(
        classes=FIVE, kind="specialists", input_layout="NCHW", scale=1 / 255, ignored_class=0, bias=bias,
        temperature=temperature, **promised,
    )  # fmt: skip
    return save_graph(path, nodes, ends[:1], ends[1:], weights, contract)


@pytest.fixture(scope="module")
def singles(tmp_path_factory):
    return save_specialists(tmp_path_factory.mktemp("set") / "five")


@pytest.mark.parametrize("strategy", ["mean-logit", "mean-prob", "vote"])
@pytest.mark.parametrize("suppress", [(), (0,), (1, 3)])
def test_one_file_counts_as_the_five(world, singles, tmp_path, strategy, suppress):
    joined = join_set(singles, tmp_path / "five.onnx")
    member = world.models / "a.onnx"
    apart = Ensemble.open([singles, member], strategy=strategy, suppress=suppress)
    whole = Ensemble.open([joined, member], strategy=strategy, suppress=suppress)
    assert len(whole.members) == len(apart.members) == 2
    # Members are summed in the order of their checksums, which differ: the last bit of a score may.
    assert (whole.predict(world.images) == apart.predict(world.images)).mean() > 0.998


def test_each_class_has_its_own_calibration(world, singles, tmp_path):
    bias, temperature = (0.0, 1.0, -2.0, 0.5, 3.0), (1.0, 2.0, 0.5, 4.0, 1.0)
    plain = open_net(join_set(singles, tmp_path / "plain.onnx"))
    bent = open_net(join_set(singles, tmp_path / "bent.onnx", bias, temperature))
    pixels = world.images[:2, :, :, None]
    odds, got = np.empty((2, 5, 128), np.float32), np.empty((2, 5, 128), np.float32)
    plain.run(plain.prepare(pixels), odds, (8, 16))
    bent.run(bent.prepare(pixels), got, (8, 16))
    want = (odds + np.array(bias)[:, None]) / np.array(temperature)[:, None]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_list_of_calibrations_survives_json():
    contract = ModelContract(classes=FIVE, kind="specialists", bias=(0.0, 1.0, 2.0, 3.0, 4.0), temperature=2.0)
    again = ModelContract.from_json(contract.to_json())
    assert again == contract
    assert again.calibration == (contract.bias, (2.0,) * 5)
    assert ModelContract(classes=FIVE, kind="specialists").calibration is None
    assert ModelContract(classes=FIVE, bias=3.0).calibration is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bias": (1.0, 2.0)}, "2 values for 5 classes"),
        ({"temperature": (1.0, 1.0, 0.0, 1.0, 1.0)}, "temperature"),
        ({"bias": (1.0, float("nan"), 1.0, 1.0, 1.0)}, "bias"),
        ({"bias": (0.0,) * 5, "kind": "multiclass"}, "takes a number"),
        ({"class_id": 2}, "class_id"),
    ],
)
def test_impossible_calibrations(fields, words):
    with pytest.raises(ContractError, match=words):
        ModelContract(**{"classes": FIVE, "kind": "specialists", **fields})


@pytest.mark.parametrize("bad", ["text", ["a"], {"a": 1}, None, True])
def test_a_calibration_of_another_type(bad):
    text = json.dumps({"schema": 1, "classes": list(FIVE), "kind": "specialists", "bias": bad})
    with pytest.raises(ContractError, match="bias"):
        ModelContract.from_json(text)


def test_labels_come_out_as_they_are(world, packed):
    ensemble = Ensemble.open(packed)
    assert ensemble.classes == FIVE
    np.testing.assert_array_equal(
        ensemble.predict(world.images, 3, 2), (world.images / np.float32(51)).astype(np.uint8)
    )
    # The ignored class was not suppressed when the file was packed, so it is not now.
    assert 0 in ensemble.predict(world.images)


def test_a_packed_file_is_scored_as_one_member(world, packed):
    ensemble = Ensemble.open(packed)
    variants = ensemble.every_variant()
    assert variants == [ensemble.variant]
    outcome = run(ensemble, from_array(world.images), None, from_array(world.labels, "labels"), variants)
    truth, got = world.labels, ensemble.predict(world.images)
    counted = truth != 0
    union = [((truth == c) | (got == c))[counted].sum() for c in range(5)]
    hits = [((truth == c) & (got == c))[counted].sum() for c in range(5)]
    want = np.mean([h / u for h, u in zip(hits, union, strict=True) if u])
    assert outcome.scores[ensemble.variant].mean_iou("keras-ignore") == pytest.approx(want)


def test_the_command_takes_a_packed_file(engine, world, packed, tmp_path):
    common = ("ensemble", "-m", packed, "-i", world.images_file, "-o", tmp_path / "masks.npz")
    done = engine(*common, "--labels", world.labels_file, "--json", "--preview", tmp_path / "p.png")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["strategy"] == "packed"
    assert [row["name"] for row in told["scores"]] == ["whole"]
    with np.load(tmp_path / "masks.npz") as masks:
        np.testing.assert_array_equal(masks[masks.files[0]], Ensemble.open(packed).predict(world.images))
    assert (tmp_path / "p.png").stat().st_size > 0


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "vote"},
        {"suppress": (0,)},
        {"suppress": ()},
        {"weights": [1.0]},
        {"weights": np.ones((1, 5))},
        {"bias": (0.0, 0.0, 0.0, 0.0, 1.0)},
        {"flips": "both"},
        {"threshold": 0.5},
    ],
)
def test_what_is_built_in_cannot_be_stated_again(packed, options):
    with pytest.raises(PlanError, match="packed ensemble: strategy, weights"):
        Ensemble.open(packed, **options)


def test_small_regions_can_still_go(world, packed):
    assert Ensemble.open(packed, min_region=4).predict(world.images).shape == world.images.shape


def test_a_packed_file_goes_alone(engine, world, packed, tmp_path):
    done = engine("ensemble", "-m", packed, "-m", world.models, "-i", world.images_file, "-o", tmp_path / "m.csv")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "is a packed ensemble, 4 models are named; it goes alone" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": TensorProto.INT32}, "int32"),
        ({"rank": 4}, "rank 4"),
        ({"name": "other"}, "no output 'labels'"),
    ],
)
def test_a_packed_file_that_is_none(tmp_path, options, words):
    with pytest.raises(ContractError, match=words):
        open_net(save_packed(tmp_path / "bad.onnx", **options))


def test_labels_outside_the_classes(world, tmp_path):
    ensemble = Ensemble.open(save_packed(tmp_path / "wild.onnx", factor=1.0))
    with pytest.raises(ModelError, match="its classes are 0 to 4"):
        ensemble.predict(world.images)


def test_inspect_shows_both_kinds(engine, packed, singles, tmp_path):
    done = engine("inspect", packed, join_set(singles, tmp_path / "five.onnx"), "--json")
    assert [row["kind"] for row in json.loads(done.out)] == ["packed", "specialists"]
    save_member(tmp_path / "one.onnx")
    assert engine("inspect", packed, tmp_path / "one.onnx").code == 0


def test_a_packed_file_marks_what_it_cannot_predict(tmp_path):
    """Its label 255 is no class: the engine names the image, and other labels beyond the classes stay an error."""
    packed = Ensemble.open(save_packed(tmp_path / "whole.onnx", factor=1.0))
    images = np.full((4, 8, 16), 2, np.uint8)
    assert (packed.predict(images) == 2).all()
    images[1, 3, 4] = 255
    with pytest.raises(NotFiniteError, match="member whole computes NaN or infinity for image 1:"):
        packed.predict(images)
    images[1, 3, 4] = 9
    with pytest.raises(ModelError, match="outputs label 9; its classes are 0 to 4"):
        packed.predict(images)


def test_images_that_the_stride_does_not_divide_are_mirrored_and_cut(tmp_path):
    path = save_member(tmp_path / "any.onnx", promised={"stride": 8})
    images = np.random.default_rng(3).integers(0, 256, (2, 16, 36), dtype=np.uint8)
    whole = np.pad(images, ((0, 0), (0, 0), (0, 4)), mode="reflect")
    assert open_net(path, sample=images[0][..., None]).adapted == (
        "sides are mirrored up to multiples of 8 and cut back",
    )
    got = Ensemble.open(path, suppress=()).predict(images)
    np.testing.assert_array_equal(got, Ensemble.open(path, suppress=()).predict(whole)[:, :, :36])


def test_maps_that_do_not_fit_the_input_are_not_resized(world, tmp_path):
    """Images of another size than the net was looked at on: its maps may fit no more."""
    form = Form(
        shrinks=8, metadata={"maskfuse.contract": ModelContract(("a", "b", "c"), input_layout="NCHW").to_json()}
    )
    ensemble = Ensemble.open(save_foreign(tmp_path / "net.onnx", form))
    assert ensemble.predict(drawn(1, 16, 24)).shape == (1, 16, 24)
    with pytest.raises(ModelError, match="outputs maps of 16x24 for an input of 17x25; they must have its sides"):
        ensemble.predict(drawn(1, 17, 25))
