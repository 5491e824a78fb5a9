"""The tables of docs/findings.md are those of the scores that are kept."""

from __future__ import annotations

import json

import pytest

from benchmarks.findings.page import PAGE, TABLES
from benchmarks.table import STANDING

STORE = STANDING / "systems.json"


@pytest.mark.parametrize("name", TABLES)
def test_the_page_shows_what_was_measured(name: str) -> None:
    table = TABLES[name](json.loads(STORE.read_text("utf-8")))
    assert len(table.splitlines()) > 2
    assert f"<!-- {name}: written by python -m benchmarks.findings -->\n{table}<!-- end" in PAGE.read_text("utf-8")
