"""Train, export and score every system of the report on the task's own file, and write the table.

    python -m benchmarks.findings --data mars_for_students.npz --groups train_groups.npz --unlabelled unlabelled.npz \\
        --runs runs/ --zoo zoo/ --submission submission.csv

One resumable command: a finished network is never retrained, an unfinished one continues after its last epoch, and
`--only NAME` takes single ones. Validation is by panorama, the same fold for all; the members of the final ensemble are
a network per fold, so that they are selected and scored on all panoramas; a student learns from them. Needs the extras
train and export. About five to twenty minutes per network on two cores in the preset `small`; `--quick` trains tiny
networks for one epoch on a few panoramas, to check that everything runs.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.findings.out_of_fold import write_teacher
from benchmarks.findings.place import Place
from benchmarks.findings.systems import FIRST, FOLDS, LABELLED, MIX, SOFT, STUDENT, SYSTEMS, System

COMMON = "--learning-rate 0.002 --ema 0.99"
# Epochs without a better score before a training stops; what is trained by folds runs all of its.
PATIENCE = 15
# Of a quick run.
QUICK_PANORAMAS = 8
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
    if system.first:
        write_soft_targets(place)
    words = [fill(word, place, system) for word in shlex.split(system.arguments)]
    several = len(place.networks(system)) > 1
    out = place.runs / system.name if several else place.networks(system)[0]
    if system.needs:
        words += ["--from", str(place.runs / f"{system.needs}.keras")]
    shared = [*shlex.split(COMMON), "--folds", FOLDS, "--data", place.data]
    shared += ["--patience", 0] if system.folded else ["--fold", 0, "--patience", PATIENCE]
    shared += [] if place.groups is None else ["--groups", place.groups]
    shared += (
        ["--preset", "tiny", "--epochs", 1] if place.quick else [*("--preset", place.preset, "--epochs", system.epochs)]
    )
    shared += [] if system.folded else ["--precision", place.precision]
    checkpoint = list(place.runs.glob(f"{system.name}.checkpoint*"))
    # What a system says of itself counts: it comes last.
    more = ["--resume"] if checkpoint and not several else []
    call("trainers", words[0], *shared, *words[1:], *more, "--out", out)


def trained(place: Place, system: System) -> bool:
    """Return whether all networks of a system exist."""
    return all(path.exists() for path in place.networks(system))


def write_soft_targets(place: Place) -> None:
    """Let those that teach say what they see: on images without labels of each fold by itself, on tiles out of fold."""
    from trainers.soft_targets import images_of
    from trainers.soft_targets import write_soft_targets as write

    teacher = write_teacher(place, [system for system in SYSTEMS if system.teaches])
    more = f"{place.original}:test_set" if place.unlabelled is None else str(place.unlabelled)
    for fold in range(FOLDS):
        asked = ("--soft", "--fold", fold, "--plan", teacher, "--images", more)
        call("trainers", "pseudo-label", *asked, "--out", place.soft(fold))
    write(teacher, images_of(place.data), place.soft_labelled, labelled=True)


def fill(word: str, place: Place, system: System) -> str:
    """Replace a name in braces with what was found on the way."""
    if word == MIX:
        return best_mix(place)
    if word == FIRST:
        first = next(one for one in SYSTEMS if one.name == system.first)
        return str(place.networks(first)[0]).replace("-fold0", "-fold{fold}")
    return {SOFT: str(place.soft("{fold}")), LABELLED: str(place.soft_labelled)}.get(word, word)


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


def export(place: Place, system: System) -> None:
    """Write the ONNX file of a trained system, unless it exists and is up to date."""
    files = [(source, target) for source, target in zip(place.networks(system), place.onnx_files(system), strict=False)]
    for source, target in files:
        if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
            continue
        target.parent.mkdir(exist_ok=True)
        out = ("--tiles", place.validation, "--out", target, "--overwrite")
        if system.is_set:
            call("exporters", "specialists", *place.networks(system), *out)
        else:
            call("exporters", "onnx", source, *out)


def clean(data: Path, runs: Path, groups: Path | None, quick: bool) -> Path:
    """Return the training tiles without outliers; for a quick run those of a few panoramas."""
    out = runs / "cleaned.npz"
    if not out.exists():
        call("trainers", "clean", "--data", data, "--out", out)
        if quick:
            _few(out, groups)
    return out


def _few(path: Path, groups: Path | None) -> None:
    from trainers.data import load

    found = load(path, groups).groups
    kept = np.arange(60) if found is None else np.flatnonzero(found < np.unique(found)[QUICK_PANORAMAS])
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key][kept] if key in ("training_set", "kept") else file[key] for key in file.files}
    np.savez_compressed(path, **arrays)


def main() -> None:
    """Train what is requested, then score everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="mars_for_students.npz")
    parser.add_argument("--groups", type=Path, help="panorama of each training tile (npz); default: a random split")
    parser.add_argument(
        "--unlabelled", type=Path, help="images without labels for the student (npz); default: the test images"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for networks and results")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="train only this one; repeatable")
    parser.add_argument("--no-training", action="store_true", help="score and tabulate the existing networks")
    parser.add_argument("--preset", default="small", help="size of the networks")
    parser.add_argument(
        "--precision",
        default="float32",
        help="mixed_bfloat16 trains the report's systems with it, where a CPU has it",
    )
    parser.add_argument("--zoo", type=Path, help="put the final ensemble into this folder, with its plan and student")
    parser.add_argument("--submission", type=Path, help="also predict the test images of --data with it (.csv)")
    parser.add_argument("--quick", action="store_true", help="tiny networks, to check that everything runs")
    given = parser.parse_args()
    known = {system.name: system for system in SYSTEMS}
    unknown = [name for name in given.only if name not in known]
    if unknown:
        parser.error(f"--only {unknown[0]}: choose from {', '.join(known)}")
    given.runs.mkdir(parents=True, exist_ok=True)
    cleaned = clean(given.data, given.runs, given.groups, given.quick)
    place = Place(
        given.runs, cleaned, given.groups, given.unlabelled, given.data, given.quick, given.preset, given.precision
    )
    for system in known.values():
        if not given.no_training and (not given.only or system.name in given.only):
            if system.needs and not trained(place, known[system.needs]):
                train(place, known[system.needs])
            train(place, system)
        if trained(place, system):
            export(place, system)
    finish(place, list(known.values()), given)


def finish(place: Place, systems: Sequence[System], given: argparse.Namespace) -> None:
    """Select, score, and on request build the final ensemble, its student and a submission."""
    from benchmarks.findings.out_of_fold import select_members
    from benchmarks.findings.scores import write_results
    from benchmarks.findings.zoo import build_zoo, submit

    exported = [system for system in systems if all(path.exists() for path in place.onnx_files(system))]
    members = [system for system in exported if system.member]
    found = select_members(place, members) if len(members) > 1 else {}
    write_results(place, exported, found)
    if given.zoo is None or not found:
        return
    students = [system for system in exported if system.name == STUDENT]
    plan = build_zoo(place, members, students, found, given.zoo)
    if given.submission is not None:
        submit(plan, given.data, given.submission)


if __name__ == "__main__":
    main()
