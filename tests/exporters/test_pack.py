"""A packed ensemble: the engine's labels, out of plain ONNX Runtime."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine import Ensemble
from engine.errors import ContractError, EngineError, InputError, ModelError, OutputError, PlanError
from engine.fusion.evidence import DOUBTS
from engine.graph.fusion import STRATEGIES
from engine.graph.nodes import live_nodes
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from exporters import pack as packing
from exporters.parity import load_tiles
from exporters.self_check import _tied
from tests.helpers import reference
from tests.helpers.nets import save_graph, save_member, save_net, save_specialists

SIZE = (8, 16)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (40, *SIZE)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Members whose inner names clash: two nets, five specialists, an NHWC net of probabilities of another scaling."""
    found = tmp_path_factory.mktemp("members")
    save_member(found / "a.onnx", 1)
    save_member(found / "b.onnx", 2)
    save_specialists(found / "five")
    save_member(
        found / "turned.onnx", 3, input_layout="NHWC", output_layout="NHWC", end="softmax",
        promised={"scale": 1 / 127.5, "mean": (1.0,), "std": (0.5,)},
    )  # fmt: skip
    return found


def plan_of(path: Path, *members: str, head: str = "") -> Path:
    tables = "".join(f"[[members]]\n{member}\n" for member in members)
    path.write_text(f"{head}\n{tables}")
    return path


FOUR = ('model = "a.onnx"', 'model = "b.onnx"\nweight = 2', 'model = "five"', 'model = "turned.onnx"')


def outputs_of(path: Path, images: np.ndarray, names: list[str] | None = None) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(names or ["labels"], {"images": images.astype(np.float32)[:, None]})


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "decoding",
    ["", "suppress = []", "suppress = [0, 2]\nbias = [0, 0.1, 0, -0.1, 0.05]", 'vote_stage = "fused"\nsuppress = [1]'],
)
def test_labels_are_the_engines(strategy, decoding, folder, images, tmp_path):
    plan = plan_of(folder / "plan.toml", *FOUR, head=f'strategy = "{strategy}"\n{decoding}')
    done = packing.pack(plan, tmp_path / "whole.onnx", tiles=images[..., None])
    expected = open_ensemble(read_plan(plan), Options(), None).predict(images)
    (got,) = outputs_of(done.path, images)
    assert got.dtype == np.uint8
    assert (got != expected).sum() <= done.check.ties
    assert done.check.ties <= 2
    # 11 random tiles are always among them.
    assert (done.check.tiles, done.check.pixels) == (51, 51 * 128)
    # The file in the engine: the same once more.
    np.testing.assert_array_equal(Ensemble.open(done.path).predict(images), got)


def mars_tiles() -> Path | None:
    """Real tiles, where the machine has them."""
    named = os.environ.get("MASKFUSE_MARS")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data" / "mars"
    found = folder / "mars_for_students.npz"
    return found if found.is_file() else None


@pytest.mark.skipif(mars_tiles() is None, reason="needs real tiles: set MASKFUSE_MARS to their folder")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_real_tiles(strategy, folder, tmp_path):
    plan = plan_of(folder / "plan.toml", *FOUR, head=f'strategy = "{strategy}"')
    tiles = load_tiles(mars_tiles(), limit=24)
    done = packing.pack(plan, tmp_path / "whole.onnx", tiles=tiles)
    expected = open_ensemble(read_plan(plan), Options(), None).predict(tiles)
    assert (outputs_of(done.path, tiles[..., 0])[0] != expected).sum() <= done.check.ties <= 2


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (0.1, 0.2, 0.3, 0.3), (1, 2, 3, 0)])
@pytest.mark.parametrize("stage", ["members", "fused"])
def test_votes_tie_by_the_stated_rule(weights, stage, images, tmp_path):
    members = [save_member(tmp_path / f"{seed}.onnx", seed) for seed in range(4)]
    tables = [f'model = "{path.name}"\nweight = {weight}' for path, weight in zip(members, weights, strict=True)]
    plan = plan_of(tmp_path / "plan.toml", *tables, head=f'strategy = "vote"\nsuppress = [0]\nvote_stage = "{stage}"')
    done = packing.pack(plan, tmp_path / "whole.onnx")
    scaled = (images.astype(np.float32) * np.float32(1 / 255))[:, None]
    logits = np.stack([onnxruntime.InferenceSession(path).run(None, {"image": scaled})[0] for path in members])
    logits = logits.reshape(4, len(images), 5, -1)
    allowed = np.array([False, True, True, True, True])
    expected, tied = reference.vote_labels(logits, weights, allowed, stage)
    assert np.sum(tied) > 10
    (got,) = outputs_of(done.path, images)
    assert (got.reshape(expected.shape) != expected).sum() <= 1


