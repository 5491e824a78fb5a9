"""A foreign file that says what it is: opened without options it gives the same labels, whatever is adapted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tomli_w

from engine import Ensemble
from engine.errors import ContractError, EngineError, InputError, ModelError, OutputError
from engine.models.contract import METADATA_KEY
from engine.models.facts import Facts
from engine.models.opening import open_net
from exporters import adoption
from exporters.adoption import adopt
from exporters.precision import lower
from exporters.tiles import LabelledTiles
from tests.helpers.foreign_nets import CASES, GREY, Case, pixels_of, save_foreign
from tests.helpers.nets import save_graph


def stated(facts: dict) -> list[Facts]:
    return [Facts(f"--{name}", {name: value}) for name, value in facts.items()]


def refused(
    error: type[EngineError], tmp_path: Path, source: Path, facts: dict, *words: str, **options: object
) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error) as caught:
        adopt(source, tmp_path / "refused.onnx", stated(facts), **options)
    assert len(str(caught.value).splitlines()) == 1
    for word in words:
        assert word in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seen", [True, False])
def test_every_adaptation_survives(name: str, seen: bool, tmp_path: Path) -> None:
    case = CASES[name]
    source = save_foreign(tmp_path / "net.onnx", 3, **case.shape)
    images = pixels_of(case, case.sizes[0])
    done = adopt(source, tmp_path / "new" / "own.onnx", stated(case.facts), tiles=images if seen else None)
    first = open_net(source, case.facts, images[0])
    second = open_net(done.path)
    assert second.contract == done.contract
    assert len(second.session.raw.get_outputs()) == 1
    assert second.output_name == "maps"
    for size in case.sizes:
        several = pixels_of(case, size, count=5)
        outs = [np.empty((5, net.maps, size[0] * size[1]), np.float32) for net in (first, second)]
        for net, out in zip((first, second), outs, strict=True):
            net.run(net.prepare(several), out, size)
        np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize("name", list(CASES))
def test_every_adaptation_is_quantised(name: str, tmp_path: Path) -> None:
    """As adopted and by its TOML file; int8 is near the float labels, float16 nearer."""
    case = CASES[name]
    source = save_foreign(tmp_path / "net.onnx", 3, **case.shape)
    (tmp_path / "net.toml").write_text(tomli_w.dumps(case.facts))
    images = pixels_of(case, case.sizes[0], count=10)
    truth = Ensemble.open(source, suppress=(), strategy=case.strategy).predict(images)
    tiles = LabelledTiles(images, truth)
    own = adopt(source, tmp_path / "own.onnx").path
    for path, to, most in ((source, "int8", 0.3), (own, "int8", 0.3), (own, "fp16", 0.05)):
        done = lower(path, tmp_path / f"{path.stem}_{to}.onnx", tiles, to=to, max_loss=most)
        assert done.measured.before == 1.0
        kinds = {node.op_type for node in onnx.load(done.path).graph.node}
        assert ("QuantizeLinear" in kinds) == (to == "int8")
        got = Ensemble.open(done.path, suppress=(), strategy=case.strategy).predict(images)
        assert (got == truth).mean() > (0.8 if to == "int8" else 0.97)


def test_a_net_without_float32_layers_is_not_quantised(tmp_path: Path) -> None:
    """It computes in float64 throughout: what would be written is the file as it was."""
    make, double = onnx.helper.make_tensor_value_info, onnx.TensorProto.DOUBLE
    row = np.array([1.0, -2.0, 0.5]).reshape(1, 3, 1, 1)
    nodes = [
        onnx.helper.make_node("Mul", ["pixels", "slope"], ["sloped"]),
        onnx.helper.make_node("Add", ["sloped", "shift"], ["maps"]),
    ]
    source = save_graph(
        tmp_path / "net.onnx",
        nodes,
        [make("pixels", double, ["n", 1, "h", "w"])],
        [make("maps", double, ["n", 3, "h", "w"])],
        {"slope": row, "shift": row[:, ::-1].copy()},
    )
    own = adopt(source, tmp_path / "own.onnx", stated(GREY)).path
    images = pixels_of(Case({}))
    tiles = LabelledTiles(images, Ensemble.open(own).predict(images))
    for to in ("int8", "fp16"):
        with pytest.raises(ModelError, match=f"own.onnx: {to} finds no float32 layers"):
            lower(own, tmp_path / "out.onnx", tiles, to=to)
    assert not (tmp_path / "out.onnx").exists()


def test_other_metadata_and_the_producer_stay(tmp_path: Path) -> None:
    source = save_foreign(tmp_path / "net.onnx")
    model = onnx.load(source)
    model.producer_name, model.doc_string = "another tool", "how it was trained"
    onnx.helper.set_model_props(model, {"licence": "MIT", "run": "17"})
    onnx.save(model, source)
    out = adopt(source, tmp_path / "own.onnx", stated(GREY)).path
    held = onnx.load(out)
    assert (held.producer_name, held.doc_string) == ("another tool", "how it was trained")
    assert {item.key: item.value for item in held.metadata_props if item.key != METADATA_KEY} == {
        "licence": "MIT",
        "run": "17",
    }
    assert held.graph == model.graph


def test_weights_beside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They go into the new file, or where that is too large for protobuf into one file beside it."""
    source = tmp_path / "old" / "net.onnx"
    source.parent.mkdir()
    save_foreign(source, channels=64, classes=9)
    model = onnx.load(source)
    onnx.save(model, source, save_as_external_data=True, location="net.weights", size_threshold=100)
    facts = {"scale": 1 / 255, "channels": 64, "activation": "logits"}
    images = np.random.default_rng(1).integers(0, 256, (4, 12, 20, 64)).astype(np.uint8)
    expected = [adoption.logits_of(open_net(source, facts), images)]
    inside = adopt(source, tmp_path / "inside.onnx", stated(facts))
    monkeypatch.setattr(adoption, "MOST_BYTES", 2000)
    beside = adopt(source, tmp_path / "beside.onnx", stated(facts))
    assert inside.weights is None
    assert beside.weights is not None
    assert beside.weights.parent == tmp_path
    (source.parent / "net.weights").unlink()
    for path in (inside.path, beside.path):
        np.testing.assert_array_equal(adoption.logits_of(open_net(path), images), expected[0])
    # Adopted again with another fact, onto itself.
    again = adopt(beside.path, beside.path, stated({"ignored_class": 2}), overwrite=True)
    assert open_net(again.path).contract.ignored_class == 2
    np.testing.assert_array_equal(adoption.logits_of(open_net(again.path), images), expected[0])


