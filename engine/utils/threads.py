"""Threads of one run: a reader before the workers, a writer after them, bounded queues in between; any error ends all.

Reader and writer spend their time outside the interpreter's lock (decoding, compiled loops, the disk), so the workers
wait for neither. A full queue makes its producer wait: memory is bounded by the queues' lengths.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import thread_time
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")
# How long a thread sleeps on a full or empty queue before it checks whether it is still needed.
PATIENCE = 0.1
# How long the end of a run waits for a reader in the middle of a slow file.
FAREWELL = 0.5


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Ahead(Generic[Item]):
    """Iterates in a separate thread, a few items ahead.

    Attributes:
        seconds: processor time the reading took.
    """

    def __init__(self, items: Iterable[Item], depth: int) -> None:
        """Start reading.

        Args:
            items: the items to read; their errors are raised by :meth:`__iter__`.
            depth: maximum number of waiting items.
        """
        self.seconds = 0.0
        self._items = items
        self._ready: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._read, name="maskfuse-reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in order.

        Raises:
            BaseException: whatever reading raised, after the items before it.
        """
        wait = True
        try:
            while True:
                item, error = self._ready.get()
                if isinstance(error, StopIteration):
                    return
                if error is not None:
                    raise error
                yield item  # type: ignore[misc]
        except GeneratorExit:  # as in :func:`abandonable`: this may be the reader's own thread
            wait = False
            raise
        finally:
            self._left.set()
            if wait:
                self._thread.join(FAREWELL)

    def _read(self) -> None:
        last: BaseException = StopIteration()
        iterator = iter(self._items)
        try:
            while True:
                began = thread_time()
                item = next(iterator)
                self.seconds += thread_time() - began
                if not _put(self._ready, (item, None), self._left):
                    return
        except StopIteration:
            pass
        except BaseException as error:  # any error is raised where the items are used
            last = error
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        _put(self._ready, (None, last), self._left)


class Behind:
    """Calls an action in a separate thread, in the order of the calls; a context manager.

    Attributes:
        seconds: processor time the calls took.
    """

    def __init__(self, action: Callable[..., object], depth: int) -> None:
        """Create the writer's queue.

        Args:
            action: the function to call.
            depth: maximum number of waiting calls.
        """
        self.seconds = 0.0
        self._action = action
        self._waiting: queue.Queue[tuple[Any, ...] | None] = queue.Queue(depth)
        self._left = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="maskfuse-writer", daemon=True)

    def __call__(self, *arguments: Any) -> None:
        """Queue a call of the action with these arguments; blocks while the queue is full.

        Raises:
            BaseException: what an earlier call raised.
        """
        if not _put(self._waiting, arguments, self._left) and self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all calls are done; after an error only for the one in progress.

        Raises:
            BaseException: what a call raised, unless another error is being raised.
        """
        if error is not None:
            self._left.set()
        _put(self._waiting, None, self._left)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _work(self) -> None:
        while not self._left.is_set():
            try:
                arguments = self._waiting.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if arguments is None:
                return
            began = thread_time()
            try:
                self._action(*arguments)
            except BaseException as error:  # raised by the next call, or at the end
                self._error = error
                self._left.set()
            self.seconds += thread_time() - began


def _put(goal: queue.Queue[Any], item: Any, left: threading.Event) -> bool:
    """Put an item; return False once it is no longer needed."""
    while not left.is_set():
        try:
            goal.put(item, timeout=PATIENCE)
        except queue.Full:
            continue
        return True
    return False


Result = TypeVar("Result")


def in_order(calls: Iterable[Future[Result]], most: int) -> Iterator[Result]:
    """Yield the results of calls in the calls' order, with a bounded number of further calls in progress.

    Args:
        calls: futures, each submitted when it is taken; an error is raised in place of its result.
        most: maximum number of further results, ready or in progress; bounds the memory.
    """
    pending: deque[Future[Result]] = deque()
    for call in calls:
        pending.append(call)
        if len(pending) > most:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@contextmanager
def abandonable(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool to a generator, which may be left in the middle and forgotten; no other pool may be used by one.

    The garbage collector closes a forgotten generator in any thread, even in one of this pool that is just starting,
    and while that thread keeps any lock: waiting for the pool there could last forever. So it is not waited for; an
    end or an error of the generator's own waits for the calls in progress.

    Args:
        threads: number of parallel calls.
        name: start of the threads' names.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    wait = True
    try:
        yield pool
    except GeneratorExit:
        wait = False
        raise
    finally:
        pool.shutdown(wait, cancel_futures=True)


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int, waiting: int) -> Iterator[Result]:
    """Yield ``function(item)`` in the items' order, computed ahead by threads.

    A caller that stops early does not wait for the calls in progress. Where they must have ended, as
    before a file that they read is closed, use :func:`in_order` with your own pool.

    Args:
        function: the function to call; its error is raised in place of its result.
        items: taken one by one, at most ``waiting`` beyond the last yielded one.
        threads: number of parallel calls.
        waiting: maximum number of results, ready or in progress; bounds the memory.
    """
    with abandonable(threads, "maskfuse-ahead") as pool:
        yield from in_order((pool.submit(function, item) for item in items), waiting - 1)
