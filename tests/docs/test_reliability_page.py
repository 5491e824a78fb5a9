"""The figures of docs/reliability.md are as many as they have to be, and none of them is a failure."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ROOT

FIGURES = json.loads((ROOT / "benchmarks" / "results" / "reliability.json").read_text("utf-8"))


@pytest.mark.parametrize(("name", "tiles", "least"), [("KILL", False, 50), ("TERM", False, 10), ("KILL", True, 10)])
def test_every_killed_run_was_resumed_to_the_same_bytes(name: str, tiles: bool, least: int) -> None:
    rows = [row for row in FIGURES["kills"]["rows"] if row["signals"] == [name] and row["tiles"] == tiles]
    assert sum(row["killed"] for row in rows) >= least
    assert all(row["identical"] == row["killed"] for row in rows)
    assert sum(row["cut_off"] for row in rows) > 0


def test_fifty_runs_of_each_form_were_killed_with_one_process_number() -> None:
    rows = {row["output"]: row for row in FIGURES["one_pid"]["rows"]}
    assert set(rows) == {"masks.zarr", "masks", "masks.csv", "mask.tif"}
    assert all(row["identical"] == row["killed"] >= 50 and row["cut_off"] >= 10 for row in rows.values())


def test_nothing_goes_wrong_without_a_word() -> None:
    rows = FIGURES["silent"]["rows"]
    assert len(rows) >= 14
    assert all(row["as_required"] for row in rows)


def test_every_fault_ended_as_it_should() -> None:
    assert len(FIGURES["faults"]["rows"]) >= 40
    assert all(row["as_promised"] for row in FIGURES["faults"]["rows"])


def test_every_parser_was_fuzzed_for_half_an_hour_without_a_finding() -> None:
    rows = {row["target"]: row for row in FIGURES["fuzzing"]["rows"]}
    assert len(rows) >= 9
    for row in rows.values():
        assert row["wall_seconds"] >= 1800
        assert not row["findings"]
