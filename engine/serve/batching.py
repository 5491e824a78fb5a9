"""Batches formed across requests: a queue of images by shape, and worker threads that take what waits."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, ModelError
from engine.fusion.evidence import Evidence
from engine.serve.plan import Answer, ServedPlan
from engine.utils.console import first_line

Result = Answer | EngineError
# How fast older batches are forgotten in the measurement of a batch's fixed cost.
KEPT = 0.95
# A batch waits for no longer than this, whatever was measured.
MOST_WINDOW = 0.02
# How fast the number of requests that were open at once is forgotten, per batch.
FORGOTTEN = 0.1


class FixedCost:
    """The part of a batch's seconds that does not depend on how many images it holds: a line through what was measured.

    An idle worker may wait for more images for so long: at worst it waits as long as a second batch would cost.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(5)

    def add(self, images: int, seconds: float) -> None:
        """Take a batch into account; older ones count less and less."""
        self._sums *= KEPT
        self._sums += (1, images, images * images, seconds, images * seconds)

    @property
    def seconds(self) -> float:
        """Return the fixed cost, at most :data:`MOST_WINDOW`; 0 while batches of one size alone were seen."""
        count, x, xx, y, xy = self._sums
        spread = count * xx - x * x
        if spread <= 1e-6 * max(count * xx, 1e-9):
            return 0.0
        slope = max(0.0, (count * xy - x * y) / spread)
        return float(min(max(0.0, (y - slope * x) / count), MOST_WINDOW))


@dataclass
class Group:
    """The images of one request.

    Attributes:
        images: raw pixels (n, height, width, channels).
        evidence: what to show beside the masks.
        done: called once all have a result, in a worker's thread.
        results: one per image.
        left: how many have none yet.
    """

    images: NDArray[Any]
    evidence: Evidence
    done: Callable[[Group], None]
    results: list[Result] = field(default_factory=list)
    left: int = 0


@dataclass(frozen=True)
class Waiting:
    """One image that waits."""

    group: Group
    index: int
    arrived: float


@dataclass(frozen=True)
class Kind:
    """What images of one batch have in common."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    evidence: Evidence


class Batcher:
    """Worker threads that predict the images of all requests in batches.

    A worker that is free takes the images of one kind that wait: at once if they fill a batch, or if no more are to
    be expected; else after the time that a further batch would cost (:class:`FixedCost`). More are expected while
    fewer images are open than recently were: then clients that got their answers are about to ask again.

    Attributes:
        observe: called with the images and seconds of each batch.
    """

    def __init__(self, plan: ServedPlan, observe: Callable[[int, float], None] = lambda images, seconds: None) -> None:
        """Start the workers, as many as the plan says."""
        self.observe = observe
        self._plan = plan
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Kind, deque[Waiting]] = OrderedDict()
        self._costs: dict[tuple[int, ...], FixedCost] = {}
        self._idle, self._open, self._peak, self._closing = 0, 0, 0.0, False
        self._workers = [
            threading.Thread(target=self._work, name=f"maskfuse-serve-{number}", daemon=True)
            for number in range(plan.workers)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def open_images(self) -> int:
        """Return how many images wait or are being predicted."""
        return self._open

    def submit(self, group: Group) -> None:
        """Queue the images of a request; at least one.

        Raises:
            RuntimeError: the batcher is closed.
        """
        count = len(group.images)
        group.results, group.left = [ModelError("")] * count, count
        kind = Kind(group.images.shape[1:], group.images.dtype, group.evidence)
        now = monotonic()
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            self._waiting.setdefault(kind, deque()).extend(Waiting(group, index, now) for index in range(count))
            self._open += count
            self._peak = max(self._peak, self._open)
            self._changed.notify(1 if count == 1 else len(self._workers))

    def close(self) -> None:
        """Predict everything that waits, and end the workers."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            kind, items = taken
            began = monotonic()
            results = self._predict(kind, items)
            seconds = monotonic() - began
            finished: list[Group] = []
            with self._changed:
                self._cost(kind).add(len(items), seconds)
                self._open -= len(items)
                for item, result in zip(items, results, strict=True):
                    item.group.results[item.index] = result
                    item.group.left -= 1
                    if not item.group.left:
                        finished.append(item.group)
            self.observe(len(items), seconds)
            for group in finished:
                group.done(group)

    def _predict(self, kind: Kind, items: list[Waiting]) -> list[Result]:
        try:
            pixels = [item.group.images[item.index] for item in items]
            return list(self._plan.predict(np.stack(pixels), kind.evidence))
        except EngineError as error:
            return [error] * len(items)
        except Exception as error:  # whatever it is, the requests get an answer and the worker stays
            return [ModelError(f"predicting failed ({first_line(error, kind=True)}): try again")] * len(items)

    def _take(self) -> tuple[Kind, list[Waiting]] | None:
        """Return what to predict next; None at the end."""
        with self._changed:
            self._idle += 1
            try:
                while True:
                    if not self._waiting:
                        if self._closing:
                            return None
                        self._changed.wait()
                        continue
                    kind, patience = self._choice()
                    if patience <= 0:
                        return kind, self._taken(kind)
                    self._changed.wait(patience)
            finally:
                self._idle -= 1

    def _choice(self) -> tuple[Kind, float]:
        """Return what waits for a worker and how long that should wait for more: a full batch, else the oldest."""
        for kind, queue in self._waiting.items():
            if len(queue) >= self._limit(kind):
                return kind, 0.0
        kind = min(self._waiting, key=lambda kind: self._waiting[kind][0].arrived)
        if self._closing or self._open >= self._peak:
            return kind, 0.0
        return kind, self._waiting[kind][0].arrived + self._cost(kind).seconds - monotonic()

    def _taken(self, kind: Kind) -> list[Waiting]:
        """Take a batch out of the queue; what waits is shared among the workers that are idle."""
        queue = self._waiting[kind]
        count = min(self._limit(kind), -(-len(queue) // self._idle))
        items = [queue.popleft() for _ in range(count)]
        if not queue:
            del self._waiting[kind]
        if self._waiting:
            self._changed.notify()
        self._peak -= FORGOTTEN * (self._peak - self._open)
        if self._peak - self._open < 1:
            self._peak = self._open
        return items

    def _limit(self, kind: Kind) -> int:
        return self._plan.batch_of((kind.shape[0], kind.shape[1]))

    def _cost(self, kind: Kind) -> FixedCost:
        # As many as there are shapes: clients could send each image in another one.
        if len(self._costs) > 256:
            self._costs.clear()
        return self._costs.setdefault(kind.shape, FixedCost())
