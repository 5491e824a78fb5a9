"""Every command line that README and docs show is one that the programs take."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PROGRAMS = ("engine", "exporters", "trainers")


def shown() -> list[tuple[str, str]]:
    """Return (page, command) of every line of a shell block that calls one of the programs."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("#")[0].split("&&"):
                    words = part.strip().removeprefix("$ ").split()
                    if words and Path(words[0]).name in PROGRAMS:
                        found.append((page.name, " ".join(words)))
    return found


@pytest.mark.parametrize(("page", "line"), shown())
def test_a_documented_command_is_one_that_the_program_takes(page: str, line: str) -> None:
    words = shlex.split(line)
    program = Path(words[0]).name
    group = typer.main.get_command(import_module(f"{program}.cli").app)
    assert isinstance(group, TyperGroup)
    rest = words[1:]
    if not rest or rest[0].startswith("-"):
        group.make_context(program, rest, resilient_parsing=True)
        return
    context = typer.Context(group, info_name=program)
    command = group.get_command(context, rest[0])
    assert command is not None, f"{page}: {program} has no command {rest[0]}"
    command.make_context(rest[0], rest[1:], parent=context, resilient_parsing="--help" in rest)


def test_the_pages_show_commands_of_each_program() -> None:
    assert {Path(line.split()[0]).name for _, line in shown()} >= set(PROGRAMS)
