"""Written probabilities and maps of doubt against their NumPy twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import PlanError
from engine.fusion.decoding import Decoding
from engine.fusion.evidence import DOUBTS, Evidence
from engine.fusion.fuse import fuse
from engine.fusion.strategies import STRATEGIES
from engine.kernels.evidence import half_bits, to_words
from engine.kernels.logarithm import log_of
from tests.engine.fusion.test_fuse import problems, told_apart
from tests.helpers import reference
from tests.helpers.properties import examples

# With the JIT off (for coverage) the loops are plain Python, a thousand times slower.
PROPERTY = examples(30, interpreted=3)
NAMES = tuple(STRATEGIES)


@st.composite
def decodings(draw, classes, suppressed):
    """Suppression with and without a threshold, bias and prior, both stages of a vote."""
    bias = draw(st.none() | st.lists(st.sampled_from([-2.0, -0.1, 0.0, 0.3]), min_size=classes, max_size=classes))
    prior = draw(st.none() | st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=classes, max_size=classes))
    threshold = draw(st.none() | st.sampled_from([0.3, 0.6]))
    stage = draw(st.sampled_from(["members", "fused"]))
    temperature = draw(st.sampled_from([1.0, 1.0, 0.5, 1.7]))
    return Decoding(suppressed, threshold, tuple(bias or ()), tuple(prior or ()), stage, temperature=temperature)


def close(name: str, got: np.ndarray, expected: np.ndarray, rounding: float) -> np.ndarray:
    """Return where two arrays of probabilities agree: within the rounding, and what float32 arithmetic loses."""
    return np.abs(got.astype(np.float64) - expected) <= rounding * np.maximum(expected, 2**-14) + 4e-5


def clear_of(name: str, logits: np.ndarray, scores: np.ndarray, decoding: Decoding) -> np.ndarray:
    """Return bool (batch, pixels): where no comparison of two floats decides more than the last digits."""
    clear = told_apart(logits) if name == "max-confidence" else np.ones((logits.shape[1], logits.shape[3]), bool)
    if name not in ("mean-logit", "vote", "borda"):
        # Float32 sums keep nothing of classes that share a hundredth of what suppressed ones have.
        raw = reference.decoded_scores(name, logits, None, Decoding())
        left = np.where(np.isfinite(reference.decoded_scores(name, logits, None, decoding)), raw, 0)
        clear &= left.sum(axis=1) > 1e-2 * raw.sum(axis=1)
    if decoding.threshold is not None:
        raw = reference.decoded_scores(name, logits, None, Decoding())
        share = reference.probabilities(name, raw) if name == "mean-logit" else raw
        clear &= (np.abs(share - decoding.threshold) > 1e-4).all(axis=1)
    return clear


@pytest.mark.parametrize("name", NAMES)
@PROPERTY
@given(data=st.data())
def test_scores_equal_their_twin_and_their_argmax_is_the_label(name, data):
    logits, weights, suppressed = data.draw(problems(max_members=4))
    decoding = data.draw(decodings(logits.shape[2], suppressed))
    if decoding.threshold is not None:
        weights = None
    kind = data.draw(st.sampled_from(["float16", "float32"]))
    plain = fuse(logits, name, weights, decoding)
    shown = fuse(logits, name, weights, decoding, Evidence(kind))
    np.testing.assert_array_equal(shown.labels, plain.labels)
    got = shown.shown.scores
    assert got.dtype == kind
    np.testing.assert_array_equal(got.argmax(axis=1), plain.labels)
    assert got.min() >= 0
    assert got.max() <= 1
    scores = reference.decoded_scores(name, logits, weights, decoding)
    expected = reference.probabilities(name, scores, decoding.temperature)
    if name == "staple":  # both stop near the fixed point, after float and double sums
        assert (np.abs(got.astype(np.float64) - expected) < 0.01).mean() > 0.99
        return
    clear = clear_of(name, logits, scores, decoding)
    rounding = 2.0**-10 if kind == "float16" else 1e-6  # half a unit, and a whole one where the label is raised
    agree = close(name, got, expected, rounding)
    if name == "mean-logit":  # parts of the logits' size are lost before the softmax
        agree |= np.abs(got - expected) <= 4e-6 * np.abs(scores[np.isfinite(scores)]).max() + rounding
    assert agree[np.broadcast_to(clear[:, None], agree.shape)].all()
    never = [c for c in suppressed if decoding.threshold is None]
    assert (got[:, never] == 0).all()


@pytest.mark.parametrize("measure", DOUBTS)
@PROPERTY
@given(data=st.data())
def test_doubt_equals_its_twin(measure, data):
    logits, weights, suppressed = data.draw(problems(max_members=4))
    name = data.draw(st.sampled_from(["mean-prob", "mean-logit", "vote"]))
    decoding = Decoding(suppressed, data.draw(st.sampled_from([None, 0.4])))
    found = fuse(logits, name, None, decoding, Evidence("", measure, "float32"))
    got = found.shown.doubt
    expected = reference.doubt_of(measure, name, logits, None, decoding, found.labels)
    clear = clear_of(name, logits, np.zeros(1), decoding)
    slack = 2e-5 * max(1.0, float(np.abs(logits).max()) / 10)
    assert (np.abs(got - expected) <= slack)[clear].all()
    assert got.min() >= 0
    assert got.max() <= 1
    small = fuse(logits, name, None, decoding, Evidence("float16", measure)).shown.doubt
    assert small.dtype == np.uint8
    assert small.max() <= 254
    np.testing.assert_allclose(small / 254, got, atol=0.5 / 254 + 1e-6)
    if weights is not None and measure != "entropy":
        weighed = fuse(logits, name, weights, decoding, Evidence("", measure, "float32"))
        expected = reference.doubt_of(measure, name, logits, weights, decoding, weighed.labels)
        if decoding.threshold is None:
            np.testing.assert_allclose(weighed.shown.doubt, expected, atol=slack)


def test_the_log_is_exact_to_float32():
    values = np.concatenate([np.exp(np.linspace(-87, 5, 4001)), 1 + np.linspace(-1e-3, 1e-3, 999)]).astype(np.float32)
    got = np.array([log_of(value) for value in values])
    expected = np.log(values.astype(np.float64))
    assert (np.abs(got - expected) <= 2e-7 * np.maximum(np.abs(expected), 0.3)).all()


def test_float16_is_rounded_as_numpy_rounds():
    every = np.arange(0x3C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (every[1:] + every[:-1]) / 2
    values = np.concatenate(
        [every, between, np.nextafter(between, np.float32(0)), np.nextafter(between, np.float32(1))]
    )
    words = np.empty(values.shape, np.int32)
    to_words(words, values, True)
    np.testing.assert_array_equal(words.astype(np.uint16), values.astype(np.float16).view(np.uint16))
    assert half_bits(np.float32(1)) == 0x3C00


def test_a_strategy_that_keeps_no_scores_is_refused(monkeypatch):
    monkeypatch.setitem(STRATEGIES, "mute", lambda task: task.labels.fill(0))
    logits = np.zeros((2, 1, 3, 8), np.float32)
    with pytest.raises(PlanError, match="mute keeps no scores"):
        fuse(logits, "mute", evidence=Evidence("float16"))
    assert fuse(logits, "mute", evidence=Evidence("", "votes")).shown.doubt is not None


@pytest.mark.parametrize(
    "asked", [{"scores": "float64"}, {"doubt": "anger"}, {"doubt": "entropy", "doubt_type": "int8"}]
)
def test_what_does_not_exist_is_refused(asked):
    with pytest.raises(PlanError, match="allowed are"):
        Evidence(**asked)
