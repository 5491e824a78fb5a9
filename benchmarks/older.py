"""Files of an older commit beside this tree, for benchmarks that run both in turns."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The commit that speed is compared with.
BASELINE = "7da9fc7"


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Yield a temporary folder with the files of a commit.

    Raises:
        SystemExit: git does not know the commit.
    """
    # An archive, not a worktree: a killed benchmark leaves nothing behind in the repository.
    packed = subprocess.run(["git", "archive", "--format=tar", revision], cwd=ROOT, capture_output=True)
    if packed.returncode:
        raise SystemExit(f"against: {revision!r} cannot be read ({packed.stderr.decode().strip().splitlines()[0]})")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)
