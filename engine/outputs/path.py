"""What ``--output`` names: a file by its suffix, or a folder. Light: the command line's help needs it at once."""

from __future__ import annotations

import os
from pathlib import Path


class FolderOutput(type(Path())):  # type: ignore[misc]
    """A path that means a folder, whatever suffix its name seems to have."""


def output_path(text: str) -> Path:
    """Return what ``--output`` names; a slash at its end means a folder, as in ``masks.v2/``."""
    return FolderOutput(text) if text.endswith(("/", os.sep)) else Path(text)
