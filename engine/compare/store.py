"""The members' logits of all images, exact, on disk: each member runs once, everything else reads them.

float32, not rounded: a score from the store equals that of ``engine ensemble``. One thread pool runs the batches
in parallel, as the pipeline does.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, OutputError
from engine.inference.ensemble import Ensemble
from engine.models.net import check_range, check_sample
from engine.models.views import View
from engine.sources.base import Batch, Source
from engine.utils.threads import available_cores, in_order

Logits = NDArray[np.float32]
# Space to leave free on the disk.
SPARE_BYTES = 2**28


class LogitStore:
    """Logits of every member on every image, plain and (with views) averaged over all views.

    Attributes:
        plain: float32 (members, images, classes, pixels), members in the ensemble's fusion order.
        turned: the same, averaged over all views; None without views.
        plain_seconds: time of each member (in the given order) on the plain images, summed over workers.
        turned_seconds: likewise on all views together.
        images: number of images.
        workers: number of threads.
    """

    def __init__(self, folder: Path, ensemble: Ensemble, images: int, size: tuple[int, int], turned: bool) -> None:
        """Create the files.

        Raises:
            OutputError: not enough disk space.
        """
        shape = (len(ensemble.members), images, len(ensemble.classes), size[0] * size[1])
        needed = int(np.prod(shape)) * 4 * (2 if turned else 1)
        free = shutil.disk_usage(folder).free
        if needed + SPARE_BYTES > free:
            raise OutputError(
                f"the members' logits need {needed / 1e9:,.1f} GB in {folder}, {free / 1e9:,.1f} GB are free: "
                "name a folder with more space with --scratch, or compare on fewer images with --limit"
            )
        self.ensemble, self.size, self.images = ensemble, size, images
        self.plain = _array(folder / "plain.npy", shape)
        self.turned = _array(folder / "turned.npy", shape) if turned else None
        self.plain_seconds = [0.0] * shape[0]
        self.turned_seconds = [0.0] * shape[0]
        self.workers = 1

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
        nets = [net for member in self.ensemble.members for net in member.nets]
        for net in nets:
            check_sample(net, (*images.size, images.channels))
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
        """Return float32 (members, tiles, classes, pixels), a writable copy."""
        held = self.turned if turned and self.turned is not None else self.plain
        return np.ascontiguousarray(np.asarray(held[:, tiles]))

    def _run(self, batch: Batch, views: Sequence[View]) -> tuple[int, list[float], list[float]]:
        """Store a batch; return the number of its images and each member's seconds, plain and total."""
        here = slice(batch.start, batch.start + len(batch.ids))
        logits, plain = self.ensemble.logits(batch)
        self.plain[:, here] = logits
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
            self.turned[:, here] = mean
        return len(batch.ids), plain, total

    def _account(self, done: tuple[int, list[float], list[float]]) -> int:
        count, plain, total = done
        self.plain_seconds = [a + b for a, b in zip(self.plain_seconds, plain, strict=True)]
        self.turned_seconds = [a + b for a, b in zip(self.turned_seconds, total, strict=True)]
        return count


def _array(path: Path, shape: tuple[int, ...]) -> Logits:
    try:
        return np.lib.format.open_memmap(path, "w+", np.float32, shape)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error}): name a folder with --scratch") from None
