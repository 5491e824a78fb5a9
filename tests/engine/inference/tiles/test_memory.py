"""What a scene takes in memory stays below the stated formula, and not far: every array that NumPy makes is counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import PlanError
from engine.inference.ensemble import Ensemble
from engine.inference.tiles import memory
from engine.inference.tiles.blend import TiledRun
from engine.inference.tiles.grid import Tiling
from engine.inference.tiles.memory import SceneNeeds
from engine.sources.scene import Scene
from engine.utils.memory import memory_limit
from tests.conftest import Result
from tests.helpers.nets import save_member
from tests.helpers.world import World


@pytest.mark.parametrize(
    ("members", "tile", "overlap", "size", "batch", "workers"),
    [(1, 64, 0.5, (300, 3000), 1, 2), (3, 32, 0.0, (200, 5000), 8, 1), (2, 128, 0.25, (700, 2000), 2, 3)],
)
def test_a_scene_takes_what_the_formula_says(
    members: int, tile: int, overlap: float, size: tuple[int, int], batch: int, workers: int, tmp_path: Path
) -> None:
    for seed in range(members):
        save_member(tmp_path / f"{seed}.onnx", seed)
    ensemble = Ensemble.open(tmp_path)
    tiling = Tiling((tile, tile), overlap)
    needs = SceneNeeds(tiling, members, len(ensemble.classes), 1, 1, [size])
    pixels = np.random.default_rng(0).integers(0, 240, (*size, 1)).astype(np.uint8)
    scene = Scene("a", size, 1, lambda start, stop: pixels[start:stop].copy())
    peaks = []
    for _ in range(2):  # first uses compile and import
        tracemalloc.start()
        with TiledRun(ensemble, tiling, (), batch, workers) as run:
            for part in run.blended(scene):
                ensemble.decode(part.logits, ensemble.variant, part.size, clean=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    stated = needs.bytes(batch, workers)
    assert 0.5 * stated < peaks[-1] < 1.1 * stated


def needs() -> SceneNeeds:
    return SceneNeeds(Tiling((512, 512), 0.5), 1, 5, 1, 1, [(100, 100), (16384, 16384)])


def test_the_formula_does_not_grow_with_the_height_and_counts_what_is_kept() -> None:
    plain = needs()
    assert replace(plain, sizes=[(10**6, 16384)]).bytes(1, 2) == plain.bytes(1, 2)
    assert replace(plain, whole=True).bytes(1, 2) == plain.bytes(1, 2) + 16384**2
    assert replace(plain, cleans=True).bytes(1, 2) == plain.bytes(1, 2) + 16384**2
    # The scene of the public report: it took 2.1 GB.
    assert plain.bytes(plain.fitting_batch(16, 2), 2) < 0.6e9


def test_the_batch_is_what_fits() -> None:
    small = replace(needs(), tiling=Tiling((64, 64), 0.5))
    assert small.fitting_batch(16, 2) == 16
    assert small.fitting_batch(4, 2) == 4
    assert needs().fitting_batch(16, 2) == 1
    room = small.bytes(4, 2)
    with memory_limit(room):
        assert small.fitting_batch(16, 2) == 4
        small.check(4, 2)
        with pytest.raises(PlanError, match=r"a scene of 16384x16384 takes .* with --batch-size 16 and --workers 2; "):
            small.check(16, 2)


def test_a_scene_that_does_not_fit_is_refused_before_anything_is_written(
    world: World, tmp_path: Path, engine: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "scene.npy", np.zeros((64, 64), np.uint8))
    monkeypatch.setattr(memory, "memory_bound", lambda: 1000)
    command = ("ensemble", "-m", world.models, "-i", tmp_path / "scene.npy", "-o", tmp_path / "mask.png")
    done = engine(*command, "--tile", "16x16")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "a smaller --tile, fewer --workers, or raise --memory" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.npy"]
