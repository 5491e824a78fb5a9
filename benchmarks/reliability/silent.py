"""Gives ``engine`` inputs, disks and names that once gave wrong masks, or lost finished ones, without a word.

    python -m benchmarks.reliability.silent --json silent.json

Each case runs the program in a process of its own and checks what it says, what it leaves, and that the masks or scores
are those of the undisturbed input. Prints a row a case; leaves with 1 when one of them is not as required, and with 77
where nothing can be mounted (the full disk needs root on Linux). With ``--tree FOLDER`` the packages of an older commit
run instead: proof that a case tells right from wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.reliability.kill_and_resume import digest
from benchmarks.reliability.trees import Tree, ended
from engine.samples import SAMPLES

COUNT, SIZE = 40, (64, 128)
# Calls of the nets before an input is changed.
CALLS = 60
CHANGE = """
import os, onnxruntime
class Counted(onnxruntime.InferenceSession):
    calls = 0
    def counted(self):
        Counted.calls += 1
        if Counted.calls == {calls}:
            os.utime({file!r}, (1, 1))
    def run(self, *arguments, **named):
        self.counted()
        return super().run(*arguments, **named)
    def run_with_iobinding(self, *arguments, **named):
        self.counted()
        return super().run_with_iobinding(*arguments, **named)
onnxruntime.InferenceSession = Counted
"""
SMALL_SHARDS = """
try:
    import engine.runs.durable.images as images
except ImportError:  # commits before 2026-11-26
    import engine.durable as images
images.MOST_IMAGES = 8
"""
IDS = [f"tile_{(index * 7) % COUNT}" for index in range(COUNT)]


class Came(NamedTuple):
    """What a run printed, and its exit code."""

    code: int
    said: str

    @property
    def line(self) -> str:
        """Return the line that says what is wrong, or what was done about it."""
        lines = [line for line in self.said.splitlines() if line]
        told = [line for line in lines if line.startswith("error") or "missing" in line]
        return (told or [""])[0]


class Place:
    """A folder with the same images in every form, and runs in it."""

    def __init__(self, folder: Path, tree: Tree) -> None:
        """Write the images."""
        self.folder, self.tree = folder, tree
        draw = np.random.default_rng(3)
        self.images = draw.integers(1, 256, (COUNT, *SIZE)).astype(np.uint8)
        np.save(folder / "images.npy", self.images)

    def run(self, source: str, goal: str, *more: str, before: str = "") -> Came:
        """Predict; the goal lies in a folder of its own."""
        (self.folder / goal).parent.mkdir(exist_ok=True)
        models = str(SAMPLES / "one_class_*.onnx")
        line = ["ensemble", "-m", models, "-i", source, "-o", str(self.folder / goal), "--workers", "1"]
        return self.engine([*line, "--batch-size", "2", *more], before)

    def engine(self, line: Sequence[str], before: str = "") -> Came:
        """Run the command line."""
        code, said = self.tree.run(self.folder, *line, before=before)
        return Came(code, said.replace(f"{self.folder}/", ""))

    def __truediv__(self, name: str) -> Path:
        """Return a path in the folder."""
        return self.folder / name


Verdict = tuple[Came, str, bool]


def zarr_store(place: Place, name: str, **how: Any) -> list[Path]:
    """Write the images as a Zarr store, and return its chunks."""
    import zarr

    path = place / name
    zarr.create_array(store=path, shape=place.images.shape, chunks=(8, *SIZE), dtype="u1", **how)[:] = place.images
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith((".z", "zarr.")))


def refused(place: Place, came: Came, goal: str) -> Verdict:
    """Expect one line, exit code 2 and no output; what was finished before may be kept in a hidden folder."""
    left = [path for path in (place / goal).parent.iterdir() if not path.name.startswith(".")]
    return came, "no output", came.code == 2 and not left and "Traceback" not in came.said


def missing_chunk(place: Place) -> Verdict:
    """Remove a chunk, as an interrupted copy does."""
    zarr_store(place, "a.zarr")[2].unlink()
    return refused(place, place.run(str(place / "a.zarr"), "out1/m.npy"), "out1/m.npy")


def filled_chunk(place: Place) -> Verdict:
    """Fill it because that is asked for."""
    came = place.run(str(place / "a.zarr"), "out2/m.npy", "--missing-chunks", "fill")
    return came, "predicted, and said", came.code == 0 and "1 of 5 chunks are missing" in came.said


def short_chunk(place: Place) -> Verdict:
    """Cut the last byte off a Blosc chunk."""
    import numcodecs

    chunk = zarr_store(place, "b.zarr", zarr_format=2, compressors=numcodecs.Blosc())[4]
    chunk.write_bytes(chunk.read_bytes()[:-1])
    return refused(place, place.run(str(place / "b.zarr"), "out3/m.npy"), "out3/m.npy")


def absurd_metadata(place: Place) -> Verdict:
    """Declare 10**12 images and hold none."""
    for chunk in zarr_store(place, "c.zarr"):
        chunk.unlink()
    about = json.loads((place / "c.zarr/zarr.json").read_text())
    (place / "c.zarr/zarr.json").write_text(json.dumps({**about, "shape": [10**12, *SIZE]}))
    return refused(place, place.run(str(place / "c.zarr"), "out4/m.npy"), "out4/m.npy")


def table(place: Place, name: str, images: Sequence[bytes], ids: Sequence[str]) -> str:
    """Write a Parquet file of images of 64x128."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sides = {"height": [SIZE[0]] * len(images), "width": [SIZE[1]] * len(images)}
    pq.write_table(pa.table({"id": ids, "image": images, **sides}), place / name)
    return str(place / name)


