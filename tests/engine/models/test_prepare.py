"""Raw images to a graph's input: channels, size, scaling, axes and element type, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import InputError
from engine.errors import naming_options
from engine.models.contract import ModelContract
from engine.models.net import Net
from engine.models.prepare import input_size, prepare
from tests.helpers import reference

NAMES = ("a", "b")
SIDES = st.integers(1, 20)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[ModelContract, np.ndarray, str]:
    """A contract, images that fit it, and the element type of the input."""
    available = draw(st.integers(1, 64))
    bands = tuple(draw(st.lists(st.integers(1, available), unique=True, max_size=5))) if draw(st.booleans()) else ()
    grey = available == 1 and draw(st.booleans())
    channels = len(bands) or (3 if grey else available)
    kind = draw(st.sampled_from(("float32", "float64", "float16")))
    one_each = draw(st.booleans())
    count = channels if one_each else 1
    size = draw(st.none() | st.tuples(SIDES, SIDES))
    # A stride divides the one size that a net takes.
    strides = (
        st.integers(1, 9)
        if size is None
        else st.sampled_from([n for n in range(1, 10) if not any(s % n for s in size)])
    )
    contract = ModelContract(
        classes=NAMES,
        input_layout=draw(st.sampled_from(("NCHW", "NHWC"))),
        channels=channels,
        scale=draw(st.sampled_from((1.0, 1 / 255, 2.0))),
        mean=tuple(draw(st.floats(-1, 1, width=32)) for _ in range(count)),
        std=tuple(draw(st.floats(0.5, 2, width=32)) for _ in range(count)),
        size=size,
        fit=draw(st.sampled_from(("resize", "pad"))) if size else "",
        stride=draw(strides),
        bands=bands,
        channel_order=draw(st.sampled_from(("rgb", "bgr"))) if channels == 3 else "rgb",
        grey_as_rgb=grey and not bands,
    )
    shape = (draw(st.integers(1, 2)), draw(SIDES), draw(SIDES), available)
    pixels = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, shape).astype(np.uint8)
    return contract, pixels, kind


def twin(contract: ModelContract, pixels: np.ndarray) -> np.ndarray:
    """The same in float64, (batch, channels, height, width)."""
    picked = pixels[..., [band - 1 for band in contract.bands]] if contract.bands else pixels
    picked = picked[..., ::-1] if contract.channel_order == "bgr" else picked
    picked = picked[..., [0, 0, 0]] if contract.grey_as_rgb else picked
    height, width = picked.shape[1:3]
    if contract.size is None:
        sides = contract.stride, contract.stride
    else:
        sides = contract.size
    size = tuple(-(-side // step) * step for side, step in zip((height, width), sides, strict=True))
    scaled = (picked.astype(np.float64) * contract.scale - np.array(contract.mean)) / np.array(contract.std)
    planes = scaled.transpose(0, 3, 1, 2)
    if contract.fit == "resize" and contract.size:
        return reference.bilinear(planes, contract.size)
    return reference.mirror_padded(scaled, size).transpose(0, 3, 1, 2)


@given(jobs())
@settings(deadline=None)
def test_an_input_is_what_numpy_makes_of_it(job: tuple[ModelContract, np.ndarray, str]) -> None:
    contract, pixels, kind = job
    got = prepare(contract, kind, pixels)
    assert got.dtype == kind
    assert got.flags.c_contiguous
    planes = got if contract.input_layout == "NCHW" else got.transpose(0, 3, 1, 2)
    want = twin(contract, pixels)
    assert planes.shape == want.shape
    near = {"rtol": 2e-3, "atol": 0.6} if kind == "float16" else {"rtol": 1e-5, "atol": 1e-3}
    np.testing.assert_allclose(planes, want, **near)
    assert planes.shape[2:] == input_size(contract, pixels.shape[1:3])


@given(SIDES, SIDES, st.tuples(SIDES, SIDES))
@settings(deadline=None)
def test_raw_pixels_stay_whole_numbers(height: int, width: int, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, height, width, 1)).astype(np.uint8)
    contract = ModelContract(classes=NAMES, size=size, fit="resize")
    got = prepare(contract, "uint8", pixels)
    assert got.dtype == np.uint8
    want = reference.bilinear(pixels.transpose(0, 3, 1, 2), size).transpose(0, 2, 3, 1)
    assert np.abs(got - want).max() <= 0.5 + 1e-4


def test_nothing_is_copied_where_nothing_is_changed() -> None:
    pixels = np.zeros((2, 4, 6, 3), np.uint8)
    assert prepare(ModelContract(classes=NAMES, channels=3), "uint8", pixels) is pixels
    planar = prepare(ModelContract(classes=NAMES, channels=1, input_layout="NCHW"), "uint8", pixels[..., :1].copy())
    assert planar.shape == (2, 1, 4, 6)


def test_bits_are_pixels_and_other_types_are_refused() -> None:
    contract = ModelContract(classes=NAMES)
    bits = np.array([[[[True], [False]]]])
    np.testing.assert_array_equal(prepare(contract, "uint8", bits), bits)
    for kind in ("uint16", "int8", "float32", "int64"):
        with pytest.raises(InputError, match=f"images hold {kind}; the net takes raw uint8 pixels: convert them"):
            prepare(contract, "uint8", np.zeros((1, 2, 2, 1), kind))


def test_what_float16_cannot_hold_becomes_infinite_without_a_warning() -> None:
    got = prepare(ModelContract(classes=NAMES), "float16", np.full((1, 2, 2, 1), 70_000, np.uint32))
    assert np.isinf(got).all()


def test_one_size_alone_names_the_three_ways_in_the_callers_words() -> None:
    contract = ModelContract(classes=NAMES, size=(16, 24))
    with pytest.raises(InputError, match=r'images are 30x40, it takes 16x24 alone: add fit="resize" .* fit="pad" '):
        input_size(contract, (30, 40))
    with naming_options(), pytest.raises(InputError, match=r"--fit resize .*--fit pad .*--tile 16x24"):
        input_size(contract, (30, 40))


def test_nets_share_an_input_just_where_it_is_the_same() -> None:
    def key(kind: str = "float32", **fields: object) -> tuple[object, ...]:
        contract = ModelContract(**{"classes": NAMES, "channels": 3, **fields})  # type: ignore[arg-type]
        return Net("n", None, contract, None, "out", "", kind).input_key  # type: ignore[arg-type]

    other = [
        {"scale": 0.5},
        {"mean": (0.5,)},
        {"std": (0.5,)},
        {"input_layout": "NCHW"},
        {"channels": 4},
        {"bands": (3, 2, 1)},
        {"channel_order": "bgr"},
        {"grey_as_rgb": True},
        {"size": (8, 8), "fit": "pad"},
        {"size": (8, 8), "fit": "resize"},
        {"stride": 8},
        {"kind": "float16"},
    ]
    made = [key(), *(key(**fields) for fields in other)]  # type: ignore[arg-type]
    assert len(set(made)) == len(made)
    for same in ({"classes": ("x", "y", "z")}, {"ignored_class": 1}, {"output_layout": "NHWC"}, {"version": "1"}):
        assert key(**same) == key()  # type: ignore[arg-type]
