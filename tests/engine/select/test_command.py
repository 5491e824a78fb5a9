"""Selection: the search against brute force, its scores against the plain engine, its honesty, cache and refusals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine import Ensemble
from engine.fusion.decoding import Decoding
from engine.fusion.fuse import fuse
from engine.fusion.strategies import STRATEGIES
from engine.metrics import CONVENTIONS, Score, mean_iou
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from engine.runs.provenance import plan_hash
from engine.select import cache as caching
from engine.select.additive import ADDITIVE
from engine.select.biases import LEAST_GAIN, fused_lines, tune_bias
from engine.select.cache import log_probabilities
from engine.select.crossfit import LEVELS, ROW_LEVELS, assign_folds, cross_fit
from engine.select.deadline import Deadline
from engine.select.pool import Choice, Pool
from engine.select.rows import FINALISTS, plain_rows, tuned_rows
from engine.select.sample import draw
from engine.select.search import Settings, bagged, exhaustive, greedy, prepare, prepare_all, search
from engine.select.whole_images import score, tune_region
from tests.conftest import Result
from tests.helpers.nets import FIVE, save_member, save_net, save_specialists

Engine = Callable[..., Result]
SIZE = (6, 8)
TILES, PIXELS, CLASSES = 12, SIZE[0] * SIZE[1], 5
ALL = 10**6


class Member:
    """As much of a member as a pool looks at."""

    def __init__(self, is_set: bool = False) -> None:
        self.is_set = is_set


def made(members: int = 4, seed: int = 0, suppress: tuple[int, ...] = (0,), sets: tuple[int, ...] = ()) -> Pool:
    """A pool of members that see the truth through noise of their own, the later the worse."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(CLASSES, (TILES, PIXELS), p=[0.2, 0.4, 0.2, 0.15, 0.05]).astype(np.uint8)
    shown = np.eye(CLASSES, dtype=np.float32)[truth].transpose(0, 2, 1)
    logits = [3 * shown + rng.normal(0, 2 + m / 2, shown.shape).astype(np.float32) for m in range(members)]
    return Pool(
        [Member(m in sets) for m in range(members)],  # type: ignore[misc]
        [log_probabilities(z) for z in logits],
        truth,
        np.arange(TILES) // 2,
        SIZE,
        FIVE,
        0,
        frozenset(suppress),
    )


def drawn(pool: Pool, convention: str = "labelled", pixels: int = ALL):
    folds = assign_folds(pool.truth, pool.groups, 3, CLASSES, 0)
    return draw(pool, convention, folds, pixels, 0), folds


def plain(pool: Pool, choice: Choice, convention: str, tiles=slice(None)) -> float:
    """What fuse and metrics say of a choice, image by image."""
    labels = fuse(
        np.stack([pool.floored(m, np.asarray(pool.logs[m], np.float32).copy()) for m in choice.members]),
        choice.strategy,
        choice.weights,
        choice.decoding,
    ).labels
    held = Score(CLASSES, pool.ignored_class)
    held.update(pool.truth[tiles], labels[tiles])
    return held.mean_iou(convention)


@pytest.mark.parametrize("strategy", ADDITIVE)
@pytest.mark.parametrize("suppress", [(), (0,), (0, 3)])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_candidate_scores_as_the_plain_engine_says(strategy: str, suppress: tuple[int, ...], convention: str) -> None:
    pool = made(suppress=suppress, sets=(1,))
    sample, _ = drawn(pool, convention)
    found = prepare(sample, strategy, 20)
    sets = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [3, 1, 0, 2], [1, 1, 1, 1], [0, 2, 5, 0]], np.int32)
    want = [plain(pool, Choice(strategy, tuple(row), pool.decoding), convention) for row in sets.tolist()]
    np.testing.assert_allclose(found.sets(sets), want, atol=4e-3)
    assert found.tried == len(sets)
    base = found.total((3, 1, 0, 1))
    np.testing.assert_allclose(found.additions(base)[3], want[2], atol=4e-3)
    # Odd numbers: a bias that is a multiple of a rank would make ties that rounding decides.
    bias = np.array([[0.0, 0.3137, -0.2071, 0.0, 0.1013]])
    biased = Choice(strategy, (3, 1, 0, 2), replace(pool.decoding, bias=tuple(bias[0].tolist())))
    lines = found.lines((3, 1, 0, 2))
    np.testing.assert_allclose(lines.score(bias[0]), plain(pool, biased, convention), atol=4e-3)
    assert found.lines((3, 1, 0, 1)).score(np.zeros(5)) == found.sets(np.array([[3, 1, 0, 1]], np.int32))[0]
    # Each value on a line is the bias it stands for, the middle of each the present one.
    on_lines = lines.scores(bias[0], 0.0625, 2)
    assert on_lines.shape == (len(sample.allowed), 5)
    for place, class_id in enumerate(sample.allowed):
        moved = [bias[0] + 0.0625 * step * np.eye(5)[class_id] for step in range(-2, 3)]
        np.testing.assert_allclose(on_lines[place], [lines.score(other) for other in moved], atol=1e-3)


