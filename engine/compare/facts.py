"""Facts reported with the scores: the members and their contracts, the machine, the time."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.compare.result import MemberFacts
from engine.compare.study import Study
from engine.models.external_data import model_size
from engine.models.members import Member
from engine.utils.threads import available_cores


def member_facts(study: Study) -> list[MemberFacts]:
    """Return the facts about each member, in the given order."""
    store = study.store
    return [
        _member(member, 1000 * store.plain_seconds[index] / store.images)
        for index, member in enumerate(study.ensemble.members)
    ]


def _member(member: Member, milliseconds: float) -> MemberFacts:
    held = member.contract
    kind = held.architecture or held.kind
    if member.is_set and len(member.nets) > 1:
        kind = f"{len(member.nets)} specialists" + (f" ({held.architecture})" if held.architecture else "")
    if member.folds:
        kind = f"{len(member.nets)} folds" + (f" ({held.architecture})" if held.architecture else "")
    return MemberFacts(
        name=member.name,
        kind=kind,
        files=[net.path.name for net in member.nets],
        sha256=member.checksum,
        megabytes=sum(model_size(net.path) for net in member.nets) / 1e6,
        input=f"{held.input_layout}, {held.sides}, {held.channels} channel{'s' * (held.channels > 1)}",
        scaling=f"x {held.scale:.6g}, mean {_listed(held.mean)}, std {_listed(held.std)}",
        output=f"{held.output_layout}, {held.activation}",
        milliseconds=milliseconds,
    )


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def provenance() -> dict[str, Any]:
    """Return ``date`` (ISO 8601, UTC) and ``machine`` (processor, cores, system)."""
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}


def machine() -> str:
    """Return processor, cores and system in a few words."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {available_cores()} cores, {platform.system()}, Python {platform.python_version()}"
