"""Injects failures of disk, input and sessions into a running ``engine ensemble`` and checks the outcome.

    python -m benchmarks.reliability.faults --json faults.json

The system's calls fail in a small library that is loaded before any other (faults.c, compiled here, Linux alone);
sessions fail in the process that is forked for a run. The program is the one that is installed, unchanged.

A fault either ends the run with one line and leaves no output, and ``--resume`` without the fault then writes the very
bytes of an undisturbed run; or it is none to the user: the run itself writes these bytes. Leaves with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.kill_and_resume import digest, prepare, start, wait
from engine.samples import SAMPLES

SOURCE = Path(__file__).with_suffix(".c")
IMAGES = 64
CALLS = 40


@dataclass(frozen=True)
class Fault:
    """What fails.

    Attributes:
        told: description of the failure.
        call: ``read``, ``write`` or ``fsync`` (see faults.c), or ``session``.
        kind: how it fails.
        path: part of the path of the affected file.
        after: calls that pass before.
        times: calls that fail; 0 for all that follow.
        source: the input.
        goal: the output.
        passes: whether the run must succeed nevertheless.
        resuming: whether it affects the second run, after a first one on a full disk.
    """

    told: str
    call: str
    kind: str
    path: str = ""
    after: int = 0
    times: int = 0
    source: str = "images.npy"
    goal: str = "masks.csv"
    passes: bool = False
    resuming: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def more(self) -> list[str]:
        """Return the options for this input."""
        return ["--tile", "64x128"] if self.source == "scene.png" else []


FAULTS = [
    Fault("disk full, in a shard", "write", "ENOSPC", ".labels", 3),
    Fault("disk full, in the journal", "write", "ENOSPC", "/journal", 3),
    Fault("disk full, at the first byte", "write", "ENOSPC", ".run/"),
    *(
        Fault(f"disk full, in {goal}", "write", "ENOSPC", "partial-", after, goal=goal)
        for goal, after in (("masks.csv", 1), ("masks.rle.csv", 0), ("masks.npy", 1), ("masks.npz", 2), ("masks", 30))
    ),
    Fault("disk full, in masks.zarr", "write", "ENOSPC", "partial-", 1, goal="masks.zarr"),
    Fault("disk full, in the record beside the output", "write", "ENOSPC", "masks.csv.json.partial"),
    Fault("EIO on write, in a shard", "write", "EIO", ".labels", 4),
    Fault("EIO on write, in masks.csv", "write", "EIO", "partial-", 1),
    Fault("EIO on fsync of a shard", "fsync", "EIO", ".labels", 2),
    Fault("EIO on fsync of the journal", "fsync", "EIO", "/journal", 3),
    Fault("EIO on fsync of the output", "fsync", "EIO", "partial-"),
    Fault("EIO on read of a .npy, before the first image", "read", "EIO", "images.npy", 2),
    Fault("EIO on read of a .npy, in mid-run", "read", "EIO", "images.npy", 22),
    Fault("EIO on read of an .npz", "read", "EIO", "images.npz", 40, source="images.npz"),
    Fault("EIO on read of a picture", "read", "EIO", "/30.png", 3, source="images"),
    Fault("EIO on read of a Zarr chunk", "read", "EIO", "images.zarr/c/6", 4, source="images.zarr"),
    Fault("EIO on read of a model", "read", "EIO", ".onnx", 0),
    Fault("a .npy that ends early", "read", "END", "images.npy", 16),
    Fault("an .npz that ends early", "read", "END", "images.npz", 40, source="images.npz"),
    Fault("a .npy cut off while it is read", "read", "CUT", "images.npy", 14, 1, environment={"FAULT_BYTES": "300000"}),
    Fault("short reads of a .npy", "read", "SHORT", "images.npy", passes=True),
    Fault("short reads of an .npz", "read", "SHORT", "images.npz", source="images.npz", passes=True),
    Fault("short reads of pictures", "read", "SHORT", ".png", source="images", passes=True),
    Fault("short reads of a Zarr store", "read", "SHORT", "images.zarr", source="images.zarr", passes=True),
    Fault("short writes of shards", "write", "SHORT", ".labels", passes=True),
    Fault("short writes of the journal", "write", "SHORT", "/journal", passes=True),
    Fault("short writes of masks.csv", "write", "SHORT", "partial-", passes=True),
    Fault("short writes of a folder of PNGs", "write", "SHORT", "partial-", goal="masks", passes=True),
    Fault("slow disk, reading", "read", "SLOW", "images.npy", passes=True),
    Fault("slow disk, writing", "write", "SLOW", "masks.csv", passes=True),
    Fault("slow disk, fsync", "fsync", "SLOW", "masks.csv", passes=True),
    Fault("EIO on read of a shard, resuming", "read", "EIO", ".labels", passes=True, resuming=True),
    Fault("EIO on read of the journal, resuming", "read", "EIO", "/journal", resuming=True),
    Fault("disk full, in a shard of a scene", "write", "ENOSPC", ".labels", 3, source="scene.png", goal="mask.png"),
    Fault("disk full, in the mask of a scene", "write", "ENOSPC", "partial-", source="scene.png", goal="mask.png"),
    Fault("EIO on fsync of a shard of a scene", "fsync", "EIO", ".labels", 2, source="scene.png", goal="mask.npy"),
    Fault("EIO on read of a scene", "read", "EIO", "scene.png", 6, source="scene.png", goal="mask.png"),
    Fault("a session that fails from its n-th call on", "session", "fails", after=CALLS),
    Fault("a session that fails at its n-th call, once", "session", "fails", after=CALLS, times=1, passes=True),
    Fault("a session that raises a MemoryError, once", "session", "memory", after=CALLS, times=1, passes=True),
    Fault("a session that returns NaN at its n-th call", "session", "NaN", after=CALLS),
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="only faults whose description contains one of these")
    parser.add_argument("--json", type=Path, help="also write the results")
    options = parser.parse_args(arguments)
    if "FAULTS_LOADED" not in os.environ:
        return within_shim(sys.argv[1:] if arguments is None else arguments)
    prepare()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        save_inputs(place)
        wholes: dict[str, str] = {}
        for fault in FAULTS:
            if any(text in fault.told for text in options.only):
                rows.append(trial(fault, place, wholes))
                print(row_of(rows[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return int(not all(row["as_promised"] for row in rows))


def within_shim(arguments: Sequence[str]) -> int:
    """Compile the library and run this program again with it preloaded."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        print("no C compiler, or no Linux: the system's calls cannot be made to fail here", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "faults.so"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": str(library), "FAULTS_LOADED": "1"}
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.reliability.faults", *arguments], env=environment
        ).returncode


