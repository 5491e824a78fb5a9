"""Writer speed: every output form at the size of the task, the text forms against the usual ways to write them.

``python -m benchmarks.bench_writers [--images 10022] [--repeats 3]`` writes benchmarks/results/writers.md. All figures
of a table come from one run; a figure of the engine is the median of its repeats. All write to the same disk; the
engine's time includes bringing a single file to disk (fsync), that of the others does not.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pandas
from PIL import Image

from benchmarks.table import rows, write
from engine.outputs.open import open_writer
from engine.sources.labels import open_labels
from engine.utils.palette import colours

SIZE = (64, 128)
CLASSES = 5
BATCH = 16
# What the project asks of the submission: so many times as fast as pandas in the same run.
BAR = 20


def make_masks(images: int, seed: int = 0) -> np.ndarray:
    """Return uint8 (images, pixels): patches of one class with ragged borders, as nets predict them."""
    draw = np.random.default_rng(seed)
    patches = draw.integers(0, CLASSES, (images, SIZE[0] // 16, SIZE[1] // 16)).astype(np.uint8)
    wide = np.repeat(np.repeat(patches, 16, axis=1), 16, axis=2)
    for row in range(SIZE[0]):
        wide[:, row] = np.roll(wide[:, row], int(draw.integers(-3, 4)), axis=1)
    return np.ascontiguousarray(wide.reshape(images, -1))


def engine_writer(form: str) -> Callable[[Path, np.ndarray], object]:
    def work(folder: Path, masks: np.ndarray) -> None:
        ids = [str(index) for index in range(len(masks))]
        with open_writer(folder / f"engine{form}", ids, SIZE, CLASSES) as writer:
            for start in range(0, len(masks), BATCH):
                writer.write(ids[start : start + BATCH], masks[start : start + BATCH])

    return work


def pandas_to_csv(folder: Path, masks: np.ndarray) -> None:
    pandas.DataFrame(masks).to_csv(folder / "pandas.csv", index_label="id")


def numpy_savetxt(folder: Path, masks: np.ndarray) -> None:
    table = np.column_stack([np.arange(len(masks)), masks])
    header = "id," + ",".join(map(str, range(masks.shape[1])))
    np.savetxt(folder / "savetxt.csv", table, fmt="%d", delimiter=",", header=header, comments="")


def numpy_run_lengths(folder: Path, masks: np.ndarray) -> None:
    """The function passed around on Kaggle, once an image and class, and pandas.to_csv."""

    def encode(mask: np.ndarray) -> str:
        pixels = np.concatenate([[0], mask, [0]])
        runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
        runs[1::2] -= runs[::2]
        return " ".join(str(value) for value in runs)

    lines = [(f"{i}_{c}", encode(row == c)) for i, row in enumerate(masks) for c in range(CLASSES)]
    pandas.DataFrame(lines, columns=["id_class", "rle"]).to_csv(folder / "kaggle.rle.csv", index=False)


def pillow_pngs(folder: Path, masks: np.ndarray) -> None:
    palette = [value for colour in colours(CLASSES) for value in colour]
    (folder / "pillow").mkdir()
    for index, row in enumerate(masks):
        image = Image.fromarray(row.reshape(SIZE))
        image.putpalette(palette)
        image.save(folder / "pillow" / f"{index}.png")


# Each group writes the same thing; the first of a group is the engine, the second the named peer.
GROUPS: dict[str, dict[str, Callable[[Path, np.ndarray], object]]] = {
    "submission": {
        "engine .csv": engine_writer(".csv"),
        "pandas.to_csv": pandas_to_csv,
        "numpy.savetxt": numpy_savetxt,
    },
    "run lengths": {"engine .rle.csv": engine_writer(".rle.csv"), "NumPy + pandas": numpy_run_lengths},
    "PNG folder": {"engine folder": engine_writer(""), "Pillow": pillow_pngs},
    "arrays": {form: engine_writer(form) for form in (".npy", ".npz", ".zarr")},
}
# The slow ones are run once; all but pandas on so many times fewer masks.
ONCE = {"pandas.to_csv": 1, "numpy.savetxt": 40, "NumPy + pandas": 10, "Pillow": 1}


def measure(masks: np.ndarray, repeats: int, root: Path) -> dict[str, tuple[float, int]]:
    """Return seconds for all masks and bytes written, by contender."""
    taken: dict[str, list[float]] = {}
    size: dict[str, int] = {}
    engine_writer(".csv")(root, masks[:2])  # compiles
    engine_writer(".rle.csv")(root, masks[:2])
    for turn in range(repeats):
        for name, work in ((name, work) for group in GROUPS.values() for name, work in group.items()):
            part = ONCE.get(name, 1)
            if name in ONCE and turn:
                continue
            folder = Path(tempfile.mkdtemp(dir=root))
            given = masks[: max(1, len(masks) // part)]
            began = perf_counter()
            work(folder, given)
            taken.setdefault(name, []).append((perf_counter() - began) * len(masks) / len(given))
            size[name] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) * part
            shutil.rmtree(folder)
    return {name: (median(values), size[name]) for name, values in taken.items()}


def check(masks: np.ndarray, root: Path) -> None:
    """The figures count only if the text says the same: pandas reads what the engine wrote, byte for byte its own."""
    folder = Path(tempfile.mkdtemp(dir=root))
    engine_writer(".csv")(folder, masks)
    engine_writer(".rle.csv")(folder, masks)
    pandas_to_csv(folder, masks)
    assert (folder / "engine.csv").read_bytes() == (folder / "pandas.csv").read_bytes()
    held = np.concatenate([batch.pixels.reshape(len(batch.ids), -1) for batch in
                           open_labels(folder / "engine.rle.csv").batches(64)])  # fmt: skip
    assert (held == masks).all()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_022)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    masks = make_masks(given.images)
    with tempfile.TemporaryDirectory() as place:
        check(masks[:100], Path(place))
        found = measure(masks, given.repeats, Path(place))
    lines = []
    for group, members in GROUPS.items():
        first = next(iter(members))
        for name in members:
            seconds, written = found[name]
            times = "" if group == "arrays" or name == first else f"{seconds / found[first][0]:.1f}"
            lines.append(
                (name, f"{seconds:.2f}", f"{written / 1e6:,.1f}", f"{written / seconds / 1e6:,.0f}",
                 f"{given.images / seconds:,.0f}", times)
            )  # fmt: skip
    ratio = found["pandas.to_csv"][0] / found["engine .csv"][0]
    note = (
        f"{given.images:,} masks of {SIZE[0]}x{SIZE[1]} pixels, {CLASSES} classes; median of {given.repeats}; "
        "pandas, NumPy and Pillow once, all but pandas.to_csv on a part of the masks.\n\n"
        f"The submission is written {ratio:.1f} times as fast as by pandas.to_csv (bar: {BAR}), the same bytes.\n"
    )
    header = ("form", "seconds", "MB", "MB/s", "masks/s", "times as long as the engine")
    path = write(
        "writers", "Writers", "python -m benchmarks.bench_writers",
        ("numpy", "numba", "pandas", "pillow", "zarr"), note, rows(header, lines),
    )  # fmt: skip
    print(path.read_text())


if __name__ == "__main__":
    main()
