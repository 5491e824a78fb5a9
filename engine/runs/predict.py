"""One run of ``engine ensemble``: predict a source, score it if labels are given, write the masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from engine.fusion.evidence import Evidence
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import BadImages, Predicted, Predictions, Variant
from engine.outputs.open import MaskWriter
from engine.runs.outcome import Outcome
from engine.sources.base import Source
from engine.utils.threads import Behind, available_cores

Elsewhere = Callable[[Ensemble, Source, Source | None, Sequence[Variant]], Predictions]


def run(
    ensemble: Ensemble,
    images: Source,
    writer: MaskWriter | None = None,
    labels: Source | None = None,
    variants: Sequence[Variant] = (),
    batch_size: int = 4,
    workers: int = 0,
    advance: Callable[[int], object] = lambda count: None,
    record: Callable[[Predicted], object] = lambda part: None,
    bad: BadImages | None = None,
    elsewhere: Elsewhere | None = None,
    evidence: Evidence | None = None,
) -> Outcome:
    """Predict every image once, in order.

    Args:
        ensemble: the members and how to fuse them.
        images: the images to predict.
        writer: writer of the masks; None for none.
        labels: true label maps; None for no scores.
        variants: additional variants to score.
        batch_size: images per batch.
        workers: threads; 0 for one per core.
        advance: called with the number of images after each batch.
        record: called with each batch before its masks are written.
        bad: records images that cannot be predicted, which are then left out; None if they are an error.
        elsewhere: returns the predictions, as from a cluster; None predicts in this process.
        evidence: what to show for the labels, in this process; None for nothing.

    Raises:
        EngineError: images, labels or members fail; the writer then leaves no output.
    """
    outcome = Outcome.empty(ensemble, workers or available_cores())
    began = perf_counter()
    variants = variants if labels is not None else ()
    stream: Predictions
    if elsewhere is not None:
        stream = elsewhere(ensemble, images, labels, variants)
    else:
        stream = ensemble.stream(images, labels, variants, batch_size, workers, evidence)
    stream.bad = bad

    def finish(part: Predicted) -> None:
        record(part)
        if writer is not None:
            writer.write(part.ids, part.labels)

    # Results do not wait for the disk, nor do the workers.
    with Behind(finish, outcome.workers) as later:
        try:
            for part in stream:
                later(part)
                outcome.count(part, ensemble)
                advance(len(part.ids) + len(part.skipped))
        finally:
            stream.wait()
    outcome.read_seconds, outcome.write_seconds = stream.read_seconds, later.seconds
    outcome.seconds = perf_counter() - began
    return outcome
