"""An actor's rows of scenes, without Ray: in whatever blocks they are asked for, they are those of a whole run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import ModelError
from engine.models.runtimes import RuntimeOptions
from engine.runs.on_ray.scene_predictor import ScenePredictor, first_rows
from engine.runs.on_ray.scene_wire import unpacked_strips
from engine.runs.options import Options
from engine.runs.provenance import plan_hash
from engine.runs.scene_job import prepare_tiled
from engine.runs.scene_rows import decoded_variants
from tests.helpers.world import World

TILE = "8x16"


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    """Scenes of different sizes, and their true labels."""
    draw = np.random.default_rng(0)
    for kind, most in (("images", 240), ("labels", 5)):
        (tmp_path / kind).mkdir()
        for index, size in enumerate(((21, 30), (8, 16), (70, 17))):
            Image.fromarray(draw.integers(0, most, size).astype(np.uint8)).save(tmp_path / kind / f"{index}.png")
    return tmp_path


def actor(world: World, folder: Path, labels: bool = True, sha: str | None = None) -> tuple[ScenePredictor, list]:
    options = Options(
        models=(str(world.models),), input=str(folder / "images"), labels=str(folder / "labels") if labels else ""
    )
    job = prepare_tiled(options, TILE, None, writes=False)
    ensemble = job.base.ensemble
    found = plan_hash(ensemble) if sha is None else sha
    made = ScenePredictor(options, RuntimeOptions(), 3, found, labels, TILE, None)
    return made, [first_rows(job.tiling, job.read), decoded_variants(ensemble, labels)]


def asked(predictor: ScenePredictor, start: int, count: int) -> dict:
    row = predictor({"start": np.array([start]), "count": np.array([count])})
    return {key: value[0] for key, value in row.items()}


def test_blocks_of_any_size_and_order_give_the_same_rows(world: World, folder: Path) -> None:
    predictor, (firsts, variants) = actor(world, folder)
    assert len(variants) > 1
    for first, end in pairwise(firsts):
        whole = unpacked_strips(asked(predictor, int(first), int(end - first)), 5, variants)[0]
        assert [done for _, done in whole if done is not None] == list(range(1, int(end - first) + 1))
        parts = []
        for start in reversed(range(int(first), int(end), 3)):
            count = min(3, int(end) - start)
            parts = unpacked_strips(asked(predictor, start, count), 5, variants)[0] + parts
        for (strip, done), (part, part_done) in zip(whole, parts, strict=True):
            assert (strip.start, strip.ties, done) == (part.start, part.ties, part_done)
            np.testing.assert_array_equal(strip.labels, part.labels)
            assert strip.confusion.keys() == part.confusion.keys()
            for variant in strip.confusion:
                np.testing.assert_array_equal(strip.confusion[variant], part.confusion[variant])
        assert whole[0][0].confusion
        assert all(strip.labels.flags.writeable for strip, _ in whole)


def test_errors_are_rows(world: World, folder: Path) -> None:
    predictor, _ = actor(world, folder, sha="another")
    with pytest.raises(ModelError, match="the models differ: give all nodes the same files"):
        unpacked_strips(asked(predictor, 0, 1), 5, [])
    predictor, _ = actor(world, folder, labels=False)
    (folder / "images" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ModelError, match=r"2\.png"):
        unpacked_strips(asked(predictor, 10, 1), 5, [])
