"""From what ``--models`` names to the members of an ensemble: files found, specialists gathered, agreement checked."""

from __future__ import annotations

import glob
import hashlib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContractError, InputError, PlanError
from engine.models.adapt.class_map import FLOOR as FLOOR
from engine.models.contract import ModelContract
from engine.models.net import Net

Prepared = dict[tuple[object, ...], NDArray[Any]]


# What holds masks and no net: files by their suffix, folders by the pictures in them.
MASK_FILES = (".csv", ".json", ".npz", ".npy", ".zarr", ".parquet")
MASK_PICTURES = (".png", ".tif", ".tiff", ".bmp", ".pgm")
MASK_KEY = re.compile(r"(.+\.(?:npz|zarr|parquet)):[^:/]+")


def holds_masks(path: Path) -> bool:
    """Return whether a file or folder holds finished masks, a member of another kind than nets.

    Raises:
        InputError: a folder holds nets and masks.
    """
    keyed = MASK_KEY.fullmatch(str(path))
    if keyed and not path.exists():
        return Path(keyed[1]).exists()
    if not path.is_dir():
        return path.exists() and path.suffix.lower() in (*MASK_FILES, *MASK_PICTURES)
    if path.suffix.lower() == ".zarr":
        return True
    nets = sorted(path.glob("*.onnx"))
    masks = [file for file in sorted(path.iterdir()) if file.suffix.lower() in MASK_PICTURES]
    if nets and masks:
        raise InputError(
            f"{path} holds nets ({nets[0].name}) and masks ({masks[0].name}): name the files, or give each kind a "
            "folder of its own"
        )
    return not nets and (bool(masks) or any(file.suffix.lower() in MASK_PICTURES for file in path.rglob("*.*")))


def find_models(specs: Iterable[str | Path]) -> list[Path]:
    """Return the ONNX files that files, folders and globs name, each once, in the order given.

    Raises:
        InputError: a name fits nothing, or masks.
    """
    found = find_members(specs)
    masks = next((path for path in found if holds_masks(path)), None)
    if masks is not None:
        raise InputError(f"{masks} holds masks, which are members of engine ensemble alone: name an .onnx file here")
    return found


def find_members(specs: Iterable[str | Path]) -> list[Path]:
    """Return the ONNX files, and the files and folders of masks, that files, folders and globs name.

    Each comes once, in the order given; :func:`holds_masks` tells the two kinds apart.

    Raises:
        InputError: a name fits nothing, or a folder holds both kinds.
    """
    found: dict[Path, Path] = {}
    for spec in specs:
        path = Path(spec)
        if holds_masks(path):
            files = [path]
        elif path.is_dir():
            files = sorted(path.glob("*.onnx"))
        elif path.exists():
            files = [path]
        else:
            files = [Path(name) for name in sorted(glob.glob(str(spec), recursive=True))]  # noqa: PTH207
            files = [path for path in files if path.is_file()]
        if not files:
            raise InputError(f"no model at {spec}: give an .onnx file, a folder that holds some, a glob, or masks")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


@dataclass(frozen=True)
class Member:
    """One member of the ensemble: a multi-class net, a set of one-class specialists, or the nets of several folds.

    Attributes:
        name: what tables and messages call it.
        nets: the one net, the specialists in the order of their classes, or one net per fold.
        contract: what they promise together; ``kind`` tells which of the two it is.
        checksum: SHA-256 of the nets' checksums (of the one net: its own).
        folds: whether the nets are those of a cross-validation, see :mod:`engine.models.folds`: their mean counts.
        unseen: of a member with folds, by the id of each image the index of the net that was trained without it, which
            alone predicts it; None for the mean of all nets.
    """

    name: str
    nets: tuple[Net, ...]
    contract: ModelContract
    checksum: str
    folds: bool = field(default=False, kw_only=True)
    unseen: Mapping[str, int] | None = field(default=None, kw_only=True, compare=False)

    @property
    def path(self) -> Path:
        """Return where it lies: the file of the first net."""
        return self.nets[0].path

    @property
    def is_set(self) -> bool:
        """Return whether this is a set of specialists."""
        return self.contract.kind in ("specialist", "specialists")

    @property
    def summed(self) -> list[Net]:
        """Return the nets of a member with folds in the order in which they are added up, whatever the plan's order."""
        return sorted(self.nets, key=lambda net: net.checksum)

    def run(
        self,
        pixels: NDArray[Any],
        prepared: Prepared,
        out: NDArray[np.float32],
        skip: Collection[int] = (),
        part: int = 0,
    ) -> None:
        """Compute the planar logits of a batch.

        Args:
            pixels: raw images (batch, height, width, channels).
            prepared: inputs made so far, by :attr:`Net.input_key`; added to.
            out: float32 (batch, classes, pixels), the result.
            skip: classes whose specialist need not run; where one does not run, its logits are :data:`FLOOR`.
            part: how many images a net takes at a time; 0 for all.

        Raises:
            ModelError: a net fails.
        """
        if self.folds:
            self._run_folds(pixels, prepared, out, part)
            return
        running = [net for net in self.nets if net.contract.class_id is None or net.contract.class_id not in skip]
        if self.contract.kind == "specialist" and len(running) < len(self.contract.classes):
            out[:] = FLOOR
        for net in running:
            class_id = net.contract.class_id
            goal = out if class_id is None else np.empty((len(pixels), 1, out.shape[2]), np.float32)
            _run_net(net, pixels, prepared, goal, part)
            if class_id is not None:
                out[:, class_id] = goal[:, 0]

    def _run_folds(self, pixels: NDArray[Any], prepared: Prepared, out: NDArray[np.float32], part: int) -> None:
        """Write the mean of the nets' logits to ``out``."""
        first, *others = self.summed
        _run_net(first, pixels, prepared, out, part)
        own = np.empty_like(out)
        for net in others:
            _run_net(net, pixels, prepared, own, part)
            out += own
        out *= np.float32(1 / len(self.nets))


