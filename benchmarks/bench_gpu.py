"""An ensemble on a GPU: labels against the CPU, images/s from .npy to .npy, against the same graph without transfers.

    python -m benchmarks.bench_gpu --tiles tiles.npy            # an NVIDIA GPU; pip install '.[cuda]'
    python -m benchmarks.bench_gpu --device cpu                 # without one: the same code on a few tiles

Tiles are uint8 (image, height, width), or an .npz with `test_set`; generated scenes without them. Everything is
measured in one process, the contenders in turn; the table goes to benchmarks/results/gpu.md, of a CPU to
gpu_rehearsal.md, whose figures say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks import table
from benchmarks.zoo_nets import FOUR
from engine import Ensemble
from engine.errors import EngineError
from engine.graph.fusion import STRATEGIES
from engine.inference.device import DeviceFusion
from engine.inference.tuning import tune
from engine.models.runtimes import GRAPH_ON_CPU, RuntimeOptions
from engine.models.runtimes.bound import BoundGraph
from engine.models.runtimes.onnxruntime import OnnxSession
from engine.models.runtimes.providers import choose_provider
from engine.outputs.open import open_writer
from engine.runs.outcome import Outcome
from engine.runs.predict import run
from engine.sources.base import Batch, from_array
from engine.sources.open import open_source

PACKAGES = ("numpy", "onnx", "onnxruntime-gpu", "nvidia-cudnn-cu13", "nvidia-cuda-runtime")
# What the fused graph must reach on a GPU, of the rates of the same run.
OF_BOUND, OVER_PLAIN, HALF_OVER_FLOAT = 0.85, 8.0, 1.4


def tiles_of(path: str, count: int) -> np.ndarray:
    """Return ``count`` uint8 tiles (image, height, width), repeated where there are fewer."""
    if path:
        held = np.load(path)
        tiles = held["test_set"] if isinstance(held, np.lib.npyio.NpzFile) else held
        tiles = np.asarray(tiles, np.uint8)
    else:
        from engine.samples.scenes import generate

        tiles = generate(min(count, 64)).images
    return tiles[np.arange(count) % len(tiles)]


def opened(
    models: Sequence[Path], provider: str, tiles: np.ndarray, precision: str = "float32", **options: object
) -> Ensemble:
    """Return the ensemble, ready on a provider; what the engine says about it goes to the terminal."""
    ensemble = Ensemble.open(list(models), **options)
    tuned = tune(ensemble, from_array(tiles), RuntimeOptions(provider, precision=precision))
    for line in tuned.told:
        print(f"  {line}")
    ensemble.tuned = tuned  # type: ignore[attr-defined]
    return ensemble


def compared(models: Sequence[Path], provider: str, tiles: np.ndarray) -> list[list[object]]:
    """Return per strategy: pixels, labels unlike the CPU's kernels, ties of both."""
    lines = []
    for strategy in STRATEGIES:
        found = []
        for where in ("cpu", provider):
            ensemble = opened(models, where, tiles, strategy=strategy)
            parts = list(ensemble.stream(from_array(tiles), batch_size=16))
            found.append((np.concatenate([part.labels for part in parts]), sum(part.ties for part in parts)))
        (want, ties), (got, other) = found
        lines.append([f"`{strategy}`", f"{want.size:,}", int((want != got).sum()), ties, other])
        print(f"{strategy}: {lines[-1][2]} labels differ")
    return lines


def from_file_to_file(ensemble: Ensemble, images: Path, folder: Path) -> tuple[float, Outcome]:
    """Return images/s from an .npy to an .npy, and the run's outcome."""
    source = open_source(str(images))
    output = folder / "masks.npy"
    tuned = ensemble.tuned  # type: ignore[attr-defined]
    began = perf_counter()
    with open_writer(output, source.ids, source.size, len(ensemble.classes), overwrite=True) as writer:
        outcome = run(ensemble, source, writer, batch_size=tuned.batch_size, workers=tuned.workers)
    return len(source) / (perf_counter() - began), outcome


