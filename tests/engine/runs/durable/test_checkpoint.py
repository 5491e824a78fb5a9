"""Runs on a disk that really fills up, a small tmpfs: the message counts what ``--resume`` then finds."""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.runs.durable import images as durable
from engine.runs.durable import scenes as durable_scenes
from engine.runs.durable.shards import Shard, read_shard
from tests.helpers.runs import Engine, content
from tests.helpers.world import World

KIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB; :func:`fill` leaves as much of it as a test wants."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True, text=True
        )
    except OSError as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(disk: Path, left: int) -> Path:
    """Take all of a disk but ``left`` bytes; return the file that does."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(16 * KIB * KIB - left))
    return ballast


def counted(told: str, pattern: str) -> int:
    found = re.search(pattern, told)
    assert found is not None, told
    return int(found[1])


@pytest.mark.parametrize("left", [140, 300])
def test_images_kept_on_a_full_disk_are_those_that_are_found(
    left: int, world: World, tmp_path: Path, disk: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MOST_IMAGES", 12)
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(1).integers(0, 240, (60, 70, 90)).astype(np.uint8))
    arguments = ("ensemble", "-m", world.models, "-i", images, "--workers", 1, "--batch-size", 3)
    assert engine(*arguments, "-o", tmp_path / "m.csv").code == 0
    ballast = fill(disk, left * KIB)
    refused = engine(*arguments, "-o", disk / "m.csv")
    assert refused.code == 2
    assert "No space left on device" in refused.err
    kept = counted(refused.err, r"(\d+) images are kept")
    assert kept >= 12
    ballast.unlink()
    done = engine(*arguments, "-o", disk / "m.csv", "--resume")
    assert done.code == 0, done.err
    assert counted(done.err, r"resuming after (\d+) of 60") == kept
    assert content(disk / "m.csv") == content(tmp_path / "m.csv")
    assert len(list(disk.iterdir())) == 2


@pytest.mark.parametrize("left", [24, 40])
def test_tiles_kept_on_a_full_disk_are_those_that_are_found(
    left: int, world: World, tmp_path: Path, disk: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_scenes, "MOST_TILES", 24)
    scene = tmp_path / "scene.npy"
    np.save(scene, np.random.default_rng(2).integers(0, 240, (300, 190)).astype(np.uint8))
    arguments = ("ensemble", "-m", world.models, "-i", scene, "--tile", "16x32", "--workers", 1)
    assert engine(*arguments, "-o", tmp_path / "m.npy").code == 0
    ballast = fill(disk, left * KIB)
    refused = engine(*arguments, "-o", disk / "m.npy")
    assert refused.code == 2
    kept = counted(refused.err, r"(\d+) tiles are kept")
    ballast.unlink()
    done = engine(*arguments, "-o", disk / "m.npy", "--resume")
    assert done.code == 0, done.err
    assert counted(done.err, r"resuming after (\d+) of") == kept
    assert content(disk / "m.npy") == content(tmp_path / "m.npy")


class _Cut:
    """A stream whose disk takes half of the second write, then nothing, then all again."""

    def __init__(self, stream: object) -> None:
        self._stream, self.calls = stream, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, data: memoryview) -> int:
        self.calls += 1
        if self.calls == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._stream.write(data[: len(data) // 2] if self.calls == 2 else data)  # type: ignore[attr-defined]


def test_half_a_batch_is_cut_back_before_the_shard_is_sealed(tmp_path: Path) -> None:
    shard = Shard(tmp_path / "0.labels")
    shard._stream = _Cut(shard._stream)  # type: ignore[assignment]
    batch = np.arange(60, dtype=np.uint8).reshape(3, 20)
    shard.write(batch)
    with pytest.raises(OSError, match="No space"):
        shard.write(batch + 60)
    assert shard.path.stat().st_size == batch.size
    shard.write(batch + 120)
    shard.seal()
    np.testing.assert_array_equal(
        np.concatenate(list(read_shard(shard.path, 20))), np.concatenate([batch, batch + 120])
    )
