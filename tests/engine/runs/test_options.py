"""Plans as files: written and read back, weights a class, members held to their checksums, a hash an ensemble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from engine import Ensemble
from engine.errors import OutputError, PlanError
from engine.models.opening import open_net
from engine.runs.plan import Plan, read_plan, write_plan
from engine.runs.plan_member import PlannedMember
from tests.conftest import Result
from tests.helpers.properties import examples
from tests.helpers.world import World

Engine = Callable[..., Result]
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(NUMBER, max_size=6).map(tuple)
# Whatever a file may be called; a slash would make it a folder, and a name of dots is none.
NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20).map(
    lambda s: s + ".onnx"
)
# Fields that a contract could have: a plan with others is refused when it is read.
SIZED = st.floats(-1e29, 1e29).filter(lambda value: value == 0 or abs(value) > 1e-29)
PRINTABLE = st.text(st.characters(codec="utf-8"), max_size=8).filter(str.isprintable)
CONTRACT = st.fixed_dictionaries(
    {},
    optional={
        "classes": st.lists(PRINTABLE, min_size=2, max_size=4, unique=True).map(tuple),
        "scale": SIZED.filter(bool),
        "mean": st.lists(SIZED, min_size=1, max_size=6).map(tuple),
        "ignored_class": st.integers(0, 255),
        "notes": st.dictionaries(st.text("ab c", min_size=1), st.booleans() | st.integers(-9, 9), max_size=2),
        "output_name": st.text("xyz", min_size=1),
    },
)
MEMBER = st.builds(
    lambda name, weight, contract, sha256: (name, weight, contract, sha256),
    NAME,
    NUMBER | st.lists(NUMBER, min_size=1, max_size=5).map(tuple),
    CONTRACT,
    st.just("") | st.text("0123456789abcdef", min_size=64, max_size=64),
)
MAYBE_TEXT = st.none() | st.text(st.characters(codec="utf-8"), max_size=10)


@examples(60, suppress=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(MEMBER, min_size=1, max_size=3),
    texts=st.tuples(MAYBE_TEXT, MAYBE_TEXT, MAYBE_TEXT),
    suppress=st.none() | st.lists(st.integers(0, 255), max_size=3).map(tuple),
    numbers=st.tuples(NUMBERS, NUMBERS),
    threshold=st.none() | NUMBER,
    min_region=st.none() | st.integers(0, 10**6),
    views=st.none() | st.lists(st.text("abc:.", min_size=1, max_size=5), min_size=1, max_size=3).map(tuple),
    comment=st.text(max_size=40),
)
def test_what_is_written_is_read_back(
    tmp_path, members, texts, suppress, numbers, threshold, min_region, views, comment
):
    plan = Plan(
        tuple(PlannedMember(str(tmp_path / name), *rest) for name, *rest in members),
        strategy=texts[0],
        suppress=suppress,
        threshold=threshold,
        bias=numbers[0],
        prior=numbers[1],
        vote_stage=texts[1],
        min_region=min_region,
        flips=None if views else texts[2],
        views=views,
        view_mean=texts[2],
        cleanup={"soil": {"min_region": min_region}} if min_region else {},
    )
    path = tmp_path / "ensemble.toml"
    write_plan(path, plan, comment)
    assert read_plan(path) == plan
    assert [file.name for file in tmp_path.iterdir()] == ["ensemble.toml"]


def test_models_are_named_from_the_plans_folder(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    members = (PlannedMember(str(tmp_path / "pool" / "a.onnx")), PlannedMember(str(tmp_path / "plans" / "b.onnx")))
    write_plan(tmp_path / "plans" / "e.toml", Plan(members), "one\ntwo")
    text = (tmp_path / "plans" / "e.toml").read_text()
    assert text.startswith("# one\n# two\n\n")
    assert 'model = "../pool/a.onnx"' in text
    assert 'model = "b.onnx"' in text


def test_a_plan_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        write_plan(tmp_path / "none" / "e.toml", Plan((PlannedMember("a"),)))
    with pytest.raises(OutputError, match="not UTF-8"):
        write_plan(tmp_path / "e.toml", Plan((PlannedMember("a\udcff"),)))
    assert not list(tmp_path.iterdir())


def member_lines(world: World, *more: str) -> str:
    return "".join(
        f'[[members]]\nmodel = "{world.models}/{name}.onnx"\n{line}\n'
        for name, line in zip("abc", (*more, "", "", ""), strict=False)
    )


def run(engine: Engine, world: World, plan: Path, output: Path, *more: object) -> Result:
    return engine("ensemble", "--plan", plan, "-i", world.images_file, "-o", output, *more)


def test_weights_a_class_reach_the_masks(world: World, tmp_path: Path, engine: Engine) -> None:
    plan = tmp_path / "e.toml"
    plan.write_text('strategy = "mean-prob"\n' + member_lines(world, "weight = [1, 2, 3, 0, 5]", "weight = 2"))
    assert run(engine, world, plan, tmp_path / "m.npy").code == 0
    weights = [[1, 2, 3, 0, 5], [2] * 5, [1] * 5]
    want = Ensemble.open(world.models, strategy="mean-prob", weights=weights).predict(world.images)
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), want)
    assert (want != Ensemble.open(world.models, strategy="mean-prob").predict(world.images)).any()


def test_a_member_is_held_to_its_checksum(world: World, tmp_path: Path, engine: Engine) -> None:
    right, wrong = open_net(world.models / "a.onnx").checksum, open_net(world.models / "b.onnx").checksum
    plan = tmp_path / "e.toml"
    plan.write_text(member_lines(world, f'sha256 = "{right.upper()}"'))
    assert run(engine, world, plan, tmp_path / "m.npy").code == 0
    for line, told in (
        (f'sha256 = "{wrong}"', "the plan was made with " + wrong[:12]),
        ('sha256 = "12"', "64 hexadecimal digits"),
        ("weight = [1, 2]", "2 weights for 5 classes"),
        ("weight = []", "empty list"),
        ("weight = nan", "finite"),
    ):
        plan.write_text(member_lines(world, line))
        refused = run(engine, world, plan, tmp_path / "x.npy")
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert told in refused.err
    plan.write_text(f'[[members]]\nmodel = "{world.models}"\nsha256 = "{right}"\n')
    assert "names 3 files" in run(engine, world, plan, tmp_path / "x.npy").err
    assert not (tmp_path / "x.npy").exists()


def test_an_unreadable_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    for line in ("threshold = inf", "min_region = 1.5", "prior = [nan]", "bias = [inf]", "flips = 1"):
        path.write_text(line + '\n[[members]]\nmodel = "a.onnx"\n')
        with pytest.raises(PlanError, match=line.split()[0]):
            read_plan(path)
