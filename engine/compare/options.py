"""The options of ``engine compare``, and the checks before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.errors import OutputError, PlanError
from engine.inference.ensemble import BATCH_SIZE, Ensemble
from engine.metrics import CONVENTIONS
from engine.models.views import named_views
from engine.outputs.open import check_not_read, check_replaceable
from engine.runs.options import Options

PIXELS = 50_000
FOLDS = 5
GALLERY = 8
MOST_GALLERY = 100
# Confusion matrices of single images are kept for the bootstrap: refuse what would not fit into memory.
MOST_COUNT_BYTES = 8 * 2**30


@dataclass(frozen=True)
class CompareOptions:
    """The user's options.

    Attributes:
        job: models or plan, input, labels, suppression, limit and contract fields, as for ``engine ensemble``.
        out: the run file to write; None to write none.
        groups: file with the scene of each image; empty if not given.
        metric: the MIoU convention that sorts, tunes and selects.
        folds: number of folds for cross-fitting.
        pixels: number of pixels on which biases and members are searched.
        seed: random seed for folds, sample and bootstrap.
        views: views of the ablation's step; ``none`` omits the step.
        ablation: whether to add one step at a time.
        gallery: tiles stored for the report, per reason.
        scratch: folder for the members' logits during the run; None for the system's.
        batch_size: images per batch.
        workers: threads; 0 for one per core.
        overwrite: whether to replace the run file.
        command: the command line, for reproduction.
    """

    job: Options
    out: Path | None = None
    groups: str = ""
    metric: str = "keras-ignore"
    folds: int = FOLDS
    pixels: int = PIXELS
    seed: int = 0
    views: str = "horizontal"
    ablation: bool = True
    gallery: int = GALLERY
    scratch: Path | None = None
    batch_size: int = BATCH_SIZE
    workers: int = 0
    overwrite: bool = False
    command: str = ""


def check_options(options: CompareOptions) -> None:
    """Check everything that needs no file to be opened.

    Raises:
        PlanError: naming the option and what is allowed.
        OutputError: the run file cannot be written to the requested place.
    """
    named = options.job.models or options.job.plan
    for needed, option in ((named, "--models"), (options.job.input, "--input")):
        if not needed:
            raise PlanError(f"{option} is missing: engine compare needs --models and --input, and --labels for scores")
    if options.groups and not options.job.labels:
        raise PlanError("--groups without --labels: groups are drawn for the intervals of scores; give the labels too")
    if options.metric not in CONVENTIONS:
        raise PlanError(f"unknown metric {options.metric!r}; allowed are {', '.join(CONVENTIONS)}")
    named_views(options.views)
    for option, value, least, most in (
        ("--folds", options.folds, 2, 1000),
        ("--pixels", options.pixels, 100, 10**8),
        ("--gallery", options.gallery, 0, MOST_GALLERY),
        ("--batch-size", options.batch_size, 1, 10**6),
        ("--workers", options.workers, 0, 10**4),
        ("--seed", options.seed, 0, 2**32 - 1),
    ):
        if not least <= value <= most:
            raise PlanError(f"{option} {value}; allowed are {least} to {most}")
    if options.scratch is not None and not options.scratch.is_dir():
        raise PlanError(f"--scratch {options.scratch}: no such folder; make it first")
    if options.out is not None:
        _check_out(options.out, options)


def _check_out(out: Path, options: CompareOptions) -> None:
    if out.suffix.lower() != ".npz":
        raise PlanError(f"--out {out}: the run is an .npz file")
    if out.is_dir():
        raise OutputError(f"--out {out} is a folder: name an .npz file")
    check_replaceable(out, options.overwrite)
    read = {"--input": options.job.input, "--labels": options.job.labels, "--groups": options.groups}
    check_not_read(out, "run", read)


def check_ensemble(ensemble: Ensemble, images: int, scored: bool) -> None:
    """Refuse members or images that cannot be compared.

    Raises:
        PlanError: saying why.
    """
    if ensemble.is_packed:
        raise PlanError(
            f"{ensemble.members[0].name} is a packed ensemble, which outputs only labels: name its members instead"
        )
    if scored and images < 2:
        raise PlanError("one labelled image: intervals and folds need two or more")
    classes, rows = len(ensemble.classes), 3 * (len(ensemble.members) + 9)
    if scored and images * rows * classes**2 * 8 > MOST_COUNT_BYTES:
        raise PlanError(
            f"{images:,} images of {classes} classes: their confusion matrices need more than "
            f"{MOST_COUNT_BYTES / 2**30:.0f} GB of memory: compare on fewer with --limit"
        )
