"""Gives the programs what once made them hang, end in a traceback or take all memory.

    python -m benchmarks.reliability.stuck

writes benchmarks/results/stuck.json, from which `python -m benchmarks.reliability` makes its section. Each case runs a
program in a process of its own and checks its exit code, that it says one line and no traceback, and what it leaves;
the exit code is 1 if one of them is not as required.

    git worktree add /tmp/older 7da9fc7
    python -m benchmarks.reliability.stuck --tree /tmp/older --commit 7da9fc7

runs the same cases with the packages of an older commit and adds what came of them to the stored rows: proof that a
case tells right from wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import table
from benchmarks.reliability import stuck_inputs as inputs
from benchmarks.reliability.stuck_inputs import serving
from benchmarks.reliability.trees import MOST_SECONDS, PROGRAM, Tree, ended
from engine.samples import SAMPLES

RESULTS = table.RESULTS / "stuck.json"
NETS = str(SAMPLES / "one_class_*.onnx")


@dataclass(frozen=True)
class Row:
    """What came of a case.

    Attributes:
        case: what was given.
        message: the last line that was said.
        code: the exit code.
        result: what was left, in words.
        as_required: whether all of it is as it has to be.
    """

    case: str
    message: str
    code: int
    result: str
    as_required: bool


def refused(tree: Tree, folder: Path, case: str, told: str, *arguments: str, **more: str) -> Row:
    """Return the row of a command that has to be refused in one line, and to leave no output."""
    began = time.monotonic()
    code, said = tree.run(folder, *arguments, **more)
    seconds = time.monotonic() - began
    lines = said.splitlines()
    right = code == 2 and len(lines) == 1 and re.search(told, said) is not None and not list(folder.glob("out*"))
    words = [line.strip(" │╭╮╰╯─") for line in lines]
    message = re.sub(r"127\.0\.0\.1:\d+", "localhost", next((line for line in reversed(words) if line), ""))
    waited = f", after {seconds:.0f} s" if seconds > 30 else ""
    return Row(case, message.replace(f"{folder}/", ""), code, f"nothing is written{waited}", right)


def predict(source: str, *more: str) -> tuple[str, ...]:
    """Return the arguments of a run."""
    return ("ensemble", "-m", NETS, "-i", source, "-o", "out.npy", "--workers", "1", *more)


def clear(folder: Path) -> None:
    """Remove the output and its record."""
    for path in folder.glob("out*"):
        path.unlink()


def sources(tree: Tree, folder: Path) -> Iterator[Row]:
    """Open 5,000 Parquet sources in one process and leave each in the middle."""
    inputs.pictures(folder / "a.parquet")
    began = time.monotonic()
    code, said = tree.script(folder, inputs.LEAVE, str(folder / "a.parquet"), "5000")
    said = said.strip()
    result = f"{said if said.isdigit() else '0'} sources in {time.monotonic() - began:.0f} s"
    right = (code, said) == (0, "5000")
    yield Row("5,000 Parquet sources left in the middle, one process", "" if right else said, code, result, right)


def servers(tree: Tree, folder: Path) -> Iterator[Row]:
    """Ask servers that refuse or never answer."""
    told = {
        "silent": "no answer within 30 s",
        "401": "401 Unauthorized: the server asks for a login",
        "403": "403 Forbidden: access is refused",
        "500": "500 Internal Server Error: the server fails",
        "503": "503 Service Unavailable: the server fails",
        "circle": "redirects in a circle",
        "whole": "sends no parts of a file",
    }
    for behaviour, words in told.items():
        with serving(behaviour) as address:
            yield refused(tree, folder, f"server: {inputs.BEHAVIOURS[behaviour]}", words, *predict(f"{address}/a.npy"))
    yield refused(
        tree, folder, "a .zarr behind https", "web servers list no folders", *predict("https://localhost/a.zarr")
    )


def damaged(tree: Tree, folder: Path) -> Iterator[Row]:
    """Give files that are damaged or contradict themselves."""
    inputs.twins(folder / "twins.parquet")
    yield refused(
        tree, folder, "Parquet: two columns of one name", "two columns named image", *predict("twins.parquet")
    )
    inputs.no_text(folder / "ids.parquet")
    yield refused(tree, folder, "Parquet: ids that are not UTF-8", "it is damaged", *predict("ids.parquet"))
    inputs.zarr_of_text(folder / "a.zarr")
    yield refused(tree, folder, "Zarr: a shape that is a text", "cannot read the Zarr store", *predict("a.zarr"))
    np.save(folder / "tiles.npy", np.random.default_rng(0).integers(0, 250, (6, 64, 128)).astype(np.uint8))
    np.save(folder / "truth.npy", np.random.default_rng(1).integers(0, 5, (6, 64, 128)).astype(np.uint8))
    compare = ("compare", "-m", NETS, "-i", "tiles.npy", "--labels", "truth.npy", "--out", "run.npz", "--no-ablation")
    code, said = tree.run(folder, *compare)
    assert code == 0, said
    inputs.flipped(folder / "run.npz", folder / "damaged.npz")
    words = "damaged, run engine compare again"
    yield refused(tree, folder, "report: a damaged run.npz", words, "report", "damaged.npz", "--out", "out.html")
    masks = ("ensemble", "-m", NETS, "-i", "tiles.npy", "-o", "masks.npz", "--workers", "1")
    assert tree.run(folder, *masks)[0] == 0
    inputs.flipped(folder / "masks.npz", folder / "masks.npz")
    yield refused(tree, folder, "--resume beside a damaged .npz", "made by another run", *masks, "--resume")
    (folder / "keras.py").write_text("raise ModuleNotFoundError(name='keras')\n")
    np.savez(folder / "set.npz", images=np.zeros((8, 64, 128), np.uint8), labels=np.zeros((8, 64, 128), np.uint8))
    fit = ("fit", "unet", "--data", "set.npz", "--out", "out.keras")
    yield refused(tree, folder, "trainers without Keras", r"pip install 'maskfuse\[train\]'", *fit, program="trainers")
    (folder / "keras.py").unlink()
    inputs.forged(folder / "run.npz", folder / "forged.npz")
    words = "contradicts itself"
    yield refused(tree, folder, "report: a forged run.npz", words, "report", "forged.npz", "--out", "out.html")


def large(tree: Tree, folder: Path) -> Iterator[Row]:
    """Give small files that declare much."""
    bound = ("--memory", "200MB")
    size = inputs.parquet_bomb(folder / "bomb.parquet")
    case = f"Parquet of {size / 1000:.0f} kB, an image of 85 million numbers, --memory 200MB"
    yield refused(tree, folder, case, "raise --memory", *predict("bomb.parquet", *bound))
    (folder / "strip").mkdir()
    size = inputs.tiff_bomb(folder / "strip" / "a.tif")
    case = f"TIFF of {size / 1000:.0f} kB, a strip of 169 million pixels, --memory 100MB"
    yield refused(tree, folder, case, "raise --memory", *predict("strip/", "--memory", "100MB"))
    np.save(folder / "scene.npy", np.zeros((64, 1 << 20), np.uint8))
    case = "a scene of 64x1048576, --tile 64x128, --memory 200MB"
    yield refused(tree, folder, case, "smaller --tile", *predict("scene.npy", "--tile", "64x128", *bound))


def streams(tree: Tree, folder: Path) -> Iterator[Row]:
    """Close streams, hang up, write through a link."""
    np.save(folder / "few.npy", np.random.default_rng(0).integers(0, 250, (6, 64, 128)).astype(np.uint8))
    for case, shell, more in (
        ("stderr closed (`2>&-`)", '"$@" 2>&-', ()),
        ("`--json | true`", '"$@" | true; exit ${PIPESTATUS[0]}', ("--json",)),
    ):
        code, said = tree.run(folder, *predict("few.npy", *more), shell=shell)
        whole = (folder / "out.npy").exists() and len(np.load(folder / "out.npy")) == 6
        clear(folder)
        right = whole and code == 0 and "Traceback" not in said
        yield Row(case, "", code, "the masks are written" if whole else "no masks", right)
    (folder / "out.npy").symlink_to("target.npy")
    code, _ = tree.run(folder, *predict("few.npy", "--overwrite"))
    right = code == 0 and (folder / "out.npy").is_symlink() and (folder / "target.npy").exists()
    clear(folder)
    yield Row("--overwrite through a symbolic link", "", code, "its target is written, the link stays", right)
    yield hung_up(tree, folder)


def hung_up(tree: Tree, folder: Path) -> Row:
    """Send SIGHUP to a run, resume it, and compare with an uninterrupted one."""
    np.save(folder / "many.npy", np.random.default_rng(0).integers(0, 250, (3000, 64, 128)).astype(np.uint8))
    arguments = predict("many.npy", "--batch-size", "2")
    assert tree.run(folder, *arguments)[0] == 0
    whole = (folder / "out.npy").read_bytes()
    clear(folder)
    command = [sys.executable, "-c", PROGRAM.format("engine"), *arguments]
    process = subprocess.Popen(command, cwd=folder, env=tree.environment(folder), stderr=subprocess.PIPE, text=True)
    while not list(folder.glob(".out.npy.run/*")) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=MOST_SECONDS)
    code, said = tree.run(folder, *arguments, "--resume")
    same = code == 0 and (folder / "out.npy").read_bytes() == whole
    right = process.returncode == 128 + signal.SIGHUP and same and "resum" in said
    told = next((line for line in said.splitlines() if "resum" in line), "")
    return Row("SIGHUP, then --resume", told, process.returncode, "identical" if same else "DIFFERS", right)


PARTS: tuple[Callable[[Tree, Path], Iterator[Row]], ...] = (sources, servers, damaged, large, streams)


@contextmanager
def place() -> Iterator[Path]:
    """Yield a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def rows_of(tree: Tree, only: Sequence[str], careful: bool) -> Iterator[Row]:
    """Run the cases of all parts or of some; ``careful`` goes on where a part cannot be prepared."""
    for part in PARTS:
        if only and part.__name__ not in only:
            continue
        with place() as folder:
            try:
                for row in part(tree, folder):
                    print(
                        "ok " if row.as_required else "NOT", row.case, "|", row.message, "|", row.code, "|", row.result
                    )
                    yield row
            except Exception as error:  # an older tree may lack what a case needs
                if not careful:
                    raise
                print(f"the rest of {part.__name__} was not run: {type(error).__name__}: {error}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cases and write their rows; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, help="folder of an older commit, whose packages run")
    parser.add_argument("--commit", help="that commit")
    parser.add_argument("--only", nargs="+", choices=[part.__name__ for part in PARTS], help="other rows are kept")
    options = parser.parse_args(arguments)
    # nohup leaves it ignored, and a program keeps to that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stored = json.loads(RESULTS.read_text("utf-8"))
    held = {row["case"]: row for row in stored["rows"]}
    if options.tree is not None:
        for row in rows_of(Tree(options.tree), options.only, careful=True):
            held[row.case]["before"] = ended(row.code, row.message, row.as_required)
        stored |= {"commit_before": options.commit}
    else:
        new = {row.case: asdict(row) for row in rows_of(Tree(), options.only, careful=False)}
        before = {case: {"before": row["before"]} for case, row in held.items() if "before" in row}
        held = (held if options.only else {}) | {case: row | before.get(case, {}) for case, row in new.items()}
        stored["machine"] = table.processor()
        stored["versions"] = table.versions(("numpy", "pyarrow", "fsspec", "zarr"))
    RESULTS.write_text(json.dumps({**stored, "rows": list(held.values())}, indent=2) + "\n")
    return int(not all(row["as_required"] for row in held.values()))


if __name__ == "__main__":
    sys.exit(main())