def without_transfers(ensemble: Ensemble, seconds: float) -> float:
    """Return images/s of the ensemble's graph on images that lie on the device, with nothing copied or read back."""
    from onnxruntime import OrtValue

    device = ensemble.device
    assert device is not None
    graph, shape = device_parts(device)
    binding = graph.raw.io_binding()
    given = graph.raw.get_inputs()[0].name
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    binding.bind_ortvalue_input(given, OrtValue.ortvalue_from_numpy(pixels, graph.device, 0))
    for output in graph.raw.get_outputs():
        binding.bind_output(output.name, graph.device, 0)
    for _ in range(3):
        graph.raw.run_with_iobinding(binding)
    count, began = 0, perf_counter()
    while perf_counter() - began < seconds or count < 2:
        graph.raw.run_with_iobinding(binding)
        count += 1
    return count * shape[0] / (perf_counter() - began)


def device_parts(device: DeviceFusion) -> tuple[BoundGraph, tuple[int, ...]]:
    """Return the opened graph of a device and the shape of its input."""
    graph, form = device._graph, device._form
    assert graph is not None
    assert form is not None
    return graph, (device.batch_size, *(form.size or form.trial), form.channels)


def plain(models: Sequence[Path], provider: str, tiles: np.ndarray, batch: int) -> Callable[[int], float]:
    """Return what measures images/s of ONNX Runtime with arrays in and out, softmax and mean in NumPy."""
    ensemble = Ensemble.open(list(models))
    where = "cpu" if provider == GRAPH_ON_CPU else provider
    sessions = [(net, OnnxSession(net.path, where, threads=0)) for net in ensemble.nets]

    def measure(count: int) -> float:
        began = perf_counter()
        for start in range(0, count, batch):
            pixels = tiles[start : start + batch, ..., None]
            total = np.zeros(())
            for net, session in sessions:
                logits = session.run(net.output_name, net.prepare(pixels))
                terms = np.exp(logits - logits.max(axis=1, keepdims=True))
                total = total + terms / terms.sum(axis=1, keepdims=True)
            total[:, sorted(ensemble.variant.decoding.suppress)] = -1
            total.argmax(axis=1).astype(np.uint8)
        return count / (perf_counter() - began)

    return measure


def stages(ensemble: Ensemble, tiles: np.ndarray, outcome: Outcome) -> list[list[object]]:
    """Return time per stage: of one batch alone, and of the whole run as shares of its time."""
    device = ensemble.device
    assert device is not None
    places = np.arange(device.batch_size) % len(tiles)
    batch = Batch(0, [str(at) for at in places], tiles[places][..., None])
    found = [device.run(batch) for _ in range(5)][-1]
    whole = outcome.seconds
    return [
        ["host buffers filled and emptied", f"{1e3 * found.copy_seconds:.2f} ms a batch"],
        ["upload", f"{1e3 * found.upload_seconds:.2f} ms a batch"],
        ["graph, with the download of labels", f"{1e3 * found.run_seconds:.2f} ms a batch"],
        ["reading, share of the run", f"{outcome.read_seconds / whole:.1%}"],
        ["writing, share of the run", f"{outcome.write_seconds / whole:.1%}"],
        [
            "lanes' time inside the graph, share of lanes x run",
            f"{sum(outcome.member_seconds) / whole / device.lanes:.1%}",
        ],
    ]


