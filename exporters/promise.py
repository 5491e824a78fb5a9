"""The contract of an export: read from the archive, amended by options, checked against the net."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import ContractError
from engine.models.contract import Activation, ModelContract
from exporters.archive import Shape


@dataclass(frozen=True)
class ContractOptions:
    """Options about a net; None keeps the archive's value, or the default.

    Attributes:
        classes: names of the classes in label order; required for an archive without a contract.
        ignored_class: class excluded from the score.
        scale: factor on the raw pixel values, applied first.
        mean: subtracted after scaling.
        std: divided by after subtracting.
        activation: output of the net: ``logits`` or ``probabilities``.
        class_id: the class of a one-map net; makes the file a specialist.
        group: name shared by the specialists of one set.
        architecture: name of the architecture, for information.
    """

    classes: tuple[str, ...] | None = None
    ignored_class: int | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: Activation | None = None
    class_id: int | None = None
    group: str | None = None
    architecture: str | None = None

    def given(self) -> dict[str, Any]:
        """Return the fields that were set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def promise(
    path: Path, archived: ModelContract | None, options: ContractOptions, shape: Shape, ending: str
) -> ModelContract:
    """Return the contract of the ONNX file to be written: NCHW on both sides, consistent with the net.

    Args:
        path: the archive, for messages.
        archived: the contract found in the archive; None for a foreign file.
        options: fields that override the archive's.
        shape: input and output of the net.
        ending: the net's final activation, as :func:`exporters.archive.ending_activation` names it.

    Raises:
        ContractError: no class names are given, a field is out of range, or the contract and the net disagree.
    """
    fields: dict[str, Any] = options.given()
    if archived is None and "classes" not in fields:
        raise ContractError(f"{path}: no contract in the archive; give its classes in label order: --class-names a,b,c")
    if "class_id" in fields:
        fields["kind"] = "specialist"
    try:
        if archived is None:
            contract = ModelContract(channels=shape.channels, **fields)
        else:
            contract = replace(archived, **fields)
        contract = replace(contract, input_layout="NCHW", output_layout="NCHW", size=contract.size or shape.size)
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from None
    _agree(path, contract, shape, ending)
    return contract


def _agree(path: Path, contract: ModelContract, shape: Shape, ending: str) -> None:
    if contract.outputs != shape.outputs:
        what = "a specialist" if contract.kind == "specialist" else f"{len(contract.classes)} classes"
        raise ContractError(
            f"{path}: the contract says {what}, the net outputs {shape.outputs} maps; "
            "set --class-names (and --class-id for a one-map net)"
        )
    if contract.channels != shape.channels:
        raise ContractError(f"{path}: the contract says {contract.channels} channels, the net takes {shape.channels}")
    if contract.size is not None:
        for got, wanted in zip(contract.size, (shape.height, shape.width), strict=True):
            if wanted is not None and got != wanted:
                raise ContractError(
                    f"{path}: the contract says size {contract.size}, the net takes ({shape.height}, {shape.width})"
                )
    if ending and contract.activation == "logits":
        raise ContractError(
            f"{path}: the net ends in {ending}, the contract says logits; "
            f"give --activation probabilities or remove the {ending}"
        )
