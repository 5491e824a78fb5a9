"""From trained ``.keras`` archives to self-describing ONNX files with verified parity, and whole ensembles in one file.

The names below load on first use: importing the package costs nothing, and TensorFlow comes in only when a model is
converted.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Adopted": "exporters.adoption",
    "AnySize": "exporters.any_size",
    "ContractOptions": "exporters.promise",
    "Export": "exporters.keras_to_onnx",
    "GraphStep": "exporters.graph",
    "Parity": "exporters.parity",
    "Tolerance": "exporters.parity",
    "adopt": "exporters.adoption",
    "export_any_size": "exporters.any_size",
    "export_onnx": "exporters.keras_to_onnx",
    "export_specialists": "exporters.specialists",
    "labelled_tiles": "exporters.tiles",
    "load_tiles": "exporters.parity",
    "lower": "exporters.precision",
    "measure": "exporters.parity",
}

__all__ = [
    "Adopted",
    "AnySize",
    "ContractOptions",
    "Export",
    "GraphStep",
    "Parity",
    "Tolerance",
    "adopt",
    "export_any_size",
    "export_onnx",
    "export_specialists",
    "labelled_tiles",
    "load_tiles",
    "lower",
    "measure",
]


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'exporters' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
