"""Predictions that come from a Ray cluster, in the images' order, each image once."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelError, PlanError
from engine.inference.prediction import BadImages, Predicted, Variant
from engine.models.runtimes import RuntimeOptions
from engine.runs.on_ray.cluster import Cluster, connect, leave, predicted_rows, require_ray
from engine.runs.on_ray.predictor import Predictor
from engine.runs.on_ray.wire import unpacked
from engine.runs.provenance import plan_hash
from engine.sources.base import Source
from engine.sources.labels import check_match

if TYPE_CHECKING:
    from engine.inference.ensemble import Ensemble
    from engine.runs.image_job import Job
    from engine.runs.options import Options

# A block's labels are sent at once: at most a few megabytes, and often enough to show progress.
BLOCK_BYTES, BLOCK_IMAGES = 1 << 22, 128


@dataclass
class RayStream:
    """One run on Ray; iterate over it once. It replaces :class:`engine.inference.stream.Stream`.

    Attributes:
        ensemble: the ensemble as this process opened it.
        images: the images to predict; of a resumed run, the remaining ones.
        variants: additional variants, scored if true labels are given.
        scored: whether true labels are compared.
        options: the user's options.
        runtime: provider, runtime and precision.
        cluster: where it runs.
        batch_size: images per session run; 0 lets each actor choose.
        bad: records images that cannot be predicted; None if they are an error.
        read_seconds: 0: the actors read.
    """

    ensemble: Ensemble
    images: Source
    variants: Sequence[Variant]
    scored: bool
    options: Options
    runtime: RuntimeOptions
    cluster: Cluster
    batch_size: int = 0
    bad: BadImages | None = None
    read_seconds: float = 0.0

    def __iter__(self) -> Iterator[Predicted]:
        """Yield the blocks' predictions in the images' order.

        Raises:
            EngineError: Ray is missing or cannot be reached, or an actor failed.
        """
        first = getattr(self.images, "first", 0)
        end, pixels = first + len(self.images), math.prod(self.images.size)
        step = max(1, min(BLOCK_IMAGES, BLOCK_BYTES // pixels))
        spans = [(start, min(step, end - start)) for start in range(first, end, step)]
        asked = list(dict.fromkeys((self.ensemble.variant, *self.variants)))
        arguments = (
            portable(self.options),
            wanted(self.runtime, self.cluster),
            self.batch_size,
            plan_hash(self.ensemble),
            self.scored,
        )
        ours = connect(self.cluster)
        try:
            for row in predicted_rows(Predictor, arguments, self.cluster, spans):
                part = unpacked(row, pixels, len(self.ensemble.classes), asked)
                if part.start != first:
                    raise ModelError(f"Ray returned images from {part.start} on, expected {first} on")
                first += len(part.ids) + len(part.skipped)
                yield part
        finally:
            if ours:
                leave()
        if first != end:
            raise ModelError(f"Ray returned no images after {first} of {end}: go on with --resume")

    def wait(self) -> None:
        """Do nothing: the actors end with the iteration."""


def wanted(runtime: RuntimeOptions, cluster: Cluster) -> RuntimeOptions:
    """Return what an actor uses: a GPU only if Ray assigned one."""
    return replace(runtime, provider="cpu") if runtime.provider == "auto" and not cluster.gpus else runtime


@dataclass(frozen=True)
class OnRay:
    """Gets the predictions of a run from Ray.

    Attributes:
        options: the user's options.
        runtime: provider, runtime and precision.
        cluster: where it runs.
        batch_size: images per session run; 0 lets each actor choose.
    """

    options: Options
    runtime: RuntimeOptions
    cluster: Cluster
    batch_size: int = 0

    def __call__(
        self, ensemble: Ensemble, images: Source, labels: Source | None, variants: Sequence[Variant]
    ) -> RayStream:
        """Return the predictions; nothing runs yet.

        Args:
            ensemble: the ensemble as this process opened it.
            images: the images to predict.
            labels: true label maps of the same images, or None.
            variants: additional variants, scored if labels are given.

        Raises:
            InputError: labels that do not match the images.
        """
        if labels is not None:
            check_match(images, labels)
        more = (self.options, self.runtime, self.cluster, self.batch_size)
        return RayStream(ensemble, images, variants, labels is not None, *more)

    def run_by(self, here: Mapping[str, str]) -> dict[str, str]:
        """Return what runs each net, given what would run it here."""
        return run_by(self.cluster, here)


def run_by(cluster: Cluster, here: Mapping[str, str]) -> dict[str, str]:
    """Return what runs each net on a cluster, given what would run it here."""
    return {net: "Ray with GPUs" if cluster.gpus else told for net, told in here.items()}


def on_ray(job: Job, options: Options, runtime: RuntimeOptions, cluster: Cluster, batch_size: int) -> OnRay:
    """Prepare a checked job for Ray; arguments as of :class:`OnRay`.

    Raises:
        PlanError: Ray is not installed, or the images are not files that other nodes can read.
    """
    if not options.input:
        raise PlanError("--on ray without --input: the sample scenes exist only in this process")
    check_members(job.ensemble)
    require_ray()
    job.ensemble.runtime_options = runtime
    return OnRay(options, runtime, cluster, batch_size)


def check_members(ensemble: Ensemble) -> None:
    """Refuse members that actors cannot run.

    Raises:
        PlanError: naming it.
    """
    masks = next((member.name for member in ensemble.members if not member.nets), None)
    if masks is not None:
        raise PlanError(f"{masks} holds finished masks, which are read on this machine alone: leave out --on ray")
    if ensemble.is_multilabel:
        raise PlanError("--on ray does not take multi-label members: leave out --on")
    if ensemble.unknown is not None:
        raise PlanError("--on ray gives every pixel a class: leave out --unknown and the plan's [unknown], or --on ray")


def portable(options: Options) -> Options:
    """Return options with absolute file names, without those of the output."""

    def absolute(name: str) -> str:
        return name if not name or "://" in name else os.path.abspath(name)  # noqa: PTH100 (keeps globs as they are)

    return replace(
        options,
        models=tuple(absolute(str(name)) for name in options.models),
        plan=Path(absolute(str(options.plan))) if options.plan is not None else None,
        input=absolute(options.input),
        labels=absolute(options.labels),
        output=None,
        preview=None,
    )
