"""Peak memory of scenes against the formula of docs/formats.md.

``python -m benchmarks.bench_scene_memory [--quick]`` writes benchmarks/results/scene_memory.md. Each row is a process
of its own, `engine ensemble --tile`; its peak is what the system reports of it (ru_maxrss). The program and its nets
alone are the same command on a scene of one tile. The nets are small: what is measured are scenes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.table import rows, write
from engine.inference.tiles.grid import Tiling
from engine.inference.tiles.memory import SceneNeeds
from engine.models.contract import METADATA_KEY, ModelContract
from engine.utils.memory import in_words

ROOT = Path(__file__).parents[1]
CLASSES = ("background", "soil", "bedrock", "sand", "rock")
# What GDAL keeps of decoded blocks is beside the formula (docs/formats.md).
BAR = 1.2


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        size: (height, width) of the scene.
        tile: side of a tile.
        members: nets.
        form: suffix of the scene.
        overlap: share of a tile.
        workers: threads.
        channels: of the scene.
    """

    size: tuple[int, int]
    tile: int
    members: int = 1
    form: str = ".npy"
    overlap: float = 0.0
    workers: int = 2
    channels: int = 1


CASES = (
    Case((16384, 16384), 512),
    Case((1024, 16384), 512, overlap=0.5),
    Case((1024, 16384), 512, members=6),
    Case((1024, 65536), 256, members=3),
    Case((2048, 16384), 1024, members=3),
    Case((2048, 16384), 512, form=".tif", channels=3),
    Case((4096, 8192), 512, form=".png"),
    Case((1024, 16384), 512, workers=8),
)


def save_net(path: Path, seed: int, channels: int) -> None:
    """Write a net of one convolution over 3x3 pixels that takes any size."""
    draw = np.random.default_rng(seed)
    weights = draw.normal(size=(len(CLASSES), channels, 3, 3)).astype(np.float32)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, "H", "W"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", len(CLASSES), "H", "W"])
    node = helper.make_node("Conv", ["image", "weights"], ["out"], pads=[1, 1, 1, 1])
    graph = helper.make_graph([node], "net", [image], [out], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    contract = ModelContract(CLASSES, channels=channels, input_layout="NCHW", output_layout="NCHW", scale=1 / 255)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)


def save_scene(path: Path, size: tuple[int, int], channels: int) -> None:
    """Write a scene whose pixels are cheap to make and not all alike."""
    shape = (*size, channels) if channels > 1 else size
    # In little memory: the system counts what a process has at most into the peak of the processes that it starts.
    count = int(np.prod(shape))
    pixels = np.tile(np.arange(251, dtype=np.uint8), count // 251 + 1)[:count].reshape(shape)
    if path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".png":
        from PIL import Image

        Image.fromarray(pixels).save(path, compress_level=1)
    else:
        import rasterio

        layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "interleave": "pixel"}
        place = rasterio.Affine(1, 0, 0, 0, -1, 0)
        size_of = {"height": size[0], "width": size[1], "count": channels, "dtype": "uint8"}
        with rasterio.open(path, "w", driver="GTiff", crs="EPSG:3857", transform=place, **size_of, **layout) as file:
            file.write(np.moveaxis(pixels.reshape(*size, channels), 2, 0))


def peak(case: Case, size: tuple[int, int], folder: Path) -> int:
    """Return the peak memory of a run over a scene of a size, in bytes."""
    scene, output = folder / f"scene{case.form}", folder / f"mask{'.tif' if case.form == '.tif' else '.npy'}"
    save_scene(scene, size, case.channels)
    layout = ["--image-layout", "HWC"] if case.form == ".npy" and case.channels > 1 else []
    arguments = ["-m", str(folder / "nets"), "-i", str(scene), "-o", str(output), "--overwrite"]
    arguments += ["--tile", f"{case.tile}x{case.tile}", "--overlap", str(case.overlap)]
    return peak_of([*arguments, "--workers", str(case.workers), "--provider", "cpu", *layout])


def peak_of(arguments: Sequence[str]) -> int:
    """Return the peak memory of `engine ensemble` with these arguments, in bytes.

    Raises:
        SystemExit: it fails.
    """
    command = [sys.executable, "-m", "engine.cli", "ensemble", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: {told}")
    return usage.ru_maxrss * 1024


def measured(case: Case) -> tuple[object, ...]:
    """Return the row of one run."""
    needs = SceneNeeds(
        Tiling((case.tile, case.tile), case.overlap), case.members, len(CLASSES), case.channels, 1, [case.size]
    )
    if case.form == ".png":
        needs = SceneNeeds(**{**vars(needs), "whole": True})
    batch = needs.fitting_batch(16, case.workers)
    formula = needs.bytes(batch, case.workers)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "nets").mkdir()
        for seed in range(case.members):
            save_net(folder / "nets" / f"{seed}.onnx", seed, case.channels)
        alone = peak(case, (case.tile, case.tile), folder)
        whole = peak(case, case.size, folder)
    stated = alone + formula
    told = f"{case.size[0]}x{case.size[1]}, {case.channels} channel{'s' * (case.channels > 1)}, {case.form}"
    setting = (told, case.members, case.tile, f"{case.overlap:g}", case.workers, batch)
    return (*setting, in_words(alone), in_words(formula), in_words(whole), f"{whole / stated:.2f}")


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the large scene")
    options = parser.parse_args()
    cases = CASES[1:] if options.quick else CASES
    found = []
    for case in cases:
        found.append(measured(case))
        print(*found[-1], sep=" | ", flush=True)
    header = ["scene", "nets", "tile", "overlap", "workers", "tiles a batch", "program and nets", "formula", "peak"]
    worst = max(float(str(row[-1])) for row in found)
    note = (
        f"The peak is at most {worst:.2f} times what is stated (program and nets, and the formula of "
        f"[docs/formats.md](../../docs/formats.md#memory-of-a-scene)); the bar is {BAR}.\n"
    )
    write(
        "scene_memory",
        "Peak memory of scenes",
        "python -m benchmarks.bench_scene_memory",
        ("numpy", "onnxruntime-gpu", "rasterio"),
        note,
        rows([*header, "peak / stated"], found),
    )
    if worst > BAR:
        raise SystemExit(f"a peak is {worst:.2f} times what is stated: at most {BAR}")


if __name__ == "__main__":
    main()
