"""The contract of a trained network, and the archive that contains it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras

from engine.errors import ContractError
from engine.models.contract import KERAS_MEMBER, ModelContract
from engine.models.folds import tile_keys
from engine.utils.boundary import refusing
from engine.version import VERSION
from trainers.config import FitConfig
from trainers.data import Dataset
from trainers.files import replacing

#: Networks take grey values in 0..1; raw pixels are first multiplied by this, as the contract says.
SCALE = 1.0 / 255.0


def contract_of(
    config: FitConfig,
    data: Dataset,
    notes: dict[str, str | float | int | bool],
    held_out: tuple[str, ...] = (),
) -> ModelContract:
    """Return the contract of the network that a run trained on these data.

    Args:
        config: the run.
        data: the data.
        notes: scalars for people to read.
        held_out: keys of the tiles it was not trained on, see :func:`keys_of_unseen`.
    """
    _, height, width, channels = data.images.shape
    return ModelContract(
        classes=data.class_names,
        kind="multiclass" if config.class_id is None else "specialist",
        class_id=config.class_id,
        group=config.group if config.class_id is not None else "",
        input_layout="NHWC",
        output_layout="NHWC",
        activation="logits",
        size=(height, width),
        channels=channels,
        scale=SCALE,
        ignored_class=config.ignored_class,
        held_out=held_out,
        architecture=config.arch,
        version=VERSION,
        notes=notes,
    )


def keys_of_unseen(held_out: Dataset | None, training: Dataset) -> tuple[str, ...]:
    """Return the keys of the validation tiles by which :mod:`engine.models.folds` knows them, sorted.

    A tile whose copy is among the training tiles was seen, so it is left out.
    """
    if held_out is None:
        return ()
    return tuple(sorted(set(tile_keys(held_out.images)) - set(tile_keys(training.images))))


def save_network(path: Path, model: keras.Model, contract: ModelContract) -> None:
    """Write a ``.keras`` archive with the contract as an additional member, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path, suffix=".keras") as partial:
        model.save(partial)
        with zipfile.ZipFile(partial, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(KERAS_MEMBER, contract.to_json())


def read_contract(path: Path) -> ModelContract:
    """Return the contract inside a ``.keras`` archive.

    Raises:
        InputError: the file is missing or not an archive.
        ContractError: it has no contract, or an invalid one.
    """
    told = f"{path}: not a .keras archive"
    with refusing(lambda why: f"{told} ({why}); train it again"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        text = archive.read(KERAS_MEMBER).decode("utf-8", errors="replace") if KERAS_MEMBER in names else None
    if text is None:
        raise ContractError(f"{path}: has no {KERAS_MEMBER}; train it with this package")
    return ModelContract.from_json(text)
