"""The actor: opens nets and images once, then predicts blocks of them. It does not need Ray itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.inference.prediction import BadImages
from engine.models.runtimes import RuntimeOptions
from engine.runs.on_ray.actor import Actor, check_plan
from engine.runs.on_ray.wire import packed
from engine.sources.base import Source
from engine.sources.open import open_source
from engine.sources.slices import Rest, span_of

if TYPE_CHECKING:
    from engine.inference.prediction import Variant
    from engine.runs.options import Options

# Images read at a time if they can only be read in order.
READ = 64


class Predictor(Actor):
    """Predicts blocks; one per worker."""

    def __init__(
        self, options: Options, runtime: RuntimeOptions, batch_size: int, plan_sha256: str, scored: bool
    ) -> None:
        """Open everything; an error is kept and reported with the first block, in one line.

        Args:
            options: the user's options; file names are absolute.
            runtime: provider, runtime and precision.
            batch_size: images per session run; 0 to measure.
            plan_sha256: hash of the run's resolved plan; a node whose files give another one refuses.
            scored: whether true labels are compared.
        """
        super().__init__(lambda: self._open(options, runtime, batch_size, plan_sha256, scored))

    def _open(self, options: Options, runtime: RuntimeOptions, batch_size: int, plan_sha256: str, scored: bool) -> None:
        from engine.inference.tuning import tune
        from engine.runs.opened import open_ensemble
        from engine.runs.options import planned, reading_of
        from engine.sources.coding import PLAIN
        from engine.sources.labels import open_truth
        from engine.sources.places import with_nodata

        self._bad = BadImages() if options.on_bad_image == "skip" else None
        plan = planned(options)
        if plan is None:
            raise PlanError("no models: name them with --models or --plan")
        bad = self._bad.add if self._bad is not None else None
        images = open_source(options.input, bad=bad, reading=reading_of(plan, options))
        self._images = Spans(images)
        self._ensemble = open_ensemble(plan, options, images)
        coding = with_nodata(self._ensemble.coding, options.labels, len(self._ensemble.classes)) if scored else PLAIN
        truth = open_truth(options.labels, images, coding, options.limit, quiet=True) if scored else None
        self._labels = Spans(truth) if truth is not None else None
        self._how = tune(self._ensemble, images, runtime, batch_size, 1, scored)
        check_plan(self._ensemble, plan_sha256)
        scored = scored and self._ensemble.early_exit is None
        variants: list[Variant] = self._ensemble.every_variant() if scored else []
        self._asked = list(dict.fromkeys((self._ensemble.variant, *variants)))

    def _predict(self, start: int, count: int) -> dict[str, Any]:
        images = self._images.span(start, count)
        labels = self._labels.span(start, count) if self._labels is not None else None
        stream = self._ensemble.stream(images, labels, self._asked[1:], self._how.batch_size, self._how.workers)
        stream.bad = self._bad
        return packed(start, list(stream), self._asked, labels is not None)


class Spans:
    """Blocks of a source by their indices; if it can only be read in order, reading continues from block to block."""

    def __init__(self, source: Source) -> None:
        """Store the source; nothing is read yet."""
        self._source = source
        self._parts: Iterator[NDArray[Any]] = iter(())
        self._held: NDArray[Any] | None = None
        self._position = len(source) + 1

    def span(self, start: int, count: int) -> Source:
        """Return ``count`` images from an index on.

        Raises:
            InputError: the data is damaged.
        """
        if self._source.at is not None:
            return span_of(self._source, start, count)
        pixels = self._next(start, count)

        def read(size: int) -> Iterator[NDArray[Any]]:
            for first in range(0, count, size):
                yield pixels[first : first + size]

        held = self._source
        return Rest(held.name, held.ids[start : start + count], held.size, held.channels, read, held.named, first=start)

    def _next(self, start: int, count: int) -> NDArray[Any]:
        if start < self._position:  # a block lost by another worker, or the first one
            self._parts, self._held, self._position = self._source.read(READ), None, 0
        while self._held is None or self._position + len(self._held) < start + count:
            part = next(self._parts)
            kept = self._held[max(0, start - self._position) :] if self._held is not None else None
            self._position += min(start - self._position, len(self._held)) if self._held is not None else 0
            self._held = part if kept is None or not len(kept) else np.concatenate([kept, part])
        pixels = self._held[start - self._position : start - self._position + count]
        self._held, self._position = self._held[start - self._position + count :], start + count
        return pixels
