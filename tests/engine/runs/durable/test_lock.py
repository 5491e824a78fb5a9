"""The lock on a run's folder: one holder at a time, named to the others, through any number of removals."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.runs.durable.lock import NAME, Lock, is_locked
from tests.conftest import ROOT

# Takes the lock again and again, with the folder removed each time; two holders would meet at the file `inside`.
TAKE = """
import os, sys
from pathlib import Path
from engine.errors import OutputError
from engine.runs.durable.lock import Lock

folder, inside = Path(sys.argv[1]), Path(sys.argv[2])
taken = 0
while taken < 300:
    try:
        lock = Lock(folder)
    except OutputError:
        continue
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    inside.unlink()
    lock.close(remove=taken % 3 != 0)
    taken += 1
print(taken)
"""


def test_the_holder_is_named_and_nobody_else_gets_in(tmp_path: Path) -> None:
    folder = tmp_path / ".m.csv.run"
    assert is_locked(folder) == ""
    with Lock(folder):
        assert is_locked(folder) == f"process {os.getpid()}"
        with pytest.raises(OutputError, match=f"in use by process {os.getpid()}: wait for it"):
            Lock(folder)
        refused: list[str] = []

        def elsewhere() -> None:
            try:
                Lock(folder)
            except OutputError as error:
                refused.append(str(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(refused) == 1
        assert is_locked(folder)
    assert is_locked(folder) == ""
    assert (folder / NAME).exists()
    Lock(folder).close()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "missing/run"):
        with pytest.raises(OSError):
            Lock(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_asking_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert is_locked(tmp_path / "run") == ""
    assert not list((tmp_path / "run").iterdir())


def test_the_folder_goes_with_the_lock_unless_something_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lock = Lock(folder)
    lock.close(remove=True)
    lock.close(remove=True)
    assert not folder.exists()
    lock = Lock(folder)
    (folder / "journal").write_text("")
    lock.close(remove=True)
    assert [path.name for path in folder.iterdir()] == ["journal"]


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
def test_closing_never_removes_the_lock_of_the_next_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    first, later = Lock(folder), []
    close = os.close

    def next_comes(descriptor: int) -> None:
        close(descriptor)
        monkeypatch.setattr(os, "close", close)
        later.append(Lock(folder))

    monkeypatch.setattr(os, "close", next_comes)
    first.close(remove=True)
    assert is_locked(folder) == f"process {os.getpid()}"
    with pytest.raises(OutputError, match="in use"):
        Lock(folder)
    later[0].close(remove=True)
    assert not folder.exists()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from engine.runs.durable.lock import Lock; "
    code += "lock = Lock(Path(sys.argv[1])); os._exit(9)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], env=environment).returncode == 9
    assert (tmp_path / "run" / NAME).exists()
    assert is_locked(tmp_path / "run") == ""
    Lock(tmp_path / "run").close(remove=True)
    assert not (tmp_path / "run").exists()


def test_two_processes_never_hold_it_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TAKE, str(tmp_path / "run"), str(tmp_path / "inside")]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    # Seconds; so long may they hang before the test gives up.
    told = [process.communicate(timeout=120) for process in processes]
    assert told == [(b"300\n", b"")] * 3
