"""What the exporters make: size, parity and speed of every architecture, int8, and a packed ensemble.

``python -m benchmarks.bench_exporters [--trained FOLDER] [--tiles tiles.npz] [--epochs 6] [--preset small]`` writes
benchmarks/results/exporters.md. Nets that are not in FOLDER (as ARCHITECTURE.keras, and specialists/k0.keras...) are
trained on generated scenes first. All files of a comparison run in turn on one thread; figures are medians.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.table import rows, write
from engine.errors import EngineError
from engine.inference.ensemble import Ensemble
from engine.models.opening import open_net
from engine.samples.scenes import CLASSES, generate
from exporters.backend import load_keras, quiet
from exporters.compose import first_line
from exporters.keras_to_onnx import export_onnx
from exporters.measures import BATCH
from exporters.pack import pack
from exporters.parity import load_tiles
from exporters.precision import MAX_LOSS, lower
from exporters.self_check import open_session
from exporters.specialists import export_specialists
from exporters.tiles import labelled_tiles

TRAINING_SEED, TILES_SEED = 2000, 2001
INT8_BAR = 1.6
PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime-gpu", "onnxslim", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, help="folder with trained nets")
    parser.add_argument("--tiles", type=Path, help="labelled .npz tiles for parity and score; default: scenes")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", help="these architectures alone")
    options = parser.parse_args()
    with quiet():
        load_keras()
    from trainers.models import ARCHITECTURES

    names = [name for name in ARCHITECTURES if not options.only or name in options.only]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        tiles = options.tiles or save_scenes(work / "tiles.npz", max(16, options.scenes // 4), TILES_SEED)
        bench = Bench(work, tiles, options)
        nets = {name: bench.archive(name, ARCHITECTURES[name].specialist) for name in names}
        sections = [
            bench.exports(nets),
            bench.lowered(nets),
            bench.packed([name for name in names if not ARCHITECTURES[name].specialist]),
        ]
    what = "nets of " + (str(options.trained.name) if options.trained else f"{options.epochs} epochs on scenes")
    title = "Exporters"
    told = f"Preset {options.preset}, {what}; batches of {BATCH}, one CPU thread, median of {options.rounds}.\n"
    print(write("exporters", title, "python -m benchmarks.bench_exporters", PACKAGES, told, *sections))


def save_scenes(path: Path, count: int, seed: int) -> Path:
    scenes = generate(count, seed=seed)
    np.savez_compressed(path, images=scenes.images, labels=scenes.labels)
    return path


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            began = perf_counter()
            call()
            if turn:
                seconds[name].append(perf_counter() - began)
    return {name: median(taken) for name, taken in seconds.items()}


class Bench:
    """Nets, files and tiles of one run, each made once."""

    def __init__(self, work: Path, tiles: Path, options: argparse.Namespace) -> None:
        self.work, self.tiles, self.options = work, tiles, options
        self.real = load_tiles(tiles)
        self.onnx: dict[str, Path] = {}

    def train(self, *command: str) -> None:
        data = self.work / "scenes.npz"
        if not data.exists():
            save_scenes(data, self.options.scenes, TRAINING_SEED)
        shared = ("--data", str(data), "--preset", self.options.preset, "--epochs", str(self.options.epochs),
                  "--class-names", ",".join(CLASSES), "--ignored-class", "0", "--learning-rate", "0.003")  # fmt: skip
        print("training:", *command, flush=True)
        subprocess.run([sys.executable, "-m", "trainers.cli", *command, *shared], check=True, stdout=subprocess.DEVNULL)

    def archive(self, name: str, specialist: bool) -> Path:
        folder = self.options.trained or self.work
        path = folder / f"{name}.keras"
        if not path.exists():
            path = self.work / f"{name}.keras"
            self.train("fit", name, "--out", str(path), *(("--class-id", "1") if specialist else ()))
        return path

    def specialists(self) -> list[Path]:
        folder = (self.options.trained or self.work) / "specialists"
        if not (folder / "k0.keras").exists():
            folder = self.work / "specialists"
            self.train("fit-specialists", "--out", str(folder))
        return sorted(folder.glob("k*.keras"))

    def batches(self) -> np.ndarray:
        return self.real[: 4 * BATCH]

    def exports(self, nets: dict[str, Path]) -> str:
        """Every architecture against plain ``tf2onnx.convert.from_keras``."""
        lines = []
        for name, source in nets.items():
            with quiet():
                done = export_onnx(source, self.work / f"{name}.onnx", tiles=self.real)
            self.onnx[name] = done.path
            member = open_net(done.path)
            prepared = member.prepare(self.batches())
            ours, theirs = open_session(str(done.path)), plain(source)
            calls = {"ours": runner(ours, prepared)}
            if theirs is not None:
                calls["plain"] = runner(theirs, np.ascontiguousarray(prepared.transpose(0, 2, 3, 1)))
            seconds = in_turn(calls, self.options.rounds)
            rate = {key: len(prepared) / value for key, value in seconds.items()}
            ratio = "fails"
            if theirs is not None:
                missed = " (below the bar)" if rate["ours"] < rate["plain"] else ""
                ratio = f"{rate['ours'] / rate['plain']:.2f}{missed}"
            other = f"{rate['plain']:,.0f}" if theirs is not None else "fails"
            lines.append(
                (name, f"{done.size / 1e6:.2f}", done.nodes, done.transposes, f"{done.parity.max_difference:.1e}",
                 f"{done.parity.agreement:.6f}", f"{rate['ours']:,.0f}", other, ratio)
            )  # fmt: skip
            print(*lines[-1], flush=True)
        header = ("architecture", "MB", "nodes", "transposes", "largest logit difference", "label agreement",
                  "images/s", "images/s, plain tf2onnx", "ratio")  # fmt: skip
        return "## ONNX files\n\nAgainst `tf2onnx.convert.from_keras` of the same net; bar: 1.0 times.\n\n" + rows(
            header, lines
        )

    def lowered(self, nets: dict[str, Path]) -> str:
        lines: list[Sequence[object]] = []
        for name in nets:
            source = self.onnx[name]
            try:
                with quiet():
                    done = lower(source, self.work / f"{name}_int8.onnx", lambda c: labelled_tiles(self.tiles, c))
            except EngineError as error:
                lines.append((name, f"refused: {str(error).split(': ', 1)[1][:160]}", *[""] * 4))
                continue
            held = done.measured
            missed = " (below the bar)" if held.ratio < INT8_BAR else ""
            lines.append(
                (name, done.recipe, f"{done.size / 1e6:.2f}", f"{held.ratio:.2f}{missed}",
                 f"{held.before:.4f}", f"{held.after:.4f}")
            )  # fmt: skip
            print(*lines[-1], flush=True)
        header = ("architecture", "int8 file", "MB", "times float32", "MIoU float32", "MIoU int8")
        told = (
            f"Loss of MIoU allowed: {MAX_LOSS}; bar: {INT8_BAR} times float32. The MIoU is `labelled`, suppressed.\n\n"
        )
        return "## int8\n\n" + told + rows(header, lines)

    def packed(self, names: Sequence[str]) -> str:
        """Up to three nets (one of them once more in int8) and five specialists, engine against packed file."""
        with quiet():
            five = export_specialists(
                self.specialists(), self.work / "five.onnx", tiles=lambda c: labelled_tiles(self.tiles, c)
            )
        members = [*(self.onnx[name] for name in names[:3]), five.path]
        members += [path for name in names[:1] if (path := self.work / f"{name}_int8.onnx").exists()]
        lines, few = [], self.batches()
        for strategy in ("mean-logit", "mean-prob", "vote"):
            plan = self.work / "ensemble.toml"
            tables = "".join(f'[[members]]\nmodel = "{path.name}"\n' for path in members)
            plan.write_text(f'strategy = "{strategy}"\n{tables}')
            done = pack(plan, self.work / f"{strategy}.onnx", tiles=self.real)
            engine = Ensemble.open(members, strategy=strategy)
            whole = Ensemble.open(done.path)
            calls = {"engine": partial(engine.predict, few, BATCH, 1), "packed": partial(whole.predict, few, BATCH, 1)}
            seconds = in_turn(calls, self.options.rounds)
            rate = {key: len(few) / value for key, value in seconds.items()}
            lines.append(
                (strategy, len(members), f"{done.size / 1e6:.2f}", done.nodes, f"{done.check.pixels:,}",
                 done.check.ties, f"{rate['engine']:,.1f}", f"{rate['packed']:,.1f}",
                 f"{rate['packed'] / rate['engine']:.2f}")
            )  # fmt: skip
            print(*lines[-1], flush=True)
        told = ", ".join(path.stem for path in members)
        header = ("strategy", "members", "MB", "nodes", "pixels compared", "of another label (all exact ties)",
                  "engine images/s", "packed images/s", "ratio")  # fmt: skip
        return f"## Packed ensemble\n\n{told}; class 0 suppressed; one worker.\n\n" + rows(header, lines)


def runner(session: Any, images: np.ndarray) -> Callable[[], object]:
    name = session.get_inputs()[0].name
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    return lambda: [session.run(None, {name: part}) for part in parts]


def plain(source: Path) -> Any:
    """Return a session of what tf2onnx makes of the net by itself, or None where it fails."""
    import keras
    import tensorflow as tf
    import tf2onnx

    with quiet():
        net = keras.saving.load_model(source, compile=False)
        # tf2onnx asks for a name that Keras 3 no longer gives.
        net.output_names = [tensor.name.split(":")[0] for tensor in net.outputs]
        spec = (tf.TensorSpec(net.inputs[0].shape, tf.float32, name="images"),)
        try:
            model, _ = tf2onnx.convert.from_keras(net, input_signature=spec, opset=17)
            return open_session(model.SerializeToString())
        except Exception as error:  # the peer may raise anything; the table says so
            failure = first_line(error)
    print(f"plain tf2onnx fails on {source.stem}: {failure}", flush=True)
    return None


if __name__ == "__main__":
    main()
