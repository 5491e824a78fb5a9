"""Nets of other projects as people export them: what every command makes of each file, and how fast.

``python -m benchmarks.bench_foreign [--quick] [--only smp] [--work FOLDER]`` writes benchmarks/results/foreign.md;
with a folder, files that went through the commands there before are not run again, only timed. Weights are random and
seeded, batch norm and heads are calibrated on random images, so that every class occurs. Nothing is done to a file
between its exporter and the engine; the options in the table are all that is said of it. Labels are compared with
torch's own on the same images; pixels whose best two scores lie within 1e-4 are counted apart. Needs torch,
torchvision, segmentation_models_pytorch, transformers and onnxscript; ultralytics if it is there.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.foreign import nets, tables
from benchmarks.foreign.tables import TILES, Row
from benchmarks.foreign.worker import Worker, shortened
from benchmarks.table import write

PACKAGES = ("torch", "torchvision", "segmentation-models-pytorch", "transformers", "ultralytics", "onnxscript", "onnx",
            "onnxruntime-gpu", "numpy")  # fmt: skip
QUICK_NETS = 2
# Share of the pixels whose true label is drawn anew, so that no score is 1.
SPOILT = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_NETS} nets alone")
    parser.add_argument("--only", nargs="*", default=[], help="nets whose name holds one of these texts")
    parser.add_argument("--work", type=Path, help="folder for the files and what came of them, kept for the next run")
    options = parser.parse_args()
    chosen = [
        build
        for build in nets.builds()
        if not options.only or any(part.lower() in build.name.lower() for part in options.only)
    ]
    place = contextlib.nullcontext(options.work) if options.work else tempfile.TemporaryDirectory()
    with place as work:
        bench = Bench(Path(work), 3 if options.quick else 7)
        try:
            for build in chosen[:QUICK_NETS] if options.quick else chosen:
                bench.net(build)
            sections = [
                tables.files(bench.rows),
                tables.folder(bench.rows, bench.worker, bench.work),
                tables.speed(bench.rows, bench.worker, bench.rounds),
                tables.quarters(bench.rows, bench.worker, bench.rounds),
            ]
        finally:
            bench.worker.close()
    print(write("foreign", "Nets of other projects", "python -m benchmarks.bench_foreign", PACKAGES, *sections))


class Bench:
    """Exports nets, runs commands on them, makes tables."""

    def __init__(self, work: Path, rounds: int) -> None:
        self.work, self.rounds = work, rounds
        self.worker = Worker()
        self.rows: list[Row] = []

    def net(self, build: nets.Build) -> None:
        """Export a net in every way and run every command on each file."""
        exports = nets.OWN_EXPORTS if build.own_export else nets.EXPORTS
        rows = [Row(build, how, self.work / build.name.replace(" ", "-") / f"{how.file}/net.onnx") for how in exports]
        if all(row.load() for row in rows):
            self.rows += rows
            return
        try:
            net = nets.make(build)
        except Exception as error:  # a project may raise anything; the others are still measured
            print(f"{build.name} is left out: {shortened(f'{type(error).__name__}: {error}')}", flush=True)
            return
        for row in rows:
            self.rows.append(row)
            if row.load():
                continue
            shutil.rmtree(row.path.parent, ignore_errors=True)
            row.path.parent.mkdir(parents=True)
            try:
                nets.export(net, build, row.how, row.path)
            except Exception as error:  # an exporter may raise anything; the table says so
                row.steps["export"] = shortened(f"{type(error).__name__}: {error}")
            else:
                row.scores = nets.logits(net, tables.pictures(nets.TRACED), build.imagenet)
                self.commands(row, net)
            row.save()
            print(build.name, "/", row.how.name, "/", row.steps, row.pixels, flush=True)

    def commands(self, row: Row, net: Any) -> None:
        """Run every command on one file, on images of another size than the traced one where it declares that."""
        pixels = tables.pictures(nets.OTHER if row.how.any_size else nets.TRACED)
        labels, ties = nets.labels(nets.logits(net, pixels, row.build.imagenet))
        draw = np.random.default_rng(1)
        drawn = draw.integers(0, row.build.classes, labels.shape, np.uint8)
        truth = np.where(draw.random(labels.shape) < SPOILT, drawn, labels)
        folder = row.path.parent
        tiles = folder / "tiles.npz"
        np.savez(tiles, images=pixels, labels=truth)
        nets.sibling(row.path, folder / "other.onnx")
        for name, program, arguments in self.plan(row, tiles):
            row.steps[name] = self.worker.command(program, *arguments)
        masks = folder / "masks.npz"
        if not row.steps["ensemble"] and masks.exists():
            with np.load(masks) as held:
                found = held[held.files[0] if "masks" not in held else "masks"].reshape(labels.shape)
            row.pixels, row.ties = int((found != labels).sum()), int(((found != labels) & ties).sum())

    def plan(self, row: Row, tiles: Path) -> Iterator[tuple[str, str, list[object]]]:
        """Yield name, program and arguments of every command; ``adopt`` runs on the way where the exporters have it."""
        folder, facts = row.path.parent, row.build.facts
        images, truth = ["--input", f"{tiles}:images"], ["--labels", f"{tiles}:labels"]
        one, two = ["-m", row.path], ["-m", row.path, "-m", folder / "other.onnx"]
        strategy = ["--strategy", row.build.strategy]
        yield "inspect", "engine", ["inspect", row.path, *facts]
        yield "ensemble", "engine", ["ensemble", *one, *images, "-o", folder / "masks.npz", *strategy, *facts]
        yield "compare", "engine", ["compare", *two, *images, *truth, "--out", folder / "run.npz", *facts]
        # What a packed file can hold: one strategy, no clean-up.
        packable = ["--strategies", row.build.strategy, "--no-clean-up"]
        plan = folder / "ensemble.toml"
        yield "select", "engine", ["select", *two, *images, *truth, "--out", plan, *packable, *facts]
        few = ["--images", TILES, "--rounds", 1]
        yield "bench", "engine", ["bench", *one, *images, *few, *strategy, *facts]
        adopted = folder / "adopted.onnx"
        failed = self.worker.command("exporters", "adopt", row.path, "--out", adopted, *facts)
        model = row.path if "No such command" in failed else adopted
        if failed and model == adopted:
            row.steps["adopt"] = failed
        lowered = folder / "int8.onnx"
        # The loss that random weights have says nothing of a trained net: any is accepted.
        yield "quantize", "exporters", ["quantize", model, "--calibrate", tiles, "--out", lowered, "--max-loss", 1]
        yield "pack", "exporters", ["pack", plan, "--out", folder / "packed.onnx", "--tiles", tiles]


if __name__ == "__main__":
    main()