def test_an_exact_tie_goes_to_the_lowest_class(tmp_path):
    """Three nets with permuted constant logits: every class has one vote and the same mean probability."""
    for shift in range(3):
        values = np.roll([3.0, 1.0, 0.0], shift).astype(np.float32).reshape(1, 3, 1, 1)
        make = helper.make_tensor_value_info
        nodes = [
            helper.make_node("Mul", ["image", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "values"], ["out"]),
        ]
        save_graph(
            tmp_path / f"{shift}.onnx", nodes, [make("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [make("out", TensorProto.FLOAT, ["N", 3, "H", "W"])], {"zero": np.zeros(1, np.float32), "values": values},
            packing.ModelContract(classes=("a", "b", "c"), input_layout="NCHW"),
        )  # fmt: skip
    tables = [f'model = "{shift}.onnx"' for shift in (1, 2, 0)]
    images = np.ones((2, *SIZE), np.uint8)
    for suppress, label in (("[]", 0), ("[0]", 1)):
        plan = plan_of(tmp_path / "plan.toml", *tables, head=f'strategy = "vote"\nsuppress = {suppress}')
        done = packing.pack(plan, tmp_path / "tie.onnx", overwrite=True)
        assert (outputs_of(done.path, images)[0] == label).all()
        assert done.check.ties == 0


@pytest.mark.parametrize("measure", DOUBTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scores_and_doubt_are_the_engines(strategy, measure, folder, images, tmp_path):
    plan = plan_of(folder / "plan.toml", *FOUR, head=f'strategy = "{strategy}"\nsuppress = [0, 3]')
    done = packing.pack(plan, tmp_path / "whole.onnx", scores=True, doubt=measure)
    labels, scores, doubt = outputs_of(done.path, images, ["labels", "scores", "doubt"])
    assert (scores.dtype, doubt.dtype) == (np.float32, np.float32)
    assert scores.shape == (40, 5, *SIZE)
    assert (scores[:, [0, 3]] == 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(scores.argmax(axis=1), labels)
    ensemble = open_ensemble(read_plan(plan), Options(), None)
    masks, expected, shown = ensemble.predict(images, scores="float32", doubt=measure, doubt_type="float32")
    same = masks == labels
    assert same.mean() > 0.999
    # But where rounding decides which of two equally sure members counts.
    assert (np.abs(scores - expected).max(axis=1)[same] < 1e-5).mean() > 0.999
    assert (np.abs(doubt - shown)[same] < 1e-5).mean() > 0.999


def test_the_contract_says_what_is_inside(folder, tmp_path, read_stamp):
    plan = plan_of(folder / "plan.toml", *FOUR, head='strategy = "mean-prob"\nsuppress = [0]')
    done = packing.pack(plan, tmp_path / "whole.onnx")
    held = read_stamp(done.path)
    assert held == done.contract
    assert (held.kind, held.ignored_class, held.channels, held.size, held.scale) == ("packed", 0, 1, None, 1.0)
    assert (held.notes["strategy"], held.notes["suppressed"]) == ("mean-prob", "0")
    assert held.notes["weights"] == "0.2, 0.4, 0.2, 0.2"
    assert held.notes["members"] == "a, b, set, turned"
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(float)", ["batch", 1, "height", "width"])
    assert (given.name, given.type, given.shape) == ("labels", "tensor(uint8)", ["batch", "height", "width"])
    onnx.checker.check_model(onnx.load(done.path))


def test_a_suppressed_specialist_is_left_out(folder, tmp_path):
    sizes = []
    for suppress in ("[]", "[0]"):
        plan = plan_of(folder / "plan.toml", 'model = "five"', head=f"suppress = {suppress}")
        done = packing.pack(plan, tmp_path / "five.onnx", overwrite=True)
        weights = [item.name for item in onnx.load(done.path).graph.initializer]
        sizes.append(sum("k0_w1" in name for name in weights))
    assert sizes == [1, 0]


@pytest.mark.parametrize("suppress", ["[]", "[0]", "[2]"])
def test_one_file_of_five_packs_like_the_five(suppress, folder, images, tmp_path):
    nodes, weights, maps = [], {}, []
    for file in sorted((folder / "five").glob("*.onnx")):
        model = onnx.compose.add_prefix(onnx.load(file), f"{file.stem}_", rename_inputs=False)
        nodes += model.graph.node
        weights |= {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        maps.append(f"{file.stem}_out")
    make = helper.make_tensor_value_info
    nodes.append(helper.make_node("Concat", maps, ["out"], axis=1))
    contract = packing.ModelContract(
        classes=("background", "soil", "bedrock", "sand", "big rock"), kind="specialists", input_layout="NCHW",
        scale=1 / 255, ignored_class=0, bias=(0.0, 1.0, -1.0, 0.5, 0.0), temperature=(1.0, 2.0, 0.5, 1.0, 3.0),
    )  # fmt: skip
    ends = [make(name, TensorProto.FLOAT, ["N", count, "H", "W"]) for name, count in (("image", 1), ("out", 5))]
    save_graph(tmp_path / "joined.onnx", nodes, ends[:1], ends[1:], weights, contract)
    shutil.copy(folder / "a.onnx", tmp_path)
    head = f'strategy = "mean-prob"\nsuppress = {suppress}'
    plan = plan_of(tmp_path / "plan.toml", 'model = "joined.onnx"', 'model = "a.onnx"', head=head)
    done = packing.pack(plan, tmp_path / "whole.onnx")
    expected = open_ensemble(read_plan(plan), Options(), None).predict(images)
    assert (outputs_of(done.path, images)[0] != expected).sum() <= done.check.ties
    left = sum("_w1" in item.name for item in onnx.load(done.path).graph.initializer)
    assert left == 6 - (suppress != "[]")


def test_older_operator_sets_and_formats_join(folder, images, tmp_path):
    """A file as tools wrote them years ago: opset 9, IR version 3, its weights among the inputs."""
    old = onnx.load(folder / "b.onnx")
    old.ir_version = 3
    del old.opset_import[:]
    old.opset_import.append(helper.make_opsetid("", 9))
    for item in old.graph.initializer:
        old.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, item.dims))
    onnx.save(old, tmp_path / "old.onnx")
    shutil.copy(folder / "a.onnx", tmp_path)
    plan = plan_of(tmp_path / "plan.toml", 'model = "a.onnx"', 'model = "old.onnx"')
    done = packing.pack(plan, tmp_path / "whole.onnx")
    model = onnx.load(done.path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert len(model.graph.input) == 1
    both = Ensemble.open([folder / "a.onnx", folder / "b.onnx"]).predict(images)
    assert (outputs_of(done.path, images)[0] != both).mean() < 1e-3


def test_a_foreign_member_by_what_the_plan_states(folder, images, tmp_path):
    save_net(tmp_path / "foreign.onnx", seed=9)
    stated = (
        'model = "foreign.onnx"\n[members.contract]\nscale = 0.00392156862745098\nclasses = ["a", "b", "c", "d", "e"]'
    )
    plan = plan_of(tmp_path / "plan.toml", stated)
    done = packing.pack(plan, tmp_path / "whole.onnx", tiles=images[..., None])
    assert done.contract.classes == tuple("abcde")
    # Without images it is looked at on noise.
    assert packing.pack(plan, tmp_path / "other.onnx").contract.classes == tuple("abcde")


def test_grey_images_for_colour_members(folder, images, tmp_path):
    save_member(tmp_path / "colour.onnx", 4, channels=3, promised={"mean": (0.1, 0.2, 0.3)})
    shutil.copy(folder / "a.onnx", tmp_path)
    plan = plan_of(tmp_path / "plan.toml", 'model = "a.onnx"', 'model = "colour.onnx"')
    with pytest.raises(InputError, match="--grey-as-rgb"):
        packing.pack(plan, tmp_path / "whole.onnx")
    done = packing.pack(plan, tmp_path / "whole.onnx", grey_as_rgb=True)
    expected = open_ensemble(read_plan(plan), Options(grey_as_rgb=True), None).predict(images)
    assert (outputs_of(done.path, images)[0] != expected).sum() <= done.check.ties


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("[unknown]\nthreshold = 0.5", "unknown cannot be packed"),
        ('strategy = "staple"', "'staple' cannot be packed; those that can are mean-logit"),
        ("min_region = 9", "min_region cannot be packed"),
        ("[cleanup.soil]\nthreshold = 0.5", "cleanup cannot be packed"),
        ('views = ["d4", "shift:1:1"]', "view shift:1:1 cannot be packed"),
        ('views = ["scale:1.5"]', "view scale:1.5 cannot be packed"),
    ],
)
def test_what_a_graph_cannot_hold(head, words, folder, tmp_path):
    refused(PlanError, plan_of(folder / "plan.toml", *FOUR, head=head), tmp_path, words)


@pytest.mark.parametrize("more", ["prior = [1, 3, 1, 0.5, 2]", "threshold = 0.3", 'flips = "both"'])
def test_prior_threshold_and_flips_are_packed(more, folder, images, tmp_path):
    for strategy in STRATEGIES:
        plan = plan_of(folder / "plan.toml", *FOUR, head=f'strategy = "{strategy}"\n{more}')
        done = packing.pack(plan, tmp_path / "whole.onnx", overwrite=True)
        expected = open_ensemble(read_plan(plan), Options(), None).predict(images)
        assert (outputs_of(done.path, images)[0] != expected).sum() <= max(2, done.check.ties)
        note = next(key for key in ("prior", "threshold", "flips") if more.startswith(key))
        assert done.contract.notes[note]


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
@pytest.mark.parametrize("views", ["d4", "rotate90", "transverse"])
def test_views_that_turn_are_packed(views, mean, folder, images, tmp_path):
    head = f'strategy = "mean-prob"\nsuppress = [0]\nviews = ["{views}"]\nview_mean = "{mean}"'
    plan = plan_of(folder / "plan.toml", *FOUR, head=head)
    done = packing.pack(plan, tmp_path / "whole.onnx")
    assert done.contract.notes["views"] == views
    for shown in (images, images[:, :8, :8], images.transpose(0, 2, 1).copy()):
        expected = open_ensemble(read_plan(plan), Options(), None).predict(shown)
        np.testing.assert_array_equal(outputs_of(done.path, shown)[0], expected)
    plain = packing.pack(plan_of(folder / "plain.toml", *FOUR), tmp_path / "plain.onnx")
    assert (outputs_of(plain.path, images)[0] != outputs_of(done.path, images)[0]).any()


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
@pytest.mark.parametrize("views", ["none", "both"])
def test_folds_are_packed_as_one_member(views, mean, folder, images, tmp_path):
    head = f'strategy = "mean-prob"\nsuppress = [0]\nviews = ["{views}"]\nview_mean = "{mean}"'
    members = 'folds = ["a.onnx", "b.onnx", "turned.onnx"]', 'model = "five"'
    plan = plan_of(folder / "folds.toml", *members, head=head)
    done = packing.pack(plan, tmp_path / "whole.onnx")
    assert done.members[1] == "set"
    assert len(done.members) == 2
    expected = open_ensemble(read_plan(plan), Options(), None).predict(images)
    np.testing.assert_array_equal(outputs_of(done.path, images)[0], expected)
    single = plan_of(folder / "single.toml", *members[1:], *(f'model = "{n}.onnx"' for n in ("a", "b", "turned")))
    assert (open_ensemble(read_plan(single), Options(), None).predict(images) != expected).any()


@pytest.mark.parametrize("side", [12, 20])
def test_a_net_in_two_orientations_keeps_its_weights_once(side, tmp_path):
    """Of square images both orientations are one batch; of others the net runs twice."""
    draw = np.random.default_rng(0)
    weights = {
        "w1": draw.normal(0, 0.3, (16, 1, 5, 5)).astype(np.float32),
        "w2": draw.normal(0, 0.3, (5, 16, 5, 5)).astype(np.float32),
    }
    make = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["out"], pads=[2, 2, 2, 2]),
    ]
    contract = packing.ModelContract(
        classes=("background", "soil", "bedrock", "sand", "big rock"), input_layout="NCHW", size=(12, side), fit="pad"
    )
    ends = [make(name, TensorProto.FLOAT, ["N", count, "H", "W"]) for name, count in (("image", 1), ("out", 5))]
    save_graph(tmp_path / "net.onnx", nodes, ends[:1], ends[1:], weights, contract)
    done = packing.pack(
        plan_of(tmp_path / "d4.toml", 'model = "net.onnx"', head='views = ["d4"]'), tmp_path / "d4.onnx"
    )
    held = onnx.load(done.path).graph
    stored = [item for item in held.initializer if item.ByteSize() > 1024]
    assert len(stored) == 2
    images = draw.integers(0, 240, (3, 12, side)).astype(np.uint8)
    expected = open_ensemble(read_plan(tmp_path / "d4.toml"), Options(), None).predict(images)
    np.testing.assert_array_equal(outputs_of(done.path, images)[0], expected)


