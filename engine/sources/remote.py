"""Files and folders behind URLs (s3, gs, https, ...), through fsspec: read by ranges, asked again when a read fails."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import IO, Any, TypeVar

from engine.errors import EngineError, InputError
from engine.sources.answers import (
    CONNECT_SECONDS,
    SILENCE_SECONDS,
    cause_of,
    in_words,
    is_final,
    is_timeout,
    limited,
    status_of,
)
from engine.sources.parts import web_options
from engine.sources.range_file import HEAD_BYTES, RangeFile, Span
from engine.sources.spec import scrubbed, shown
from engine.utils.optional import require

# Pauses in front of the second and third try of a read, in seconds.
PAUSES = (0.5, 3.0)
# What a file system tells of a file that changes whenever its content does; the first that is there counts.
_STATES = (
    "etag",
    "md5hash",
    "content_md5",
    "crc32c",
    "checksum",
    "last_modified",
    "lastmodified",
    "updated",
    "mtime",
    "created",
)
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL; it knows what the readers of this package ask a path for.

    Attributes:
        system: the fsspec file system.
        path: where the file lies in it.
        url: as it was given; may hold secrets.
        label: what messages call it.
        told: what the file system tells of it.
    """

    system: Any
    path: str
    url: str = field(repr=False)
    label: str
    told: dict[str, Any] = field(repr=False)
    kept: Span = field(default_factory=Span, repr=False, compare=False)

    def __str__(self) -> str:
        """Return the URL without secrets."""
        return self.label

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return PurePosixPath(self.path.split("?")[0]).name

    @property
    def stem(self) -> str:
        """Return the name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Return the suffix with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def size(self) -> int:
        """Return the size in bytes.

        Raises:
            InputError: the server does not tell.
        """
        size = self.told.get("size")
        if not isinstance(size, int) or size < 0:
            raise InputError(f"{self} has no known size: copy it to this machine, or serve it with Content-Length")
        return size

    def is_file(self) -> bool:
        """Return True: it was found."""
        return True

    def stat(self) -> Any:
        """Return the size as ``os.stat`` names it."""
        return SimpleNamespace(st_size=self.size)

    def range(self, start: int, stop: int) -> bytes:
        """Return the bytes from one place up to another.

        Raises:
            InputError: they cannot be had, after three tries.
        """
        if start >= stop:
            return b""
        size = stop - start
        data = asked(self.url, self.label, lambda: self.system.cat_file(self.path, start=start, end=stop), size)
        if len(data) != size:
            # The whole file: parts (Range requests) are passed over.
            why = ", the server sends no parts of a file (Range requests)" if len(data) > size else ""
            raise InputError(f"{self} gave {len(data)} bytes where {size} were asked for{why}: copy it to this machine")
        return bytes(data)

    def keep(self, start: int, stop: int) -> None:
        """Fetch a part in one request, and keep it for every stream over this file until another part is kept.

        Raises:
            InputError: it cannot be had, after three tries.
        """
        self.kept.data = b""
        self.kept.begin, self.kept.data = start, self.range(start, min(stop, self.size))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Return it as a binary stream that can be read at any place."""
        return io.BufferedReader(RangeFile(self, self.kept), HEAD_BYTES)


def asked(url: str, label: str, question: Callable[[], Answer], size: int = 0) -> Answer:
    """Return what a file system answers; asked again twice after errors that may pass, once after silence.

    Args:
        url: may hold secrets.
        label: what messages call it.
        question: asks the file system.
        size: bytes of the answer, as far as known.

    Raises:
        InputError: it fails, or does not answer; the message holds no secret of the URL.
    """
    pauses = [*PAUSES, None]
    while True:
        pause = pauses.pop(0)
        try:
            with telling(url, label):
                return limited(question, size)
        except InputError as error:
            why = error.__context__
            if why is not None and is_timeout(cause_of(why)):
                pauses = pauses[-1:]
            if pause is None or is_final(why):
                raise
            time.sleep(pause)


@contextmanager
def telling(url: str, label: str) -> Iterator[None]:
    """Turn whatever a file system raises into one line without secrets; each raises errors of its own making."""
    try:
        yield
    except EngineError:
        raise
    except FileNotFoundError as error:
        cause = cause_of(error)
        if isinstance(cause, FileNotFoundError) or status_of(cause) == 404:
            raise InputError(f"no such file or folder: {label}") from None
        raise InputError(_refusal(url, label, cause)) from None
    except ImportError as error:
        raise InputError(f"{label} needs a package more ({scrubbed(str(error), url)}): install it with pip") from None
    except Exception as error:
        raise InputError(_refusal(url, label, error)) from None


