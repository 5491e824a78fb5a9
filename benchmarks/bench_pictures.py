"""Pictures against arrays: what it costs three nets to read mixed PNGs that are decoded ahead.

``python -m benchmarks.bench_pictures [--images 128] [--rounds 8]`` writes benchmarks/results/pictures.md. The same
pictures lie in a folder and in an .npy; ``engine ensemble`` predicts both in each round, in turn, with three nets of
the zoo. Exits with 1 where the masks differ or the folder takes more than 2 % longer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import rows, write
from benchmarks.zoo_nets import THREE
from engine.runs.image_job import prepare
from engine.runs.image_run import run_job
from engine.runs.options import Options
from engine.samples.scenes import generate
from engine.sources.open import open_source
from engine.sources.reading import Reading
from engine.utils.palette import colours

# How much longer a run over pictures may take.
BAR = 1.02
KINDS = ("grey", "RGB", "palette", "grey with alpha", "RGB with alpha", "grey, turned by EXIF")


def save(path: Path, grey: np.ndarray, kind: str) -> None:
    """Write a picture as one of the kinds of PNG that a folder may mix."""
    picture, exif = Image.fromarray(grey), Image.Exif()
    if kind == "RGB":
        picture = Image.merge("RGB", [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture])
    elif kind == "palette":
        picture = Image.fromarray(grey // 32)
        picture.putpalette([value for colour in colours(8) for value in colour])
    elif kind.endswith("with alpha"):
        picture = picture.convert("LA" if kind.startswith("grey") else "RGBA")
    elif kind.endswith("EXIF"):
        picture, exif[0x0112] = Image.fromarray(np.ascontiguousarray(grey.T[::-1])), 6
    picture.save(path, exif=exif)


def predict(plan: Path, source: Path, output: Path) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a run of ``engine ensemble``, without opening nets and pictures."""
    job = prepare(Options(plan=plan, input=str(source), output=output, overwrite=True))
    began = time.process_time()
    seconds = run_job(job, batch_size=8, workers=0, overwrite=True).seconds
    return seconds, time.process_time() - began


def told(ratios: np.ndarray) -> tuple[str, ...]:
    return tuple(f"{ratio:.3f}" for ratio in ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        images = generate(options.images).images
        for index, image in enumerate(images):
            save(folder / "pictures" / f"{index}.png", image, KINDS[index % len(KINDS)])
        whole = open_source(folder / "pictures", reading=Reading(rgb_as_grey=True))
        np.save(folder / "array.npy", np.concatenate(list(whole.read(64))))
        members = "".join(f'[[members]]\nmodel = "{net}"\n' for net in THREE)
        (folder / "plan.toml").write_text(f'strategy = "mean-prob"\n[input]\nrgb_as_grey = true\n\n{members}', "utf-8")
        sources = {"pictures": folder / "pictures", "array": folder / "array.npy"}
        taken: dict[str, list[tuple[float, float]]] = {key: [] for key in sources}
        predict(folder / "plan.toml", sources["array"], folder / "first.npy")  # compiles
        for turn in range(options.rounds):
            for key in sorted(sources, reverse=bool(turn % 2)):
                taken[key].append(predict(folder / "plan.toml", sources[key], folder / f"{key}.masks.npy"))
        same = np.array_equal(*(np.load(folder / f"{key}.masks.npy") for key in sources))
    ratios = np.array(taken["pictures"]) / np.array(taken["array"])
    lines = [
        (turn + 1, *(f"{value:.2f}" for pair in zip(*both, strict=True) for value in pair), *told(ratio))
        for turn, (both, ratio) in enumerate(
            zip(zip(taken["pictures"], taken["array"], strict=True), ratios, strict=True)
        )
    ]
    middle = np.median(ratios, axis=0)
    lines.append(("median", "", "", "", "", *told(middle)))
    verdict = "the same" if same else "NOT THE SAME"
    note = (
        f"{options.images:,} pictures of 64x128 ({', '.join(KINDS)}, in turn), three nets of the zoo, mean-prob; "
        "seconds of a run of `engine ensemble` and CPU seconds of its process, the two in turn. With all cores busy a "
        f"run is longer by what it takes of the CPU. The masks are {verdict}. Bar for the median ratio: {BAR}.\n"
    )
    header = ("round", "PNGs, s", ".npy, s", "PNGs, CPU s", ".npy, CPU s", "ratio of s", "ratio of CPU s")
    packages = ("numpy", "pillow", "onnxruntime-gpu")
    path = write("pictures", "Pictures", "python -m benchmarks.bench_pictures", packages, note, rows(header, lines))
    print(path.read_text())
    sys.exit(0 if same and middle[1] <= BAR else "slower than the bar, or other masks")


if __name__ == "__main__":
    main()
