"""Batches through one graph on a device: raw pixels go up, labels come back, never logits.

The graph of the whole ensemble (:mod:`engine.graph`) is built in memory for the images at hand and run by ONNX Runtime
between bound buffers. Each lane has buffers of its own: while one computes, others upload and download. All batches
have one shape, the last is filled up: cuDNN and TensorRT prepare again for each shape. The device may be the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError, NotFiniteError, PlanError
from engine.graph.device import FAILED, LABELS, TIES, DeviceModel, device_model
from engine.graph.fusion import STRATEGIES
from engine.graph.half import lowered
from engine.graph.package import load_onnx
from engine.graph.whole import INPUT, Form
from engine.inference.forward import Forward
from engine.models.runtimes import GRAPH_ON_CPU
from engine.models.runtimes.bound import BoundGraph, Lane
from engine.sources.base import Batch


def why_not(ensemble: Forward, early: bool = False) -> str:
    """Return why an ensemble cannot be one graph (then its logits are fused by the CPU's kernels); empty if it can.

    ``early`` says whether images may be done before all members ran on them.
    """
    if not all(member.nets for member in ensemble.members):
        return "members that are finished masks"
    if any(member.unseen is not None for member in ensemble.members):
        return "out-of-fold predictions"
    if early:
        return "early exit"
    if ensemble.variant.decoding.decode != "argmax":
        return f"decode {ensemble.variant.decoding.decode}"
    if ensemble.variant.decoding.has_thresholds:
        return "a threshold per class"
    if not ensemble.is_packed and ensemble.variant.strategy not in STRATEGIES:
        return f"strategy {ensemble.variant.strategy}"
    moved = next((view.name for view in ensemble.views if not view.is_symmetry), "")
    if moved:
        return f"view {moved}"
    packed = ensemble.members[0].contract
    if ensemble.is_packed and (packed.fit or packed.stride > 1):
        return "a packed file for other sizes"
    try:
        load_onnx()
    except PlanError as error:
        return str(error)
    return ""


@dataclass
class OnDevice:
    """The result of a batch.

    Attributes:
        labels: uint8 (batch, pixels), of a multi-label ensemble (batch, classes * pixels), before clean-up.
        ties: pixels whose vote was tied.
        copy_seconds: time of filling and emptying the host buffers.
        upload_seconds: time of the uploads.
        run_seconds: time of the runs, with their downloads.
    """

    labels: NDArray[np.uint8]
    ties: int = 0
    copy_seconds: float = 0.0
    upload_seconds: float = 0.0
    run_seconds: float = 0.0


class DeviceFusion:
    """Runs batches through one graph; can be shared by any number of threads.

    Attributes:
        provider: ``cuda``, ``tensorrt`` or ``cpu-graph``.
        precision: the least precise arithmetic allowed; below float32 the nets compute in float16.
        batch_size: images of every run.
        lanes: how many runs may be under way at once.
    """

    def __init__(self, ensemble: Forward, provider: str, precision: str, batch_size: int, lanes: int) -> None:
        """Prepare; nothing is built before :meth:`build` or the first batch. The arguments are the attributes."""
        self._ensemble, self.provider, self.precision = ensemble, provider, precision
        self.batch_size, self.lanes = batch_size, lanes
        self._form: Form | None = None
        self._model: DeviceModel | None = None
        self._graph: BoundGraph | None = None
        self._idle: SimpleQueue[Lane] = SimpleQueue()
        self._lock = threading.Lock()

    @property
    def told(self) -> str:
        """Say what runs, for records: another provider or precision rounds differently."""
        return f"one graph on {self.provider} in {self.precision}"

    def build(self, pixels: NDArray[Any]) -> None:
        """Build the graph for images like these (batch, height, width, channels), where that has not been done.

        Raises:
            EngineError: images that a member does not take, or what one graph cannot hold.
        """
        kind = "uint8" if pixels.dtype in (np.uint8, np.bool_) else "float32"
        size = (pixels.shape[1], pixels.shape[2])
        form = Form(kind, pixels.shape[3], size, size, "NHWC")
        if form == self._form:
            return
        for net in self._ensemble.nets:
            net.prepare(pixels[:1])
        replace = lowered if self.precision != "float32" else None
        self._model, self._graph = device_model(self._ensemble.whole, form, replace), None
        self._form = form
        self.batch_size = self._model.batch or self.batch_size

    def open(self, batch_size: int = 0) -> None:
        """Open the built graph and its lanes.

        Args:
            batch_size: images of every run; 0 to leave it.

        Raises:
            ModelError: the provider refuses the graph, or has too little memory.
        """
        assert self._model is not None
        assert self._form is not None
        model, form = self._model, self._form
        self.batch_size = model.batch or batch_size or self.batch_size
        self._idle = SimpleQueue()
        if self._graph is None:
            provider = "cpu" if self.provider == GRAPH_ON_CPU else self.provider
            self._graph = BoundGraph(model.data, provider, self.precision)
        count, sides = self.batch_size, form.size or form.trial
        outputs: dict[str, tuple[tuple[int, ...], Any]] = {
            LABELS: ((count, model.masks, *sides), np.uint8),
            FAILED: ((model.members, count), np.uint8),
        }
        if model.counts_ties:
            outputs[TIES] = ((count,), np.int64)
        given = (INPUT, (count, *sides, form.channels), np.dtype(form.kind))
        for _ in range(self.lanes):
            self._idle.put(Lane(self._graph, given, outputs))

    def close(self) -> None:
        """Give the device's memory back; the graph stays built."""
        self._idle, self._graph = SimpleQueue(), None

    def stop(self) -> None:
        """Make all runs fail soon."""
        if self._graph is not None:
            self._graph.stop()

    def resume(self) -> None:
        """Allow runs again after :meth:`stop`."""
        if self._graph is not None:
            self._graph.resume()

    def run(self, batch: Batch) -> OnDevice:
        """Predict a batch of any size.

        Raises:
            EngineError: images or members that fail.
            NotFiniteError: a member computes NaN or infinity.
        """
        with self._lock:
            self.build(batch.pixels)
            if self._graph is None:
                self.open()
        parts = [self._part(batch, start) for start in range(0, len(batch.ids), self.batch_size)]
        if len(parts) == 1:
            return parts[0]
        whole = OnDevice(np.concatenate([part.labels for part in parts]))
        for part in parts:
            whole.ties += part.ties
            whole.copy_seconds += part.copy_seconds
            whole.upload_seconds += part.upload_seconds
            whole.run_seconds += part.run_seconds
        return whole

    def _part(self, batch: Batch, start: int) -> OnDevice:
        pixels = batch.pixels[start : start + self.batch_size]
        count = len(pixels)
        with self._lane() as lane:
            began = perf_counter()
            np.copyto(lane.images[:count], pixels, casting="unsafe")
            lane.images[count:] = 0
            filled = perf_counter()
            lane.run()
            ran = perf_counter()
            labels = lane.found[LABELS][:count].reshape(count, -1).copy()
            failed = lane.found[FAILED][:, :count].copy()
            ties = int(lane.found[TIES][:count].sum()) if TIES in lane.found else 0
            copied = filled - began + perf_counter() - ran
            found = OnDevice(labels, ties, copied, lane.upload_seconds, lane.run_seconds)
        if failed.any():
            self._refuse(batch, start, failed)
        return found

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        idle = self._idle
        lane = idle.get()
        try:
            yield lane
        finally:
            idle.put(lane)

    def _refuse(self, batch: Batch, start: int, failed: NDArray[np.uint8]) -> None:
        """Raise the error of the members' own sessions; where these compute numbers, the precision is at fault."""
        self._ensemble.logits(batch, self._ensemble.variant.decoding.suppress)
        slots = dict(zip(self._ensemble.fusion_order, failed, strict=True))
        index = min(index for index, images in slots.items() if images.any())
        bad = [start + int(at) for at in np.flatnonzero(slots[index])]
        name, ids = self._ensemble.members[index].name, [batch.ids[at] for at in bad]
        if self.precision == "float32":
            raise NotFiniteError(name, bad, ids)
        raise ModelError(
            f"member {name} computes NaN or infinity for image {ids[0]} in float16, and numbers in float32: leave out "
            "--precision"
        )
