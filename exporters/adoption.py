"""A foreign ONNX file -> the same file with its contract in the metadata, so that every command takes it as it is."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from engine.errors import ContractError, EngineError, ModelError
from engine.graph.compose import read_model
from engine.graph.nodes import with_one_output
from engine.graph.trial import random_tiles
from engine.models.contract import ModelContract
from engine.models.facts.base import Facts
from engine.models.net import Net
from engine.models.opening import Opened, inspect_net, open_net
from engine.version import VERSION
from exporters.backend import load_onnx
from exporters.files import check_free, put_contract, write_atomically
from exporters.measures import logits_of
from exporters.parity import DEFAULT_SIZE

# What protobuf can write as one message, with room for the contract; larger weights go to a file beside.
MOST_BYTES = 2**31 - 2**20
TILES = 4


@dataclass(frozen=True)
class Adopted:
    """What was written.

    Attributes:
        path: the ONNX file.
        contract: the contract written into it.
        origins: where each field of it comes from.
        adapted: what the engine does to its input and output, a few words each.
        weights: the file beside it that has its weights; None where they are in the file.
        pixels: pixels whose labels were compared, all equal.
    """

    path: Path
    contract: ModelContract
    origins: dict[str, str]
    adapted: tuple[str, ...]
    weights: Path | None
    pixels: int


def adopt(
    source: str | Path,
    out: str | Path,
    facts: Sequence[Facts] = (),
    *,
    tiles: npt.NDArray[Any] | None = None,
    overwrite: bool = False,
) -> Adopted:
    """Write a copy of an ONNX file that says what it is.

    The graph stays as it is; of several outputs the one that is read stays. Weights beside the source go into the file,
    above 2 GiB into one file beside it. Nothing is written unless the copy, opened without any option, gives the same
    labels as the source.

    Args:
        source: the file; one that has a contract may get what the contract does not say yet.
        out: the file to write.
        facts: what is stated, by origin, the more exact first; it adds to the metadata and to files beside the source.
        tiles: raw tiles (tile, height, width, channel) to look at and compare on; noise by default.
        overwrite: replace ``out`` when it exists.

    Raises:
        ContractError: something stays open, or origins contradict each other.
        InputError: no such file, or tiles that it cannot take.
        ModelError: it cannot be read, or the copy gives other labels.
        OutputError: ``out`` exists or cannot be written.
        PlanError: the ``export`` extra is missing.
    """
    source, out = Path(source), Path(out)
    check_free(out, overwrite)
    onnx = load_onnx()
    opened = inspect_net(source, list(facts), None if tiles is None else tiles[0])
    if opened.contract is None:
        raise ContractError(f"{source}: {'; and '.join(opened.questions)}")
    net = opened.net(source.stem)
    contract = replace(opened.contract, version=opened.contract.version or VERSION)
    model = read_model(source)
    if contract.kind != "packed":
        with_one_output(model, net.output_name)
    put_contract(model, contract)
    images = _images(opened, contract, tiles)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / out.name
        beside = _saved(onnx, model, trial)
        pixels = _same_labels(net, trial, contract, images)
        weights = None
        if beside is not None:
            weights = out.with_name(beside.name)
            write_atomically(weights, beside.read_bytes())
        write_atomically(out, trial.read_bytes())
    return Adopted(out, contract, dict(opened.found.origins), net.adapted, weights, pixels)


def _images(opened: Opened, contract: ModelContract, tiles: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if tiles is not None:
        return tiles
    size = DEFAULT_SIZE if contract.fit else contract.size or opened.found.probed or DEFAULT_SIZE
    return random_tiles(size, max(contract.channels, *contract.bands, 1), TILES)


def _saved(onnx: Any, model: Any, path: Path) -> Path | None:
    """Write a model as one file, or with its weights beside it where protobuf cannot hold them; return that file."""
    if model.ByteSize() <= MOST_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return None
    # Named after its content, so that no file that another model reads is ever replaced.
    digest = hashlib.sha256()
    for item in model.graph.initializer:
        digest.update(item.raw_data)
    beside = path.with_name(f"{path.stem}.{digest.hexdigest()[:12]}.data")
    onnx.save(model, path, save_as_external_data=True, location=beside.name, size_threshold=1024)
    return beside


def _same_labels(net: Net, trial: Path, contract: ModelContract, images: npt.NDArray[Any]) -> int:
    """Return how many pixels were compared.

    Raises:
        ModelError: the copy cannot be opened by itself, says something else, or gives other labels.
    """
    try:
        copy = open_net(trial, sample=images[0])
        if copy.contract != contract:
            raise ModelError("it reads another contract than was written")
        first, second = logits_of(net, images), logits_of(copy, images)
    except EngineError as error:
        told = str(error).replace(f"{trial}: ", "").replace(str(trial), net.path.name)
        raise type(error)(f"{net.path}: {told}; nothing was written") from None
    labels = [maps.argmax(axis=1) if maps.shape[1] > 1 else maps[:, 0] > 0 for maps in (first, second)]
    differing = int((labels[0] != labels[1]).sum())
    if differing:
        raise ModelError(f"{net.path}: {differing} of {labels[0].size} labels change; nothing was written")
    return int(labels[0].size)
