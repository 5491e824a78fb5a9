"""The site's script: generated pages say what the programs say, links are turned, what is missing is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Result

SCRIPT = str(ROOT / "scripts" / "make_site.py")
HELP_WIDTH = 84
NAV = """
nav:
  - Start: index.md
  - Findings: findings.md
  - Commands: commands.md
  - Long:
      - R: r.md
  - Use: [{F: formats.md}, {S: strategies.md}]
  - Tables: tables/*
  - More: [{C: contributing.md}, {L: changelog.md}]
plugins: [{mkdocstrings: {handlers: {python: {}}}}]
"""
PAGES = {
    "mkdocs.yml": NAV,
    "CONTRIBUTING.md": "# Contributing\n",
    "CHANGELOG.md": "# Changelog\n",
    "engine/fuse.py": '"""See :func:`fuse`."""\n',
    "docs/index.md": "# Start\n",
    "docs/strategies.md": "# Strategies\n",
    "docs/formats.md": "[a](../benchmarks/results/kernels.md) [b](strategies.md#vote) [c](https://x.org/y) "
    "[d](../CONTRIBUTING.md)",
    "benchmarks/results/kernels.md": "# Second\n[a](../../docs/formats.md)",
    "benchmarks/results/all.md": "# First\nx",
}


def write(place: Path, pages: dict[str, str]) -> Path:
    for name, text in pages.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory, process: Callable[..., Result]) -> Path:
    """Return what the script gathers of a small repository: pages/ and mkdocs.yml."""
    place = write(tmp_path_factory.mktemp("site"), PAGES)
    done = process("--root", place, "--source-only", module=(SCRIPT,))
    assert done.code == 0, done.out + done.err
    return place / "build" / "docs"


def test_the_page_of_commands_names_every_command(gathered: Path) -> None:
    page = (gathered / "pages" / "commands.md").read_text("utf-8")
    for heading in ("## engine", "### engine compare", "### exporters pack", "### trainers fit-specialists"):
        assert f"\n{heading}\n\n```text\n Usage: {heading.lstrip('# ')} " in page


def test_help_is_what_the_program_prints(gathered: Path) -> None:
    page = (gathered / "pages" / "commands.md").read_text("utf-8")
    told = page.partition("### engine report\n\n```text\n")[2].partition("\n```")[0]
    assert told.startswith(" Usage: engine report [OPTIONS] ")
    assert "--overwrite" in told
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= HELP_WIDTH


def test_links_are_turned_to_where_pages_stand(gathered: Path) -> None:
    assert (gathered / "pages" / "formats.md").read_text() == (
        "[a](tables/kernels.md) [b](strategies.md#vote) [c](https://x.org/y) [d](contributing.md)"
    )
    assert (gathered / "pages" / "tables" / "kernels.md").read_text() == "# Second\n[a](../formats.md)"


@pytest.mark.parametrize(
    ("link", "told"), [("nothing.md", "does not exist"), ("../engine/fuse.py", "no page in the site")]
)
def test_a_link_that_leads_to_no_page_is_refused(
    link: str, told: str, tmp_path: Path, process: Callable[..., Result]
) -> None:
    place = write(tmp_path, PAGES | {"docs/formats.md": f"[a]({link})"})
    done = process("--root", place, "--source-only", module=(SCRIPT,))
    assert done.code == 1
    assert f"docs/formats.md: {link}" in done.err
    assert told in done.err


def test_pages_that_are_missing_leave_the_nav(gathered: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="the site needs PyYAML")
    config = yaml.safe_load((gathered / "mkdocs.yml").read_text())
    assert config["nav"] == [
        {"Start": "index.md"},
        {"Commands": "commands.md"},
        {"Use": [{"F": "formats.md"}, {"S": "strategies.md"}]},
        {"Tables": [{"First": "tables/all.md"}, {"Second": "tables/kernels.md"}]},
        {"More": [{"C": "contributing.md"}, {"L": "changelog.md"}]},
    ]
    assert (gathered / "sources" / "engine" / "fuse.py").read_text() == '"""See `fuse`."""\n'


def test_what_a_built_page_lacks_is_found(tmp_path: Path, process: Callable[..., Result]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "index.html").write_text('<h2 id="x">x</h2>')
    (tmp_path / "index.html").write_text(
        '<a href="there/#x">a</a><a href="there/#y">b</a><a href="gone/">c</a><img src="no.png">'
        '<a href="https://example.org">d</a><link rel="stylesheet" href="https://example.org/font.css">'
    )
    done = process("--check-links", tmp_path, module=(SCRIPT,))
    assert done.code == 1
    assert done.out.splitlines() == [
        "index.html: loads https://example.org/font.css from another host",
        "index.html: there/#y has no such anchor",
        "index.html: gone/ is missing",
        "index.html: no.png is missing",
    ]
    shutil.rmtree(tmp_path / "there")
    (tmp_path / "index.html").write_text("<p>whole</p>")
    assert process("--check-links", tmp_path, module=(SCRIPT,)).code == 0


@pytest.mark.parametrize(
    ("program", "typed", "offered"),
    [
        ("engine", "engine com", ["compare"]),
        ("engine", "engine select --gro", ["--groups"]),
        ("exporters", "exporters q", ["quantize"]),
        ("trainers", "trainers fit-", ["fit-specialists", "fit-folds"]),
    ],
)
def test_the_tab_key_completes(program: str, typed: str, offered: list[str]) -> None:
    words = {
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
        f"_{program.upper()}_COMPLETE": "complete_bash",
    }
    code = f"import sys; sys.argv = [{program!r}]; from {program}.cli import main; main()"
    environment = {**os.environ, **words, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == offered


@pytest.mark.parametrize("program", ["engine", "exporters", "trainers"])
def test_completion_can_be_installed(program: str) -> None:
    code = f"import sys; sys.argv = [{program!r}, '--show-completion', 'bash']; from {program}.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert f"complete -o default -F _{program}_completion {program}" in done.stdout
