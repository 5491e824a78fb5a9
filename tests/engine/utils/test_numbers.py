"""Numbers in JSON and as speed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from engine.utils.numbers import images_per_second, json_number


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_json_does_not_know_is_null(value: float) -> None:
    assert json.dumps([json_number(value), json_number(value, None)], allow_nan=False) == "[null, null]"


def test_numbers_are_rounded_unless_they_are_to_be_kept() -> None:
    assert json_number(1 / 3) == 0.333333
    assert json_number(1 / 3, 2) == 0.33
    assert json_number(1 / 3, None) == 1 / 3
    assert type(json_number(np.float64(0.5))) is float


def test_speed_counts_all_workers() -> None:
    assert images_per_second(30, 4, 6.0) == 20.0
    assert math.isnan(images_per_second(30, 4, 0.0))
