"""Wrong requests and what they are refused with: the table of docs/serve.md, checked row by row by a test."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import naming_options
from engine.serve.plan import ServedPlan
from engine.utils.memory import memory_limit
from tests.helpers.serving import Running, encoded, npy, running, write_plan
from tests.helpers.world import World

UPLOAD = 200_000
MEMORY = 1_000_000_000
INFER = "/v2/models/ensemble/infer"
BEGIN = "<!-- refusals: written by python -m benchmarks.reliability.wrong_requests -->\n"
END = "<!-- end of refusals -->"


@dataclass(frozen=True)
class Wrong:
    """One request.

    Attributes:
        told: what is wrong with it.
        path: with its query.
        body: what is sent.
        headers: further headers.
        method: of HTTP.
    """

    told: str
    path: str = "/predict"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


def huge_png(side: int) -> bytes:
    """Return a PNG of a few bytes whose header declares a square of so many grey pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def infer(told: str, head: Any = None, rest: bytes = b"", length: int | None = None, **changed: Any) -> Wrong:
    """Return an inference request; ``changed`` replaces fields of its one input."""
    one = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [1, 2, 3, 4], **changed}
    held = {"inputs": [{key: value for key, value in one.items() if value is not None}], **(head or {})}
    text = json.dumps(held).encode()
    stated = len(text) if length is None else length
    headers = {"Inference-Header-Content-Length": str(stated)} if rest or length is not None else {}
    return Wrong(told, INFER, text + rest, headers)


def wrong_requests() -> list[Wrong]:
    """Return all of them."""
    grey = np.arange(128, dtype=np.uint8).reshape(8, 16)
    tile, picture = npy(grey), encoded(grey)
    noise = np.random.default_rng(0).integers(0, 240, (64, 64)).astype(np.uint8)
    binary = {"data": None, "parameters": _sized(4)}
    return [
        Wrong("no body"),
        Wrong("a text", body=b"hello"),
        Wrong("a picture that is cut off", body=encoded(noise)[:-500]),
        Wrong("a PNG of 80 bytes that declares 30,000 x 30,000 pixels", body=huge_png(30_000)),
        Wrong("one that declares 10,000 x 10,000", body=huge_png(10_000)),
        Wrong("a .npy that declares more than it holds", body=tile.replace(b"(8, 16)", b"(9, 99)")),
        Wrong("a picture in colour for grey nets", body=encoded(np.stack([grey] * 3, axis=2))),
        Wrong("a .npy of Python objects", body=_pickled()),
        Wrong("a .npy of complex numbers", body=npy(grey.astype(np.complex64))),
        Wrong("a .npy that is cut off", body=tile[:-5]),
        Wrong("a .npy without an image", body=npy(np.zeros((0, 8, 16), np.uint8))),
        Wrong("floats that were scaled already", body=npy(grey.astype(np.float32) / 255)),
        Wrong("more than --max-upload", body=bytes(2 * UPLOAD)),
        Wrong("a compressed body", body=picture, headers={"Content-Encoding": "gzip"}),
        Wrong("a multipart form", body=picture, headers={"Content-Type": "multipart/form-data; boundary=x"}),
        Wrong("a query that there is not", "/predict?path=/etc/passwd", picture),
        Wrong("a result that there is not", "/predict?result=masks", picture),
        Wrong("a map of doubt that there is not", "/predict?result=doubt&doubt_map=variance", picture),
        Wrong("a query without its result", "/predict?doubt_map=votes", picture),
        Wrong("probabilities as a PNG", "/predict?result=scores&format=png", picture),
        Wrong("doubt of float32 as a PNG", "/predict?result=doubt&doubt_type=float32&format=png", picture),
        Wrong("several masks as one PNG", "/predict?format=png", npy(np.stack([grey] * 3))),
        Wrong("an Accept that no result fits", body=picture, headers={"Accept": "text/html"}),
        Wrong("another method", "/predict", method="PUT"),
        Wrong("another path", "/../../etc/passwd", method="GET"),
        Wrong("another model", "/v2/models/other/infer", b"{}"),
        Wrong("another version", "/v2/models/ensemble/versions/2/infer", b"{}"),
        Wrong("no JSON", INFER, b"{"),
        Wrong("JSON that is no object", INFER, b"[]"),
        Wrong("JSON nested 100,000 deep", INFER, b"[" * 100_000),
        Wrong("NaN in JSON", INFER, infer("").body.replace(b"4]", b"NaN]")),
        Wrong("no input", INFER, b'{"inputs": []}'),
        infer("an input of another name", name="image"),
        infer("a datatype that holds no pixels", datatype="BYTES"),
        infer("a shape with a negative side", shape=[-1, 2, 2, 1]),
        infer("a shape that needs more than was sent", shape=[1, 2, 2**20, 1]),
        infer("lists of different lengths", data=[[1, 2], [3]]),
        infer("texts in place of numbers", data=["1", "2", "3", "4"]),
        infer("a number beyond its datatype", data=[1, 2, 3, 256]),
        infer("fractions for whole numbers", data=[1, 2, 3, 0.5]),
        infer("a number beyond FP32", datatype="FP32", data=[1, 2, 3, 1e300]),
        infer("FP16 in JSON", datatype="FP16"),
        infer("one image without a number of images", shape=[2, 2]),
        infer("a binary size that the shape does not make", data=None, parameters=_sized(5), rest=b"12345"),
        infer("fewer bytes than stated", **binary, rest=b"123"),
        infer("more bytes than stated", **binary, rest=b"12345"),
        infer("a JSON length beyond the body", **binary, rest=b"1234", length=10_000),
        infer("a JSON length within the JSON", **binary, rest=b"1234", length=40),
        infer("data and bytes", parameters=_sized(4), rest=b"1234"),
        infer("an output that there is not", {"outputs": [{"name": "labels"}]}),
        infer("an output twice", {"outputs": [{"name": "masks"}, {"name": "masks"}]}),
        infer("a flag that is no flag", {"parameters": {"binary_data_output": "yes"}}),
        infer("classification, an extension of others", {"outputs": [_classified()]}),
    ]


