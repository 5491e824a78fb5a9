"""What ``--output`` names: a file by its suffix, or a folder. Light: the command line's help needs it at once."""

from __future__ import annotations

import os
from pathlib import Path

from engine.utils.files import followed


class FolderOutput(type(Path())):  # type: ignore[misc]
    """A path that means a folder, whatever suffix its name seems to have."""


def output_path(text: str) -> Path:
    """Return what ``--output`` names, a link's target; a slash at its end means a folder, as in ``masks.v2/``."""
    target = followed(Path(text))
    return FolderOutput(target) if text.endswith(("/", os.sep)) else target
