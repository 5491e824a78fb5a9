"""The figures of docs/reliability.md are as many as they have to be, and none of them is a failure."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import ROOT

FIGURES = json.loads((ROOT / "benchmarks" / "results" / "reliability.json").read_text("utf-8"))
# Inputs of each fuzz target.
LEAST_INPUTS = 500


@pytest.mark.parametrize(("name", "tiles", "least"), [("KILL", False, 50), ("TERM", False, 10), ("KILL", True, 10)])
def test_every_killed_run_was_resumed_to_the_same_bytes(name: str, tiles: bool, least: int) -> None:
    rows = [row for row in FIGURES["kills"]["rows"] if row["signals"] == [name] and row["tiles"] == tiles]
    assert sum(row["killed"] for row in rows) >= least
    assert all(row["identical"] == row["killed"] for row in rows)
    assert sum(row["cut_off"] for row in rows) > 0


def test_fifty_runs_of_each_form_were_killed_with_one_process_number() -> None:
    rows = {row["output"]: row for row in FIGURES["one_pid"]["rows"]}
    assert set(rows) == {"masks.zarr", "masks", "masks.csv", "mask.tif"}
    assert all(row["identical"] == row["killed"] >= 50 and row["cut_off"] > 0 for row in rows.values())


def test_nothing_goes_wrong_without_a_word() -> None:
    rows = FIGURES["silent"]["rows"]
    assert len(rows) >= 14
    assert all(row["as_required"] for row in rows)


def test_every_fault_ended_as_it_should() -> None:
    assert len(FIGURES["faults"]["rows"]) >= 40
    assert all(row["as_promised"] for row in FIGURES["faults"]["rows"])


def test_every_target_was_fuzzed_by_hand_without_a_finding() -> None:
    """A new target is fuzzed before it stands here."""
    rows = {row["target"]: row for row in FIGURES["fuzzing"]["rows"]}
    code = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "fuzz").glob("test_*.py"))
    assert set(rows) == set(re.findall(r"^def (test_\w+)\(", code, flags=re.MULTILINE))
    for row in rows.values():
        assert row["executions"] >= LEAST_INPUTS
        assert not row["findings"]


def test_nothing_hangs_ends_in_a_traceback_or_takes_all_memory() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "stuck.json").read_text("utf-8"))["rows"]
    assert len(rows) >= 20
    assert all(row["as_required"] for row in rows)
