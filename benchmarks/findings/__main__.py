"""Train, export and score every system of the report on the task's own file, and write the table.

    python -m benchmarks.findings --data mars_for_students.npz --groups train_groups.npz --runs runs/ \\
        --zoo zoo/ --refit --submission submission.csv

One resumable command: a finished network is never retrained, an unfinished one continues after its last epoch, and
`--only NAME` takes single ones. Validation is by panorama, the same fold for all; pseudo-labels are of images that are
in no fold. Needs the extras train, export and cleanup. About five to fifteen minutes per network on two cores in the
preset `small`; `--quick` trains tiny networks for one epoch on a few tiles, to check that everything runs.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.findings.place import Place
from benchmarks.findings.systems import MIX, PSEUDO, STUDENTS, SYSTEMS, System

COMMON = "--learning-rate 0.002 --ema 0.99 --patience 0 --fold 0"
# One candidate costs at most three folds of this; the first three are the losses alone.
SEARCH = "--preset tiny --epochs 3 --folds 3 --trials 5 --threshold 0.1 --max-tiles 400"


def call(module: str, *arguments: object) -> None:
    """Run one of the command lines; exit with a message if it fails."""
    words = [str(argument) for argument in arguments]
    print("$", module, shlex.join(words), flush=True)
    done = subprocess.run([sys.executable, "-m", f"{module}.cli", *words])
    if done.returncode:
        sys.exit(f"{module} {words[0]} failed with exit code {done.returncode}")


def train(place: Place, system: System) -> None:
    """Train one system, unless its network exists."""
    if trained(place, system):
        return
    words = [fill(word, place) for word in shlex.split(system.arguments)]
    out = place.runs / system.name if system.is_set else place.network(system)
    if system.needs:
        words += ["--from", str(place.runs / f"{system.needs}.keras")]
    shared = [*shlex.split(COMMON), "--data", place.data]
    shared += [] if place.groups is None else ["--groups", place.groups]
    shared += (
        ["--preset", "tiny", "--epochs", 1, "--max-tiles", 60]
        if place.quick
        else [*("--preset", place.preset, "--epochs", system.epochs)]
    )
    checkpoint = list(place.runs.glob(f"{system.name}.checkpoint*"))
    call("trainers", *words, *shared, *(["--resume"] if checkpoint and not system.is_set else []), "--out", out)


def trained(place: Place, system: System) -> bool:
    """Return whether all networks of a system exist."""
    if not system.is_set:
        return place.network(system).exists()
    folder = place.runs / system.name
    return len(list(folder.glob("k*.keras"))) == 5


def fill(word: str, place: Place) -> str:
    """Replace a name in braces with what was found on the way."""
    if word == MIX:
        return best_mix(place)
    if word == PSEUDO:
        return str(pseudo_labels(place))
    return word


def best_mix(place: Place) -> str:
    """Return the mix of losses that cross-validation finds on the tiles outside the shared fold."""
    import csv

    folder = place.runs / "study"
    table = folder / "candidates.csv"
    rest = place.runs / "rest.npz"
    if not (folder / "done").exists():
        from trainers.data import load

        tiles = load(place.data, place.groups)
        kept = ~np.isin(tiles.index, np.load(place.validation)["index"])
        panoramas = {} if tiles.groups is None else {"groups": tiles.groups[kept]}
        np.savez_compressed(rest, images=tiles.images[kept][..., 0], labels=tiles.labels[kept], **panoramas)
        search = (
            SEARCH.replace("--trials 5", "--trials 3").replace("--epochs 3", "--epochs 1") if place.quick else SEARCH
        )
        call(
            *("trainers", "cross-validate", "unet_plus_plus", "--data", rest),
            *("--augment", "flips", "--keep-background", "--learning-rate", 0.002, *shlex.split(search)),
            *("--out", folder),
        )
        (folder / "done").touch()
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return max(rows, key=lambda row: float(row["mean"] or 0))["loss"]


def pseudo_labels(place: Place) -> Path:
    """Return the unlabelled tiles with the fused members' labels where these are confident."""
    out = place.runs / "pseudo.npz"
    if not out.exists():
        unlabelled = place.runs / "unlabelled.npz"
        images = []
        for path in place.images:
            with np.load(path) as file:
                images.append(file["test_set"] if "test_set" in file.files else file[file.files[0]])
        np.savez_compressed(unlabelled, images=np.concatenate(images))
        models = [word for system in members(place) for word in ("--models", str(place.onnx(system)))]
        call("trainers", "pseudo-label", *models, "--images", unlabelled, "--confidence", 0.7, "--out", out)
    return out


