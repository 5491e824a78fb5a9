"""What decides every label of a run, and in what two runs differ: none goes on with what another one has left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.inference.ensemble import Ensemble
from engine.inference.tiles.grid import Tiling
from engine.models.runtimes import Session
from engine.outputs.sidecar import HASH_KEY
from engine.record import plan_hash, resolved_plan
from engine.resume import INPUT_KEY, run_folder
from engine.sources.base import Source
from engine.version import VERSION

# What else decides a run, and what it is called.
_NAMES = {
    "tiling": "tiling",
    "images": "number of images",
    "size": "images' size",
    INPUT_KEY: "input",
    "labels_sha256": "true labels",
}


def run_header(ensemble: Ensemble, images: Source, input_sha256: str, labels_sha256: str = "") -> dict[str, Any]:
    """Return what decides every label of a run and every score, as plain JSON types.

    Args:
        ensemble: the members and how they are fused.
        images: what is predicted.
        input_sha256: fingerprint of the images, see :func:`engine.sources.fingerprint.fingerprint`.
        labels_sha256: fingerprint of the true label maps; empty without.
    """
    size = list(images.size)
    return {**_header(ensemble, input_sha256, labels_sha256), "images": len(images), "size": size}


def scenes_header(
    ensemble: Ensemble, sizes: Sequence[tuple[int, int]], tiling: Tiling, input_sha256: str, labels_sha256: str = ""
) -> dict[str, Any]:
    """Return the same as :func:`run_header` for a run over scenes of these sizes, cut into tiles."""
    tiles = sum(map(tiling.count, sizes))
    counts = {"images": len(sizes), "tiles": tiles, "tiling": tiling.record}
    return {**_header(ensemble, input_sha256, labels_sha256), **counts}


def _header(ensemble: Ensemble, input_sha256: str, labels_sha256: str) -> dict[str, Any]:
    return {
        "maskfuse": VERSION,
        "plan": resolved_plan(ensemble),
        HASH_KEY: plan_hash(ensemble),
        "members": {net.checksum: net.path.name for net in ensemble.nets},
        # Two runtimes round differently: labels on the edge of a decision may differ.
        "run_by": {net.checksum: _run_by(net.session) for net in ensemble.nets},
        INPUT_KEY: input_sha256,
        "labels_sha256": labels_sha256,
    }


def _run_by(session: Session) -> str:
    return f"{session.runtime} on {session.provider} in {session.precision}"


def check_same_run(goal: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that was another one.

    Raises:
        PlanError: naming what differs.
    """
    differing = next(_differences(then, json.loads(json.dumps(now))), None)
    if differing is not None:
        raise PlanError(
            f"cannot resume {goal}: {differing}; resume with what it was begun with, or remove {run_folder(goal)}"
        )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if then.get("maskfuse") != now["maskfuse"]:
        yield f"it was begun by maskfuse {then.get('maskfuse')}, this is {now['maskfuse']}"
    before, after = then.get("members", {}), now["members"]
    gone = [f"{before[key]} ({key[:12]})" for key in before if key not in after]
    new = [f"{after[key]} ({key[:12]})" for key in after if key not in before]
    if gone or new:
        yield f"the members differ: {', '.join(gone) or 'none'} then, {', '.join(new) or 'none'} now"
    for key, value in now["plan"].items():
        old = then.get("plan", {}).get(key)
        if old != value:
            told = "their weights or contracts" if key == "members" else f"{old!r} then, {value!r} now"
            yield f"the plan differs in {key}: {told}"[:300]
    for key, told in now["run_by"].items():
        if then.get("run_by", {}).get(key) != told:
            yield f"{after[key]} was run by {then.get('run_by', {}).get(key)}, now by {told}"
    for key, name in _NAMES.items():
        if then.get(key) != now.get(key):
            yield f"the {name} differ{'' if name.endswith('labels') else 's'}: {_shown(then.get(key))} then, " + (
                f"{_shown(now.get(key))} now"
            )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {'x'.join(map(str, v)) if isinstance(v, list) else v}" for key, v in sorted(value.items())
        )
    if value is None:
        return "none"
    return (f"{value[:12]}..." if value else "none") if isinstance(value, str) else str(value)
