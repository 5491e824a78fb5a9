"""OpenVINO on the CPU: an optional second runtime for the same ONNX files."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.models.adapt.batch import in_groups
from engine.models.runtimes.base import Runtime, padded
from engine.utils.optional import require

HINTS = {"float32": "f32", "bf16": "bf16", "int8": "f32"}
# Up to this many bytes of a file's weights are held once per thread.
MOST_HELD = 2**29


def load_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        PlanError: it is not installed.
    """
    return require("openvino", "openvino", "--runtime openvino needs OpenVINO")


def installed() -> bool:
    """Return whether OpenVINO can be imported, without importing it."""
    from importlib.util import find_spec

    return find_spec("openvino") is not None


def has_native_bf16() -> bool:
    """Return whether this processor computes in bfloat16 by itself; elsewhere bf16 gains nothing."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoSession:
    """A file in OpenVINO; attributes as :class:`engine.models.runtimes.base.Session`.

    The graph is compiled for a fixed shape the first time a batch of that shape comes; a smaller batch is filled up.
    Each call takes an infer request that is free, of which there are never more than calls at once. Each request is a
    compiled graph of its own and runs in the thread that asks. With a stream per request OpenVINO hands the work to a
    thread of its own, which often starts on the core where another one computes: a tenth slower with two workers. Nets
    too large to hold that often are compiled once, with streams.
    """

    runtime = "openvino"
    provider = "cpu"

    def __init__(self, path: Path, precision: str = "float32", streams: int = 1) -> None:
        """Read a file.

        Args:
            path: the ONNX file.
            precision: ``float32``, ``bf16``, or ``int8`` for a quantised file.
            streams: how many threads will run it at once.

        Raises:
            ModelError: OpenVINO cannot read it.
            PlanError: OpenVINO is not installed.
        """
        openvino = load_openvino()
        self.path, self.precision = path, precision
        self._streams = max(1, streams)
        try:
            self._model = _core().read_model(path)
        except RuntimeError as error:
            raise _refusal(path, error) from None
        self._in_place = self._streams * _weights(self._model) <= MOST_HELD
        self._image = self._model.inputs[0]
        self.input_name: str = self._image.get_any_name()
        self.constants: dict[str, NDArray[Any]] = {}
        self._group = 0
        self.feed(self.input_name)
        self._tensor = openvino.Tensor
        self._lock = threading.Lock()
        # By shape: what several requests share, and requests that are free.
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._idle: dict[tuple[int, ...], list[Any]] = {}
        self._busy: set[Any] = set()
        self._stopped = False

    def feed(self, input_name: str, constants: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Name the input that takes the images, and the values of all others."""
        self.input_name, self.constants = input_name, dict(constants or {})
        self._image = next(port for port in self._model.inputs if input_name in port.get_names())
        count = self._image.get_partial_shape()[0]
        self._group = count.get_length() if count.is_static else 0

    def run(self, output_name: str, prepared: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See :meth:`engine.models.runtimes.base.Session.run`."""
        if self._group:
            return in_groups(partial(self._run, output_name), prepared, self._group, out)
        return self._run(output_name, prepared, out)

    def _run(self, output_name: str, prepared: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
        count = len(prepared)
        shape = self._shape_for(prepared.shape)
        # The request reads the array's own memory: it must be held until the run is over.
        fed = padded(prepared, shape[0])
        if not fed.flags.writeable:  # raw pixels out of a mapped file; OpenVINO shares writable memory alone
            fed = fed.copy()
        request = self._take(shape)
        try:
            if self._stopped:
                raise ModelError(f"{self.path}: stopped")
            for name, value in self.constants.items():
                request.set_tensor(name, self._tensor(value))
            request.set_tensor(self.input_name, self._tensor(fed, shared_memory=True))
            request.infer()
            found = request.get_tensor(output_name).data[:count]
            if out is not None and out.shape == found.shape and out.dtype == found.dtype:
                np.copyto(out, found)
                return out
            return np.array(found)
        except RuntimeError as error:
            raise ModelError(f"{self.path} fails in OpenVINO on {prepared.shape}: {_last_line(error)}") from None
        finally:
            with self._lock:
                self._busy.discard(request)
                self._idle[shape].append(request)

    def _shape_for(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """Return the smallest compiled shape that holds a batch, or the batch's own."""
        fitting = [held for held in list(self._idle) if held[1:] == wanted[1:] and held[0] >= wanted[0]]
        return min(fitting, default=tuple(wanted))

    def _take(self, shape: tuple[int, ...]) -> Any:
        """Return a free infer request of a shape, compiled and made where there is none."""
        with self._lock:
            idle = self._idle.setdefault(shape, [])
            request = idle.pop() if idle else None
        if request is None:
            request = self._compiled_for(shape).create_infer_request()
        with self._lock:
            self._busy.add(request)
        return request

    def _compiled_for(self, shape: tuple[int, ...]) -> Any:
        """Return a compiled graph: a new one, or the one of all requests of the shape."""
        with self._lock:
            if shape in self._compiled:
                return self._compiled[shape]
            model = self._model.clone()
            if not self._in_place:
                self._compiled[shape] = self._compile(model, shape)
                return self._compiled[shape]
        # Outside the lock: every thread compiles its own at the same time.
        return self._compile(model, shape)

    def _compile(self, model: Any, shape: tuple[int, ...]) -> Any:
        # Without streams the calling thread computes.
        streams, threads = (0, 1) if self._in_place else (self._streams, self._streams)
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(threads),
            "ENABLE_CPU_PINNING": "NO",
        }
        try:
            model.reshape({self.input_name: list(shape)})
            return _core().compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise _refusal(self.path, error) from None

    def stop(self) -> None:
        """See :meth:`engine.models.runtimes.base.Session.stop`."""
        self._stopped = True
        with self._lock:
            for request in self._busy:
                request.cancel()

    def resume(self) -> None:
        """See :meth:`engine.models.runtimes.base.Session.resume`."""
        self._stopped = False


def _precisions() -> tuple[str, ...]:
    return ("float32", "bf16", "int8") if has_native_bf16() else ("float32", "int8")


# 16 images at a time were measured a tenth faster than 4.
RUNTIME = Runtime(open=OpenVinoSession, part=16, precisions=_precisions, automatic=installed)


def _weights(model: Any) -> int:
    """Return the bytes of all constants of a model."""
    held = [node.output(0) for node in model.get_ops() if node.get_type_name() == "Constant"]
    return sum(prod(port.get_shape()) * port.get_element_type().size for port in held)


def _refusal(path: Path, error: BaseException) -> ModelError:
    return ModelError(f"OpenVINO cannot compile {path} ({_last_line(error)}): use --runtime onnxruntime")


def _last_line(error: BaseException) -> str:
    """Return the reason, which stands below the places in the source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or ["no reason given"])[-1][:200]


_held: list[Any] = []
_opening = threading.Lock()


def _core() -> Any:
    """Return the one OpenVINO core of this process."""
    with _opening:
        if not _held:
            _held.append(load_openvino().Core())
    return _held[0]
