"""Members whose classes are not those of their ensemble: which can be mapped, and what that asks of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.errors import ContractError
from engine.models.adapt.class_map import ClassMap
from engine.models.net import Net

# Kinds whose classes can be brought onto others: each pixel has probabilities of all classes, or one label.
MAPPED = ("multiclass", "binary", "labels")


def mapped(net: Net, class_map: Mapping[str, str] | None, names: Sequence[str]) -> Net:
    """Return a net whose classes are brought to those of the ensemble; the net itself where they are the same.

    Args:
        net: the opened file.
        class_map: the ensemble's name of a class by the net's own; None for classes of the same names.
        names: the ensemble's classes.

    Raises:
        ContractError: a name that is no class, nothing left, or a net that cannot be mapped.
    """
    own, kind = net.contract.classes, net.contract.kind
    unnamed = own == tuple(f"class {index}" for index in range(len(own)))
    if class_map is None and (own == tuple(names) or (unnamed and len(own) == len(names))):
        return net
    try:
        if kind not in MAPPED:
            raise ContractError(f"map: its kind is {kind}; the classes of {', '.join(MAPPED)} nets can be mapped")
        if not names:
            raise ContractError("map: state the ensemble's classes = [...] in the plan")
        onto = ClassMap.of(class_map or {}, own, names)
        lost = [name for name, target in zip(own, onto.targets, strict=True) if target is None]
        if kind == "labels" and lost:
            raise ContractError(
                f"map: it outputs labels, so it has no second choice where it says {', '.join(lost)}: map that onto "
                f"one of {', '.join(names)}"
            )
        return replace(net, onto=onto)
    except ContractError as error:
        raise ContractError(f"{net.path}: {error}") from None


def comparable(nets: list[Net]) -> list[Net]:
    """Return nets whose logits are log-probabilities throughout where one of them does not know a class.

    Weights then differ by class, so a constant that a net adds to all its logits would favour a class.
    """
    if all(net.onto is None or set(net.onto.targets) >= set(range(len(net.onto.classes))) for net in nets):
        return nets
    return [
        replace(net, onto=ClassMap(net.contract.classes, tuple(range(len(net.contract.classes)))))
        if net.onto is None and net.contract.kind == "multiclass"
        else net
        for net in nets
    ]
