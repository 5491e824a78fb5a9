"""The command line as a user meets it: what it writes, where it prints, what it leaves out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import typer
from PIL import Image

from engine import Ensemble
from engine.errors import EngineError
from engine.metrics import CONVENTIONS, Score
from engine.utils.palette import colours
from engine.version import VERSION
from tests.conftest import ROOT, Result
from tests.helpers.nets import save_member
from tests.helpers.world import World

Engine = Callable[..., Result]
NAMES = ("crater, small", 'dune "9"', "größe", "site.2", "x", "y z", "z")


@pytest.fixture
def tiles(world: World, tmp_path: Path) -> tuple[Path, Path]:
    """The same images and labels as folders of pictures, with names that need care."""
    folders = tmp_path / "tiles", tmp_path / "truth"
    for folder, stack in zip(folders, (world.images, world.labels), strict=True):
        folder.mkdir()
        for name, array in zip(NAMES, stack, strict=True):
            Image.fromarray(array).save(folder / f"{name}.png")
    return folders


def read(path: Path, shape: tuple[int, ...]) -> tuple[list[str], np.ndarray]:
    """Ids and masks of any form, read by other programs than ours."""
    if path.suffix == ".csv":
        table = pandas.read_csv(path, dtype={"id": str})
        assert list(table.columns) == ["id", *map(str, range(shape[1] * shape[2]))]
        return list(table["id"]), table.iloc[:, 1:].to_numpy().reshape(shape)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return list(archive["ids"]), archive["masks"]
    if path.suffix == ".npy":
        return [], np.load(path, allow_pickle=False)
    files = sorted(path.iterdir())
    for file in files:
        with Image.open(file) as image:
            assert image.mode == "P"
            assert image.getpalette()[:15] == [value for colour in colours(5) for value in colour]
    return [file.stem for file in files], np.stack([np.asarray(Image.open(file)) for file in files])


@pytest.mark.parametrize("goal", ["masks.csv", "masks.npz", "masks.npy", "masks"])
def test_every_form_holds_the_same_masks_and_evaluates_alike(
    goal: str, world: World, tiles: tuple[Path, Path], tmp_path: Path, engine: Engine
) -> None:
    output = tmp_path / goal
    run = engine("ensemble", "-m", world.models, "-i", tiles[0], "-o", output, "--labels", tiles[1], "--json")
    assert run.code == 0
    want = Ensemble.open(world.models).predict(world.images)
    ids, masks = read(output, want.shape)
    np.testing.assert_array_equal(masks, want)
    assert masks.dtype == (np.int64 if goal == "masks.csv" else np.uint8)
    assert ids in ([], list(NAMES))
    assert not list(tmp_path.glob(".*"))

    own = next(row for row in json.loads(run.out)["scores"] if row["own"])
    evaluated = engine("evaluate", output, "--labels", tiles[1], "--json")
    assert evaluated.code == 0
    assert json.loads(evaluated.out)["miou"] == own["miou"]
    score = Score(5)
    score.update(world.labels, want)
    assert own["miou"] == {name: pytest.approx(score.mean_iou(name), abs=1e-6) for name in CONVENTIONS}
    assert json.loads(evaluated.out)["confusion"] == score.confusion.tolist()


def test_results_go_to_stdout_and_the_rest_to_stderr(world: World, tmp_path: Path, process: Engine) -> None:
    arguments = ["-m", world.models, "-i", world.images_file, "-o", "masks.csv", "--labels", world.labels_file]
    done = process("ensemble", *arguments, "--preview", "look.png", "--no-suppress", cwd=tmp_path)
    assert done.code == 0
    assert "keras-ignore" in done.out
    for member in "abc":
        assert re.search(rf"^\W*{member}\s+[\d,]+\s", done.out, re.MULTILINE)
    assert "wrote" not in done.out
    lines = done.err.splitlines()
    assert lines[0].startswith("wrote masks.csv: 7 masks in ")
    assert lines[1] == "wrote look.png"
    assert lines[2].startswith("provider ")
    assert lines[3].startswith("warning: class-0 trap: ")
    assert lines[4].startswith("next: engine compare --models MODELS ")
    assert len(lines) == 5
    assert not [mark for mark in ("\r", "\x1b", "━", "predicting") if mark in done.out + done.err]
    with Image.open(tmp_path / "look.png") as picture:
        picture.verify()
        assert min(picture.size) > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["look.png", "masks.csv", "masks.csv.json"]


def test_json_is_one_document_and_nothing_else(world: World, tmp_path: Path, process: Engine) -> None:
    done = process("ensemble", "-m", world.models, "-i", world.images_file, "-o", "m.npy", "--json", cwd=tmp_path)
    told = json.loads(done.out)
    assert told["images"] == 7
    assert told["classes"][4] == "big rock"
    assert [member["name"] for member in told["members"]] == ["a", "b", "c"]
    assert sum(told["class_share"]) == pytest.approx(1, abs=1e-5)
    assert [line.split()[0] for line in done.err.splitlines()] == ["wrote", "provider", "next:"]
    assert done.err.endswith("next: engine evaluate m.npy --labels TRUE_MASKS\n")


def test_without_labels_stdout_is_empty(world: World, tmp_path: Path, engine: Engine) -> None:
    assert engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "m.csv").out == ""


def predicted(engine: Engine, world: World, tmp_path: Path, *options: object) -> np.ndarray:
    output = tmp_path / "m.npy"
    done = engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", output, "--overwrite", *options)
    assert done.code == 0, done.err
    return np.load(output)


def test_limit(world: World, tmp_path: Path, engine: Engine) -> None:
    whole = predicted(engine, world, tmp_path)
    for limit, batch in ((1, 4), (4, 4), (5, 2), (6, 100)):
        some = predicted(
            engine, world, tmp_path, "--limit", limit, "--batch-size", batch, "--labels", world.labels_file
        )
        np.testing.assert_array_equal(some, whole[:limit])
    np.testing.assert_array_equal(predicted(engine, world, tmp_path, "--limit", 10**30), whole)


def test_weights_of_one_member_give_that_member(world: World, tmp_path: Path, engine: Engine) -> None:
    alone = Ensemble.open(world.models / "b.onnx").predict(world.images)
    np.testing.assert_array_equal(predicted(engine, world, tmp_path, "--weights", "0,3,0"), alone)
    assert (predicted(engine, world, tmp_path) != alone).any()


def test_strategies_and_suppression_reach_the_masks(world: World, tmp_path: Path, engine: Engine) -> None:
    for strategy in ("mean-logit", "mean-prob", "vote"):
        want = Ensemble.open(world.models, strategy=strategy, suppress=[1, 3]).predict(world.images)
        got = predicted(engine, world, tmp_path, "--strategy", strategy, "--suppress", "soil", "--suppress", 3)
        np.testing.assert_array_equal(got, want)
        assert not np.isin(got, [1, 3]).any()
    assert not (predicted(engine, world, tmp_path) == 0).any()
    assert (predicted(engine, world, tmp_path, "--no-suppress") == 0).any()
    np.testing.assert_array_equal(
        predicted(engine, world, tmp_path, "--suppress", " soil, 3"),
        predicted(engine, world, tmp_path, "--suppress", "1", "--suppress", "sand"),
    )
    assert (predicted(engine, world, tmp_path, "--bias", "0,0,1000,0,0") == 2).all()


def test_a_tied_vote_is_told(world: World, tmp_path: Path, engine: Engine) -> None:
    done = engine(
        "ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "m.csv", "--strategy", "vote"
    )
    assert "tied votes: " in done.err


def test_a_plan_gives_the_run_that_its_options_give(world: World, tmp_path: Path, engine: Engine) -> None:
    plan = tmp_path / "ensemble.toml"
    plan.write_text(
        'strategy = "vote"\nsuppress = [0, 2]\nbias = [0, 0.5, 0, 0, 0]\nvote_stage = "fused"\n'
        f'[[members]]\nmodel = "{world.models}/a.onnx"\nweight = 3\n[[members]]\nmodel = "{world.models}/[bc].onnx"\n'
    )
    options = ("--strategy", "vote", "--suppress", "0,2", "--bias", "0,.5,0,0,0", "--vote-stage", "fused")
    want = predicted(engine, world, tmp_path, *options, "--weights", "3,1,1")
    for index, more in enumerate(((), ("--strategy", "mean-prob"))):
        output = tmp_path / f"{index}.npy"
        assert engine("ensemble", "--plan", plan, "-i", world.images_file, "-o", output, *more).code == 0
        if more:
            want = predicted(engine, world, tmp_path, *options, "--weights", "3,1,1", *more)
        np.testing.assert_array_equal(np.load(output), want)


def test_overwrite_replaces_files_and_folders(world: World, tmp_path: Path, engine: Engine) -> None:
    for goal in ("m.csv", "m"):
        for more in ((), ("--overwrite", "--limit", 3)):
            arguments = ("-m", world.models, "-i", world.images_file, "-o", tmp_path / goal)
            assert engine("ensemble", *arguments, *more).code == 0
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 4
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["0.png", "1.png", "2.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "m.csv", "m.csv.json", "m.json"]


def test_names_are_printed_as_they_are(world: World, tmp_path: Path, engine: Engine) -> None:
    classes = ("[/bold]", "[red]soil", ":rock:", "größe", "雪")
    model = save_member(tmp_path / "a[link]b.onnx", classes=classes, promised={"architecture": "[/i]net"})
    shown = engine("inspect", model)
    assert shown.code == 0
    assert "[/i]net" in shown.out
    assert "[red]soil" in shown.out
    labels = ("--labels", world.labels_file)
    run = engine("ensemble", "-m", model, "-i", world.images_file, "-o", tmp_path / "m.csv", *labels)
    assert run.code == 0
    assert "a[link]b" in run.out
    rated = engine("evaluate", tmp_path / "m.csv", *labels, "--classes", ",".join(classes))
    for name in classes:
        assert name in rated.out


def test_inspect_tells_every_contract(world: World, engine: Engine) -> None:
    told = json.loads(engine("inspect", world.models, "--json").out)
    assert [Path(row["model"]).name for row in told] == ["a.onnx", "b.onnx", "c.onnx"]
    assert {row["input_layout"] for row in told} == {"NCHW"}
    assert len({row["sha256"] for row in told}) == 3


def test_help_and_version_wait_for_nothing(process: Engine) -> None:
    script = (
        "import sys\nfrom engine.cli import app\n"
        "for command in (['--help'], ['ensemble', '--help'], ['--version']):\n"
        "    try: app(command)\n"
        "    except SystemExit as left: assert not left.code\n"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = process(module=("-c", script))
    assert done.code == 0, done.err
    assert "ensemble" in done.out
    assert "--suppress" in done.out
    assert f"maskfuse {VERSION}" in done.out
    loaded = done.err.split()
    assert "typer" in loaded
    assert not {"numba", "onnxruntime", "PIL", "numpy"} & set(loaded)


def test_a_reader_that_leaves_is_no_error(world: World) -> None:
    """`engine inspect ... | head -1` must not end in a traceback."""
    command = [sys.executable, "-m", "engine.cli", "inspect", str(world.models), "--json"]
    piped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert piped.stdout is not None
    assert piped.stderr is not None
    piped.stdout.close()
    assert b"Traceback" not in piped.stderr.read()
    piped.stderr.close()
    piped.wait(60)


def test_a_plain_system_error_is_one_line(call: Callable[..., Result]) -> None:
    def refuse(arguments: list[str]) -> None:
        raise PermissionError(13, "Permission denied", "some/folder")

    result = call(refuse, "x")
    assert (result.code, result.err) == (2, "error: some/folder: Permission denied\n")


def test_line_breaks_in_a_message_stay_inside_the_line(call: Callable[..., Result]) -> None:
    def refuse(arguments: list[str]) -> None:
        raise EngineError("one\ntwo\x1b[31m")

    assert call(refuse, "x").err == "error: one two [31m\n"


def test_ctrl_c_says_so(call: Callable[..., Result]) -> None:
    app = typer.Typer()

    @app.command()
    def wait(length: str) -> None:
        raise KeyboardInterrupt

    def plain(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    for interrupted in (app, plain):
        result = call(interrupted, "long")
        assert (result.code, result.err.strip()) == (130, "interrupted")
