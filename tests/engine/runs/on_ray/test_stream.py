"""The same run on Ray: byte-identical, nothing missing or doubled, whoever dies on the way."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import PlanError
from engine.runs.durable import images as durable
from engine.runs.on_ray import stream as ray_stream
from engine.runs.on_ray.cluster import Cluster
from engine.runs.on_ray.predictor import Predictor, Spans
from engine.sources.base import Source, from_array
from engine.sources.open import open_source
from engine.sources.slices import span_of
from tests.conftest import Result
from tests.helpers.clusters import local_cluster
from tests.helpers.world import World

Engine = Callable[..., Result]
COUNT, BLOCK = 60, 7


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray cluster of two processors for all tests of this file."""
    with local_cluster():
        yield


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ray_stream, "BLOCK_IMAGES", BLOCK)
    pixels = np.random.default_rng(5).integers(0, 240, (COUNT, 8, 16)).astype(np.uint8)
    np.savez_compressed(tmp_path / "images.npz", images=pixels)
    return tmp_path / "images.npz"


def content(goal: Path) -> tuple[bytes, bytes]:
    return goal.read_bytes(), goal.with_name(goal.name + ".json").read_bytes()


def test_the_output_is_that_of_a_local_run(
    cluster: None, world: World, images: Path, tmp_path: Path, engine: Engine
) -> None:
    truth = np.random.default_rng(6).integers(0, 5, (COUNT, 8, 16)).astype(np.uint8)
    np.save(tmp_path / "truth.npy", truth)
    arguments = ("ensemble", "-m", world.models, "-i", images, "--labels", tmp_path / "truth.npy", "--json")
    told = []
    for name, more in (("here.csv", ()), ("ray.csv", ("--on", "ray"))):
        done = engine(*arguments, "-o", tmp_path / name, "--strategy", "vote", *more)
        assert done.code == 0, done.err
        told.append(json.loads(done.out))
    assert content(tmp_path / "here.csv") == content(tmp_path / "ray.csv")
    for run in told:
        for row in run["scores"]:
            del row["images_per_second"]
        run["scores"].sort(key=lambda row: (row["name"], row["suppressed"]))
    for key in ("images", "scores", "class_share", "tie_rate", "members"):
        assert told[0][key] == told[1][key], key


