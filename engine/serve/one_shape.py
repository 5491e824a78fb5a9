"""Batches of one shape at a time on a device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OneShape:
    """Lets batches of one shape at a time onto a device: its one graph is built again for every other shape."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shape: object = None
        self._inside = 0

    @contextmanager
    def of(self, shape: object) -> Iterator[None]:
        """Wait until no batch of another shape is inside."""
        with self._changed:
            self._changed.wait_for(lambda: not self._inside or self._shape == shape)
            self._shape, self._inside = shape, self._inside + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()
