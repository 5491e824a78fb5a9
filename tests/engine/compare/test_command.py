"""``engine compare``: its scores against the plain engine, its honesty, its forms, its run file."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine import Ensemble
from engine.bootstrap import Bootstrap, GroupedCounts, ends, interval, paired_difference
from engine.compare.command import compare, open_inputs
from engine.compare.disagree import disagreement, reliability
from engine.compare.gallery import choose, rarest_class, shown
from engine.compare.options import CompareOptions
from engine.compare.printing import as_csv, as_dict, rows_table, unlabelled_table, verdict
from engine.compare.result import Comparison, Facts
from engine.compare.runfile import plain, read_run, write_run
from engine.compare.store import LogitStore
from engine.compare.study import Study, count
from engine.compare.tune import tune
from engine.errors import EngineError, OutputError
from engine.fusion.decoding import Decoding
from engine.fusion.strategies import STRATEGIES
from engine.inference.prediction import Variant
from engine.metrics import CONVENTIONS, Score, mean_iou
from engine.models.views import named_views
from engine.runs.options import Options
from engine.runs.predict import run
from engine.sources.base import Batch, from_array
from tests.conftest import Result
from tests.helpers.nets import FIVE, save_specialists
from tests.helpers.world import World

Engine = Callable[..., Result]
GROUPS = np.array([0, 0, 1, 1, 2, 2, 3])


@pytest.fixture(scope="module")
def scene(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models (one of them a set of specialists), images, labels a net half knows, and groups."""
    folder = tmp_path_factory.mktemp("compare")
    guess = Ensemble.open(world.models / "a.onnx").predict(world.images)
    kept = np.random.default_rng(5).random(guess.shape) < 0.6
    np.savez(
        folder / "val.npz",
        images=world.images,
        labels=np.where(kept, guess, world.labels).astype(np.uint8),
        groups=GROUPS,
    )
    save_specialists(folder / "set")
    return folder


