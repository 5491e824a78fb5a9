"""ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.models.adapt.batch import in_groups
from engine.models.runtimes.arena import share_arena
from engine.models.runtimes.base import Runtime, padded
from engine.models.runtimes.messages import reason_of

NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
FATAL = 4
PART = 4


class OnnxSession:
    """A file in ONNX Runtime; attributes as :class:`engine.models.runtimes.base.Session`.

    Attributes:
        raw: the ``onnxruntime.InferenceSession``.
        group: the number of images that the graph takes at once; 0 for any number.
    """

    runtime = "onnxruntime"

    def __init__(
        self,
        path: Path,
        provider: str = "cpu",
        precision: str = "float32",
        threads: int = 1,
        model: bytes | None = None,
    ) -> None:
        """Open a file.

        Args:
            path: the ONNX file.
            provider: ``cpu``, ``cuda`` or ``tensorrt``; see :mod:`engine.models.runtimes.providers`.
            precision: what the user allows; below float32 a GPU may use TF32 and, in TensorRT, the named type.
            threads: threads inside one run.
            model: what is run instead of the file's own content; weights that the file keeps beside it are found.

        Raises:
            ModelError: not an ONNX file, damaged, or one the runtime cannot run.
        """
        self.path, self.provider, self.precision = path, provider, precision
        folder = None if model is None else path.parent
        self.raw = open_raw(path if model is None else model, provider, precision, threads, folder)
        self.input_name: str = self.raw.get_inputs()[0].name if self.raw.get_inputs() else ""
        self._declared = {output.name: (tuple(output.shape), output.type) for output in self.raw.get_outputs()}
        self._fixed = 0
        self.constants: dict[str, NDArray[Any]] = {}
        self.group = 0
        self.feed(self.input_name)
        self.resume()

    def feed(self, input_name: str, constants: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Name the input that takes the images, and the values of all others."""
        self.input_name, self.constants = input_name, dict(constants or {})
        shape = next((given.shape for given in self.raw.get_inputs() if given.name == input_name), [None])
        self.group = shape[0] if shape and isinstance(shape[0], int) else 0

    def run(self, output_name: str, prepared: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See :meth:`engine.models.runtimes.base.Session.run`."""
        if self.group:
            return in_groups(partial(self._run, output_name), prepared, self.group, out)
        return self._run(output_name, prepared, out)

    def _run(self, output_name: str, prepared: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
        count = len(prepared)
        if self.provider != "cpu" and not self.group:
            # cuDNN searches its algorithm and TensorRT builds an engine anew for each shape they have not seen.
            self._fixed = max(self._fixed, count)
            prepared = padded(prepared, self._fixed)
        try:
            if out is not None and len(prepared) == count and self._fits(output_name, out):
                binding = self.raw.io_binding()
                for name, value in {**self.constants, self.input_name: prepared}.items():
                    binding.bind_cpu_input(name, value)
                binding.bind_output(output_name, "cpu", 0, out.dtype, out.shape, out.ctypes.data)
                self.raw.run_with_iobinding(binding, self._options)
                return out
            fed = {**self.constants, self.input_name: prepared}
            return np.asarray(self.raw.run([output_name], fed, self._options)[0])[:count]
        except runtime_errors() as error:
            raise ModelError(
                f"{self.path} fails on a batch of shape {(count, *prepared.shape[1:])}: {reason_of(error)}"
            ) from None

    def _fits(self, output_name: str, out: NDArray[Any]) -> bool:
        """Return whether the graph declares the very shape of ``out``; only then may it be bound."""
        shape, kind = self._declared[output_name]
        if kind != "tensor(float)" or out.dtype != np.float32 or len(shape) != out.ndim:
            return False
        return all(told == own for told, own in zip(shape[1:], out.shape[1:], strict=True))

    def stop(self) -> None:
        """See :meth:`engine.models.runtimes.base.Session.stop`."""
        self._options.terminate = True

    def resume(self) -> None:
        """See :meth:`engine.models.runtimes.base.Session.resume`."""
        import onnxruntime

        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = FATAL


RUNTIME = Runtime(
    # One thread a session: the workers run batches side by side.
    open=lambda path, precision, workers: OnnxSession(path, precision=precision),
    # Few enough for a core's cache.
    part=PART,
    precisions=lambda: ("float32", "int8"),
    automatic=lambda: True,
    on_gpu=True,
)


def open_raw(
    model: Path | bytes, provider: str, precision: str = "float32", threads: int = 1, folder: Path | None = None
) -> Any:
    """Open an ``onnxruntime.InferenceSession``; ``folder`` is where the weights beside a model given as bytes are.

    Raises:
        ModelError: not an ONNX model, damaged, or one the runtime cannot run.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    share_arena(options)
    # Threads that wait must not take the core from those that work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if isinstance(model, bytes) and folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        # Its fallback would print on stdout before it fails a second time.
        return onnxruntime.InferenceSession(
            model, options, providers=provider_options(provider, precision), enable_fallback=0
        )
    except runtime_errors() as error:
        if isinstance(model, bytes):
            raise ModelError(f"ONNX Runtime refuses the graph ({reason_of(error)})") from None
        raise ModelError(
            f"cannot open {model} as an ONNX model ({reason_of(error)}): export or copy it again"
        ) from None


def provider_options(provider: str, precision: str = "float32") -> list[Any]:
    """Return the ``providers`` argument of ONNX Runtime: fixed shapes, caches, and no TF32 unless it is allowed."""
    if provider == "cpu":
        return [NAMES["cpu"]]
    exact = precision == "float32"
    if exact:
        # What no option of TensorRT reaches, the libraries below read here when they are loaded.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    cuda = {
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0" if exact else "1",
        "arena_extend_strategy": "kSameAsRequested",
    }
    chosen: list[Any] = [(NAMES["cuda"], cuda), NAMES["cpu"]]
    if provider == "tensorrt":
        folder = cache_folder("tensorrt")
        engine = {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
            "trt_fp16_enable": "0" if exact else "1",
            "trt_bf16_enable": "1" if precision in ("bf16", "int8") else "0",
            "trt_int8_enable": "1" if precision == "int8" else "0",
        }
        chosen.insert(0, (NAMES["tensorrt"], engine))
    return chosen


def cache_folder(name: str) -> Path:
    """Return a folder of the user's cache, made when it is missing."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "maskfuse" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def runtime_errors() -> tuple[type[BaseException], ...]:
    """Return the exceptions of ONNX Runtime; they share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)
