"""What the fuzz targets share: a folder for inputs, values of any kind, and the one way in which an input may fail."""

from __future__ import annotations

import atexit
import contextlib
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.sources.base import Source
from engine.utils import console

PLACE = Path(tempfile.mkdtemp(prefix="fuzz-"))
atexit.register(shutil.rmtree, PLACE, ignore_errors=True)

# Small whole numbers, the ends of the usual types, and what lies behind them.
NUMBERS = st.sampled_from([0, 1, 2, 3, 5, 255, 256, -1, 2**31, 2**63, 10**12, 10**40, 0.5, 1 / 255, 1e-40, 1e300])
# JSON or TOML of no meaning.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def made(save: Callable[..., None], *arguments: Any, **named: Any) -> bytes:
    """Return what a function writes into a stream."""
    stream = io.BytesIO()
    save(stream, *arguments, **named)
    return stream.getvalue()


def put(name: str, content: bytes) -> Path:
    """Write a file of the folder."""
    path = PLACE / name
    path.write_bytes(content)
    return path


@contextlib.contextmanager
def ours(*kinds: type[EngineError]) -> Iterator[None]:
    """Let an error of ours pass, which must fit into a line."""
    try:
        yield
    except kinds as error:
        assert console.one_line(str(error))
        assert len(str(error)) < 5000


def whole(source: Source) -> np.ndarray:
    """Return all images of a source; it must keep what it says of itself, read in turn and from any row on."""
    assert len(source.ids) == len(source)
    pixels = np.concatenate([batch.pixels for batch in source.batches(2)])
    assert pixels.shape == (len(source), *source.size, source.channels)
    if source.at is not None and len(source) > 1:
        np.testing.assert_array_equal(source.at(1, len(source)), pixels[1:])
    return pixels


@st.composite
def changed(draw: st.DrawFn, sound: Any, values: st.SearchStrategy[Any] = VALUES, most: int = 3) -> Any:
    """Return JSON with some of its values, at any depth, replaced, doubled or left out."""
    for _ in range(draw(st.integers(0, most))):
        sound = _with_one_change(draw, sound, values)
    return sound


def _with_one_change(draw: st.DrawFn, held: Any, values: st.SearchStrategy[Any]) -> Any:
    if isinstance(held, dict) and held and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(held)))
        if not draw(st.integers(0, 7)):
            return {name: value for name, value in held.items() if name != key}
        return {**held, key: _with_one_change(draw, held[key], values)}
    if isinstance(held, list) and held and draw(st.integers(0, 5)):
        index = draw(st.integers(0, len(held) - 1))
        match draw(st.integers(0, 7)):
            case 0:
                return held[:index] + held[index + 1 :]
            case 1:
                return held[:index] + held[index : index + 1] + held[index:]
        return [*held[:index], _with_one_change(draw, held[index], values), *held[index + 1 :]]
    return draw(values)
