"""Another backend of Keras trains the same networks, and the exporter takes what it wrote."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.trainers.conftest import tiles


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_network_of_another_backend_is_exported(backend: str, root: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: pip install {backend}")
    exporters = pytest.importorskip("exporters")
    pytest.importorskip("tf2onnx", reason="needs the export extra")
    data = tiles(12, size=(16, 32))
    np.savez(tmp_path / "d.npz", images=data.images, labels=data.labels, groups=data.groups)
    command = [
        sys.executable,
        "-m",
        "trainers.cli",
        "fit",
        "residual_attention_unet",
        "--preset",
        "tiny",
        "--option",
        "depth=1",
    ]
    command += ["--data", str(tmp_path / "d.npz"), "--out", str(tmp_path / "n.keras"), "--epochs", "2"]
    command += ["--loss", "dice+0.5*focal+0.1*boundary", "--ema", "0.9", "--batch-size", "8", "--augment", "custom"]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    record = tomllib.loads((tmp_path / "n.run.toml").read_text())
    assert record["result"]["backend"] == backend
    export = exporters.export_onnx(tmp_path / "n.keras", tmp_path / "n.onnx", tiles=data.images)
    assert export.parity.max_difference <= 1e-4
    assert export.transposes == 0
