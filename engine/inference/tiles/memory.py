"""How much memory a scene takes, stated before it is read; the tiles of a batch are chosen by it.

The formula is stated in docs/formats.md and compared with measured peaks by ``python -m benchmarks scene_memory``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from engine.errors import PlanError
from engine.inference.tiles.grid import Tiling
from engine.utils.memory import in_words, memory_bound
from engine.utils.sides import told_size

# Blended logits are fused in parts of about this size, unless a single row is larger.
MOST_FUSED_BYTES = 2**26
# Batches a worker in flight: nobody waits, and memory stays bounded.
IN_FLIGHT = 2
# More pixels than this in a batch exceed every cache.
MOST_PIXELS = 1 << 17
# A strip of the scene, mirrored, cut into tiles and read ahead: as many copies of a row of tiles at once.
STRIPS = 6
FLOAT = 4


@dataclass(frozen=True)
class SceneNeeds:
    """What decides how much memory scenes take.

    Attributes:
        tiling: how scenes are cut.
        members: members of the ensemble.
        classes: their classes.
        channels: channels of a pixel.
        itemsize: bytes of a channel.
        sizes: (height, width) of each scene.
        whole: whether a scene is decoded as a whole, as PNG and JPEG are.
        cleans: whether finished masks wait for ``--min-region``.
    """

    tiling: Tiling
    members: int
    classes: int
    channels: int
    itemsize: int
    sizes: Sequence[tuple[int, int]]
    whole: bool = False
    cleans: bool = False

    def bytes(self, batch_size: int, workers: int) -> int:
        """Return the peak of what the largest scene takes, beside the program and its nets."""
        return max((self._scene(size, batch_size, workers) for size in set(self.sizes)), default=0)

    def _scene(self, size: tuple[int, int], batch_size: int, workers: int) -> int:
        columns = self.tiling.axes(size)[1]
        height, width = self.tiling.tile[0], columns.starts[-1] + columns.tile
        scores = FLOAT * self.members * self.classes
        pixel = self.channels * self.itemsize
        sums = scores * height * width
        # A worker's own logits, those that wait weighted, and the ones being added.
        flying = (prod(self.tiling.tile) * batch_size) * ((3 * workers + 2) * scores + (2 * workers + 2) * pixel)
        # A part of the sums, the one before it, and its valid pixels.
        fused = 3 * min(sums, max(MOST_FUSED_BYTES, scores * width))
        kept = prod(size) * ((pixel if self.whole else 0) + (1 if self.cleans else 0))
        return sums + flying + fused + STRIPS * height * width * pixel + kept

    def check(self, batch_size: int, workers: int) -> None:
        """Refuse what takes more memory than is allowed.

        Raises:
            PlanError: how much it takes, how much is allowed, and what to do.
        """
        needed = self.bytes(batch_size, workers)
        if needed > memory_bound():
            largest = max(self.sizes, key=lambda size: self._scene(size, batch_size, workers))
            raise PlanError(
                f"--tile {self.tiling.told}: a scene of {told_size(largest)} takes {in_words(needed)} of memory with "
                f"--batch-size {batch_size} and --workers {workers}; {in_words(memory_bound())} are allowed: choose "
                "a smaller --tile, fewer --workers, or raise --memory"
            )

    def fitting_batch(self, most: int, workers: int) -> int:
        """Return how many tiles a worker takes at a time: as many as caches and memory are made for, at least one."""
        by_cache = max(1, MOST_PIXELS // prod(self.tiling.tile))
        batch_size = min(most, by_cache)
        while batch_size > 1 and self.bytes(batch_size, workers) > memory_bound():
            batch_size //= 2
        return batch_size
