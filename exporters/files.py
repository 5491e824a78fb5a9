"""What every exporter does with its output: check the path, store the contract, write all of it or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import OutputError
from engine.models.contract import METADATA_KEY, ModelContract
from engine.utils.files import replacing
from engine.version import VERSION


def put_contract(model: Any, contract: ModelContract) -> Any:
    """Write a contract into the metadata of an ONNX model, replacing one that is there; all else stays."""
    kept = [(item.key, item.value) for item in model.metadata_props if item.key != METADATA_KEY]
    del model.metadata_props[:]
    for key, value in (*kept, (METADATA_KEY, contract.to_json())):
        model.metadata_props.add(key=key, value=value)
    return model


def stamp(model: Any, contract: ModelContract) -> Any:
    """Write a contract into the metadata of an ONNX model and sign the model."""
    put_contract(model, contract)
    model.producer_name, model.producer_version, model.doc_string = "maskfuse", VERSION, ""
    model.graph.doc_string = ""
    return model


def check_free(out: Path, overwrite: bool) -> None:
    """Refuse an output path that cannot be written.

    Raises:
        OutputError: it exists and ``overwrite`` is off, it is a folder, or its folder is a file.
    """
    if out.is_dir():
        raise OutputError(f"{out}: a folder; give the name of a file in it")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: already exists; choose another name or give --overwrite")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise OutputError(f"{out}: {folder} is a file, not a folder; choose another name")


def write_atomically(out: Path, data: bytes) -> None:
    """Write a file completely or not at all; a missing folder is created.

    Raises:
        OutputError: the folder cannot be written to.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); check the folder and its space") from None
