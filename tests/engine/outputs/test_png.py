"""Names of images that no file can have: found before anything runs, wherever the name stands, and never a dead end."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OutputError
from engine.outputs.open import check_names, check_output, class_mask_names
from engine.outputs.png import longest_name
from engine.runs.durable import images as durable
from engine.runs.durable.resume import run_folder
from engine.runs.image_job import check_names_of
from tests.helpers.runs import Dying, Engine
from tests.helpers.world import World


@pytest.mark.parametrize("name", ["", ".", "a/..", "/a", "a//b", "a\0b", "x" * 252, "é" * 126, "\ud800", "d/" * 2100])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    ids = [*map(str, range(9000)), name]
    with pytest.raises(OutputError, match="cannot become a file: choose another form than a folder"):
        check_names(tmp_path / "masks", ids, named=True)
    check_names(tmp_path / "masks.csv", ids, named=True)


def test_the_limits_are_those_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encrypted folders take names of 143 bytes."""
    check_names(tmp_path / "masks", ["x" * 140], named=True)
    assert longest_name(tmp_path) == 255
    monkeypatch.setattr(os, "pathconf", lambda folder, name: 143 if name == "PC_NAME_MAX" else 4096)
    with pytest.raises(OutputError, match="cannot become a file"):
        check_names(tmp_path / "masks", ["x" * 140], named=True)
    with pytest.raises(OutputError, match="is too long for the files beside it: choose a shorter one"):
        check_output(tmp_path / ("m" * 80), overwrite=False)


def test_an_output_whose_own_files_beside_it_could_not_be_named(world: World, tmp_path: Path, engine: Engine) -> None:
    """The record and the half-written masks have longer names than the masks."""
    line = ("ensemble", "-m", world.models, "-i", world.images_file, "-o")
    refused = engine(*line, tmp_path / f"{'m' * 230}.csv")
    assert (refused.code, "is too long" in refused.err) == (2, True)
    assert engine(*line, tmp_path / f"{'m' * 180}.csv").code == 0
    assert len(list(tmp_path.glob("mm*"))) == 2


def test_binary_masks_of_one_name() -> None:
    assert class_mask_names(["a"], ["b/c", "d"]) == ["a_b-c", "a_d"]
    for ids, classes in ((["a", "a_b"], ["b_c", "c"]), (["a"], ["b/c", "b-c"])):
        with pytest.raises(OutputError, match=r"two masks would be named a_b.c"):
            class_mask_names(ids, classes)


def test_what_was_finished_goes_into_another_form(
    world: World, many_images: Path, tmp_path: Path, engine: Engine, dying: Dying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted run whose masks cannot become files (on another disk, by an earlier version) is no dead end."""
    from engine.outputs import open as outputs

    monkeypatch.setattr(durable, "MOST_IMAGES", 8)
    line = ("ensemble", "-m", world.models, "-i", many_images, "--workers", 1, "--batch-size", 4, "-o")
    dying.at(19)
    assert engine(*line, tmp_path / "masks").code == 2
    dying.at(1 << 30)

    def refuse(*_: object) -> None:
        raise OutputError("an image named 'x' cannot become a file")

    with monkeypatch.context() as there:
        there.setattr(outputs, "check_files", refuse)
        with pytest.raises(OutputError, match=r"file$"):
            check_names_of(tmp_path / "masks", ["x"], True, resume=False)
        with pytest.raises(OutputError) as told:
            check_names_of(tmp_path / "masks", ["x"], True, resume=True)
    other = tmp_path / "masks.npz"
    assert f"rename {run_folder(tmp_path / 'masks')} to {run_folder(other)} and go on with" in str(told.value)
    run_folder(tmp_path / "masks").rename(run_folder(other))
    done = engine(*line, other, "--resume")
    assert (done.code, "resuming after" in done.err) == (0, True)
    assert engine(*line, tmp_path / "whole.npz").code == 0
    np.testing.assert_array_equal(np.load(other)["masks"], np.load(tmp_path / "whole.npz")["masks"])
    assert not list(tmp_path.glob(".*"))
