"""Fusion and decoding against their NumPy twins, and the properties every strategy must have."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.errors import InputError, ModelError, PlanError
from engine.fusion.decoding import Decoding
from engine.fusion.fuse import check_finite, fuse, normalised_weights
from engine.fusion.strategies import STRATEGIES
from engine.fusion.strategies.vote import voting_units
from engine.kernels.blocks import MOST
from engine.kernels.registers import MOST_SLOTS
from tests.helpers import reference
from tests.helpers.properties import examples

# With the JIT off (for coverage) the loops are plain Python, a thousand times slower.
PROPERTY = examples(60, interpreted=4)
NAMES = tuple(STRATEGIES)


@st.composite
def problems(draw, max_members=7, max_classes=6):
    """Logits with many exact ties among them, weights and a set of allowed classes."""
    members = draw(st.integers(1, max_members))
    batch = draw(st.integers(1, 3))
    # Few classes are worked on in registers, many row by row.
    classes = draw(st.integers(2, max_classes) | st.just(MOST_SLOTS + 1))
    pixels = draw(st.sampled_from([1, 7, 64, 1025]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    spread = draw(st.sampled_from([0.5, 4.0, 40.0]))
    logits = rng.normal(0, spread, (members, batch, classes, pixels)).astype(np.float32)
    if draw(st.booleans()):
        logits = np.round(logits).astype(np.float32)
    weights = draw(st.none() | arrays(np.float64, members, elements=st.sampled_from([0.1, 0.2, 0.3, 1.0, 2.0, 5.0])))
    suppressed = frozenset(np.flatnonzero(rng.random(classes) < 0.3).tolist())
    if len(suppressed) == classes:
        suppressed = frozenset({0})
    return logits, weights, suppressed


def allowed_of(suppressed, classes):
    return np.array([c not in suppressed for c in range(classes)])


def tolerance(name, logits):
    """What float32 arithmetic can tell apart: parts of the logits' size for logits, 1e-5 for probabilities."""
    if name == "borda":
        return 1e-9
    return 1e-6 * np.abs(logits).max() + 1e-12 if name == "mean-logit" else 1e-5


def told_apart(logits):
    """Pixels where the two surest members differ by more than float32 can tell."""
    rest = np.sort(reference.left_to_others(logits), axis=0)
    return np.ones(rest.shape[1:], bool) if len(rest) == 1 else rest[1] > rest[0] * (1 + 1e-4) + 1e-36


def assert_same_labels(got, scores, allowed, tolerance):
    """Equal to the reference, except where its two best scores are closer than the arithmetic can tell."""
    want = reference.argmax_allowed(scores, allowed)
    clear = reference.margin(scores, allowed) > tolerance
    np.testing.assert_array_equal(got[clear], want[clear])
    chosen = np.take_along_axis(scores, got[:, None].astype(int), axis=1)[:, 0]
    best = np.where(allowed[:, None], scores, -np.inf).max(axis=1)
    assert (best - chosen <= tolerance).all()
    assert allowed[got].all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("vote", "staple")])
@PROPERTY
@given(problem=problems())
def test_each_strategy_equals_its_twin(name, problem):
    logits, weights, suppressed = problem
    got = fuse(logits, name, weights, Decoding(suppressed)).labels
    allowed = allowed_of(suppressed, logits.shape[2])
    if name == "max-confidence":
        clear = told_apart(logits)
        want = reference.argmax_allowed(reference.max_confidence_scores(logits, weights), allowed)
        margin = reference.margin(reference.max_confidence_scores(logits, weights), allowed)
        np.testing.assert_array_equal(got[clear & (margin > 1e-5)], want[clear & (margin > 1e-5)])
        return
    assert_same_labels(got, reference.scores(name, logits, weights), allowed, tolerance(name, logits))


@PROPERTY
@given(problems(), st.sampled_from(["members", "fused"]))
def test_staple_equals_its_twin(problem, stage):
    logits, weights, suppressed = problem
    allowed = allowed_of(suppressed, logits.shape[2])
    got = fuse(logits, "staple", weights, Decoding(suppressed, vote_stage=stage)).labels
    voted = allowed if stage == "members" else None
    assert_same_labels(got, reference.staple_scores(logits, weights, voted), allowed, 1e-4)


