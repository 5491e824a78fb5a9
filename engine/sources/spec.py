"""What the user calls an input: a path or a URL, with a key behind it; and how messages call it, without secrets."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

# A key stands behind the name of these files.
KEYED = (
    ".npz:",
    ".zarr:",
    ".parquet:",
)


def is_url(spec: str) -> bool:
    """Return whether a name is a URL, and no path of this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)", spec) is not None


def split_key(spec: str) -> tuple[Path, str]:
    """Return the path and the key of ``file.npz:key`` and the like; the key is empty where none is given."""
    # The whole text first: a folder or file may have a colon in its name, and Windows drives do.
    mark = max(KEYED, key=spec.rfind)
    if mark not in spec or (not is_url(spec) and Path(spec).exists()):
        return Path(spec), ""
    path, _, key = spec.rpartition(mark)
    return Path(path + mark[:-1]), key


def split_url(spec: str) -> tuple[str, str]:
    """Return a URL and the key behind it; the key is empty where none is given."""
    mark = max(KEYED, key=spec.rfind)
    before, found, key = spec.rpartition(mark)
    # One URL may stand behind another: zip://tiles.npz::s3://bucket/all.zip.
    return (before + mark[:-1], key) if found and "/" not in key and not key.startswith(":") else (spec, "")


def shown(url: str) -> str:
    """Return a URL without user, password and query, any of which may hold a secret."""
    return re.sub(r"\?.*", "?...", re.sub(r"//[^/@]*@", "//", url), flags=re.DOTALL)


def scrubbed(text: str, url: str) -> str:
    """Return the first line of a message about a URL without any secret that the URL holds."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    parts = urlsplit(url)
    secrets = [parts.netloc.rpartition("@")[0], parts.password or "", parts.query]
    secrets += [value for _, value in parse_qsl(parts.query) if len(value) > 3]
    forms = {*secrets, *map(unquote, secrets), *(quote(secret, safe="") for secret in secrets)} - {""}
    for secret in sorted(forms, key=len, reverse=True):
        line = line.replace(secret, "...")
    line = re.sub(r"//[^/@\s]*@", "//", line)
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\")]*", r"\1?...", line)[:200]
