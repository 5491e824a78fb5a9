"""A map from a web server to a Cloud Optimized GeoTIFF and to polygons, killed and resumed to the same bytes.

    python -m benchmarks.reliability.map_from_web
    python -m benchmarks.reliability.map_from_web --size 512x1024 --tile 128x128

Makes a GeoTIFF of four uint16 bands with a slanted border without data, serves it from this machine by byte ranges, and
predicts it with a small net of four channels. Prints a row per form of output; leaves with 1 when the bytes differ, the
areas of the polygons are not those of the mask's pixels, or pixels without data have a class.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from tests.helpers.nets import save_member
from tests.helpers.range_server import serving

FORMS = ("mask.tif", "mask.gpkg")
PIXEL = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="4096x8192", help="HEIGHTxWIDTH of the map")
    parser.add_argument("--tile", default="512x512")
    options = parser.parse_args(arguments)
    height, width = map(int, options.size.split("x"))
    fine = True
    print(
        "| output | seconds | killed after | identical after --resume | peak memory |\n| --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "web").mkdir()
        make_scene(folder / "web" / "scene.tif", height, width)
        save_member(folder / "net.onnx", channels=4)
        with serving(folder / "web") as (address, _):
            for form in FORMS:
                goals = [folder / part / form for part in ("whole", "cut")]
                for goal in goals:
                    goal.parent.mkdir(exist_ok=True)
                run = ["-m", str(folder / "net.onnx"), "-i", f"{address}/scene.tif", "--tile", options.tile]
                took, peak, _ = predict(run, goals[0])
                killed_after = 0.0
                for share in (0.7, 0.5, 0.3, 0.2):  # how fast it is differs: tried until a run is killed
                    killed_after, _, code = predict(run, goals[1], kill_after=share * took)
                    if code == -signal.SIGKILL:
                        break
                    for path in goals[1].parent.iterdir():
                        path.unlink()
                else:
                    raise SystemExit(f"{form}: every run ended before it was killed: give a larger --size")
                predict([*run, "--resume"], goals[1])
                same = goals[0].read_bytes() == goals[1].read_bytes()
                fine &= same
                told = f"{killed_after:.1f} s | {'yes' if same else 'NO'} | {peak / 2**20:,.0f} MiB"
                print(f"| {form} | {took:.1f} | {told} |", flush=True)
        fine &= check(folder / "whole", folder / "web" / "scene.tif")
    return int(not fine)


def make_scene(path: Path, height: int, width: int) -> None:
    """Write patches with noise, and 0 in all bands left of a slanted line."""
    draw = np.random.default_rng(5)
    place = rasterio.transform.from_origin(500000, 5000000, PIXEL, PIXEL)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 4, "dtype": "uint16", "nodata": 0}
    profile |= {"crs": "EPSG:32633", "transform": place, "tiled": True, "blockxsize": 256, "blockysize": 256}
    patches = draw.integers(2000, 60000, (4, height // 32 + 1, width // 32 + 1))
    with rasterio.open(path, "w", **profile) as file:
        for start in range(0, height, 256):
            stop = min(height, start + 256)
            rows, columns = np.arange(start, stop), np.arange(width)
            block = patches[:, rows[:, None] // 32, columns[None] // 32]
            block = block + draw.integers(0, 200, block.shape)
            block[:, columns[None] < width // 8 + rows[:, None] // 6] = 0
            file.write(block.astype(np.uint16), window=Window(0, start, width, stop - start))


def predict(run: Sequence[str], goal: Path, kill_after: float | None = None) -> tuple[float, int, int]:
    """Run the engine in a process; return seconds, its peak memory in bytes, and its exit code."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "engine.cli", "ensemble", *run, "-o", str(goal)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    if kill_after is not None:
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    said = process.stderr.read() if process.stderr is not None else ""
    _, status, usage = os.wait4(process.pid, 0) if process.returncode is None else (0, 0, None)
    code = process.returncode if process.returncode is not None else os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(said)
    return time.perf_counter() - began, usage.ru_maxrss * 1024 if usage is not None else 0, code


def check(folder: Path, scene: Path) -> bool:
    """Compare polygons with pixels, and the border with the scene's."""
    import pyogrio.raw

    with rasterio.open(folder / "mask.tif") as mask, rasterio.open(scene) as source:
        labels, gone = mask.read(1), source.read(1) == 0
        nodata, overviews = mask.nodata, mask.overviews(1)
    border = bool(((labels == nodata) == gone).all())
    _, _, _, (ids, areas) = pyogrio.raw.read(folder / "mask.gpkg", columns=["class_id", "area"], read_geometry=False)
    sums = np.bincount(ids, areas, minlength=256)
    pixels = np.bincount(labels.ravel(), minlength=256) * PIXEL**2
    alike = bool(np.allclose(sums[1 : int(nodata)], pixels[1 : int(nodata)])) if nodata else False
    print(
        f"{len(ids):,} polygons; areas are the pixels': {alike}; no class without data: {border}; overviews {overviews}"
    )
    return alike and border


if __name__ == "__main__":
    sys.exit(main())
