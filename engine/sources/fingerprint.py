"""A hash that tells one input from another without naming where it lies, and without reading terabytes."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.sources.coding import LabelCoding
from engine.sources.naming import files_of, is_glob, pattern_base
from engine.sources.ranges import is_web, web_fingerprint
from engine.sources.rasters import raster_files, raster_suffix
from engine.sources.remote import fingerprint_of
from engine.sources.spec import is_url, split_key, split_url
from engine.utils.boundary import refusing

# Up to so many bytes everything is hashed; above, names, sizes and blocks spread evenly over the data.
WHOLE = 1 << 28
BLOCK = 1 << 20
BLOCKS = 64


def fingerprint(spec: str) -> str:
    """Return the SHA-256, hexadecimal, of what an input holds.

    Files and folders of up to 256 MiB are hashed whole. Of an archive (.npz) the CRC-32 of every array counts, which
    the archive itself stores. Of larger data the names, the sizes and 64 blocks of 1 MiB count. Of a
    URL sizes and checksums (ETag, MD5, CRC-32C) count as the file system tells them, else the time of the last change.

    Args:
        spec: ``file``, ``file.npz:key``, a folder, a pattern or a URL, as
            :func:`engine.sources.open.open_source` takes them.

    Raises:
        InputError: it cannot be read.
    """
    if is_web(spec) and raster_suffix(spec):
        return web_fingerprint(spec)
    if is_url(spec):
        return fingerprint_of(*split_url(spec))
    path, key = split_key(spec)
    digest = hashlib.sha256(f"{key}\0".encode("utf-8", "surrogateescape"))
    with refusing(lambda why: f"cannot read {path} ({why}): copy it again"):
        if path.suffix.lower() == ".npz" and path.is_file():
            _archive(path, digest)
        else:
            _files(path, digest)
    return digest.hexdigest()


def labels_fingerprint(spec: str, coding: LabelCoding) -> str:
    """Return the fingerprint of true label maps together with what their values stand for; empty without label maps.

    Args:
        spec: as of :func:`fingerprint`, or empty.
        coding: what the maps hold.

    Raises:
        InputError: they cannot be read.
    """
    found = fingerprint(spec) if spec else ""
    if not spec or coding.is_plain:
        return found
    return hashlib.sha256(f"{found}{json.dumps(coding.record, sort_keys=True)}".encode()).hexdigest()


def _archive(path: Path, digest: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            digest.update(f"{info.filename}\0{info.file_size} {info.CRC}\n".encode("utf-8", "surrogateescape"))


def _files(path: Path, digest: Any) -> None:
    found = input_files(path)
    base = pattern_base(path) if is_glob(str(path)) else path
    sizes = [(file, file.stat().st_size) for file in found]
    total = sum(size for _, size in sizes)
    for file, size in sizes:
        name = "" if path.is_file() else file.relative_to(base).as_posix()
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    if total <= WHOLE:
        for file, _ in sizes:
            with file.open("rb") as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
        return
    wanted = [round(index * (total - BLOCK) / (BLOCKS - 1)) for index in range(BLOCKS)]
    start = 0
    for file, size in sizes:
        inside = [offset - start for offset in wanted if start <= offset < start + size]
        if inside:
            with file.open("rb") as stream:
                for offset in inside:
                    stream.seek(offset)
                    digest.update(stream.read(BLOCK))
        start += size


def input_files(path: Path) -> list[Path]:
    """Return the files that an input on this machine consists of, sorted; those of a VRT with the VRT first.

    Raises:
        InputError: it is a VRT that cannot be opened.
    """
    if path.suffix.lower() == ".vrt" and path.is_file():
        return raster_files(path)
    return sorted(files_of(path) if is_glob(str(path)) else [path] if path.is_file() else _found(path))


def _found(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place) / name
            if file.is_file():
                yield file