@PROPERTY
@given(problems(), st.sampled_from(["members", "fused"]))
def test_vote_equals_its_twin(problem, stage):
    logits, weights, suppressed = problem
    logits = logits[:, :, :, :64].copy()
    allowed = allowed_of(suppressed, logits.shape[2])
    got = fuse(logits, "vote", weights, Decoding(suppressed, vote_stage=stage))
    want, tied = reference.vote_labels(logits, weights, allowed, stage)
    np.testing.assert_array_equal(got.ties, tied.sum(axis=1))
    assert allowed[got.labels].all()
    np.testing.assert_array_equal(got.labels[~tied], want[~tied])
    # A tie goes to the higher mean probability; where the two are closer than 1e-5 either may win.
    means = reference.mean_prob_scores(logits, weights)
    chosen = np.take_along_axis(means, got.labels[:, None].astype(int), axis=1)[:, 0]
    best = np.take_along_axis(means, want[:, None].astype(int), axis=1)[:, 0]
    assert (best - chosen <= 1e-5).all()
    votes = reference.vote_scores(logits, weights, allowed if stage == "members" else None)
    assert (
        np.take_along_axis(votes, got.labels[:, None].astype(int), axis=1)
        == np.take_along_axis(votes, want[:, None].astype(int), axis=1)
    ).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vote"])
@PROPERTY
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_the_members_order_shows_at_most_in_the_last_bit(name, problem, seed):
    logits, weights, suppressed = problem
    order = np.random.default_rng(seed).permutation(len(logits))
    shuffled = None if weights is None else weights[order]
    one = fuse(logits, name, weights, Decoding(suppressed)).labels
    other = fuse(np.ascontiguousarray(logits[order]), name, shuffled, Decoding(suppressed)).labels
    scores = reference.scores(name, logits, weights) if name != "staple" else staple_of(logits, weights, suppressed)
    clear = reference.margin(scores, allowed_of(suppressed, logits.shape[2])) > 10 * tolerance(name, logits)
    np.testing.assert_array_equal(one[clear], other[clear])


@pytest.mark.parametrize("name", ["vote", "borda", "median-prob"])
@PROPERTY
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_what_counts_in_whole_numbers_never_depends_on_the_members_order(name, problem, seed):
    logits, weights, suppressed = problem
    order = np.random.default_rng(seed).permutation(len(logits))
    shuffled = None if weights is None else weights[order]
    one = fuse(logits, name, weights, Decoding(suppressed))
    other = fuse(np.ascontiguousarray(logits[order]), name, shuffled, Decoding(suppressed))
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.ties, other.ties)


@examples(180, interpreted=12)
@given(problems(), st.sampled_from(NAMES), st.sampled_from([0.25, 3.0, 1000.0]))
def test_weights_are_scale_free(problem, name, factor):
    logits, weights, suppressed = problem
    weights = np.ones(len(logits)) if weights is None else weights
    one = fuse(logits, name, weights, Decoding(suppressed)).labels
    other = fuse(logits, name, np.round(weights * factor, 9), Decoding(suppressed)).labels
    if name in ("vote", "borda"):
        np.testing.assert_array_equal(one, other)
    scores = reference.scores(name, logits, weights) if name != "staple" else staple_of(logits, weights, suppressed)
    clear = reference.margin(scores, allowed_of(suppressed, logits.shape[2])) > 10 * tolerance(name, logits)
    np.testing.assert_array_equal(one[clear], other[clear])


@PROPERTY
@given(problems(max_members=1), st.sampled_from(NAMES))
def test_one_member_is_that_member(problem, name):
    logits, _, suppressed = problem
    allowed = allowed_of(suppressed, logits.shape[2])
    got = fuse(logits, name, None, Decoding(suppressed)).labels
    if name not in ("mean-logit", "vote", "borda"):
        assert_same_labels(got, reference.softmax(logits)[0], allowed, 1e-5)
    else:
        np.testing.assert_array_equal(got, reference.argmax_allowed(logits[0].astype(np.float64), allowed))


@PROPERTY
@given(problems(max_members=3), st.sampled_from(NAMES))
def test_duplicating_a_member_doubles_its_weight(problem, name):
    logits, _, suppressed = problem
    doubled = np.ascontiguousarray(np.concatenate([logits, logits[:1]]))
    weights = np.ones(len(logits))
    weights[0] = 2.0
    one = fuse(doubled, name, None, Decoding(suppressed)).labels
    other = fuse(logits, name, weights, Decoding(suppressed)).labels
    if name in ("vote", "borda"):
        np.testing.assert_array_equal(one, other)
    else:
        scores = reference.scores(name, logits, weights) if name != "staple" else staple_of(logits, weights, suppressed)
        clear = reference.margin(scores, allowed_of(suppressed, logits.shape[2])) > 10 * tolerance(name, logits)
        np.testing.assert_array_equal(one[clear], other[clear])


