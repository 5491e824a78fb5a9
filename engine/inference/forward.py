"""Members on one batch: their logits, and a variant's labels."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.fusion.calibration import Calibration
from engine.fusion.evidence import Evidence, Shown
from engine.fusion.fuse import check_finite, fuse
from engine.fusion.regions import cleaned
from engine.graph.whole import Whole
from engine.inference.execution import Execution
from engine.inference.mask_members import MaskMember
from engine.inference.prediction import Variant
from engine.models.adapt.binary import pairs
from engine.models.folds import each_fold, one_fold
from engine.models.members import FLOOR, Member, Prepared
from engine.models.net import Net, check_sample
from engine.models.views import PLAIN, VIEW_MEANS, View, check_views, to_logits, to_probabilities
from engine.sources.base import Batch


class Decoded(NamedTuple):
    """A batch, decoded.

    Attributes:
        labels: uint8 (batch, pixels); of a multi-label ensemble (batch, classes * pixels).
        ties: number of tied votes.
        shown: the evidence that was asked for.
    """

    labels: NDArray[np.uint8]
    ties: int
    shown: Shown


class Forward:
    """Members with their weights, and how they process one batch.

    Attributes:
        members: multi-class nets, specialist sets and finished masks, in the given order.
        classes: names of the classes.
        variant: the strategy and decoding of the labels.
        weights: float64 (members, classes), columns summing to 1.
        views: what each member runs on, the image itself first.
        view_mean: what of the views is averaged, ``logits`` or ``probabilities``.
        fusion_order: indices of the members in the order in which they are summed.
        parts: number of images of a batch that each member takes per run; 0 for all.
        calibrations: temperature and bias of each member's logits; empty where no member has any.
    """

    def __init__(
        self,
        members: Sequence[Member],
        classes: tuple[str, ...],
        variant: Variant,
        weights: NDArray[np.float64],
        views: Sequence[View] = (PLAIN,),
        calibrations: Sequence[Calibration] = (),
        view_mean: str = VIEW_MEANS[0],
    ) -> None:
        """Combine members and weights; the arguments are the attributes."""
        self.members = list(members)
        self.classes = classes
        self.variant = variant
        self.weights = weights
        self.views = tuple(views)
        self.view_mean = view_mean
        self.calibrations = list(calibrations)
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
        calibrations = tuple(self.calibrations[index] for index in self.fusion_order) if self.calibrations else ()
        held = self.variant
        return Whole(
            members, self._slot_weights, held.strategy, held.decoding, self.views, calibrations, self.view_mean
        )

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
        prepared: list[Prepared] = [{} for _ in self.views]
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
        """Run one member on a batch and its views; the mean, brought back to the image, is written to ``out``."""
        member, part = self.members[index], self.parts[index]
        if isinstance(member, MaskMember):
            member.vote(batch, out)
            return
        if member.unseen is not None:
            self._run_unseen(member, member.unseen, batch, out, skip, part)
        elif member.folds and self.view_mean != VIEW_MEANS[0]:
            self._run_fold_shares(member, batch, prepared, out, skip, part)
        else:
            self._run_views(member, batch, prepared, out, skip, part)
        if self.calibrations:
            self.calibrations[index].apply(out)
        check_finite(out, member.name, batch.ids)

    def _run_views(
        self,
        member: Member,
        batch: Batch,
        prepared: list[Prepared],
        out: NDArray[np.float32],
        skip: Collection[int],
        part: int,
    ) -> None:
        member.run(batch.pixels, prepared[0], out, skip, part)
        if len(self.views) > 1:
            self._add_views(member, batch, prepared, out, skip, part)

    def _run_unseen(
        self,
        member: Member,
        unseen: Mapping[str, int],
        batch: Batch,
        out: NDArray[np.float32],
        skip: Collection[int],
        part: int,
    ) -> None:
        """Run on each image the one net of a member with folds that was trained without it.

        Raises:
            ModelError: an image is none of those that were joined with the folds.
        """
        strange = next((name for name in batch.ids if name not in unseen), None)
        if strange is not None:
            raise ModelError(f"{member.name}: no fold is known of image {strange}: predict it by the mean of all folds")
        wanted = np.array([unseen[name] for name in batch.ids])
        for fold in np.unique(wanted).tolist():
            rows = np.flatnonzero(wanted == fold)
            few = Batch(batch.start, [batch.ids[row] for row in rows], batch.pixels[rows])
            own = np.empty((len(rows), *out.shape[1:]), np.float32)
            self._run_views(one_fold(member, member.nets[fold]), few, [{} for _ in self.views], own, skip, part)
            out[rows] = own

    def _run_fold_shares(
        self,
        member: Member,
        batch: Batch,
        prepared: list[Prepared],
        out: NDArray[np.float32],
        skip: Collection[int],
        part: int,
    ) -> None:
        """Make ``out`` the logits of the mean probability over all folds and views."""
        own, missing = np.empty_like(out), None
        out[:] = 0
        for one in each_fold(member):
            self._run_views(one, batch, prepared, own, skip, part)
            check_finite(own, one.nets[0].name, batch.ids)
            missing = own <= FLOOR if missing is None else missing
            to_probabilities(own, self.is_multilabel)
            out += own
        out *= np.float32(1 / len(member.nets))
        assert missing is not None
        to_logits(out, self.is_multilabel, missing)

    def _add_views(
        self,
        member: Member,
        batch: Batch,
        prepared: list[Prepared],
        out: NDArray[np.float32],
        skip: Collection[int],
        part: int,
    ) -> None:
        """Make ``out``, a member's logits of the images themselves, the mean over all views."""
        as_shares, several = self.view_mean != VIEW_MEANS[0], self.is_multilabel or member.is_set
        missing = out <= FLOOR if as_shares else np.empty(0, np.bool_)
        planes = out.reshape(*out.shape[:2], *batch.size)
        if as_shares:
            check_finite(out, member.name, batch.ids)
            to_probabilities(out, several)
        counts = np.ones(batch.size, np.float32)
        for view, inputs in zip(self.views[1:], prepared[1:], strict=True):
            sides = view.sides(batch.size)
            seen = np.empty((*out.shape[:2], sides[0] * sides[1]), np.float32)
            member.run(view.of(batch.pixels), inputs, seen, skip, part)
            if as_shares:
                check_finite(seen, member.name, batch.ids)
                to_probabilities(seen, several)
            view.add_to(planes, seen.reshape(*out.shape[:2], *sides))
            view.count_on(counts)
        planes *= 1 / counts
        if as_shares:
            to_logits(out, several, missing)

    def check_size(self, size: tuple[int, int], channels: int) -> None:
        """Refuse images that a member does not take, or not in one of its views.

        Args:
            size: (height, width).
            channels: channels of an image.

        Raises:
            InputError: wrong size or number of channels.
            PlanError: a view of another size than a member takes.
        """
        for net in self.nets:
            check_sample(net, (*size, channels))
            check_views(net, self.views, size)

    def member_logits(self, index: int, batch: Batch, skip: Collection[int] = ()) -> NDArray[np.float32]:
        """Return one member's float32 (batch, classes, pixels) logits; errors as :meth:`logits`."""
        out = np.empty((len(batch.ids), len(self.classes), batch.size[0] * batch.size[1]), np.float32)
        self._run_member(index, batch, [{} for _ in self.views], out, skip)
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
        found = self.explain(logits, variant, size, None, clean)
        return found.labels, found.ties

    def explain(
        self,
        logits: NDArray[np.float32],
        variant: Variant,
        size: tuple[int, int],
        evidence: Evidence | None,
        clean: bool = True,
    ) -> Decoded:
        """Return labels as :meth:`decode` does, with evidence for them as they are before the clean-up."""
        if self.is_multilabel:
            return self._decode_each_class(logits, variant, size, evidence, clean)
        if variant.decoding.suppress:
            for index, member in enumerate(self.members):
                if member.is_set:
                    logits[self._slot[index]][:, sorted(variant.decoding.suppress)] = FLOOR
        if variant.member is None:
            fused = fuse(logits, variant.strategy, self._slot_weights, variant.decoding, evidence)
        else:
            slot = self._slot[variant.member]
            fused = fuse(logits[slot : slot + 1], variant.strategy, None, variant.decoding, evidence)
        labels = cleaned(fused.labels, variant.decoding, size) if clean else fused.labels
        return Decoded(labels, int(fused.ties.sum()), fused.shown)

    def _decode_each_class(
        self,
        logits: NDArray[np.float32],
        variant: Variant,
        size: tuple[int, int],
        evidence: Evidence | None,
        clean: bool,
    ) -> Decoded:
        """Fuse and decode each class against its absence."""
        _, batch, classes, pixels = logits.shape
        labels, ties = np.empty((batch, classes, pixels), np.uint8), 0
        scores = np.empty(labels.shape, evidence.scores) if evidence and evidence.scores else None
        for class_id in range(classes):
            weights = np.repeat(self._slot_weights[:, class_id : class_id + 1], 2, axis=1)
            fused = fuse(pairs(logits, class_id), variant.strategy, weights, variant.decoding, evidence)
            labels[:, class_id] = cleaned(fused.labels, variant.decoding, size) if clean else fused.labels
            ties += int(fused.ties.sum())
            if scores is not None and fused.shown.scores is not None:
                scores[:, class_id] = fused.shown.scores[:, 1]
        return Decoded(labels.reshape(batch, -1), ties, Shown(scores))

    def _buffer(self, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
        size = int(np.prod(shape))
        held: NDArray[np.float32] | None = getattr(self._scratch, "logits", None)
        if held is None or held.size < size:
            held = self._scratch.logits = np.empty(size, np.float32)
        return held[:size].reshape(shape)
