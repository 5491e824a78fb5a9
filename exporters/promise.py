"""The contract an export stamps: read from the archive, amended by options, checked against the net."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import ContractError
from engine.models.contract import Activation, ModelContract
from exporters.archive import Shape


@dataclass(frozen=True)
class ContractOptions:
    """What a caller says about a net; None leaves a field as the archive has it, or at its default.

    Attributes:
        classes: names of the classes in label order; needed for an archive without a contract.
        ignored_class: class left out of the score.
        scale: factor on the raw pixel values, applied first.
        mean: subtracted after scaling.
        std: divided by after subtracting.
        activation: what the net puts out: ``logits`` or ``probabilities``.
        class_id: the class a one-map net knows; makes the file a specialist.
        group: name that ties the specialists of one set together.
        architecture: name of the architecture, for people to read.
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
    """Return the contract of the ONNX file to be written: planar on both sides, in agreement with the net.

    Args:
        path: the archive, for messages.
        archived: the contract found in the archive; None for a foreign file.
        options: fields that win over the archive's.
        shape: what the net takes and gives.
        ending: the activation the net ends in, as :func:`exporters.archive.ending_activation` names it.

    Raises:
        ContractError: nobody names the classes, a field is out of range, or the contract and the net disagree.
    """
    fields: dict[str, Any] = options.given()
    if archived is None and "classes" not in fields:
        raise ContractError(f"{path}: no contract in the archive; name its classes in label order: --class-names a,b,c")
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
            f"{path}: the contract says {what}, the net puts out {shape.outputs} maps; "
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
            f"say --activation probabilities or drop the {ending}"
        )
