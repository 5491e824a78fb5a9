"""Thresholds per class against a loop over pixels, and what a table may say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.errors import PlanError
from engine.fusion.cleanup import ClassCleanup, least_probable, read_cleanup
from engine.fusion.decoding import Decoding
from engine.fusion.evidence import Evidence
from engine.fusion.fuse import fuse
from tests.helpers.properties import examples

SHARES = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75])


def loop(scores, labels, thresholds):
    """The rule, pixel by pixel."""
    out = labels.copy()
    for image, pixel in np.ndindex(labels.shape):
        here = scores[image, :, pixel]
        if here[labels[image, pixel]] < thresholds[labels[image, pixel]]:
            able = [c for c in range(len(here)) if here[c] > 0 and here[c] >= thresholds[c]]
            if able:
                out[image, pixel] = max(able, key=lambda c: (here[c], -c))
    return out


@examples(80)
@given(arrays(np.float32, (2, 4, 6), elements=SHARES), arrays(np.float32, 4, elements=SHARES))
def test_thresholds_equal_a_loop_over_pixels(scores, thresholds):
    labels = scores.argmax(axis=1).astype(np.uint8)
    before = labels.copy()
    got = least_probable(scores, labels, thresholds)
    np.testing.assert_array_equal(got, loop(scores, labels, thresholds))
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize("strategy", ["mean-logit", "mean-prob", "vote", "staple"])
def test_every_strategy_asks_its_own_probabilities(strategy):
    logits = np.random.default_rng(0).normal(0, 1, (3, 2, 4, 200)).astype(np.float32)
    items = (ClassCleanup(1, 0.6), ClassCleanup(2, 0.5))
    plain = fuse(logits, strategy, decoding=Decoding(frozenset({3})), evidence=Evidence("float32"))
    want = loop(plain.shown.scores, plain.labels, np.array([0, 0.6, 0.5, 0], np.float32))
    decoding = Decoding(frozenset({3}), cleanup=items, temperature=2.0)
    got = fuse(logits, strategy, decoding=decoding)
    np.testing.assert_array_equal(got.labels, want)
    assert strategy == "staple" or (want != plain.labels).any()
    assert not (got.labels == 3).any()
    shown = fuse(logits, strategy, decoding=decoding, evidence=Evidence("float16", "entropy"))
    np.testing.assert_array_equal(shown.labels, want)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (3, "'3' is not a table; its keys are threshold, min_region, largest, fill_holes"),
        ({"least": 3}, "unknown key 'least'; known are threshold"),
        ({"threshold": 1.5}, "threshold 1.5; a probability from 0 to 1"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"threshold": True}, "threshold True"),
        ({"min_region": -1}, "min_region -1; a number of pixels"),
        ({"min_region": 2.5}, "min_region 2.5"),
        ({"largest": 1}, "largest 1; true or false"),
    ],
)
def test_what_a_table_may_not_say(table, told):
    with pytest.raises(PlanError, match=r"cleanup\.soil: ") as caught:
        read_cleanup("soil", table)
    assert told in str(caught.value)


def test_what_a_decoding_may_not_hold():
    with pytest.raises(PlanError, match="give each class once"):
        Decoding(cleanup=(ClassCleanup(1), ClassCleanup(1, 0.5)))
    with pytest.raises(PlanError, match="decode rankseg decides whole images"):
        Decoding(cleanup=(ClassCleanup(1, 0.5),), decode="rankseg")
    with pytest.raises(PlanError, match="clean-up of class 7: there are 4 classes"):
        Decoding(cleanup=(ClassCleanup(7, 0.5),)).rule(4, log_domain=True)
    assert ClassCleanup(1, min_region=0).stated == {"min_region": 0}
    assert ClassCleanup(1).stated == {}
