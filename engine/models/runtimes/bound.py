"""A graph in ONNX Runtime between buffers that are bound once: no copies but those to and from the device."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from engine.errors import ModelError
from engine.models.runtimes.messages import reason_of
from engine.models.runtimes.onnxruntime import FATAL, open_raw, runtime_errors
from engine.models.runtimes.page_locked import host_array


class BoundGraph:
    """A graph opened for one provider; any number of lanes run it at the same time.

    Attributes:
        device: ``cpu``, or ``cuda`` (which TensorRT computes on as well).
    """

    def __init__(self, model: bytes, provider: str, precision: str) -> None:
        """Open a graph.

        Args:
            model: the serialized graph.
            provider: ``cpu``, ``cuda`` or ``tensorrt``.
            precision: the least precise arithmetic allowed.

        Raises:
            ModelError: the provider refuses it.
        """
        self.device = "cpu" if provider == "cpu" else "cuda"
        self.raw = open_raw(model, provider, precision)
        self.resume()

    def stop(self) -> None:
        """Make all runs, under way and to come, fail soon."""
        self.options.terminate = True

    def resume(self) -> None:
        """Allow runs again after :meth:`stop`."""
        import onnxruntime

        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = FATAL


class Lane:
    """Buffers of one batch: while one lane computes, others upload and download.

    Attributes:
        images: the input in page-locked host memory, to be filled before :meth:`run`.
        found: the outputs in page-locked host memory, valid until the next run.
        upload_seconds: time of the last upload.
        run_seconds: time of the last run, with its download.
    """

    def __init__(
        self,
        graph: BoundGraph,
        given: tuple[str, tuple[int, ...], DTypeLike],
        outputs: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
    ) -> None:
        """Allocate and bind.

        Args:
            graph: what runs.
            given: name, shape and type of its input.
            outputs: shape and type of its outputs by name.

        Raises:
            ModelError: the device has too little memory.
        """
        from onnxruntime import OrtValue

        name, shape, kind = given
        locked = graph.device != "cpu"
        self._graph = graph
        self.images = host_array(shape, kind, locked)
        self.found: dict[str, NDArray[Any]] = {}
        self.upload_seconds = self.run_seconds = 0.0
        try:
            self._given = OrtValue.ortvalue_from_shape_and_type(list(shape), np.dtype(kind), graph.device, 0)
            self._binding = graph.raw.io_binding()
            self._binding.bind_ortvalue_input(name, self._given)
            for output, (size, dtype) in outputs.items():
                held = self.found[output] = host_array(size, dtype, locked)
                self._binding.bind_output(output, "cpu", 0, held.dtype, size, held.ctypes.data)
        except runtime_errors() as error:
            raise ModelError(f"no buffers of shape {shape} on the device ({reason_of(error)})") from None

    def run(self) -> None:
        """Upload :attr:`images`, run, and download into :attr:`found`; return when that is done.

        Raises:
            ModelError: the runtime fails, or was stopped.
        """
        began = perf_counter()
        try:
            self._given.update_inplace(self.images)
            uploaded = perf_counter()
            self._graph.raw.run_with_iobinding(self._binding, self._graph.options)
        except runtime_errors() as error:
            told = reason_of(error)
            raise ModelError(f"the graph fails on a batch of shape {self.images.shape}: {told}") from None
        self.upload_seconds, self.run_seconds = uploaded - began, perf_counter() - uploaded
