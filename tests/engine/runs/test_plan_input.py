"""The plan's [input] table: read, written, checked, part of a run's hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import PlanError
from engine.runs.options import Options, input_table, reading_of
from engine.runs.plan import Plan, read_plan, write_plan
from engine.runs.plan_input import InputTable
from engine.runs.plan_member import PlannedMember

MEMBERS = '[[members]]\nmodel = "a.onnx"\n'


def read(folder: Path, table: str) -> InputTable:
    (folder / "plan.toml").write_text(table + MEMBERS)
    return read_plan(folder / "plan.toml").input


def test_a_table_is_read_and_written(tmp_path: Path) -> None:
    assert read(tmp_path, "") == InputTable()
    table = InputTable("NCHW", "ignore", True)
    assert read(tmp_path, '[input]\nlayout = "NCHW"\nexif = "ignore"\nrgb_as_grey = true\n') == table
    for each in (table, InputTable(), InputTable(rgb_as_grey=True)):
        plan = Plan((PlannedMember(str(tmp_path / "a.onnx")),), input=each)
        write_plan(tmp_path / "again.toml", plan)
        assert read_plan(tmp_path / "again.toml") == plan
        assert ("[input]" in (tmp_path / "again.toml").read_text()) == (each != InputTable())


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("input = 3\n", "input: 3 is not a table"),
        ('[input]\nlayout = "NWHC"\n', r"input\.layout: 'NWHC' is unknown; allowed are NHWC, NCHW"),
        ("[input]\nlayout = 3\n", r"input\.layout: '3' is unknown"),
        ("[input]\nexif = false\n", r"input\.exif: 'False' is unknown; allowed are apply, ignore"),
        ("[input]\nrgb_as_grey = 1\n", r"input\.rgb_as_grey: '1' is unknown; allowed are true and false"),
        ("[input]\ngrey = true\n", "input: unknown key 'grey'; known are alpha, exif, layout, resolution, rgb_as_grey"),
    ],
)
def test_other_tables_are_refused(table: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=told):
        read(tmp_path, table)


def test_the_command_line_goes_before_the_plan() -> None:
    plan = Plan((PlannedMember("a.onnx"),), input=InputTable("NCHW", "ignore"))
    assert input_table(plan, Options()) == plan.input
    assert input_table(plan, Options(image_layout="NHWC")) == InputTable("NHWC", "ignore")
    reading = reading_of(plan, Options(grey_as_rgb=True))
    assert (reading.layout, reading.exif, reading.grey_as_rgb) == ("NCHW", "ignore", True)