def options(world: World, scene: Path, **more: object) -> CompareOptions:
    spec = str(scene / "val.npz")
    job = Options(models=(str(world.models), str(scene / "set")), input=spec, labels=more.pop("labels", spec))  # type: ignore[arg-type]
    given = {"groups": spec if job.labels else "", "pixels": 100_000, "folds": 2, "gallery": 2, **more}
    return CompareOptions(job, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(world: World, scene: Path) -> Comparison:
    return compare(options(world, scene))


def made(world: World, scene: Path, folder: Path, flips: str = "horizontal") -> Study:
    asked = options(world, scene)
    held = open_inputs(asked)
    store = LogitStore(folder, held.ensemble, held.images, turned=flips != "none")
    store.fill(held.images, named_views(flips)[1:], 2, 2, lambda count: None)
    return Study(held.ensemble, store, held.truth, held.groups, held.folds, asked.metric, asked.pixels, 0)


def row_of(facts: Facts, name: str, state: str):  # type: ignore[no-untyped-def]
    return next(row for row in facts.rows if (row.name, row.state) == (name, state))


def test_scores_are_those_of_the_plain_engine(world: World, scene: Path, done: Comparison) -> None:
    """Every member and strategy, raw and suppressed, under every convention: the store loses nothing."""
    ensemble = Ensemble.open([world.models, scene / "set"])
    with np.load(scene / "val.npz") as held:
        labels = from_array(held["labels"], "labels")
    plainly = run(ensemble, from_array(world.images), None, labels, ensemble.every_variant())
    assert len(plainly.scores) == 2 * (4 + len(STRATEGIES))
    for variant, want in plainly.scores.items():
        name = ensemble.variant_name(variant)
        row = row_of(done.facts, name, "suppressed" if variant.decoding.suppress else "raw")
        assert {key: found.value for key, found in row.scores.items()} == pytest.approx(want.all_conventions())
        np.testing.assert_array_equal(row.confusion, want.confusion)
    assert len(done.facts.rows) == 3 * (4 + len(STRATEGIES))


def test_rows_are_sorted_and_differences_are_to_the_best_single_member(done: Comparison) -> None:
    values = [row.scores["keras-ignore"].value for row in done.facts.rows]
    assert values == sorted(values, reverse=True)
    for convention in CONVENTIONS:
        base = done.facts.rows[done.facts.baseline[convention]]
        singles = [row.scores[convention].value for row in done.facts.rows if row.member >= 0]
        assert base.scores[convention].value == max(singles)
        assert (base.scores[convention].gain, base.scores[convention].gain_low) == (0, 0)
        for row in done.facts.rows:
            found = row.scores[convention]
            assert found.gain == pytest.approx(found.value - base.scores[convention].value, abs=1e-12)


def test_intervals_are_those_of_the_bootstrap() -> None:
    draw = np.random.default_rng(2)
    groups = np.array([0, 1, 1, 2, 3, 3, 3, 4])
    first, second = draw.integers(0, 50, (2, 8, 4, 4))
    held = Bootstrap(groups, 8, 0, seed=4)
    counts = [GroupedCounts.of(matrices, groups, 0) for matrices in (first, second)]
    for convention in CONVENTIONS:
        a, b = held.values(first)[convention], held.values(second)[convention]
        want = interval(counts[0], convention, seed=4)
        assert ends(a) == pytest.approx((want.value, want.low, want.high))
        want = paired_difference(*counts, convention, seed=4)
        assert ends(a - b) == pytest.approx((want.value, want.low, want.high))


def test_a_fold_is_scored_by_biases_that_never_saw_it(world: World, scene: Path, tmp_path: Path) -> None:
    """Whatever the labels of one fold become, its own biases stay; those of the other fold move."""
    study = made(world, scene, tmp_path, "none")
    assert study.truth is not None
    assert study.folds is not None
    variants = [Variant(name, Decoding(frozenset({0}))) for name in ("mean-prob", "vote", "max-confidence")]
    variants.append(Variant("mean-logit", Decoding(frozenset({0})), 1))
    truth = study.truth.copy()
    truth[study.folds == 0] = 1 + (truth[study.folds == 0] + 1) % 4
    before, after = tune(study, variants), tune(replace(study, truth=truth), variants)
    for one, other in zip(before, after, strict=True):
        assert one.fold_biases[0] == other.fold_biases[0]
    assert [one.fold_biases[1] for one in before] != [other.fold_biases[1] for other in after]


def test_tuned_counts_are_the_engines_with_each_folds_bias(world: World, scene: Path, tmp_path: Path) -> None:
    study = made(world, scene, tmp_path, "none")
    assert study.truth is not None
    assert study.folds is not None
    variant = Variant("mean-prob", Decoding(frozenset({0})))
    found = tune(study, [variant])[0]
    assert any(found.fold_biases)
    for fold, bias in enumerate(found.fold_biases):
        own = Ensemble(study.ensemble.members, "mean-prob", suppress=(0,), bias=bias)
        tiles = np.flatnonzero(study.folds == fold)
        masks = own.predict(world.images[tiles])
        score = Score(5)
        score.update(study.truth[tiles], masks.reshape(len(tiles), -1))
        np.testing.assert_array_equal(score.confusion, found.counts.matrices[tiles].sum(axis=0))


def test_flipped_logits_are_those_of_the_pipeline(world: World, scene: Path, tmp_path: Path) -> None:
    study = made(world, scene, tmp_path, "both")
    batch = Batch(2, ["2", "3"], world.images[2:4, ..., None])
    want = Ensemble(study.ensemble.members, flips="both").logits(batch)[0]
    np.testing.assert_array_equal(study.store.read(np.array([2, 3]), turned=True), want)
    plain_logits = Ensemble(study.ensemble.members).logits(batch)[0]
    np.testing.assert_array_equal(study.store.read(np.array([2, 3])), plain_logits)


def test_the_ablation_adds_one_step_at_a_time(done: Comparison) -> None:
    steps = done.facts.ablation
    names = [
        "best single member",
        "+ mean of all",
        "+ suppression",
        "+ flips",
        "+ selection",
        "+ class bias",
        "+ clean-up",
    ]
    assert [step.name for step in steps] == names
    assert steps[1].value == row_of(done.facts, "mean-prob", "raw").scores["keras-ignore"].value
    assert steps[2].value == row_of(done.facts, "mean-prob", "suppressed").scores["keras-ignore"].value
    raw = [row.scores["keras-ignore"].value for row in done.facts.rows if row.member >= 0 and row.state == "raw"]
    assert steps[0].value == max(raw)
    for before, after in pairwise(steps):
        assert after.change == pytest.approx(after.value - before.value, abs=1e-12)
        assert after.change_low <= after.change_high
    assert math.isnan(steps[0].change)
    assert all(step.rate > 0 for step in steps)


def test_disagreement_and_reliability_against_plain_loops(world: World, scene: Path, tmp_path: Path) -> None:
    study = made(world, scene, tmp_path, "none")
    assert study.truth is not None
    batch = Batch(0, [str(i) for i in range(7)], world.images[..., None])
    logits = study.ensemble.logits(batch)[0][study.ensemble._slot[1]]
    own = [Ensemble([m], suppress=(0,)).predict(world.images).reshape(7, -1) for m in study.ensemble.members]
    mean = Ensemble(study.ensemble.members, "mean-prob", suppress=(0,)).predict(world.images).reshape(7, -1)
    found = disagreement(study)
    np.testing.assert_allclose(found.agreement, [[(a == b).mean() for b in own] for a in own])
    against = np.mean([labels != mean for labels in own], axis=0)
    np.testing.assert_allclose(found.disputed, against.mean(axis=1))
    np.testing.assert_allclose(found.by_class, [against[study.truth == c].mean() for c in range(5)])

    curves, images = reliability(study)
    assert images == 7
    chances = np.exp(logits.astype(np.float64))
    chances = chances[:, 1:] / chances[:, 1:].sum(axis=1, keepdims=True)
    sure, guess, seen = chances.max(axis=1), 1 + chances.argmax(axis=1), study.truth != 0
    curve = curves[1]
    for index in range(15):
        inside = seen & (sure >= index / 15) & (sure < (index + 1) / 15)
        assert curve.weight[index] == pytest.approx(inside.sum() / seen.sum(), abs=2e-3)
        if inside.sum() > 20:
            assert curve.accuracy[index] == pytest.approx((guess == study.truth)[inside].mean(), abs=0.02)
    assert [held.name for held in curves[4:]] == ["mean of all members", "the mean, calibrated"]
    for held in curves:
        assert 0 <= held.error_low <= held.error <= held.error_high <= 1 or held.error_low <= held.error_high
        assert held.brier_low <= held.brier <= held.brier_high
    hot = np.eye(5)[study.truth].transpose(0, 2, 1)[:, 1:]
    brier = ((chances - hot) ** 2).sum(axis=1)[seen].mean()
    assert curve.brier == pytest.approx(brier, abs=1e-6)


def test_the_gallery_holds_the_worst_the_most_disputed_and_the_rarest(
    world: World, scene: Path, tmp_path: Path
) -> None:
    study = made(world, scene, tmp_path, "none")
    found = disagreement(study)
    counts = count(study, [study.reference], study.all_tiles)[study.reference]
    rarest = rarest_class(study, found)
    pixels = np.bincount(np.asarray(study.truth).ravel(), minlength=5)
    assert rarest == 1 + pixels[1:].argmin()
    chosen = choose(study, counts.matrices, found, rarest, 1)
    alone = [mean_iou(matrix.astype(np.int64), "labelled", 0) for matrix in counts.matrices]
    by_reason = {reason: index for index, reasons, _ in chosen for reason in reasons}
    assert by_reason["worst"] == int(np.argmin(alone))
    assert by_reason["disputed"] == int(np.argmax(found.disputed))
    assert by_reason["rarest"] == int(np.argmax(found.class_pixels[:, rarest]))


def test_pictures_are_what_was_predicted(world: World, scene: Path, done: Comparison) -> None:
    facts, pictures = done.facts, done.pictures
    assert facts.tiles
    with np.load(scene / "val.npz") as held:
        labels = held["labels"]
    members = Ensemble.open([world.models, scene / "set"]).members
    own = [Ensemble([member], suppress=(0,)).predict(world.images) for member in members]
    for place, tile in enumerate(facts.tiles):
        np.testing.assert_array_equal(pictures.images[place, ..., 0], world.images[tile.index])
        np.testing.assert_array_equal(pictures.truth[place], labels[tile.index])
        np.testing.assert_array_equal(pictures.members[place], [masks[tile.index] for masks in own])
        against = (pictures.members[place] != pictures.fused[place]).mean()
        assert tile.disputed == pytest.approx(against)


def test_pixels_of_any_kind_become_a_picture() -> None:
    assert shown(np.array([[0.0, 1.0]]))[0, 1] == 255
    assert shown(np.array([[-5.0, 5.0]])).tolist() == [[0, 255]]
    assert shown(np.array([[3.0, 200.0]])).tolist() == [[3, 200]]
    assert shown(np.array([[np.nan, np.inf]])).tolist() == [[0, 0]]


def test_without_labels_there_is_speed_agreement_and_share(world: World, scene: Path) -> None:
    found = compare(options(world, scene, labels=""))
    facts = found.facts
    assert (facts.labels, facts.ablation, facts.curves, facts.trap, found.pictures.truth.shape[0]) == (
        "",
        [],
        [],
        "",
        0,
    )
    assert len(facts.rows) == 2 * (4 + len(STRATEGIES))
    masks = Ensemble.open([world.models, scene / "set"], strategy="vote").predict(world.images)
    mean = Ensemble.open([world.models, scene / "set"], strategy="mean-prob").predict(world.images)
    row = row_of(facts, "vote", "suppressed")
    assert row.share == pytest.approx((np.bincount(masks.ravel(), minlength=5) / masks.size).tolist())
    assert row.agreement == pytest.approx((masks == mean).mean())
    assert not any("worst" in tile.reasons for tile in facts.tiles)
    assert unlabelled_table(facts, everything=True).row_count == len(facts.rows)
    distinct = {(tuple(row.share), row.agreement) for row in facts.rows}
    assert unlabelled_table(facts).row_count == len(distinct)
    assert (facts.risk_curves, facts.risk_bounds) == ([], [])
    lines = list(csv.DictReader(io.StringIO(as_csv(facts))))
    assert float(lines[0][f"share {FIVE[1]}"]) == pytest.approx(facts.rows[0].share[1], abs=1e-6)


def test_the_command_line_prints_table_json_and_csv(world: World, scene: Path, engine: Engine, tmp_path: Path) -> None:
    spec = scene / "val.npz"
    base = ["compare", "-m", world.models, "-i", spec, "--labels", spec, "--groups", spec]
    base += ["--folds", 2, "--no-ablation", "--gallery", 1, "--pixels", 300]
    table = engine(*base, "-o", tmp_path / "run.npz")
    assert (table.code, "95% intervals over 4 groups" in table.out) == (0, True)
    assert "engine report" in table.err
    assert all(len(line) <= 80 for line in table.out.splitlines())
    told = json.loads(engine(*base, "--json").out)
    assert [row["best"] for row in told["rows"]] == [True] + [False] * (len(told["rows"]) - 1)
    assert told["ablation"] == []
    lines = list(csv.DictReader(io.StringIO(engine(*base, "--csv").out)))
    assert len(lines) == len(told["rows"]) * len(CONVENTIONS)
    assert sum(line["best"] == "yes" for line in lines) == len(CONVENTIONS)
    again = read_run(tmp_path / "run.npz")
    assert [row.name for row in again.facts.rows] == [row["name"] for row in told["rows"]]


def test_order_and_place_of_the_models_do_not_show(world: World, scene: Path, done: Comparison) -> None:
    asked = options(world, scene)
    turned = replace(asked, job=replace(asked.job, models=asked.job.models[::-1]), workers=1, batch_size=3)
    other = compare(turned)
    assert other.facts.run_sha256 == done.facts.run_sha256
    mine, theirs = (
        {(row.name, row.state): (row.scores, row.confusion, row.fold_biases) for row in facts.rows}
        for facts in (done.facts, other.facts)
    )
    assert mine == theirs
    assert compare(replace(asked, seed=1, ablation=False)).facts.run_sha256 != done.facts.run_sha256


def test_a_run_reads_back_as_it_was(done: Comparison, tmp_path: Path) -> None:
    write_run(tmp_path / "run.npz", done)
    again = read_run(tmp_path / "run.npz")
    assert plain(asdict(again.facts)) == plain(asdict(done.facts))
    for name in ("images", "truth", "fused", "members"):
        np.testing.assert_array_equal(getattr(again.pictures, name), getattr(done.pictures, name))
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    assert json.dumps(as_dict(again.facts), allow_nan=False)


def test_a_wide_terminal_shows_every_convention(done: Comparison) -> None:
    assert len(rows_table(done.facts, 200).columns) == len(rows_table(done.facts, 80).columns) + len(CONVENTIONS) - 1


def test_verdicts(done: Comparison) -> None:
    found = done.facts.rows[0].scores["all"]
    assert verdict(replace(found, gain_low=0.1, gain_high=0.2)) == "better"
    assert verdict(replace(found, gain_low=-0.2, gain_high=-0.1)) == "worse"
    assert verdict(replace(found, gain_low=-0.1, gain_high=0.1)) == "may be chance"
    assert verdict(replace(found, gain_low=math.nan, gain_high=math.nan)) == "unknown"


def test_a_full_disk_is_said_before_anything_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = Ensemble.open(world.models)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2**28 + 100}))
    with pytest.raises(OutputError, match="--scratch"):
        LogitStore(tmp_path, ensemble, from_array(world.images), turned=False)
    assert not list(tmp_path.iterdir())


