"""Classes of a member onto those of the ensemble: probabilities add up, unknown ones get the floor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import ContractError
from engine.models.adapt.class_map import FLOOR, ClassMap, onto
from tests.helpers import reference

OWN = ("sky", "road", "car", "bus")
CLASSES = ("background", "road", "vehicle")


@given(st.integers(2, 6), st.integers(2, 6), st.data())
def test_probabilities_of_classes_that_become_one_add_up(own: int, classes: int, data: st.DataObject) -> None:
    target = st.none() | st.integers(0, classes - 1)
    targets = data.draw(st.lists(target, min_size=own, max_size=own).filter(lambda given: given != [None] * own))
    logits = np.random.default_rng(own).normal(0, 5, (2, own, 17)).astype(np.float32)
    out = np.full((2, classes, 17), np.nan, np.float32)
    onto(out, logits, targets)
    want = reference.mapped_log_probabilities(logits, targets, classes)
    known = sorted({target for target in targets if target is not None})
    np.testing.assert_allclose(out[:, known], want[:, known], rtol=1e-4, atol=1e-4)
    unknown = [index for index in range(classes) if index not in known]
    assert (out[:, unknown] == FLOOR).all()


def test_a_class_that_is_out_of_the_question_stays_above_one_that_is_unknown() -> None:
    logits = np.array([[[0.0], [-1e5], [-1e30]]], np.float32)
    out = np.empty((1, 4, 1), np.float32)
    onto(out, logits, (0, 1, 2))
    assert np.isfinite(out).all()
    assert out[0, 1, 0] > out[0, 3, 0]
    assert out[0, 2, 0] > out[0, 3, 0]


def test_names_that_are_not_stated_go_to_their_namesakes() -> None:
    made = ClassMap.of({"car": "vehicle", "bus": "vehicle", "sky": ""}, OWN, CLASSES)
    assert made.targets == (None, 1, 2, 2)
    assert made.classes == CLASSES
    assert ClassMap.of({}, OWN, CLASSES).targets == (None, 1, None, None)


@pytest.mark.parametrize(
    ("stated", "own", "told"),
    [
        ({"lorry": "vehicle"}, OWN, r"map: it has no class 'lorry'; its classes are sky, road, car, bus"),
        ({"car": "cars"}, OWN, r"map: car = 'cars' is no class of the ensemble; there are background, road, vehicle"),
        ({"road": ""}, OWN, r"map: none of its classes, sky, road, car, bus, becomes one of the ensemble"),
    ],
)
def test_a_map_of_unknown_names_is_refused(stated: dict[str, str], own: tuple[str, ...], told: str) -> None:
    with pytest.raises(ContractError, match=told):
        ClassMap.of(stated, own, CLASSES)