def test_facts_come_from_a_file_beside_too(tmp_path: Path) -> None:
    source = save_foreign(tmp_path / "net.onnx", stride=8)
    (tmp_path / "net.toml").write_text('stride = 8\nclasses = ["a", "b", "c"]\narchitecture = "tiny"\n')
    done = adopt(source, tmp_path / "own.onnx", stated({"scale": 1 / 255, "activation": "logits"}))
    held = open_net(done.path).contract
    assert (held.stride, held.classes, held.architecture) == (8, ("a", "b", "c"), "tiny")
    assert (done.origins["stride"], done.origins["scale"]) == ("net.toml", "--scale")


def test_adopting_again_adds_and_never_contradicts(tmp_path: Path) -> None:
    source = save_foreign(tmp_path / "net.onnx")
    first = adopt(source, tmp_path / "first.onnx", stated({"scale": 1 / 255, "activation": "logits"}))
    assert first.contract.classes == ("class 0", "class 1", "class 2")
    more = {"classes": ["a", "b", "c"], "ignored_class": 1, "stride": 4}
    second = adopt(first.path, tmp_path / "second.onnx", stated(more))
    held = open_net(second.path).contract
    assert (held.classes, held.ignored_class, held.stride, held.scale) == (("a", "b", "c"), 1, 4, 1 / 255)
    for facts, words in (
        ({"scale": 1.0}, ("scale", "its contract says", "--scale says 1")),
        ({"classes": ["a", "b", "x"]}, ("classes[2]", "'c'", "'x'")),
        ({"ignored_class": 0}, ("ignored_class",)),
        ({"stride": 8}, ("stride",)),
    ):
        refused(ContractError, tmp_path, second.path, facts, "second.onnx", *words)


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_foreign(tmp_path / "net.onnx")
    fixed = save_foreign(tmp_path / "fixed.onnx", size=(8, 8))
    labels = save_foreign(tmp_path / "labels.onnx", head="argmax")
    (tmp_path / "text.onnx").write_text("no model")
    refused(ContractError, tmp_path, source, {}, "net.onnx", "scale", "normalize")
    refused(ContractError, tmp_path, labels, {"scale": 1.0}, "labels.onnx", "of how many classes")
    refused(ContractError, tmp_path, source, {**GREY, "classes": ["a", "b"]}, "3 maps")
    refused(ContractError, tmp_path, fixed, GREY, "fit", "8x8", tiles=pixels_of(Case({})))
    refused(ContractError, tmp_path, source, GREY, "the images have 3", tiles=pixels_of(Case({}, channels=3)))
    refused(InputError, tmp_path, tmp_path / "none.onnx", GREY, "none.onnx")
    refused(ModelError, tmp_path, tmp_path / "text.onnx", GREY, "text.onnx")
    with pytest.raises(OutputError, match="--overwrite"):
        adopt(source, fixed, stated(GREY))
    with pytest.raises(OutputError, match="--overwrite"):
        adopt(source, source, stated(GREY))


def test_a_file_that_gives_other_labels_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_foreign(tmp_path / "net.onnx")
    write = adoption.put_contract

    def wrong(model: onnx.ModelProto, contract: object) -> onnx.ModelProto:
        weight = next(item for item in model.graph.initializer if item.name == "w2")
        value = -onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(value, "w2"))
        return write(model, contract)

    monkeypatch.setattr(adoption, "put_contract", wrong)
    refused(ModelError, tmp_path, source, GREY, "labels change; nothing was written")


def test_any_runtime_still_takes_it(tmp_path: Path) -> None:
    """The graph is the same: plain ONNX Runtime gives the same output, bit by bit."""
    source = save_foreign(tmp_path / "net.onnx", auxiliary=True)
    out = adopt(source, tmp_path / "own.onnx", stated(CASES["two outputs"].facts)).path
    given = np.random.default_rng(0).random((2, 1, 12, 20), np.float32)
    maps = [onnxruntime.InferenceSession(path).run(["maps"], {"pixels": given})[0] for path in (source, out)]
    np.testing.assert_array_equal(*maps)
