"""Runs over scenes that are cut off and go on, at the scene and the row of tiles where they stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.inference.ensemble import Ensemble
from engine.inference.tiles.blend import TiledRun
from engine.inference.tiles.grid import Tiling
from engine.runs.durable import scenes as durable_scenes
from engine.runs.durable.resume import run_folder
from engine.sources.scene import Scene
from tests.conftest import Result
from tests.helpers.runs import Dying, Engine, content
from tests.helpers.world import World

SIZE = (90, 100)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_scenes, "MOST_TILES", 16)


@pytest.fixture
def dying(dying: Dying, monkeypatch: pytest.MonkeyPatch) -> Dying:
    dying.prefix = "maskfuse-tiles"
    return dying


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(8).integers(0, 240, SIZE).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scenes of different sizes, two smaller than a tile."""
    (tmp_path / "scenes").mkdir()
    draw = np.random.default_rng(9)
    for name, size in (("a", (40, 50)), ("b", (9, 20)), ("c", (70, 60)), ("d", (9, 20)), ("e", (50, 64))):
        pixels = draw.integers(0, 240, size).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "scenes" / f"{name}.png")
    return tmp_path / "scenes"


def run(engine: Engine, world: World, source: Path, goal: Path, *more: object) -> Result:
    given = ("-m", world.models, "-i", source, "-o", goal, "--tile", "16x32", "--workers", 1, "--batch-size", 2)
    return engine("ensemble", *given, *more)


def kept(told: str) -> int:
    found = re.search(r"(\d+) tiles are kept in", told)
    assert found is not None, told
    return int(found[1])


@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.8])
def test_rows_behind_a_finished_one_are_the_same_to_the_last_bit(overlap: float, world: World) -> None:
    image = np.random.default_rng(1).integers(0, 240, (75, 50)).astype(np.uint8)
    scene = Scene("s", image.shape, 1, lambda start, stop: image[start:stop, :, None])
    tiling = Tiling((16, 32), overlap)
    rows = tiling.axes(scene.size)[0]
    with TiledRun(Ensemble.open(world.models), tiling, (), 2, 2) as tiler:
        whole = list(tiler.blended(scene))
        assert [part.done for part in whole] == list(range(1, len(rows.starts) + 1))
        for done in range(1, len(rows.starts)):
            counted: list[int] = []
            rest = list(tiler.blended(scene, counted.append, done))
            assert [part.start for part in rest] == [part.start for part in whole[done:]]
            assert sum(counted) == tiling.count(scene.size) // len(rows.starts) * (len(rows.starts) - done)
            for one, other in zip(rest, whole[done:], strict=True):
                np.testing.assert_array_equal(one.logits, other.logits)


