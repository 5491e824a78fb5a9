"""What all actors do alike: an error of theirs is a row, since Ray would retry what raises."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from engine.errors import EngineError, ModelError, PlanError
from engine.runs.on_ray.wire import failed

if TYPE_CHECKING:
    from engine.inference.ensemble import Ensemble


class Actor(ABC):
    """Opens its nets and inputs once, then answers blocks; one per worker."""

    def __init__(self, open_all: Callable[[], object]) -> None:
        """Open everything; an error is kept and reported with the first block, in one line."""
        self._error = ""
        try:
            open_all()
        except EngineError as error:
            self._error = str(error)

    def __call__(self, block: dict[str, NDArray[Any]]) -> dict[str, list[Any]]:
        """Predict one block.

        Args:
            block: ``start`` and ``count``, one element each.

        Returns:
            One row, see :mod:`engine.runs.on_ray.wire` and :mod:`engine.runs.on_ray.scene_wire`; an error is a row too.
        """
        start, count = int(block["start"][0]), int(block["count"][0])
        try:
            if self._error:
                raise ModelError(self._error)
            row = self._predict(start, count)
        except EngineError as error:
            row = failed(start, str(error))
        return {key: [value] for key, value in row.items()}

    @abstractmethod
    def _predict(self, start: int, count: int) -> dict[str, Any]:
        """Return the row of a block.

        Raises:
            EngineError: images or members that fail.
        """


def check_plan(ensemble: Ensemble, plan_sha256: str) -> None:
    """Refuse models that are not those of the run.

    Raises:
        PlanError: naming the node.
    """
    from engine.runs.provenance import plan_hash

    if plan_hash(ensemble) != plan_sha256:
        raise PlanError(f"on node {platform.node()} the models differ: give all nodes the same files")
