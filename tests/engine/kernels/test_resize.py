"""The bilinear resize against matrices in float64, PyTorch and the reference evaluator of ONNX."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.kernels.resize import axis_weights
from engine.models.adapt.size import resize_into, resized
from tests.helpers import reference

SIDES = st.integers(1, 40)
SIZES = st.tuples(SIDES, SIDES)
NAMED = [
    ((1, 1), (1, 1)),
    ((1, 1), (7, 5)),
    ((7, 5), (1, 1)),
    ((1, 9), (4, 3)),
    ((8, 12), (32, 48)),
    ((33, 5), (8, 40)),
]


def drawn(size: tuple[int, int], planes: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 10, (2, planes, *size)).astype(np.float32)


@given(SIZES, SIZES, st.integers(0, 2**31))
@example((1, 1), (1, 1), 0)
@example((1, 40), (40, 1), 1)
@example((40, 1), (1, 40), 2)
@settings(deadline=None)
def test_any_size_up_and_down_is_the_product_with_two_matrices(
    source: tuple[int, int], target: tuple[int, int], seed: int
) -> None:
    maps = drawn(source, seed=seed)
    np.testing.assert_allclose(resized(maps, target), reference.bilinear(maps, target), rtol=1e-5, atol=1e-4)


@given(SIZES, SIZES, st.data())
@settings(deadline=None)
def test_a_cut_region_is_the_upper_left_part_of_the_whole(
    source: tuple[int, int], target: tuple[int, int], data: st.DataObject
) -> None:
    cut = (data.draw(st.integers(1, target[0])), data.draw(st.integers(1, target[1])))
    maps = drawn(source)
    np.testing.assert_array_equal(resized(maps, target, cut), resized(maps, target)[..., : cut[0], : cut[1]])


@given(SIZES, SIZES)
@settings(deadline=None)
def test_a_resize_stays_within_its_source_and_keeps_what_is_constant(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    maps = drawn(source)
    got = resized(maps, target)
    slack = 1e-5 * np.abs(maps).max()
    assert got.min() >= maps.min() - slack
    assert got.max() <= maps.max() + slack
    flat = np.full_like(maps, 0.7)
    np.testing.assert_array_equal(resized(flat, target), np.full(got.shape, 0.7, np.float32))


@given(SIZES)
@settings(deadline=None)
def test_equal_sizes_change_no_bit(size: tuple[int, int]) -> None:
    maps = drawn(size)
    np.testing.assert_array_equal(resized(maps, size), maps)


def test_the_extremes_of_float32_stay_finite() -> None:
    maps = np.array([[-1e30, -1e30], [3e38, -1e30]], np.float32)
    assert np.isfinite(resized(maps, (7, 9))).all()


def test_what_is_not_finite_does_not_get_lost() -> None:
    maps = drawn((4, 4))
    maps[0, 0, 2, 2] = np.nan
    maps[1, 1, 0, 0] = np.inf
    with np.errstate(invalid="ignore"):  # NumPy's own warning, with the JIT off.
        got = resized(maps, (16, 16))
    assert np.isnan(got[0, 0]).any()
    assert not np.isfinite(got[1, 1, 0, 0])
    assert np.isfinite(got[0, 1]).all()
    assert np.isfinite(got[1, 0]).all()


def test_the_result_goes_where_it_is_asked_for() -> None:
    maps, out = drawn((4, 6)), np.full((2, 3, 10, 9), np.nan, np.float32)
    resize_into(out, maps, (16, 24))
    np.testing.assert_array_equal(out, resized(maps, (16, 24))[..., :10, :9])


@given(st.integers(1, 200), st.integers(1, 200))
def test_weights_lie_inside_the_axis(source: int, target: int) -> None:
    first, weight = axis_weights(source, target, target)
    assert first.min() >= 0
    assert first.max() <= source - 1
    assert (np.diff(first) >= 0).all()
    assert (weight >= 0).all()
    assert (weight <= 1).all()
    assert not weight[first == source - 1].any()


@pytest.mark.parametrize(("source", "target"), NAMED)
def test_it_is_what_pytorch_computes(source: tuple[int, int], target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    maps = drawn(source)
    want = torch.nn.functional.interpolate(torch.from_numpy(maps), target, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resized(maps, target), want.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("source", "target"), NAMED)
def test_it_is_the_half_pixel_resize_of_onnx(source: tuple[int, int], target: tuple[int, int]) -> None:
    onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
    from onnx.reference import ReferenceEvaluator

    helper, kind = onnx.helper, onnx.TensorProto
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel"
    )
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", kind.FLOAT, None), helper.make_tensor_value_info("sizes", kind.INT64, [4])],
        [helper.make_tensor_value_info("y", kind.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    maps = drawn(source, planes=1)[:1]
    (want,) = ReferenceEvaluator(model).run(None, {"x": maps, "sizes": np.array([1, 1, *target], np.int64)})
    np.testing.assert_allclose(resized(maps, target), want, rtol=1e-4, atol=1e-4)