def _sized(size: int) -> dict[str, Any]:
    return {"binary_data_size": size}


def _classified() -> dict[str, Any]:
    return {"name": "masks", "parameters": {"classification": 3}}


def _pickled() -> bytes:
    held = np.empty(2, object)
    held[:] = ["a", "b"]
    return npy(held)


def refuse(server: Running, wrong: Wrong) -> tuple[str, int, str]:
    """Send a request; return what is wrong, the status and the answer's line.

    Raises:
        AssertionError: the answer is no single line of JSON with an error.
    """
    got = server.ask(wrong.method, wrong.path, wrong.body or None, wrong.headers)
    assert got.headers["content-type"] == "application/json", wrong.told
    assert set(got.told) == {"error"}, wrong.told
    line = got.told["error"]
    assert line.isprintable(), wrong.told
    return wrong.told, got.status, line


def refusals(world: World, folder: Path) -> list[tuple[str, int, str]]:
    """Send all of them to a server of a plan, and one good request at the end."""
    plan = ServedPlan.open(write_plan(folder, world.models), workers=2)
    with naming_options(), memory_limit(MEMORY), running(plan, UPLOAD) as server:
        rows = [refuse(server, wrong) for wrong in wrong_requests()]
        assert server.post("/predict", npy(world.images[0])).status == 200
        assert server.server.bounds.open_requests == 0
    return rows


def table(rows: list[tuple[str, int, str]]) -> str:
    """Return the rows as the table of the page."""
    lines = [f"| {told} | {status} | {line.replace('|', chr(92) + '|')} |" for told, status, line in rows]
    return "\n".join(("| request | status | error |", "| --- | ---: | --- |", *lines, ""))
