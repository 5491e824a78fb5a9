"""The main job on one page: images -> sessions -> fuse -> decode -> masks."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.decode import Decoding
from engine.early_exit import EarlyExit
from engine.errors import PlanError
from engine.flips import flipped, named_flips
from engine.flow import available_cores as available_cores
from engine.fuse import check_finite, fuse, normalised_weights
from engine.gpu import DeviceFusion
from engine.images import Batch, Source, from_array
from engine.labels import check_match
from engine.members import FLOOR, Prepared, Voter, class_names, class_number, find_models, gather, ignored_class
from engine.prediction import Variant
from engine.regions import cleaned
from engine.runtimes import Wanted
from engine.sessions import Member, check_sample, open_member
from engine.strategies import named_strategy
from engine.stream import Stream
from engine.ways import Way

BATCH_SIZE = 4


class Ensemble:
    """A set of segmentation nets, a fusion strategy and a decoding.

    Attributes:
        members: multi-class nets and specialist sets, in the order given.
        classes: names of the classes.
        ignored_class: the class the members leave out of the score, or None.
        variant: the ensemble's own strategy and decoding.
        weights: float64 (members, classes), columns summing to 1.
        fusion_order: indices of the members in the order in which they are summed.
        parts: how many images of a batch each member takes at a time; 0 for all of them.
        device: fuses batches on a GPU, see :mod:`engine.gpu`; None to fuse on the CPU.
        wanted: which arithmetic and runtimes are allowed, see :mod:`engine.tuning`.
    """

    def __init__(
        self,
        members: Sequence[Voter],
        strategy: str = "mean-logit",
        weights: ArrayLike | None = None,
        suppress: Collection[int] | None = None,
        flips: str = "none",
        early_exit: EarlyExit | None = None,
        **decoding: Any,
    ) -> None:
        """Put an ensemble together.

        Args:
            members: what :func:`engine.members.gather` returned.
            strategy: a name out of :data:`engine.strategies.STRATEGIES`.
            weights: one weight a member, or a row of one a class; None for equal ones.
            suppress: classes never predicted; None for the ignored class the contracts declare.
            flips: ``none``, ``horizontal``, ``vertical`` or ``both``: mirror images a member sees too.
            early_exit: let images leave before all members ran on them, see :mod:`engine.early_exit`; None for never.
            **decoding: further fields of :class:`engine.decode.Decoding`: ``threshold``, ``bias``, ``prior``,
                ``vote_stage``, ``min_region``.

        Raises:
            PlanError: unknown strategy or flips, impossible weights or decoding.
        """
        self.members = list(members)
        self.classes = class_names(self.members)
        self.ignored_class = ignored_class(self.members)
        named_strategy(strategy)
        if self.is_packed:
            _check_untouched(self.members[0].name, strategy, weights, suppress, flips, decoding)
            suppress = ()
        if suppress is None:
            suppress = () if self.ignored_class is None else (self.ignored_class,)
        self.variant = Variant(strategy, Decoding(frozenset(suppress), **decoding), 0 if self.is_packed else None)
        self.variant.decoding.rule(len(self.classes), log_domain=True)
        self.flips = named_flips(flips)
        self.early_exit = early_exit
        if early_exit is not None:
            early_exit.check(strategy, self.variant.decoding)
        self.weights = normalised_weights(weights, len(self.members), len(self.classes))
        # Members are summed in the order of their checksums: the order of the command line never shows in a result.
        self.fusion_order = sorted(range(len(self.members)), key=lambda index: self.members[index].checksum)
        self._slot = {index: slot for slot, index in enumerate(self.fusion_order)}
        self._slot_weights = self.weights[self.fusion_order]
        self.parts = [0] * len(self.members)
        self.wanted = Wanted("cpu")
        self.device: DeviceFusion | None = None
        self._scratch = threading.local()

    @property
    def nets(self) -> list[Member]:
        """Return the opened files of all members."""
        return [net for voter in self.members for net in voter.nets]

    @property
    def is_packed(self) -> bool:
        """Return whether the one member is a packed ensemble, which puts out labels."""
        return self.members[0].contract.kind == "packed"

    @classmethod
    def open(
        cls,
        models: str | Path | Sequence[str | Path],
        *,
        sample: NDArray[Any] | None = None,
        stated: Mapping[str, Any] | None = None,
        suppress: Collection[int | str] | None = None,
        grey_as_rgb: bool = False,
        **options: Any,
    ) -> Ensemble:
        """Open files, folders or globs of ONNX models as one ensemble.

        Args:
            models: what to open.
            sample: one raw image (height, width, channels); needed for foreign files, checked against all members.
            stated: contract fields for files that carry no contract.
            suppress: classes never predicted, by id or name; None for the ignored class the contracts declare.
            grey_as_rgb: let nets of three channels take grey images.
            **options: further arguments of the constructor: ``strategy``, ``weights``, ``flips``, ``bias`` and so on.

        Raises:
            EngineError: a file cannot be opened or trusted, members disagree, an option is impossible.
        """
        specs = [models] if isinstance(models, str | Path) else list(models)
        opened = [open_member(path, stated, sample, grey_as_rgb=grey_as_rgb) for path in find_models(specs)]
        return cls.of(opened, suppress=suppress, **options)

    @classmethod
    def of(cls, opened: Sequence[Member], suppress: Collection[int | str] | None = None, **options: Any) -> Ensemble:
        """Make an ensemble of opened files; arguments as in :meth:`open`."""
        if not opened:
            raise PlanError("no models: name at least one")
        names = class_names(opened)
        if suppress is None:
            ids = {member.contract.ignored_class for member in opened} - {None}
        else:
            ids = {class_number(item, names) for item in suppress}
        chosen = [item for item in sorted(ids, key=str) if item is not None]
        return cls(gather(opened, chosen), suppress=None if suppress is None else chosen, **options)

    def predict(self, images: NDArray[Any], batch_size: int = BATCH_SIZE, workers: int = 0) -> NDArray[np.uint8]:
        """Return the masks of images in memory.

        Args:
            images: raw pixels (n, height, width) or (n, height, width, channels).
            batch_size: images a worker takes at a time.
            workers: threads; 0 for one a core.

        Returns:
            uint8 (n, height, width).

        Raises:
            EngineError: images the members cannot take, or a member that fails.
        """
        source = from_array(images, "images", "images")
        masks = np.empty((len(source), *source.size), np.uint8)
        for part in self.stream(source, batch_size=batch_size, workers=workers):
            masks[part.start : part.start + len(part.ids)] = part.labels.reshape(-1, *source.size)
        return masks

    def stream(
        self,
        images: Source,
        labels: Source | None = None,
        variants: Sequence[Variant] = (),
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
    ) -> Stream:
        """Return the batches' predictions in the images' order, to iterate over once; memory does not grow with them.

        Args:
            images: where the images come from.
            labels: true label maps of the same images; None for no scores.
            variants: further ways to decode, scored beside the ensemble's own when labels are given; none are with
                early exit, since not every member runs on every image.
            batch_size: images a worker takes at a time.
            workers: threads; 0 for one a core.

        Raises:
            EngineError: images or labels that do not fit, or a member that fails.
        """
        if batch_size < 1 or workers < 0:
            raise PlanError(f"batch size {batch_size}, workers {workers}: at least 1 image, and 0 or more workers")
        for net in self.nets:
            check_sample(net, (*images.size, images.channels))
        if labels is not None:
            check_match(images, labels)
        return Stream(self, images, labels, variants, batch_size, workers or available_cores())

    def logits(
        self, batch: Batch, skip: Collection[int] = (), ended: threading.Event | None = None
    ) -> tuple[NDArray[np.float32], list[float]]:
        """Run every member on a batch.

        Args:
            batch: the images.
            skip: classes whose specialists need not run.
            ended: once it is set, the run is given up before the next member.

        Returns:
            float32 (members, batch, classes, pixels), valid until this thread's next call, in the internal order of
            members; and the seconds of each member.

        Raises:
            ModelError: a member fails or computes NaN or infinity.
            CancelledError: the run was given up.
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
        """Run one member on a batch and on its mirror images; the mean of the logits, turned back, goes to ``out``."""
        voter, part = self.members[index], self.parts[index]
        voter.run(batch.pixels, prepared[0], out, skip, part)
        planes = out.reshape(*out.shape[:2], *batch.pixels.shape[1:3])
        for flip, inputs in zip(self.flips[1:], prepared[1:], strict=True):
            mirrored = np.empty_like(out)
            voter.run(flipped(batch.pixels, flip, rows=1), inputs, mirrored, skip, part)
            planes += flipped(mirrored.reshape(planes.shape), flip, rows=2)
        if len(self.flips) > 1:
            out *= np.float32(1 / len(self.flips))
        check_finite(out, voter.name, batch.ids)

    def member_logits(self, index: int, batch: Batch, skip: Collection[int] = ()) -> NDArray[np.float32]:
        """Return one member's float32 (batch, classes, pixels) logits; errors as :meth:`logits`."""
        out = np.empty((len(batch.ids), len(self.classes), batch.size[0] * batch.size[1]), np.float32)
        self._run_member(index, batch, [{} for _ in self.flips], out, skip)
        return out

    def use(self, index: int, way: Way) -> None:
        """Let a member run in another way: in another runtime, or on another number of images at a time."""
        self.members[index] = way.of(self.members[index])
        self.parts[index] = way.part

    def interrupt(self) -> None:
        """Make all runs of the members fail soon, those under way among them."""
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

        ``clean=False`` leaves out the clean-up of small regions. Where the variant suppresses a class, specialist sets
        count as if that class's net had not run.
        """
        if variant.decoding.suppress:
            for index, voter in enumerate(self.members):
                if voter.is_set:
                    logits[self._slot[index]][:, sorted(variant.decoding.suppress)] = FLOOR
        if variant.member is None:
            fused = fuse(logits, variant.strategy, self._slot_weights, variant.decoding)
        else:
            slot = self._slot[variant.member]
            fused = fuse(logits[slot : slot + 1], variant.strategy, None, variant.decoding)
        labels = cleaned(fused.labels, variant.decoding, size) if clean else fused.labels
        return labels, int(fused.ties.sum())

    def _buffer(self, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
        size = int(np.prod(shape))
        held: NDArray[np.float32] | None = getattr(self._scratch, "logits", None)
        if held is None or held.size < size:
            held = self._scratch.logits = np.empty(size, np.float32)
        return held[:size].reshape(shape)


def _check_untouched(
    name: str, strategy: str, weights: object, suppress: object, flips: str, decoding: Mapping[str, Any]
) -> None:
    """Refuse to fuse what a packed file has fused already."""
    given = weights is not None or suppress is not None or (strategy, flips) != ("mean-logit", "none")
    if given or Decoding(**{**decoding, "min_region": 0}) != Decoding():
        raise PlanError(
            f"{name} is a packed ensemble: strategy, weights, suppression and biases are built in; "
            "leave those options out, or name its members instead"
        )
