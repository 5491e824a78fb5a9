"""Servers that refuse, redirect in a circle, send whole files only or say nothing: the true reason, within a limit."""

from __future__ import annotations

import base64
import contextlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from engine.sources import answers, ranges, remote
from engine.sources.answers import in_words, is_final, limited, status_of
from engine.sources.open import open_source
from engine.sources.ranges import check_ranges
from engine.sources.scenes import open_scenes

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

PIXELS = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)


@dataclass
class Server:
    """What a server is told to do, and what it was asked."""

    address: str = ""
    behaviour: str = "serve"
    passing: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


def content() -> bytes:
    stream = io.BytesIO()
    np.save(stream, PIXELS)
    return stream.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that does what it is told; limits are short."""
    told, data = Server(), content()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(b"")

        def do_GET(self) -> None:
            self.answer(data)

        def answer(self, body: bytes) -> None:
            told.asked.append((self.command, self.headers.get("Authorization", "")))
            kind = told.behaviour if len(told.asked) > told.passing else "serve"
            given = self.headers.get("Range", "")
            if kind == "silent" or (kind == "silent reads" and given and given != "bytes=0-0"):
                told.ended.wait(20)
                self.close_connection = True
                return
            if kind.isdecimal():
                self.send_response(int(kind))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if kind == "circle":
                self.send_response(302)
                self.send_header("Location", self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, stop = 0, len(data)
            if given and kind != "whole":
                start, _, end = given.removeprefix("bytes=").partition("-")  # type: ignore[assignment]
                start, stop = int(start), min(len(data), int(end or len(data)) + 1)
            self.send_response(206 if given and kind != "whole" else 200)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body[start:stop])

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    for module in (answers, remote, ranges):
        monkeypatch.setattr(module, "SILENCE_SECONDS", 0.4)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        told.address = f"http://127.0.0.1:{running.server_port}/tiles.npy"
        try:
            yield told
        finally:
            told.ended.set()
            running.shutdown()


REASONS = {
    "401": r"401 Unauthorized: the server asks for a login",
    "403": r"403 Forbidden: access is refused",
    "404": r"no such file or folder",
    "410": r"410 Gone: it was removed",
    "429": r"429 Too Many Requests: too many requests, try again later",
    "500": r"500 Internal Server Error: the server fails, try again later",
    "503": r"503 Service Unavailable: the server fails, try again later",
    "599": r"status 599: the server fails",
    "circle": r"the server redirects in a circle: check the address",
    "whole": r"the server sends no parts of a file \(Range requests\)",
    "silent": r"no answer within 0 s: check the address, the network and the server",
}


@pytest.mark.parametrize("suffix", ["npy", "png"])
@pytest.mark.parametrize("behaviour", REASONS)
def test_the_true_reason_is_named(behaviour: str, suffix: str, server: Server) -> None:
    """A picture is asked for through fsspec alone, an array first whether it comes in parts."""
    server.behaviour = behaviour
    url = server.address.replace("npy", suffix)
    wanted = REASONS[behaviour] if (behaviour, suffix) != ("whole", "png") else "cannot read the image"
    with pytest.raises(InputError, match=wanted) as caught:
        open_source(url + "?key=secret", "labels")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("behaviour", "most"), [("404", 1), ("403", 1), ("503", 2), ("silent", 2)])
def test_only_what_may_pass_is_asked_again(behaviour: str, most: int, server: Server) -> None:
    server.behaviour = behaviour
    with pytest.raises(InputError):
        check_ranges(server.address)
    assert len(server.asked) == most


def test_reads_that_are_never_answered_end_too(server: Server) -> None:
    server.behaviour = "silent reads"
    with pytest.raises(InputError, match="no answer within"):
        list(open_source(server.address).batches(2))


def test_a_server_that_answers_is_read(server: Server) -> None:
    found = np.concatenate([batch.pixels for batch in open_source(server.address).batches(4)])
    np.testing.assert_array_equal(found[..., 0], PIXELS)


def test_user_and_password_of_the_address_are_sent(server: Server) -> None:
    address = server.address.replace("//", "//me:a%20secret@")
    list(open_source(address).batches(4))
    assert {given for _, given in server.asked} == {"Basic " + base64.b64encode(b"me:a secret").decode()}


@pytest.mark.parametrize("name", ["folder/", "folder", "tiles.zarr", "tiles.zarr/"])
def test_what_web_servers_cannot_give_is_said_at_once(name: str, server: Server) -> None:
    with pytest.raises(InputError, match=r"web servers list no folders: .*copy it to this machine or into a store"):
        open_source(server.address.replace("tiles.npy", name))
    assert not server.asked


def test_scenes_behind_silent_servers_end(server: Server) -> None:
    server.behaviour = "silent"
    with pytest.raises(InputError, match="no answer within"):
        open_scenes(server.address.replace("npy", "tif"))


def test_a_thread_that_never_answers_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SILENCE_SECONDS", 0.05)
    never = threading.Event()
    with pytest.raises(TimeoutError):
        limited(lambda: never.wait(20))
    never.set()
    assert limited(lambda: 3) == 3
    with pytest.raises(KeyError):
        limited(lambda: {}["x"])


class Answered(Exception):
    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response


def test_refusals_of_stores() -> None:
    error = Answered({"ResponseMetadata": {"HTTPStatusCode": 403}})
    assert (status_of(error), is_final(error), in_words(error)[:13]) == (403, True, "403 Forbidden")
    assert not is_final(Answered({"ResponseMetadata": {"HTTPStatusCode": 503}}))
    assert (status_of(ValueError("x")), in_words(ValueError("x"))) == (None, "")
