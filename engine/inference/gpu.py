"""Batches on an NVIDIA GPU: inputs are uploaded once for all members, only labels are downloaded, never logits.

Each worker thread is a lane with its own buffers and stream; of two lanes one copies and fuses while the other
computes. All batches have one shape, the last is padded: cuDNN and TensorRT prepare again for each shape.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.fusion.strategies.vote import MOST_UNITS, voting_units
from engine.inference.forward import Forward
from engine.models.runtimes.base import padded
from engine.sources.base import Batch

STRATEGIES = ("mean-logit", "mean-prob", "vote")


class BoundSession(Protocol):
    """A session that runs between arrays on the device, as :class:`engine.models.runtimes.onnxruntime.OnnxSession`."""

    def run_bound(self, output_name: str, given: Any, out: Any, shape: tuple[int, ...]) -> None:
        """Run on a device array and write into another of shape ``shape``; return when it is done."""


def why_not(ensemble: Forward, early: bool = False) -> str:
    """Return why an ensemble cannot be fused on the device (it runs there and is fused on the CPU); empty if it can.

    ``early`` says whether images may be done before all members ran on them.
    """
    if not all(member.nets for member in ensemble.members):
        return "members that are finished masks"
    decoding = ensemble.variant.decoding
    plain = all(
        net.contract.kind == "multiclass"
        and net.contract.activation == "logits"
        and net.contract.input_layout == net.contract.output_layout == "NCHW"
        and not net.adapted
        and net.onto is None
        for net in ensemble.nets
    )
    if ensemble.variant.strategy not in STRATEGIES:
        return f"strategy {ensemble.variant.strategy}"
    if decoding.threshold is not None:
        return "a suppression threshold"
    if decoding.decode != "argmax":
        return f"decode {decoding.decode}"
    if len(ensemble.flips) > 1 or early:
        return "flips or early exit"
    if not plain:
        return "members that are not NCHW multi-class logits as they are"
    try:
        from numba import cuda

        from engine.kernels.cuda_fuse import MOST_CLASSES
    except ImportError:
        return "no numba-cuda (pip install 'maskfuse[cuda]')"
    if len(ensemble.classes) > MOST_CLASSES:
        return f"more than {MOST_CLASSES} classes"
    return "" if cuda.is_available() else "numba finds no CUDA device (pip install 'maskfuse[cuda]')"


@dataclass
class OnDevice:
    """The result of a batch.

    Attributes:
        labels: uint8 (batch, pixels), before clean-up.
        ties: pixels whose vote was tied.
        member_seconds: time of each member, including its upload.
        fuse_seconds: time of fusion and of the download.
    """

    labels: NDArray[np.uint8]
    ties: int
    member_seconds: list[float]
    fuse_seconds: float


class DeviceFusion:
    """Runs and fuses batches on the device; can be shared by any number of threads."""

    def __init__(self, ensemble: Forward, batch_size: int) -> None:
        """Prepare; nothing is allocated before the first batch.

        Args:
            ensemble: its sessions satisfy :class:`BoundSession`, and :func:`why_not` is empty.
            batch_size: images of every batch on the device.
        """
        self._ensemble, self._batch_size = ensemble, batch_size
        self._local = threading.local()

    def run(self, batch: Batch) -> OnDevice:
        """Predict a batch of at most the batch size.

        Raises:
            ModelError: a member fails, or computes NaN or infinity.
        """
        lane = getattr(self._local, "lane", None)
        if lane is None or lane.size != batch.size:
            lane = self._local.lane = _Lane(self._ensemble, self._batch_size, batch.size)
        return lane.run(batch)


class _Lane:
    """Buffers, stream and constants of one thread."""

    def __init__(self, ensemble: Forward, batch_size: int, size: tuple[int, int]) -> None:
        from numba import cuda

        self.ensemble, self.batch_size, self.size = ensemble, batch_size, size
        members, classes, pixels = len(ensemble.members), len(ensemble.classes), size[0] * size[1]
        self.stream = cuda.stream()
        self.inputs: dict[object, Any] = {}
        self.logits = cuda.device_array((members, batch_size, classes, pixels), np.float32)
        self.labels = cuda.device_array((batch_size, pixels), np.uint8)
        self.broken = cuda.device_array((members, batch_size), np.uint8)
        self.ties = cuda.device_array(batch_size, np.int32)
        self.clean = np.zeros((members, batch_size), np.uint8), np.zeros(batch_size, np.int32)
        self.launch = _launcher(self, ensemble)

    def run(self, batch: Batch) -> OnDevice:
        from numba import cuda

        count, seconds = len(batch.ids), []
        uploaded: set[object] = set()
        for slot, index in enumerate(self.ensemble.fusion_order):
            began = perf_counter()
            net = self.ensemble.members[index].nets[0]
            key = net.input_key
            if key not in uploaded:
                host = padded(net.prepare(batch.pixels), self.batch_size)
                if key not in self.inputs:
                    self.inputs[key] = cuda.device_array(host.shape, np.float32)
                self.inputs[key].copy_to_device(host, stream=self.stream)
                self.stream.synchronize()
                uploaded.add(key)
            shape = (self.batch_size, len(self.ensemble.classes), *self.size)
            session: Any = net.session
            session.run_bound(net.output_name, self.inputs[key], self.logits[slot], shape)
            seconds.append((index, perf_counter() - began))
        began = perf_counter()
        self.broken.copy_to_device(self.clean[0], stream=self.stream)
        self.ties.copy_to_device(self.clean[1], stream=self.stream)
        self.launch()
        labels = self.labels.copy_to_host(stream=self.stream)
        broken = self.broken.copy_to_host(stream=self.stream)
        ties = self.ties.copy_to_host(stream=self.stream)
        self.stream.synchronize()
        self._check(broken[:, :count], batch)
        told = [taken for _, taken in sorted(seconds)]
        return OnDevice(np.ascontiguousarray(labels[:count]), int(ties[:count].sum()), told, perf_counter() - began)

    def _check(self, broken: NDArray[np.uint8], batch: Batch) -> None:
        """Refuse NaN and infinity like :func:`engine.fusion.fuse.check_finite`, with the same error."""
        if broken.any():
            self.ensemble.logits(batch)
            slot, image = np.argwhere(broken)[0]
            name = self.ensemble.members[self.ensemble.fusion_order[slot]].name
            raise ModelError(f"member {name} computes NaN or infinity for image {batch.ids[image]}")


def _launcher(lane: _Lane, ensemble: Forward) -> Callable[[], None]:
    """Return a function that starts the strategy's kernel on a lane's buffers."""
    from numba import cuda

    from engine.kernels import cuda_fuse

    weights = ensemble.weights[ensemble.fusion_order]
    decoding, strategy = ensemble.variant.decoding, ensemble.variant.strategy
    rule = decoding.rule(weights.shape[1], log_domain=strategy == "mean-logit")
    blocks = -(-lane.labels.size // cuda_fuse.THREADS)
    up = cuda.to_device
    allowed = up(rule.allowed.astype(np.uint8))
    if strategy != "vote":
        kernel = cuda_fuse.mean_logit if strategy == "mean-logit" else cuda_fuse.mean_prob
        held = [up(weights.astype(np.float32)), up(rule.gain), up(rule.bias), allowed, lane.labels, lane.broken]
    else:
        units, spread, gain, bias = vote_constants(weights, rule.gain, rule.bias, bool(decoding.bias or decoding.prior))
        voted = rule.allowed if decoding.vote_stage == "members" else np.ones_like(rule.allowed)
        kernel = cuda_fuse.vote
        held = [up(units), up(spread), up(gain), up(bias), up(voted.astype(np.uint8)), allowed]
        held += [lane.labels, lane.broken, lane.ties]
    return lambda: kernel[blocks, cuda_fuse.THREADS, lane.stream](lane.logits, *held)


def vote_constants(
    weights: NDArray[np.float64], gain: NDArray[np.float32], bias: NDArray[np.float32], changed: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64], NDArray[np.int32]]:
    """Return units (members, classes), spread, gain and bias as in :mod:`engine.fusion.strategies.vote`.

    Args:
        weights: (members, classes), columns summing to 1.
        gain: (classes,) of the decoding's rule.
        bias: (classes,) of the decoding's rule.
        changed: whether a bias or prior is set: the counts are then scaled to the whole range.
    """
    units = np.stack([voting_units(column) for column in weights.T], axis=1)
    plain = not changed and bool((units[:, :1] == units).all())
    spread = np.ones(weights.shape[1], np.int64) if plain else MOST_UNITS // units.sum(axis=0)
    total = units.sum(axis=0) * spread
    shrink = max(1.0, float(gain.max()))
    raised = np.rint(bias.astype(np.float64) * total / shrink)
    clipped = np.clip(raised, 1 - MOST_UNITS, MOST_UNITS - 1).astype(np.int32)
    return units.astype(np.int32), spread.astype(np.int32), gain.astype(np.float64) / shrink, clipped
