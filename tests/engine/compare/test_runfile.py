"""A run file that is damaged, or forged with a digest that fits: refused in one line, never drawn wrong."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.compare.command import compare
from engine.compare.options import CompareOptions
from engine.compare.report import command
from engine.compare.report.command import report
from engine.compare.result import Facts
from engine.compare.runfile import ARRAYS, KIND, SCHEMA, _digest, _typed, plain, read_run, write_run
from engine.errors import InputError
from engine.runs.options import Options
from engine.sources.record import NPZ_KEY
from tests.conftest import Result
from tests.helpers.world import World

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    job = Options(models=(str(world.models),), input=str(world.images_file), labels=str(world.labels_file))
    write_run(folder / "run.npz", compare(CompareOptions(job, folds=2, gallery=1, pixels=200, ablation=False)))
    return folder / "run.npz"


def forged(run: Path, out: Path, change: Change) -> Path:
    """Write a run with changed facts, and the digest of these."""
    done = read_run(run)
    facts = plain(asdict(done.facts))
    change(facts)
    arrays = {name: getattr(done.pictures, name) for name in ARRAYS}
    head = {"kind": KIND, "schema": SCHEMA, "content_sha256": _digest(facts, arrays), "facts": facts}
    np.savez(out, **{NPZ_KEY: np.array(json.dumps(head)), **arrays})
    return out


def places(held: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where lists, texts and numbers stand, once for each kind of place."""
    if isinstance(held, dict):
        for key in held:
            yield from places(held[key], (*path, key))
    else:
        yield path
        if isinstance(held, list) and held:
            yield from places(held[0], (*path, 0))


def at(facts: dict[str, Any], path: tuple[Any, ...]) -> Any:
    for key in path:
        facts = facts[key]
    return facts


def put(path: tuple[Any, ...], value: Any) -> Change:
    return lambda facts: at(facts, path[:-1]).__setitem__(path[-1], value)


def test_wrong_values_at_every_place_are_refused(run: Path, tmp_path: Path) -> None:
    facts = plain(asdict(read_run(run).facts))
    assert read_run(forged(run, tmp_path / "same.npz", lambda facts: None)).facts
    for path in places(facts):
        held = at(facts, path)
        wrong: list[Any] = [{}, True, math.inf, 10**400, 1e300] if not isinstance(held, str) else [None, 3, []]
        if isinstance(held, list):
            wrong = [{}, None, 0, "", [[[]]]]
        for value in wrong:
            put(path, value)(facts)
            with pytest.raises(InputError, match="run engine compare again"):
                _typed(Facts, facts, "run.npz", "facts")
        put(path, held)(facts)


SHORTER = ("classes", "members", "agreement", "disputed_by_class", "tiles", "curves", "rows")
CONTRADICTIONS: dict[str, Change] = {
    **{f"{name} emptied": put((name,), []) for name in SHORTER},
    "agreement cut": lambda facts: facts["agreement"][0].pop(),
    "confusion cut": lambda facts: facts["rows"][0]["confusion"][0].pop(),
    "confusion below 0": put(("rows", 0, "confusion", 0, 0), -1),
    "share cut": lambda facts: facts["rows"][-1]["share"].pop(),
    "bias cut": put(("rows", 0, "bias"), [0.5]),
    "scores missing": lambda facts: facts["rows"][0]["scores"].popitem(),
    "state unknown": put(("rows", 0, "state"), "cooked"),
    "member unknown": put(("rows", 0, "member"), 99),
    "rate of 0": put(("rows", 0, "rate"), 0),
    "metric unknown": put(("metric",), "best"),
    "baseline missing": put(("baseline",), {}),
    "baseline beyond": lambda facts: facts["baseline"].update(labelled=10**6),
    "curve cut": lambda facts: facts["curves"][0]["accuracy"].pop(),
    "reason unknown": put(("tiles", 0, "reasons"), ["nicest"]),
    "ignored class": put(("ignored_class",), 77),
    "suppressed": put(("suppressed",), [-1]),
    "fused": put(("fused",), 10**6),
    "no pixels": put(("height",), 0),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_facts_that_do_not_fit_each_other_are_refused(name: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contradicts itself"):
        read_run(forged(run, tmp_path / "forged.npz", CONTRADICTIONS[name]))


def test_what_cannot_be_drawn_is_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(done: object, everything: bool) -> str:
        raise OverflowError("Axis limits cannot be\nNaN")

    monkeypatch.setattr(command, "render", refuse)
    with pytest.raises(
        InputError, match=r"cannot draw .*run\.npz \(OverflowError: Axis limits cannot be\): run engine"
    ):
        report(run, tmp_path / "page.html", False)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("part", ["metadata.npy", "images.npy", "members.npy", "the directory"])
def test_damage_anywhere_is_one_line(part: str, run: Path, tmp_path: Path, engine: Callable[..., Result]) -> None:
    data = bytearray(run.read_bytes())
    with zipfile.ZipFile(run) as archive:
        starts = {info.filename: info.header_offset + 60 + info.compress_size // 2 for info in archive.infolist()}
    place = starts.get(part, len(data) - 30)
    data[place : place + 4] = bytes(value ^ 0xFF for value in data[place : place + 4])
    (tmp_path / "bad.npz").write_bytes(data)
    done = engine("report", tmp_path / "bad.npz", "--out", tmp_path / "page.html")
    assert done.code == 2 and done.err.count("\n") == 1 and "Traceback" not in done.err
    assert not (tmp_path / "page.html").exists()


def test_a_damaged_npz_beside_a_resumed_run_is_another_output(
    world: World, tmp_path: Path, engine: Callable[..., Result]
) -> None:
    np.save(tmp_path / "images.npy", world.images)
    command = ("ensemble", "-m", world.models, "-i", tmp_path / "images.npy", "-o", tmp_path / "masks.npz", "--resume")
    assert engine(*command).code == 0
    assert "complete: nothing to resume" in engine(*command).err
    data = bytearray((tmp_path / "masks.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "masks.npz") as archive:
        info = archive.getinfo("metadata.npy")
    data[info.header_offset + 80 : info.header_offset + 90] = bytes(10)
    (tmp_path / "masks.npz").write_bytes(data)
    done = engine(*command)
    assert (done.code, "made by another run: add --overwrite" in done.err) == (2, True)
