"""What determines all labels of a run, and how two runs differ: a run never continues a different one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.errors import PlanError
from engine.runs.durable.resume import run_folder
from engine.runs.provenance import INPUT_KEY

# What else determines a run, and its name in messages.
_NAMES = {
    "tiling": "tiling",
    "images": "number of images",
    "size": "images' size",
    INPUT_KEY: "input",
    "labels_sha256": "true labels",
    "output_ids": "ids in the masks",
    "rle": "form of run lengths",
    "evidence": "scores and doubt",
}


def check_same_run(output: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume a different run.

    Raises:
        PlanError: naming what differs.
    """
    differing = next(_differences(then, json.loads(json.dumps(now))), None)
    if differing is not None:
        raise PlanError(
            f"cannot resume {output}: {differing}; resume with the original settings, or remove {run_folder(output)}"
        )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if then.get("maskfuse") != now["maskfuse"]:
        yield f"it was started by maskfuse {then.get('maskfuse')}, this is {now['maskfuse']}"
    before, after = then.get("members", {}), now["members"]
    gone = [f"{before[key]} ({key[:12]})" for key in before if key not in after]
    new = [f"{after[key]} ({key[:12]})" for key in after if key not in before]
    if gone or new:
        yield f"the members differ: {', '.join(gone) or 'none'} then, {', '.join(new) or 'none'} now"
    for key in dict.fromkeys([*now["plan"], *then.get("plan", {})]):
        old, value = then.get("plan", {}).get(key), now["plan"].get(key)
        if old != value:
            told = "their weights or contracts" if key == "members" else f"{old!r} then, {value!r} now"
            yield f"the plan differs in {key}: {told}"[:300]
    for key, told in now["run_by"].items():
        if then.get("run_by", {}).get(key) != told:
            yield f"{after[key]} was run by {then.get('run_by', {}).get(key)}, now by {told}"
    for key, name in _NAMES.items():
        if then.get(key) != now.get(key):
            yield (
                f"the {name} differ{'' if name.endswith(('labels', 'masks')) else 's'}: {_shown(then.get(key))} then, "
                + (f"{_shown(now.get(key))} now")
            )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {'x'.join(map(str, v)) if isinstance(v, list) else v}" for key, v in sorted(value.items())
        )
    if value is None:
        return "none"
    return (f"{value[:12]}..." if value else "none") if isinstance(value, str) else str(value)
