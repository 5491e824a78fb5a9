"""The members' log-probabilities on the validation images: run once, stored as float16, verified when read.

float16 stores a log-probability to one part in 2,048: a probability of 0.99 to 0.000005, one of 0.01 to 0.00001.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.inference.ensemble import Ensemble
from engine.models.members import Member
from engine.models.net import check_range
from engine.select.ragged import Ragged
from engine.sources.base import Batch, Source
from engine.utils.files import replacing, write_text
from engine.utils.threads import abandonable, available_cores, in_order

FORMAT = 1
BATCH = 8
# Represents a probability of 0, as engine.models.net.LEAST_PROBABILITY does.
LEAST_LOG = np.float32(-87.5)
Logs = NDArray[np.float16] | Ragged[np.float16]


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log-probabilities of planar logits, float32 (..., classes, pixels), at least :data:`LEAST_LOG`."""
    shifted = logits - logits.max(axis=-2, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-2, keepdims=True))
    return np.maximum(shifted, LEAST_LOG)


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return the stored form of planar logits (..., classes, pixels): their :func:`log_softmax` as float16."""
    return log_softmax(logits).astype(np.float16)


def pixel_hash(images: Source) -> str:
    """Return a hexadecimal SHA-256 of all pixels, their type and shape."""
    digest = hashlib.sha256()
    for batch in images.batches(64):
        digest.update(f"{batch.pixels.dtype.str}{batch.pixels.shape[1:]}".encode())
        digest.update(np.ascontiguousarray(batch.pixels).data)
    return digest.hexdigest()


class Cache:
    """A folder with one array per member and a record of its origin beside it.

    The array is float16 (images, classes, pixels); of images of different sizes it is flat, see
    :class:`engine.select.ragged.Ragged`.
    """

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is created if missing.

        Raises:
            OutputError: it cannot be created.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot use {folder} as cache ({error.strerror or error}): name a folder") from None
        self.folder = folder

    def fetch(
        self,
        member: Member,
        images: Source,
        print_of_images: str,
        views: str,
        advance: Callable[[int], object] = lambda count: None,
    ) -> tuple[Logs, bool]:
        """Return a member's log-probabilities, memory-mapped, and whether the member had to run.

        Args:
            member: the member.
            images: all validation images.
            print_of_images: their :func:`pixel_hash`.
            views: what the member also runs on, as :func:`engine.models.views.told_views` names it.
            advance: called with the number of images done since the last call.

        Raises:
            EngineError: the member fails, or the folder cannot be written.
        """
        made_from = self._made_from(member, images, print_of_images, views)
        key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]
        path = self.folder / f"{key}.npy"
        pixels, classes = [prod(size) for size in images.sizes], len(member.contract.classes)
        held = _believed(path, made_from, pixels, classes)
        if held is not None:
            advance(len(images))
            return held, False
        try:
            self._run(path, member, images, views, made_from, advance)
        except OSError as error:
            raise OutputError(f"cannot write {path} ({error.strerror or error}): make space, or move --cache") from None
        held = _believed(path, made_from, pixels, classes)
        if held is None:
            raise OutputError(f"{path} does not hold what was written: check the disk, or move --cache")
        return held, True

    def _made_from(self, member: Member, images: Source, print_of_images: str, views: str) -> dict[str, Any]:
        nets = [
            [net.checksum, net.contract.to_json(), net.output_name, net.contract.grey_as_rgb] for net in member.nets
        ]
        classes = len(member.contract.classes)
        shape = [len(images), classes, prod(images.size)]
        if images.sizes:
            shape = [classes * sum(map(prod, images.sizes))]
        made_from = {"format": FORMAT, "nets": nets, "images": print_of_images, "flips": views, "shape": shape}
        if member.folds:
            made_from["folds"] = (
                "mean" if member.unseen is None else [list(pair) for pair in sorted(member.unseen.items())]
            )
        return made_from

    def _run(
        self,
        path: Path,
        member: Member,
        images: Source,
        views: str,
        made_from: dict[str, Any],
        advance: Callable[[int], object],
    ) -> None:
        with replacing(path) as partial:
            shape = tuple(made_from["shape"])
            out = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
            held: Any = _by_image(out, [prod(size) for size in images.sizes], len(member.contract.classes))
            for batch, logs in _predicted(member, images, views):
                held[batch.start : batch.start + len(logs)] = logs
                advance(len(logs))
            out.flush()
            del out, held
            write_text(path.with_suffix(".json"), json.dumps({**made_from, "sha256": _digest(partial)}))


def _predicted(member: Member, images: Source, views: str) -> Iterator[tuple[Batch, Logs]]:
    """Yield each batch with the member's log-probabilities, in order; batches run in parallel."""
    strategy = "vote" if member.contract.kind == "labels" else "mean-logit"
    alone = Ensemble([member], strategy, views=views, suppress=())
    for size in images.every_size:
        alone.check_size(size, images.channels)

    def work(batch: Batch) -> tuple[Batch, Logs]:
        return batch, log_probabilities(alone.logits(batch)[0][0])

    def submitted(pool: ThreadPoolExecutor) -> Iterator[Future[tuple[Batch, Logs]]]:
        for batch in images.batches(BATCH):
            if batch.start == 0:
                check_range(batch.pixels, member.nets)
            yield pool.submit(work, batch)

    workers = available_cores()
    with abandonable(workers, "maskfuse") as pool:
        yield from in_order(submitted(pool), 2 * workers)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _by_image(stored: NDArray[np.float16], pixels: Sequence[int], classes: int) -> Logs:
    """Return what a file holds, image by image; ``pixels`` are empty where all images have one size."""
    return Ragged(stored, pixels, (classes,)) if pixels else stored


def _believed(path: Path, made_from: dict[str, Any], pixels: Sequence[int], classes: int) -> Logs | None:
    """Return the content of a file if it is complete and matches its origin; None means: run the member again."""
    try:
        told = json.loads(path.with_suffix(".json").read_bytes())
        if told != {**made_from, "sha256": _digest(path)}:
            return None
        held = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # damaged in any way
        return None
    fits = held.dtype == np.float16 and list(held.shape) == made_from["shape"]
    return _by_image(held, pixels, classes) if fits else None
