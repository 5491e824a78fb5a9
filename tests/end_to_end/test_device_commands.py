"""The graph that a GPU runs, as a user's commands reach it, and what is said where there is no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.models.runtimes import providers
from tests.conftest import ROOT, Result
from tests.helpers.world import World

Engine = Callable[..., Result]


def masks_of(path: Path) -> tuple[np.ndarray, dict]:
    with np.load(path) as held:
        return held["masks"], json.loads(str(held["metadata"]))


def test_the_graph_gives_the_same_masks_and_the_record_names_it(world: World, tmp_path: Path, engine: Engine) -> None:
    found = {}
    for provider in ("cpu", "cpu-graph"):
        out = tmp_path / f"{provider}.npz"
        done = engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", out, "--provider", provider)
        assert done.code == 0, done.err
        found[provider] = masks_of(out)
    (want, before), (got, after) = found.values()
    assert (want == got).mean() > 0.999
    assert [member["runtime"] for member in before["members"]] == ["onnxruntime"] * 3
    assert [member["runtime"] for member in after["members"]] == ["one graph on cpu-graph in float32"] * 3


def test_float16_is_said_and_scores_keep_the_kernels(world: World, tmp_path: Path, engine: Engine) -> None:
    given = ("ensemble", "-m", world.models, "-i", world.images_file, "--provider", "cpu-graph")
    done = engine(*given, "-o", tmp_path / "half.npz", "--precision", "fp16")
    assert done.code == 0, done.err
    assert "members run in float16: labels agree with float32 on" in done.err
    done = engine(*given, "-o", tmp_path / "scored.npz", "--labels", world.labels_file)
    assert done.code == 0, done.err
    assert "logits are fused on the CPU: other members and strategies are scored as well" in done.err


def test_without_a_gpu(world: World, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "has_driver", lambda: False)
    providers.obstacle.cache_clear()
    given = ("ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "masks.npz")
    for provider in ("cuda", "tensorrt"):
        done = engine(*given, "--provider", provider)
        assert done.code == 2
        assert len(done.err.strip().splitlines()) == 1
        assert f"--provider {provider} does not work here: no NVIDIA driver" in done.err
    assert not (tmp_path / "masks.npz").exists()
    done = engine(*given)
    assert done.code == 0
    assert "provider cpu; not cuda or tensorrt: no NVIDIA driver" in done.err
    providers.obstacle.cache_clear()


def test_the_benchmark_of_a_gpu_runs_to_its_end_without_one(world: World, tmp_path: Path) -> None:
    np.save(tmp_path / "tiles.npy", world.images)
    files = sorted(world.models.glob("*.onnx"))
    more = ("--device", "cpu", "--tiles", tmp_path / "tiles.npy", "--images", "9", "--compared", "7")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_gpu", *more, "--models", *files],
        cwd=ROOT, env={**os.environ, "MASKFUSE_RESULTS": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "gpu_rehearsal.md").read_text()
    assert "no GPU: the same code on the CPU" in page
    assert page.count("| 896 | ") == 8
    assert not (tmp_path / "gpu.md").exists()
