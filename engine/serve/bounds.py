"""What a server takes at once: requests, bytes, memory. What is beyond is refused before it is read or decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from engine.serve.plan import UPLOAD, ServedPlan
from engine.serve.refusals import Refused
from engine.utils.memory import in_words, memory_bound

# The longest time that a client is asked to wait before it tries again, in seconds.
MOST_RETRY = 60


class Bounds:
    """Counts what is open, and refuses more.

    Half of the allowed memory is for the requests that are open: their bodies and pixels. The other half is for what
    the workers predict at the moment.

    Attributes:
        upload: largest body in bytes.
        requests: most open requests.
    """

    def __init__(self, plan: ServedPlan, upload: int, requests: int) -> None:
        """Take the allowed memory from :func:`engine.utils.memory.memory_bound`."""
        self._plan, self.upload, self.requests = plan, upload, requests
        self._half = memory_bound() // 2
        self._open, self._bytes = 0, 0
        self._rate, self._since, self._done = 0.0, monotonic(), 0

    @property
    def open_requests(self) -> int:
        """Return how many requests are open."""
        return self._open

    @contextmanager
    def place(self, declared: int | None) -> Iterator[Place]:
        """Give a request a place until it is answered.

        Args:
            declared: the length of its body in bytes; None if it does not say.

        Raises:
            Refused: 413 for a body that is too large, 503 where there is no place.
        """
        if declared is not None and declared > self.upload:
            raise too_large(self.upload, declared)
        if self._open >= self.requests:
            raise self._full(f"{self._open} requests are open, as many as are taken")
        self._open += 1
        place = Place(self)
        try:
            yield place
        finally:
            self._open -= 1
            self._bytes -= place.held
            self._done += 1

    def add(self, size: int, held: int) -> None:
        """Count bytes of a request that holds some already.

        Raises:
            Refused: 413 for too many for one request, 503 where all requests together would hold too many.
        """
        if held + size > self._half:
            told = f"{UPLOAD} takes {in_words(held + size)} of memory; {in_words(self._half)} are allowed"
            raise Refused(413, f"{told}: send fewer images, or raise --memory")
        if self._bytes + size > self._half:
            raise self._full(f"open requests hold {in_words(self._bytes)} of {in_words(self._half)}")
        self._bytes += size

    def check_image(self, size: tuple[int, int], channels: int, itemsize: int) -> None:
        """Refuse an image that takes too much while it is predicted; the size is (height, width).

        Raises:
            Refused: 413, with how much is allowed.
        """
        needed = math.prod(size) * self._plan.bytes_per_pixel(channels, itemsize)
        allowed = self._half // self._plan.workers
        if needed > allowed:
            raise Refused(
                413,
                f"{UPLOAD} is an image of {size[0]}x{size[1]}, which takes {in_words(needed)} of memory; "
                f"{in_words(allowed)} are allowed: cut it into tiles, or raise --memory",
            )

    def _full(self, why: str) -> Refused:
        return Refused(503, f"{why}: try again later", {"Retry-After": str(self.retry_seconds())})

    def retry_seconds(self) -> int:
        """Return when there is likely to be a place: the open requests over those answered per second."""
        now = monotonic()
        if now - self._since > 1:
            self._rate, self._since, self._done = self._done / (now - self._since), now, 0
        return max(1, min(MOST_RETRY, math.ceil(self._open / self._rate))) if self._rate > 0 else 1


class Place:
    """The place of one request."""

    def __init__(self, bounds: Bounds) -> None:
        """Hold nothing yet."""
        self._bounds, self.held = bounds, 0

    def hold(self, size: int) -> None:
        """Count bytes of the body or of pixels; errors as of :meth:`Bounds.add`."""
        self._bounds.add(size, self.held)
        self.held += size


def too_large(allowed: int, size: int | None = None) -> Refused:
    """Return the refusal of a body of so many bytes; None if it has not ended."""
    has = f"more than {in_words(allowed)}" if size is None else f"{in_words(size)}; {in_words(allowed)} are allowed"
    return Refused(413, f"{UPLOAD} has {has}: send less, or raise --max-upload")
