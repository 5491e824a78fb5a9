"""Reading: both layouts, groups, and every file that must be refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from tests.helpers.broken import locked
from tests.trainers.conftest import task_array, tiles
from trainers import scores
from trainers.data import TASK_CLASSES, load
from trainers.outliers import find_outliers


def test_the_task_layout(task_file: Path) -> None:
    data, expected = load(task_file), tiles(20)
    assert data.images.dtype == data.labels.dtype == np.uint8
    np.testing.assert_array_equal(data.images, expected.images)
    np.testing.assert_array_equal(data.labels, expected.labels)
    assert data.class_names == TASK_CLASSES
    assert data.groups is None


@pytest.mark.parametrize("channels", [1, 3])
def test_the_general_layout(tmp_path: Path, channels: int) -> None:
    expected = tiles(4, channels=channels, classes=3)
    images = expected.images[..., 0] if channels == 1 else expected.images
    np.savez(tmp_path / "a.npz", images=images, labels=expected.labels, groups=np.array(["b", "a", "b", "c"]))
    data = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.images, expected.images)
    assert data.groups is not None
    assert data.groups.tolist() == [1, 0, 1, 2]
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert load(tmp_path / "a.npz", class_names=("x", "y", "z")).class_names == ("x", "y", "z")


def test_groups_of_the_original_file_fit_a_cleaned_one(tmp_path: Path) -> None:
    data = tiles(3)
    np.savez(tmp_path / "a.npz", training_set=task_array(data), kept=np.array([0, 2, 4]))
    np.savez(tmp_path / "g.npz", panorama=np.array([7, 8, 9, 8, 7], np.int16))
    assert load(tmp_path / "a.npz", tmp_path / "g.npz").groups.tolist() == [7, 9, 7]  # type: ignore[union-attr]


GOOD = {"images": np.zeros((2, 8, 8), np.uint8), "labels": np.zeros((2, 8, 8), np.uint8)}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "keys": ({"pictures": np.zeros(3)}, "contains pictures; training needs training_set"),
    "pairs": ({"training_set": np.zeros((2, 3, 8, 8))}, r"\(N, 2, H, W\)"),
    "sizes": ({**GOOD, "labels": np.zeros((2, 8, 9), np.uint8)}, "do not fit"),
    "bright": ({**GOOD, "images": np.full((2, 8, 8), 256.0)}, "allowed are 0 to 255"),
    "nan": ({**GOOD, "images": np.full((2, 8, 8), np.nan)}, "allowed are 0 to 255"),
    "fractions of 1": ({**GOOD, "images": np.full((2, 8, 8), 0.5)}, "multiply them by 255"),
    "half labels": ({**GOOD, "labels": np.full((2, 8, 8), 0.5)}, "fractions"),
    "negative labels": ({**GOOD, "labels": np.full((2, 8, 8), -1)}, "labels from -1"),
    "names": ({"training_set": np.full((2, 2, 8, 8), 5.0)}, "labels up to 5, but 5 class names"),
    "objects": ({**GOOD, "labels": np.array([{}], object)}, "Python objects"),
    "complex": ({**GOOD, "images": np.zeros((2, 8, 8), complex)}, "complex128"),
    "groups": ({**GOOD, "groups": np.arange(3)}, "3 groups for 2 tiles"),
    "float groups": ({**GOOD, "groups": np.zeros(2)}, "float64"),
    "only void": ({**GOOD, "labels": np.full((2, 8, 8), 255)}, r"all labels are 255 \(void\)"),
    "0 and 255": ({**GOOD, "labels": np.arange(128).reshape(2, 8, 8) % 2 * 255}, "write 1 where it is a class"),
    "above void": ({**GOOD, "labels": np.full((2, 8, 8), 256)}, "0 to 254, and 255 for void"),
    "empty": ({"images": np.zeros((0, 8, 8)), "labels": np.zeros((0, 8, 8))}, "contains no tile"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_contents_are_refused(tmp_path: Path, case: str) -> None:
    arrays, message = BAD[case]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "bad.npz")


def test_bad_files_are_refused(tmp_path: Path, task_file: Path) -> None:
    whole = task_file.read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    broken = bytearray(whole)
    broken[2000:2100] = bytes(100)
    (tmp_path / "broken.npz").write_bytes(broken)
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "locked.npz").write_bytes(locked(whole))
    for name, message in (
        ("locked", "password required"),
        ("cut", "truncated"),
        ("broken", "damaged"),
        ("text", "not an .npz"),
        ("absent", "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            load(tmp_path / f"{name}.npz")


def test_groups_of_another_length_are_refused(tmp_path: Path, task_file: Path) -> None:
    np.savez(tmp_path / "g.npz", panorama=np.arange(19))
    with pytest.raises(InputError, match="19 groups for 20 tiles"):
        load(task_file, tmp_path / "g.npz")
    np.savez(tmp_path / "two.npz", a=np.arange(20), b=np.arange(20))
    with pytest.raises(InputError, match="which array holds the groups"):
        load(task_file, tmp_path / "two.npz")


def test_groups_come_in_every_form_that_the_engine_takes(tmp_path: Path, task_file: Path) -> None:
    groups = np.arange(20) // 3
    np.save(tmp_path / "g.npy", groups.astype(np.float32))
    np.savez(tmp_path / "g.npz", groups=groups, other=groups[::-1])
    np.savez(tmp_path / "names.npz", scene=np.array([f"scene {group}" for group in groups]))
    for name in ("g.npy", "g.npz", "g.npz:groups", "names.npz"):
        np.testing.assert_array_equal(load(task_file, str(tmp_path / name)).groups, groups)
    np.testing.assert_array_equal(load(task_file, f"{tmp_path}/g.npz:other").groups, groups[::-1])


def test_void_is_no_class(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (6, 8, 8)).astype(np.uint8)
    held = labels.copy()
    labels[:, 3:5] = 255
    np.savez(tmp_path / "a.npz", images=np.zeros((6, 8, 8), np.uint8), labels=labels)
    data = load(tmp_path / "a.npz")
    assert data.class_names == ("class 0", "class 1", "class 2")
    np.testing.assert_array_equal(data.labels, labels)
    known = np.delete(held, [3, 4], axis=1)
    assert data.counts.tolist() == [int((known == k).sum()) for k in range(3)]
    logits = np.random.default_rng(1).normal(0, 1, (6, 8, 8, 3)).astype(np.float32)
    metrics = pytest.importorskip("sklearn.metrics")
    found = scores.confusion(labels, scores.decode(logits), 3)
    predicted = np.delete(logits, [3, 4], axis=1).argmax(-1)
    np.testing.assert_array_equal(found, metrics.confusion_matrix(known.ravel(), predicted.ravel(), labels=range(3)))
    odds = logits[..., :1]
    wanted = metrics.jaccard_score((known == 1).ravel(), (np.delete(odds[..., 0], [3, 4], axis=1) > 0).ravel())
    assert scores.specialist_iou(labels, odds, 1, None) == pytest.approx(wanted)
    # A border without labels makes no tile an outlier.
    flat = np.ones((5, 8, 8), np.uint8)
    flat[:, 0] = 255
    assert find_outliers(flat) == []
