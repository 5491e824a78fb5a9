"""Whatever a library raises where it reads input becomes one line: each error type of its own, and common ones."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import EngineError, InputError, OutputError
from engine.sources.decode import decode
from engine.sources.fingerprint import fingerprint
from engine.sources.georeference import opened, read_window
from engine.sources.open import open_source
from engine.sources.record import read_record
from engine.utils.boundary import refusing

# What code stumbles over where nothing foresaw the damage.
COMMON = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, OverflowError, ZeroDivisionError),
    *(EOFError, OSError, RuntimeError, NotImplementedError, RecursionError, MemoryError, UnicodeError, SyntaxError),
    *(struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, zipfile.LargeZipFile, BufferError),
)


def errors_of(*modules: str) -> Iterator[Exception]:
    """Yield an error of each type that modules define, and of the common ones."""
    for module in modules:
        for kind in vars(import_module(module)).values():
            if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning):
                yield made(kind)
    yield from map(made, COMMON)


def made(kind: type[Exception]) -> Exception:
    for arguments in (("torn",), (1, 2, "torn"), ("torn", 1), ("utf-8", b"x", 0, 1, "torn")):
        try:
            return kind(*arguments)
        except TypeError:
            continue
    raise AssertionError(f"{kind} cannot be made")


def raising(error: Exception) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> None:
        raise error

    return refuse


def check(call: Callable[[], object], label: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert label in str(caught.value) and "\n" not in str(caught.value)


def drained(path: Path) -> list[Any]:
    return list(open_source(path).batches(2))


def patched(
    monkeypatch: pytest.MonkeyPatch, owner: ModuleType | type, name: str, modules: tuple[str, ...]
) -> Iterator[None]:
    """Let a call of a library raise each error in turn."""
    for error in errors_of(*modules):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, raising(error))
            yield


def test_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    pixels = arrow.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((3, 4, 6), np.uint8))
    parquet.write_table(arrow.table({"image": pixels, "id": ["a", "b", "c"]}), path := tmp_path / "a.parquet")
    for owner, name in ((parquet, "ParquetFile"), (parquet.ParquetFile, "iter_batches")):
        for _ in patched(monkeypatch, owner, name, ("pyarrow.lib",)):
            check(lambda: drained(path), "a.parquet")


def test_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.create_array(path := tmp_path / "a.zarr", data=np.zeros((3, 4, 6), np.uint8))
    for owner, name in ((zarr, "open"), (zarr.Array, "__getitem__")):
        for _ in patched(monkeypatch, owner, name, ("zarr.errors",)):
            check(lambda: drained(path), "a.zarr")


def test_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rasterio = pytest.importorskip("rasterio")
    modules = ("rasterio.errors", "rasterio._err")

    def opening() -> None:
        with opened(tmp_path / "a.tif"):
            pass

    for _ in patched(monkeypatch, rasterio, "open", modules):
        check(opening, "a.tif")

    class Dataset:
        width = 4

    for error in errors_of(*modules):
        for name in ("read", "read_masks"):
            setattr(Dataset, name, raising(error))
            check(lambda name=name: read_window(Dataset, "a.tif", 0, 1, [1], name == "read_masks"), "a.tif")


def test_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    for _ in patched(monkeypatch, Image, "open", ("PIL", "PIL.Image")):
        check(lambda: decode(tmp_path / "a.png", "images"), "a.png")
        check(lambda: open_source(tmp_path), "a.png")


def test_numpy_and_zipfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(path := tmp_path / "a.npz", images=np.zeros((3, 4, 6), np.uint8), metadata=np.array("{}"))
    for name in ("ZipFile", "ZipExtFile"):
        for _ in patched(monkeypatch, zipfile, name, ()):
            check(lambda: drained(path), "a.npz")
            if name == "ZipFile":
                check(lambda: fingerprint(str(path)), "a.npz")
            assert read_record(path) == {}


def test_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    monkeypatch.setattr("engine.sources.remote.PAUSES", ())
    held = io.BytesIO()
    np.save(held, np.zeros((3, 4, 6), np.uint8))
    memory().pipe_file("/a.npy", held.getvalue())
    modules = ("fsspec.exceptions", "aiohttp.client_exceptions") if _has("aiohttp") else ("fsspec.exceptions",)
    for name in ("info", "cat_file"):
        for error in (*errors_of(modules[0]), *_clients(modules[1:])):
            with monkeypatch.context() as patch:
                patch.setattr(memory, name, raising(error))
                check(lambda: list(open_source("memory://a.npy").batches(2)), "memory://a.npy")


def _has(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _clients(modules: tuple[str, ...]) -> Iterator[Exception]:
    """Yield errors whose makers take more than a text."""
    for module in modules:
        found = import_module(module)
        yield from (made(found.ClientError), made(found.ClientPayloadError), made(found.ServerDisconnectedError))
        yield found.ServerTimeoutError("slow")


def test_our_own_errors_and_ctrl_c_pass() -> None:
    for error in (OutputError("full"), EngineError("other"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as caught, refusing(lambda why: "never"):
            raise error
        assert caught.value is error