@pytest.mark.parametrize("strategy", ["median-prob", "trimmed-mean", "max-confidence", "mean-prob"])
def test_any_choice_scores_as_the_plain_engine_says(strategy: str) -> None:
    pool = made(sets=(2,))
    sample, folds = drawn(pool, "all")
    choice = Choice(strategy, (2, 1, 1, 0), replace(pool.decoding, threshold=0.6, bias=(0.0, 0.1, 0.0, 0.0, 0.0)))
    confusions = sample.fused_confusions(choice)
    assert sample.objective(confusions, None)[0] == pytest.approx(plain(pool, choice, "all"))
    kept = np.flatnonzero(folds != 1)
    assert sample.objective(confusions, 1)[0] == pytest.approx(plain(pool, choice, "all", kept))
    assert pool.confusions(choice).sum(axis=0).tolist() == np.rint(confusions[0].sum(axis=0)).tolist()


def test_a_sample_stands_for_all_pixels() -> None:
    pool = made()
    for convention in ("labelled", "all", "per-image"):
        whole, folds = drawn(pool, convention)
        few = draw(pool, convention, folds, 150, 0)
        assert (
            whole.available
            == few.available
            == (pool.truth != 0).sum() + (convention == "all") * (pool.truth == 0).sum()
        )
        assert few.logits.shape[2] < 350 < whole.logits.shape[2] == whole.available
        choice = Choice("mean-prob", (1, 1, 1, 1), pool.decoding)
        one, other = (side.fused_confusions(choice).sum(axis=(0, 1, 3)) for side in (whole, few))
        np.testing.assert_allclose(one, other)
        score_whole, score_few = (side.objective(side.fused_confusions(choice), None)[0] for side in (whole, few))
        assert score_few == pytest.approx(score_whole, abs=0.12)
    rare = draw(pool, "labelled", folds, 150, 0)
    kept = np.diff(rare.starts).reshape(-1, CLASSES).sum(axis=0)
    assert kept[0] == 0
    assert kept[4] > kept[1:].sum() / 8


@pytest.mark.parametrize("strategy", ["mean-logit", "vote"])
def test_exhaustive_search_finds_the_best_subset(strategy: str) -> None:
    for seed in range(3):
        pool = made(5, seed)
        sample, _ = drawn(pool)
        found = prepare(sample, strategy, 20)
        counts, value = exhaustive(found)
        assert found.tried == 31
        sets = [row for row in itertools.product((0, 1), repeat=5) if any(row)]
        every = {row: found.sets(np.array([row], np.int32))[0] for row in sets}
        assert value == max(every.values()) == every[counts]
        assert sum(counts) == min(sum(row) for row in sets if every[row] == value)
        assert value == pytest.approx(plain(pool, Choice(strategy, counts, pool.decoding), "labelled"), abs=4e-3)


def test_greedy_is_never_below_the_best_member_and_may_repeat_one() -> None:
    weighted = False
    for seed in range(4):
        sample, _ = drawn(made(5, seed))
        found = prepare(sample, "mean-prob", 40)
        counts, value = greedy(found, 12)
        alone = found.additions(found.total((0,) * 5))
        assert value >= alone.max()
        assert value == found.sets(np.array([counts], np.int32))[0]
        assert greedy(found, 0)[1] <= value
        weighted |= max(counts) > 1
        some, value = bagged(found, 4, 3, seed)
        assert value == found.sets(np.array([some], np.int32))[0]
        only, _ = greedy(found, 5, [1, 3])
        assert not any(only[index] for index in (0, 2, 4))
    assert weighted


