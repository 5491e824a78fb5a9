"""docs/reliability.md is what its figures make of it, and they are as many as they have to be."""

from __future__ import annotations

import json

import pytest

from benchmarks.reliability import __main__ as reliability

FIGURES = json.loads(reliability.FIGURES.read_text("utf-8"))


def test_the_page_is_generated() -> None:
    assert reliability.PAGE.read_text("utf-8").startswith("\n".join(reliability.page(FIGURES)).rstrip())


@pytest.mark.parametrize(("name", "tiles", "least"), [("KILL", False, 50), ("TERM", False, 10), ("KILL", True, 10)])
def test_every_killed_run_was_resumed_to_the_same_bytes(name: str, tiles: bool, least: int) -> None:
    rows = [row for row in FIGURES["kills"]["rows"] if row["signals"] == [name] and row["tiles"] == tiles]
    assert sum(row["killed"] for row in rows) >= least
    assert all(row["identical"] == row["killed"] for row in rows)
    assert sum(row["cut_off"] for row in rows) > 0


def test_every_fault_ended_as_it_should() -> None:
    from benchmarks.reliability.faults import FAULTS

    assert [row["fault"] for row in FIGURES["faults"]["rows"]] == [fault.told for fault in FAULTS]
    assert all(row["as_promised"] for row in FIGURES["faults"]["rows"])


def test_every_parser_was_fuzzed_for_half_an_hour_without_a_finding() -> None:
    rows = {row["target"]: row for row in FIGURES["fuzzing"]["rows"]}
    assert len(rows) >= 9
    for row in rows.values():
        assert row["wall_seconds"] >= 1800
        assert not row["findings"]
