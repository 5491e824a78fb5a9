"""What the command lines share: silence down to the file descriptors, one line out of a library's complaint."""

from __future__ import annotations

import io
import os
import warnings

import pytest

from engine.utils.console import first_line, run, say, say_next, silenced, wrapped


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
