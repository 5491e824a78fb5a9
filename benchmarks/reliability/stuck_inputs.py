"""Inputs of :mod:`benchmarks.reliability.stuck`: damaged, contradictory or much larger than they look; and servers."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow
import zarr
from PIL import Image
from pyarrow import parquet

from engine.compare.runfile import ARRAYS, KIND, SCHEMA, _digest, plain, read_run
from engine.sources.record import NPZ_KEY

BEHAVIOURS = {
    "silent": "accepts and never answers",
    "401": "status 401",
    "403": "status 403",
    "500": "status 500",
    "503": "status 503",
    "circle": "redirects in a circle",
    "whole": "sends no parts of a file",
}

# Opens a Parquet source as often as it is told, and leaves each in the middle for the garbage collector.
LEAVE = """
import gc, sys
try:
    from engine.sources.open import open_source
except ImportError:  # commits before 2026-11-26
    from engine.images import open_source

gc.set_threshold(100, 2, 2)
for done in range(int(sys.argv[2])):
    batches = iter(open_source(sys.argv[1]).batches(2))
    next(batches)
    cycle = [batches]
    cycle.append(cycle)
    del batches, cycle
print(done + 1)
"""


def encoded(count: int = 40) -> list[bytes]:
    """Return PNGs of 4x8 pixels."""
    found = []
    for index in range(count):
        stream = io.BytesIO()
        Image.new("L", (8, 4), index).save(stream, "PNG")
        found.append(stream.getvalue())
    return found


def pictures(path: Path) -> None:
    """Write encoded pictures."""
    parquet.write_table(pyarrow.table({"image": encoded()}), path, row_group_size=10)


def twins(path: Path) -> None:
    """Write two columns of one name."""
    parquet.write_table(pyarrow.table([encoded(3), encoded(3)], names=["image", "image"]), path)


def no_text(path: Path) -> None:
    """Write ids that are not UTF-8."""
    held = pyarrow.array([b"a", b"\xff\xfe", b"c"])
    ids = pyarrow.StringArray.from_buffers(3, held.buffers()[1], held.buffers()[2])
    parquet.write_table(pyarrow.table({"id": ids, "image": encoded(3)}), path)


def zarr_of_text(path: Path) -> None:
    """Write a store whose shape is a text."""
    zarr.create_array(path, data=np.zeros((3, 4, 6), np.uint8))
    held = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**held, "shape": "many"}))


def flipped(source: Path, goal: Path) -> None:
    """Write an .npz with some other bytes in its record."""
    data = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        info = archive.getinfo(f"{NPZ_KEY}.npy")
    start = info.header_offset + 60 + info.compress_size // 2
    data[start : start + 4] = bytes(value ^ 0xFF for value in data[start : start + 4])
    goal.write_bytes(data)


def forged(source: Path, goal: Path) -> None:
    """Write a run with one share less than it has classes, and the digest of this."""
    done = read_run(source)
    facts = plain(asdict(done.facts))
    facts["rows"][0]["share"].pop()
    arrays = {name: getattr(done.pictures, name) for name in ARRAYS}
    head = {"kind": KIND, "schema": SCHEMA, "content_sha256": _digest(facts, arrays), "facts": facts}
    np.savez_compressed(goal, **{NPZ_KEY: np.array(json.dumps(head)), **arrays})


def parquet_bomb(path: Path) -> int:
    """Write one image of 85 million equal numbers; return the size of the file."""
    count = 85_000_000
    values = pyarrow.ListArray.from_arrays(np.array([0, count], np.int32), np.zeros(count, np.uint8))
    parquet.write_table(pyarrow.table({"image": values}), path, compression="zstd")
    return path.stat().st_size


def tiff_bomb(path: Path, side: int = 13_000) -> int:
    """Write a TIFF of one strip that no data is behind; return the size of the file."""
    body = bytes(200_000)
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, side), (279, 4, len(body))]
    held = b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags))
    held += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags) + bytes(4)
    path.write_bytes(held)
    return path.stat().st_size


@contextmanager
def serving(behaviour: str) -> Iterator[str]:
    """Run a web server that behaves as named in :data:`BEHAVIOURS`; yield its address."""
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 64, 128), np.uint8))
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if behaviour == "silent":
                ended.wait(600)
                return
            status = 302 if behaviour == "circle" else 200 if behaviour == "whole" else int(behaviour)
            self.send_response(status)
            if behaviour == "circle":
                self.send_header("Location", self.path)
            self.send_header("Content-Length", str(stream.tell() if behaviour == "whole" else 0))
            self.end_headers()
            if behaviour == "whole" and self.command == "GET":
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(stream.getvalue())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            ended.set()
            server.shutdown()
