"""Foreign members in a packed ensemble: every adaptation of the engine as nodes, the same labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tomli_w
from onnx import TensorProto

from engine import Ensemble
from engine.errors import InputError, ModelError, NotFiniteError, PlanError
from engine.models.adapt.labels import NOT_FINITE
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from exporters import pack as packing
from tests.helpers.foreign_nets import CASES, GREY, SIZE, THREE, Case, pixels_of, save_foreign


def plan_of(path: Path, *members: dict, **head: object) -> Path:
    path.write_text(tomli_w.dumps({**head, "members": list(members)}))
    return path


def labels_of(path: Path, images: np.ndarray) -> np.ndarray:
    """The labels of a packed file by ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    planes = images.transpose(0, 3, 1, 2).astype(np.uint8 if "uint8" in given.type else np.float32)
    step = given.shape[0] if isinstance(given.shape[0], int) else len(planes)
    parts = [session.run(["labels"], {"images": planes[at : at + step]})[0] for at in range(0, len(planes), step)]
    return np.concatenate(parts)


def equal_to_the_engine(plan: Path, out: Path, case: Case) -> onnx.ModelProto:
    done = packing.pack(plan, out, tiles=pixels_of(case, case.sizes[0]), grey_as_rgb=False)
    ensemble = open_ensemble(read_plan(plan), Options(), None)
    for size in case.sizes:
        images = pixels_of(case, size, count=6)
        expected = ensemble.predict(images)
        assert len(np.unique(expected)) > 1 or min(size) < 4
        assert (labels_of(out, images) != expected).sum() <= max(1, done.check.ties)
        np.testing.assert_array_equal(Ensemble.open(out).predict(images), labels_of(out, images))
    model = onnx.load(out)
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("name", CASES)
def test_every_adaptation_alone(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    save_foreign(tmp_path / "net.onnx", 3, **case.shape)
    plan = plan_of(tmp_path / "plan.toml", {"model": "net.onnx", "contract": case.facts}, strategy=case.strategy)
    model = equal_to_the_engine(plan, tmp_path / "whole.onnx", case)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("strategy", ["mean-logit", "vote"])
def test_members_of_all_kinds_together(strategy: str, tmp_path: Path) -> None:
    """Each is adapted in its own way; a suppressed class and a bias on top."""
    names = ["batch of 1", "float16", "stride", "uneven maps", "resized", "windows of half maps", "uint8", "constant"]
    members = []
    for seed, name in enumerate(names):
        save_foreign(tmp_path / f"{seed}.onnx", seed, **CASES[name].shape)
        members.append({"model": f"{seed}.onnx", "contract": CASES[name].facts, "weight": 1 + seed / 4})
    plan = plan_of(tmp_path / "plan.toml", *members, strategy=strategy, suppress=[1], bias=[0.0, 0.0, 0.1])
    case = Case({}, sizes=(SIZE, (9, 13), (31, 17)))
    model = equal_to_the_engine(plan, tmp_path / "whole.onnx", case)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


@pytest.mark.parametrize("strategy", ["mean-logit", "mean-prob", "vote"])
def test_class_maps(strategy: str, tmp_path: Path) -> None:
    """Two classes become one, one is left out, a binary net knows one class alone."""
    save_foreign(tmp_path / "own.onnx", 1, classes=3)
    save_foreign(tmp_path / "more.onnx", 2, classes=4)
    save_foreign(tmp_path / "rock.onnx", 3, classes=1)
    more = {**GREY, "classes": ["earth", "stone", "gravel", "sky"]}
    binary = {"scale": 1 / 255, "activation": "logits", "classes": ["background", "rock"]}
    plan = plan_of(
        tmp_path / "plan.toml",
        {"model": "own.onnx", "contract": GREY},
        {
            "model": "more.onnx",
            "contract": more,
            "map": {"earth": "soil", "stone": "rock", "gravel": "rock", "sky": ""},
        },
        {"model": "rock.onnx", "contract": binary, "map": {"background": ""}},
        strategy=strategy,
        classes=list(THREE),
    )
    equal_to_the_engine(plan, tmp_path / "whole.onnx", Case({}))


def save_counting(path: Path, batch: int) -> Path:
    """A net whose batch cannot be opened: the images are channels of one convolution in groups."""
    save_foreign(path, 5, batch=batch, size=SIZE)
    model = onnx.load(path)
    graph, height, width = model.graph, *SIZE
    for name, shape in (("together", [1, batch, height, width]), ("apart", [batch, 1, height, width])):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), name))
    scale = np.arange(1, batch + 1, dtype=np.float32).reshape(1, batch, 1, 1)
    graph.initializer.append(onnx.numpy_helper.from_array(scale, "each"))
    make = onnx.helper.make_node
    first = [
        make("Reshape", ["pixels", "together"], ["row"]),
        make("Mul", ["row", "each"], ["scaled"]),
        make("Reshape", ["scaled", "apart"], ["column"]),
    ]
    for node in graph.node:
        node.input[:] = ["column" if name == "pixels" else name for name in node.input]
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)
    return path


