"""Facts of several origins put together: earlier ones win, later ones add, contradictions are named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContractError
from engine.models.facts import Facts, merged
from tests.engine.models.facts.hostile import json_values, settled

TRUTH: dict[str, Any] = {
    "classes": ("road", "sky", "tree"),
    "scale": 1 / 255,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.5,),
    "size": (512, 256),
    "channels": 3,
    "stride": 32,
    "fit": "resize",
    "maps_resize": "bilinear",
    "foreground_threshold": 0.3,
    "thresholds": (0.5, 0.4, 0.3),
    "bands": (4, 3, 2),
    "channel_order": "rgb",
    "kind": "multilabel",
    "constants": {"mask": 1.0, "ratio": (0.5, 2.0)},
    "output_name": "logits",
    "ignored_class": 0,
    "activation": "logits",
}
TOLERANT = ("scale", "mean", "std", "foreground_threshold", "thresholds")
OTHERS: dict[str, Any] = {
    **{"classes": ("road", "sky", "house"), "scale": 1.0, "mean": (0.0,), "std": (0.5, 0.5, 0.6), "size": (512, 257)},
    **{"channels": 4, "stride": 16, "fit": "pad", "maps_resize": "nearest", "foreground_threshold": 0.31},
    **{"thresholds": (0.5, 0.4), "bands": (4, 3, 1), "channel_order": "bgr", "kind": "labels", "output_name": "out"},
    **{"constants": {"ratio": (0.5, 3.0)}, "ignored_class": 1, "activation": "probabilities"},
}


def nudged(name: str, value: Any, by: float) -> Any:
    if name not in TOLERANT:
        return value
    return tuple(item * (1 + by) for item in value) if isinstance(value, tuple) else value * (1 + by)


@st.composite
def tellings(draw: st.DrawFn) -> list[Facts]:
    found = []
    for index in range(draw(st.integers(0, 5))):
        names = draw(st.lists(st.sampled_from(sorted(TRUTH)), unique=True))
        told = {name: nudged(name, TRUTH[name], draw(st.floats(-4e-5, 4e-5))) for name in names}
        told.update(dict.fromkeys(draw(st.lists(st.sampled_from(sorted(TRUTH)), max_size=2))))
        found.append(Facts(f"origin {index}", told))
    return found


@given(tellings())
def test_origins_that_agree_add_up_and_the_first_one_is_kept(facts: list[Facts]) -> None:
    values, origins = merged(facts)
    stated = {name for fact in facts for name, value in fact.fields.items() if value is not None}
    assert set(values) == set(origins) == stated
    for name in stated:
        first = next(fact for fact in facts if fact.fields.get(name) is not None)
        assert values[name] == first.fields[name]
        assert origins[name] == first.origin


@given(tellings(), st.sampled_from(sorted(OTHERS)), st.data())
def test_one_contradiction_anywhere_names_both_origins(facts: list[Facts], name: str, data: st.DataObject) -> None:
    facts = [Facts("the truth", {name: TRUTH[name]}), *facts]
    place = data.draw(st.integers(0, len(facts)))
    facts.insert(place, Facts("the liar", {name: OTHERS[name]}))
    with pytest.raises(ContractError) as error:
        merged(facts)
    told = str(error.value)
    assert told.startswith(name) and told.isprintable()
    assert "the liar" in told and ("the truth" in told or "origin" in told)


def test_the_values_of_a_contradiction_are_shown() -> None:
    facts = [Facts("its metadata (Ultralytics)", {"scale": 1 / 255}), Facts("--scale", {"scale": 1})]
    with pytest.raises(ContractError) as error:
        merged(facts)
    assert str(error.value).startswith("scale: its metadata (Ultralytics) says 0.00392157, --scale says 1; ")


def test_the_first_class_that_differs_is_shown() -> None:
    one, other = [f"name {index}" for index in range(150)], [f"name {index}" for index in range(150)]
    other[77] = "tree"
    with pytest.raises(ContractError, match=r"^classes\[77\]: a says 'name 77', b says 'tree'; "):
        merged([Facts("a", {"classes": one}), Facts("b", {"classes": other})])
    with pytest.raises(ContractError, match=r"^classes: a says 150 values \('name 0', .*\), b says 149 values "):
        merged([Facts("a", {"classes": one}), Facts("b", {"classes": other[:-1]})])


@pytest.mark.parametrize("placeholder_first", [True, False])
def test_made_up_names_give_way(placeholder_first: bool) -> None:
    made_up, names = Facts("a", {"classes": ["class 0", "class 1"]}), Facts("b", {"classes": ["land", "water"]})
    values, origins = merged([made_up, names] if placeholder_first else [names, made_up])
    assert values == {"classes": ("land", "water")}
    assert origins == {"classes": "b"}
    assert merged([made_up, Facts("c", {"classes": ["class 0", "class 1", "class 2"]})])[0] == made_up.fields


def test_one_value_stands_for_all_channels() -> None:
    values, _ = merged([Facts("a", {"std": (1.0,)}), Facts("b", {"std": (1.0, 1.0, 1.0)})])
    assert values == {"std": (1.0,)}
    values, _ = merged([Facts("a", {"mean": (0.0, 0.0)}), Facts("b", {"mean": (0.0,)})])
    assert values == {"mean": (0.0, 0.0)}


def test_counts_must_be_equal_however_large() -> None:
    with pytest.raises(ContractError, match=r"size\[0\]: a says 20000, b says 20001"):
        merged([Facts("a", {"size": (20000, 8)}), Facts("b", {"size": (20001, 8)})])


def test_tables_are_put_together() -> None:
    values, origins = merged([Facts("a", {"constants": {"x": 1}}), Facts("b", {"constants": {"y": 2, "x": 1.0}})])
    assert values == {"constants": {"x": 1, "y": 2}}
    assert origins == {"constants": "a"}
    with pytest.raises(ContractError, match=r"^constants\.x: a says 1, b says 2; "):
        merged([Facts("a", {"constants": {"x": 1}}), Facts("b", {"constants": {"x": 2}})])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"colour": 1}, "unknown field 'colour'; known are "),
        ({"scale": "big"}, "scale: 'big' is not a number"),
        ({"scale": float("nan")}, "finite number"),
        ({"scale": 0}, "1e-30"),
        ({"scale": 10**5000}, "more than 30 digits"),
        ({"std": (1.0, 0.0)}, "1e-30"),
        ({"mean": (float("inf"),)}, "finite number"),
        ({"mean": ()}, "empty list"),
        ({"classes": ["a"]}, "1 of them"),
        ({"classes": ["a", "a"]}, "'a' stands there twice"),
        ({"classes": ["a", "b\x1b[2J"]}, "printable"),
        ({"classes": ["a", "b" * 201]}, "200"),
        ({"stride": 0}, "from 1 to 256"),
        ({"stride": 512}, "from 1 to 256"),
        ({"stride": True}, "from 1 to 256"),
        ({"fit": "stretch"}, "resize or pad"),
        ({"maps_resize": "cubic"}, "bilinear or nearest"),
        ({"foreground_threshold": 1}, "between 0 and 1"),
        ({"thresholds": [0.5, 1.5]}, "from 0 to 1"),
        ({"bands": [0, 1]}, "the first is 1"),
        ({"bands": []}, "the first is 1"),
        ({"channel_order": "gbr"}, "rgb or bgr"),
        ({"constants": {"x": "y"}}, "table of numbers"),
        ({"constants": {"x\n": 1}}, "printable"),
        ({"output_name": ""}, "a text"),
    ],
)
def test_fields_are_checked(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError) as error:
        Facts("here", fields)
    assert str(error.value).startswith("here") and told in str(error.value) and str(error.value).isprintable()


@given(st.dictionaries(st.sampled_from([*sorted(TRUTH), "bias", "temperature", "notes", "x"]), json_values("a")))
def test_any_fields_are_taken_or_refused(fields: dict[str, Any]) -> None:
    facts = settled(lambda: Facts("here", fields))
    if facts:
        assert set(facts[0].fields) == set(fields)
        assert merged([*facts, *facts])[0] == {name: item for name, item in facts[0].fields.items() if item is not None}


def test_a_value_nested_without_end_is_refused() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ContractError, match="levels deep"):
        Facts("here", {"mean": deep})
