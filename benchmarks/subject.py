"""The nets and tiles that a benchmark runs on: those it was given, those the environment names, or the samples."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SCENES = 128


@contextmanager
def nets_and_tiles(nets: Path | None, tiles: str) -> Iterator[tuple[Path, str]]:
    """Yield a folder of ONNX files and the tiles, FILE.npz:KEY, to run them on.

    Without nets: the folder MASKFUSE_POOL and the ``images`` of MASKFUSE_VALIDATION; without those the multi-class
    sample nets on generated scenes, in a folder that goes with the context.
    """
    pool, validation = os.environ.get("MASKFUSE_POOL"), os.environ.get("MASKFUSE_VALIDATION")
    if nets is not None:
        yield nets, tiles
    elif pool and validation:
        yield Path(pool), f"{validation}:images"
    else:
        from engine.samples import SAMPLES
        from engine.samples.scenes import generate

        with tempfile.TemporaryDirectory() as temporary:
            for path in Path(SAMPLES).glob("unet*.onnx"):
                shutil.copy(path, temporary)
            scenes = Path(temporary) / "scenes.npz"
            np.savez(scenes, images=generate(SCENES).images)
            yield Path(temporary), f"{scenes}:images"
