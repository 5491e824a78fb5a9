"""Files that appear whole or not at all, under names of their own; leftovers go once their process has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.utils import files
from engine.utils.files import clear_left_over, replacing, temporary_name, write_text

OTHER = "0" * 8


def dead_number() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "first")
    with pytest.raises(KeyError), replacing(path, suffix=".keras") as partial:
        assert (partial.parent, partial.suffix) == (tmp_path, ".keras")
        partial.write_text("half")
        assert path.read_text() == "first"
        raise KeyError
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "first"


def test_the_first_error_is_the_one_that_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError), replacing(tmp_path / "file" / "a.txt") as partial:
        partial.write_text("half")


def test_two_calls_on_one_path_never_share_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert len({temporary_name(path) for _ in range(100)}) == 100


@pytest.mark.skipif(os.name == "nt", reason="whether a process lives cannot be asked there")
def test_leftovers_of_ended_processes_go_and_others_stay(tmp_path: Path) -> None:
    output = tmp_path / "m*.csv"
    own, parent, ended = os.getpid(), os.getppid(), dead_number()
    stale = [
        f".m*.csv.partial-{ended}",
        f".m*.csv.partial-{ended}-{OTHER}-0",
        f".m*.csv.json.partial-{ended}-{OTHER}-3",
        # This very number, before or in another container: as every first process of a container has number 1.
        f".m*.csv.partial-{own}",
        f".m*.csv.partial-{own}-{OTHER}-0",
    ]
    kept = [
        temporary_name(output).name,
        temporary_name(output, suffix=".keras").name,
        f".m*.csv.partial-{parent}",
        f".m*.csv.partial-{parent}-{OTHER}-0",
        f".m*.csv.replaced-{ended}-{OTHER}-0",
        f".mx.csv.partial-{ended}-{OTHER}-0",
        ".m*.csv.partial-",
        ".m*.csv.partial-notes",
        f".m*.csv.partial-{1 << 40}",
    ]
    for name in (*stale, *kept):
        (tmp_path / name).write_text("")
    folder = tmp_path / f".m*.csv.partial-{ended}-{OTHER}-7"
    folder.mkdir()
    (folder / "0.png").write_text("")
    clear_left_over(output, "partial")
    assert {item.name for item in tmp_path.iterdir()} == set(kept)


def test_a_process_with_this_number_in_another_container_left_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "masks.npy"
    with monkeypatch.context() as there:
        there.setattr(files, "_TOKEN", OTHER)
        theirs = temporary_name(output)
    theirs.write_text("")
    ours = temporary_name(output)
    ours.write_text("")
    clear_left_over(output, "partial")
    assert not theirs.exists()
    assert ours.exists()
