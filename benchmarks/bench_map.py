"""A map from a web server to a Cloud Optimized GeoTIFF and to polygons: time, memory, killed and resumed.

``python -m benchmarks.bench_map [--quick]`` writes benchmarks/results/map.md. A GeoTIFF of four uint16 bands with a
slanted border without data is served from this machine by byte ranges, and predicted by three nets of the zoo behind a
layer that takes the mean of the bands. Exits with 1 where the bytes of a resumed run differ, the areas of polygons are
not those of the mask's pixels, pixels without data have a class, or memory grows with the height of the map. Needs onnx
and the extra ``geo``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import rows, write
from benchmarks.zoo_nets import THREE

FORMS = ("mask.tif", "mask.gpkg")
BANDS, PIXEL, BLOCK = 4, 10.0, 256
# Finished rows are stored after so many seconds at the latest: a map is predicted in less than the default.
STORED_AFTER = 2.0
# How much more memory a map of twice the height may take.
GROWTH = 1.1
PACKAGES = ("numpy", "onnxruntime-gpu", "rasterio", "pyogrio", "shapely")


@dataclass(frozen=True)
class Run:
    """One run of ``engine ensemble`` in a process.

    Attributes:
        seconds: from start to end.
        peak: its largest resident memory in bytes.
        code: its exit code.
        writing: seconds inside the writer of the mask; 0 for a killed run.
    """

    seconds: float
    peak: int
    code: int
    writing: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a map of 1024x2048")
    parser.add_argument("--size", help="HEIGHTxWIDTH of the map")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    size = options.size or ("1024x2048" if options.quick else "4096x8192")
    height, width = map(int, size.split("x"))
    with tempfile.TemporaryDirectory() as name:
        sections, fine = measured(Path(name), height, width)
    print(write("map", "A map from a web server", "python -m benchmarks.bench_map", PACKAGES, *sections).read_text())
    sys.exit(0 if fine else "not as promised: see the table")


def measured(folder: Path, height: int, width: int) -> tuple[list[str], bool]:
    """Return the sections of the table, and whether all is as it must be."""
    from tests.helpers.range_server import serving

    for part in ("web", "models", "whole", "cut", "half"):
        (folder / part).mkdir()
    make_map(folder / "web" / "whole.tif", height, width)
    make_map(folder / "web" / "half.tif", height // 2, width)
    for net in THREE:
        save_net(folder / "models" / net.name, net)
    lines, fine, memory = [], True, []
    with serving(folder / "web") as (address, asked):
        for form in FORMS:
            whole = predict(folder, f"{address}/whole.tif", folder / "whole" / form)
            half = predict(folder, f"{address}/half.tif", folder / "half" / form)
            after, same = killed(folder, f"{address}/whole.tif", form, whole.seconds)
            memory.append(whole.peak / half.peak)
            predicting = whole.seconds - whole.writing
            lines.append(
                (f"`{form}`", f"{predicting:.1f}", f"{whole.writing:.1f}", f"{whole.writing / predicting:.3f}",
                 f"{whole.peak / 2**20:,.0f}", f"{half.peak / 2**20:,.0f}", f"{after:.0f} s", "yes" if same else "NO")
            )  # fmt: skip
            fine &= same and memory[-1] <= GROWTH and whole.writing < predicting
        ranged = bool(asked) and all(part.startswith("bytes=") for part in asked)
    facts, right = checked(folder / "whole", folder / "web" / "whole.tif")
    header = (
        "output", "predicting, s", "writing, s", "writing / predicting", "peak memory, MiB", "half the height, MiB",
        "killed after", "identical after --resume",
    )  # fmt: skip
    about = (
        f"A map of {height:,} x {width:,} pixels, {BANDS} bands of uint16, 0 beside two slanted borders; three nets "
        "of the zoo in tiles of 64x128 that overlap by a quarter. Writing is all time inside the writer of the mask, "
        "which makes the polygons too. The map with half the height shows whether memory grows with it.\n"
    )
    facts.append(("the server sent", "byte ranges only" if ranged else "WHOLE FILES"))
    return [about, rows(header, lines), rows(("checked by rasterio and pyogrio", "found"), facts)], bool(
        fine and right and ranged
    )


def make_map(path: Path, height: int, width: int) -> None:
    """Write generated ground as four bands of other gain, and 0 in all bands beside two slanted lines."""
    import rasterio
    from rasterio.windows import Window

    from engine.samples.scenes import generate

    place = rasterio.transform.from_origin(500000, 5000000, PIXEL, PIXEL)
    profile = {"driver": "GTiff", "height": height, "width": width, "count": BANDS, "dtype": "uint16", "nodata": 0}
    profile |= {"crs": "EPSG:32633", "transform": place, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    gains = np.array([180, 220, 250, 257])[:, None, None]
    draw = np.random.default_rng(5)
    with rasterio.open(path, "w", compress="deflate", **profile) as file:
        for start in range(0, height, BLOCK):
            count = min(BLOCK, height - start)
            parts = generate(-(-width // (4 * BLOCK)), seed=start, size=(count, 4 * BLOCK)).images
            ground = np.concatenate(list(parts), axis=1)[None, :, :width]
            block = 1 + ground * gains + draw.integers(0, 20, (BANDS, count, width))
            down, across = np.arange(start, start + count)[:, None], np.arange(width)
            gone = (across < width // 16 + down // 6) | (across > width - width // 5 + down // 6)
            file.write(np.where(gone, 0, block.clip(1, 65535)).astype(np.uint16), window=Window(0, start, width, count))


def save_net(path: Path, source: Path) -> None:
    """Write a net of the zoo behind a layer that takes the mean of the bands."""
    import onnx
    from onnx import helper, numpy_helper

    from engine.models.contract import METADATA_KEY, ModelContract

    model = onnx.load(source)
    held = {item.key: item.value for item in model.metadata_props}
    contract = ModelContract.from_json(held[METADATA_KEY])
    assert (contract.channels, contract.input_layout) == (1, "NCHW")
    port = model.graph.input[0]
    shape = [item.dim_param or item.dim_value for item in port.type.tensor_type.shape.dim]
    mean = numpy_helper.from_array(np.full((1, BANDS, 1, 1), 1 / BANDS, np.float32), "mean of the bands")
    model.graph.initializer.append(mean)
    model.graph.node.insert(0, helper.make_node("Conv", ["bands", mean.name], [port.name]))
    kind = port.type.tensor_type.elem_type
    model.graph.input.remove(port)
    model.graph.input.insert(0, helper.make_tensor_value_info("bands", kind, [shape[0], BANDS, *shape[2:]]))
    stated = replace(contract, channels=BANDS, scale=contract.scale / 227, notes={})
    helper.set_model_props(model, {**held, METADATA_KEY: stated.to_json()})
    onnx.save(model, path)


def predict(folder: Path, source: str, goal: Path, *more: str, kill_after: float | None = None) -> Run:
    """Run the engine in a process, or kill it after some seconds."""
    given = [
        "-m",
        str(folder / "models"),
        "-i",
        source,
        "-o",
        str(goal),
        "--tile",
        "64x128",
        "--overlap",
        "0.25",
        *more,
    ]
    told, said = folder / "writing.json", folder / "said"
    told.unlink(missing_ok=True)
    began = time.perf_counter()
    with said.open("w") as log:
        command = [sys.executable, "-m", "benchmarks.bench_map", "--child", str(told), *given]
        process = subprocess.Popen(command, stderr=log, stdout=log)
        if kill_after is not None:
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        if process.returncode is None:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode, peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
        else:
            peak = 0
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(said.read_text())
    writing = json.loads(told.read_text()) if told.exists() else 0.0
    return Run(time.perf_counter() - began, peak, process.returncode, writing)


def killed(folder: Path, source: str, form: str, whole: float) -> tuple[float, bool]:
    """Kill a run and resume it; return the seconds after which it was killed, and whether the bytes are the same."""
    goal = folder / "cut" / form
    for share in (0.6, 0.4, 0.25):  # how fast it is differs: tried until a run is killed
        run = predict(folder, source, goal, kill_after=share * whole)
        if run.code == -signal.SIGKILL:
            break
        goal.unlink(), goal.with_name(f"{form}.json").unlink()
    else:
        raise SystemExit(f"{form}: every run ended before it was killed: give a larger --size")
    predict(folder, source, goal, "--resume")
    if "resuming after" not in (folder / "said").read_text():
        raise SystemExit(f"{form}: nothing was finished when the run was killed: give a larger --size")
    return run.seconds, goal.read_bytes() == (folder / "whole" / form).read_bytes()


def checked(folder: Path, scene: Path) -> tuple[list[tuple[str, str]], bool]:
    """Compare polygons with pixels, and the border with the map's."""
    import pyogrio.raw
    import rasterio

    with rasterio.open(folder / "mask.tif") as mask, rasterio.open(scene) as source:
        labels, gone = mask.read(1), (source.read() == 0).all(axis=0)
        nodata, layout = int(mask.nodata), mask.tags(ns="IMAGE_STRUCTURE").get("LAYOUT", "no COG")
        smaller = [set(np.unique(mask.read(1, out_shape=(mask.height // by, mask.width // by))).tolist())
                   for by in mask.overviews(1)]  # fmt: skip
    border = bool(((labels == nodata) == gone).all())
    _, _, _, (ids, areas) = pyogrio.raw.read(folder / "mask.gpkg", columns=["class_id", "area"], read_geometry=False)
    pixels = np.bincount(labels.ravel(), minlength=256) * PIXEL**2
    sums = np.bincount(ids, areas, minlength=256)
    present = [value for value in range(1, 256) if value != nodata and pixels[value]]
    alike = bool(present) and bool(np.allclose(sums[present], pixels[present], rtol=1e-12))
    invented = set().union(*smaller) - set(np.unique(labels).tolist())
    facts = [
        ("polygons", f"{len(ids):,} of {sums.sum() / 1e6:,.3f} km2"),
        ("their areas per class are those of the mask's pixels", "yes" if alike else "NO"),
        (f"exactly the pixels without data are {nodata}, the mask's nodata value", "yes" if border else "NO"),
        ("layout of the mask; overviews", f"{layout}; {len(smaller)}"),
        ("classes in overviews that the mask lacks", str(sorted(invented) or "none")),
    ]
    return facts, alike and border and layout == "COG" and not invented


def child(arguments: Sequence[str]) -> None:
    """Run ``engine ensemble`` and write the seconds inside the writer of its mask to the first argument."""
    from engine.cli import main as engine
    from engine.outputs.row_files import RowFile
    from engine.runs.durable import scenes

    scenes.MOST_SECONDS = STORED_AFTER
    spent = [0.0]
    RowFile.write, RowFile.close = (counted(work, spent) for work in (RowFile.write, RowFile.close))
    sys.argv = ["engine", "ensemble", *arguments[1:]]
    try:
        engine()
    finally:
        Path(arguments[0]).write_text(json.dumps(spent[0]))


def counted(work: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """Return a function that adds its seconds to ``spent``."""

    def run(*arguments: Any) -> Any:
        with clock(spent):
            return work(*arguments)

    return run


@contextmanager
def clock(spent: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        spent[0] += time.perf_counter() - began


if __name__ == "__main__":
    main()
