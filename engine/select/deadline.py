"""A time limit that a search respects between its steps."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True)
class Deadline:
    """A moment after which a search takes no further step.

    Attributes:
        moment: by :func:`time.perf_counter`.
    """

    moment: float = float("inf")

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline so many seconds from now."""
        return cls(perf_counter() + seconds)

    @property
    def over(self) -> bool:
        """Return whether the time is over."""
        return perf_counter() >= self.moment


NEVER = Deadline()
