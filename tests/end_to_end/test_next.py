"""Every command ends by naming the one that usually follows; each is run here as it is named."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result
from tests.helpers.world import World


def test_the_commands_lead_from_one_to_the_next(
    world: World, engine: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in capitals is filled in."""
    pytest.importorskip("matplotlib", reason="the page needs maskfuse[report]")
    pytest.importorskip("jinja2", reason="the page needs maskfuse[report]")
    monkeypatch.chdir(tmp_path)
    filled = {"MODELS": world.models, "IMAGES": world.images_file, "TRUE_MASKS": world.labels_file}
    line, seen = f"engine inspect {world.models}/a.onnx", []
    for _ in range(8):
        program, command, *words = shlex.split(line)
        assert program == "engine"
        done = engine(command, *(filled.get(word, word) for word in words))
        assert done.code == 0, f"{line}: {done.err}"
        seen.append(command)
        said, _, line = done.err.splitlines()[-1].partition(": ")
        assert said == "next"
        line = line.replace("masks.csv", f"{len(seen)}.csv") if command in ("inspect", "select") else line
    assert seen == ["inspect", "ensemble", "evaluate", "compare", "report", "select", "ensemble", "evaluate"]


def test_a_benchmark_names_a_run_of_its_models(world: World, engine: Callable[..., Result]) -> None:
    done = engine("bench", "-m", world.models / "a.onnx", "-i", world.images_file, "--images", 4, "--rounds", 1)
    assert done.code == 0, done.err
    assert f"next: engine ensemble --models {world.models / 'a.onnx'} --input IMAGES" in done.err
