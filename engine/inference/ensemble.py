"""The main path in one file: images -> sessions -> fuse -> decode -> masks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import PlanError
from engine.fusion.calibration import Calibration
from engine.fusion.decoding import Decoding
from engine.fusion.doubt import DEFAULT_DOUBT, UNKNOWN, Unknown
from engine.fusion.evidence import Evidence
from engine.fusion.fuse import normalised_weights
from engine.fusion.strategies import STRATEGIES, named_strategy
from engine.inference.arguments import (
    LABEL_STRATEGIES,
    check_all_run,
    check_calibrations,
    check_label_members,
    check_multilabel,
    check_untouched,
    cleanup_of,
    views_of,
)
from engine.inference.batch_work import BatchWork
from engine.inference.device import DeviceFusion
from engine.inference.early_exit import EarlyExit
from engine.inference.evidence import Prediction, check_evidence
from engine.inference.forward import Forward
from engine.inference.prediction import Variant
from engine.inference.stream import Stream
from engine.models.facts import stated_facts
from engine.models.fields import TYPES
from engine.models.folds import fold_member
from engine.models.members import (
    Member,
    class_names,
    class_number,
    find_models,
    gather,
    ignored_class,
    known_classes,
    label_members,
)
from engine.models.net import Net
from engine.models.opening import Request, open_nets
from engine.models.runtimes import RuntimeOptions
from engine.models.views import VIEW_MEANS
from engine.sources.base import Source, from_array
from engine.sources.coding import PLAIN
from engine.sources.labels import check_match
from engine.utils.threads import available_cores

BATCH_SIZE = 4
ENSEMBLE_OPTIONS = frozenset(
    (
        "strategy",
        "weights",
        "flips",
        "views",
        "view_mean",
        "early_exit",
        "threshold",
        "bias",
        "prior",
        "vote_stage",
        "min_region",
        "cleanup",
        "decode",
        "temperature",
        "calibrations",
        "unknown",
    )
)
CONTRACT_FIELDS = (
    frozenset((*TYPES, "output_name", "normalize"))
    - ENSEMBLE_OPTIONS
    - {"notes", "architecture", "version", "temperature", "held_out"}
)


class Ensemble(Forward):
    """A set of segmentation nets, a fusion strategy and a decoding.

    Attributes:
        ignored_class: the class that the members exclude from the score, or None.
        early_exit: when an image is done before all members ran on it; None for never.
        unknown: which pixels are too doubtful for a label; None for none.
        device: runs batches through one graph, see :mod:`engine.inference.device`; None for the members' own sessions
            and the CPU's kernels.
        sessions_elsewhere: opens the members' nets on the provider, for runs that need their logits; None where they
            are open already.
        runtime_options: the allowed precision and runtimes, see :mod:`engine.inference.tuning`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        strategy: str = "mean-logit",
        weights: ArrayLike | None = None,
        suppress: Collection[int] | None = None,
        views: str | Sequence[str] = "none",
        early_exit: EarlyExit | None = None,
        calibrations: Sequence[Calibration] = (),
        unknown: Unknown | float | None = None,
        view_mean: str = VIEW_MEANS[0],
        flips: str = "none",
        **decoding: Any,
    ) -> None:
        """Create an ensemble.

        Args:
            members: the result of :func:`engine.models.members.gather`.
            strategy: a name from :data:`engine.fusion.strategies.STRATEGIES`.
            weights: one weight per member, or one per member and class; None for equal ones.
            suppress: classes never predicted; None for the ignored class the contracts declare.
            views: what members also run on: ``horizontal``, ``vertical``, ``both``, ``d4`` or single names, see
                :func:`engine.models.views.named_views`.
            early_exit: stop for images before all members ran on them, see
                :mod:`engine.inference.early_exit`; None for never.
            calibrations: temperature and bias of each member's logits, see :mod:`engine.fusion.calibration`.
            unknown: which pixels are too doubtful for a label: a number is the most entropy (0 to 1) of a label.
            view_mean: what of the views is averaged, ``logits`` or ``probabilities``.
            flips: the same as ``views``, for mirror images.
            **decoding: further fields of :class:`engine.fusion.decoding.Decoding`: ``threshold``, ``bias``, ``prior``,
                ``vote_stage``, ``min_region``, ``decode``, ``temperature``; and ``cleanup``, from a class (name or
                id) to its ``threshold``, ``min_region``, ``largest`` and ``fill_holes``, see
                :mod:`engine.fusion.cleanup`.

        Raises:
            PlanError: unknown strategy or views, impossible weights or decoding.
        """
        members = list(members)
        names, ignored = class_names(members), ignored_class(members)
        named_strategy(strategy)
        seen = views_of(views, flips, view_mean)
        if isinstance(table := decoding.get("cleanup", ()), Mapping):
            decoding["cleanup"] = cleanup_of(table, names)
        packed = members[0].contract.kind == "packed"
        if packed:
            check_untouched(members[0].name, strategy, weights, suppress, seen, decoding)
            suppress = ()
        labels_alone = len(label_members(members)) == len(members)
        if suppress is None:
            suppress = () if ignored is None or labels_alone else (ignored,)
        check_label_members(members, strategy, suppress, seen, decoding)
        if members[0].contract.kind == "multilabel":
            check_multilabel(suppress, decoding, early_exit)
            suppress, ignored = (), None
        variant = Variant(strategy, Decoding(frozenset(suppress), **decoding), 0 if packed else None)
        variant.decoding.rule(len(names), log_domain=True)
        known = known_classes(members, len(names))
        calibrations = list(calibrations) if any(calibrations) else []
        check_calibrations(members, calibrations, len(names))
        table = normalised_weights(weights, len(members), len(names), known)
        super().__init__(members, names, variant, table, seen, calibrations, view_mean)
        self.ignored_class = ignored
        self.coding = PLAIN
        self.early_exit = early_exit
        if early_exit is not None:
            early_exit.check(strategy, variant.decoding)
            check_all_run(members)
        self.unknown = Unknown(unknown) if isinstance(unknown, int | float) else unknown
        self.runtime_options = RuntimeOptions("cpu")
        # What is stated about the images, part of the run's record: it decides the labels as much as the members do.
        self.input_facts: Mapping[str, Any] = {}
        self.device: DeviceFusion | None = None
        self.sessions_elsewhere: Callable[[], None] | None = None

    @classmethod
    def open(
        cls,
        models: str | Path | Sequence[str | Path | Sequence[str | Path]],
        *,
        sample: NDArray[Any] | None = None,
        stated: Mapping[str, Any] | None = None,
        suppress: Collection[int | str] | None = None,
        grey_as_rgb: bool = False,
        **options: Any,
    ) -> Ensemble:
        """Open files, folders or globs of ONNX models as one ensemble.

        Args:
            models: files, folders or globs; a list among them names the nets of a cross-validation, which count as one
                member, see :mod:`engine.models.folds`.
            sample: one raw image (height, width, channels); needed for foreign files; checked against all members.
            stated: contract fields that the files do not contain.
            suppress: classes never predicted, by id or name; None for the ignored class the contracts declare.
            grey_as_rgb: allow grey images for nets of three channels.
            **options: contract fields by name (``scale``, ``classes``, ``activation`` and so on), ``normalize`` (the
                name of a scale, mean and std: ``imagenet``, ``0..1``, ``-1..1``, ``none``), and other arguments of the
                constructor: ``strategy``, ``weights``, ``views``, ``bias`` and so on.

        Raises:
            EngineError: a file cannot be opened or trusted, members contradict each other, an option is impossible.
        """
        specs = [models] if isinstance(models, str | Path) else list(models)
        facts = dict(stated or {})
        for name in [key for key in options if key in CONTRACT_FIELDS]:
            if name in facts:
                raise PlanError(f"{name} is given twice, as an argument and in stated: give one of them")
            facts[name] = options.pop(name)
        unknown = [name for name in options if name not in ENSEMBLE_OPTIONS]
        if unknown:
            known = ", ".join(sorted(ENSEMBLE_OPTIONS | CONTRACT_FIELDS))
            raise PlanError(f"unknown argument {', '.join(unknown)}; known: {known}")
        facts = {**facts, "grey_as_rgb": True} if grey_as_rgb else facts
        found = stated_facts(facts, lambda name: f"the argument {name}")
        folds = [find_models(spec) for spec in specs if not isinstance(spec, str | Path)]
        single = find_models(plain) if (plain := [spec for spec in specs if isinstance(spec, str | Path)]) else []
        paths = [*single, *(path for files in folds for path in files)]
        if len({path.resolve() for path in paths}) < len(paths):
            raise PlanError("a net of a fold is named twice: it counts in one member alone")
        nets = open_nets([Request(path, found) for path in paths], sample)
        members: list[Net | Member] = list(nets[: len(single)])
        rest = iter(nets[len(single) :])
        members += [fold_member([next(rest) for _ in files]) for files in folds]
        return cls.of(members, suppress=suppress, **options)

    @classmethod
    def of(
        cls, opened: Sequence[Net | Member], suppress: Collection[int | str] | None = None, **options: Any
    ) -> Ensemble:
        """Make an ensemble of opened files and of members that are complete; arguments as in :meth:`open`."""
        if not opened:
            raise PlanError("no models: name at least one")
        names = class_names(opened)
        if suppress is None:
            ids = {member.contract.ignored_class for member in opened} - {None}
        else:
            ids = {class_number(item, names) for item in suppress}
        chosen = [item for item in sorted(ids, key=str) if item is not None]
        return cls(gather(opened, chosen), suppress=None if suppress is None else chosen, **options)

    @overload
    def predict(
        self,
        images: NDArray[Any],
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
        scores: Literal[False] = False,
        doubt: Literal[""] = "",
        doubt_type: str = "uint8",
        unknown: float | None = None,
    ) -> NDArray[np.uint8]: ...

    @overload
    def predict(
        self,
        images: NDArray[Any],
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
        scores: bool | str = False,
        doubt: str = "",
        doubt_type: str = "uint8",
        unknown: float | None = None,
    ) -> NDArray[np.uint8] | Prediction: ...

    def predict(
        self,
        images: NDArray[Any],
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
        scores: bool | str = False,
        doubt: str = "",
        doubt_type: str = "uint8",
        unknown: float | None = None,
    ) -> NDArray[np.uint8] | Prediction:
        """Return the masks of images in memory.

        Args:
            images: raw pixels (n, height, width) or (n, height, width, channels).
            batch_size: images per batch.
            workers: threads; 0 for one per core.
            scores: also return the fused probabilities per class: True for float16, or ``"float32"``. They are those
                before thresholds per class and the clean-up of regions; their argmax is the mask without these.
            doubt: also return a map of doubt: ``entropy``, ``mutual-information``, ``votes`` or ``margin``, see
                :data:`engine.fusion.evidence.DOUBTS`.
            doubt_type: ``uint8`` (254 times the doubt), ``float16`` or ``float32``.
            unknown: pixels with more doubt than this (0 to 1; of the map that ``doubt`` names, else of the entropy) are
                254 in the masks in place of a class; None for the ensemble's own ``unknown``.

        Returns:
            uint8 (n, height, width); multi-label: (n, classes, height, width), 1 where a pixel has the class. With
            ``scores`` or ``doubt`` a :class:`engine.inference.evidence.Prediction` of masks, scores and doubt.

        Raises:
            EngineError: images that do not fit the members, or a member that fails.
        """
        source = from_array(images, "images", "images")
        shape = (self.masks_per_image, *source.size) if self.is_multilabel else source.size
        withheld = None if unknown is None else Unknown(unknown, doubt or DEFAULT_DOUBT)
        evidence = Evidence("float16" if scores is True else scores or "", doubt, doubt_type, withheld)
        masks = np.empty((len(source), *shape), np.uint8)
        maps = np.empty((len(source), len(self.classes), *source.size), evidence.scores) if evidence.scores else None
        doubts = np.empty((len(source), *source.size), evidence.doubt_type) if evidence.doubt else None
        for part in self.stream(source, batch_size=batch_size, workers=workers, evidence=evidence):
            place = slice(part.start, part.start + len(part.ids))
            masks[place] = part.labels.reshape(-1, *shape)
            if maps is not None and part.shown.scores is not None:
                maps[place] = part.shown.scores.reshape(-1, *maps.shape[1:])
            if doubts is not None and part.shown.doubt is not None:
                doubts[place] = part.shown.doubt.reshape(-1, *source.size)
        return Prediction(masks, maps, doubts) if scores or doubt else masks

    def stream(
        self,
        images: Source,
        labels: Source | None = None,
        variants: Sequence[Variant] = (),
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
        evidence: Evidence | None = None,
    ) -> Stream:
        """Return the batches' predictions in the images' order, to iterate over once, with bounded memory.

        Args:
            images: source of the images.
            labels: true label maps of the same images; None for no scores.
            variants: additional variants, scored if labels are given; not with early exit, since not every member
                runs on every image.
            batch_size: images per batch.
            workers: threads; 0 for one per core.
            evidence: what to show for the labels, see :mod:`engine.fusion.evidence`; None for nothing. The ensemble's
                own ``unknown`` holds where it states none.

        Raises:
            EngineError: images or labels that do not match, or a member that fails.
        """
        evidence = self.with_unknown(evidence)
        check_evidence(self, evidence)
        if batch_size < 1 or workers < 0:
            raise PlanError(f"batch size {batch_size}, workers {workers}: at least 1 image, and 0 or more workers")
        self.check_size(images.size, images.channels)
        if labels is not None and self.is_multilabel:
            raise PlanError("a multi-label ensemble is scored from its masks: engine evaluate MASKS --labels TRUTH")
        if labels is not None:
            check_match(images, labels)
        work = self.batch_work(evidence, variants)
        return Stream(work, images, labels, batch_size, workers or available_cores())

    def batch_work(self, evidence: Evidence | None = None, variants: Sequence[Variant] = ()) -> BatchWork:
        """Return what predicts one batch in the calling thread; the arguments are those of :meth:`stream`.

        Raises:
            PlanError: evidence that this ensemble cannot give.
        """
        check_evidence(self, evidence)
        others = [variant for variant in variants if variant != self.variant]
        device = None if others or self.early_exit is not None or evidence else self.device
        if device is None:
            self.open_sessions()
        return BatchWork(self, others, self.early_exit, device, evidence)

    def with_unknown(self, evidence: Evidence | None) -> Evidence | None:
        """Return evidence with the ensemble's own ``unknown``, where it states none."""
        if self.unknown is None or (evidence is not None and evidence.unknown is not None):
            return evidence
        return replace(evidence or Evidence(), unknown=self.unknown)

    @property
    def mask_values(self) -> int:
        """Return how many values masks can hold, from 0 on: classes (or their ids), and that of unknown pixels."""
        return UNKNOWN + 1 if self.unknown is not None else self.coding.output_classes(len(self.classes))

    def open_sessions(self) -> None:
        """Open the members' own sessions on the provider, where a graph of all made that unnecessary so far."""
        if self.sessions_elsewhere is not None:
            self.sessions_elsewhere()
            self.sessions_elsewhere = None

    def every_variant(self) -> list[Variant]:
        """Return each single member and each strategy, raw and (if a class is suppressed) suppressed.

        A packed or multi-label ensemble has only its own variant; a member that outputs labels is listed as it is.
        """
        if self.is_packed or self.is_multilabel:
            return [self.variant]
        own = self.variant.decoding
        decodings = [Decoding()]
        if own.suppress:
            decodings.append(Decoding(own.suppress, vote_stage=own.vote_stage))
        names = LABEL_STRATEGIES if label_members(self.members) else tuple(STRATEGIES)
        members = [
            Variant("mean-logit", decoding, index)
            for index, member in enumerate(self.members)
            for decoding in decodings
            # Labels alone hold no second choice for a suppressed class.
            if member.contract.kind != "labels" or not decoding.suppress
        ]
        return [*members, *(Variant(name, decoding) for name in names for decoding in decodings)]

    def variant_name(self, variant: Variant) -> str:
        """Return a variant's name in tables: the member's name, or the strategy's."""
        return variant.strategy if variant.member is None else self.members[variant.member].name
