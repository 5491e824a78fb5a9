"""Fusion as ONNX against the CPU's kernels and the plain twins: the same labels but for float ties, ties counted."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from engine.fusion.decoding import Decoding
from engine.fusion.fuse import fuse, normalised_weights
from engine.fusion.strategies import STRATEGIES
from engine.graph import fusion
from engine.graph.compose import LEAST_OPSET, Composer
from tests.helpers import reference
from tests.helpers.properties import examples

WHOLE = np.array([0, 1, -2, 3, 2])


@st.composite
def problems(draw):
    """Logits (members, batch, classes, pixels), half of them with exact ties, weights and a decoding."""
    members, classes = draw(st.integers(1, 5)), draw(st.integers(2, 5) | st.just(9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(0, draw(st.sampled_from([0.5, 4.0])), (members, 2, classes, 24)).astype(np.float32)
    if draw(st.booleans()):
        logits = np.round(logits)
    weights = draw(st.none() | st.lists(st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.0]), min_size=members, max_size=members))
    weights = weights if weights is None or sum(weights) > 0 else None
    decoding = Decoding(
        suppress=frozenset(np.flatnonzero(rng.random(classes) < 0.3).tolist()) - {int(rng.integers(classes))},
        threshold=draw(st.none() | st.sampled_from([0.0, 0.25, 0.6])),
        bias=tuple(rng.normal(0, 0.1, classes)) if draw(st.booleans()) else (),
        prior=tuple(rng.uniform(0.3, 3, classes)) if draw(st.booleans()) else (),
        vote_stage=draw(st.sampled_from(["members", "fused"])),
    )
    return logits, weights, decoding


def by_graph(logits, strategy, weights, decoding, opset=LEAST_OPSET):
    """Labels, ties of each image and failing (member, image) of a graph whose inputs are the members' logits."""
    members, batch, classes, pixels = logits.shape
    graph = Composer(opset)
    names = [f"given{index}" for index in range(members)]
    found = fusion.add_fusion(graph, names, strategy, normalised_weights(weights, members, classes), decoding)
    flags = fusion.add_flags(graph, names)
    outputs = [found.labels, *([found.ties] if found.ties else []), *flags]
    kinds = [TensorProto.INT64, *[TensorProto.BOOL] * (len(outputs) - 1)]
    make = helper.make_tensor_value_info
    model = graph.finish(
        [make(name, TensorProto.FLOAT, [batch, classes, 1, pixels]) for name in names],
        [make(name, kind, None) for name, kind in zip(outputs, kinds, strict=True)],
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    labels, *rest = session.run(None, {name: part[:, :, None] for name, part in zip(names, logits, strict=True)})
    ties = rest.pop(0).sum(axis=(1, 2, 3)) if found.ties else np.zeros(batch, int)
    return labels[:, 0], ties, np.array(rest).reshape(members, batch)


def decoded(logits, strategy, weights, decoding):
    """What the argmax decides on in float64, (batch, classes, pixels); of votes their mean probabilities where tied."""
    classes = logits.shape[2]
    rule = decoding.rule(classes, log_domain=strategy == "mean-logit")
    allowed = rule.allowed[:, None] if decoding.threshold is None else np.True_
    gain, bias = rule.gain[:, None].astype(float), rule.bias[:, None].astype(float)
    if strategy != "vote":
        scores = reference.scores(strategy, logits, weights)
        return np.where(allowed, scores * gain + bias, -np.inf)
    voted = rule.allowed if decoding.vote_stage == "members" and decoding.threshold is None else None
    given = np.ones(len(logits)) if weights is None else np.asarray(weights)
    votes = reference.vote_scores(logits, given, voted).astype(float) / given.sum() * gain + bias
    top = np.where(allowed, votes, -np.inf).max(axis=1, keepdims=True)
    return np.where(votes >= top - 1e-7, reference.mean_prob_scores(logits, weights), -1.0)


def near_threshold(logits, strategy, weights, decoding):
    """Pixels where the probability of a suppressed class is the threshold, as far as float32 can tell."""
    if decoding.threshold is None or not decoding.suppress:
        return np.zeros((logits.shape[1], logits.shape[3]), bool)
    scores = reference.scores(strategy, logits, weights)
    likely = reference.softmax(scores) if strategy == "mean-logit" else scores
    return (np.abs(likely.astype(float)[:, sorted(decoding.suppress)] - decoding.threshold) < 1e-5).any(axis=1)


def undecided(logits, strategy, weights, decoding):
    """Pixels that rounding decides before the scores: at the threshold, or between two members that are as sure."""
    near = near_threshold(logits, strategy, weights, decoding)
    taking_part = logits if weights is None else logits[np.asarray(weights) > 0]
    if strategy == "max-confidence" and len(taking_part) > 1:
        rest = np.sort(reference.left_to_others(taking_part), axis=0)
        near |= rest[1] <= rest[0] * (1 + 1e-4)
    return near


@pytest.mark.parametrize("strategy", fusion.STRATEGIES)
@examples(25, interpreted=4)
@given(problem=problems())
def test_labels_are_those_of_the_kernels(strategy, problem):
    logits, weights, decoding = problem
    got, ties, failed = by_graph(logits, strategy, weights, decoding)
    want = fuse(np.ascontiguousarray(logits), strategy, weights, decoding)
    assert not failed.any()
    if decoding.threshold is None:
        assert set(np.unique(got)) <= set(range(logits.shape[2])) - decoding.suppress
    np.testing.assert_array_equal(ties, want.ties)
    scores = decoded(logits, strategy, weights, decoding)
    for image, pixel in np.argwhere((got != want.labels) & ~undecided(logits, strategy, weights, decoding)):
        a, b = scores[image, [got[image, pixel], want.labels[image, pixel]], pixel]
        assert abs(a - b) <= 1e-5 * max(1, np.abs(logits).max())


def test_every_strategy_but_staple_is_a_graph():
    built_in = [
        "mean-logit",
        "mean-prob",
        "vote",
        "borda",
        "max-confidence",
        "entropy-weighted",
        "median-prob",
        "trimmed-mean",
    ]
    assert set(fusion.STRATEGIES) == set(built_in) < set(STRATEGIES)


def test_a_newer_operator_set_gives_the_same():
    logits = np.random.default_rng(2).normal(0, 2, (3, 1, 4, 50)).astype(np.float32)
    for strategy in ("median-prob", "vote"):
        old, new = (by_graph(logits, strategy, None, Decoding(), opset)[0] for opset in (LEAST_OPSET, 21))
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_member_that_fails_is_flagged_by_image(bad):
    logits = np.zeros((3, 2, 4, 6), np.float32)
    logits[1, 1, 2, 5] = bad
    failed = by_graph(logits, "mean-prob", None, Decoding())[2]
    assert np.argwhere(failed).tolist() == [[1, 1]]


def test_without_onnx_it_says_what_to_install(monkeypatch):
    import sys

    from engine.errors import PlanError
    from engine.graph.package import load_onnx

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(PlanError, match=r"'onnx' .*pip install 'maskfuse\[cuda\]'"):
        load_onnx()
