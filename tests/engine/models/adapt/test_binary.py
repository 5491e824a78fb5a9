"""One map becomes two classes: what the threshold decides, and what strategies see of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.fusion.fuse import fuse
from engine.fusion.strategies import STRATEGIES
from engine.models.adapt.binary import log_odds, two_classes
from tests.helpers import reference

INSIDE = st.floats(1e-6, 1 - 1e-6)


@given(st.lists(INSIDE, min_size=1, max_size=20))
def test_log_odds_are_those_of_float64(shares: list[float]) -> None:
    given = np.array(shares, np.float32).clip(np.float32(1e-6), np.float32(1 - 1e-6))
    want = reference.log_odds(given)
    # Near 1 a probability of float32 is known to one part in 2**24 of what is left to 1.
    np.testing.assert_allclose(log_odds(given), want, rtol=1e-5, atol=0.1 if given.max() > 0.999 else 1e-4)


def test_sure_probabilities_stay_finite_and_in_order() -> None:
    odds = log_odds(np.array([0, 1e-45, 0.5, 1 - 2**-24, 1], np.float32))
    assert np.isfinite(odds).all()
    assert (np.diff(odds) >= 0).all()
    assert odds[2] == 0


@pytest.mark.parametrize("strategy", list(STRATEGIES))
@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.93])
def test_the_threshold_decides_in_every_strategy(strategy: str, threshold: float) -> None:
    shares = np.random.default_rng(0).uniform(0.001, 0.999, (2, 500)).astype(np.float32)
    # Away from the edge of the decision, where float32 rounds to one side or the other.
    shares = shares[:, (np.abs(shares - threshold) > 1e-4).all(axis=0)]
    out = np.empty((1, 2, 2, shares.shape[1]), np.float32)
    two_classes(out[0], log_odds(shares), threshold)
    labels = fuse(out, strategy).labels
    if strategy != "staple":  # which may overrule a member by what it learned of it
        np.testing.assert_array_equal(labels, reference.binary_labels(shares, threshold))
    assert set(np.unique(labels)) == {0, 1}


@given(st.lists(st.floats(-80, 80), min_size=1, max_size=20), st.floats(1e-6, 1 - 1e-6))
def test_the_softmax_of_the_two_is_the_probability_with_its_odds_moved(logits: list[float], threshold: float) -> None:
    odds = np.array([logits], np.float32)
    out = np.full((1, 2, odds.shape[1]), np.nan, np.float32)
    two_classes(out, odds, threshold)
    share = 1 / (1 + np.exp(-odds.astype(np.float64)))
    moved = share * (1 - threshold) / (share * (1 - threshold) + (1 - share) * threshold)
    np.testing.assert_allclose(reference.softmax(out)[:, 1], moved, rtol=2e-5, atol=1e-12)
