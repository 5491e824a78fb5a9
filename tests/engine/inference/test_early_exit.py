"""Early exit: exact where it says so, and it really leaves members out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Ensemble
from engine.cli.printing import early_exit_summary
from engine.errors import PlanError
from engine.fusion.decoding import Decoding
from engine.fusion.fuse import fuse, normalised_weights
from engine.inference.early_exit import EarlyExit, RunningScores
from engine.runs.predict import run
from engine.sources.base import from_array
from tests.engine.fusion.test_fuse import problems
from tests.helpers.nets import save_member
from tests.helpers.properties import examples


@pytest.mark.parametrize("strategy", ["vote", "mean-prob"])
@examples(100)
@given(problem=problems(max_members=6), stage=st.sampled_from(["members", "fused"]), seed=st.integers(0, 2**32 - 1))
def test_a_settled_pixel_never_changes(strategy, problem, stage, seed):
    """Stop after each member: wherever all pixels count as settled, the label is that of all members."""
    logits, weights, suppressed = problem
    members, batch, classes, pixels = logits.shape
    draw = np.random.default_rng(seed)
    bias = tuple(draw.normal(0, 0.2, classes)) if draw.random() < 0.5 else ()
    decoding = Decoding(suppressed, bias=bias, vote_stage=stage)
    full = fuse(logits, strategy, weights, decoding).labels
    # Pixel by pixel, so that many are settled early: each becomes an image of its own.
    alone = np.ascontiguousarray(logits.transpose(0, 1, 3, 2).reshape(members, batch * pixels, classes, 1))
    standing = RunningScores(
        (batch * pixels, classes, 1), strategy, normalised_weights(weights, members, classes), decoding
    )
    staying = np.arange(batch * pixels)
    for m in draw.permutation(members):
        settled = standing.add(int(m), alone[m, staying], staying)
        left = staying[settled == 1]
        np.testing.assert_array_equal(standing.labels[left, 0], full.reshape(-1)[left])
        staying = staying[settled < 1]


@pytest.fixture(scope="module")
def agreeing(tmp_path_factory):
    """Three copies of one net (as files of their own) and a fourth that differs."""
    folder = tmp_path_factory.mktemp("agreeing")
    for k in range(3):
        save_member(folder / f"same{k}.onnx", 1, promised={"notes": {"copy": k}})
    save_member(folder / "other.onnx", 2)
    return folder


@pytest.mark.parametrize("strategy", ["vote", "mean-prob"])
def test_the_masks_are_those_of_all_members(world, agreeing, strategy):
    plain = Ensemble.open(agreeing, strategy=strategy)
    early = Ensemble.open(agreeing, strategy=strategy, early_exit=EarlyExit())
    np.testing.assert_array_equal(early.predict(world.images), plain.predict(world.images))


def test_members_are_left_out_and_counted(world, agreeing):
    ensemble = Ensemble.open(agreeing, strategy="vote", weights=[1, 4, 4, 4], early_exit=EarlyExit())
    outcome = run(ensemble, from_array(world.images))
    # Whatever comes first, two of the three equal heavy members outvote all the rest.
    assert sum(outcome.member_runs) < len(world.images) * 4
    assert "saved" in early_exit_summary(outcome, ensemble)


def test_an_approximate_exit_tells_its_agreement(world, agreeing):
    ensemble = Ensemble.open(agreeing, strategy="mean-prob", early_exit=EarlyExit(0.3))
    outcome = run(ensemble, from_array(world.images), batch_size=1)
    assert outcome.compared > 0
    assert 0 < outcome.agreed <= outcome.compared
    assert "agree with all members" in early_exit_summary(outcome, ensemble)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strategy": "mean-logit"}, "bounded scores"),
        ({"strategy": "vote", "threshold": 0.5}, "drop one"),
        ({"strategy": "vote", "early_exit": EarlyExit(0.0)}, "agreement 0.0"),
    ],
)
def test_what_early_exit_cannot_do(world, options, told):
    with pytest.raises(PlanError, match=told):
        Ensemble.open(world.models, **{"early_exit": EarlyExit(), **options})
