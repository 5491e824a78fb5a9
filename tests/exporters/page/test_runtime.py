"""The runtime's files: only the published bytes are taken, from wherever they come."""

from __future__ import annotations

import hashlib
import shutil
import stat
from pathlib import Path

import pytest

from engine.errors import InputError, PlanError
from exporters.page import runtime

NAMED = f"{runtime.PACKAGE}@{runtime.VERSION}"


def test_tarball_and_folder_give_the_same_files(tarball: Path, package: Path) -> None:
    found = runtime.runtime_files(tarball)
    assert found == runtime.runtime_files(package)
    assert {name: hashlib.sha256(data).hexdigest() for name, data in found.items()} == runtime.FILES


def test_a_changed_byte_is_refused(tarball: Path, package: Path, tmp_path: Path) -> None:
    data = bytearray(tarball.read_bytes())
    data[-1] ^= 1
    other = tmp_path / "other.tgz"
    other.write_bytes(data)
    with pytest.raises(InputError, match=f"other.tgz is not the published tarball of {NAMED}: its SHA-512 differs"):
        runtime.runtime_files(other)
    shutil.copytree(package, tmp_path / "changed")
    with (tmp_path / "changed" / "dist" / "ort.wasm.min.mjs").open("a") as stream:
        stream.write("\n")
    with pytest.raises(InputError, match=f"ort.wasm.min.mjs is not that of {NAMED}: its SHA-256 differs"):
        runtime.runtime_files(tmp_path / "changed")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no such file or folder: .*none.tgz; give the tarball of {NAMED}"):
        runtime.runtime_files(tmp_path / "none.tgz")
    with pytest.raises(InputError, match=f"lacks dist/ort.*; give the folder of {NAMED}"):
        runtime.runtime_files(tmp_path)


def test_without_npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlanError, match=f"npm, which is not here: install Node.js, or give .* --runtime .*{NAMED}"):
        runtime.runtime_files()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("printf 'npm error code X\\nnpm error no network\\n' >&2; exit 1", "no network"),
        ("exit 1", "it says no reason"),
        ("exit 0", "it says no reason"),
    ],
)  # fmt: skip
def test_npm_that_fails(script: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(PlanError, match=rf"npm cannot fetch {NAMED} \({told}\): try again, or give"):
        runtime.runtime_files()


def test_npm_that_brings_something_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho other >package.tgz\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(InputError, match=r"package\.tgz is not the published tarball"):
        runtime.runtime_files()