def order(place: Place) -> Verdict:
    """Score a folder of masks against rows in the order of the images, which the folder lost."""
    source = table(place, "order.parquet", [image.tobytes() for image in place.images], IDS)
    assert place.run(source, "out5/masks").code == 0
    assert place.run(source, "out5/masks.csv").code == 0
    assert place.run(str(place / "images.npy"), "out5/rows.npy").code == 0
    came = place.engine(["evaluate", str(place / "out5/masks"), "--labels", str(place / "out5/rows.npy"), "--json"])
    scores = place.engine(["evaluate", str(place / "out5/masks.csv"), "--labels", str(place / "out5/masks"), "--json"])
    perfect = [re.search(r'"labelled": (?:\{[^}]*"score": )?1\.0\b', told.said) is not None for told in (came, scores)]
    return Came(came.code, ""), "paired by id: a score of 1", came.code == 0 and all(perfect)


def changed(form: str) -> Callable[[Place], Verdict]:
    """Return a case that gives a file of the input another time in mid-run."""

    def case(place: Place) -> Verdict:
        source, file = place / f"changing-{form}", place / f"changing-{form}"
        if form == "images.zarr":
            file = zarr_store(place, source.name)[4]
        elif form == "images":
            from PIL import Image

            source.mkdir()
            for index, image in enumerate(place.images):
                Image.fromarray(image).save(source / f"{index}.png")
            file = source / "39.png"
        else:
            np.save(source, place.images)

        before = CHANGE.format(calls=CALLS, file=str(file))
        goal = f"out6-{form}/m.csv"
        return refused(place, place.run(str(source), goal, before=before), goal)

    return case


def other_part(place: Place) -> Verdict:
    """Read from a server whose parts lie further on than was asked for."""
    from tests.helpers.range_server import serving

    with serving(place.folder, ahead=SIZE[0] * SIZE[1]) as (address, _):
        came = place.run(f"{address}/images.npy", "out7/m.npy")
    came, result, right = refused(place, Came(came.code, re.sub(r"127\.0\.0\.1:\d+", "host", came.said)), "out7/m.npy")
    return came, result, right and "the server sent" in came.said


def twice(name: str, text: str) -> Callable[[Place], Verdict]:
    """Return a case of masks in which an id stands twice."""

    def case(place: Place) -> Verdict:
        (place / name).write_text(text)
        came = place.engine(["evaluate", str(place / name), "--labels", str(place / name)])
        return came, "refused", came.code == 2 and "Traceback" not in came.said

    return case


