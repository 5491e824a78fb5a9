"""ensemble.toml: read into a Plan, every value checked."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engine.errors import PlanError
from engine.fusion.doubt import Unknown
from engine.runs.plan import MOST_BYTES, Plan, read_plan, write_plan
from engine.runs.plan_member import PlannedMember

WHOLE = """
strategy = "mean-prob"
suppress = [0, 3]
bias = [0, 0, 0.1, 0, -1]
vote_stage = "fused"

[[members]]
model = "unet.onnx"
weight = 2

[[members]]
model = "/elsewhere/foreign.onnx"
[members.contract]
classes = ["a", "b"]
scale = 1
output_name = "logits"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "ensemble.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_whole_of_it(tmp_path: Path) -> None:
    assert read_plan(written(tmp_path, WHOLE)) == Plan(
        members=(
            PlannedMember(str(tmp_path / "unet.onnx"), 2.0),
            PlannedMember(
                "/elsewhere/foreign.onnx", 1.0, {"classes": ("a", "b"), "scale": 1.0, "output_name": "logits"}
            ),
        ),
        strategy="mean-prob",
        suppress=(0, 3),
        bias=(0.0, 0.0, 0.1, 0.0, -1.0),
        vote_stage="fused",
    )


def test_what_is_not_stated_is_left_open(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, '[[members]]\nmodel = "a.onnx"'))
    assert (plan.strategy, plan.suppress, plan.bias, plan.vote_stage) == (None, None, (), None)
    assert read_plan(written(tmp_path, 'suppress = []\n[[members]]\nmodel = "a.onnx"')).suppress == ()


def test_the_example_in_the_modules_docstring_is_a_plan(tmp_path: Path) -> None:
    from engine.runs import plan

    assert plan.__doc__ is not None
    read = read_plan(written(tmp_path, plan.__doc__.partition("\n")[2]))
    assert len(read.members) == 3
    assert read.members[1].contract["activation"] == "logits"


@pytest.mark.parametrize(
    "table", ["ids = [0, 7, 11]\nvoid = 99\noutput_ids = true", 'palette = "sub/p.csv"', "void = -1"]
)
def test_what_labels_hold_is_written_as_it_was_read(table: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "p.csv").write_text("soil,1,2,3\nsand,4,5,6\n")
    plan = read_plan(written(tmp_path, f"[labels]\n{table}\n{MEMBER}"))
    write_plan(tmp_path / "again.toml", plan)
    assert tomllib.loads((tmp_path / "again.toml").read_text())["labels"] == tomllib.loads(table)
    again = read_plan(tmp_path / "again.toml").labels
    assert (again.ids, again.void, again.output_ids) == (plan.labels.ids, plan.labels.void, plan.labels.output_ids)


MEMBER = '\n[[members]]\nmodel = "a.onnx"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "[[members]]"),
        ("members = []", "[[members]]"),
        ('members = ["a.onnx"]', "[[members]]"),
        ("[[members]]", 'model = "file.onnx"'),
        ('[[members]]\nmodel = ""', 'model = "file.onnx"'),
        ("[[members]]\nmodel = 1", "model: 1"),
        (MEMBER + 'weight = "2"', "weight"),
        (MEMBER + "weight = true", "weight"),
        (MEMBER + "weight = 99999999999999999999", "64 bits"),
        (MEMBER + "name = 'a'", "'name'"),
        (MEMBER + "contract = 1", "contract: 1"),
        (MEMBER + "[members.contract]\ncolour = 1", "'colour'"),
        (MEMBER + "[members.contract]\nscale = 'big'", "scale"),
        (MEMBER + "[members.contract]\nscale = 1979-05-27", "scale"),
        (MEMBER + "[members.contract]\noutput_name = 1", "output_name"),
        ("threads = 2" + MEMBER, "'threads'"),
        ("strategy = ['vote']" + MEMBER, "strategy"),
        ("suppress = 0" + MEMBER, "suppress: 0"),
        ("suppress = [0.5]" + MEMBER, "whole numbers"),
        ("suppress = [true]" + MEMBER, "suppress"),
        ("bias = ['a']" + MEMBER, "bias"),
        ("bias = 0.1" + MEMBER, "bias"),
        ("vote_stage = 1" + MEMBER, "vote_stage"),
        ("labels = 1" + MEMBER, "labels: 1 is not a table"),
        ("[labels]\nid = [0, 7]" + MEMBER, "'id'"),
        ("[labels]\nids = [0, 0.5]" + MEMBER, "labels.ids"),
        ("[labels]\nvoid = true" + MEMBER, "labels.void"),
        ("[labels]\npalette = 1" + MEMBER, "labels.palette"),
        ("[labels]\npalette = 'none.csv'" + MEMBER, "none.csv"),
        ("[labels]\noutput_ids = true" + MEMBER, "output_ids without ids"),
        ("[labels]\noutput_ids = 1" + MEMBER, "labels.output_ids"),
        ("[labels]\nids = [0, 300]\noutput_ids = true" + MEMBER, "8-bit"),
        ("strategy =", "TOML"),
        ("a = " + "[" * 5000, "TOML"),
        ("a = 1\na = 2", "TOML"),
    ],
)
def test_a_false_value_is_refused_by_name(text: str, told: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(PlanError) as refusal:
        read_plan(path)
    assert told in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_what_cannot_be_a_plan_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such plan"):
        read_plan(tmp_path)
    with pytest.raises(PlanError, match="larger"):
        read_plan(written(tmp_path, "#" * (MOST_BYTES + 1)))
    (tmp_path / "ensemble.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match="TOML"):
        read_plan(tmp_path / "ensemble.toml")


def test_tables_about_input_and_output_are_read_and_written_back(tmp_path: Path) -> None:
    members = '[[members]]\nmodel = "unet.onnx"\n'
    plan = read_plan(written(tmp_path, f"[input]\nalpha = true\n[output]\nmin_area = 25\n{members}"))
    assert (plan.input.alpha, plan.output.min_area) == (True, 25.0)
    write_plan(tmp_path / "again.toml", plan)
    assert read_plan(tmp_path / "again.toml") == plan
    plain = read_plan(written(tmp_path, members))
    assert (plain.input.stated, plain.output.stated) == ({}, {})


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("[output]\nmin_area = -1", r"output\.min_area: '-1' does not fit; a number from 0"),
        ("[output]\nmin_area = inf", r"output\.min_area: 'inf'"),
        ("[output]\nmin_area = true", r"output\.min_area: 'True'"),
        ("[output]\nform = 1", r"output: unknown key 'form'; known is min_area"),
        ("[input]\nalpha = 4", r"input\.alpha: '4' is unknown; allowed are true and false"),
        ("[input]\nbeta = true", r"input: unknown key 'beta'; known are .*alpha"),
        ("input = 3\noutput = 4", r"input: 3 is not a table"),
    ],
)
def test_wrong_tables_about_input_and_output_are_one_line(table: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=told):
        read_plan(written(tmp_path, f'{table}\n[[members]]\nmodel = "unet.onnx"\n'))


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    assert read_plan(written(tmp_path, "\ufeff" + WHOLE)) == read_plan(written(tmp_path, WHOLE))


