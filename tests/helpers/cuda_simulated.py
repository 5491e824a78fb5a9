"""Run by test_gpu.py in a process with NUMBA_ENABLE_CUDASIM=1: the CUDA kernels and lanes, interpreted on the CPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine import Ensemble
from engine.errors import EngineError
from engine.fusion.decoding import Decoding
from engine.fusion.fuse import fuse
from engine.inference.gpu import STRATEGIES, DeviceFusion, why_not
from engine.sources.base import Batch, from_array
from tests.helpers import reference

DECODINGS = (
    {},
    {"suppress": (0,)},
    {"suppress": (0, 3), "bias": (0.0, 0.1, -0.2, 0.0, 0.3)},
    {"suppress": (0,), "prior": (1.0, 2.0, 0.5, 1.0, 3.0)},
    {"suppress": (0,), "vote_stage": "fused"},
)


class Simulated:
    """An OnnxSession whose device arrays are those of the simulator."""

    def __init__(self, session):
        self.session, self.batches = session, []

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run_bound(self, output_name, given, out, shape):
        host = given.copy_to_host()
        self.batches.append(len(host))
        found = self.session.run(output_name, host)
        assert found.shape == shape
        out.copy_to_device(found.reshape(out.shape))


def simulated(ensemble: Ensemble) -> Ensemble:
    for index, member in enumerate(ensemble.members):
        nets = tuple(replace(net, session=Simulated(net.session)) for net in member.nets)
        ensemble.members[index] = replace(member, nets=nets)
    return ensemble


def kernels_equal_the_strategies(models: Path, images: np.ndarray) -> None:
    for strategy in STRATEGIES:
        for decoding in DECODINGS:
            for weights in (None, [1, 2, 0.5]):
                ensemble = simulated(
                    Ensemble.open(models, strategy=strategy, weights=weights, **{"suppress": (), **decoding})
                )
                assert not why_not(ensemble), why_not(ensemble)
                batch = Batch(0, ["0", "1"], images[:2, :, :, None])
                found = DeviceFusion(ensemble, 2).run(batch)
                logits = ensemble.logits(batch)[0].copy()
                want = fuse(logits, strategy, ensemble._slot_weights, ensemble.variant.decoding)
                same = (found.labels == want.labels).mean()
                assert same == 1 if strategy == "vote" else same > 0.99, (strategy, decoding, weights, same)
                assert found.ties == want.ties.sum(), (strategy, decoding, weights)
                if strategy == "mean-prob" and decoding == {"suppress": (0,)}:
                    allowed = np.array([False, True, True, True, True])
                    scores = reference.scores(strategy, logits, ensemble.weights[ensemble.fusion_order][:, 0])
                    assert (found.labels == reference.argmax_allowed(scores, allowed)).mean() > 0.99
        print(strategy, "is the same")


def whole_runs_are_equal(models: Path, images: np.ndarray) -> None:
    want = Ensemble.open(models).predict(images)
    ensemble = simulated(Ensemble.open(models))
    ensemble.device = DeviceFusion(ensemble, 2)
    got = np.concatenate([part.labels for part in ensemble.stream(from_array(images), batch_size=2, workers=1)])
    assert (got.reshape(want.shape) == want).mean() > 0.99
    for net in ensemble.nets:
        assert net.session.batches == [2, 2], "three images are two batches of two, the last filled up"
    print("a whole run is the same")


def nan_is_named(models: Path, images: np.ndarray) -> None:
    ensemble = simulated(Ensemble.open([models, models.parent / "poison.onnx"]))
    poisoned = images[:2].copy()
    poisoned[1, 0, 0] = 255
    try:
        DeviceFusion(ensemble, 2).run(Batch(0, ["first", "second"], poisoned[..., None]))
    except EngineError as error:
        assert "poison" in str(error)
        assert "second" in str(error)
        print("NaN is named")


def what_does_not_fit_is_said(models: Path) -> None:
    assert "staple" in why_not(Ensemble.open(models, strategy="staple"))
    assert "threshold" in why_not(Ensemble.open(models, threshold=0.5))
    assert "flips" in why_not(Ensemble.open(models, flips="both"))
    assert Decoding().threshold is None
    print("refusals are said")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tiles = np.random.default_rng(5).integers(0, 240, (3, 4, 8)).astype(np.uint8)
    kernels_equal_the_strategies(folder / "models", tiles)
    whole_runs_are_equal(folder / "models", tiles)
    nan_is_named(folder / "models", tiles)
    what_does_not_fit_is_said(folder / "models")
