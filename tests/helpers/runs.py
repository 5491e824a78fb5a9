"""Runs of five shards, sessions that fail in mid-run, and what is left of both."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.errors import ModelError
from engine.models.net import Net
from tests.conftest import Result

if TYPE_CHECKING:
    from tests.helpers.world import World

Engine = Callable[..., Result]
COUNT = 40


class Dying:
    """Lets each member's session fail for good from the n-th call on."""

    prefix = "maskfuse_"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.die_at, self.times = 0, 1 << 30, 1 << 30
        whole = Net.run

        def run(member: Net, *arguments: object, **named: object) -> None:
            # What is tried out before the run does not count.
            self.calls += threading.current_thread().name.startswith(self.prefix)
            if self.die_at <= self.calls < self.die_at + self.times:
                raise ModelError(f"{member.path} fails: the device was lost")
            whole(member, *arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(Net, "run", run)

    def at(self, call: int, times: int = 1 << 30) -> None:
        self.calls, self.die_at, self.times = 0, call, times


def command(world: World, images: Path, goal: Path, *more: object) -> tuple[object, ...]:
    return ("ensemble", "-m", world.models, "-i", images, "-o", goal, "--workers", 1, "--batch-size", 4, *more)


def resumed(done: Result) -> int:
    """How many images the previous run had finished; how many of its last batches reached the disk is up to chance."""
    told = re.search(r"resuming after (\d+) of 40 images\n", done.err)
    assert told is not None, done.err
    return int(told[1])


def content(path: Path) -> dict[str, bytes]:
    """Every file of a result, its record too."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    beside = path.with_name(path.name + ".json")
    return {file.name: file.read_bytes() for file in [*found, beside] if file.is_file()}


def cut_off(engine: Engine, dying: Dying, world: World, images: Path, goal: Path, *more: object) -> Result:
    """A run that ends in the seventh of its ten batches, after about three of its five shards."""
    dying.at(3 * 6 + 1)
    result = engine(*command(world, images, goal, *more))
    dying.at(1 << 30)
    assert result.code == 2
    return result
