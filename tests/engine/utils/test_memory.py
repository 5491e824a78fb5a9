"""The bound on memory: what is stated, half of what is free, and of a container less than of its machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import PlanError
from engine.utils import memory
from engine.utils.memory import free_memory, in_words, memory_bound, memory_limit, parse_bytes
from tests.conftest import Result
from tests.helpers.world import World


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("512 MiB", 512 << 20), ("1.5gib", 3 << 29), ("2000000000", 2 * 10**9), ("1TB", 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "4XB", "-4GB", "nan", "1e9", "10MB", "9" * 40, "4GB 2"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(PlanError, match=r"--memory .*give"):
        parse_bytes(text)


def test_the_option_bounds_a_run(world: World, engine: Callable[..., Result], tmp_path: Path) -> None:
    try:
        command = ("ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "a.npy")
        assert engine(*command, "--memory", "some").err == "error: --memory some: give a size, as in 4GB or 512MiB\n"
        assert engine(*command, "--memory", "100MB").code == 0
        assert memory_bound() == 10**8
    finally:
        memory.state_memory(None)
    assert memory_bound() > 10**8


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_less_than_its_machine(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "memory" if version == 1 else tmp_path
    limit, used, droppable = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if version == 1
        else ("memory.max", "memory.current", "inactive_file")
    )
    place.mkdir(exist_ok=True)
    (place / limit).write_text("1000000\n")
    (place / used).write_text("700000\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert free_memory() == 300_000
    (place / "memory.stat").write_text(f"anon 1\n{droppable} 200000\nother 5\n")
    assert free_memory() == 500_000
    (place / limit).write_text("max\n")
    assert free_memory() > 1_000_000


def test_the_bound_is_half_of_what_is_free_and_can_be_stated() -> None:
    assert memory.LEAST <= memory_bound() <= max(memory.LEAST, 2 * free_memory())
    with memory_limit(12345):
        assert memory_bound() == 12345
    assert (in_words(1.74e9), in_words(2e6), in_words(1999), in_words(12)) == ("1.7 GB", "2.0 MB", "2.0 kB", "12 bytes")
