"""The files beside a net that hold it in a lower precision: NAME_int8.onnx and NAME_fp16.onnx."""

from __future__ import annotations

from pathlib import Path

from engine.errors import EngineError
from engine.models.net import Net
from engine.models.opening import open_net

# The metadata key in which `exporters quantize` names its source file.
TWIN_NOTE = "precision_of_sha256"


def twin_of(net: Net, precision: str) -> Path | None:
    """Return a net's file of a lower precision, if there is one that `exporters quantize` made from just this net."""
    path = net.path.with_name(f"{net.path.stem}_{precision}.onnx")
    if not path.is_file():
        return None
    try:
        other = open_net(path)
    except EngineError:
        return None
    same = other.contract.notes.get(TWIN_NOTE) == net.checksum and other.output_name == net.output_name
    return path if same else None