def test_a_bias_is_searched_and_kept_only_where_it_gains() -> None:
    pool = made()
    skewed = [np.asarray(z, np.float32) + np.array([0, 2.5, 0, 0, 0], np.float32)[:, None] for z in pool.logs]
    pool = replace(pool, logs=[log_probabilities(z) for z in skewed])
    sample, _ = drawn(pool)
    found = prepare(sample, "mean-logit", 20)
    start = Choice("mean-logit", (1, 1, 0, 0), pool.decoding, found.sets(np.array([[1, 1, 0, 0]], np.int32))[0])
    tuned = tune_bias(start, found.lines(start.counts))
    assert tuned.score > start.score + 0.02
    assert tuned.decoding.bias[1] - max(tuned.decoding.bias[2:]) < -1
    assert tuned.score == pytest.approx(plain(pool, tuned, "labelled"), abs=4e-3)
    over = tune_bias(start, found.lines(start.counts), Deadline(0.0))
    assert over.decoding == start.decoding and over.score == start.score


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ADDITIVE])
def test_a_bias_of_any_strategy_scores_as_the_plain_engine_says(strategy: str) -> None:
    pool = made(suppress=(0,), sets=(2,))
    sample, _ = drawn(pool, "labelled")
    choice = Choice(strategy, (1, 1, 1, 1), pool.decoding)
    bias = np.array([0.0, 0.0517, -0.0371, 0.0, 0.0113])
    biased = replace(choice, decoding=replace(pool.decoding, bias=tuple(bias.tolist())))
    want = sample.objective(sample.fused_confusions(biased), None)[0]
    np.testing.assert_allclose(fused_lines(sample, choice).score(bias), want, atol=1e-3)


def test_the_plan_is_never_behind_a_member_or_strategy_with_class_biases() -> None:
    pool = made()
    # One member is good once its biases are found, and spoils every mean.
    skewed = 4 * np.asarray(pool.logs[0], np.float32) + np.array([0, 9, -9, 6, -6], np.float32)[:, None]
    pool = replace(pool, logs=[log_probabilities(skewed), *pool.logs[1:]])
    sample, folds = drawn(pool)
    settings = Settings(rounds=3)
    fitted = cross_fit(pool, sample, folds, settings, clean_up=False, rows=tuple(STRATEGIES))
    found = score(pool, fitted.best.cross, "labelled")
    scorers = prepare_all(sample, settings)
    fits, _ = tuned_rows(sample, plain_rows(pool, tuple(STRATEGIES)), scorers, 3)
    assert len(fits) == FINALISTS
    for fit in fits:
        assert found >= score(pool, fit.cross(pool, folds), "labelled") - LEAST_GAIN
    for row in plain_rows(pool, tuple(STRATEGIES)):
        assert found >= score(pool, pool.confusions(row), "labelled") - LEAST_GAIN
    alone = [score(pool, matrices, "labelled") for matrices in fitted.alone]
    assert score(pool, fitted.best.same, "labelled") >= max(alone)
    assert [level.name for level in fitted.levels] == [*LEVELS, *ROW_LEVELS]


def test_a_budget_ends_the_search_with_the_best_so_far() -> None:
    pool = made()
    sample, folds = drawn(pool)
    short = cross_fit(pool, sample, folds, Settings(), rows=tuple(STRATEGIES), budget=1e-6)
    whole = cross_fit(pool, sample, folds, Settings(), rows=tuple(STRATEGIES))
    assert 0 < short.tried < whole.tried
    assert not any(level.choice.decoding.bias for level in short.levels)


