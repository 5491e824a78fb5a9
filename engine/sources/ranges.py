"""What a web server says about a file that is read in parts: whether it can be, and a hash that changes with it."""

from __future__ import annotations

import base64
import hashlib
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from urllib.parse import unquote, urlsplit, urlunsplit

from engine.errors import InputError
from engine.sources.answers import SILENCE_SECONDS, in_words, is_circle, is_final, status_of
from engine.sources.parts import PARTIAL, PROBE, check_part
from engine.sources.spec import scrubbed, shown

_STATES = ("etag", "content-md5", "last-modified")


@dataclass(frozen=True)
class Answer:
    """A server's answer to a request for a part of a file.

    Attributes:
        partial: whether that part came, and not the whole file.
        headers: by name in lower case.
    """

    partial: bool
    headers: Mapping[str, str]


@dataclass(frozen=True)
class WebFile:
    """A file on a web server that sends parts of it.

    Attributes:
        spec: its http or https URL; may hold secrets.
    """

    spec: str

    @cached_property
    def size(self) -> int:
        """Return the size in bytes; errors as of :meth:`range`."""
        found = _answer(self.spec, PROBE)[0].headers.get("content-range", "").rpartition("/")[2]
        return int(found) if found.isdecimal() else 0

    def range(self, start: int, stop: int) -> bytes:
        """Return the bytes from one place up to another.

        Raises:
            InputError: they cannot be had.
        """
        return _answer(self.spec, f"bytes={start}-{stop - 1}")[1]


def is_web(spec: str) -> bool:
    """Return whether a name is an http or https URL."""
    return spec.lower().startswith(("http://", "https://"))


def check_ranges(spec: str) -> None:
    """Refuse a file behind an http or https URL whose server sends whole files only; other names pass.

    Raises:
        InputError: it does, or the file is not there.
    """
    if is_web(spec) and not _answer(spec, PROBE)[0].partial:
        raise InputError(
            f"{shown(spec)}: the server sends no parts of a file (Range requests), which are needed: "
            "copy it to this machine"
        )


def web_fingerprint(spec: str) -> str:
    """Return the SHA-256, hexadecimal, of what a web server tells of a file: its size, and ETag, MD5 or time.

    Raises:
        InputError: the file is not there, or the server tells neither.
    """
    headers = _answer(spec, PROBE)[0].headers
    state = next((headers[name] for name in _STATES if name in headers), None)
    if state is None:
        raise InputError(
            f"{shown(spec)}: the server gives no ETag and no time of the last change, so a later run could not tell "
            "whether it is the same file: copy it to this machine"
        )
    size = headers.get("content-range", headers.get("content-length", "")).rpartition("/")[2]
    return hashlib.sha256(f"{size}\0{state}".encode()).hexdigest()


def _answer(spec: str, part: str) -> tuple[Answer, bytes]:
    """Return what a server says to a request for a part of a file, and that part; nothing where the whole comes.

    It is asked once more where that may help.
    """
    for last in (False, True):
        try:
            with urllib.request.urlopen(_request(spec, part), timeout=SILENCE_SECONDS) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                partial = answer.status == PARTIAL
                if partial:
                    check_part(part, headers.get("content-range", ""), spec)
                return Answer(partial, headers), answer.read() if partial else b""
        except (OSError, ValueError, HTTPException) as error:
            if last or is_final(error) or is_circle(error) or isinstance(error, ValueError):
                raise _refusal(spec, error) from None
    raise AssertionError("unreachable")


def _request(spec: str, part: str) -> urllib.request.Request:
    """Return a request for a part; user and password of a URL go into a header."""
    parts = urlsplit(spec)
    user, found, host = parts.netloc.rpartition("@")
    headers = {"Range": part}
    if found:
        headers["Authorization"] = "Basic " + base64.b64encode(unquote(user).encode()).decode()
    return urllib.request.Request(urlunsplit(parts._replace(netloc=host, fragment="")), headers=headers)


def _refusal(spec: str, error: BaseException) -> InputError:
    if status_of(error) == 404:
        return InputError(f"no such file or folder: {shown(spec)}")
    words = in_words(error)
    if words:
        return InputError(f"cannot read {shown(spec)}: {words}")
    why = scrubbed(str(getattr(error, "reason", error)) or type(error).__name__, spec)
    return InputError(f"cannot read {shown(spec)} ({why}): check the address, the access and the network")
