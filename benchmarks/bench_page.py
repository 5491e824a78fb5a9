"""The page of `exporters page` in Chromium beside the command: images/s, and labels that differ.

``python -m benchmarks.bench_page [--images 200] [--rounds 3]`` writes benchmarks/results/page.md. Three nets of the zoo
are packed; the same PNGs go through ``engine ensemble`` (to a folder of PNGs), the packed file in ONNX Runtime, and the
page with one thread and with several, in turn. Needs Chromium with its driver, selenium and npm. Exits with 1 where a
label differs without a tie within float32 rounding.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from benchmarks.table import rows, write
from benchmarks.zoo_nets import THREE
from engine.runs.image_job import prepare
from engine.runs.image_run import run_job
from engine.runs.opened import open_ensemble
from engine.runs.options import Options
from engine.runs.plan import read_plan
from engine.samples.scenes import generate
from exporters.pack import pack
from exporters.page import runtime
from exporters.page.build import make_page
from exporters.self_check import open_session
from tests.helpers.browser import ISOLATED, Site, chromium, serving
from tests.helpers.ties import ties

WARM = 4


def command(plan: Path, pictures: Path, output: Path) -> float:
    """Return images/s of ``engine ensemble``, without opening nets."""
    job = prepare(Options(plan=plan, input=str(pictures), output=output, overwrite=True))
    seconds = run_job(job, batch_size=8, workers=0, overwrite=True).seconds
    return len(list(pictures.iterdir())) / seconds


def alone(packed: Path, images: np.ndarray) -> float:
    """Return images/s of the packed file in ONNX Runtime on one thread, one image at a time, as the page runs it."""
    session = open_session(str(packed))
    planes = images[:, None].astype(np.float32)
    session.run(["labels"], {"images": planes[:1]})
    begun = perf_counter()
    for index in range(len(planes)):
        session.run(["labels"], {"images": planes[index : index + 1]})
    return len(planes) / (perf_counter() - begun)


def in_browser(page: Path, downloads: Path, paths: list[Path], threads: bool) -> tuple[float, dict[str, np.ndarray]]:
    """Return images/s that the page says, from files to masks as PNG, and the masks."""
    with serving(page, ISOLATED if threads else {}) as server, chromium("", downloads) as driver:
        site = Site(driver, server, downloads)
        site.open()
        site.drop(*paths[:WARM])
        told = site.drop(*paths)
        found = re.search(r"WASM: ([\d.]+) a second", told)
        assert found is not None, told
        return float(found[1]), site.masks()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        images = generate(options.images, seed=31).images
        paths = [folder / "pictures" / f"{index:04d}.png" for index in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        plan = folder / "plan.toml"
        members = "".join(f'[[members]]\nmodel = "{net}"\n' for net in THREE)
        plan.write_text(f'strategy = "mean-prob"\n{members}', "utf-8")
        packed = pack(plan, folder / "packed.onnx").path
        make_page(packed, folder / "page")
        ensemble = open_ensemble(read_plan(plan), Options(), None)
        expected = ensemble.predict(images)
        command(plan, folder / "pictures", folder / "masks")  # compiles
        taken: dict[str, list[float]] = {"command": [], "runtime": [], "one": [], "several": []}
        different = 0
        for _ in range(options.rounds):
            taken["command"].append(command(plan, folder / "pictures", folder / "masks"))
            taken["runtime"].append(alone(packed, images))
            for key in ("one", "several"):
                speed, masks = in_browser(folder / "page", folder, paths, key == "several")
                taken[key].append(speed)
                got = np.stack(
                    [masks[f"{path.stem}-2" if index < WARM else path.stem] for index, path in enumerate(paths)]
                )
                different = max(different, ties(ensemble, images, expected, got))
    middle = {key: float(np.median(values)) for key, values in taken.items()}
    names = {
        "command": "`engine ensemble`, a folder of PNGs to another, all cores",
        "runtime": "the packed file in ONNX Runtime, one thread, without pictures",
        "one": "the page, WebAssembly, one thread",
        "several": "the page, WebAssembly, as many threads as cores",
    }
    lines = [
        (
            told,
            *(f"{value:.1f}" for value in taken[key]),
            f"{middle[key]:.1f}",
            f"{middle[key] / middle['command']:.2f}",
        )
        for key, told in names.items()
    ]
    note = (
        f"{options.images} grey tiles of 64x128, {', '.join(net.stem for net in THREE)}, mean-prob; images/s of "
        f"{options.rounds} rounds in turn. The page decodes, predicts, draws and encodes one picture after the other. "
        f"{different} of {images.size:,} pixels got another label in the browser, all of them ties within float32 "
        f"rounding. {runtime.PACKAGE} {runtime.VERSION}.\n"
    )
    header = ("", *(f"round {turn + 1}" for turn in range(options.rounds)), "median", "of the command")
    packages = ("numpy", "pillow", "onnxruntime-gpu")
    path = write(
        "page", "The page in a browser", "python -m benchmarks.bench_page", packages, note, rows(header, lines)
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