def staple_of(logits, weights, suppressed):
    return reference.staple_scores(logits, weights, allowed_of(suppressed, logits.shape[2]))


@pytest.mark.parametrize("name", NAMES)
def test_unanimity_is_kept(name):
    rng = np.random.default_rng(5)
    winner = rng.integers(0, 4, (2, 300))
    logits = rng.normal(0, 1, (5, 2, 4, 300)).astype(np.float32)
    for c in range(4):
        logits[:, :, c][:, winner == c] += 20
    np.testing.assert_array_equal(fuse(logits, name).labels, winner)


def test_a_class_bias_moves_the_border():
    logits = np.zeros((1, 1, 3, 4), np.float32)
    logits[0, 0, 1] = [0.0, 0.4, 0.6, 2.0]
    assert fuse(logits, "mean-logit", None, Decoding(bias=(0.5, 0, 0))).labels.tolist() == [[0, 0, 1, 1]]
    votes = np.zeros((3, 1, 2, 1), np.float32)
    votes[:2, 0, 0], votes[2, 0, 1] = 1, 1
    assert fuse(votes, "vote").labels.tolist() == [[0]]
    assert fuse(votes, "vote", None, Decoding(bias=(0, 0.4))).labels.tolist() == [[1]]


def test_the_two_vote_stages_differ():
    # Two members see background, then sand; one sees rock. Vote among the allowed: sand has two votes.
    # Vote first, then replace: background wins, and of what is left rock has the only vote.
    logits = np.full((3, 1, 3, 1), -5.0, np.float32)
    logits[:2, 0, 0], logits[:2, 0, 1], logits[2, 0, 2] = 5, 4, 5
    assert fuse(logits, "vote", None, Decoding(frozenset({0}))).labels.tolist() == [[1]]
    assert fuse(logits, "vote", None, Decoding(frozenset({0}), vote_stage="fused")).labels.tolist() == [[2]]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "staple"])
@pytest.mark.parametrize("classes", [3, MOST_SLOTS + 1])
def test_blocks_leave_no_seam(name, classes):
    # Longer than a block of any kernel, and no multiple of one; staple alone looks at the image as a whole.
    pixels = 300 if numba.config.DISABLE_JIT else 2 * MOST + 77
    logits = np.random.default_rng(2).normal(0, 2, (4, 1, classes, pixels)).astype(np.float32)
    cut = pixels // 3
    parts = [np.ascontiguousarray(logits[..., :cut]), np.ascontiguousarray(logits[..., cut:])]
    whole = fuse(logits, name, [1, 2, 2, 3])
    halves = [fuse(part, name, [1, 2, 2, 3]) for part in parts]
    np.testing.assert_array_equal(whole.labels, np.concatenate([half.labels for half in halves], axis=1))
    assert whole.ties == halves[0].ties + halves[1].ties


@pytest.mark.parametrize("name", NAMES)
def test_256_classes(name):
    logits = np.random.default_rng(0).normal(0, 3, (2, 1, 256, 50)).astype(np.float32)
    labels = fuse(logits, name, None, Decoding(frozenset(range(1, 255)))).labels
    assert set(np.unique(labels)) <= {0, 255}


def test_caller_arrays_are_left_alone():
    logits = np.random.default_rng(1).normal(size=(3, 2, 5, 100)).astype(np.float32)
    before = logits.copy()
    for name in NAMES:
        fuse(logits, name, [1, 2, 3], Decoding(frozenset({0}), bias=(1, 2, 3, 4, 5)))
    np.testing.assert_array_equal(logits, before)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=12).filter(any))
def test_voting_units_find_whole_numbers_again(counts):
    weights = np.array(counts) / sum(counts)
    np.testing.assert_array_equal(voting_units(weights) * np.gcd.reduce(counts), counts)


def test_voting_units_of_fine_weights_are_close():
    fine = np.array([np.pi, np.e, 1e-3])
    fine /= fine.sum()
    units = voting_units(fine)
    assert 2**29 < units.sum() <= 2**30
    np.testing.assert_allclose(units / units.sum(), fine, atol=1e-8)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1, 2], "2 weights for 3 members"),
        ([1, -1, 1], "finite number, 0 or above"),
        ([1, np.nan, 1], "finite number, 0 or above"),
        ([0, 0, 0], "all 0"),
        ([[1, 1], [1, 1], [1, 1]], "for 3 members"),
    ],
)
def test_impossible_weights(weights, told):
    with pytest.raises(PlanError, match=told):
        normalised_weights(weights, 3, 5)