def test_uint8_images_in(folder, images, tmp_path):
    plan = plan_of(folder / "plan.toml", *FOUR)
    done = packing.pack(plan, tmp_path / "whole.onnx", uint8=True)
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == "tensor(uint8)"
    (got,) = session.run(["labels"], {"images": images[:, None]})
    expected = open_ensemble(read_plan(plan), Options(), None).predict(images)
    assert (got != expected).sum() <= done.check.ties
    np.testing.assert_array_equal(Ensemble.open(done.path).predict(images), got)


def refused(error: type[EngineError], plan: Path, tmp_path: Path, *words: str, **options: object) -> None:
    out = tmp_path / "out" / "whole.onnx"
    with pytest.raises(error) as caught:
        packing.pack(plan, out, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_members_that_disagree(folder, tmp_path):
    save_member(tmp_path / "three.onnx", 1, classes=("x", "y", "z"))
    shutil.copy(folder / "a.onnx", tmp_path)
    plan = plan_of(tmp_path / "plan.toml", 'model = "a.onnx"', 'model = "three.onnx"')
    refused(ContractError, plan, tmp_path, "plan.toml", "disagree on the classes")


def test_bad_plans_and_tiles(folder, images, tmp_path, monkeypatch):
    plan = plan_of(folder / "plan.toml", *FOUR)
    refused(PlanError, tmp_path / "none.toml", tmp_path, "none.toml")
    refused(InputError, plan_of(folder / "gone.toml", 'model = "gone.onnx"'), tmp_path, "gone.onnx")
    refused(InputError, plan, tmp_path, "3 channels", tiles=np.zeros((2, *SIZE, 3), np.uint8))
    (tmp_path / "text.onnx").write_text("no model")
    refused(ModelError, plan_of(tmp_path / "text.toml", 'model = "text.onnx"'), tmp_path, "text.onnx")
    sized = save_member(tmp_path / "sized.onnx", 1, size=SIZE, promised={"size": SIZE})
    sized_plan = plan_of(tmp_path / "sized.toml", f'model = "{sized.name}"')
    refused(InputError, sized_plan, tmp_path, "sized.toml", "8x16", tiles=np.zeros((2, 16, 16, 1), np.uint8))
    whole = packing.pack(plan, tmp_path / "whole.onnx").path
    refused(PlanError, plan_of(tmp_path / "twice.toml", f'model = "{whole.name}"'), tmp_path, "already packed")
    with pytest.raises(OutputError, match="--overwrite"):
        packing.pack(plan, whole)
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(PlanError, plan, tmp_path, "pip install 'maskfuse[export]'")


def test_a_graph_that_gives_other_labels_is_not_written(folder, tmp_path, monkeypatch):
    plan = plan_of(folder / "plan.toml", *FOUR)
    build = packing.build

    def wrong(*given: object) -> onnx.ModelProto:
        model = build(*given)
        weight = next(item for item in model.graph.initializer if item.name.endswith("w2"))
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.2), weight.name))
        return model

    monkeypatch.setattr(packing, "build", wrong)
    refused(ModelError, plan, tmp_path, "another label than the engine", "nothing was written")


