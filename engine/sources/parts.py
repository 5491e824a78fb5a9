"""Parts of files that web servers send: whether they are the ones that were asked for."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from typing import Any

from engine.errors import InputError
from engine.sources.spec import shown

PARTIAL = 206
# The second byte: a server that sends the beginning of a file, whatever is asked for, does not pass.
PROBE = "bytes=1-1"


def web_options(url: str) -> dict[str, Any]:
    """Return the options for fsspec's file system of an http or https URL that make it check each part it gets.

    fsspec takes whatever comes as the part that was asked for, as long as it has the right length. Such a URL may stand
    behind another one, as in ``zip://tiles.npz::https://example.org/all.zip``.
    """
    direct, behind = re.match("https?://", url, re.IGNORECASE), re.search("::(https?)://", url, re.IGNORECASE)
    if (direct or behind) is None or find_spec("aiohttp") is None:  # without it fsspec says what is missing
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