def _refusal(url: str, label: str, error: BaseException) -> str:
    why = in_words(error)
    if why:
        return f"cannot read {label}: {why}"
    why = scrubbed(str(error), url) or type(error).__name__
    return f"cannot read {label} ({why}): check the address, the access and the network"


def storage_options(url: str) -> dict[str, Any]:
    """Return what a file system is made with: the checks of parts, and the packages' own limits of time."""
    options, scheme = web_options(url), url.lower().partition("://")[0]
    if options:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        inner = options if "client_kwargs" in options else next(iter(options.values()))
        inner["client_kwargs"]["timeout"] = limit
    elif scheme in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENCE_SECONDS}
        options = {"config_kwargs": {**limits, "retries": {"max_attempts": 2}}}
    return options


def locate(url: str) -> tuple[RemoteFile, bool]:
    """Return what lies behind a URL, and whether it is a folder.

    Raises:
        InputError: nothing, no access, no such kind of URL, or fsspec is missing.
    """
    label = shown(url)
    system, path = _system(url)
    told = asked(url, label, lambda: dict(system.info(path)))
    return RemoteFile(system, path, url, label, told), told.get("type") == "directory"


def forget(url: str) -> None:
    """Let the file system of a URL forget what it knows of its files, so that it asks again.

    Raises:
        InputError: no such kind of URL, or fsspec is missing.
    """
    _system(url)[0].invalidate_cache()


def _system(url: str) -> tuple[Any, str]:
    label = shown(url)
    core = require("fsspec.core", "cloud", f"reading {label} needs fsspec", InputError)
    with telling(url, label):
        system, path = core.url_to_fs(url, **storage_options(url))
    return system, path


def listed(folder: RemoteFile) -> list[RemoteFile]:
    """Return the files that lie in a folder, not those of folders in it, sorted by name.

    Raises:
        InputError: it cannot be listed.
    """
    found = asked(folder.url, folder.label, lambda: list(folder.system.ls(folder.path, detail=True)))
    held = [_inside(folder, told) for told in found if told.get("type") != "directory"]
    return sorted(held, key=lambda file: file.name)


def walked(folder: RemoteFile) -> dict[str, RemoteFile]:
    """Return the files of a folder and of those inside it by their places in it; names with a leading dot are left out.

    Raises:
        InputError: it cannot be listed.
    """
    found = asked(folder.url, folder.label, lambda: folder.system.find(folder.path, detail=True))
    files: dict[str, RemoteFile] = {}
    for path, told in sorted(found.items()):
        place = path.split("?")[0].removeprefix(folder.path.split("?")[0]).strip("/")
        if not any(part.startswith(".") for part in place.split("/")):
            files[place] = _inside(folder, told, place)
    return files


def fingerprint_of(url: str, key: str) -> str:
    """Return the SHA-256, hexadecimal, of what a file system tells of a file, or of all files of a folder.

    Names inside the folder, sizes and checksums count, times where there are no checksums; no file is read.

    Raises:
        InputError: the file system tells nothing.
    """
    found, folder = locate(url)
    digest = hashlib.sha256(f"{key}\0".encode("utf-8", "surrogateescape"))
    files = [found]
    if folder:
        inside = asked(url, found.label, lambda: found.system.find(found.path, detail=True))
        files = [_inside(found, told) for _, told in sorted(inside.items())]
    for file in files:
        name = file.path.removeprefix(found.path).strip("/")
        digest.update(f"{name}\0{file.told.get('size')}\0{_state(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _inside(folder: RemoteFile, told: dict[str, Any], place: str = "") -> RemoteFile:
    path = str(told["name"])
    name = place or PurePosixPath(path.split("?")[0]).name
    return RemoteFile(folder.system, path, folder.url, f"{folder.label.rstrip('/')}/{name}", dict(told))


def _state(file: RemoteFile) -> str:
    known = {name.lower().replace("-", "_"): value for name, value in file.told.items() if value}
    found = next((str(known[name]) for name in _STATES if name in known), None)
    return found or str(asked(file.url, file.label, lambda: file.system.checksum(file.path)))
