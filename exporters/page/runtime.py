"""onnxruntime-web, what runs the ensemble in a browser: one version, fetched with npm, every byte checked."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from engine.errors import InputError, PlanError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# Of the tarball, as npm publishes it; `npm view onnxruntime-web@VERSION dist.integrity` prints it.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# SHA-256 of the files in its folder dist/ that the page loads: without a GPU the first two `.mjs` and one `.wasm`.
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
# npm fetches 33 MB; it gives up by itself after minutes without an answer.
NPM = ("pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--prefer-offline", "--loglevel=error")


def runtime_files(given: Path | None = None) -> dict[str, bytes]:
    """Return the files that the page loads, by name.

    Args:
        given: the package's tarball, or a folder that holds it unpacked, as ``node_modules/onnxruntime-web``; None to
            fetch it with npm.

    Raises:
        InputError: ``given`` is not that version of the package, or damaged.
        PlanError: npm is missing or cannot fetch it.
    """
    if given is None:
        with tempfile.TemporaryDirectory(prefix="maskfuse-") as folder:
            return _unpacked(fetch(Path(folder)))
    if given.is_dir():
        return {name: _checked(name, given / "dist" / name, given) for name in FILES}
    if not given.is_file():
        raise InputError(f"no such file or folder: {given}; give the tarball of {PACKAGE}@{VERSION}, or its folder")
    return _unpacked(given)


def fetch(folder: Path) -> Path:
    """Fetch the package's tarball into a folder with npm and return its path; npm keeps a copy for the next time.

    Raises:
        InputError: what came is not what was published.
        PlanError: npm is missing or cannot fetch it.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise PlanError(
            f"{PACKAGE} is fetched with npm, which is not here: install Node.js, or give the package's tarball or "
            f"folder with --runtime (`npm pack {PACKAGE}@{VERSION}` elsewhere makes the tarball)"
        )
    done = subprocess.run([npm, *NPM], cwd=folder, capture_output=True, text=True, encoding="utf-8", errors="replace")
    found = sorted(folder.glob("*.tgz"))
    if done.returncode or not found:
        raise PlanError(
            f"npm cannot fetch {PACKAGE}@{VERSION} ({_reason(done.stderr)}): try again, or give the package's tarball "
            "or folder with --runtime"
        )
    check_tarball(found[0])
    return found[0]


def check_tarball(path: Path) -> None:
    """Compare a tarball with the hash that was published.

    Raises:
        InputError: it differs.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        raise InputError(
            f"{path} is not the published tarball of {PACKAGE}@{VERSION}: its SHA-512 differs, fetch it again"
        )


def _unpacked(tarball: Path) -> dict[str, bytes]:
    check_tarball(tarball)
    with tarfile.open(tarball) as archive:
        members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
        return {name: member.read() for name, member in members.items() if member is not None}


def _checked(name: str, path: Path, folder: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        raise InputError(f"{folder} lacks dist/{name}; give the folder of {PACKAGE}@{VERSION}") from None
    if hashlib.sha256(data).hexdigest() != FILES[name]:
        raise InputError(f"{path} is not that of {PACKAGE}@{VERSION}: its SHA-256 differs, give that version's folder")
    return data


def _reason(errors: str) -> str:
    """Return what npm complains of: the first line that is no code of an error."""
    lines = [line.removeprefix("npm error ").removeprefix("npm ERR! ") for line in errors.splitlines()]
    told = [line for line in lines if line.strip() and not line.startswith(("code ", "errno ", "syscall "))]
    return told[0].strip()[:200] if told else "it says no reason"
