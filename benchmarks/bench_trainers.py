"""How fast each architecture trains: images/s of a training epoch for every preset, and the number of parameters.

    python -m benchmarks.bench_trainers            # all of it: writes benchmarks/results/trainers.md
    python -m benchmarks.bench_trainers --quick    # one timed epoch of the tiny presets, printed only
    python -m benchmarks.bench_trainers --against --data tiles.npz --groups groups.npz --only pan
                                                   # this tree beside an older commit: results/trainers_against.md
    python -m benchmarks.bench_trainers --against --scores --data tiles.npz --groups groups.npz --only pan
                                                   # and the validation scores of three seeds of ten epochs

A step is what `trainers fit` does: augmented tiles of 64x128, batch 16, AdamW, cross-entropy on the pixels that count.
Tiles are generated; their content does not change the time.

`--against REV` runs whole commands `trainers fit` of both trees in alternating rounds, each with a seed of its own.
Where others use the machine, compare the processor seconds: images/s are those of a machine with nothing else to do.
`--options` adds a line: this tree with further options of `fit`, such as `--options="--precision mixed_bfloat16"`.
"""

from __future__ import annotations

import argparse
import gc
import os
import shlex
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.older import BASELINE, ROOT, checkout
from benchmarks.table import rows, write
from benchmarks.trainers_against import (
    SCORE_EPOCHS,
    SCORE_SEEDS,
    Subject,
    alternating,
    score_rows,
    speed_rows,
)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIZE, CLASSES, BATCH = (64, 128), 5, 16
#: Steps of a timed epoch: the smaller the network, the more there must be before the start of an epoch stops to show.
STEPS = {"tiny": 2, "small": 16, "base": 6, "large": 3}


def measure(arch: str, preset: str, epochs: int) -> tuple[int, float]:
    """Return the parameters, and the median images/s over epochs of a few steps after a first, traced one."""
    import keras
    import numpy as np

    from trainers.batches import Batches
    from trainers.compiled import epoch_of
    from trainers.config import FitConfig
    from trainers.data import Dataset
    from trainers.learner import make_learner
    from trainers.losses.base import Target
    from trainers.models import ARCHITECTURES

    rng = np.random.default_rng(0)
    count = BATCH * STEPS[preset]
    images = rng.integers(0, 256, (count, *SIZE, 1), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, (count, *SIZE), dtype=np.uint8)
    data = Dataset(images, labels, None, tuple(f"class {k}" for k in range(CLASSES)), np.arange(count))
    class_id = 1 if ARCHITECTURES[arch].specialist else None
    config = FitConfig(arch=arch, data="none", out="none.keras", preset=preset, batch_size=BATCH, class_id=class_id)
    learner = make_learner(config, (*SIZE, 1), Target(CLASSES, 0, class_id), steps=STEPS[preset])
    run = epoch_of(learner.trained)
    speeds = []
    for epoch in range(1 + epochs):
        batches = Batches(data, config, epoch)
        began = time.perf_counter()
        run(batches, ())
        speeds.append(count / (time.perf_counter() - began))
    parameters = int(learner.model.count_params())
    keras.utils.clear_session()
    gc.collect()
    return parameters, statistics.median(speeds[1:])


def report(lines: list[tuple[str, str, int, float]]) -> Path:
    import keras

    told = (
        f"Images/s of a training epoch: tiles of {SIZE[0]}x{SIZE[1]}, batch {BATCH}, augmentation included; median of\n"
        f"the epochs after the first, which traces the graph. Backend: {keras.backend.backend()}.\n"
    )
    cells = [(arch, preset, f"{parameters:,}", f"{speed:.1f}") for arch, preset, parameters, speed in lines]
    table = rows(["architecture", "preset", "parameters", "images/s"], cells)
    packages = ["keras", "tensorflow"]
    return write("trainers", "Training speed", "python -m benchmarks.bench_trainers", packages, told, table)