def _run_net(net: Net, pixels: NDArray[Any], prepared: Prepared, out: NDArray[np.float32], part: int) -> None:
    if net.input_key not in prepared:
        prepared[net.input_key] = net.prepare(pixels)
    fed, step, size = prepared[net.input_key], part or max(1, len(pixels)), (pixels.shape[1], pixels.shape[2])
    for start in range(0, len(pixels), step):
        net.run(fed[start : start + step], out[start : start + step], size)


def member_of(net: Net) -> Member:
    """Return a net of all classes as a member."""
    return Member(net.name, (net,), _of_ensemble(net), net.checksum)


def gather(nets: Sequence[Net | Member], optional: Collection[int] = ()) -> list[Member]:
    """Gather one-class specialists into sets and check that all members agree.

    Args:
        nets: the opened files; members that are complete already stay as they are.
        optional: classes whose specialist may be missing (they are suppressed).

    Raises:
        ContractError: a set lacks a class or has one twice, two members disagree on classes, size or ignored class, or
            a packed file is not alone.
        InputError: no member at all.
    """
    if not nets:
        raise InputError("no models: name at least one with --models")
    packed = next((net for net in nets if net.contract.kind == "packed"), None)
    if packed is not None and len(nets) > 1:
        raise ContractError(
            f"{packed.path} is a packed ensemble, {len(nets)} models are named; "
            "it goes alone: name its members instead to combine them with others"
        )
    sets: dict[str, list[Net]] = {}
    members: list[Member | str] = []
    for net in nets:
        if isinstance(net, Member):
            members.append(net)
        elif net.contract.kind == "specialist":
            key = net.contract.group or str(net.path.parent)
            if key not in sets:
                sets[key] = []
                members.append(key)
            sets[key].append(net)
        else:
            members.append(member_of(net))
    gathered = [_specialists(item, sets[item], optional) if isinstance(item, str) else item for item in members]
    check_agreement(gathered)
    return _uniquely_named(gathered)


def check_agreement(members: Sequence[Member]) -> None:
    """Refuse members that cannot be fused.

    Raises:
        ContractError: naming the two members and what they disagree on.
    """
    first = members[0]
    for other in members[1:]:
        a, b = first.contract, other.contract
        if (a.kind == "multilabel") != (b.kind == "multilabel"):
            raise ContractError(
                f"{first.name} and {other.name} cannot be fused: one decides each class by itself (multi-label), the "
                "other picks one class per pixel"
            )
        if len(a.classes) != len(b.classes) or (_named(a) and _named(b) and a.classes != b.classes):
            raise ContractError(
                f"{first.name} and {other.name} disagree on the classes: {_listed(a)} against {_listed(b)}; "
                "fuse members of the same classes in the same order alone"
            )
        if a.size and b.size and a.size != b.size and not (a.fit or b.fit):
            raise ContractError(f"{first.name} takes {a.size} pixels, {other.name} {b.size}: they must take one size")
    declared = {member.contract.ignored_class: member.name for member in members}
    declared.pop(None, None)
    if len(declared) > 1:
        told = ", ".join(f"{name} class {ignored}" for ignored, name in declared.items())
        raise ContractError(f"members disagree on the ignored class ({told}): export them alike")