@pytest.mark.parametrize("goal", ["mask.png", "mask.tif", "mask.npy", "mask.zarr"])
@pytest.mark.parametrize("more", [(), ("--min-region", 5, "--strategy", "staple")])
def test_a_scene_goes_on_in_mid_scene(
    goal: str, more: tuple[object, ...], world: World, scene: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    (tmp_path / "whole").mkdir()
    whole = run(engine, world, scene, tmp_path / "whole" / goal, "--workers", 2, *more)
    assert whole.code == 0, whole.err
    dying.at(80)
    refused = run(engine, world, scene, tmp_path / goal, *more)
    assert refused.code == 2
    assert 16 <= kept(refused.err) < 60
    assert not (tmp_path / goal).exists()
    again = run(engine, world, scene, tmp_path / goal, *more)
    assert "tiles are kept: add --resume" in again.err
    dying.at(1 << 30)
    done = run(engine, world, scene, tmp_path / goal, "--resume", *more)
    assert done.code == 0, done.err
    assert f"resuming after {kept(refused.err)} of" in done.err
    assert content(tmp_path / goal) == content(tmp_path / "whole" / goal)
    assert not list(tmp_path.glob(".*"))
    told = run(engine, world, scene, tmp_path / goal, "--resume", *more)
    assert (told.code, "is complete: nothing to resume" in told.err) == (0, True)


@pytest.mark.parametrize("dies_at", [40, 60, 90])
def test_a_folder_goes_on_at_the_scene_with_the_same_scores(
    dies_at: int, world: World, folder: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    (tmp_path / "truth").mkdir()
    for path in folder.iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 48).save(tmp_path / "truth" / path.name)
    more = ("--labels", tmp_path / "truth", "--json", "--strategy", "vote")
    want = run(engine, world, folder, tmp_path / "whole", *more)
    assert want.code == 0, want.err
    dying.at(dies_at)
    refused = run(engine, world, folder, tmp_path / "m", *more)
    assert refused.code == 2
    dying.at(1 << 30)
    done = run(engine, world, folder, tmp_path / "m", "--resume", *more)
    assert done.code == 0, done.err
    assert f"resuming after {kept(refused.err)} of" in done.err
    for name in "abcde":
        one, other = (tmp_path / place / f"{name}.png" for place in ("m", "whole"))
        assert one.read_bytes() == other.read_bytes()
    tables = [json.loads(result.out) for result in (want, done)]
    for told in tables:
        for row in told["scores"]:
            del row["images_per_second"]
    for key in ("images", "scores", "class_share", "tie_rate"):
        assert tables[0][key] == tables[1][key], key


def test_another_run_does_not_go_on(world: World, scene: Path, tmp_path: Path, engine: Engine, dying: Dying) -> None:
    goal = tmp_path / "m.npy"
    dying.at(80)
    assert run(engine, world, scene, goal).code == 2
    dying.at(1 << 30)
    for more, fact in (
        (
            ("--overlap", 0.25),
            "the tiling differs: overlap 0.5, stride 1, tile 16x32 then, overlap 0.25, stride 1, tile",
        ),
        (("--strategy", "vote"), "the plan differs in strategy"),
        (("--labels", scene), "the true labels differ"),
    ):
        refused = run(engine, world, scene, goal, "--resume", *more)
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
        assert fact in refused.err
    np.save(tmp_path / "x.npy", np.zeros((3, 16, 32), np.uint8))
    other = engine("ensemble", "-m", world.models, "-i", tmp_path / "x.npy", "-o", goal, "--resume")
    assert (other.code, "stride 1, tile 16x32 then, none now" in other.err) == (2, True)


def test_a_damaged_shard_is_predicted_again(
    world: World, scene: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    goal = tmp_path / "m.png"
    dying.at(80)
    before = kept(run(engine, world, scene, goal).err)
    shard = sorted(run_folder(goal).glob("*.labels"))[1]
    held = bytearray(shard.read_bytes())
    held[7] ^= 1
    shard.write_bytes(held)
    dying.at(1 << 30)
    done = run(engine, world, scene, goal, "--resume")
    assert done.code == 0
    found = re.search(r"resuming after (\d+) of", done.err)
    assert found is not None and int(found[1]) < before
    assert run(engine, world, scene, tmp_path / "whole.png").code == 0
    assert goal.read_bytes() == (tmp_path / "whole.png").read_bytes()


@pytest.mark.parametrize("form", ["csv", "npz"])
def test_stitched_images_go_on_at_the_picture(
    form: str, world: World, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    draw = np.random.default_rng(3)
    pictures = [draw.integers(0, 240, (40, 64), np.uint8) for _ in range(3)]
    tiles = [part[r : r + 16, c : c + 32] for part in pictures for r in range(0, 25, 8) for c in range(0, 33, 16)]
    np.savez(tmp_path / "tiles.npz", images=np.stack(tiles)[draw.permutation(len(tiles))])
    whole, goal = tmp_path / f"whole.{form}", tmp_path / f"masks.{form}"
    assert run(engine, world, tmp_path / "tiles.npz", whole, "--stitch").code == 0
    dying.at(60)
    cut_off = run(engine, world, tmp_path / "tiles.npz", goal, "--stitch")
    assert cut_off.code == 2
    assert kept(cut_off.err) >= 16
    assert not goal.exists()
    dying.at(1 << 30)
    plain = run(engine, world, tmp_path / "tiles.npz", goal, "--resume")
    assert plain.code == 2  # without --stitch it is another run
    done = run(engine, world, tmp_path / "tiles.npz", goal, "--stitch", "--resume")
    assert done.code == 0, done.err
    assert "resuming after" in done.err
    loaded = [np.load(path)["masks"] if form == "npz" else path.read_bytes() for path in (whole, goal)]
    assert np.array_equal(*loaded) if form == "npz" else loaded[0] == loaded[1]
