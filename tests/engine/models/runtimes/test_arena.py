"""All sessions allocate from one arena: ONNX Runtime would ignore the setting without a word."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.world import World

# In a process of its own, since an arena is registered once: with a limit of 64 KiB only sessions that use it fail.
PROGRAM = """
import sys
import numpy as np, onnxruntime
settings = onnxruntime.OrtArenaCfg
onnxruntime.OrtArenaCfg = lambda given: settings({**given, "max_mem": int(sys.argv[2])})
from engine.models.runtimes.onnxruntime import OnnxSession
from engine.errors import ModelError
session = OnnxSession(sys.argv[1])
shape = [side if isinstance(side, int) else 4 for side in session.raw.get_inputs()[0].shape]
try:
    session.run(session.raw.get_outputs()[0].name, np.zeros((64, *shape[1:]), np.float32))
    print("ran")
except ModelError as error:
    print(error)
"""


@pytest.mark.parametrize(("limit", "told"), [(0, "ran"), (1 << 16, "fails on a batch")])
def test_sessions_allocate_from_the_shared_arena(world: World, limit: int, told: str) -> None:
    path = world.models / "a.onnx"
    done = subprocess.run([sys.executable, "-c", PROGRAM, path, str(limit)], capture_output=True, text=True, check=True)
    assert told in done.stdout
