"""The only place that imports TensorFlow: sets Keras's backend before Keras is imported, and silences the libraries."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from engine.errors import PlanError
from engine.utils.console import silenced

_EXTRA = ("tensorflow", "keras", "onnx", "tf2onnx", "onnxslim")
_NOISY_LOGGERS = ("tensorflow", "tf2onnx", "absl", "onnxslim", "ONNXSlim")


def load_keras() -> Any:
    """Import and return ``keras``, running on TensorFlow.

    Raises:
        PlanError: a package of the ``export`` extra is missing, or Keras already runs on another backend.
    """
    loaded = sys.modules.get("keras")
    if loaded is None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in _EXTRA:
        _import(name)
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    keras = sys.modules["keras"]
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise PlanError(
            f"Keras is already imported with the backend {backend!r}; the exporter needs 'tensorflow': "
            "export in a separate process (such as the command `exporters onnx`)"
        )
    return keras


def load_onnx() -> Any:
    """Import and return ``onnx``, without TensorFlow.

    Raises:
        PlanError: the package is missing.
    """
    _import("onnx")
    return sys.modules["onnx"]


def _import(name: str) -> None:
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in _EXTRA:
            raise
        raise PlanError(f"the package {error.name!r} is not installed: pip install 'maskfuse[export]'") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep native startup messages and Python warnings of the libraries off stderr; for command lines only.

    TensorFlow writes some lines straight to file descriptor 2 before it reads its own log settings, so the descriptor
    itself is redirected inside the block. An exception passes through unchanged.
    """
    with silenced(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
