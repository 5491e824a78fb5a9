"""Opens ONNX files as members: what the file says, what lies beside it and what is stated, put together and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ContractError, InputError, ModelError
from engine.models.adaptation import adaptations
from engine.models.contract import LABELS, METADATA_KEY, ModelContract
from engine.models.external_data import model_checksum
from engine.models.facts import read_facts
from engine.models.facts.base import Facts, merged
from engine.models.foreign import Examined, Run, examine
from engine.models.graph_facts import frozen_pools
from engine.models.mapping import comparable, mapped
from engine.models.net import Net, check_sample
from engine.models.ports import Ports, check_promises
from engine.models.runtimes.onnxruntime import OnnxSession
from engine.utils.console import one_line

CONTRACT = "its contract"


def open_net(
    path: Path,
    stated: Mapping[str, Any] | Sequence[Facts] | None = None,
    sample: NDArray[Any] | None = None,
    name: str = "",
) -> Net:
    """Open an ONNX file and settle its contract.

    Args:
        path: the file.
        stated: contract fields the user states, or what several origins state, the more exact first; all of it comes
            behind what the file says itself, may add to that and must not contradict it.
        sample: one raw image (height, width, channels); a foreign file is run on it once to see its output.
        name: what to call the member; the file's stem by default.

    Raises:
        ModelError: not an ONNX file, damaged, or one the runtime cannot run.
        ContractError: what the file is remains unclear, or contradicts what it promises.
        InputError: no such file, or the sample does not fit.
    """
    return _settled(inspect_net(path, stated, sample), sample, name)


def _settled(opened: Opened, sample: NDArray[Any] | None, name: str = "") -> Net:
    """Return the member that a file is, once nothing is open."""
    if opened.contract is None:
        raise ContractError(f"{opened.path}: {'; and '.join(opened.questions)}")
    # The name goes into tables and files; a file's own may hold escape sequences.
    net = opened.net(one_line(name or opened.path.stem))
    if sample is not None:
        check_sample(net, sample.shape)
    return net


@dataclass(frozen=True)
class Request:
    """One file of an ensemble that is to be opened.

    Attributes:
        path: the file.
        facts: what is stated about it, by origin, the more exact first.
        class_map: the ensemble's name of a class by the net's own; None where the classes are the same.
    """

    path: Path
    facts: tuple[Facts, ...] = ()
    class_map: Mapping[str, str] | None = None


def open_nets(
    requests: Sequence[Request], sample: NDArray[Any] | None = None, classes: Sequence[str] = ()
) -> list[Net]:
    """Open the files of an ensemble; what one of them leaves open its neighbours may settle.

    Args:
        requests: the files.
        sample: one raw image (height, width, channels), see :func:`open_net`.
        classes: names of the ensemble's classes; empty for those of the first net whose classes are not mapped.

    Raises:
        EngineError: as :func:`open_net`; a class map that names no class.
    """
    opened: dict[int, Net] = {}
    waiting: list[int] = []
    for index, request in enumerate(requests):
        found = inspect_net(request.path, request.facts, sample)
        if found.found.needs_classes:
            waiting.append(index)
        else:
            opened[index] = _settled(found, sample)
    plain = [index for index in sorted(opened) if requests[index].class_map is None]
    names = tuple(classes) or (opened[plain[0]].contract.classes if plain else ())
    for index in waiting:
        request = requests[index]
        # Of a net whose classes are mapped they are others than those of its neighbours.
        others = (Facts("the other members", {"classes": names}),) if names and request.class_map is None else ()
        opened[index] = open_net(request.path, (*request.facts, *others), sample)
    nets = [opened[index] for index in range(len(requests))]
    return comparable(
        [
            mapped(net, request.class_map, names) if request.class_map is not None or classes else net
            for net, request in zip(nets, requests, strict=True)
        ]
    )


@dataclass(frozen=True)
class Opened:
    """A file that was opened, whether or not everything about it is settled.

    Attributes:
        path: the file.
        session: opened in ONNX Runtime.
        ports: its inputs and outputs.
        contract: what it promises; None where questions are left.
        found: what was found out.
        checksum: SHA-256 of the file and its weights.
        notes: further things that metadata and files beside it say, text by name.
        stated: fields that neither the file nor one beside it says.
    """

    path: Path
    session: OnnxSession
    ports: Ports
    contract: ModelContract | None
    found: Examined
    checksum: str
    notes: Mapping[str, str]
    stated: Mapping[str, Any]

    @property
    def questions(self) -> list[str]:
        """What stays open; each names what settles it."""
        return self.found.questions

    @property
    def warnings(self) -> list[str]:
        """What may be wrong with the file itself, whatever is stated about it."""
        draft = self.contract or self.found.draft
        if draft is not None and draft.size is not None:
            return []
        pools = frozen_pools(self.path)
        if not pools:
            return []
        return [
            f"its axes are open, but the exporter fixed the pooling {pools[0]} for one size (as PyTorch's does with "
            "adaptive pooling), so its labels are wrong at other sizes: export it at the size you predict"
        ]

    @property
    def adapted(self) -> list[str]:
        """What is done to its input and output, as far as that is known."""
        draft = self.contract or self.found.draft
        return list(adaptations(self.found, self.ports, draft)) if draft is not None else []

    def net(self, name: str) -> Net:
        """Return the member; its contract must be settled."""
        assert self.contract is not None
        found = self.found
        return Net(
            name,
            self.path,
            self.contract,
            self.session,
            found.output.name,
            self.checksum,
            found.image.kind,
            tuple(self.adapted),
            tuple(self.warnings),
            self.stated,
        )


def inspect_net(
    path: Path,
    stated: Mapping[str, Any] | Sequence[Facts] | None = None,
    sample: NDArray[Any] | None = None,
) -> Opened:
    """Open an ONNX file and find out what it is; questions are collected, not raised. Arguments as :func:`open_net`.

    Raises:
        EngineError: it cannot be opened, or origins contradict each other.
    """
    if not path.is_file():
        raise InputError(f"no such model: {path}")
    checksum = model_checksum(path)
    session = OnnxSession(path)
    try:
        own, contract = _own_facts(path, session)
        added = list(stated) if isinstance(stated, Sequence) else [Facts("what is stated", dict(stated or {}))]
        ports = Ports.of(session.raw)
        constants = merged([*own, *added])[0].get("constants", {})
        session.feed(ports.image(tuple(constants)).name, ports.filled(constants))
        if contract is not None:
            found = _promised(ports, contract, own, added, tuple(constants))
        else:
            found = examine(ports, [*own, *added], sample, _runner(session))
    except ContractError as error:
        raise type(error)(f"{path}: {error}") from None
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    except UnicodeDecodeError:
        raise _damaged(path) from None
    notes = {key: value for fact in (*own, *added) for key, value in fact.notes.items()}
    said = {key for fact in own for key, value in fact.fields.items() if value is not None}
    extra = {
        key: value for fact in added for key, value in fact.fields.items() if key not in said and value is not None
    }
    return Opened(path, session, ports, found.contract, found, checksum, notes, extra)


def ports_of(path: Path) -> Ports:
    """Return the inputs and outputs of an ONNX file, whatever they are.

    Raises:
        ModelError: not an ONNX file, damaged, or one the runtime cannot run.
    """
    try:
        return Ports.of(OnnxSession(path).raw)
    except UnicodeDecodeError:
        raise _damaged(path) from None


def _damaged(path: Path) -> ModelError:
    return ModelError(f"{path} holds names that are not UTF-8: it is damaged, export or copy it again")


def _own_facts(path: Path, session: OnnxSession) -> tuple[list[Facts], ModelContract | None]:
    """Return what the file and the files beside it say, and the contract that it carries."""
    metadata = session.raw.get_modelmeta().custom_metadata_map
    carried = metadata.get(METADATA_KEY)
    if carried is None:
        return read_facts(path, metadata), None
    contract = ModelContract.from_json(carried)
    fields = {key: value for key, value in json.loads(contract.to_json()).items() if key not in ("schema", "notes")}
    return [Facts(CONTRACT, {key: value for key, value in fields.items() if value not in ("", None)})], contract


def _promised(
    ports: Ports, contract: ModelContract, own: Sequence[Facts], added: Sequence[Facts], constants: Sequence[str]
) -> Examined:
    """Return what is known of a file that carries a contract; what is stated may add to it."""
    fields, origins = merged([*own, *added])
    output_name = fields.pop("output_name", "")
    held = replace(contract, **{key: value for key, value in fields.items() if key != "notes"})
    image = ports.image(constants)
    fitting = ports.candidates(LABELS if held.kind == "packed" else output_name)
    if len(fitting) > 1:
        raise ports.ambiguous(fitting)
    output = fitting[0]
    if held.kind == "packed" and (output.kind != "uint8" or len(output.shape) != 3):
        raise ContractError(f"its labels are {output.kind} of rank {len(output.shape)}; uint8 of rank 3: pack it again")
    check_promises(image, output, held)
    return Examined(image, output, fields, origins, contract=held)


def _runner(session: OnnxSession) -> Run:
    def run(names: Sequence[str], batch: NDArray[Any]) -> list[NDArray[Any]]:
        return [np.asarray(session.run(name, batch)) for name in names]

    return run
