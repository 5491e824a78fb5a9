"""The boundary to other libraries: whatever they raise on damaged input becomes one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import EngineError, InputError
from engine.utils.console import first_line


@contextmanager
def refusing(told: Callable[[str], str], kind: type[EngineError] = InputError, named: bool = False) -> Iterator[None]:
    """Turn every error of a library inside into an error with one line.

    No list of error types is complete: libraries raise errors of their own, those of libraries below them, and on
    damaged input whatever their code happens to stumble over. So only calls of the library go inside.

    Args:
        told: returns the line; called with the reason.
        kind: the error to raise.
        named: whether the reason begins with the type of the library's error.

    Raises:
        EngineError: of that kind; one that is raised inside passes unchanged.
    """
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        raise kind(told(first_line(error, named))) from None
