"""Members of a fixed batch: run on larger batches where that computes the same, else as they are; labels stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engine.inference.ensemble import Ensemble
from engine.inference.fixed_batches import WORTH_OPENING
from engine.inference.tuning import tune
from engine.models.open_session import batch_of, open_batch_session
from engine.models.opening import open_net
from engine.models.runtimes import RuntimeOptions
from engine.sources.base import from_array
from tests.helpers.foreign_nets import CASES, pixels_of, save_foreign

OPTIONS = RuntimeOptions("cpu")
FIXED = ("batch of 1", "batch of 3", "batch in a reshape", "windows of half maps")


def mixing(path: Path, batch: int) -> Path:
    """A net whose maps depend on the other images of its batch."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["image", "mean"], ["less"]),
        helper.make_node("Neg", ["less"], ["more"]),
        helper.make_node("Concat", ["less", "more", "image"], ["maps"], axis=1),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, maps, "h", "w"])
        for name, maps in (("image", 1), ("maps", 3))
    ]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("name", FIXED)
def test_labels_and_logits_stay(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = save_foreign(tmp_path / "a.onnx", **case.shape)
    images = pixels_of(case, count=WORTH_OPENING + 3)
    ensemble = Ensemble.open(path, sample=images[0], strategy=case.strategy, **case.facts)
    net = ensemble.members[0].nets[0]
    group = batch_of(net)
    assert group == case.shape["batch"]
    expected = net.session.run(net.output_name, net.windows(net.prepare(images[:7])))
    few = ensemble.predict(images[:7], batch_size=1)
    (told,) = tune(ensemble, from_array(images), OPTIONS, batch_size=16, workers=1).told
    assert told == f"a declares batches of {group}: run on larger ones, with equal outputs"
    net = ensemble.members[0].nets[0]
    assert batch_of(net) == 0
    found = net.session.run(net.output_name, net.windows(net.prepare(images[:7])))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(ensemble.predict(images[:7]), few)


def test_a_few_images_are_not_worth_it(tmp_path: Path) -> None:
    case = CASES["batch of 1"]
    images = pixels_of(case, count=WORTH_OPENING - 1)
    path = save_foreign(tmp_path / "a.onnx", **case.shape)
    ensemble = Ensemble.open(path, sample=images[0], **case.facts)
    assert not tune(ensemble, from_array(images), OPTIONS, batch_size=4, workers=1).told
    assert batch_of(ensemble.members[0].nets[0]) == 1


def test_a_net_that_mixes_the_images_of_a_batch_stays(tmp_path: Path) -> None:
    case = CASES["batch of 3"]
    images = pixels_of(case, count=6)
    net = open_net(mixing(tmp_path / "a.onnx", 3), case.facts, images[0])
    assert batch_of(net) == 3
    assert open_batch_session(net, images) is None


def test_a_net_that_is_nan_on_the_first_images_stays(tmp_path: Path) -> None:
    case = CASES["batch of 1"]
    path = save_foreign(tmp_path / "a.onnx", failing=True, **case.shape)
    images = pixels_of(case, count=4)
    net = open_net(path, case.facts, images[0])
    assert open_batch_session(net, np.zeros_like(images)) is None
    assert open_batch_session(net, np.maximum(images, 60)) is not None


def test_weights_beside_the_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["batch in a reshape"]
    path = save_foreign(tmp_path / "whole.onnx", **case.shape)
    beside = tmp_path / "models" / "a.onnx"
    beside.parent.mkdir()
    onnx.save(onnx.load(path), beside, save_as_external_data=True, location="a.data", size_threshold=100)
    monkeypatch.chdir(tmp_path)
    images = pixels_of(case, count=5)
    net = open_net(beside, case.facts, images[0])
    session = open_batch_session(net, images)
    assert session is not None
    fed = net.prepare(images)
    np.testing.assert_allclose(
        session.run(net.output_name, fed), net.session.run(net.output_name, fed), rtol=1e-5, atol=1e-5
    )
