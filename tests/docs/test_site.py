"""The site's script: generated pages say what the programs say, links are turned, what is missing is found."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_site", ROOT / "scripts" / "make_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_names_every_command(site: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "help_of", lambda program, command="": f"help of {program} {command}".strip())
    page = site.commands()
    for heading in ("## engine", "### engine compare", "### exporters pack", "### trainers fit-specialists"):
        assert f"\n{heading}\n" in page
        assert f"\nhelp of {heading.lstrip('# ')}\n" in page


def test_help_is_what_the_program_prints(site: ModuleType) -> None:
    told = site.help_of("engine", "report")
    assert told.startswith(" Usage: engine report [OPTIONS] ")
    assert "--overwrite" in told
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= site.HELP_WIDTH


def test_links_are_turned_to_where_pages_stand(site: ModuleType) -> None:
    page = ROOT / "docs" / "formats.md"
    text = "[a](../benchmarks/results/kernels.md) [b](strategies.md#vote) [c](https://x.org/y) [d](../CONTRIBUTING.md)"
    assert site.turned(text, page) == (
        "[a](tables/kernels.md) [b](strategies.md#vote) [c](https://x.org/y) [d](contributing.md)"
    )
    table = ROOT / "benchmarks" / "results" / "kernels.md"
    assert site.turned("[a](../../docs/formats.md)", table) == "[a](../formats.md)"
    with pytest.raises(SystemExit, match="leads nowhere"):
        site.turned("[a](nothing.md)", page)
    with pytest.raises(SystemExit, match="no page in the site"):
        site.turned("[a](../engine/bench.py)", page)


def test_pages_that_are_missing_leave_the_nav(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name, text in {"index.md": "# Start\n", "tables/b.md": "# Second\n", "tables/a.md": "# First\nx"}.items():
        (tmp_path / name).write_text(text)
    nav = [{"Start": "index.md"}, {"Findings": "findings.md"}, {"Long": [{"R": "r.md"}]}, {"Tables": "tables/*"}]
    kept = [{"Start": "index.md"}, {"Tables": [{"First": "tables/a.md"}, {"Second": "tables/b.md"}]}]
    assert site.kept(nav, tmp_path) == kept


def test_what_a_built_page_lacks_is_found(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "index.html").write_text('<h2 id="x">x</h2>')
    (tmp_path / "index.html").write_text(
        '<a href="there/#x">a</a><a href="there/#y">b</a><a href="gone/">c</a><img src="no.png">'
        '<a href="https://example.org">d</a><link rel="stylesheet" href="https://example.org/font.css">'
    )
    assert list(site.broken(tmp_path)) == [
        "index.html: loads https://example.org/font.css from elsewhere",
        "index.html: there/#y has no such anchor",
        "index.html: gone/ is not there",
        "index.html: no.png is not there",
    ]


@pytest.mark.parametrize(
    ("program", "typed", "offered"),
    [
        ("engine", "engine com", ["compare"]),
        ("engine", "engine select --gro", ["--groups"]),
        ("exporters", "exporters q", ["quantize"]),
        ("trainers", "trainers fit-", ["fit-specialists"]),
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
