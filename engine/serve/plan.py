"""A plan that stays open: raw images in, masks and evidence out. Nothing here knows of HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, InputError, PlanError
from engine.fusion.evidence import Evidence
from engine.fusion.fuse import fuse
from engine.inference.batch_work import BatchWork
from engine.inference.ensemble import Ensemble
from engine.inference.evidence import check_evidence
from engine.inference.on_device import Tuned
from engine.inference.prediction import BadImages, Predicted
from engine.inference.retry import attempt
from engine.inference.tuning import BATCH_SIZE, ToCome, make_ready, most_images
from engine.models.net import check_range
from engine.models.runtimes import RuntimeOptions
from engine.models.views import check_views
from engine.runs.opened import open_ensemble
from engine.runs.options import Options, planned, reading_of
from engine.runs.plan_input import InputTable
from engine.runs.provenance import plan_hash
from engine.serve.one_shape import OneShape
from engine.sources.base import Batch
from engine.sources.layout import layout_of
from engine.sources.reading import Reading, grey

PLAN_SUFFIX = ".toml"
# What messages call the images of a request.
UPLOAD = "upload"
# Kinds of dtype that images may have.
KINDS = "buif"


@dataclass(frozen=True)
class Answer:
    """The result for one image.

    Attributes:
        mask: uint8 (height, width), as ``engine ensemble`` writes it; multi-label: (classes, height, width).
        scores: (classes, height, width) probabilities; None if they were not asked for.
        doubt: (height, width); None if it was not asked for.
    """

    mask: NDArray[np.uint8]
    scores: NDArray[Any] | None = None
    doubt: NDArray[Any] | None = None


class ServedPlan:
    """An open plan; any number of threads may call it.

    Attributes:
        name: of the model, for clients.
        ensemble: the open members and how they are fused.
        reading: how images are read.
        workers: how many batches should run at once.
        batch_size: images per batch, where they are small.
        sha256: hash of the resolved plan: two servers with the same hash give the same labels.
        told: what was chosen for this machine, for people.
    """

    def __init__(self, name: str, ensemble: Ensemble, reading: Reading, tuned: Tuned, batch_size: int = 0) -> None:
        """Serve an ensemble that is ready to run.

        Args:
            name: of the model, for clients.
            ensemble: the open members and how they are fused.
            reading: how images are read.
            tuned: how they run best on this machine.
            batch_size: images per batch of any size; 0 for fewer where they are large.
        """
        self.name, self.ensemble, self.reading = name, ensemble, reading
        self.workers, self.told = tuned.workers, tuple(tuned.told)
        self._fixed = bool(batch_size) or ensemble.device is not None
        self.batch_size = batch_size or (tuned.batch_size if self._fixed else BATCH_SIZE)
        self.sha256 = plan_hash(ensemble)
        self._works: dict[Evidence, BatchWork] = {}
        self._shown: dict[Evidence, PlanError | None] = {}
        self._opening = threading.Lock()
        self._one_shape = OneShape()

    @classmethod
    def open(
        cls,
        plan: str | Path,
        *,
        name: str = "",
        runtime_options: RuntimeOptions | None = None,
        batch_size: int = 0,
        workers: int = 0,
        grey_as_rgb: bool = False,
        image_layout: str = "",
    ) -> ServedPlan:
        """Open a plan's members once, measure how they run best, and compile what they need.

        Args:
            plan: an ensemble.toml; an .onnx file, a folder or a glob is a plan without further statements.
            name: what clients call the model; the file's name without its suffix by default.
            runtime_options: provider, runtime and precision; None for the defaults of ``engine ensemble``.
            batch_size: images per batch; 0 to choose.
            workers: batches that run at once; 0 for one per core.
            grey_as_rgb: allow grey images for nets of three channels.
            image_layout: axes of arrays, where their shape leaves them open.

        Raises:
            EngineError: the plan or a member cannot be opened or trusted.
        """
        path = Path(plan)
        named = {"plan": path} if path.suffix.lower() == PLAN_SUFFIX else {"models": (str(plan),)}
        options = Options(**named, grey_as_rgb=grey_as_rgb, image_layout=image_layout)
        read = planned(options)
        assert read is not None
        reading = reading_of(read, options)
        ensemble = open_ensemble(read, options, None)
        for net in ensemble.nets:
            if net.contract.size is not None and not net.contract.fit:
                check_views(net, ensemble.views, net.contract.size)
        tuned = make_ready(ensemble, None, runtime_options or RuntimeOptions(), batch_size, workers, to_come=ToCome())
        return cls(name or path.stem or "ensemble", ensemble, reading, tuned, batch_size)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes, in label order."""
        return self.ensemble.classes

    @property
    def values(self) -> list[int]:
        """Return what masks hold for each class, in label order: its number, or the id that the plan states."""
        table = self.ensemble.coding.output_table
        count = len(self.classes)
        return list(range(count)) if table is None else [int(value) for value in table[:count]]

    @property
    def input(self) -> InputTable:
        """Return what the plan states about images."""
        return InputTable(**self.ensemble.input_facts)

    def batch_of(self, size: tuple[int, int]) -> int:
        """Return how many images of (height, width) go into a batch at most."""
        return self.batch_size if self._fixed else min(self.batch_size, most_images(size))

    def bytes_per_pixel(self, channels: int, itemsize: int) -> int:
        """Return about how much memory a pixel takes while its image is predicted: raw, prepared, logits, scores.

        What nets take inside is not known; 64 maps in float32 are a guess that holds for most.
        """
        maps = (len(self.ensemble.members) + 2) * len(self.classes) + channels + 64
        return channels * itemsize + 4 * maps

    def arranged(self, array: NDArray[Any]) -> tuple[NDArray[Any], bool]:
        """Return an array as images (n, height, width, channels), and whether it is one image alone.

        Raises:
            InputError: an impossible shape, or no numbers.
        """
        if array.dtype.kind not in KINDS:
            raise InputError(f"{UPLOAD} holds {array.dtype}; bool, whole numbers or floats are needed")
        layout = layout_of(array.shape, "images", UPLOAD, reading=self.reading, scene=array.ndim == 2)
        return self._grey(layout.arrange(array[None] if layout.alone else array)), layout.alone

    def check(self, images: NDArray[Any]) -> None:
        """Refuse images (n, height, width, channels) that a member does not take.

        Raises:
            InputError: a size, a number of channels or a range of values that does not fit.
            PlanError: a view of another size than a member takes.
        """
        self.ensemble.check_size(images.shape[1:3], images.shape[3])
        check_range(images, self.ensemble.nets)

    def check_shown(self, evidence: Evidence) -> None:
        """Refuse evidence that the ensemble cannot give; an answer is kept.

        Raises:
            PlanError: saying why.
        """
        if evidence not in self._shown:
            try:
                check_evidence(self.ensemble, evidence)
                self._try(evidence)
                self._shown[evidence] = None
            except PlanError as error:
                self._shown[evidence] = error
        refused = self._shown[evidence]
        if refused is not None:
            raise PlanError(str(refused))

    def shows(self, evidence: Evidence) -> bool:
        """Return whether the ensemble can give this evidence."""
        try:
            self.check_shown(evidence)
        except PlanError:
            return False
        return True

    def _try(self, evidence: Evidence) -> None:
        """Fuse a few zeros: a strategy may keep no scores; what is compiled for it is compiled then."""
        if not self.ensemble.is_multilabel:
            held = self.ensemble.variant
            zeros = np.zeros((len(self.ensemble.members), 1, len(self.classes), 8), np.float32)
            fuse(zeros, held.strategy, None, held.decoding, evidence)

    def work(self, evidence: Evidence) -> BatchWork:
        """Return what predicts batches with this evidence.

        Raises:
            PlanError: evidence that the ensemble cannot give.
        """
        with self._opening:
            if evidence not in self._works:
                self._works[evidence] = self.ensemble.batch_work(evidence)
            return self._works[evidence]

    def predict(self, images: NDArray[Any], evidence: Evidence | None = None) -> list[Answer | EngineError]:
        """Predict one batch in the calling thread.

        Args:
            images: raw pixels (n, height, width, channels) of one size and dtype, checked.
            evidence: what to show beside the masks; None for nothing.

        Returns:
            An answer for each image; for one that a member computes NaN or infinity for, the error that says so.

        Raises:
            EngineError: a member fails, for all of them.
        """
        work = self.work(evidence or Evidence())
        batch = Batch(0, [str(index) for index in range(len(images))], images)
        alone = self._one_shape.of((images.shape[1:], images.dtype)) if work.device is not None else nullcontext()
        with alone:
            found = attempt(work, batch, None, BadImages())
        answers: list[Answer | EngineError] = [InputError("")] * len(images)
        for index, name in enumerate(found.ids):
            answers[int(name)] = self._answer(found, index, batch.size)
        for _, name, reason in found.skipped:
            answers[int(name)] = InputError(f"{reason} for this image: repair it")
        return answers

    def predict_each(self, images: Sequence[NDArray[Any]], evidence: Evidence | None = None) -> list[Answer]:
        """Predict images (height, width, channels) or (height, width) of any sizes, those of one shape together.

        Raises:
            EngineError: an image that does not fit the members, or a member that fails.
        """
        held = [self._grey(image[None, :, :, None] if image.ndim == 2 else image[None]) for image in images]
        groups: dict[object, list[int]] = {}
        for index, image in enumerate(held):
            self.check(image)
            groups.setdefault((image.shape, image.dtype), []).append(index)
        answers: dict[int, Answer] = {}
        for group in groups.values():
            size = self.batch_of(held[group[0]].shape[1:3])
            for start in range(0, len(group), size):
                part = group[start : start + size]
                found = self.predict(np.concatenate([held[index] for index in part]), evidence)
                for index, answer in zip(part, found, strict=True):
                    if isinstance(answer, EngineError):
                        raise answer
                    answers[index] = answer
        return [answers[index] for index in range(len(images))]

    def _grey(self, images: NDArray[Any]) -> NDArray[Any]:
        return grey(images) if self.reading.rgb_as_grey and images.shape[3] == 3 else images

    def _answer(self, found: Predicted, index: int, size: tuple[int, int]) -> Answer:
        shape = (len(self.classes), *size) if self.ensemble.is_multilabel else size
        mask = found.labels[index].reshape(shape)
        table = None if self.ensemble.is_multilabel else self.ensemble.coding.output_table
        scores, doubt = found.shown.scores, found.shown.doubt
        return Answer(
            mask if table is None else table[mask],
            None if scores is None else scores[index].reshape(-1, *size),
            None if doubt is None else doubt[index].reshape(size),
        )