def test_a_search_goes_through_its_steps_and_sees_no_pixel_of_the_fold_left_out() -> None:
    pool = made()
    sample, folds = drawn(pool, "all")
    settings = Settings(rounds=6)
    scorers = prepare_all(sample, settings)
    steps, tried = search(sample, settings, scorers, fold=1)
    assert tried > 100
    assert steps[0].score <= steps[1].score <= steps[2].score
    spoiled = pool.truth.copy()
    spoiled[folds == 1] = 4 - spoiled[folds == 1]
    other = draw(replace(pool, truth=spoiled), "all", folds, ALL, 0)
    assert search(other, settings, prepare_all(other, settings), fold=1) == (steps, tried)
    assert search(other, settings, prepare_all(other, settings))[0] != search(sample, settings, scorers)[0]
    plainest = Settings(strategies=("median-prob",), rounds=3, bias=False, threshold=False)
    steps, _ = search(sample, plainest, prepare_all(sample, plainest))
    assert {step.strategy for step in steps} == {"median-prob"}
    assert steps[0] == steps[2]


def test_folds_keep_groups_together() -> None:
    pool = made()
    for folds in (2, 3, 6):
        dealt = assign_folds(pool.truth, pool.groups, folds, CLASSES, 0)
        assert sorted(set(dealt.tolist())) == list(range(folds))
        for group in range(6):
            assert len(set(dealt[pool.groups == group].tolist())) == 1
    assert len(set(assign_folds(pool.truth, None, TILES, CLASSES, 0).tolist())) == TILES


def test_cross_fitting_scores_each_image_by_a_choice_that_has_not_seen_it() -> None:
    pool = made()
    sample, folds = drawn(pool)
    fitted = cross_fit(pool, sample, folds, Settings(rounds=4))
    assert [level.name for level in fitted.levels] == list(LEVELS)
    for level in fitted.levels:
        for fold, choice in enumerate(level.fold_choices):
            held = np.flatnonzero(folds == fold)
            np.testing.assert_array_equal(level.cross[held], pool.confusions(choice, held))
        np.testing.assert_array_equal(level.same, pool.confusions(level.choice))
    scores = [score(pool, level.cross, "labelled") for level in fitted.levels]
    assert scores[fitted.chosen] >= max(scores) - 1e-3
    # Where the held-out truth is what the worst member says, nothing made without it may change.
    spoiled = pool.truth.copy()
    spoiled[folds == 0] = pool.labels(Choice("mean-prob", (0, 0, 0, 1), pool.decoding), np.flatnonzero(folds == 0))
    other = replace(pool, truth=spoiled)
    again = cross_fit(other, draw(other, "labelled", folds, ALL, 0), folds, Settings(rounds=4))
    assert again.levels[0].choice.members == [3] != fitted.levels[0].choice.members
    for one, two in zip(fitted.levels, again.levels, strict=True):
        assert replace(one.fold_choices[0], score=0) == replace(two.fold_choices[0], score=0)


def test_clean_up_is_kept_only_where_no_class_loses() -> None:
    pytest.importorskip("cc3d")
    truth = np.ones((4, *SIZE), np.uint8)
    truth[:, :, 5:] = 2
    shown = truth.copy()
    shown[:, 2, 2] = 3
    speckled = pool_of(truth, shown)
    everything = np.arange(4)
    choice = Choice("mean-prob", (1, 1), speckled.decoding)
    assert tune_region(speckled, choice, everything, "labelled").decoding.min_region > 1
    # The speck is right: clean-up would gain class 1 nothing and lose class 3.
    real = truth.copy()
    real[:, 2, 2] = 3
    noisy = shown.copy()
    noisy[:, 4, 1] = 2
    assert tune_region(pool_of(real, noisy), choice, everything, "labelled").decoding.min_region == 0


