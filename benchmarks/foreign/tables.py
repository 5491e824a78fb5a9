"""The rows of benchmarks/results/foreign.md and its sections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.foreign import nets
from benchmarks.foreign.nets import Build, Export
from benchmarks.foreign.worker import Worker
from benchmarks.table import rows

STEPS = ("inspect", "ensemble", "compare", "select", "bench", "quantize", "pack")
TILES = 12
SPEED_BAR, RESIZE_BAR = 1.5, 0.05
SIDE = 256


@dataclass
class Row:
    """One exported file and what the commands made of it.

    Attributes:
        build: the net.
        how: its export.
        path: the file.
        steps: what each command said; "" is ok.
        pixels: labels that are not torch's; None where no mask came.
        ties: those of them that rounding can change.
        scores: torch's logits for images of the traced size.
    """

    build: Build
    how: Export
    path: Path
    steps: dict[str, str] = field(default_factory=dict)
    pixels: int | None = None
    ties: int = 0
    scores: np.ndarray | None = None

    def save(self) -> None:
        """Keep what is known beside the file."""
        told = {"steps": self.steps, "pixels": self.pixels, "ties": self.ties}
        if self.scores is not None:
            np.save(self.path.with_name("scores.npy"), self.scores)
        self.path.with_name("row.json").write_text(json.dumps(told), "utf-8")

    def load(self) -> bool:
        """Take up what an earlier run kept; return whether there is any."""
        kept, scores = self.path.with_name("row.json"), self.path.with_name("scores.npy")
        if kept.exists():
            told = json.loads(kept.read_text("utf-8"))
            self.steps, self.pixels, self.ties = told["steps"], told["pixels"], told["ties"]
            self.scores = np.load(scores) if scores.exists() else None
        return kept.exists()


def pictures(size: tuple[int, int]) -> np.ndarray:
    """Return the images that every net of a size runs on, uint8 (n, height, width, 3)."""
    return nets.images(TILES, size, 9)


def files(done: Sequence[Row]) -> str:
    """Return the table of all files, with what was said below it."""
    notes: dict[str, int] = {}

    def cell(row: Row, step: str) -> str:
        if "export" in row.steps:
            told = row.steps["export"] if step == STEPS[0] else None
        elif step == "quantize" and row.steps.get("adopt"):
            told = row.steps["adopt"]
        else:
            told = row.steps[step]
        if not told:
            return "" if told is None else "ok"
        told = told.removeprefix("error: ").replace(str(row.path.parent), "")
        return f"[{notes.setdefault(told, len(notes) + 1)}]"

    lines = []
    for row in done:
        differ = "" if row.pixels is None else f"{row.pixels:,}" + (f" ({row.ties:,} ties)" if row.pixels else "")
        export = "not exported: " if "export" in row.steps else ""
        lines.append(
            (row.build.name, row.how.name, f"`{' '.join(row.build.facts)}`",
             *(export * (step == STEPS[0]) + cell(row, step) for step in STEPS), differ)
        )  # fmt: skip
    whole = sum(all(not told for told in row.steps.values()) for row in done)
    head = ("net", "torch.onnx.export", "said of it", *STEPS, "other labels than torch's")
    told = (
        f"{whole} of {len(done)} files pass every command. All are traced at {nets.TRACED[0]}x{nets.TRACED[1]}; those "
        f"that declare open sides run on images of {nets.OTHER[0]}x{nets.OTHER[1]}. {TILES} images; labels are the "
        "engine's with one member. `compare` and `select` take the file and a copy with slightly other weights.\n"
    )
    said = "".join(f"{number}. {text}\n" for text, number in notes.items())
    return f"## Files\n\n{told}\n{rows(head, lines)}" + (f"\n{said}" if said else "")


def folder(done: Sequence[Row], worker: Worker, work: Path) -> str:
    """Return what one command makes of all multi-class files in one folder."""
    alike = [
        row
        for row in done
        if row.scores is not None and row.scores.shape[1] == nets.CLASSES and not row.build.own_export
    ]
    if not alike:
        return ""
    folder = work / "all"
    folder.mkdir(exist_ok=True)
    for index, row in enumerate(alike):
        nets.sibling(row.path, folder / f"{index}.onnx", amount=0)
    tiles = work / "tiles.npz"
    pixels = pictures(nets.TRACED)
    np.savez(tiles, images=pixels)
    command = ("ensemble", "-m", folder, "-i", f"{tiles}:images", "-o", work / "all.npz", "--overwrite")
    failed = worker.command("engine", *command, *alike[0].build.facts)
    told = f"`engine ensemble -m folder/ {' '.join(alike[0].build.facts)}` on {len(alike)} files"
    if failed:
        return f"## One folder\n\n{told}: {failed}\n"
    labels, ties = nets.labels(np.mean([row.scores for row in alike], axis=0))
    with np.load(work / "all.npz") as held:
        wrong = held[held.files[0] if "masks" not in held else "masks"].reshape(labels.shape) != labels
    return (
        f"## One folder\n\n{told}: ok; {int(wrong.sum()):,} of {wrong.size:,} labels are not those of the mean of "
        f"torch's logits, {int((wrong & ties).sum()):,} of them ties.\n"
    )


def speed(done: Sequence[Row], worker: Worker, rounds: int) -> str:
    """Return images/s of fixed files against a plain loop over single images."""
    mean, std = nets.IMAGENET
    facts = {"scale": 1 / 255, "mean": mean, "std": std}
    lines = []
    for row in done:
        if row.how.any_size or row.build.own_export or "export" in row.steps:
            continue
        got = worker.measure("alone_against_engine", str(row.path), str(row.path.parent / "tiles.npz"), facts, rounds)
        if isinstance(got, str):
            lines.append((row.build.name, row.how.name, got, "", "", "", ""))
            continue
        ratio, most = got[0] / got[1], got[2] / got[1]
        missed = " (below the bar)" if ratio < SPEED_BAR else ""
        rates = [f"{rate:,.0f}" for rate in got]
        lines.append((row.build.name, row.how.name, *rates[:2], f"{ratio:.2f}{missed}", rates[2], f"{most:.2f}"))
    head = ("net", "torch.onnx.export", "engine, images/s", "plain loop, images/s", "ratio",
            "bare sessions, images/s", "ratio to the loop")  # fmt: skip
    told = (
        "A batch of 1 alone is declared. The plain loop scales, runs and labels one image after the other with "
        "onnxruntime's default options, so with all cores within an image. The bare sessions run side by side, one per "
        "core with one thread each, on an image that is prepared already, and nothing is made of their maps: more than "
        f"that no engine gets out of single images. In turns, median of {rounds}; bar: {SPEED_BAR}.\n"
    )
    return f"## Fixed batch of 1\n\n{told}\n{rows(head, lines)}"


def quarters(done: Sequence[Row], worker: Worker, rounds: int) -> str:
    """Return the share of time that enlarging reduced maps takes."""
    lines = []
    for row in done:
        if not row.build.name.startswith("transformers") or not row.how.any_size or "export" in row.steps:
            continue
        got = worker.measure("resizing", str(row.path), SIDE, rounds)
        if isinstance(got, str):
            lines.append((row.build.name, row.how.name, got, "", "", ""))
            continue
        shape, net, enlarge = got
        missed = " (above the bar)" if enlarge / net > RESIZE_BAR else ""
        lines.append(
            (row.build.name, row.how.name, "x".join(map(str, shape[1:])), f"{net * 1e3:.2f}",
             f"{enlarge * 1e3:.2f}", f"{enlarge / net:.1%}{missed}")
        )  # fmt: skip
    if not lines:
        return ""
    head = ("net", "torch.onnx.export", "maps", "net, ms", "enlarging, ms", "share")
    told = f"One image of {SIDE}x{SIDE}, one thread, median of {rounds}; bar: {RESIZE_BAR:.0%} of the net.\n"
    return f"## Reduced maps\n\n{told}\n{rows(head, lines)}"