def save_inputs(place: Path) -> None:
    """Write the same images in every format."""
    from PIL import Image

    pixels = np.random.default_rng(3).integers(0, 256, (IMAGES, 64, 128)).astype(np.uint8)
    np.save(place / "images.npy", pixels)
    np.savez(place / "images.npz", images=pixels)
    Image.fromarray(pixels[:12].reshape(384, 256)).save(place / "scene.png")
    (place / "images").mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(place / "images" / f"{index:02d}.png")
    try:
        import zarr
    except ImportError:
        return
    zarr.create_array(store=place / "images.zarr", shape=pixels.shape, chunks=(8, 64, 128), dtype="u1")[:] = pixels


def trial(fault: Fault, place: Path, wholes: dict[str, str]) -> dict[str, Any]:
    """Run once with the fault, check what is left, and resume without it."""
    import engine.runs.durable.images

    engine.runs.durable.images.MOST_IMAGES = 8
    source = place / fault.source
    if f"{source}{fault.goal}" not in wholes:
        whole = run_in(place / "whole", source, fault)
        assert whole["code"] == 0, whole
        wholes[f"{source}{fault.goal}"] = digest(place / "whole")
        shutil.rmtree(place / "whole")
    want = wholes[f"{source}{fault.goal}"]
    held = source.read_bytes() if fault.kind == "CUT" else b""
    run = place / "run"
    if fault.resuming:
        full = FAULTS[0]
        assert run_in(run, source, fault, lambda: strike(full))["code"] == 2
    came = run_in(run, source, fault, lambda: strike(fault), *(["--resume"] if fault.resuming else []))
    left = sorted(path.name for path in run.iterdir() if path.name != "log")
    if held:
        source.write_bytes(held)
    lines = [line for line in came["log"].splitlines() if line.startswith("error")]
    told = (lines or [""])[0].replace(f"{run}/", "").replace(f"{place}/", "").replace(f"{SAMPLES}/", "")
    clean = not (set(left) - {f".{fault.goal}.run"}) and len(lines) == 1 and "Traceback" not in came["log"]
    kept = (run / f".{fault.goal}.run" / "journal").exists()
    after = came
    if not fault.passes:
        after = run_in(run, source, fault, None, "--resume")
    same = after["code"] == 0 and digest(run) == want
    shutil.rmtree(run)
    right = same and (came["code"] == 0 if fault.passes else came["code"] == 2 and clean)
    return {
        "fault": fault.told,
        "code": came["code"],
        "seconds": came["seconds"],
        "message": told,
        "kept": kept,
        "identical": same,
        "as_promised": right,
        **({} if right else {"log": came["log"] + after["log"], "left": left}),
    }