def compare(given: argparse.Namespace, wanted: list[str], preset: str) -> None:
    """Measure this tree beside an older commit, and write the page unless the run is a quick one."""
    speeds, scores = [], []
    with checkout(given.against) as older, tempfile.TemporaryDirectory() as folder:
        data = given.data or generated(Path(folder), 48 if given.quick else 600)
        common = ["--preset", preset, "--data", str(Path(data).absolute()), "--patience", "0"]
        common += ["--groups", str(Path(given.groups).absolute())] if given.groups else []
        subjects = [Subject(given.against, older), Subject("this tree", ROOT)]
        if given.options:
            subjects.append(Subject(f"this tree, `{given.options}`", ROOT, tuple(shlex.split(given.options))))
        special = {arch: ["--class-id", "1"] if arch == "one_class" else [] for arch in wanted}
        for arch in wanted:
            short = [*common, "--epochs", str(given.epochs), *special[arch]]
            speeds += speed_rows(arch, alternating(subjects, arch, short, given.rounds))
        for arch in wanted if given.scores else ():
            long = [*common, "--epochs", str(SCORE_EPOCHS), *special[arch]]
            scores += score_rows(arch, alternating(subjects, arch, long, len(SCORE_SEEDS)))
    told = (
        f"`trainers fit ARCHITECTURE --preset {preset}` of this tree beside commit {given.against}: whole commands of\n"
        f"{given.epochs} epochs on all tiles, {given.rounds} alternating rounds, medians; images/s are of an epoch\n"
        "after the first. Processor seconds are of the whole command, with start, validation and records; ratios\n"
        f"above 1 say that a line is faster than {given.against}.\n"
    )
    head = ["architecture", "tree", "images/s", "ratio", "processor s", "ratio", "MiB"]
    sections = [told, rows(head, speeds)]
    if scores:
        seeds = f"seeds {', '.join(map(str, SCORE_SEEDS))}"
        sections += [
            f"Validation scores (ignored class suppressed), best of {SCORE_EPOCHS} epochs on all tiles, {seeds}.\n",
            rows(["architecture", "tree", "scores", "mean", "difference"], scores),
        ]
    if given.quick:
        print("\n".join(sections))
        return
    command = f"python -m benchmarks.bench_trainers --against {given.against}"
    print(
        write("trainers_against", "Training speed beside an older commit", command, ["keras", "tensorflow"], *sections)
    )


def generated(folder: Path, count: int) -> Path:
    """Write tiles of noise with every class in each of them; their content does not change the time."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *SIZE), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, (count, *SIZE), dtype=np.uint8)
    np.savez(folder / "tiles.npz", images=images, labels=labels)
    return folder / "tiles.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny presets, one timed epoch, nothing written")
    parser.add_argument("--epochs", type=int, default=3, help="timed epochs")
    parser.add_argument("--only", default="", help="architectures, separated by commas; all by default")
    parser.add_argument("--against", nargs="?", const=BASELINE, help=f"a commit to compare with; {BASELINE} if bare")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds against the commit")
    parser.add_argument("--data", default="", help="training file (npz) for --against; generated tiles by default")
    parser.add_argument("--groups", default="", help="groups of its tiles")
    parser.add_argument("--scores", action="store_true", help="compare validation scores as well; needs --data")
    parser.add_argument("--options", default="", help="one more line: this tree with these options of `fit`")
    options = parser.parse_args()
    if options.scores and not (options.against and options.data):
        parser.error("--scores: the scores of generated tiles say nothing; give --against and --data")
    from trainers.names import ARCHITECTURES as NAMES

    unknown = sorted(set(filter(None, options.only.split(","))) - set(NAMES))
    if unknown:
        parser.error(f"--only: {', '.join(unknown)} unknown; give some of {', '.join(NAMES)}")
    if options.against:
        wanted = options.only.split(",") if options.only else list(NAMES)
        compare(options, wanted, "tiny" if options.quick else "small")
        return
    from trainers.models import ARCHITECTURES

    presets = ("tiny",) if options.quick else ("small", "base", "large")
    wanted = options.only.split(",") if options.only else list(ARCHITECTURES)
    rows_measured = []
    for arch in wanted:
        for preset in presets:
            rows_measured.append((arch, preset, *measure(arch, preset, 1 if options.quick else options.epochs)))
            print(
                f"{arch} {preset}: {rows_measured[-1][2]:,} parameters, {rows_measured[-1][3]:.1f} images/s", flush=True
            )
    if options.quick or options.only:
        return
    print(report(rows_measured))


if __name__ == "__main__":
    main()