def members(place: Place) -> list[System]:
    """Return the exported members that saw no pseudo-labels."""
    return [system for system in SYSTEMS if system.member and place.onnx(system).exists()]


def export(place: Place, system: System) -> None:
    """Write the ONNX file of a trained system, unless it exists and is up to date."""
    source, target = place.network(system), place.onnx(system)
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return
    if system.is_set:
        nets = sorted((place.runs / system.name).glob("k*.keras"))
        call("exporters", "specialists", *nets, "--tiles", place.validation, "--out", target, "--overwrite")
    else:
        call("exporters", "onnx", source, "--tiles", place.validation, "--out", target, "--overwrite")


def clean(data: Path, runs: Path) -> Path:
    """Return the training tiles without outliers, as an npz of images, labels and index."""
    out = runs / "cleaned.npz"
    if not out.exists():
        call("trainers", "clean", "--data", data, "--out", out)
    return out


def main() -> None:
    """Train what is requested, then score everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="mars_for_students.npz")
    parser.add_argument("--groups", type=Path, help="panorama of each training tile (npz); default: a random split")
    parser.add_argument("--unlabelled", type=Path, help="more unlabelled images (npz)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for networks and results")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="train only this one; repeatable")
    parser.add_argument("--no-training", action="store_true", help="score and tabulate the existing networks")
    parser.add_argument("--preset", default="small", help="size of the networks")
    parser.add_argument("--zoo", type=Path, help="select the final ensemble into this folder, with its plan")
    parser.add_argument("--refit", action="store_true", help="also train the selected networks on every tile")
    parser.add_argument("--submission", type=Path, help="also predict the test images of --data with it (.csv)")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to check that everything runs")
    given = parser.parse_args()
    known = {system.name: system for system in (*SYSTEMS, *STUDENTS)}
    unknown = [name for name in given.only if name not in known]
    if unknown:
        parser.error(f"--only {unknown[0]}: choose from {', '.join(known)}")
    given.runs.mkdir(parents=True, exist_ok=True)
    images = [given.data, *([given.unlabelled] if given.unlabelled else [])]
    place = Place(given.runs, clean(given.data, given.runs), given.groups, images, given.quick, given.preset)
    for system in known.values():
        if not given.no_training and (not given.only or system.name in given.only):
            if system.needs and not trained(place, known[system.needs]):
                train(place, known[system.needs])
            train(place, system)
        if trained(place, system):
            export(place, system)
    finish(place, list(known.values()), given)


def finish(place: Place, systems: Sequence[System], given: argparse.Namespace) -> None:
    """Select, score, and on request build the final ensemble and a submission."""
    from benchmarks.findings.scores import write_results
    from benchmarks.findings.zoo import build_zoo, chosen, refitted, submit

    exported = [system for system in systems if place.onnx(system).exists()]
    pool, selections = write_results(place, exported)
    if given.zoo is None or not selections:
        return
    for twin in filter(None, map(refitted, chosen(place, pool, selections))):
        if given.refit and not given.no_training:
            train(place, twin)
        if trained(place, twin):
            export(place, twin)
    plan = build_zoo(place, pool, selections, given.zoo)
    if given.submission is not None:
        submit(plan, given.data, given.submission)


if __name__ == "__main__":
    main()
