"""Soft targets: an ensemble's probabilities of training tiles and of tiles without labels, written by the engine."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, OutputError, PlanError
from engine.inference.tuning import make_ready
from engine.metrics import VOID
from engine.models.runtimes import RuntimeOptions
from engine.runs.durable.resume import left_over
from engine.runs.evidence_files import EvidenceFiles
from engine.runs.image_job import Job, prepare
from engine.runs.image_run import run_job
from engine.runs.options import Options
from engine.runs.plan import read_plan, write_plan
from engine.runs.provenance import plan_hash
from engine.runs.scene_job import TiledJob, prepare_tiled
from engine.runs.scene_run import run_tiled
from engine.utils.console import say
from trainers.data import TASK_KEY, check_npz
from trainers.files import replacing
from trainers.soft import SCORES

TEACHER, IMAGES_KEY = "teacher", "images_sha256"
_CHUNK = 256


def write_soft_targets(
    plan: Path,
    images: str,
    out: Path,
    labelled: bool = False,
    overwrite: bool = False,
    fold: int | None = None,
) -> tuple[str, int]:
    """Let an ensemble predict images and write its probabilities as soft targets.

    They are those of ``engine ensemble --scores`` in float16: of the fused scores, 0 for suppressed classes. A killed
    run goes on where it was; a file that the same ensemble made of the same images is kept. Where the plan puts
    overlapping images together (``[input] stitch``), they are predicted as the pictures that they make.

    Args:
        plan: the teacher, an ``ensemble.toml``.
        images: the images, as in the engine's ``--input``.
        out: the npz to write: ``images``, ``scores`` float16 (images, classes, height, width), ``labels`` (all void),
            ``class_names``, ``teacher`` (hash of the plan) and ``images_sha256``.
        labelled: the images are training tiles: members with folds predict each by the net that did not see it.
        overwrite: replace a file of another teacher or of other images.
        fold: take of each member the net that was trained without this fold, from 0; None for all nets.

    Returns:
        The hash of the plan, and the number of images.

    Raises:
        EngineError: the ensemble, the images or the disk fail, or ``out`` is another teacher's.
    """
    masks, scores = (out.with_name(f"{out.stem}.{kind}.npy") for kind in ("masks", SCORES))
    out_of_fold = labelled and any(member.folds for member in read_plan(plan).members)
    # A killed run goes on; the same check refuses what another ensemble left there.
    resume, files = masks.exists() or left_over(masks) is not None, EvidenceFiles(scores=scores)
    options = Options(plan=plan, input=images, output=masks, files=files, resume=resume, out_of_fold=out_of_fold)
    with _folder(out.parent):
        work = (
            _Work.of(options) if fold is None else _of_fold(options, plan, fold, out.with_name(f"{out.stem}.plan.toml"))
        )
    job, digest, count = work.job, work.teacher, work.count
    made_from = {TEACHER: digest, IMAGES_KEY: job.input_sha256}
    if out.exists():
        if _made_from(out) == made_from:
            say(f"{out}: {count:,} images of this teacher are there, not predicted again")
            return digest, count
        if not overwrite:
            raise OutputError(f"{out}: of another teacher or other images; give --overwrite to replace it")
    pixels = work.run()
    _write(
        out, _bytes(pixels, images), np.load(scores, mmap_mode="r", allow_pickle=False), job.ensemble.classes, made_from
    )
    for path in (masks, scores):
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()
    say(f"{masks.name} and {scores.name} are joined into {out}")
    return digest, count


@dataclass(frozen=True)
class _Work:
    """What the teacher predicts: images as they are, or put together where its plan says so.

    Attributes:
        job: the ensemble and its images; of those put together the first tile.
        tiled: the pictures; None where images are predicted as they are.
    """

    job: Job
    tiled: TiledJob | None = None

    @classmethod
    def of(cls, options: Options) -> _Work:
        """Open and check everything."""
        assert options.plan is not None
        table = read_plan(options.plan).input
        if not table.stitch:
            return cls(prepare(options))
        tiled = prepare_tiled(options, table.tile, None)
        return cls(tiled.base, tiled)

    @property
    def teacher(self) -> str:
        """Return what identifies the teacher: the hash of the ensemble, and how it sees the images."""
        stitched = "" if self.tiled is None else f", stitched, tiles of {self.tiled.tiling.told}"
        return f"{plan_hash(self.job.ensemble)}{stitched}"

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.job.images) if self.tiled is None else len(self.tiled.masks[0])

    def run(self) -> NDArray[Any]:
        """Predict all images and return their pixels, (N, H, W, C)."""
        if self.tiled is None:
            how = make_ready(self.job.ensemble, self.job.images, RuntimeOptions())
            run_job(self.job, how.batch_size, how.workers, overwrite=False)
            return np.concatenate([batch.pixels for batch in self.job.images.batches(_CHUNK)])
        assert self.tiled.stitched is not None
        how = make_ready(self.job.ensemble, None, RuntimeOptions())
        tiles = self.tiled.needs.fitting_batch(how.batch_size, how.workers)
        run_tiled(self.tiled, tiles, how.workers, overwrite=False)
        return self.tiled.stitched.pixels


def _of_fold(options: Options, plan: Path, fold: int, path: Path) -> _Work:
    """Return the run of the nets of one fold alone: none of them has seen a label of that fold.

    Raises:
        PlanError: a member without folds, or a net that says that it is of another fold.
    """
    read, members = read_plan(plan), []
    for member in read.members:
        if not 0 <= fold < len(member.folds):
            told = f"has {len(member.folds)} folds" if member.folds else "has no folds and may have seen every label"
            raise PlanError(f"fold: {fold}; a member of {plan} {told}: give a fold from 0, or take that member out")
        digest = member.sha256[fold] if isinstance(member.sha256, tuple) else member.sha256
        members.append(replace(member, model=member.folds[fold], folds=(), sha256=digest))
    write_plan(path, replace(read, members=tuple(members)))
    try:
        work = _Work.of(replace(options, plan=path))
    finally:
        path.unlink()
    for net in work.job.ensemble.nets:
        if net.contract.notes.get("fold", fold) != fold:
            raise PlanError(
                f"fold: {fold}; {net.path} is of fold {net.contract.notes['fold']}: list folds in their order"
            )
    return work


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder, and remove it again where what follows is refused.

    Raises:
        OutputError: it cannot be made.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error.strerror or error}); choose another place") from None
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def images_of(data: Path) -> str:
    """Return what the engine reads as the images of a training file.

    Raises:
        InputError: it is no npz.
    """
    check_npz(data)
    with zipfile.ZipFile(data) as archive:
        return f"{data}:{TASK_KEY if f'{TASK_KEY}.npy' in archive.namelist() else 'images'}"


def _bytes(pixels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8:
        if not (pixels.min() >= 0 and pixels.max() <= 255):
            raise InputError(f"{name}: image values from {pixels.min():g} to {pixels.max():g}; allowed are 0 to 255")
        pixels = np.rint(pixels).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def _write(
    out: Path, images: NDArray[np.uint8], scores: NDArray[Any], classes: tuple[str, ...], made_from: dict[str, str]
) -> None:
    labels = np.full(images.shape[:3], VOID, np.uint8)
    told: dict[str, Any] = {"class_names": np.array(classes)}
    told |= {key: np.array(text) for key, text in made_from.items()}
    with replacing(out) as partial, partial.open("wb") as stream:
        np.savez(stream, images=images, labels=labels, scores=scores, **told)


def _made_from(path: Path) -> dict[str, str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: str(archive[key]) for key in (TEACHER, IMAGES_KEY)}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return {}
