"""Peak memory of `engine ensemble` on a thousand images and on ten thousand: it must not grow with their number.

``python -m benchmarks.bench_memory [--nets A.onnx B.onnx] [--quick]`` writes benchmarks/results/memory.md. Each row is
a process of its own on generated scenes, repeated, in an .npy file; its peak is what the system reports of it
(ru_maxrss).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.bench_pipeline import installed_ways
from benchmarks.bench_scene_memory import peak_of
from benchmarks.table import rows, write
from benchmarks.zoo_nets import FOUR
from engine.utils.memory import in_words

FEW, MANY, SCENES = 1_000, 10_022, 64
# Most growth of the peak that the project allows itself.
BAR = 1.05


def save_images(path: Path, count: int) -> None:
    """Write uint8 (count, 64, 128) tiles: scenes, repeated."""
    from engine.samples.scenes import generate

    scenes = generate(SCENES).images.reshape(SCENES, 64, 128)
    held = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 64, 128))
    for start in range(0, count, SCENES):
        held[start : start + SCENES] = scenes[: count - start]
    held.flush()


def peak(nets: list[Path], images: Path, way: tuple[str, ...]) -> int:
    """Return the peak memory of a run in bytes."""
    output = images.with_suffix(".csv")
    given = [part for net in nets for part in ("-m", str(net))]
    found = peak_of([*given, "-i", str(images), "-o", str(output), *way, "--provider", "cpu", "--overwrite"])
    output.unlink()
    return found


def main() -> None:
    """Measure every way and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", type=Path, default=FOUR, help="files instead of four nets of the zoo")
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    options = parser.parse_args()
    nets = [net.resolve() for net in options.nets]
    few, many = (count // 10 if options.quick else count for count in (FEW, MANY))
    found = []
    with tempfile.TemporaryDirectory() as name:
        small, large = Path(name) / "few.npy", Path(name) / "many.npy"
        save_images(small, few)
        save_images(large, many)
        for way, arguments in installed_ways().items():
            less, more = peak(nets, small, arguments), peak(nets, large, arguments)
            mark = f", above the bar of {BAR}" if more > BAR * less else ""
            found.append((way, in_words(less), in_words(more), f"{more / less:.2f}{mark}"))
            print(*found[-1], sep=" | ", flush=True)
    header = ["way", f"peak, {few:,} images", f"peak, {many:,} images", "ratio"]
    told = f"{', '.join(net.stem for net in nets)}; tiles of 64x128 out of an .npy file, masks into a submission.\n"
    packages = ("numpy", "numba", "onnxruntime-gpu", "openvino")
    print(
        write(
            "memory", "Peak memory by images", "python -m benchmarks.bench_memory", packages, told, rows(header, found)
        )
    )


if __name__ == "__main__":
    main()