def measured(models: Sequence[Path], provider: str, tiles: np.ndarray, rounds: int, seconds: float) -> tuple[str, str]:
    """Return the tables of rates and of stages."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = folder / "tiles.npy"
        np.save(images, tiles)
        whole = opened(models, provider, tiles, strategy="mean-prob")
        half = opened(models, provider, tiles, "fp16", strategy="mean-prob")
        other = plain(models, provider, tiles, 64)
        few = min(len(tiles), 1024)
        rates: dict[str, list[float]] = {name: [] for name in ("bound", "engine", "fp16", "plain")}
        for turn in range(rounds + 1):  # the first warms up
            rate, outcome = from_file_to_file(whole, images, folder)
            now = {
                "bound": without_transfers(whole, seconds),
                "engine": rate,
                "fp16": from_file_to_file(half, images, folder)[0],
                "plain": other(few),
            }
            for name, value in now.items():
                rates[name] += [value] if turn else []
        told = {name: median(found) for name, found in rates.items()}
        parts = stages(whole, tiles, outcome)
    size = whole.device.batch_size if whole.device is not None else 0
    bound, engine = told["bound"], told["engine"]
    lines = [
        [f"the graph alone, images on the device, batch {size}", f"{bound:,.0f}", "", ""],
        ["engine, .npy to .npy", f"{engine:,.0f}", f"{engine / bound:.2f} of it", f">= {OF_BOUND}"],
        [
            "engine, --precision fp16",
            f"{told['fp16']:,.0f}",
            f"{told['fp16'] / engine:.2f} times float32",
            f">= {HALF_OVER_FLOAT}",
        ],
        [
            "ONNX Runtime, arrays in and out, NumPy",
            f"{told['plain']:,.0f}",
            f"engine {engine / told['plain']:.1f} times",
            f">= {OVER_PLAIN:g}",
        ],
    ]
    return table.rows(["what", "images/s", "ratio", "required on a GPU"], lines), table.rows(["stage", "time"], parts)


def device_name(provider: str) -> str:
    """Return what the driver calls the GPU."""
    if provider == GRAPH_ON_CPU:
        return "no GPU: the same code on the CPU, so that the script is known to run to its end"
    import subprocess

    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "a GPU whose name nvidia-smi does not say"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--device", choices=("auto", "cuda", "tensorrt", "cpu"), default="auto", help="cpu: rehearse it"
    )
    parser.add_argument("--tiles", default="", help=".npy, or .npz with test_set; generated scenes by default")
    parser.add_argument("--models", type=Path, nargs="+", default=FOUR, help="nets; four of the zoo by default")
    parser.add_argument("--images", type=int, default=0, help="of a run; 0: 10,022 on a GPU, 48 on a CPU")
    parser.add_argument("--compared", type=int, default=0, help="tiles whose labels are compared; 0: 664, or 16")
    parser.add_argument("--rounds", type=int, default=0, help="0: 3, or 1 on a CPU")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    given = parser.parse_args(arguments)
    provider = choose_provider(given.device).provider
    provider = GRAPH_ON_CPU if provider == "cpu" else provider
    rehearsal = provider == GRAPH_ON_CPU
    tiles = tiles_of(given.tiles, given.images or (48 if rehearsal else 10_022))
    few = tiles[: given.compared or (16 if rehearsal else 664)]
    rounds = given.rounds or (1 if rehearsal or given.quick else 3)
    rates, parts = measured(given.models, provider, tiles, rounds, 0.2 if rehearsal else 2.0)
    labels = table.rows(
        ["strategy", "pixels", "labels unlike the CPU's", "ties, CPU", "ties, graph"],
        compared(given.models, provider, few),
    )
    names = ", ".join(path.stem for path in given.models)
    what = f"{len(tiles):,} tiles of {tiles.shape[1]}x{tiles.shape[2]}; {names}; provider {provider}."
    path = table.write(
        "gpu_rehearsal" if rehearsal else "gpu", "An ensemble on a GPU", "python -m benchmarks.bench_gpu", PACKAGES,
        f"Device: {device_name(provider)}.\n\n{what} Medians of {rounds} rounds in turn; strategy `mean-prob`.\n",
        "## Rates\n", rates, "## Time per stage\n", parts, f"## Labels of {len(few)} tiles\n", labels,
    )  # fmt: skip
    print(path.read_text())


if __name__ == "__main__":
    try:
        main()
    except EngineError as error:
        raise SystemExit(f"bench_gpu: {error}") from None
