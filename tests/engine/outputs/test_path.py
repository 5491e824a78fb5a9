"""Outputs behind symbolic links: the target is written, the link stays, the record is beside the target."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.outputs.path import FolderOutput, output_path
from engine.sources.record import read_record
from engine.utils.files import replacing
from tests.conftest import Result
from tests.helpers.world import World

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")


@pytest.mark.parametrize("form", ["masks.npy", "masks.csv", "masks.npz", "masks", "masks.zarr"])
@pytest.mark.parametrize("before", [True, False])
def test_a_link_as_output_writes_its_target(
    form: str, before: bool, world: World, tmp_path: Path, engine: Callable[..., Result]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / form, tmp_path / f"link{Path(form).suffix}"
    command = ("ensemble", "-m", world.models / "a.onnx", "-i", world.images_file)
    if before:
        assert engine(*command, "-o", target).code == 0
        link.symlink_to(target)
        old = read_record(target)
        assert engine(*command, "-o", link).code == 2
        assert read_record(target) == old
    else:
        link.symlink_to(os.path.relpath(target, tmp_path))
    done = engine(*command, "-o", link, "--overwrite", "--strategy", "vote")
    assert done.code == 0, done.err
    assert link.is_symlink() and target.exists() and not target.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", link.name]
    assert "vote" in str(read_record(link)) and read_record(link) == read_record(target)
    assert engine("evaluate", link, "--labels", world.labels_file).code == 0


def test_other_results_follow_links_too(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as partial:
        partial.write_text("new")
    assert link.is_symlink() and target.read_text() == "new"


def test_a_circle_of_links_and_a_folder_keep_their_names(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    assert output_path(str(circle)) == circle
    assert isinstance(output_path(f"{tmp_path}/masks.v2/"), FolderOutput)
