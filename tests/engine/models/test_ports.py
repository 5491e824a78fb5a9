"""What a graph declares: the input that takes the image, the output that is read, the values of the rest."""

from __future__ import annotations

import numpy as np
import pytest

from engine import ContractError
from engine.errors import naming_options
from engine.models.contract import ModelContract
from engine.models.ports import Port, Ports, check_promises

IMAGE = Port("pixels", "float32", ("n", 3, "h", "w"))
MAPS = Port("scores", "float32", ("n", 5, "h", "w"))
WEIGHT = Port("weight", "float32", ())


def ports(*outputs: Port, inputs: tuple[Port, ...] = (IMAGE,)) -> Ports:
    return Ports(inputs, outputs or (MAPS,))


@pytest.mark.parametrize("kind", ["float32", "float16", "float64", "uint8"])
def test_one_input_of_rank_four_is_the_image(kind: str) -> None:
    image = Port("x", kind, (1, 3, None, "w"))
    assert ports(inputs=(image,)).image() is image


def test_further_inputs_need_values() -> None:
    both = ports(inputs=(WEIGHT, IMAGE))
    with pytest.raises(ContractError, match=r"its input weight float32 \(\) is no image.*constants = \{ weight = 0.5"):
        both.image()
    assert both.image(["weight"]) is IMAGE
    twin = Port("before", "float32", ("n", 3, "h", "w"))
    two = ports(inputs=(IMAGE, twin))
    with pytest.raises(ContractError, match=r"it takes 2 inputs, pixels float32 .*, before float32"):
        two.image()
    assert two.image(["before"]) is IMAGE


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ((), "it takes no input"),
        ((Port("x", "float32", ("n", 3)),), "rank 2"),
        ((Port("x", "int32", ("n", 3, "h", "w")),), "it takes int32; float32, float16, float64, uint8 are possible"),
        ((Port("x", "seq(tensor(float))", ()),), "rank 0"),
        ((Port("x", "float32", ("n", 3)), WEIGHT), "it takes 2 inputs"),
    ],
)
def test_what_takes_no_image_is_refused(inputs: tuple[Port, ...], told: str) -> None:
    with pytest.raises(ContractError, match=told):
        ports(inputs=inputs).image()


@pytest.mark.parametrize(
    ("value", "port", "want"),
    [
        (2, Port("c", "float32", ()), np.float32(2)),
        (2, Port("c", "int64", (3,)), np.array([2, 2, 2])),
        ([1, 2, 3, 4], Port("c", "float16", (2, 2)), np.array([[1, 2], [3, 4]], np.float16)),
        ([5], Port("c", "float32", (None, "k")), np.array([[5]], np.float32)),
        ([1, 2], Port("c", "uint8", (3, 2)), np.array([[1, 2]] * 3, np.uint8)),
        (1, Port("c", "bool", (1,)), np.array([True])),
    ],
)
def test_constants_fill_their_inputs(value: object, port: Port, want: np.ndarray) -> None:
    (filled,) = ports(inputs=(IMAGE, port)).filled({"c": value}).values()
    np.testing.assert_array_equal(filled, want)
    assert filled.dtype == port.kind
    assert filled.shape == np.shape(want)
    assert filled.flags.c_contiguous
    assert filled.flags.writeable


@pytest.mark.parametrize(
    ("value", "port"),
    [
        ([1, 2], Port("c", "float32", (3,))),
        ([1, 2], Port("c", "float32", ())),
        (300, Port("c", "uint8", ())),
        (-1, Port("c", "uint8", (2,))),
        (0.5, Port("c", "int64", ())),
        (1, Port("c", "seq(tensor(float))", ())),
        (1, Port("c", "tensor(string)", ())),
        (1e300, Port("c", "float32", ())),
    ],
)
def test_constants_that_do_not_fit_are_refused(value: object, port: Port) -> None:
    with pytest.raises(ContractError, match=r"constants: c = .* does not fill the input c "):
        ports(inputs=(IMAGE, port)).filled({"c": value})


def test_a_constant_for_no_input_or_for_the_image_is_refused() -> None:
    with pytest.raises(ContractError, match="it has no input 'gamma'; there are pixels"):
        ports().filled({"gamma": 1})


AUX = Port("aux", "float32", ("n", 5, "h", "w"))
LABELS = Port("classes", "int64", ("n", "h", "w"))
VECTOR = Port("embedding", "float32", ("n", 128))


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ((MAPS,), ["scores"]),
        ((AUX, VECTOR), ["aux"]),
        ((AUX, Port("out", "float32", ("n", 5, "h", "w"))), ["out"]),
        ((AUX, Port("logits", "float16", ("n", 5, "h", "w")), Port("output", "float32", (1, 5, 8, 8))), ["logits"]),
        ((AUX, MAPS), ["aux", "scores"]),
        ((Port("out", "float32", ("n", 128)), MAPS), ["scores"]),  # the name alone does not make it maps
        ((LABELS, VECTOR), ["classes"]),
        ((Port("classes", "uint8", ("n", 1, "h", "w")),), ["classes"]),
        ((Port("seq", "seq(tensor(float))", ()), MAPS), ["scores"]),
    ],
)
def test_outputs_that_could_be_maps(outputs: tuple[Port, ...], names: list[str]) -> None:
    assert [port.name for port in ports(*outputs).candidates()] == names


def test_an_output_is_named_and_a_wrong_name_lists_them() -> None:
    both = ports(AUX, MAPS)
    assert both.candidates("aux") == [AUX]
    with pytest.raises(ContractError, match="it has no output 'maps'; there are: aux, scores"):
        both.candidates("maps")
    told = str(both.ambiguous(both.candidates()))
    assert "several outputs, aux float32 (n, 5, h, w), scores float32 (n, 5, h, w): " in told
    assert told.endswith('pick one with output_name="aux"')
    with naming_options():
        assert "--output-name aux" in str(both.ambiguous([AUX, MAPS]))


@pytest.mark.parametrize("port", [VECTOR, Port("o", "bool", ("n", "h", "w")), Port("o", "int64", ("n", 5, "h", "w"))])
def test_no_output_that_could_be_maps(port: Port) -> None:
    with pytest.raises(ContractError, match="maps of rank 4, or labels of rank 3, are needed"):
        ports(port).candidates()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"channels": 4}, "promises 4 channels, its graph has 3"),
        ({"size": (8, 8)}, "promises 8 height, its graph has 16"),
        ({"size": (16, 8)}, "promises 8 width, its graph has 24"),
        ({"classes": tuple("abcd")}, "promises 4 output maps, its graph has 5"),
    ],
)
def test_promises_that_the_graph_contradicts(fields: dict, told: str) -> None:
    image = Port("pixels", "float32", ("n", 3, 16, 24))
    contract = {"classes": tuple("abcde"), "channels": 3, "input_layout": "NCHW"}
    check_promises(image, MAPS, ModelContract(**contract))
    with pytest.raises(ContractError, match=told):
        check_promises(image, MAPS, ModelContract(**{**contract, **fields}))
