"""A web server on this machine that sends parts of files (Range requests, RFC 9110), or whole files only."""

from __future__ import annotations

import contextlib
import email.utils
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def serving(folder: Path, ranges: bool = True, ahead: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Serve the files of a folder; yield the address and the Range header of each GET (empty for none).

    With ``ahead`` what comes lies so many bytes further on than was asked for, as its Content-Range says.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = folder / self.path.lstrip("/").split("?")[0]
            if not path.is_file():
                self.send_error(404)
                return
            size, given = path.stat().st_size, self.headers.get("Range", "")
            if body:
                asked.append(given)
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", given) if ranges else None
            start, stop = 0, size
            if found:
                start, stop = int(found[1]) + ahead, min(size, int(found[2] or size - 1) + 1 + ahead)
            self.send_response(206 if found else 200)
            if found:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Last-Modified", email.utils.formatdate(path.stat().st_mtime, usegmt=True))
            self.end_headers()
            if body:
                with contextlib.suppress(ConnectionError), path.open("rb") as stream:
                    stream.seek(start)
                    self.wfile.write(stream.read(stop - start))

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