def _of_ensemble(net: Net) -> ModelContract:
    """Return a net's contract in the classes of the ensemble."""
    if net.onto is None:
        return net.contract
    ignored = net.contract.ignored_class
    ignored = None if ignored is None else net.onto.targets[ignored]
    kind = net.contract.kind if net.contract.kind != "binary" else "multiclass"
    return replace(net.contract, classes=net.onto.classes, ignored_class=ignored, kind=kind, foreground_threshold=0.5)


def known_classes(members: Sequence[Member], classes: int) -> NDArray[np.bool_]:
    """Return bool (members, classes): which classes of the ensemble each member can predict."""
    known = np.ones((len(members), classes), np.bool_)
    for row, member in zip(known, members, strict=True):
        onto = member.nets[0].onto if member.nets else None
        if onto is not None:
            row[:] = [index in onto.targets for index in range(classes)]
    return known


def class_names(members: Sequence[Member | Net]) -> tuple[str, ...]:
    """Return the names of the ensemble's classes, from the first member that was given real ones."""
    contracts = [_of_ensemble(member) if isinstance(member, Net) else member.contract for member in members]
    return next((contract for contract in contracts if _named(contract)), contracts[0]).classes


def label_members(members: Iterable[Member]) -> list[str]:
    """Return the names of the members that put out labels, which have neither scores nor probabilities."""
    return [member.name for member in members if member.contract.kind == "labels"]


def voters_of(members: Sequence[Member]) -> frozenset[int]:
    """Return the indices of the members that put out labels."""
    return frozenset(index for index, member in enumerate(members) if member.contract.kind == "labels")


def ignored_class(members: Sequence[Member]) -> int | None:
    """Return the ignored class that any member declares."""
    return next((v.contract.ignored_class for v in members if v.contract.ignored_class is not None), None)


def ground_resolution(members: Sequence[Member]) -> float | None:
    """Return the metres per pixel that members read maps at, or None where none states any.

    Raises:
        ContractError: two members state different ones.
    """
    stated = [net for member in members for net in member.nets if net.contract.resolution is not None]
    first = stated[0].contract.resolution if stated else None
    for net in stated:
        assert first is not None and net.contract.resolution is not None
        if not math.isclose(net.contract.resolution, first, rel_tol=1e-3):
            raise ContractError(
                f"{stated[0].path} reads maps at {first:g} m per pixel, {net.path} at {net.contract.resolution:g}: "
                'predict with each by itself, or state resolution = "ignore" in the plan\'s [input]'
            )
    return first


def _specialists(key: str, nets: list[Net], optional: Collection[int]) -> Member:
    # The group of trained specialists ends in a hash of their run: right for telling sets apart, not for reading.
    name = re.sub(r"-[0-9a-f]{8}$", "", Path(key).name) or "specialists"
    first = nets[0].contract
    by_class: dict[int, Net] = {}
    for net in nets:
        class_id = net.contract.class_id
        assert class_id is not None
        if class_id in by_class:
            raise ContractError(
                f"specialist set {name} has class {class_id} twice: {by_class[class_id].path} and {net.path}; keep one"
            )
        if net.contract.classes != first.classes:
            raise ContractError(f"specialist set {name}: {net.path} has other classes than {nets[0].path}")
        by_class[class_id] = net
    missing = [i for i in range(len(first.classes)) if i not in by_class and i not in optional]
    if missing:
        told = ", ".join(f"{i} ({first.classes[i]})" for i in missing)
        raise ContractError(f"specialist set {name} lacks the nets of class {told}: add them, or suppress the class")
    ordered = tuple(by_class[class_id] for class_id in sorted(by_class))
    joined = hashlib.sha256("".join(net.checksum for net in ordered).encode()).hexdigest()
    return Member(name, ordered, first, joined)


def _named(contract: ModelContract) -> bool:
    return contract.classes != tuple(f"class {index}" for index in range(len(contract.classes)))


def _listed(contract: ModelContract) -> str:
    shown = ", ".join(contract.classes[:8]) + (", ..." if len(contract.classes) > 8 else "")
    return f"{len(contract.classes)} ({shown})"


def _uniquely_named(members: list[Member]) -> list[Member]:
    names = [member.name for member in members]
    if len(set(names)) == len(names):
        return members
    return [replace(member, name=f"{member.path.parent.name}/{member.name}") for member in members]


def class_number(item: int | str, names: Sequence[str]) -> int:
    """Return the id of a class given by id or by name; a name wins over an id that reads like it.

    Raises:
        PlanError: no class of that name.
    """
    if isinstance(item, int):
        return item
    name = item.strip()
    if name in names:
        return names.index(name)
    try:
        return int(name)
    except ValueError:
        listed = ", ".join(names)
        raise PlanError(f"no class {name[:40]!r}; there are {listed}, or ids 0 to {len(names) - 1}") from None
