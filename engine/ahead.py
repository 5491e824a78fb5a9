"""Work done ahead of its use: a bounded number of results, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int, waiting: int) -> Iterator[Result]:
    """Yield ``function(item)`` in the items' order, computed by threads before it is asked for.

    Args:
        function: what is called; its error is raised where its result would have come.
        items: taken one by one, never more than ``waiting`` beyond what was yielded.
        threads: how many calls run side by side.
        waiting: results that may be ready or under way; it bounds the memory.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="maskfuse-ahead")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= waiting:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
