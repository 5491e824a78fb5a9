"""Decoded rows of scenes, one row of tiles after the other: predicted in this process, or by others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.inference.tiles.blend import TiledRun
from engine.inference.tiles.grid import Tiling
from engine.runs.scene_mask import SceneMask, Strip
from engine.sources.scene import Scene

Advance = Callable[[int], object]


class SceneRows(Protocol):
    """Where decoded rows come from; use it as a context."""

    @property
    def member_seconds(self) -> list[float]:
        """Time inside each member's nets so far, summed over workers."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; after an error what is under way is given up."""

    def decoded(
        self, index: int, scene: Scene, mask: SceneMask, done: int, advance: Advance
    ) -> Iterator[tuple[Strip, int | None]]:
        """Yield a scene's rows from top to bottom, and hand them to its mask.

        Args:
            index: which scene it is; each is asked for once, in order.
            scene: the scene, opened.
            mask: takes the rows.
            done: rows of tiles that are finished already.
            advance: called with the number of tiles each time some are done.

        Yields:
            The rows, and how many rows of tiles are finished with them; None where more of the same row follow.
        """


class RowsHere:
    """Rows predicted in this process."""

    def __init__(self, ensemble: Ensemble, tiling: Tiling, scored: bool, batch_size: int, workers: int) -> None:
        """Start the workers; arguments as of :class:`engine.inference.tiles.blend.TiledRun`.

        Args:
            ensemble: the members.
            tiling: how scenes are cut.
            scored: whether all variants are decoded, to be scored.
            batch_size: tiles a worker takes at a time.
            workers: threads.
        """
        self._asked = decoded_variants(ensemble, scored)
        skip = frozenset.intersection(*(variant.decoding.suppress for variant in self._asked))
        self._run = TiledRun(ensemble, tiling, skip, batch_size, workers)

    @property
    def member_seconds(self) -> list[float]:
        """Time inside each member's nets so far."""
        return self._run.member_seconds

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers."""
        self._run.__exit__(kind, error, trace)

    def decoded(
        self, index: int, scene: Scene, mask: SceneMask, done: int, advance: Advance
    ) -> Iterator[tuple[Strip, int | None]]:
        """Yield a scene's rows, see :class:`SceneRows`."""
        for part in self._run.blended(scene, advance, done):
            yield mask.add(part, self._asked), part.done


def decoded_variants(ensemble: Ensemble, scored: bool) -> list[Variant]:
    """Return the variants that are decoded; those that suppress a class come last.

    Decoding a suppressed variant overwrites what the specialists said.
    """
    variants = dict.fromkeys([ensemble.variant, *(ensemble.every_variant() if scored else ())])
    return sorted(variants, key=lambda variant: bool(variant.decoding.suppress))