def run_in(
    run: Path, source: Path, fault: Fault, before: Callable[[], object] | None = None, *more: str
) -> dict[str, Any]:
    """Run the command in a separate process; ``before`` is called in it first."""
    run.mkdir(exist_ok=True)
    (run / "log").unlink(missing_ok=True)
    models = str(SAMPLES / "one_class_*.onnx")
    line = [
        "ensemble",
        "-m",
        models,
        "-i",
        str(source),
        "-o",
        str(run / fault.goal),
        "--batch-size",
        "4",
        "--workers",
        "1",
    ]
    began = time.perf_counter()
    code = wait(start([*line, *fault.more, *more], before))
    return {"code": code, "seconds": round(time.perf_counter() - began, 2), "log": (run / "log").read_text()}


def strike(fault: Fault) -> None:
    """Inject a fault into this process."""
    if fault.call == "session":
        break_sessions(fault)
        return
    os.environ.update(
        {"FAULT_CALL": fault.call, "FAULT_KIND": fault.kind, "FAULT_AFTER": str(fault.after)} | fault.environment
    )
    if fault.path:
        os.environ["FAULT_PATH"] = fault.path
    if fault.times:
        os.environ["FAULT_TIMES"] = str(fault.times)


def break_sessions(fault: Fault) -> None:
    """Replace the runtime's session with one that fails."""
    from engine.errors import ModelError
    from engine.models.runtimes.onnxruntime import OnnxSession

    real, calls = OnnxSession.run, [0]

    def run(session: OnnxSession, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        struck = 0 < calls[0] - fault.after <= (fault.times or 1 << 30)
        if struck and fault.kind == "fails":
            raise ModelError(f"{session.path.name} fails: the device was lost")
        if struck and fault.kind == "memory":
            raise MemoryError
        out = real(session, *arguments, **named)
        if struck:
            out[...] = np.nan
        return out

    OnnxSession.run = run  # type: ignore[method-assign]


def row_of(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    end = "as without" if row["code"] == 0 else f"exit {row['code']}: {row['message']}"
    same = "identical" if row["identical"] else "DIFFERS"
    return f"{'ok ' if row['as_promised'] else 'BAD'} {row['fault']} | {row['seconds']} s | {same} | {end}"


if __name__ == "__main__":
    sys.exit(main())