def pool_of(truth: np.ndarray, shown: np.ndarray) -> Pool:
    logits = 5 * np.eye(CLASSES, dtype=np.float32)[shown.reshape(len(shown), -1)].transpose(0, 2, 1)
    logs = log_probabilities(np.ascontiguousarray(logits))
    members = [Member(), Member()]
    flat = truth.reshape(len(truth), -1)
    return Pool(members, [logs, logs], flat, None, SIZE, FIVE, 0, frozenset({0}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of four nets and a set of specialists, twelve images of six scenes, and their labels."""
    folder = tmp_path_factory.mktemp("select")
    (folder / "pool").mkdir()
    for seed in range(4):
        save_member(folder / "pool" / f"n{seed}.onnx", seed)
    save_specialists(folder / "pool")
    rng = np.random.default_rng(3)
    images = rng.integers(0, 240, (TILES, *SIZE)).astype(np.uint8)
    voted = Ensemble.open(folder / "pool", suppress=(), strategy="vote").predict(images)
    labels = np.where(rng.random(voted.shape) < 0.4, rng.integers(0, 5, voted.shape), voted).astype(np.uint8)
    np.savez(folder / "val.npz", images=images, labels=labels, groups=np.arange(TILES) // 2)
    return folder


def arguments(place: Path, out: Path, *more: object) -> tuple[object, ...]:
    val = place / "val.npz"
    return (
        "select",
        "-m",
        place / "pool",
        "-i",
        val,
        "--labels",
        val,
        "--out",
        out,
        "--rounds",
        4,
        "--folds",
        3,
        *more,
    )


def test_the_plan_gives_the_scores_that_were_told(place: Path, tmp_path: Path, engine: Engine) -> None:
    out = tmp_path / "e.toml"
    done = engine(*arguments(place, out, "--groups", f"{place}/val.npz:groups", "--metric", "labelled", "--json"))
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["images"], told["groups"], told["folds"]) == (TILES, 6, 3)
    assert [level["name"] for level in told["levels"]] == [*LEVELS, *ROW_LEVELS]
    chosen = next(level for level in told["levels"] if level["chosen"])
    best = max(level["cross_fitted"]["score"] for level in told["levels"])
    assert chosen["cross_fitted"]["score"] >= best - 1e-3
    ran = engine("ensemble", "--plan", out, "-i", place / "val.npz", "-o", tmp_path / "m.npz", "--labels",
                 place / "val.npz", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    own = next(row for row in json.loads(ran.out)["scores"] if row["own"])
    assert own["miou"]["labelled"] == pytest.approx(chosen["same_images"], abs=4e-3)
    with np.load(tmp_path / "m.npz") as masks:
        assert json.loads(masks["metadata"].item())["plan_sha256"] == told["plan_sha256"]
    text = out.read_text()
    assert f"# SHA-256 of the plan: {told['plan_sha256']}" in text
    assert "# Cross-fitted score: " in text
    assert "# Score on the images it was selected on (optimistic): " in text
    opened = open_ensemble(read_plan(out), Options(), None)
    assert plan_hash(opened) == told["plan_sha256"]
    assert opened.variant.decoding.suppress == {0}


def test_one_table_on_stdout(place: Path, tmp_path: Path, engine: Engine) -> None:
    done = engine(*arguments(place, tmp_path / "e.toml", "--method", "exhaustive", "--strategies", "vote,mean-prob",
                             "--no-clean-up", "--no-threshold", "--no-bias"))  # fmt: skip
    assert done.code == 0, done.err
    for name in ("n0", "n3", "set", *LEVELS, *ROW_LEVELS):
        assert name in done.out
    assert "warning: no --groups" in done.err
    assert "candidate ensembles on" in done.err
    assert read_plan(tmp_path / "e.toml").strategy in ("vote", "mean-prob", "mean-logit")


def test_flips_and_foreign_files_reach_the_plan(place: Path, tmp_path: Path, engine: Engine) -> None:
    for seed in range(2):
        save_net(tmp_path / f"f{seed}.onnx", seed=seed)
    stated = ("--classes", ",".join(FIVE), "--scale", 1 / 255, "--activation", "logits", "--ignored-class", 0)
    val, out = place / "val.npz", tmp_path / "e.toml"
    done = engine("select", "-m", tmp_path, "-i", val, "--labels", val, "-o", out, "--flips", "horizontal", *stated)
    assert done.code == 0, done.err
    assert read_plan(out).flips == "horizontal"
    assert engine("ensemble", "--plan", out, "-i", val, "-o", tmp_path / "m.npy").code == 0


def test_members_run_once_for_all_selections(
    place: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    predict = caching._predicted

    def counted(member, *rest):  # type: ignore[no-untyped-def]
        ran.append(member.name)
        return predict(member, *rest)

    monkeypatch.setattr(caching, "_predicted", counted)
    kept = tmp_path / "kept"
    call = arguments(place, tmp_path / "e.toml", "--cache", kept, "--overwrite", "--json", "--no-clean-up")

    def again(*more: object) -> list[str]:
        ran.clear()
        done = engine(*call, *more)
        assert done.code == 0, done.err
        outs.append({key: value for key, value in json.loads(done.out).items() if key != "seconds"})
        return sorted(ran)

    outs: list[dict] = []
    whole = ["n0", "n1", "n2", "n3", "set"]
    assert again() == whole
    assert again() == []
    assert outs[0] == outs[1]
    assert again("--flips", "vertical") == whole
    arrays = sorted(kept.glob("*.npy"))
    assert len(arrays) == 10
    assert not list(kept.glob(".*"))
    again()
    # Damage of every kind: one byte, a cut, another array, a lost or foreign note.
    mine = [path for path in arrays if json.loads(path.with_suffix(".json").read_text())["flips"] == "none"]
    raw = bytearray(mine[0].read_bytes())
    raw[-7] ^= 1
    mine[0].write_bytes(raw)
    mine[1].write_bytes(mine[1].read_bytes()[:-100])
    np.save(mine[2], np.zeros((TILES, 5, PIXELS), np.float16))
    mine[3].with_suffix(".json").unlink()
    mine[4].with_suffix(".json").write_text("[]")
    assert again() == whole
    assert outs[-1] == outs[0]
    assert again() == []
    with np.load(place / "val.npz") as val:
        np.savez(tmp_path / "other.npz", images=255 - val["images"], labels=val["labels"])
    assert again("-i", tmp_path / "other.npz") == whole


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("-m", "{pool}/n0.onnx"), "a pool of 1 member leaves nothing to select"),
        (("--metric", "miou"), "unknown metric 'miou'"),
        (("--method", "magic"), "unknown method 'magic'"),
        (("--strategies", "staple"), "staple is fitted to whole images"),
        (("--strategies", "best"), "unknown strategy 'best'"),
        (("--rounds", "-1"), "--rounds -1"),
        (("--folds", "1"), "--folds 1"),
        (("--pixels", "5"), "--pixels 5"),
        (("--groups", "short.npy"), "11 groups for 12 images"),
        (("--groups", "one.npy"), "all images are of one group"),
        (("--labels", "small.npz"), "must be of one size"),
        (("--labels", "few.npz"), "give one each"),
        (("--labels", "empty.npz"), "no labelled pixel"),
        (("--labels", "high.npz"), "allowed are 0 to 4"),
        (("--out", "e.txt"), "the plan is a .toml file"),
        (("--out", "none/e.toml"), "no such folder"),
        (("--cache", "short.npy"), "as cache"),
        (("--views", "sideways"), "unknown view"),
        (("--views", "auto:d4/shift:9"), "unknown view"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    more: tuple[str, ...], told: str, place: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("short.npy", np.zeros(TILES - 1, int))
    np.save("one.npy", np.zeros(TILES, int))
    np.savez("small.npz", labels=np.ones((TILES, 3, 8), np.uint8))
    np.savez("few.npz", labels=np.ones((TILES - 1, *SIZE), np.uint8))
    np.savez("empty.npz", labels=np.zeros((TILES, *SIZE), np.uint8))
    np.savez("high.npz", labels=np.full((TILES, *SIZE), 5, np.uint8))
    before = sorted(path.name for path in tmp_path.iterdir())
    given = {"-m": place / "pool", "-i": place / "val.npz", "--labels": place / "val.npz", "--out": "e.toml"}
    given |= {key: value.format(pool=place / "pool") for key, value in zip(more[::2], more[1::2], strict=True)}
    done = engine("select", *itertools.chain(*given.items()))
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if not line.startswith("warning: no --groups")]
    assert len(lines) == 1
    assert told in lines[0]
    assert done.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_existing_plan_is_kept(place: Path, tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "e.toml").write_text("mine")
    done = engine(*arguments(place, tmp_path / "e.toml"))
    assert (done.code, (tmp_path / "e.toml").read_text()) == (2, "mine")


def test_mean_iou_of_a_choice_is_over_the_pools_own_classes() -> None:
    pool = made(suppress=())
    choice = Choice("mean-prob", (1, 0, 0, 0), Decoding())
    matrices = pool.confusions(choice)
    for convention in CONVENTIONS[:-1]:
        assert score(pool, matrices, convention) == pytest.approx(mean_iou(matrices.sum(axis=0), convention, 0))
