"""Steps compiled together on JAX beside Keras' own epochs, in a process of its own backend."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from dataclasses import replace
import keras, numpy as np
import trainers.loop
from tests.trainers.conftest import tiles
from trainers import compiled
from trainers.config import FitConfig
from trainers.learner import make_learner
from trainers.losses.base import Target

compiled.CHUNK = 3
loss, ema, soft = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "soft"
config = FitConfig(arch="pan", data="d.npz", out="n.keras", preset="tiny", options=("depth=1",), batch_size=4,
                   epochs=2, warmup_epochs=0.0, loss=loss, ema=ema, augment="flips", patience=0, dropout=0.1)
data = tiles(30, size=(16, 32))
if soft:
    maps = np.random.default_rng(0).random((30, 5, 16, 32)).astype(np.float16)
    data = replace(data, soft=maps)
found = {}
for name, kind in (("fit", compiled._Fit), ("compiled", compiled.CompiledSteps)):
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    learner = make_learner(config, (16, 32, 1), Target(5, soft=soft), steps=8)
    trainers.loop.epoch_of = kind
    done = trainers.loop.train(config, learner, data, data.take(np.arange(6)))
    found[name] = {
        "losses": [epoch.loss for epoch in done.history],
        "scores": [epoch.raw for epoch in done.history],
        "rates": [epoch.learning_rate for epoch in done.history],
        "steps": int(learner.trained.optimizer.iterations),
        "weights": [float(np.abs(item).sum()) for item in done.weights],
        "after": [float(np.abs(np.asarray(item)).sum()) for item in learner.model.get_weights()],
    }
print(json.dumps(found))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed: pip install jax")
@pytest.mark.parametrize(
    "given",
    [("cross-entropy", "0", "hard"), ("dice+0.1*boundary", "0.9", "hard"), ("cross-entropy", "0.9", "soft")],
    ids=" ".join,
)
def test_steps_compiled_together_train_as_keras_does(given: tuple[str, str, str], root: Path) -> None:
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SCRIPT, *given]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for key, value in found["fit"].items():
        assert found["compiled"][key] == pytest.approx(value, rel=2e-3, abs=1e-4), key
