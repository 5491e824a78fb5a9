"""Fusion on a GPU, on the CPU: numba's CUDA simulator interprets the kernels in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from engine.inference.gpu import vote_constants
from tests.conftest import ROOT
from tests.helpers.nets import save_member


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "models").mkdir()
    for seed, name in enumerate("abc"):
        save_member(folder / "models" / f"{name}.onnx", seed)
    save_member(folder / "poison.onnx", poisoned=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_ENABLE_CUDASIM": "1"}
    script = ROOT / "tests" / "helpers" / "cuda_simulated.py"
    return subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, env=environment, timeout=300
    )


@pytest.mark.parametrize(
    "told",
    [
        "mean-logit is the same",
        "mean-prob is the same",
        "vote is the same",
        "a whole run is the same",
        "NaN is named",
        "refusals are said",
    ],
)
def test_in_the_simulator(simulated: subprocess.CompletedProcess[str], told: str) -> None:
    assert told in simulated.stdout.splitlines(), simulated.stderr[-2000:]


def test_votes_fill_their_range_only_where_something_finer_is_added() -> None:
    weights = np.repeat([[0.5], [0.25], [0.25]], 5, axis=1)
    gain, bias = np.ones(5, np.float32), np.zeros(5, np.float32)
    units, spread, _, _ = vote_constants(weights, gain, bias, changed=False)
    assert units[:, 0].tolist() == [2, 1, 1]
    assert spread.tolist() == [1] * 5
    _, spread, _, raised = vote_constants(weights, gain, np.full(5, 0.25, np.float32), changed=True)
    assert (spread == 2**30 // 4).all()
    assert (raised == 2**28).all()
