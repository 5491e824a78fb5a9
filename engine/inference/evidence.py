"""Which ensembles can show probabilities and doubt, and what ``Ensemble.predict`` returns with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError, option
from engine.fusion.doubt import check_free
from engine.fusion.evidence import Evidence
from engine.models.members import label_members

if TYPE_CHECKING:
    from engine.inference.ensemble import Ensemble


class Prediction(NamedTuple):
    """Masks and their evidence.

    Attributes:
        masks: uint8 (n, height, width); multi-label: (n, classes, height, width).
        scores: (n, classes, height, width) probabilities; None if they were not asked for.
        doubt: (n, height, width); None if it was not asked for.
    """

    masks: NDArray[np.uint8]
    scores: NDArray[Any] | None = None
    doubt: NDArray[Any] | None = None


def check_evidence(ensemble: Ensemble, evidence: Evidence | None) -> None:
    """Refuse evidence that an ensemble cannot give.

    Raises:
        PlanError: a packed ensemble, early exit, doubt of several labels a pixel, or of members without probabilities.
    """
    if not evidence:
        return
    asked = " and ".join(option(name) for name in ("scores", "doubt", "unknown") if getattr(evidence, name))
    first = ensemble.members[0].name
    if ensemble.is_packed:
        raise PlanError(f"{first} is a packed ensemble, which outputs labels: leave out {asked}, or run its plan")
    if ensemble.early_exit is not None:
        raise PlanError(f"{asked}: not every member runs on every image: leave out {option('early_exit')}")
    if evidence.measures and ensemble.is_multilabel:
        raise PlanError(f"{first} is multi-label: doubt is one map an image; use {option('scores')}")
    if evidence.unknown is not None:
        check_free(ensemble.coding.output_classes(len(ensemble.classes)), ensemble.coding.ids)
    if "mutual-information" in evidence.measures and (names := label_members(ensemble.members)):
        raise PlanError(f"{names[0]} outputs labels, which have no entropy: use {option('doubt_map', 'votes')}")