UNKNOWN = '[unknown]\nthreshold = 0.6\ndoubt = "margin"\nrisk = 0.1\ngroups = 42\n'


def test_unknown_pixels_survive_writing(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, f'{UNKNOWN}[[members]]\nmodel = "a.onnx"'))
    assert plan.unknown == Unknown(0.6, "margin", 0.1, 42)
    write_plan(tmp_path / "again.toml", plan)
    assert read_plan(tmp_path / "again.toml") == plan


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("unknown = 0.5", "is not a table"),
        ("[unknown]\nthreshold = 2", "from 0"),
        ("[unknown]\nrisk = 0.1", "threshold is missing"),
        ("[unknown]\nthreshold = 0.5\nrisk = 1.5", "between 0 and 1"),
        ("[unknown]\nthreshold = true", "a number is needed"),
        ("[unknown]\nthreshold = 0.5\ndoubt = 'anger'", "allowed are entropy"),
        ("[unknown]\nthreshold = 0.5\ngroups = 2.5", "whole number"),
        ("[unknown]\nthreshold = 0.5\nlevel = 2", "unknown key 'level'"),
    ],
)
def test_impossible_tables_of_unknown_pixels_are_refused(table: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=told):
        read_plan(written(tmp_path, f'{table}\n[[members]]\nmodel = "a.onnx"'))


def test_folds_are_read_and_written(tmp_path: Path) -> None:
    text = '[[members]]\nfolds = ["a.onnx", "b.onnx"]\nweight = 2\nsha256 = ["' + "A" * 64 + '", "' + "b" * 64 + '"]'
    plan = read_plan(written(tmp_path, text))
    files = (str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"))
    assert plan == Plan((PlannedMember("", 2.0, sha256=("a" * 64, "b" * 64), folds=files),))
    write_plan(tmp_path / "again.toml", plan)
    assert read_plan(tmp_path / "again.toml") == plan
    for wrong, words in (
        ('folds = ["a.onnx"]', "two files or more"),
        ("folds = []", "two files or more"),
        ('folds = ["a.onnx", ""]', "two files or more"),
        ('folds = "a.onnx"', "texts are needed"),
        ('folds = ["a.onnx", "b.onnx"]\nmodel = "c.onnx"', "one of the two"),
        ('folds = ["a.onnx", "b.onnx"]\nsha256 = ["' + "a" * 64 + '"]', "1 checksums for 2 folds"),
        ('folds = ["a.onnx", "b.onnx"]\nsha256 = "' + "a" * 64 + '"', "texts are needed"),
        ('folds = ["**/a.onnx", "b.onnx"]', "whole disks"),
    ):
        with pytest.raises(PlanError, match=words):
            read_plan(written(tmp_path, f"[[members]]\n{wrong}"))