BASE = "compare -m {models} -i {val} "
SCORED = BASE + "--labels {val} "
REFUSED = {
    "no models": ("compare -i {val}", ["--models"]),
    "no images": ("compare -m {models}", ["--input"]),
    "missing labels": (BASE + "--labels nope.npz", ["nope.npz"]),
    "groups without labels": (BASE + "--groups {val}", ["--groups", "--labels"]),
    "unknown metric": (SCORED + "--metric miou", ["miou", "keras-ignore"]),
    "unknown view": (SCORED + "--views sideways", ["sideways", "horizontal"]),
    "one fold": (SCORED + "--folds 1", ["--folds 1", "2 to 1000"]),
    "no pixels": (SCORED + "--pixels 0", ["--pixels 0"]),
    "workers below 0": (SCORED + "--workers=-1", ["--workers -1"]),
    "limit below 0": (SCORED + "--limit=-1", ["--limit -1"]),
    "one image": (SCORED + "--limit 1", ["one labelled image"]),
    "json and csv": (SCORED + "--json --csv", ["--json", "--csv"]),
    "no such scratch": (SCORED + "--scratch nope", ["nope"]),
    "run is no npz": (SCORED + "-o run.json", ["run.json", ".npz"]),
    "run is the input": (SCORED + "-o {val} --overwrite", ["--input"]),
    "run exists": (SCORED + "-o here.npz", ["here.npz", "--overwrite"]),
    "no such folder": (SCORED + "-o no/run.npz", ["no such folder"]),
    "groups of other length": (SCORED + "--groups six.npz", ["6 groups", "7 images"]),
    "one group": (SCORED + "--groups same.npz", ["one group"]),
    "labels all ignored": (BASE + "--labels zeros.npz", ["ignored class 0"]),
    "labels outside": (BASE + "--labels nines.npz", ["holds 9", "0 to 4"]),
    "suppress unknown": (SCORED + "--suppress cheese", ["cheese"]),
    "a packed ensemble": ("compare -m packed.onnx -i {val}", ["packed"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line(
    name: str, world: World, scene: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers.nets import save_member

    monkeypatch.chdir(tmp_path)
    Path("here.npz").write_text("mine")
    np.savez("six.npz", groups=np.zeros(6, int))
    np.savez("same.npz", groups=np.zeros(7, int))
    np.savez("zeros.npz", labels=np.zeros_like(world.labels))
    np.savez("nines.npz", labels=np.full_like(world.labels, 9))
    if "packed" in name:
        save_packed(Path("packed.onnx"), save_member)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    command, facts = REFUSED[name]
    words = [word.format(models=world.models, val=scene / "val.npz") for word in shlex.split(command)]
    result = engine(*words)
    lines = [line for line in result.err.splitlines() if not line.startswith("warning: no --groups")]
    assert (result.code, result.out, len(lines)) == (2, "", 1), result.err
    assert lines[0].startswith("error: ")
    for fact in facts:
        assert fact in lines[0]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def save_packed(path: Path, save_member: Callable[..., Path]) -> None:
    """A stand-in: what counts is that the contract says it is packed."""
    import onnx
    from onnx import TensorProto, helper

    from engine.models.contract import LABELS, METADATA_KEY, ModelContract

    shape = ["N", 1, "H", "W"]
    nodes = [
        helper.make_node("Squeeze", ["image", "one"], ["flat"]),
        helper.make_node("Cast", ["flat"], [LABELS], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(LABELS, TensorProto.UINT8, ["N", "H", "W"])],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    contract = ModelContract(classes=FIVE, kind="packed", input_layout="NCHW", ignored_class=0)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)


def test_sources_in_memory_are_fingerprinted_alike(world: World) -> None:
    from engine.select.cache import pixel_hash

    assert pixel_hash(from_array(world.images)) != pixel_hash(from_array(world.images + 1))


def test_errors_are_the_projects_own(world: World, scene: Path) -> None:
    with pytest.raises(EngineError):
        compare(replace(options(world, scene), metric="nonsense"))
