"""Views: names, geometry against NumPy's, the mean against a loop over onnxruntime, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from engine import Ensemble
from engine.errors import PlanError
from engine.models.contract import ModelContract
from engine.models.views import D4, PLAIN, SETS, View, named_views, told_views
from engine.sources.base import Batch
from tests.helpers import reference
from tests.helpers.nets import FIVE, save_graph, save_member
from tests.helpers.properties import examples

IMAGES = np.random.default_rng(2).integers(0, 240, (3, 9, 12)).astype(np.uint8)
MIXED = ["horizontal", "rotate90", "transverse", "shift:2:-3", "shift:-1:0", "scale:1.5", "scale:0.7"]


def run_of(path: Path):  # type: ignore[no-untyped-def]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": (images.astype(np.float32) * np.float32(1 / 255))[:, None]})[0]


def logits_of(ensemble: Ensemble, images: np.ndarray) -> np.ndarray:
    found = ensemble.logits(Batch(0, [str(at) for at in range(len(images))], images[..., None]))[0]
    return found.reshape(*found.shape[:3], *images.shape[1:])


def test_names_are_read_and_told() -> None:
    assert named_views("") == named_views("none") == named_views([]) == named_views("plain") == (PLAIN,)
    for name, views in SETS.items():
        assert named_views(name) == named_views([name]) == views
        assert told_views(views) == name
    assert len(set(named_views("d4"))) == 8
    mixed = named_views(MIXED)
    assert named_views(MIXED[::-1] + MIXED) == mixed == named_views(told_views(mixed))
    assert [view.name for view in mixed[1:4]] == ["horizontal", "rotate90", "transverse"]
    assert named_views("rotate180,vertical,horizontal") == SETS["both"]
    for wrong in ("diagonal", "shift:1", "shift:1:99999", "scale:9", "scale:0.1", "scale:nan", "rotate45"):
        with pytest.raises(PlanError, match="view"):
            named_views(wrong)


@examples(30)
@given(arrays(np.uint8, (2, 4, 7)), st.sampled_from(sorted(D4)))
def test_symmetries_are_numpys_and_come_back(images: np.ndarray, name: str) -> None:
    view = D4[name]
    there, _ = reference.TURNS[name]
    shown = view.of(images[..., None])
    np.testing.assert_array_equal(shown[..., 0], there(images))
    assert shown.shape[1:3] == view.sides((4, 7))
    total = np.zeros((2, 1, 4, 7), np.float32)
    view.add_to(total, np.ascontiguousarray(shown.transpose(0, 3, 1, 2), np.float32))
    np.testing.assert_array_equal(total[:, 0], images)


@examples(30)
@given(arrays(np.uint8, (1, 5, 6)), st.integers(-4, 4), st.integers(-5, 5))
def test_shifts_come_back_where_the_pixel_is_shown(images: np.ndarray, down: int, right: int) -> None:
    view = View(shift=(down, right))
    total, counts = np.zeros((1, 1, 5, 6), np.float32), np.zeros((5, 6), np.float32)
    view.add_to(total, np.ascontiguousarray(view.of(images[..., None]).transpose(0, 3, 1, 2), np.float32))
    view.count_on(counts)
    np.testing.assert_array_equal(total[0, 0], images[0] * counts)
    assert counts.sum() == (5 - abs(down)) * (6 - abs(right))


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
@pytest.mark.parametrize("names", [["d4"], ["transpose"], MIXED], ids=str)
def test_the_mean_is_that_of_a_loop_over_onnxruntime(names: list[str], mean: str, tmp_path: Path) -> None:
    paths = [save_member(tmp_path / f"{seed}.onnx", seed) for seed in range(2)]
    ensemble = Ensemble.open(paths, views=names, view_mean=mean, suppress=())
    singles = list(reference.TURNS) if names == ["d4"] else ["plain", *names]
    images = IMAGES.astype(np.float32)  # whole numbers would be rounded where views are resized
    want = [reference.viewed_logits(run_of(path), images, singles, mean) for path in paths]
    got = logits_of(ensemble, images)
    order = [paths.index(ensemble.members[index].path) for index in ensemble.fusion_order]
    np.testing.assert_allclose(got, np.stack([want[at] for at in order]), atol=2e-4)
    masks = np.mean(want, axis=0).argmax(axis=1)
    assert (ensemble.predict(images) == masks).mean() > 0.995


def equivariant(path: Path) -> Path:
    """A net of one convolution whose kernel has all symmetries of the square."""
    draw = np.random.default_rng(0)
    kernel = draw.normal(0, 1, (5, 1, 3, 3))
    turned = [np.rot90(kernel, turn, (2, 3)) for turn in range(4)]
    kernel = sum([*turned, *(one[..., ::-1] for one in turned)]) / 8
    make = helper.make_tensor_value_info
    save_graph(
        path, [helper.make_node("Conv", ["image", "w"], ["out"], pads=[1, 1, 1, 1])],
        [make("image", TensorProto.FLOAT, ["N", 1, "H", "W"])], [make("out", TensorProto.FLOAT, ["N", 5, "H", "W"])],
        {"w": kernel.astype(np.float32)}, ModelContract(classes=FIVE, input_layout="NCHW", scale=1 / 255),
    )  # fmt: skip
    return path


def test_an_equivariant_net_gains_nothing(tmp_path: Path) -> None:
    path = equivariant(tmp_path / "net.onnx")
    plain, seen = logits_of(Ensemble.open(path), IMAGES), logits_of(Ensemble.open(path, views="d4"), IMAGES)
    np.testing.assert_allclose(seen, plain, atol=1e-5)


def test_labels_turn_with_the_image(tmp_path: Path) -> None:
    ensemble = Ensemble.open(save_member(tmp_path / "a.onnx", 0), views="d4")
    masks = ensemble.predict(IMAGES)
    for there, _ in reference.TURNS.values():
        assert (ensemble.predict(np.ascontiguousarray(there(IMAGES))) == there(masks)).mean() > 0.995


def test_a_net_of_one_size_is_refused_by_name_or_adapted(tmp_path: Path) -> None:
    path = save_member(tmp_path / "net.onnx", 1, size=(9, 12), promised={"size": (9, 12)})
    with pytest.raises(PlanError, match=r'view rotate90 makes 12x9 of 9x12, and net\.onnx takes 9x12 alone.*"pad"'):
        Ensemble.open(path, views=["rotate90"]).predict(IMAGES)
    with pytest.raises(PlanError, match="view shift:9:0 shows nothing of images of 9x12"):
        Ensemble.open(path, views="shift:9:0").predict(IMAGES)
    free = save_member(tmp_path / "free.onnx", 1)
    got = logits_of(Ensemble.open(path, views=["vertical", "shift:1:2"]), IMAGES)
    np.testing.assert_array_equal(got, logits_of(Ensemble.open(free, views=["shift:1:2", "vertical"]), IMAGES))
    padded = Ensemble.open(path, views="transpose", fit="pad").predict(IMAGES)
    assert padded.shape == IMAGES.shape


def test_what_members_cannot_be_viewed_in_is_refused(tmp_path: Path) -> None:
    path = save_member(tmp_path / "net.onnx", 1)
    with pytest.raises(PlanError, match="view mean 'votes'; allowed are logits and probabilities"):
        Ensemble.open(path, views="d4", view_mean="votes")
    with pytest.raises(PlanError, match="flips are views too"):
        Ensemble.open(path, views="d4", flips="both")
    with pytest.raises(PlanError, match="none, horizontal, vertical, both"):
        Ensemble.open(path, flips="diagonal")


def test_a_net_that_is_infinite_for_one_view_is_named(tmp_path: Path) -> None:
    """Its probabilities would be finite: minus infinity is a probability of 0."""
    make = helper.make_tensor_value_info
    nodes = [helper.make_node("Log", ["image"], ["low"]), helper.make_node("Concat", ["low", "image"], ["out"], axis=1)]
    save_graph(
        tmp_path / "net.onnx", nodes, [make("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        [make("out", TensorProto.FLOAT, ["N", 2, "H", "W"])], {},
        ModelContract(classes=("a", "b"), input_layout="NCHW", scale=1.0),
    )  # fmt: skip
    from engine.errors import NotFiniteError

    with pytest.raises(NotFiniteError, match="member net"):
        Ensemble.open(tmp_path / "net.onnx", views="d4", view_mean="probabilities").predict(0 * IMAGES)
