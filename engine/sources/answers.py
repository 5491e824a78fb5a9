"""What a server's refusal means, in one line, and whether asking again can change it."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

# A server that says nothing for so long is given up, also while it connects.
SILENCE_SECONDS, CONNECT_SECONDS = 30.0, 10.0
# An answer of many bytes may take longer, at this many bytes a second.
SLOWEST = 1 << 16
# Of refusals with a status these may pass.
_PASSING = (408, 425, 429)
# Asking again changes nothing about these.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, ImportError)
_ADVICE = {
    401: "the server asks for a login, give the credentials that it knows",
    403: "access is refused, check the credentials and the address",
    404: "check the address",
    407: "a proxy asks for a login",
    408: "the server gave up waiting, try again",
    410: "it was removed, check the address",
    429: "too many requests, try again later",
}

Answer = TypeVar("Answer")


def cause_of(error: BaseException) -> BaseException:
    """Return what lies behind an error: fsspec calls whatever happens over HTTP a file that is not found."""
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error of any package, or None."""
    response = getattr(error, "response", None)
    held: Any = getattr(error, "status", None) or getattr(error, "code", None)
    if held is None and isinstance(response, dict):  # of botocore
        held = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return held if type(held) is int and 100 <= held < 600 else None


def is_circle(error: BaseException) -> bool:
    """Return whether a server redirects in a circle."""
    told = str(getattr(error, "reason", "")) + str(getattr(error, "msg", ""))
    return type(error).__name__ == "TooManyRedirects" or "infinite loop" in told


def is_timeout(error: BaseException) -> bool:
    """Return whether an error is that of a server which does not answer."""
    inner = getattr(error, "reason", None)
    return isinstance(error, TimeoutError) or isinstance(inner, TimeoutError)


def is_final(error: BaseException | None) -> bool:
    """Return whether asking again is of no use."""
    if error is None:
        return False
    error = cause_of(error)
    status = status_of(error)
    if status is not None:
        return status < 500 and status not in _PASSING
    return isinstance(error, _FINAL)


def in_words(error: BaseException) -> str:
    """Return why a server refuses, with what to do; empty where only the error's own text says it."""
    error = cause_of(error)
    if is_circle(error):
        return "the server redirects in a circle: check the address"
    if is_timeout(error):
        return f"no answer within {SILENCE_SECONDS:.0f} s: check the address, the network and the server"
    status = status_of(error)
    if status is None or status < 300:
        return ""
    try:
        name = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        name = f"status {status}"
    failing = "the server fails, try again later" if status >= 500 else "check the address"
    return f"{name}: {_ADVICE.get(status, failing)}"


def limited(question: Callable[[], Answer], size: int = 0) -> Answer:
    """Return what a server answers, and give up one that does not; its thread is left behind and ends with the process.

    Args:
        question: asks it.
        size: bytes of the answer, as far as known.

    Raises:
        TimeoutError: no answer.
        BaseException: whatever the question raises.
    """
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put((question(), None))
        except BaseException as error:  # raised where the answer is waited for
            answers.put((None, error))

    Thread(target=ask, name="maskfuse-question", daemon=True).start()
    try:
        answer, error = answers.get(timeout=SILENCE_SECONDS + size / SLOWEST)
    except Empty:
        raise TimeoutError(f"no answer within {SILENCE_SECONDS:.0f} s") from None
    if error is not None:
        raise error
    return answer
