"""Whatever is wrong: exit code 2, one line on stderr that names it, no traceback, and not a byte written."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from tests.conftest import ROOT, Result
from tests.helpers.bad_inputs import CASES, INPUT, words
from tests.helpers.world import World

IN_A_PROCESS = (
    "missing input",
    "truncated ONNX",
    "NaN from a member",
    "nothing but NaN",
    "unknown key",
    "output exists",
)


def snapshot() -> dict[Path, bytes | None]:
    found = (Path(folder) / name for folder, below, files in os.walk(".") for name in (*below, *files))
    return {path: path.read_bytes() if path.is_file() else None for path in found}


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "a place, größer"
    place.mkdir()
    monkeypatch.chdir(place)
    yield place


def assert_refused(result: Result, facts: list[str]) -> None:
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert result.out == ""
    for fact in facts:
        assert fact in result.err


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line(
    name: str, world: World, placed: Path, engine: Callable[..., Result], recwarn: pytest.WarningsRecorder
) -> None:
    arrange, command, facts = CASES[name]
    arrange(world)
    before = snapshot()
    recwarn.clear()
    result = engine(*words(command, world))
    assert_refused(result, facts)
    assert snapshot() == before
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_a_process_of_its_own_says_the_same(
    name: str, world: World, placed: Path, process: Callable[..., Result]
) -> None:
    arrange, command, facts = CASES[name]
    arrange(world)
    before = snapshot()
    assert_refused(process(*words(command, world), cwd=placed), facts)
    assert snapshot() == before


def test_a_disk_that_refuses_leaves_nothing(world: World, placed: Path, process: Callable[..., Result]) -> None:
    script = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); sys.argv[0] = 'engine';"
    )
    script += "runpy.run_module('engine.cli', run_name='__main__')"
    arguments = words("ensemble -m {models} -i {images} -o out.csv", world)
    assert_refused(process(*arguments, cwd=placed, module=("-B", "-c", script)), ["out.csv", "too large"])
    assert snapshot() == {}


def test_an_unknown_option_is_no_traceback(engine: Callable[..., Result]) -> None:
    result = engine("ensemble", "--no-such-option")
    assert result.code == 2
    assert "--no-such-option" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".onnx", ".png"])
def test_flipped_bytes_are_read_or_refused(suffix: str, world: World, placed: Path) -> None:
    """A damaged file may still be readable; anything but an EngineError would reach the user as a traceback."""
    from engine.errors import EngineError
    from engine.models.opening import open_net
    from engine.sources.open import open_source

    path = Path("tiles") / f"x{suffix}"
    path.parent.mkdir()
    if suffix == ".png":
        Image.fromarray(world.images[0]).save(path)
    elif suffix == ".onnx":
        path.write_bytes((world.models / "a.onnx").read_bytes())
    else:
        (np.save if suffix == ".npy" else np.savez_compressed)(path, world.images)
    whole, draw, refused = path.read_bytes(), np.random.default_rng(11), 0
    for _ in range(60):
        bytes_ = bytearray(whole)
        for at in draw.integers(0, len(whole) if suffix != ".npy" else 128, 3):
            bytes_[at] = draw.integers(256)
        path.write_bytes(bytes_)
        try:
            if suffix == ".onnx":
                open_net(path, sample=world.images[0][..., None])
            else:
                list(open_source(path.parent if suffix == ".png" else path).batches(3))
        except EngineError:
            refused += 1
    assert refused > 10


def test_zip_members_beside_the_array_do_not_matter(world: World, placed: Path, engine: Callable[..., Result]) -> None:
    np.savez("x.npz", images=world.images, names=np.array(["a", "b"]), meta=np.array([{}]))
    with zipfile.ZipFile("x.npz", "a") as archive:
        archive.writestr("readme.txt", "hello")
    assert engine(*words(INPUT + "x.npz", world)).code == 0


def test_the_table_of_wrong_inputs(process: Callable[..., Result]) -> None:
    """A part of what the page in benchmarks/results lists, of every kind of input."""
    from benchmarks.reliability.bad_inputs import cases

    assert len(cases()) >= 60
    some = ["tiles of", "npz of 0", "30,000", "labels id,1,0", "/dev/zero", "weight NaN"]
    done = process("--only", *some, module=("-m", "benchmarks.reliability.bad_inputs"), cwd=ROOT)
    assert done.code == 0, done.out + done.err
    assert done.out.splitlines()[-1] == "6 of 6 wrong inputs are refused as they should be"


def test_a_lack_of_memory_is_one_line(call: Callable[..., Result]) -> None:
    def starve() -> None:
        np.empty(1 << 60, np.uint8)

    app = typer.Typer()
    app.command()(starve)
    assert_refused(call(app), ["not enough memory", "--batch-size"])
