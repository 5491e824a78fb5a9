"""How batches are formed: what a batch costs, what waits for more, what is mixed and what is not."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineError, InputError, ModelError
from engine.fusion.evidence import Evidence
from engine.serve.batching import MOST_WINDOW, Batcher, FixedCost, Group
from engine.serve.plan import Answer


class Plan(SimpleNamespace):
    """Stands for an open plan: the mask of an image is its pixels; batches are written down and can be held up."""

    def __init__(self, workers: int = 2, batch: int = 4) -> None:
        super().__init__(workers=workers, batch=batch, seen=[], go=threading.Event(), error=None)
        self.go.set()

    def batch_of(self, size: tuple[int, int]) -> int:
        return self.batch

    def predict(self, images: np.ndarray, evidence: Evidence) -> list[Answer | EngineError]:
        assert self.go.wait(30)
        self.seen.append((images.shape, evidence))
        if self.error is not None:
            raise self.error
        return [InputError("bad") if image.flat[0] == 255 else Answer(image[..., 0]) for image in images]


class Asking:
    """Submits groups and waits for their results."""

    def __init__(self, plan: Any) -> None:
        self.batcher = Batcher(plan)

    def send(self, images: np.ndarray, evidence: Evidence | None = None) -> threading.Event:
        done = threading.Event()
        group = Group(images, evidence or Evidence(), lambda group: done.set())
        done.group = group  # type: ignore[attr-defined]
        self.batcher.submit(group)
        return done


def results(done: threading.Event) -> list[Any]:
    assert done.wait(30)
    return done.group.results  # type: ignore[attr-defined]


@given(
    fixed=st.floats(0, MOST_WINDOW),
    each=st.floats(1e-5, 0.1),
    counts=st.lists(st.integers(1, 64), min_size=2, max_size=60),
)
def test_the_fixed_cost_is_that_of_the_line(fixed: float, each: float, counts: list[int]) -> None:
    cost = FixedCost()
    for count in counts:
        cost.add(count, fixed + each * count)
    expected = fixed if len(set(counts)) > 1 else 0.0
    assert cost.seconds == pytest.approx(expected, abs=1e-4 + 1e-3 * each)


def test_the_fixed_cost_has_bounds_and_follows_what_is_new() -> None:
    cost = FixedCost()
    assert cost.seconds == 0
    for count in (1, 2, 1, 4):
        cost.add(count, 5.0 + count)
    assert cost.seconds == MOST_WINDOW
    for count in (8, 1, 4) * 100:  # time that grows faster than the number of images leaves nothing fixed
        cost.add(count, 1e-3 * count**2)
    assert cost.seconds == 0


def test_every_image_gets_its_own_answer() -> None:
    """Groups of any number, two shapes and two dtypes, from many threads."""
    plan = Plan(workers=3)
    asking, draw = Asking(plan), np.random.default_rng(0)
    held = []
    for number in range(60):
        shape = (int(draw.integers(1, 9)), *((4, 5), (6, 3))[number % 2], 1)
        images = draw.integers(0, 250, shape).astype((np.uint8, np.float32)[number % 3 == 0])
        held.append((images, asking.send(images)))
    for images, done in held:
        assert all((one.mask == image[..., 0]).all() for one, image in zip(results(done), images, strict=True))
    asking.batcher.close()
    assert asking.batcher.open_images == 0
    assert all(shape[0] <= 4 for shape, _ in plan.seen)
    assert {shape[1:] for shape, _ in plan.seen} == {(4, 5, 1), (6, 3, 1)}


def test_what_waits_becomes_batches_and_idle_workers_share_it() -> None:
    plan = Plan(workers=1)
    plan.go.clear()
    asking = Asking(plan)
    image = np.zeros((1, 2, 2, 1), np.uint8)
    first = asking.send(image)
    while asking.batcher._waiting:
        time.sleep(0.001)
    rest = [asking.send(image) for _ in range(9)]
    shown = asking.send(image, Evidence(doubt="entropy"))
    plan.go.set()
    for done in (first, *rest, shown):
        results(done)
    asking.batcher.close()
    assert [(shape[0], bool(evidence)) for shape, evidence in plan.seen] == [
        (1, False), (4, False), (4, False), (1, False), (1, True)
    ]  # fmt: skip


def test_an_error_of_an_image_is_its_own_and_one_of_a_batch_is_that_of_all() -> None:
    plan = Plan(workers=1, batch=8)
    asking = Asking(plan)
    images = np.zeros((3, 2, 2, 1), np.uint8)
    images[1] = 255
    first, second, third = results(asking.send(images))
    assert (type(first), str(second), type(third)) == (Answer, "bad", Answer)
    plan.error = ModelError("lost")
    assert [str(one) for one in results(asking.send(images))] == ["lost"] * 3
    plan.error = ZeroDivisionError("oh")
    assert [str(one) for one in results(asking.send(images))] == [
        "predicting failed (ZeroDivisionError: oh): try again"
    ] * 3
    plan.error = None
    assert type(results(asking.send(images[:1]))[0]) is Answer  # the worker lives
    asking.batcher.close()


def test_a_worker_waits_only_while_more_are_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """After three at once, one alone waits for two others; once nobody else has asked for long it waits no more."""
    window = [60.0]
    monkeypatch.setattr(FixedCost, "seconds", property(lambda cost: window[0]))
    plan = Plan(workers=1, batch=8)
    asking = Asking(plan)
    image = np.zeros((1, 2, 2, 1), np.uint8)
    results(asking.send(image))  # nothing to expect yet: it would wait a minute
    results(asking.send(np.repeat(image, 3, axis=0)))
    for done in [asking.send(image) for _ in range(3)]:
        results(done)
    assert [shape[0] for shape, _ in plan.seen] == [1, 3, 3]
    window[0] = 0.0
    for _ in range(20):
        results(asking.send(image))
    window[0] = 60.0
    results(asking.send(image))
    asking.batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        asking.send(image)


def test_closing_answers_what_waits() -> None:
    plan = Plan(workers=2)
    plan.go.clear()
    asking = Asking(plan)
    held = [asking.send(np.zeros((3, 2, 2, 1), np.uint8)) for _ in range(5)]
    threading.Timer(0.05, plan.go.set).start()
    asking.batcher.close()
    assert all(done.is_set() for done in held)
