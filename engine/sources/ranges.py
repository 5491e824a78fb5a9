"""What a web server says about a file that is read in parts: whether it can be, and a hash that changes with it."""

from __future__ import annotations

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from engine.errors import InputError
from engine.sources.spec import scrubbed, shown

TIMEOUT_SECONDS = 30.0
PARTIAL = 206
# The second byte: a server that sends the beginning of a file, whatever is asked for, does not pass.
PROBE = "bytes=1-1"
_STATES = ("etag", "content-md5", "last-modified")


@dataclass(frozen=True)
class Answer:
    """A server's answer to a request for the second byte of a file.

    Attributes:
        partial: whether one byte came, and not the whole file.
        headers: by name in lower case.
    """

    partial: bool
    headers: Mapping[str, str]


def is_web(spec: str) -> bool:
    """Return whether a name is an http or https URL."""
    return spec.lower().startswith(("http://", "https://"))


def web_options(url: str) -> dict[str, Any]:
    """Return the options for fsspec's file system of an http or https URL that make it check each part it gets.

    fsspec takes whatever comes as the part that was asked for, as long as it has the right length. Such a URL may stand
    behind another one, as in ``zip://tiles.npz::https://example.org/all.zip``.
    """
    behind = re.search(r"::(https?)://", url, re.IGNORECASE)
    if (not is_web(url) and behind is None) or find_spec("aiohttp") is None:  # without it fsspec says what is missing
        return {}
    options = {"client_kwargs": {"trace_configs": [_checked_parts()]}}
    return options if behind is None else {behind[1].lower(): options}


@cache
def _checked_parts() -> Any:
    """Return what aiohttp calls with each answer; one object, so that fsspec finds its file system again."""
    import aiohttp

    async def check(session: Any, context: Any, asked: Any) -> None:
        if asked.response.status == PARTIAL and "Range" in asked.headers:
            check_part(asked.headers["Range"], asked.response.headers.get("Content-Range", ""), str(asked.url))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(check)
    return trace


def check_part(asked: str, came: str, spec: str) -> None:
    """Refuse a part of a file that is not the one asked for (RFC 9110, section 14.4).

    Args:
        asked: the request's Range.
        came: the answer's Content-Range; empty where it has none.
        spec: the URL, for the message.

    Raises:
        InputError: another part came, or the answer does not say which.
    """
    wanted, found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked), re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", came)
    if wanted is None:  # the last bytes of a file: nothing here asks for those
        return
    fits = found is not None and found[1] == wanted[1]
    if found is not None and wanted[2]:
        # The last part of a file is shorter than was asked for.
        last = int(wanted[2]) if found[3] == "*" else min(int(wanted[2]), int(found[3]) - 1)
        fits = fits and int(found[2]) == last
    if not fits:
        raise InputError(
            f"{shown(spec)}: the server sent {came[:60] or 'a part without Content-Range'!r} where {asked} was asked "
            "for: copy the file to this machine"
        )


def check_ranges(spec: str) -> None:
    """Refuse a scene behind an http or https URL whose server sends whole files only; other names pass.

    Raises:
        InputError: it does, or the file is not there.
    """
    if is_web(spec) and not _first_byte(spec).partial:
        raise InputError(
            f"{shown(spec)}: the server sends no parts of a file (Range requests), which windows of a scene need: "
            "copy it to this machine"
        )


def web_fingerprint(spec: str) -> str:
    """Return the SHA-256, hexadecimal, of what a web server tells of a file: its size, and ETag, MD5 or time.

    Raises:
        InputError: the file is not there, or the server tells neither.
    """
    headers = _first_byte(spec).headers
    state = next((headers[name] for name in _STATES if name in headers), None)
    if state is None:
        raise InputError(
            f"{shown(spec)}: the server gives no ETag and no time of the last change, so a later run could not tell "
            "whether it is the same file: copy it to this machine"
        )
    size = headers.get("content-range", headers.get("content-length", "")).rpartition("/")[2]
    return hashlib.sha256(f"{size}\0{state}".encode()).hexdigest()


def _first_byte(spec: str) -> Answer:
    request = urllib.request.Request(spec, headers={"Range": PROBE})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            if answer.status == PARTIAL:
                check_part(PROBE, headers.get("content-range", ""), spec)
            return Answer(answer.status == PARTIAL, headers)
    except urllib.error.HTTPError as error:
        raise InputError(f"cannot read {shown(spec)} ({error.code} {error.reason}): check the address") from None
    except (OSError, ValueError) as error:
        why = scrubbed(str(getattr(error, "reason", error)), spec)
        raise InputError(f"cannot read {shown(spec)} ({why}): check the address, the access and the network") from None
