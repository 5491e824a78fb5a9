"""Files that appear whole or not at all, under names of their own; leftovers of other processes go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.utils.files import clear_left_over, replacing, temporary_name, write_text

OTHER = "0123456789abcdef"


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


def test_leftovers_of_other_processes_go_and_what_is_no_leftover_stays(tmp_path: Path) -> None:
    """The caller has the lock, so whatever another process left is left over: even one that lives, or has this number.

    As every first process of a container has number 1, numbers say nothing.
    """
    output = tmp_path / "m*.csv"
    own, parent = os.getpid(), os.getppid()
    stale = [
        f".m*.csv.partial-{OTHER}",
        f".m*.csv.partial-{OTHER}.gpkg-journal",
        f".m*.csv.json.partial-{OTHER}",
        # Names of earlier versions: a process number, with a token or without.
        f".m*.csv.partial-{own}",
        f".m*.csv.partial-{own}-{OTHER[:8]}-0",
        f".m*.csv.partial-{parent}",
        f".m*.csv.partial-{parent}-{OTHER[:8]}-0",
    ]
    kept = [
        temporary_name(output).name,
        temporary_name(output, suffix=".keras").name,
        f".m*.csv.replaced-{OTHER}",
        f".mx.csv.partial-{OTHER}",
        ".m*.csv.partial-",
        ".m*.csv.partial-notes",
    ]
    for name in (*stale, *kept):
        (tmp_path / name).write_text("")
    folder = tmp_path / f".m*.csv.partial-{OTHER[::-1]}"
    folder.mkdir()
    (folder / "0.png").write_text("")
    clear_left_over(output, "partial")
    assert {item.name for item in tmp_path.iterdir()} == set(kept)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process can be forked there")
def test_a_process_of_the_same_number_never_has_the_same_name(tmp_path: Path) -> None:
    """A forked process inherits everything but its number, which may be that of the first one in another namespace."""
    output, (reader, writer) = tmp_path / "masks.zarr", os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, temporary_name(output).name.encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs, ours = os.read(reader, 1000).decode(), temporary_name(output).name
    assert theirs != ours
    (tmp_path / theirs).mkdir()
    (tmp_path / ours).mkdir()
    clear_left_over(output, "partial")
    assert [item.name for item in tmp_path.iterdir()] == [ours]
