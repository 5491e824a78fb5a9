"""The members' logits of all images, exact, on disk: each member runs once, everything else reads them.

float32, not rounded: a score from the store equals that of ``engine ensemble``. One thread pool runs the batches
in parallel, as the pipeline does.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, OutputError
from engine.inference.ensemble import Ensemble
from engine.models.net import check_range, check_sample
from engine.models.views import View
from engine.select.ragged import Ragged
from engine.sources.base import Batch, Source
from engine.utils.threads import available_cores, in_order

Logits = NDArray[np.float32]
MemberLogits = Logits | Ragged[np.float32]
# Space to leave free on the disk.
SPARE_BYTES = 2**28


class LogitStore:
    """Logits of every member on every image, plain and (with views) averaged over all views.

    Attributes:
        plain: for each member, in the ensemble's fusion order, float32 (images, classes, pixels).
        turned: the same, averaged over all views; None without views.
        plain_seconds: time of each member (in the given order) on the plain images, summed over workers.
        turned_seconds: likewise on all views together.
        images: number of images.
        sizes: (height, width) of each image where they differ; empty where all have one size.
        workers: number of threads.
    """

    def __init__(self, folder: Path, ensemble: Ensemble, images: Source, turned: bool) -> None:
        """Create the files.

        Raises:
            OutputError: not enough disk space.
        """
        members, classes = len(ensemble.members), len(ensemble.classes)
        pixels = [prod(size) for size in images.sizes]
        needed = 4 * members * classes * (sum(pixels) or len(images) * prod(images.size)) * (2 if turned else 1)
        free = shutil.disk_usage(folder).free
        if needed + SPARE_BYTES > free:
            raise OutputError(
                f"the members' logits need {needed / 1e9:,.1f} GB in {folder}, {free / 1e9:,.1f} GB are free: "
                "name a folder with more space with --scratch, or compare on fewer images with --limit"
            )
        self.ensemble, self.images, self.sizes, self._size = ensemble, len(images), images.sizes, images.size

        def held(name: str) -> list[MemberLogits]:
            if pixels:
                stored = _array(folder / f"{name}.npy", (members, classes * sum(pixels)))
                return [Ragged(row, pixels, (classes,)) for row in stored]
            return list(_array(folder / f"{name}.npy", (members, len(images), classes, prod(images.size))))

        self.plain = held("plain")
        self.turned = held("turned") if turned else None
        self.plain_seconds = [0.0] * members
        self.turned_seconds = [0.0] * members
        self.workers = 1

    def size_of(self, tiles: NDArray[np.int64]) -> tuple[int, int]:
        """Return the (height, width) of images that have one size."""
        return self.sizes[int(tiles[0])] if self.sizes and len(tiles) else self._size

    def fill(
        self,
        images: Source,
        views: Sequence[View],
        batch_size: int,
        workers: int,
        advance: Callable[[int], object],
    ) -> None:
        """Run every member on every image.

        Args:
            images: the images to predict.
            views: those after the plain image.
            batch_size: images per batch.
            workers: threads; 0 for one per core.
            advance: called with the number of images done since the last call.

        Raises:
            EngineError: images that do not fit the members, or a member that fails.
        """
        nets = self.ensemble.nets
        for net in nets:
            for size in images.every_size:
                check_sample(net, (*size, images.channels))
        self.workers = workers or available_cores()
        with contextlib.suppress(EngineError):
            # The first batch of a process loads kernels: that is no time of the first member.
            blank = np.zeros((1, *images.size, images.channels), np.uint8)
            self.ensemble.logits(Batch(0, [images.ids[0]], blank))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="maskfuse")

        def submitted() -> Iterator[Future[tuple[int, list[float], list[float]]]]:
            for batch in images.batches(batch_size):
                if batch.start == 0:
                    check_range(batch.pixels, nets)
                yield pool.submit(self._run, batch, views)

        try:
            for done in in_order(submitted(), 2 * self.workers):
                advance(self._account(done))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def read(self, tiles: NDArray[np.int64], turned: bool = False) -> Logits:
        """Return float32 (members, tiles, classes, pixels) of images of one size, a writable copy."""
        held = self.turned if turned and self.turned is not None else self.plain
        shape = (len(self.ensemble.classes), prod(self.size_of(tiles)))
        out = np.empty((len(held), len(tiles), *shape), np.float32)
        for own, member in zip(out, held, strict=True):
            own[:] = member[tiles]
        return out

    def _run(self, batch: Batch, views: Sequence[View]) -> tuple[int, list[float], list[float]]:
        """Store a batch; return the number of its images and each member's seconds, plain and total."""
        here = slice(batch.start, batch.start + len(batch.ids))
        logits, plain = self.ensemble.logits(batch)
        _write(self.plain, here, logits)
        total = list(plain)
        if self.turned is not None:
            mean = logits.copy()
            planes = mean.reshape(*mean.shape[:3], *batch.size)
            counts = np.ones(batch.size, np.float32)
            for view in views:
                pixels = np.ascontiguousarray(view.of(batch.pixels))
                maps, seconds = self.ensemble.logits(Batch(batch.start, batch.ids, pixels))
                view.add_to(planes, maps.reshape(*mean.shape[:3], *view.sides(batch.size)))
                view.count_on(counts)
                total = [a + b for a, b in zip(total, seconds, strict=True)]
            planes *= 1 / counts
            _write(self.turned, here, mean)
        return len(batch.ids), plain, total

    def _account(self, done: tuple[int, list[float], list[float]]) -> int:
        count, plain, total = done
        # Of a member with folds one net ran on each labelled image; on other images all of them will.
        folds = [1 if member.unseen is None else len(member.nets) for member in self.ensemble.members]
        self.plain_seconds = [a + b * k for a, b, k in zip(self.plain_seconds, plain, folds, strict=True)]
        self.turned_seconds = [a + b * k for a, b, k in zip(self.turned_seconds, total, folds, strict=True)]
        return count


def _write(held: Sequence[MemberLogits], images: slice, logits: Logits) -> None:
    for member, own in zip(held, logits, strict=True):
        member[images] = own


def _array(path: Path, shape: tuple[int, ...]) -> Logits:
    try:
        return np.lib.format.open_memmap(path, "w+", np.float32, shape)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): name a folder with --scratch") from None
