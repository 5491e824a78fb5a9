"""Kills runs of ``engine ensemble`` at random moments, resumes them, and compares the outputs byte for byte.

    python -m benchmarks.reliability.kill_and_resume --kills 50
    python -m benchmarks.reliability.kill_and_resume --kills 10 --signal TERM --json term.json
    python -m benchmarks.reliability.kill_and_resume --kills 10 --tile
    python -m benchmarks.reliability.kill_and_resume --kills 150 --one-pid --forms masks.zarr masks masks.csv

Each run is a process of its own. It is forked from one that has loaded everything, so a run is as long as its work.
With --one-pid each is the first process of a process namespace of its own, as in a container: all have number 1 (Linux,
as root).
Prints a row for each form of output; leaves with 1 when any output differs or anything is left over.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from engine.samples import SAMPLES

FORMS = ("masks.csv", "masks.rle.csv", "masks.npz", "masks.npy", "masks")
# Of one scene, and of a folder of scenes of different sizes.
SCENE_FORMS = ("mask.png", "mask.npy", "masks")
SCENES = ((900, 500), (64, 128), (500, 410), (30, 50), (256, 400))
IMAGES, SHARD = 96, 8
# Of Linux's sched.h.
CLONE_NEWPID = 0x20000000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many runs are killed, spread over the forms")
    parser.add_argument("--forms", nargs="+", help="names of the outputs")
    parser.add_argument(
        "--signals", "--signal", nargs="+", choices=("KILL", "TERM", "INT"), default=["KILL"], help="used in turn"
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="how many images a run predicts")
    parser.add_argument("--tile", action="store_true", help="predict scenes tile by tile instead of images")
    parser.add_argument("--one-pid", action="store_true", help="every run has process number 1")
    parser.add_argument("--models", help="what predicts, instead of sample nets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the rows")
    options = parser.parse_args(arguments)
    if options.one_pid and not can_isolate():
        print("no process namespaces, or not allowed: runs cannot share a number here", file=sys.stderr)
        return 77
    prepare()
    draw = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(table(Path(folder), options, draw))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return int(any(row["identical"] < row["killed"] for row in rows))


def table(folder: Path, options: argparse.Namespace, draw: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Yield what came of each form of output, and print it."""
    signals = cycle(options.signals)
    print(
        "| output | signal | killed | cut off in mid-run | identical after --resume |\n| --- | --- | --- | --- | --- |"
    )
    forms = options.forms or (SCENE_FORMS if options.tile else FORMS)
    models = options.models or str(SAMPLES / "one_class_*.onnx")
    for index, form in enumerate(forms):
        kills = options.kills * (index + 1) // len(forms) - options.kills * index // len(forms)
        if options.tile:
            source, more = scenes(folder, alone="." in form, draw=draw), ["--tile", "64x128"]
        else:
            source, more = folder / "images.npy", []
            np.save(source, draw.integers(0, 256, (options.images, 64, 128)).astype(np.uint8))
        launch = start_as_first if options.one_pid else start
        cut, same = trials(folder, ["-m", models, "-i", str(source), *more], form, kills, signals, draw, launch)
        row = {"output": form, "signals": options.signals, "tiles": options.tile, "one_pid": options.one_pid}
        yield {**row, "killed": kills, "cut_off": cut, "identical": same}
        print(f"| {form} | {', '.join(options.signals)} | {kills} | {cut} | {same} of {kills} |", flush=True)


def scenes(folder: Path, alone: bool, draw: np.random.Generator) -> Path:
    """Write a scene, or a folder of some, and return its path."""
    from PIL import Image

    if alone:
        Image.fromarray(draw.integers(0, 256, SCENES[0]).astype(np.uint8)).save(folder / "scene.png")
        return folder / "scene.png"
    (folder / "scenes").mkdir(exist_ok=True)
    for index, size in enumerate(SCENES):
        Image.fromarray(draw.integers(0, 256, size).astype(np.uint8)).save(folder / "scenes" / f"{index}.png")
    return folder / "scenes"


