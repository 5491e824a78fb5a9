"""What a request is refused with: one line, and the HTTP status that says whose fault it is."""

from __future__ import annotations

from engine.errors import EngineError, ModelError, TooLargeError


class Refused(EngineError):
    """A request that gets no result.

    Attributes:
        status: the HTTP status.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, told: str, headers: dict[str, str] | None = None) -> None:
        """Say why, in one line."""
        super().__init__(told)
        self.status, self.headers = status, headers or {}


def status_of(error: EngineError) -> int:
    """Return the HTTP status of an error of the engine: 500 where a member fails, else the request is at fault."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, TooLargeError):
        return 413
    return 500 if isinstance(error, ModelError) else 400
