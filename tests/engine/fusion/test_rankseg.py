"""Labels for whole images: against loops from the paper's definitions, the authors' package, and in the commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Ensemble
from engine.errors import PlanError
from engine.fusion.decoding import Decoding
from engine.fusion.fuse import fuse
from engine.fusion.rankseg import DECODES, rankseg
from engine.runs.plan import read_plan
from tests.conftest import Result
from tests.engine.fusion.test_fuse import problems
from tests.helpers import reference
from tests.helpers.properties import examples
from tests.helpers.world import World

Engine = Callable[..., Result]
RANKED = DECODES[1:]


def expected_score(p: np.ndarray, kept: list[int], is_dice: bool) -> float:
    """The paper's approximation of a class's expected score where the pixels ``kept`` are predicted as it."""
    inside, mean = sum(p[i] for i in kept), sum(p)
    if is_dice:
        return 2 * inside / (mean + len(kept) + 1)
    below = mean - inside + len(kept)
    return inside / below if below > 0 else 0.0


def by_loops(p: np.ndarray, is_dice: bool) -> np.ndarray:
    """Labels of one image, (classes, pixels) probabilities: try every number of pixels, then every pixel's gain."""
    classes, pixels = p.shape
    claims: list[list[int]] = []
    active = [max(row) > 0.5 for row in p]
    for c in range(classes):
        order = sorted(range(pixels), key=lambda i: (-p[c, i], i))
        sizes = range(1, pixels + 1) if active[c] else []
        best = max(sizes, key=lambda n: (expected_score(p[c], order[:n], is_dice), -n), default=0)
        claims.append(order[:best])
    owners = [[c for c in range(classes) if i in claims[c]] for i in range(pixels)]
    own = [[i for i in range(pixels) if owners[i] == [c]] for c in range(classes)]
    labels = []
    for i in range(pixels):
        possible = owners[i] or [c for c in range(classes) if (active[c] if any(active) else p[c].any())]
        gain = [
            expected_score(p[c], [*own[c], i], is_dice) - expected_score(p[c], own[c], is_dice)
            if len(owners[i]) != 1
            else 0.0
            for c in possible
        ]
        labels.append(possible[int(np.argmax(gain))])
    return np.array(labels, np.uint8)


def drawn(seed: int, classes: int, pixels: int, spread: float) -> np.ndarray:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, spread, (classes, pixels)) + draw.normal(0, 1, (classes, 1))
    return reference.softmax(logits.astype(np.float32)).astype(np.float32)


@pytest.mark.parametrize("decode", RANKED)
@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 40), st.sampled_from([0.3, 1.5, 6.0]))
def test_labels_are_those_of_the_definition(decode, seed, classes, pixels, spread):
    p = drawn(seed, classes, pixels, spread)
    got, want = rankseg(p[None], decode)[0], by_loops(p.astype(np.float64), decode == "rankseg-dice")
    assert (got != want).sum() <= (1 if spread > 3 else 0)  # a gain that is a tie to the last digit


@pytest.mark.parametrize("decode", RANKED)
def test_labels_are_those_of_the_authors_package(decode):
    torch = pytest.importorskip("torch", reason="torch is not among the test dependencies; used where it is there")
    theirs = pytest.importorskip("rankseg")
    for seed in range(20):
        p = drawn(seed, 5, 400, 2.0)
        decided = theirs.RankSEG(metric="dice" if decode == "rankseg-dice" else "iou", solver="RMA").predict(
            torch.from_numpy(p.reshape(1, 5, 20, 20))
        )
        assert (rankseg(p[None], decode)[0] != decided.numpy().reshape(-1)).mean() < 0.005


@examples(20, interpreted=3)
@given(problem=problems(max_members=3))
def test_a_suppressed_class_never_appears(problem):
    logits, weights, suppressed = problem
    for decode in RANKED:
        labels = fuse(logits, "mean-prob", weights, Decoding(suppressed, decode=decode)).labels
        assert not np.isin(labels, list(suppressed)).any()


def test_the_expected_score_of_an_image_grows(world: World) -> None:
    """Of masks drawn from the probabilities themselves, the mean IoU is higher than that of the argmax."""
    draw = np.random.default_rng(1)
    gains = []
    for seed in range(10):
        p = drawn(seed, 3, 300, 1.0).astype(np.float64)
        plain, ranked = p.argmax(axis=0), rankseg(p[None].astype(np.float32), "rankseg")[0]
        for _ in range(60):
            truth = (p.cumsum(axis=0) < draw.random(300)).sum(axis=0)
            scores = [
                np.mean([((truth == c) & (m == c)).sum() / ((truth == c) | (m == c)).sum() for c in range(3)])
                for m in (plain, ranked)
            ]
            gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0


def test_commands_and_plans(world: World, engine: Engine, tmp_path: Path) -> None:
    files = ("-m", world.models, "-i", world.images_file)
    given_ = ("ensemble", *files, "--strategy", "mean-prob", "--decode", "rankseg")
    done = engine(*given_, "-o", tmp_path / "m.npy", "--scores", tmp_path / "s.npy", "--scores-type", "float32")
    assert done.code == 0, done.err
    masks, scores = np.load(tmp_path / "m.npy"), np.load(tmp_path / "s.npy")
    assert (masks != scores.argmax(axis=1)).any()
    np.testing.assert_array_equal(masks.reshape(7, -1), rankseg(scores.reshape(*scores.shape[:2], -1), "rankseg"))
    again = Ensemble.open(world.models, strategy="mean-prob", decode="rankseg").predict(world.images)
    np.testing.assert_array_equal(again, masks)
    plan = tmp_path / "e.toml"
    done = engine("select", "-m", world.models, "-i", world.images_file, "--labels", world.labels_file, "-o", plan,
                  "--folds", 2, "--pixels", 400, "--rankseg", "--json", "--strategies", "mean-prob")  # fmt: skip
    assert done.code == 0, done.err
    assert '"+ rankseg"' in done.out
    assert read_plan(plan).decode in (None, *RANKED)
    plan.write_text(plan.read_text("utf-8").replace("[[members]]", 'decode = "rankseg-dice"\n[[members]]', 1))
    assert read_plan(plan).decode == "rankseg-dice"
    for more, told in (
        (("--tile", "8x16"), "needs whole images"),
        (("--early-exit",), "drop one"),
        (("--decode", "best"), "allowed are argmax"),
    ):
        refused = engine(*given_, "-o", tmp_path / "n.npy", *more)
        assert (refused.code, told in refused.err) == (2, True), refused.err


def test_labels_have_no_probabilities() -> None:
    with pytest.raises(PlanError, match="allowed are argmax"):
        Decoding(decode="median")