def test_a_batch_that_cannot_be_opened_stays(tmp_path: Path) -> None:
    save_counting(tmp_path / "two.onnx", 2)
    save_counting(tmp_path / "three.onnx", 3)
    save_foreign(tmp_path / "one.onnx", 1, batch=1)
    members = [{"model": f"{name}.onnx", "contract": GREY} for name in ("two", "one", "three")]
    plan = plan_of(tmp_path / "plan.toml", *members[:2])
    model = equal_to_the_engine(plan, tmp_path / "whole.onnx", Case({}, sizes=(SIZE,)))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    both = plan_of(tmp_path / "both.toml", *members)
    with pytest.raises(PlanError, match=r"two\.onnx takes batches of 2 alone, three\.onnx .* of 3 alone") as caught:
        packing.pack(both, tmp_path / "both.onnx")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "both.onnx").exists()


def test_an_image_that_a_member_fails_on(tmp_path: Path) -> None:
    """NaN would win or lose an argmax by its place; the file marks the image, the engine names it."""
    save_foreign(tmp_path / "good.onnx", 1)
    save_foreign(tmp_path / "bad.onnx", 2, failing=True)
    members = [{"model": f"{name}.onnx", "contract": GREY} for name in ("good", "bad")]
    images = pixels_of(Case({}), count=5)
    images[3] = 7
    for strategy in ("mean-logit", "mean-prob", "vote"):
        plan = plan_of(tmp_path / "plan.toml", *members, strategy=strategy, suppress=[0])
        out = packing.pack(plan, tmp_path / f"{strategy}.onnx", tiles=images).path
        got = labels_of(out, images)
        assert (got[3] == NOT_FINITE).all()
        good = [0, 1, 2, 4]
        expected = open_ensemble(read_plan(plan), Options(), None).predict(images[good])
        assert (got[good] != expected).sum() <= 1
        assert not (got == 0).any()
        with pytest.raises(NotFiniteError, match=rf"member {strategy} computes NaN or infinity for image .*3"):
            Ensemble.open(out).predict(images)


def test_labels_beyond_the_classes_are_marked(tmp_path: Path) -> None:
    """The net knows three classes, the plan says two."""
    save_foreign(tmp_path / "net.onnx", 3, head="argmax")
    facts = {"scale": 1 / 255, "classes": ["a", "b"]}
    plan = plan_of(tmp_path / "plan.toml", {"model": "net.onnx", "contract": facts}, strategy="vote")
    with pytest.raises(ModelError, match="outputs label 2; its classes are 0 to 1"):
        packing.pack(plan, tmp_path / "whole.onnx")


def test_members_of_different_channels(tmp_path: Path) -> None:
    save_foreign(tmp_path / "bands.onnx", 1, channels=3)
    save_foreign(tmp_path / "colour.onnx", 2, channels=3)
    bands = {"model": "bands.onnx", "contract": {**GREY, "bands": [4, 1, 3]}}
    plan = plan_of(tmp_path / "plan.toml", bands, {"model": "colour.onnx", "contract": GREY})
    with pytest.raises(InputError, match=r"bands\.onnx takes band 4, colour\.onnx images of 3 channels"):
        packing.pack(plan, tmp_path / "whole.onnx")


def test_images_of_many_bands(tmp_path: Path) -> None:
    """The pixels' comparison with the engine is pack's own; the packed file takes all bands."""
    save_foreign(tmp_path / "net.onnx", 1, channels=3)
    plan = plan_of(tmp_path / "plan.toml", {"model": "net.onnx", "contract": {**GREY, "bands": [4, 1, 3]}})
    for tiles, channels in ((None, 4), (pixels_of(Case({}, channels=5)), 5)):
        done = packing.pack(plan, tmp_path / "whole.onnx", tiles=tiles, overwrite=True)
        assert done.contract.channels == channels
        assert done.check.pixels > 0