class Mortal(Predictor):
    """An actor whose process ends in the middle of its second block, once in the whole run."""

    def _predict(self, start: int, count: int) -> dict[str, Any]:
        row = super()._predict(start, count)
        self.done = getattr(self, "done", 0) + 1
        if self.done == 2:
            try:
                os.close(os.open(os.environ["MASKFUSE_TEST_DIED"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return row
            os._exit(1)
        return row


def test_a_worker_that_dies_is_replaced(
    cluster: None, world: World, images: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = tmp_path / "died"
    arguments = ("ensemble", "-m", world.models, "-i", images)
    assert engine(*arguments, "-o", tmp_path / "here.csv").code == 0

    class MortalHere(Mortal):
        def __init__(self, *given: Any) -> None:
            os.environ["MASKFUSE_TEST_DIED"] = str(died)
            super().__init__(*given)

    monkeypatch.setattr(ray_stream, "Predictor", MortalHere)
    done = engine(*arguments, "-o", tmp_path / "ray.csv", "--on", "ray", "--workers", 2)
    assert done.code == 0, done.err
    assert died.exists()
    assert content(tmp_path / "here.csv") == content(tmp_path / "ray.csv")


def test_workers_read_parquet_behind_a_url(
    cluster: None, world: World, images: Path, tmp_path: Path, engine: Engine
) -> None:
    """Row groups that do not fall together with blocks, in several files, with ids of their own."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    import pyarrow.parquet

    pixels = np.load(images)["images"]
    (tmp_path / "set").mkdir()
    for number, rows in enumerate((slice(0, 25), slice(25, COUNT))):
        ids = [f"tile {index}" for index in range(COUNT)[rows]]
        table = arrow.table({"id": ids, "image": arrow.FixedShapeTensorArray.from_numpy_ndarray(pixels[rows])})
        pyarrow.parquet.write_table(table, tmp_path / "set" / f"{number}.parquet", 4)
    places = (("here.csv", str(tmp_path / "set"), ()), ("ray.csv", f"file://{tmp_path / 'set'}", ("--on", "ray")))
    for name, place, more in places:
        done = engine("ensemble", "-m", world.models, "-i", place, "-o", tmp_path / name, *more)
        assert done.code == 0, done.err
    # The records beside them differ: an input behind a URL is told by what its store says of it.
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "ray.csv").read_bytes()


def test_errors_of_workers_are_one_line_and_a_run_goes_on_behind_them(
    cluster: None, world: World, tmp_path: Path, engine: Engine, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eighth picture is none; then it is one; begun on Ray, ended here."""
    monkeypatch.setattr(durable, "MOST_IMAGES", BLOCK)
    folder = tmp_path / "tiles"
    folder.mkdir()
    pixels = np.load(images)["images"][:18]
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    held = (folder / "16.png").read_bytes()
    (folder / "16.png").write_bytes(held[:50])
    arguments = ("ensemble", "-m", world.models, "-i", folder, "-o", tmp_path / "m.npy")
    refused = engine(*arguments, "--on", "ray", "--workers", 1)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert "16.png" in refused.err
    assert re.search(r"(7|14) images are kept", refused.err)
    skipped = engine(*arguments[:-1], tmp_path / "n.npy", "--on", "ray", "--workers", 1, "--on-bad-image", "skip")
    assert skipped.code == 3, skipped.err
    assert (tmp_path / "n.npy.skipped.txt").read_text().splitlines()[1].startswith("16\t16\t")
    (folder / "16.png").write_bytes(held)
    # The input is another one now.
    assert "the input differs" in engine(*arguments, "--resume").err


def test_a_run_begun_here_ends_on_ray(
    cluster: None, world: World, images: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MOST_IMAGES", 8)
    arguments = ("ensemble", "-m", world.models, "-i", images, "--batch-size", 4, "--workers", 1)
    assert engine(*arguments, "-o", tmp_path / "whole.csv").code == 0
    seal = durable.DurableRun.seal

    def refuse(work: durable.DurableRun) -> None:
        seal(work)
        if work.done == 24:
            raise PlanError("enough")

    monkeypatch.setattr(durable.DurableRun, "seal", refuse)
    assert "24 images are kept" in engine(*arguments, "-o", tmp_path / "m.csv").err
    monkeypatch.setattr(durable.DurableRun, "seal", seal)
    done = engine(*arguments, "-o", tmp_path / "m.csv", "--on", "ray", "--resume")
    assert done.code == 0, done.err
    assert "resuming after 24 of 60 images" in done.err
    assert content(tmp_path / "m.csv") == content(tmp_path / "whole.csv")


def test_options_that_do_not_fit_are_refused(world: World, tmp_path: Path, engine: Engine) -> None:
    arguments = ("ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "m.csv")
    for more, told in (
        (("--on", "mars"), "--on mars; allowed are here and ray"),
        (("--ray-address", "auto"), "go with --on ray"),
        (("--gpus-per-worker", "1"), "go with --on ray"),
        (("--on", "ray", "--gpus-per-worker", "-1"), "0 or above"),
        (("--on", "ray", "--gpus-per-worker", "nan"), "0 or above"),
    ):
        refused = engine(*arguments, *more)
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
        assert told in refused.err


def test_without_ray_one_line_says_what_to_install(world: World, tmp_path: Path, process: Engine) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from engine.cli import main; main()"
    refused = process(
        "ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "m.csv", "--on", "ray",
        module=("-c", script),
    )  # fmt: skip
    assert (refused.code, refused.err) == (2, "error: --on ray needs Ray: pip install 'maskfuse[ray]'\n")


def sources(tmp_path: Path) -> Iterator[Source]:
    pixels = np.arange(30 * 4 * 6, dtype=np.uint16).reshape(30, 4, 6)
    np.save(tmp_path / "x.npy", pixels)
    np.savez_compressed(tmp_path / "x.npz", images=pixels)
    (tmp_path / "tiles").mkdir()
    for index, image in enumerate(pixels.astype(np.uint8)):
        Image.fromarray(image).save(tmp_path / "tiles" / f"{index}.png")
    yield from_array(pixels)
    for name in ("x.npy", "x.npz", "tiles"):
        yield open_source(tmp_path / name)
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    for name in ("x.npy", "x.npz", "tiles"):
        yield open_source(f"file://{tmp_path / name}")
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    table = arrow.table({"image": arrow.FixedShapeTensorArray.from_numpy_ndarray(pixels)})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", 4)
    yield open_source(tmp_path / "x.parquet")


def test_blocks_of_every_source_in_every_order(tmp_path: Path) -> None:
    for source in sources(tmp_path):
        whole = np.concatenate([batch.pixels for batch in source.batches(30)])
        reader = Spans(source)
        for start, count, size in ((0, 7, 3), (7, 7, 7), (21, 9, 2), (7, 4, 4), (29, 1, 5), (0, 30, 30)):
            for span in (reader.span(start, count), span_of(source, start, count)):
                batches = list(span.batches(size))
                np.testing.assert_array_equal(
                    np.concatenate([batch.pixels for batch in batches]), whole[start : start + count]
                )
                assert [batch.start for batch in batches] == list(range(start, start + count, size))
                assert [name for batch in batches for name in batch.ids] == list(source.ids[start : start + count])
                assert all(len(batch.ids) == size for batch in batches[:-1])


def test_impossible_clusters() -> None:
    for more in ({"workers": -1}, {"gpus": -0.5}, {"gpus": float("inf")}):
        with pytest.raises(PlanError, match="0 or above"):
            Cluster(**more)  # type: ignore[arg-type]
