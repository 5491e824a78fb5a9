"""Members on one batch: their logits, and a variant's labels."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import CancelledError
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engine.fusion.fuse import check_finite, fuse
from engine.fusion.regions import cleaned
from engine.graph.whole import Whole
from engine.inference.execution import Execution
from engine.inference.flips import flipped, named_flips
from engine.inference.mask_members import MaskMember
from engine.inference.prediction import Variant
from engine.models.adapt.binary import pairs
from engine.models.members import FLOOR, Member, Prepared
from engine.models.net import Net
from engine.sources.base import Batch


class Forward:
    """Members with their weights, and how they process one batch.

    Attributes:
        members: multi-class nets, specialist sets and finished masks, in the given order.
        classes: names of the classes.
        variant: the strategy and decoding of the labels.
        weights: float64 (members, classes), columns summing to 1.
        flips: flipped images that each member also runs on.
        fusion_order: indices of the members in the order in which they are summed.
        parts: number of images of a batch that each member takes per run; 0 for all.
    """

    def __init__(
        self,
        members: Sequence[Member],
        classes: tuple[str, ...],
        variant: Variant,
        weights: NDArray[np.float64],
        flips: str = "none",
    ) -> None:
        """Combine members and weights; the arguments are the attributes.

        Raises:
            PlanError: unknown flips.
        """
        self.members = list(members)
        self.classes = classes
        self.variant = variant
        self.weights = weights
        self.flips = named_flips(flips)
        # Members are summed in the order of their checksums: the order on the command line never affects a result.
        self.fusion_order = sorted(range(len(self.members)), key=lambda index: self.members[index].checksum)
        self._slot = {index: slot for slot, index in enumerate(self.fusion_order)}
        self._slot_weights = self.weights[self.fusion_order]
        self.parts = [0] * len(self.members)
        self._scratch = threading.local()

    @property
    def nets(self) -> list[Net]:
        """Return the opened files of all members."""
        return [net for member in self.members for net in member.nets]

    @property
    def is_packed(self) -> bool:
        """Return whether the only member is a packed ensemble, which outputs labels."""
        return self.members[0].contract.kind == "packed"

    @property
    def is_multilabel(self) -> bool:
        """Return whether each class is decided by itself: then there is one mask per class."""
        return self.members[0].contract.kind == "multilabel"

    @property
    def masks_per_image(self) -> int:
        """Return how many masks an image gets: one, or one per class of a multi-label ensemble."""
        return len(self.classes) if self.is_multilabel else 1

    @property
    def whole(self) -> Whole:
        """Return what a graph of all of it needs, see :mod:`engine.graph.whole`."""
        members = [self.members[index] for index in self.fusion_order]
        return Whole(members, self._slot_weights, self.variant.strategy, self.variant.decoding, self.flips)

    def logits(
        self, batch: Batch, skip: Collection[int] = (), ended: threading.Event | None = None
    ) -> tuple[NDArray[np.float32], list[float]]:
        """Run every member on a batch.

        Args:
            batch: the images.
            skip: classes whose specialists need not run.
            ended: once set, the run is cancelled before the next member.

        Returns:
            float32 (members, batch, classes, pixels), valid until this thread's next call, in the internal order of
            members; and the seconds of each member.

        Raises:
            ModelError: a member fails or computes NaN or infinity.
            CancelledError: the run was cancelled.
        """
        count, height, width = batch.pixels.shape[:3]
        shape = (len(self.members), count, len(self.classes), height * width)
        out = self._buffer(shape)
        prepared: list[Prepared] = [{} for _ in self.flips]
        seconds = []
        for index in range(len(self.members)):
            if ended is not None and ended.is_set():
                raise CancelledError
            began = perf_counter()
            self._run_member(index, batch, prepared, out[self._slot[index]], skip)
            seconds.append(perf_counter() - began)
        return out, seconds

    def _run_member(
        self,
        index: int,
        batch: Batch,
        prepared: list[Prepared],
        out: NDArray[np.float32],
        skip: Collection[int],
    ) -> None:
        """Run one member on a batch and its flips; the mean of the logits, flipped back, is written to ``out``."""
        member, part = self.members[index], self.parts[index]
        if isinstance(member, MaskMember):
            member.vote(batch, out)
            return
        member.run(batch.pixels, prepared[0], out, skip, part)
        planes = out.reshape(*out.shape[:2], *batch.pixels.shape[1:3])
        for flip, inputs in zip(self.flips[1:], prepared[1:], strict=True):
            mirrored = np.empty_like(out)
            member.run(flipped(batch.pixels, flip, rows=1), inputs, mirrored, skip, part)
            planes += flipped(mirrored.reshape(planes.shape), flip, rows=2)
        if len(self.flips) > 1:
            out *= np.float32(1 / len(self.flips))
        check_finite(out, member.name, batch.ids)

    def member_logits(self, index: int, batch: Batch, skip: Collection[int] = ()) -> NDArray[np.float32]:
        """Return one member's float32 (batch, classes, pixels) logits; errors as :meth:`logits`."""
        out = np.empty((len(batch.ids), len(self.classes), batch.size[0] * batch.size[1]), np.float32)
        self._run_member(index, batch, [{} for _ in self.flips], out, skip)
        return out

    def use(self, index: int, execution: Execution) -> None:
        """Change how a member runs: its runtime, or its number of images per run."""
        self.members[index] = execution.of(self.members[index])
        self.parts[index] = execution.part

    def interrupt(self) -> None:
        """Make all runs of the members fail soon, including those in progress."""
        for net in self.nets:
            net.session.stop()

    def resume(self) -> None:
        """Allow the members to run again after :meth:`interrupt`."""
        for net in self.nets:
            net.session.resume()

    def decode(
        self, logits: NDArray[np.float32], variant: Variant, size: tuple[int, int], clean: bool = True
    ) -> tuple[NDArray[np.uint8], int]:
        """Return uint8 (batch, pixels) labels of a variant for images of a size, and the number of tied votes.

        The labels of a multi-label ensemble are (batch, classes * pixels), 1 where a pixel has the class.

        ``clean=False`` leaves out the clean-up of small regions. If the variant suppresses a class, specialist sets
        are decoded as if that class's net had not run.
        """
        if self.is_multilabel:
            return self._decode_each_class(logits, variant, size, clean)
        if variant.decoding.suppress:
            for index, member in enumerate(self.members):
                if member.is_set:
                    logits[self._slot[index]][:, sorted(variant.decoding.suppress)] = FLOOR
        if variant.member is None:
            fused = fuse(logits, variant.strategy, self._slot_weights, variant.decoding)
        else:
            slot = self._slot[variant.member]
            fused = fuse(logits[slot : slot + 1], variant.strategy, None, variant.decoding)
        labels = cleaned(fused.labels, variant.decoding, size) if clean else fused.labels
        return labels, int(fused.ties.sum())

    def _decode_each_class(
        self, logits: NDArray[np.float32], variant: Variant, size: tuple[int, int], clean: bool
    ) -> tuple[NDArray[np.uint8], int]:
        """Fuse and decode each class against its absence."""
        _, batch, classes, pixels = logits.shape
        labels, ties = np.empty((batch, classes, pixels), np.uint8), 0
        for class_id in range(classes):
            weights = np.repeat(self._slot_weights[:, class_id : class_id + 1], 2, axis=1)
            fused = fuse(pairs(logits, class_id), variant.strategy, weights, variant.decoding)
            labels[:, class_id] = cleaned(fused.labels, variant.decoding, size) if clean else fused.labels
            ties += int(fused.ties.sum())
        return labels.reshape(batch, -1), ties

    def _buffer(self, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
        size = int(np.prod(shape))
        held: NDArray[np.float32] | None = getattr(self._scratch, "logits", None)
        if held is None or held.size < size:
            held = self._scratch.logits = np.empty(size, np.float32)
        return held[:size].reshape(shape)
