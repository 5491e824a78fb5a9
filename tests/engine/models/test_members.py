"""From what the user names to members that agree: files found, specialists gathered, disagreement told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine import ContractError, Ensemble, InputError
from engine.errors import PlanError
from engine.models.members import class_names, class_number, find_models, gather, ignored_class
from engine.models.opening import open_net
from tests.helpers.nets import FIVE, save_member, save_net, save_specialists
from tests.helpers.world import World


def opened(*paths: Path) -> list:
    return [open_net(path) for path in paths]


def test_files_folders_and_globs_name_each_file_once(tmp_path: Path) -> None:
    folder = tmp_path / "models [1] größer"
    folder.mkdir()
    for name in ("b.onnx", "a.onnx", "notes.txt", "c.ONNX.bak"):
        (folder / name).touch()
    a, b = folder / "a.onnx", folder / "b.onnx"
    (tmp_path / "link.onnx").symlink_to(b)
    assert find_models([folder]) == [a, b]
    assert find_models([b, folder]) == [b, a]
    assert find_models([folder, folder / ".." / folder.name / "a.onnx", tmp_path / "link.onnx"]) == [a, b]
    assert find_models([str(tmp_path / "models*" / "[ab].onnx")]) == [a, b]
    assert find_models([str(tmp_path / "**" / "a.onnx")]) == [a]
    for nothing in (tmp_path / "none", folder / "*.pb", tmp_path / "models [1] größer" / "z.onnx"):
        with pytest.raises(InputError, match="no model at"):
            find_models([nothing])


def test_specialists_become_one_member_whatever_their_order(world: World, tmp_path: Path) -> None:
    folder = save_specialists(tmp_path / "set")
    files = sorted(folder.glob("*.onnx"))
    (member,) = gather(opened(*reversed(files)))
    assert member.is_set
    assert member.name == "set"
    assert [net.contract.class_id for net in member.nets] == [0, 1, 2, 3, 4]
    mixed = gather(opened(files[0], world.models / "a.onnx", *files[1:]))
    assert [member.name for member in mixed] == ["set", "a"]


def test_sets_are_kept_apart_by_group_then_by_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        save_specialists(tmp_path / folder)
    with pytest.raises(ContractError, match="class 0 twice"):
        gather(opened(*find_models([tmp_path / "one", tmp_path / "two"])))
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        for class_id in range(5):
            promised = {"kind": "specialist", "class_id": class_id}
            save_member(tmp_path / folder / f"{class_id}.onnx", class_id, promised=promised)
    names = [member.name for member in gather(opened(*find_models([tmp_path / "x", tmp_path / "y"])))]
    assert names == ["x", "y"]


def test_a_set_must_be_whole_unless_the_class_is_suppressed(world: World, tmp_path: Path) -> None:
    folder = save_specialists(tmp_path / "set", [1, 2, 3, 4])
    with pytest.raises(ContractError, match=r"lacks the nets of class 0 \(background\)"):
        gather(opened(*find_models([folder])))
    whole = save_specialists(tmp_path / "whole")
    want = Ensemble.open(whole).predict(world.images)
    # Class 0 is the ignored class that the contracts declare, so it is suppressed without a word.
    np.testing.assert_array_equal(Ensemble.open(folder).predict(world.images), want)


def test_bias_and_temperature_of_a_specialist_count(world: World, tmp_path: Path) -> None:
    for class_id in range(5):
        promised = {"kind": "specialist", "class_id": class_id, "bias": 1e6 * (class_id == 2), "temperature": 2.0}
        save_member(tmp_path / f"{class_id}.onnx", class_id, promised=promised)
    assert (Ensemble.open(tmp_path).predict(world.images) == 2).all()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"classes": FIVE[:4]}, r"a and other disagree on the classes: 5 \(.*\) against 4"),
        ({"classes": (*FIVE[:4], "ice")}, "disagree on the classes"),
        ({"promised": {"ignored_class": 1}}, "a class 0, other class 1"),
        ({"promised": {"size": (64, 64)}, "size": (64, 64)}, r"\(64, 64\)"),
    ],
)
def test_members_that_disagree_are_named(other: dict, told: str, tmp_path: Path) -> None:
    a = save_member(tmp_path / "a.onnx", promised={"size": (8, 16)}, size=(8, 16))
    with pytest.raises(ContractError, match=told):
        gather(opened(a, save_member(tmp_path / "other.onnx", 1, **other)))


def test_names_and_ignored_class_come_from_who_has_them(world: World, tmp_path: Path) -> None:
    bare = open_net(save_net(tmp_path / "bare.onnx"), {"scale": 1.0}, world.images[0][..., None])
    own = open_net(world.models / "a.onnx")
    assert class_names(gather([bare, own])) == FIVE
    assert class_names(gather([bare])) == tuple(f"class {index}" for index in range(5))
    assert ignored_class(gather([bare])) is None
    assert ignored_class(gather([bare, own])) == 0


def test_equal_file_names_are_told_apart(tmp_path: Path) -> None:
    for seed, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        save_member(tmp_path / folder / "unet.onnx", seed)
    names = [member.name for member in gather(opened(*find_models([tmp_path / "one", tmp_path / "two"])))]
    assert names == ["one/unet", "two/unet"]


def test_no_member_is_refused() -> None:
    with pytest.raises(InputError, match="no models"):
        gather([])


@pytest.mark.parametrize(("item", "number"), [(3, 3), ("3", 3), (" 3 ", 3), ("sand", 3), (" big rock", 4), ("-1", -1)])
def test_a_class_is_found_by_id_or_name(item: int | str, number: int) -> None:
    assert class_number(item, FIVE) == number


def test_a_name_wins_over_an_id() -> None:
    assert class_number("1", ("0", "2", "1")) == 2


@pytest.mark.parametrize("item", ["", "--3", "3.0", "Sand", "²", "9" * 5000])
def test_a_class_that_is_none_is_refused(item: str) -> None:
    with pytest.raises(PlanError, match="no class"):
        class_number(item, FIVE)