def picture_of_that_length(place: Place) -> Verdict:
    """Store PNGs of exactly height x width bytes."""
    import io

    from PIL import Image

    smooth = np.arange(COUNT * SIZE[0] * SIZE[1], dtype=np.uint32).reshape(COUNT, *SIZE) // 16384 * 20
    held = []
    for image in smooth.astype(np.uint8):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        held.append(stream.getvalue().ljust(SIZE[0] * SIZE[1], b"\0"))
    np.save(place / "smooth.npy", smooth.astype(np.uint8))
    came = place.run(table(place, "pictures.parquet", held, IDS), "out8/a.npy")
    assert place.run(str(place / "smooth.npy"), "out8/b.npy").code == 0
    same = came.code == 0 and np.array_equal(np.load(place / "out8/a.npy"), np.load(place / "out8/b.npy"))
    return Came(came.code, ""), "the masks of the decoded pictures", same


def full_disk(place: Place) -> Verdict:
    """Write to a disk of 200 KiB; count what is kept and what is found."""
    disk, source = place / "disk", str(place / "images.npy")
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], check=True)
    try:
        # Batches of 3: pages of the disk end within an image.
        came = place.run(source, "disk/m.csv", "--batch-size", "3", before=SMALL_SHARDS)
        kept = re.search(r"(\d+) images are kept", came.said)
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        after = place.run(source, "disk/m.csv", "--batch-size", "3", "--resume", before=SMALL_SHARDS)
        found = re.search(r"resuming after (\d+) of", after.said)
        assert place.run(source, "whole/m.csv").code == 0
        same = after.code == 0 and digest(disk) == digest(place / "whole")
        counted = kept is not None and found is not None and kept[1] == found[1]
    finally:
        subprocess.run(["umount", disk], check=True)
    return came, "as many found as were said; identical", came.code == 2 and counted and same


def impossible_name(place: Place) -> Verdict:
    """Name the last of 9,000 images so that no file can have it."""
    ids = [*map(str, range(8999)), "x" * 300]
    source = table(place, "names.parquet", [place.images[0].tobytes()] * 9000, ids)
    came, result, right = refused(place, place.run(source, "out9/masks"), "out9/masks")
    return came, result, right and "are kept" not in came.said


CASES: dict[str, Callable[[Place], Verdict]] = {
    "a Zarr store lacks a chunk": missing_chunk,
    "the same with `--missing-chunks fill`": filled_chunk,
    "a Blosc chunk of Zarr 2 is a byte short": short_chunk,
    "Zarr metadata declares 10^12 images, no chunk is there": absurd_metadata,
    "masks in a folder, true masks in the order of the images": order,
    "an .npy is changed while it is read": changed("images.npy"),
    "a chunk of a Zarr store is changed while it is read": changed("images.zarr"),
    "a picture of a folder is changed while it is read": changed("images"),
    "a server sends another part of a file than was asked for": other_part,
    "an id stands twice in a .csv": twice("twice.csv", "id,0,1\na,0,1\nb,1,1\na,1,1\n"),
    "a class of an image stands twice in an .rle.csv": twice("twice.rle.csv", "id_class,rle\na_0,1 4\na_0,5 4\n"),
    "PNGs in a table have as many bytes as pixels": picture_of_that_length,
    "the disk is full (a real one, of 200 KiB)": full_disk,
    "no file can have the name of image 9,000": impossible_name,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="only cases whose name contains one of these")
    parser.add_argument("--json", type=Path, help="also write the results")
    parser.add_argument("--tree", type=Path, help="folder of an older commit, whose packages run")
    options = parser.parse_args(arguments)
    if not sys.platform.startswith("linux") or os.getuid() or shutil.which("mount") is None:
        print("the full disk needs root on Linux", file=sys.stderr)
        return 77
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), Tree(options.tree) if options.tree else Tree())
        for name, case in CASES.items():
            if any(text in name for text in options.only):
                try:
                    came, result, right = case(place)
                except Exception as error:  # an older commit may end where a case goes on
                    came, result, right = Came(1, f"error: {type(error).__name__}"), "not run to its end", False
                told = came.line.replace(f"{SAMPLES}/", "")
                row = {"fault": name, "message": told, "code": came.code, "result": result, "as_required": right}
                row["ended"] = ended(came.code, came.said if "Traceback" in came.said else told, right)
                rows.append(row if right else {**row, "log": came.said})
                print(f"{'ok ' if right else 'BAD'} {name} | exit {came.code}: {told}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return int(not all(row["as_required"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
