"""The pool to select from: its members' stored log-probabilities, the ground truth, and the scene of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.fusion.calibration import Calibration
from engine.fusion.cleanup import least_probable, thresholds_of
from engine.fusion.decoding import Decoding
from engine.fusion.evidence import Evidence, Shown
from engine.fusion.fuse import fuse
from engine.fusion.regions import cleaned
from engine.metrics import VOID, confusion_matrices
from engine.models.members import FLOOR, Member
from engine.select.ragged import Ragged, one_size
from engine.sources.coding import PLAIN, LabelCoding
from engine.utils.threads import available_cores

BATCH = 8
Stored = NDArray[Any] | Ragged[Any]


@dataclass(frozen=True)
class Choice:
    """One ensemble of members of the pool.

    Attributes:
        strategy: fusion strategy.
        counts: how often it contains each member of the pool: the member's weight; 0 omits it.
        decoding: suppression, bias, threshold, clean-up.
        score: its score in the search; NaN if it was not scored there.
        calibrations: one per member of the pool; empty for none.
        views: a key of :attr:`Pool.viewed`; empty for the views of :attr:`Pool.logs`.
    """

    strategy: str
    counts: tuple[int, ...]
    decoding: Decoding
    score: float = float("nan")
    calibrations: tuple[Calibration, ...] = ()
    views: str = ""

    @property
    def members(self) -> list[int]:
        """Return the indices of the participating members."""
        return [index for index, count in enumerate(self.counts) if count]

    @property
    def weights(self) -> list[float]:
        """Return the weight of each participating member."""
        return [float(count) for count in self.counts if count]


@dataclass(frozen=True)
class Pool:
    """All data of a selection.

    Attributes:
        members: the members, in the given order.
        logs: log-probabilities of each member, float16 (images, classes, pixels).
        truth: uint8 (images, pixels).
        groups: int64 (images,) scene of each image, or None.
        size: (height, width) of an image.
        classes: names of the classes.
        ignored_class: the class excluded from scores, or None.
        suppress: classes that are never predicted.
        void: what is void in the truth, in words.
        coding: how the truth is stored, for the plan.
        sizes: (height, width) of each image where they differ; empty where all have ``size``. Truth and
            log-probabilities are :class:`engine.select.ragged.Ragged` then.
        voters: indices of the members that output labels: 1 for the class of a label, before the softmax.
        views: what the members also ran on for ``logs``, as :func:`engine.models.views.told_views` names it.
        viewed: log-probabilities as ``logs`` of members that ran on other views, by these.
    """

    members: Sequence[Member]
    logs: Sequence[Stored]
    truth: NDArray[np.uint8] | Ragged[np.uint8]
    groups: NDArray[np.int64] | None
    size: tuple[int, int]
    classes: tuple[str, ...]
    ignored_class: int | None
    suppress: frozenset[int]
    void: str = str(VOID)
    coding: LabelCoding = PLAIN
    sizes: Sequence[tuple[int, int]] = ()
    voters: frozenset[int] = frozenset()
    views: str = "none"
    viewed: Mapping[str, Sequence[Stored]] = field(default_factory=dict)

    def size_of(self, tiles: NDArray[np.int64]) -> tuple[int, int]:
        """Return the (height, width) of images that have one size."""
        return self.sizes[int(tiles[0])] if self.sizes and len(tiles) else self.size

    @property
    def decoding(self) -> Decoding:
        """Return the decoding a search starts from."""
        return Decoding(self.suppress, vote_stage="fused" if self.voters and self.suppress else "members")

    @property
    def standing(self) -> list[int]:
        """Return the members that can be an ensemble alone: a label has no second choice for a suppressed class."""
        return [index for index in range(len(self.members)) if not (self.suppress and index in self.voters)]

    @property
    def everyone(self) -> Choice:
        """Return the mean of all members; their vote where one of them outputs labels."""
        return Choice("vote" if self.voters else "mean-prob", (1,) * len(self.members), self.decoding)

    def floored(self, member: int, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a member's logits (..., classes, pixels) as the pipeline decodes them.

        If a class is suppressed, a set of specialists is decoded as if that class's net had not run; in place.
        """
        if self.suppress and self.members[member].is_set:
            logits[..., sorted(self.suppress), :] = FLOOR
        return logits

    def labels(self, choice: Choice, tiles: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return uint8 (tiles, pixels) from the stored log-probabilities, by the engine's own fusion and decoding.

        The images must have one size.
        """
        return self.explained(choice, tiles)[0]

    def explained(
        self, choice: Choice, tiles: NDArray[np.int64], evidence: Evidence | None = None
    ) -> tuple[NDArray[np.uint8], Shown]:
        """Return :meth:`labels` with the evidence for them that is asked for, as it is before the clean-up."""
        fused = fuse(self._picked(choice, tiles), choice.strategy, choice.weights, choice.decoding, evidence)
        return cleaned(fused.labels, choice.decoding, self.size_of(tiles)), fused.shown

    def _finished(
        self, decodings: Sequence[Decoding], choice: Choice, tiles: NDArray[np.int64]
    ) -> list[NDArray[np.uint8]]:
        """Return the labels of a choice, whose members are fused once, under decodings that differ in the clean-up."""
        # No label depends on the temperature of written probabilities.
        own = replace(decodings[0], min_region=0, cleanup=(), temperature=1.0)
        evidence = Evidence("float32") if any(decoding.has_thresholds for decoding in decodings) else None
        fused = fuse(self._picked(choice, tiles), choice.strategy, choice.weights, own, evidence)
        found = []
        for decoding in decodings:
            labels = fused.labels
            if decoding.has_thresholds and fused.shown.scores is not None:
                least = thresholds_of(decoding.cleanup, len(self.classes))
                labels = least_probable(fused.shown.scores, labels, least)
            found.append(cleaned(labels, decoding, self.size_of(tiles)))
        return found

    def _picked(self, choice: Choice, tiles: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 (members of the choice, tiles, classes, pixels), calibrated as the choice says."""
        logs = self.viewed[choice.views] if choice.views else self.logs
        picked = [self.floored(m, logs[m][tiles].astype(np.float32)) for m in choice.members]
        for place, member in enumerate(choice.members if choice.calibrations else ()):
            choice.calibrations[member].apply(picked[place])
        return np.stack(picked)

    def confusions(self, choice: Choice, tiles: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return int64 (tiles, classes, classes), one matrix per image, over all its pixels.

        Args:
            choice: the ensemble.
            tiles: indices of the images; None for all.
        """
        return self.cleaned_confusions(choice, [choice.decoding], tiles)[0]

    def cleaned_confusions(
        self, choice: Choice, decodings: Sequence[Decoding], tiles: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Return int64 (decodings, tiles, classes, classes): :meth:`confusions` under decodings of another clean-up."""
        wanted = np.arange(len(self.truth)) if tiles is None else tiles

        def work(part: NDArray[np.int64]) -> NDArray[np.int64]:
            found = self._finished(decodings, choice, part)
            return np.stack([confusion_matrices(self.truth[part], labels, len(self.classes)) for labels in found])

        parts = one_size(wanted, self.sizes, BATCH)
        with ThreadPoolExecutor(available_cores()) as pool:
            return np.concatenate(list(pool.map(work, parts)), axis=1)
