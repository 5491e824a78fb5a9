"""One plan, many ways: command, Python, packed graph, browser, cluster and server give the same labels."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="a packed graph is built with the onnx package: pip install 'maskfuse[export]'")

from PIL import Image

from engine import Ensemble
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from engine.samples.scenes import generate
from exporters.pack import pack
from exporters.page.build import make_page
from exporters.parity import load_tiles
from exporters.self_check import open_session
from tests.conftest import ROOT, Result
from tests.helpers.browser import BROWSER, DRIVER, NO_BROWSER, left, opened_site, runtime_tarball, shared_folder
from tests.helpers.clusters import local_cluster
from tests.helpers.ties import ties

Engine = Callable[..., Result]
SAMPLES = ROOT / "engine" / "samples"
TILES = 12
# Nets, a set of specialists, weights, a bias, a suppressed class: what a plan usually says.
PLAN = """
strategy = "mean-prob"
suppress = [0]
bias = [0.0, 0.0, 0.05, 0.1, -0.05]
[[members]]
model = "unet.onnx"
weight = 2
[[members]]
model = "unet_plus_plus.onnx"
[[members]]
model = "one_class"
"""


@dataclass(frozen=True)
class World:
    """A plan and its tiles.

    Attributes:
        plan: the plan's file.
        ensemble: opened from it.
        tiles: uint8 (tile, height, width); generated, and real ones where the machine has them.
        stored: the same as an .npz file.
        packed: the ensemble as one graph.
        expected: the labels of the ensemble in Python, uint8 (tile, height, width).
        check_ties: ties that the graph broke differently when it was packed.
    """

    plan: Path
    ensemble: Ensemble
    tiles: np.ndarray
    stored: Path
    packed: Path
    expected: np.ndarray
    check_ties: int


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    (folder / "one_class").mkdir()
    for path in SAMPLES.glob("*.onnx"):
        place = folder / "one_class" if path.stem.startswith("one_class") else folder
        (place / path.name).write_bytes(path.read_bytes())
    plan, stored = folder / "plan.toml", folder / "tiles.npz"
    plan.write_text(PLAN)
    tiles = generate(TILES, seed=21).images
    named = Path(os.environ.get("MASKFUSE_MARS", ROOT.parent / "shared" / "data" / "mars")) / "mars_for_students.npz"
    if named.is_file():
        tiles = np.concatenate([tiles, load_tiles(named, limit=TILES)[..., 0].astype(np.uint8)])
    np.savez(stored, images=tiles)
    done = pack(plan, folder / "packed.onnx")
    ensemble = open_ensemble(read_plan(plan), Options(), None)
    expected = ensemble.predict(tiles)
    # That the test could fail: the tiles hold every class but the suppressed one.
    assert np.unique(expected).tolist() == [1, 2, 3, 4]
    return World(plan, ensemble, tiles, stored, done.path, expected, done.check.ties)


def counted(world: World, got: np.ndarray) -> int:
    """Return how many pixels have another label than in Python; each must be a tie within float32 rounding."""
    return ties(world.ensemble, world.tiles, world.expected, got)


def predicted(engine: Engine, world: World, goal: Path, *more: object) -> np.ndarray:
    done = engine("ensemble", "--plan", world.plan, "--input", world.stored, "--output", goal, "--overwrite", *more)
    assert done.code == 0, done.err
    return np.load(goal)


def test_command(world: World, engine: Engine, tmp_path: Path) -> None:
    np.testing.assert_array_equal(predicted(engine, world, tmp_path / "masks.npy"), world.expected)


def test_packed_graph(world: World, engine: Engine, tmp_path: Path) -> None:
    session = open_session(str(world.packed))
    (labels,) = session.run(["labels"], {"images": world.tiles[:, None].astype(np.float32)})
    assert counted(world, labels) <= max(2, world.check_ties)
    # As a member of its own, by the command.
    goal = tmp_path / "masks.npy"
    done = engine("ensemble", "--models", world.packed, "--input", world.stored, "--output", goal)
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(goal), labels)


@pytest.mark.skipif(not (BROWSER and DRIVER), reason=NO_BROWSER)
def test_browser(world: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("selenium", reason="the browser is driven by selenium: pip install 'maskfuse[dev]'")
    make_page(world.packed, tmp_path / "page", runtime_from=runtime_tarball(shared_folder(tmp_path_factory)))
    paths = [tmp_path / f"{index}.png" for index in range(len(world.tiles))]
    for path, tile in zip(paths, world.tiles, strict=True):
        Image.fromarray(tile).save(path)
    with opened_site(tmp_path / "page", tmp_path) as (site, rest):
        assert site.open().startswith("Runs on WASM, one thread")
        assert site.drop(*paths).startswith(f"{len(paths)} pictures predicted on WASM: ")
        masks = site.masks()
        assert left(rest) == []
    assert counted(world, np.stack([masks[path.stem] for path in paths])) <= max(2, world.check_ties)


def test_ray(world: World, engine: Engine, tmp_path: Path) -> None:
    with local_cluster():
        got = predicted(engine, world, tmp_path / "masks.npy", "--on", "ray")
    np.testing.assert_array_equal(got, world.expected)


@pytest.fixture
def server(world: World) -> Iterator[str]:
    """The address of ``engine serve``."""
    if find_spec("engine.serve") is None:
        pytest.skip("there is no server in this version")
    pytest.importorskip("uvicorn", reason="the server needs maskfuse[serve]")
    arguments = [sys.executable, "-m", "engine.cli", "serve", str(world.plan), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        told = ""
        try:
            for line in process.stderr:
                told += line
                found = re.search(r"http://\S+:\d+", line)
                if found:
                    yield found[0]
                    break
            else:
                pytest.fail(told)
        finally:
            process.terminate()


def test_server(world: World, server: str) -> None:
    masks = []
    for tile in world.tiles:
        held = io.BytesIO()
        Image.fromarray(tile).save(held, "PNG")
        request = urllib.request.Request(f"{server}/predict", held.getvalue(), {"Accept": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            masks.append(np.asarray(Image.open(io.BytesIO(answer.read()))))
    np.testing.assert_array_equal(np.stack(masks), world.expected)
