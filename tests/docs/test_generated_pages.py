"""Pages and tables made of stored figures are what their scripts make of them, and the scripts notice a change."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.fusion.strategies import STRATEGIES
from tests.conftest import ROOT, Result

CHECKS = {
    "docs/findings.md": ("-m", "benchmarks.findings.page", "--check"),
    "docs/reliability.md": ("-m", "benchmarks.reliability", "--check"),
    "README.md": ("-m", "benchmarks.bench_strategies", "--check"),
    "docs/scores.md": ("-m", "benchmarks.bench_libraries", "--check"),
}
MARKS = "<!-- strategies: written by python -m benchmarks strategies -->\n(.*?)<!-- end of strategies -->"


@pytest.mark.parametrize("page", CHECKS)
def test_the_page_is_up_to_date(page: str, process: Callable[..., Result]) -> None:
    done = process(module=CHECKS[page], cwd=ROOT)
    assert done.code == 0, done.out + done.err


@pytest.mark.parametrize("page", CHECKS)
def test_a_changed_figure_is_noticed(page: str, process: Callable[..., Result], tmp_path: Path) -> None:
    """In a copy of the pages and of benchmarks/, which the process prefers to the repository's."""
    for name in ("benchmarks", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "README.md", tmp_path)
    text = (tmp_path / page).read_text("utf-8")
    lines = text.splitlines(keepends=True)
    shown = re.compile(r"\| (PAN for U-Net\+\+|`masks.csv`|`borda`|`keras.metrics.MeanIoU\(n\)`) \|")
    figure = next(at for at, line in enumerate(lines) if shown.match(line))
    lines[figure] = re.sub(r"\d", lambda digit: str(9 - int(digit[0])), lines[figure])
    (tmp_path / page).write_text("".join(lines), "utf-8")
    done = process(module=CHECKS[page], cwd=tmp_path)
    assert done.code == 1, done.out + done.err
    assert Path(page).name in done.out


def test_findings_have_their_tables() -> None:
    page = (ROOT / "docs" / "findings.md").read_text("utf-8")
    tables = re.findall(r"<!-- (\w+): written by python -m benchmarks.findings -->\n(.*?)<!-- end", page, re.DOTALL)
    assert sorted(name for name, _ in tables) == ["background", "ensembles", "final", "steps", "student", "suppression"]
    assert all(len(table.splitlines()) > 2 for _, table in tables)


def test_readme_describes_every_strategy() -> None:
    texts = [(ROOT / name).read_text("utf-8") for name in ("README.md", "benchmarks/results/strategies.md")]
    (shown,), (measured,) = (re.findall(MARKS, text, re.DOTALL) for text in texts)
    assert shown == measured
    assert sorted(re.findall(r"^\| `([a-z-]+)` \| \S", shown, flags=re.MULTILINE)) == sorted(STRATEGIES)