def test_weights_a_class():
    table = normalised_weights([[1, 0], [1, 2]], 2, 2)
    np.testing.assert_allclose(table, [[0.5, 0], [0.5, 1]])


@pytest.mark.parametrize(
    ("decoding", "told"),
    [
        (Decoding(frozenset({9})), "cannot suppress class 9"),
        (Decoding(frozenset({0, 1, 2})), "all 3 classes are suppressed"),
        (Decoding(bias=(1.0,)), "1 values of class bias for 3 classes"),
        (Decoding(bias=(1.0, np.inf, 0.0)), "must be finite"),
    ],
)
def test_impossible_decoding(decoding, told):
    with pytest.raises(PlanError, match=told):
        fuse(np.zeros((1, 1, 3, 4), np.float32), "mean-logit", None, decoding)
    with pytest.raises(PlanError, match="vote stage"):
        Decoding(vote_stage="sometimes")


@pytest.mark.parametrize(
    "logits",
    [np.zeros((1, 1, 3, 4)), np.zeros((1, 3, 4), np.float32), np.zeros((1, 1, 4, 3), np.float32).swapaxes(2, 3)],
)
def test_unusable_logits(logits):
    with pytest.raises(InputError, match="C-contiguous float32"):
        fuse(logits)
    with pytest.raises(InputError, match="2 to 256 classes"):
        fuse(np.zeros((1, 1, 1, 4), np.float32))
    with pytest.raises(PlanError, match="unknown strategy"):
        fuse(np.zeros((1, 1, 3, 4), np.float32), "mean")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value):
    logits = np.zeros((4, 3, 10), np.float32)
    check_finite(logits, "net", list("abcd"))
    logits[2, 1, 7] = value
    with pytest.raises(ModelError, match="member net computes NaN or infinity for image c"):
        check_finite(logits, "net", list("abcd"))


@pytest.mark.parametrize("name", ["mean-logit", "mean-prob", "vote", "borda", "median-prob"])
@PROPERTY
@given(problem=problems(), threshold=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
def test_a_threshold_keeps_a_suppressed_class_where_it_is_likely(name, problem, threshold):
    logits, weights, _ = problem
    got = fuse(logits, name, weights, Decoding(frozenset({0}), threshold=threshold)).labels
    scores = np.asarray(reference.scores(name, logits, weights), np.float64)
    if name == "vote":
        scores = scores / (len(logits) if weights is None else weights.sum())
    share = reference.softmax(scores)[:, 0] if name == "mean-logit" else scores[:, 0]
    stays = share >= threshold
    struck = scores.copy()
    struck[:, 0][~stays] = -np.inf
    everything = np.ones(logits.shape[2], bool)
    clear = (reference.margin(struck, everything) > 10 * tolerance(name, logits)) & (np.abs(share - threshold) > 1e-4)
    np.testing.assert_array_equal(got[clear], reference.argmax_allowed(struck, everything)[clear])


@pytest.mark.parametrize("name", ["mean-logit", "mean-prob", "vote"])
@PROPERTY
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_a_prior_multiplies_what_is_a_probability(name, problem, seed):
    logits, weights, suppressed = problem
    prior = np.random.default_rng(seed).uniform(0.2, 5, logits.shape[2])
    got = fuse(logits, name, weights, Decoding(suppressed, prior=tuple(prior))).labels
    scores = np.asarray(reference.scores(name, logits, weights), np.float64)
    if name == "vote":
        allowed = allowed_of(suppressed, logits.shape[2])
        scores = np.asarray(reference.vote_scores(logits, weights, allowed), np.float64)
    scores = scores + np.log(prior)[:, None] if name == "mean-logit" else scores * prior[:, None]
    allowed = allowed_of(suppressed, logits.shape[2])
    clear = reference.margin(scores, allowed) > 20 * tolerance(name, logits)
    np.testing.assert_array_equal(got[clear], reference.argmax_allowed(scores, allowed)[clear])


@pytest.mark.parametrize("decoding", [{"threshold": 1.5}, {"min_region": -1}, {"vote_stage": "never"}])
def test_what_no_classes_could_make_possible(decoding):
    with pytest.raises(PlanError):
        Decoding(**decoding)
    with pytest.raises(PlanError, match="above 0"):
        fuse(np.zeros((1, 1, 2, 3), np.float32), "vote", None, Decoding(prior=(1.0, 0.0)))
