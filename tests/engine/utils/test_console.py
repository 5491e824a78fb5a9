"""What the command lines share: silence down to the file descriptors, one line out of a library's complaint."""

from __future__ import annotations

import os

import pytest

from engine.utils.console import first_line, silenced


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
