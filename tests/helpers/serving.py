"""A server of a plan in this process, and the requests of tests."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.serve.app import MOST_REQUESTS, MOST_UPLOAD, Server
from engine.serve.plan import ServedPlan
from engine.serve.run import GracefulServer, listen


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)

    @property
    def array(self) -> np.ndarray:
        return np.load(io.BytesIO(self.body), allow_pickle=False)


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        server: the application.
        port: of 127.0.0.1.
    """

    server: Server
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            got = connection.getresponse()
            return Reply(got.status, {key.lower(): value for key, value in got.getheaders()}, got.read())
        finally:
            connection.close()

    def post(self, path: str, body: bytes, **headers: str) -> Reply:
        return self.ask("POST", path, body, {key.replace("_", "-"): value for key, value in headers.items()})


@contextmanager
def running(plan: ServedPlan, upload: int = MOST_UPLOAD, requests: int = MOST_REQUESTS) -> Iterator[Running]:
    """Serve a plan in a thread until the end."""
    server = Server(plan, upload, requests)
    with listen("127.0.0.1", 0) as listening:
        uvicorn = GracefulServer(server, listening)
        thread = threading.Thread(target=uvicorn.run, kwargs={"sockets": [listening]})
        thread.start()
        while not uvicorn.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield Running(server, listening.getsockname()[1])
        finally:
            uvicorn.should_exit = True
            thread.join()


def npy(array: np.ndarray) -> bytes:
    """Return an array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """Return pixels as a picture."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def write_plan(folder: Path, models: Path, *lines: str) -> Path:
    """Write an ensemble.toml of all nets of a folder."""
    path = folder / "ensemble.toml"
    path.write_text("\n".join((*lines, "[[members]]", f'model = "{models}/*.onnx"')))
    return path
