"""What the command lines share: silence down to the file descriptors, one line out of a library's complaint."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest

from engine.utils.console import first_line, run, say, say_next, silenced, stoppable, wrapped
from tests.conftest import ROOT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [30, 80])
def test_a_terminal_gets_whole_words_and_a_file_the_whole_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    path = "/a/folder-of-pictures/with-a-name/that-is-longer-than-forty/characters.npz"
    text = f"cannot read {path}: it is damaged or incomplete, copy it again, or leave it out of the run"
    assert wrapped(text, io.StringIO()) == text
    lines = wrapped(text, Terminal()).splitlines()
    assert " ".join(lines) == text
    assert all(len(line) <= columns for line in lines if not line.startswith(path))


def test_the_next_command_is_one_that_a_shell_takes(capfd: pytest.CaptureFixture[str]) -> None:
    say_next("engine", "evaluate", "my masks.csv", "--labels", "TRUE_MASKS")
    say("a\nb")
    assert capfd.readouterr().err == "next: engine evaluate 'my masks.csv' --labels TRUE_MASKS\na b\n"


def test_a_warning_of_a_library_is_one_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    app = typer.Typer()

    @app.command()
    def warn() -> None:
        warnings.warn("an object\nis no array", UserWarning, stacklevel=1)

    monkeypatch.setattr("sys.argv", ["warn"])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as left:
        warnings.simplefilter("always")
        run(app)
    assert left.value.code == 0
    assert capfd.readouterr().err == "warning: an object\n"


def test_silence_reaches_the_file_descriptors(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced(1, 2):
        os.write(1, b"noise")
        os.write(2, b"noise")
    os.write(2, b"heard")
    assert capfd.readouterr() == ("", "heard")


def test_stderr_alone_is_silenced_unless_more_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced():
        os.write(1, b"result")
        os.write(2, b"noise")
    assert capfd.readouterr() == ("result", "")


def test_silence_ends_with_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), silenced():
        os.write(2, b"noise")
        raise KeyError
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.parametrize(
    ("text", "plain", "named"),
    [
        ("\n torn file\nat 0x7f", "torn file", "ValueError: torn file"),
        ("x" * 300, "x" * 200, "ValueError: " + "x" * 200),
        (" \n", "ValueError", "ValueError"),
    ],
)
def test_the_first_line_of_an_error(text: str, plain: str, named: str) -> None:
    assert first_line(ValueError(text)) == plain
    assert first_line(ValueError(text), kind=True) == named


STREAMS = """
import contextlib, os, sys, typer
from engine.utils import console

app = typer.Typer()

@app.command()
def work():
    sys.stdout.write("{}" * int(sys.argv[1]))
    with open("output", "w") as stream:
        with contextlib.suppress(OSError):
            os.write(2, b"a library's own line\\n")
        stream.write("whole")
    console.say("wrote output")

console.run(lambda standalone_mode: app(args=[], standalone_mode=standalone_mode))
"""


@pytest.mark.skipif(os.name == "nt", reason="redirections of a POSIX shell")
@pytest.mark.parametrize(
    ("shell", "code", "heard"),
    [
        ('"$@" 2>&-', 0, ""),
        ('"$@" >&- 2>&-', 0, ""),
        ('"$@" <&- >&-', 0, "a library's own line\nwrote output"),
        ('"$@" 2>/dev/full', 0, ""),
        ('"$@" | true; exit ${PIPESTATUS[0]}', 0, "a library's own line\nwrote output"),
        ('"$@" 2>&1 | true; exit ${PIPESTATUS[0]}', 0, ""),
        (
            '"$@" >/dev/full',
            2,
            "a library's own line\nwrote output\nerror: cannot write the results to stdout (No space left on device): "
            "make space",
        ),
    ],
)
@pytest.mark.parametrize("size", [5, 100_000])
def test_streams_that_are_closed_or_full_harm_no_output(
    tmp_path: Path, shell: str, code: int, heard: str, size: int
) -> None:
    command = ["bash", "-c", f"{{ {shell}; }}", "bash", sys.executable, "-c", STREAMS, str(size)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.returncode == code
    if size == 5:  # more than a buffer ends the run where it is printed
        assert done.stderr.strip() == heard
        assert (tmp_path / "output").read_text() == "whole"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_signals_end_a_run_and_no_second_one_hinders_it(number: signal.Signals, request: pytest.FixtureRequest) -> None:
    # What starts the tests may ignore a hangup, as nohup does.
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.SIG_DFL)))
    before = signal.getsignal(number)
    left = []
    with pytest.raises(SystemExit) as ended, stoppable():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
            left.append("finished work is kept here")
    assert ended.value.code == 128 + number and left
    assert signal.getsignal(number) is before


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_hangup_that_the_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
