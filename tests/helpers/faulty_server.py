"""A web server on this machine that answers wrongly in ways that are stated before each request."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RANGES = ("kept", "ignored", "refused", "shifted", "unsaid", "other total", "garbage")
LENGTHS = ("right", "none", "too long", "too short", "negative", "garbage")
PLACES = ("", "/loop", "/elsewhere/", "http://127.0.0.1:1/none", "file:///etc/passwd", "//", "http://[")


@dataclass
class Faults:
    """How the server answers; by default as it should.

    Attributes:
        after: how many requests are answered well first.
        status: answer of the next ``times`` requests.
        times: how many requests get that status.
        redirect: where the file is said to be; empty for here.
        head: status of the answers to HEAD, 0 for that of GET.
        ranges: what becomes of a Range header.
        length: what Content-Length says.
        cut: how many bytes of a body are sent before the connection ends; negative for all.
        encoding: what Content-Encoding claims.
        etag: whether each answer has another ETag.
    """

    after: int = 0
    status: int = 503
    times: int = 0
    redirect: str = ""
    head: int = 0
    ranges: str = "kept"
    length: str = "right"
    cut: int = -1
    encoding: str = ""
    etag: bool = False


@dataclass
class Server:
    """What is served, by path, and how; both may be replaced between requests."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    requests: int = 0

    def answer(self, path: str, method: str, asked: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        self.requests += 1
        faults = self.faults if self.requests > self.faults.after else Faults()
        if self.requests <= faults.after + faults.times:
            return faults.status, {"Content-Length": "0"}, b""
        if faults.redirect and not path.startswith("/elsewhere/"):
            place = faults.redirect + (path.lstrip("/") if faults.redirect.endswith("/elsewhere/") else "")
            return 302, {"Location": place, "Content-Length": "0"}, b""
        content = self.files.get(path.removeprefix("/elsewhere").split("?")[0])
        if content is None:
            return 404, {"Content-Length": "0"}, b""
        if method == "HEAD" and faults.head:
            return faults.head, {"Content-Length": "0"}, b""
        status, headers, body = _part(content, asked, faults.ranges)
        said = {"right": len(body), "too long": len(body) + 7, "too short": max(0, len(body) - 7), "negative": -1}
        if faults.length != "none":
            headers["Content-Length"] = str(said.get(faults.length, "many"))
        if faults.encoding:
            headers["Content-Encoding"] = faults.encoding
        headers["ETag"] = f'"{self.requests if faults.etag else 0}"'
        return status, headers, body if faults.cut < 0 else body[: faults.cut]


@contextlib.contextmanager
def faulty() -> Iterator[Server]:
    """Run such a server; yield what decides its answers."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.reply("HEAD")

        def do_GET(self) -> None:
            self.reply("GET")

        def reply(self, method: str) -> None:
            status, headers, body = server.answer(self.path, method, self.headers.get("Range", ""))
            self.send_response(status)
            for name, value in {**headers, "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            if method == "GET":
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{web.server_port}"
        try:
            yield server
        finally:
            web.shutdown()
            thread.join()


def _part(content: bytes, asked: str, how: str) -> tuple[int, dict[str, str], bytes]:
    """Return the answer to a Range header, as wrong as ``how`` says."""
    first, dash, last = asked.removeprefix("bytes=").partition("-")
    size = len(content)
    if not dash or how == "ignored":
        return 200, {"Accept-Ranges": "bytes"} if how != "ignored" else {}, content
    start, stop = int(first or max(0, size - int(last))), min(size, int(last or size - 1) + 1 if first else size)
    if how == "refused" or start >= size:
        return 416, {"Content-Range": f"bytes */{size}"}, b""
    if how == "shifted":
        start, stop = (start + 1, stop + 1) if stop < size else (max(0, start - 1), max(1, stop - 1))
    told = {
        "unsaid": {},
        "other total": {"Content-Range": f"bytes {start}-{stop - 1}/{size + 9}"},
        "garbage": {"Content-Range": "bytes all/of/it"},
    }
    return 206, told.get(how, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}), content[start:stop]
