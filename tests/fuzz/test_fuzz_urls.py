"""Inputs behind a web server that answers wrongly: the right images, or one line."""

from __future__ import annotations

import atexit
import contextlib
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from engine.errors import InputError
from engine.sources import remote
from engine.sources.fingerprint import fingerprint
from engine.sources.open import open_source
from tests.fuzz.inputs import made, ours, whole
from tests.fuzz.target import spoilt, target
from tests.helpers.faulty_server import LENGTHS, PLACES, RANGES, Faults, Server, faulty

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

IMAGES = np.arange(5 * 4 * 6, dtype=np.uint8).reshape(5, 4, 6)
PICTURES = {f"/tiles/{index}.png": made(Image.fromarray(image).save, "PNG") for index, image in enumerate(IMAGES)}
LINKS = "".join(f'<a href="{name}">x</a>' for name in (*PICTURES, "../..", "http://127.0.0.1:1/a.png", "?a=b", "//"))
SOUND: dict[str, bytes] = {
    "/x.npy": made(np.save, IMAGES),
    "/x.npz": made(np.savez_compressed, images=IMAGES, other=IMAGES[:2]),
    "/tiles/": f"<html>{LINKS}</html>".encode(),
    **PICTURES,
}
with contextlib.suppress(ImportError):
    import pyarrow
    import pyarrow.parquet

    TABLE = pyarrow.table({"image": pyarrow.FixedShapeTensorArray.from_numpy_ndarray(IMAGES)})
    SOUND["/x.parquet"] = made(lambda stream: pyarrow.parquet.write_table(TABLE, stream, 2))
NAMES = ["/x.npy", "/x.npz", "/x.parquet", "/tiles/", "/none.npy"]


@cache
def server() -> Server:
    """Return the server that all inputs share; it ends with the process."""
    running = contextlib.ExitStack()
    atexit.register(running.close)
    return running.enter_context(faulty())


KINDS: dict[str, st.SearchStrategy[Any]] = {
    "after": st.integers(1, 6),
    "times": st.sampled_from([1, 2, 3, 4, 1000]),
    "redirect": st.sampled_from(PLACES),
    "head": st.sampled_from([301, 403, 404, 405, 501]),
    "ranges": st.sampled_from(RANGES),
    "length": st.sampled_from(LENGTHS),
    "cut": st.sampled_from([0, 1, 60, 200]),
    "encoding": st.sampled_from(["gzip", "deflate", "none", "br"]),
    "etag": st.just(True),
}
STATUSES = st.sampled_from([200, 204, 206, 304, 400, 401, 403, 404, 410, 416, 429, 500, 502, 503, 999])


@st.composite
def wrong(draw: st.DrawFn) -> Faults:
    """One fault, sometimes none or several at once."""
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=3, unique=True))
    return Faults(**{kind: draw(KINDS[kind]) for kind in kinds}, status=draw(STATUSES))


@target(few=60, name=st.sampled_from(NAMES), faults=wrong())
def test_servers(name: str, faults: Faults) -> None:
    """Sound files behind faulty answers: what is read is what is in the file."""
    web = server()
    web.files, web.faults, web.requests = SOUND, faults, 0
    with patch.object(remote, "PAUSES", (0.0, 0.0)), ours(InputError):
        fingerprint(f"{web.url}{name}")
        np.testing.assert_array_equal(whole(open_source(f"{web.url}{name}"))[..., 0], IMAGES)


@target(few=60, name=st.sampled_from(NAMES[:4]), data=st.data(), faults=wrong())
def test_damaged_files_behind_servers(name: str, data: st.DataObject, faults: Faults) -> None:
    web = server()
    web.files, web.faults, web.requests = {**SOUND, name: data.draw(spoilt(SOUND[name]))}, faults, 0
    with patch.object(remote, "PAUSES", (0.0, 0.0)), ours(InputError):
        whole(open_source(f"{web.url}{name}"))
