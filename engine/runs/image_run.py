"""How ``engine ensemble`` runs a checked job: compile, predict, write, draw, report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import OutputError
from engine.fusion.compiling import compile_kernels
from engine.inference.prediction import Predicted, Variant
from engine.outputs.blocks import BlockWriter
from engine.outputs.open import open_class_masks, open_writer
from engine.outputs.sidecar import ids_beside
from engine.runs.durable.images import DurableRun
from engine.runs.durable.resume import incomplete_output, nothing_left, read_skipped, skipped_list
from engine.runs.image_job import Job
from engine.runs.outcome import Outcome
from engine.runs.predict import run
from engine.runs.preview import draw, preview_tiles
from engine.runs.provenance import run_header, run_record
from engine.runs.record_writer import record_feed
from engine.sources.slices import rest_of
from engine.utils import console
from engine.utils.console import stoppable
from engine.utils.files import write_text
from engine.utils.progress import progress

if TYPE_CHECKING:
    from engine.runs.on_ray.stream import OnRay


def run_job(job: Job, batch_size: int, workers: int, overwrite: bool, on_ray: OnRay | None = None) -> Outcome:
    """Predict, score, write the masks and the picture.

    Args:
        job: the checked job.
        batch_size: images per batch.
        workers: threads.
        overwrite: whether existing outputs are replaced.
        on_ray: predict on a Ray cluster; None predicts in this process.

    Raises:
        EngineError: the images, the labels, a member or the disk fails; the output is then not written, and if the
            run was long enough its finished images are kept for ``--resume``.
    """
    assert job.output is not None
    header = run_header(job.ensemble, job.images, job.input_sha256, job.labels_sha256)
    if job.rle:
        header["rle"] = job.rle
    if job.files.evidence:
        header["evidence"] = job.files.evidence.record
    complete = nothing_left(job.output, header, incomplete_output(job.output)) if job.resume else None
    if complete is not None:
        (job.files if complete == job.output else job.files.moved(incomplete_output)).check_present()
        done = Outcome.empty(job.ensemble)
        done.skipped = read_skipped(job.output) if complete != job.output else []
        return done
    scored = job.labels is not None and job.ensemble.early_exit is None
    variants = job.ensemble.every_variant() if scored else []
    strategies = {variant.strategy for variant in [job.ensemble.variant, *variants]}
    compile_kernels(strategies, len(job.ensemble.classes), job.ensemble.variant.decoding.suppress)
    header["overwrite"] = overwrite
    if on_ray is not None:
        header["run_by"] = on_ray.run_by(header["run_by"])
    with stoppable(), DurableRun(job.output, job.ensemble, variants, header, job.resume) as work:
        with work.interruptible():
            job.files.clear()
            outcome, output = _predict(job, work, variants, batch_size, workers, on_ray)
            (job.files if output == job.output else job.files.moved(incomplete_output)).sync()
        work.finish(output)
    new = outcome.images - outcome.resumed
    before = f" ({outcome.resumed:,} of them from the previous run)" if outcome.resumed else ""
    rate = f", {new / outcome.seconds:,.0f} images/s" if new else ""
    console.say(f"wrote {output}: {outcome.images:,} masks{before} in {outcome.seconds:.1f} s{rate}")
    for path in (job.files if output == job.output else job.files.moved(incomplete_output)).files.values():
        console.say(f"wrote {path}")
    if job.preview is not None:
        draw(preview_tiles(job.ensemble, job.images, job.labels), job.ensemble.classes, job.preview)
        console.say(f"wrote {job.preview}")
    return outcome


def _predict(
    job: Job, work: DurableRun, variants: Sequence[Variant], batch_size: int, workers: int, on_ray: OnRay | None
) -> tuple[Outcome, Path]:
    """Predict the remaining images and write all masks; return the outcome and the path of the masks."""
    assert job.output is not None
    done = work.done
    if done:
        console.say(f"resuming after {done:,} of {len(job.images):,} images")
    images = rest_of(job.images, done)
    labels = rest_of(job.labels, done) if job.labels is not None else None
    predict = partial(run, job.ensemble, images, None, labels, variants, batch_size, workers, elsewhere=on_ray)
    predict = partial(predict, evidence=job.files.evidence)
    with progress(len(job.images), done) as advance:
        if job.bad is None:
            with _writing(job, work, []) as feed:

                def record(part: Predicted) -> None:
                    work.record(part)
                    feed.write(part.record)

                outcome = predict(advance, record)
        else:
            # The images in the file are known only at the end.
            outcome = predict(advance, work.record, job.bad)
            work.seal()
            with _writing(job, work, [*work.outcome.skipped, *outcome.skipped]):
                pass
    outcome.add(work.outcome)
    outcome.resumed = work.outcome.images
    outcome.skipped.sort()
    return outcome, incomplete_output(job.output) if outcome.skipped else job.output


@contextlib.contextmanager
def _writing(job: Job, work: DurableRun, skipped: Sequence[tuple[int, str, str]]) -> Iterator[BlockWriter]:
    """Open the writer and pass it the content of the shards; on exit the output is moved into place."""
    assert job.output is not None
    left_out = {index for index, _, _ in skipped}
    ids: Sequence[str] = job.images.ids
    more: dict[str, Any] = {"images": len(ids), "input_sha256": job.input_sha256}
    if job.rle:
        more["rle"] = job.rle
    if job.files.evidence:
        more["evidence"] = job.files.evidence.record
    output, files = job.output, job.files
    if left_out:
        files = files.moved(incomplete_output)
        output, more["skipped"] = incomplete_output(output), len(left_out)
        ids = [name for index, name in enumerate(ids) if index not in left_out]
        _write_skipped(skipped_list(job.output), skipped)
    record = run_record(job.ensemble, **more, **ids_beside(output, ids, job.images.named))
    # Replacing it was allowed when the job was checked.
    coding, values = job.ensemble.coding, job.ensemble.mask_values
    mask_ids = ids
    if job.ensemble.is_multilabel:
        writer, mask_ids = open_class_masks(output, ids, job.images.size, job.ensemble.classes, job.replace, record)
    else:
        writer = open_writer(output, ids, job.images.size, values, job.replace, record, rle=job.rle, places=job.places)
    with writer:
        table = None if job.ensemble.is_multilabel else coding.output_table
        masks = BlockWriter(writer, mask_ids, int(np.prod(writer.size)), table)
        whole = record_feed(job, files, writer, mask_ids, ids, left_out, record)
        with whole if files.files else contextlib.nullcontext(masks) as feed:
            for records in work.replay():
                feed.write(records)
            yield feed
            feed.flush()
            job.read.check()
            work.placing()


def _write_skipped(path: Path, skipped: Sequence[tuple[int, str, str]]) -> None:
    rows = [
        f"{index}\t{console.one_line(name)}\t{console.one_line(reason)}\n" for index, name, reason in sorted(skipped)
    ]
    try:
        write_text(path, "index\tid\treason\n" + "".join(rows))
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): make space") from None
