"""The one place of the engine that imports ``onnx``, and only when a graph is built."""

from __future__ import annotations

from typing import Any

from engine.errors import PlanError


def load_onnx() -> Any:
    """Import and return ``onnx``.

    Raises:
        PlanError: the package is missing, or cannot be imported.
    """
    try:
        import onnx
        import onnx.compose
        import onnx.version_converter
    except Exception as error:  # a package that is damaged raises whatever it likes
        if isinstance(error, ModuleNotFoundError) and error.name == "onnx":
            raise PlanError("the package 'onnx' is not installed: pip install 'maskfuse[cuda]'") from None
        raise PlanError(f"the package 'onnx' cannot be imported ({error}): pip install 'maskfuse[cuda]'") from None
    return onnx