def prepare() -> None:
    """Load what a run needs, and make its shards small, so that a short run has many."""
    import onnxruntime  # noqa: F401

    import engine.fusion.strategies
    import engine.inference.tuning
    import engine.runs.durable.images
    import engine.runs.durable.scenes
    import engine.runs.image_run
    import engine.runs.scene_run

    for name in ("zarr", "rasterio"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    engine.fusion.compiling.compile_ahead(["mean-logit"])
    engine.runs.durable.images.MOST_IMAGES = engine.runs.durable.scenes.MOST_TILES = SHARD


def trials(
    folder: Path,
    job: list[str],
    form: str,
    kills: int,
    signals: Iterator[str],
    draw: np.random.Generator,
    launch: Callable[[Sequence[str]], int],
) -> tuple[int, int]:
    """Return how many of the killed runs left a journal, and how many outputs were the same after all."""
    seconds = []
    for _ in range(2):  # the shorter time: on a machine that does other things too, one may have been kept waiting
        remove(folder / "whole")
        began = time.perf_counter()
        assert wait(launch(run_in(folder / "whole", job, form))) == 0, (folder / "whole" / "log").read_text()
        seconds.append(time.perf_counter() - began)
    want = digest(folder / "whole")
    cut = same = 0
    for _ in range(kills):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            process = launch(run_in(Path(place), job, form))
            time.sleep(draw.uniform(0, min(seconds)))
            os.kill(process, getattr(signal, f"SIG{next(signals)}"))
            wait(process)
            cut += any(Path(place).glob(".*.run/journal"))
            code = wait(launch([*run_in(Path(place), job, form), "--resume"]))
            same += code == 0 and digest(Path(place)) == want
            if code:
                print((Path(place) / "log").read_text(), file=sys.stderr)
    remove(folder / "whole")
    return cut, same


def remove(folder: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def run_in(place: Path, job: list[str], form: str) -> list[str]:
    """Return the command line of a run that writes into a folder."""
    place.mkdir(exist_ok=True)
    return ["ensemble", *job, "-o", str(place / form)]


def start(arguments: Sequence[str], before: Callable[[], object] | None = None, log: Path | None = None) -> int:
    """Run the command line in a forked process; return its number.

    Args:
        arguments: those of ``engine``.
        before: called in that process first.
        log: where what it prints goes; None for ``log`` in the output's folder.
    """
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        log = log or Path(arguments[arguments.index("-o") + 1]).parent / "log"
        place = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(place, 1)
        os.dup2(place, 2)
        from engine.cli import app
        from engine.utils import console

        if before is not None:
            before()
        console.exit_code(lambda: app(list(arguments)))
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def start_as_first(arguments: Sequence[str]) -> int:
    """Run the command line in a forked process that is number 1 of its own namespace; return its number outside."""
    sys.stdout.flush()
    (reader, writer), (held, hold) = os.pipe(), os.pipe()
    outer = os.fork()
    if not outer:
        code = 1
        try:
            os.close(hold)
            isolate()
            inner = start(arguments)
            os.write(writer, str(inner).encode())
            os.close(writer)
            # Until it is waited for, its number stays taken: no other process is killed in its place.
            os.waitid(os.P_PID, inner, os.WEXITED | os.WNOWAIT)
            os.read(held, 1)
            code = wait(inner)
        finally:
            os._exit(code if code >= 0 else 128 - code)
    os.close(writer)
    os.close(held)
    inner = int(os.read(reader, 32))
    os.close(reader)
    _OUTER[inner] = (outer, hold)
    return inner


# By the number of a process in a namespace: its parent, and what keeps that from waiting for it.
_OUTER: dict[int, tuple[int, int]] = {}


def isolate() -> None:
    """Make the next child of this process the first one of a namespace.

    Raises:
        OSError: not allowed.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def can_isolate() -> bool:
    """Return whether :func:`isolate` works here."""
    if not sys.platform.startswith("linux"):
        return False
    process = os.fork()
    if not process:
        code = 1
        try:
            isolate()
            child = os.fork()
            if not child:
                os._exit(int(os.getpid() != 1))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        finally:
            os._exit(code)
    return wait(process) == 0


def wait(process: int) -> int:
    """Return the exit code of a process."""
    if process in _OUTER:
        process, hold = _OUTER.pop(process)
        os.close(hold)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def digest(folder: Path) -> str:
    """Return a hash of all that lies in a folder but the log; anything left over changes it."""
    total = hashlib.sha256()
    for path in sorted(_files(folder)):
        total.update(str(path.relative_to(folder)).encode() + b"\0" + (path.read_bytes() if path.is_file() else b"/"))
    return total.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.name != "log")


if __name__ == "__main__":
    sys.exit(main())