def test_members_too_large_for_one_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.graph.whole.MOST_BYTES", 1000)
    refused(ModelError, plan_of(folder / "plan.toml", *FOUR), tmp_path, "at most 1,000", "pack fewer")


def test_a_half_precision_member(folder, images, tmp_path):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load(folder / "b.onnx"), keep_io_types=True)
    onnx.save(half, tmp_path / "half.onnx")
    shutil.copy(folder / "a.onnx", tmp_path)
    plan = plan_of(tmp_path / "plan.toml", 'model = "a.onnx"', 'model = "half.onnx"', head='strategy = "mean-prob"')
    done = packing.pack(plan, tmp_path / "whole.onnx")
    expected = open_ensemble(read_plan(plan), Options(), None).predict(images)
    assert (outputs_of(done.path, images)[0] != expected).sum() <= done.check.ties


def test_only_true_ties_are_excused(folder):
    logits = np.zeros((4, 5), np.float32)
    logits[:, 1], logits[:, 2], logits[:, 3] = 1.0, 1.0 + 1e-7, 0.999
    for strategy in STRATEGIES:
        ensemble = Ensemble.open(
            [folder / name for name in ("a.onnx", "b.onnx", "five", "turned.onnx")], strategy=strategy
        )
        assert _tied(logits, ensemble, 1, 2)
        assert not _tied(logits, ensemble, 1, 3)
        assert not _tied(logits, ensemble, 1, 0)


def test_dead_nodes_go_and_inner_graphs_hold_on():
    make = helper.make_node
    branch = helper.make_graph(
        [make("Identity", ["kept"], ["y"])], "b", [], [helper.make_tensor_value_info("y", 1, None)]
    )
    nodes = [
        make("Relu", ["x"], ["kept"]),
        make("Neg", ["x"], ["dead"]),
        make("Abs", ["dead"], ["dead too"]),
        make("If", ["flag"], ["out"], then_branch=branch, else_branch=branch),
    ]
    assert [node.op_type for node in live_nodes(nodes, ["out"])] == ["Relu", "If"]
    assert [node.op_type for node in live_nodes(nodes[::-1], ["out"])] == ["Relu", "If"]
    assert [node.op_type for node in live_nodes(nodes[::-1], ["dead too", "out"])] == ["Neg", "Abs", "Relu", "If"]
