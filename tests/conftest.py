"""What all tests share: the command lines run in this process, and the repository's root."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from engine.utils import console

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a typer application in this process as its entry point would; capture what its process would print."""

    def run(app: typer.Typer, *arguments: object) -> Result:
        capfd.readouterr()
        code = 0
        try:
            console.exit_code(lambda: app([str(argument) for argument in arguments]))
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        sys.stdout.flush()
        held = capfd.readouterr()
        return Result(code, held.out, held.err)

    return run
