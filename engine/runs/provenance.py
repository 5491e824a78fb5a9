"""The record of every result: the complete plan as run, the members' checksums, and one hash over them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.fusion.strategies import STRATEGIES
from engine.inference.ensemble import Ensemble
from engine.inference.execution import present_execution
from engine.inference.tiles.grid import Tiling
from engine.models.members import Member
from engine.models.net import Net
from engine.models.runtimes import AUTO, DEFAULT, RUNTIMES
from engine.models.runtimes.base import Session
from engine.models.views import FLIPS, VIEW_MEANS, told_views
from engine.sources.base import Source
from engine.sources.record import HASH_KEY
from engine.utils import plugins
from engine.utils.plugins import package_of
from engine.version import VERSION

INPUT_KEY = "input_sha256"

SCHEMA = 1


def resolved_plan(ensemble: Ensemble) -> dict[str, Any]:
    """Return everything that determines the labels, as plain JSON types, with all defaults filled in.

    Members are identified and sorted by their checksums: neither paths nor the order of the command line matter.
    Weights are normalised and rounded to 12 digits, so that 1, 2 and 0.5, 1 are the same plan.
    """
    decoding, early = ensemble.variant.decoding, ensemble.early_exit
    members = [
        {**_held(member), "weights": [round(float(weight), 12) for weight in row], **_calibrated(ensemble, index)}
        for index, (member, row) in enumerate(zip(ensemble.members, ensemble.weights, strict=True))
    ]
    plan = {
        "schema": SCHEMA,
        "strategy": ensemble.variant.strategy,
        "suppress": sorted(decoding.suppress),
        "threshold": decoding.threshold,
        "bias": list(decoding.bias),
        "prior": list(decoding.prior),
        "vote_stage": decoding.vote_stage,
        "min_region": decoding.min_region,
        "early_exit_agreement": None if early is None or early.agreement == 1 else early.agreement,
        **_viewed(ensemble),
        "members": sorted(members, key=lambda member: json.dumps(member, sort_keys=True)),
    }
    if decoding.decode != "argmax":
        plan["decode"] = decoding.decode
    if decoding.cleanup:
        plan["cleanup"] = [{"class": item.class_id, **item.stated} for item in decoding.cleanup]
    if decoding.temperature != 1:
        plan["temperature"] = decoding.temperature
    if ensemble.unknown is not None:
        plan["unknown"] = ensemble.unknown.decides
    if ensemble.input_facts:
        plan["input"] = dict(ensemble.input_facts)
    runtime_options = ensemble.runtime_options
    if (runtime_options.runtime, runtime_options.precision) != (DEFAULT, "float32"):
        plan["arithmetic"] = {"runtime": runtime_options.runtime, "precision": runtime_options.precision}
    added = {
        "strategy": package_of(plugins.STRATEGIES, ensemble.variant.strategy, STRATEGIES),
        "runtime": package_of(plugins.RUNTIMES, runtime_options.runtime, (AUTO, *RUNTIMES)),
    }
    if any(added.values()):
        # Another version of the package may give different labels.
        plan["added_by"] = {key: package for key, package in added.items() if package}
    return plan


def _viewed(ensemble: Ensemble) -> dict[str, Any]:
    """Return what members also run on; mirror images alone as they were called before there were other views."""
    told = told_views(ensemble.views)
    several = told != "none" or any(member.folds for member in ensemble.members)
    means = {"view_mean": ensemble.view_mean} if ensemble.view_mean != VIEW_MEANS[0] and several else {}
    return ({"flips": told} if told in FLIPS else {"views": [view.name for view in ensemble.views[1:]]}) | means


def _calibrated(ensemble: Ensemble, index: int) -> dict[str, Any]:
    """Return how a member's logits are changed; nothing where they are not."""
    found = ensemble.calibrations[index] if ensemble.calibrations else None
    return {"temperature": found.temperature, "bias": list(found.bias)} if found else {}


def _held(member: Member) -> dict[str, Any]:
    """Return what decides a member's logits: its nets, those of its folds, or its masks."""
    if member.folds:
        return {
            "folds": [_net(net) for net in member.summed],
            **({} if member.unseen is None else {"out_of_fold": True}),
        }
    return {"nets": [_net(net) for net in member.nets]} if member.nets else {"masks": member.checksum}


def _net(net: Net) -> dict[str, Any]:
    """Return what determines a net's logits: the file, and the contract fields given for it."""
    held = replace(net.contract, grey_as_rgb=False)  # has its own key, from before it became a contract field
    contract = hashlib.sha256(held.to_json().encode()).hexdigest()
    grey = net.contract.grey_as_rgb
    found = {"sha256": net.checksum, "contract": contract, "output": net.output_name, "grey_as_rgb": grey}
    if net.onto is not None:
        found["onto"] = list(net.onto.targets)
    return found


def plan_hash(ensemble: Ensemble) -> str:
    """Return the SHA-256, hexadecimal, of the canonical JSON of :func:`resolved_plan`.

    Two runs with the same hash give the same labels for the same images, wherever their models are stored.
    """
    canonical = json.dumps(resolved_plan(ensemble), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def run_record(ensemble: Ensemble, **more: Any) -> dict[str, Any]:
    """Return the record of a result: hash, plan and members by name.

    Args:
        ensemble: the members and how they are fused.
        **more: further plain JSON values about the run.
    """
    return {
        "maskfuse": VERSION,
        HASH_KEY: plan_hash(ensemble),
        "plan": resolved_plan(ensemble),
        "members": [
            {
                "name": member.name,
                "sha256": member.checksum,
                "runtime": ensemble.device.told if ensemble.device is not None else present_execution(member, 0).name,
                "files": [_file(net) for net in member.nets] or [{"name": member.path.name, "sha256": member.checksum}],
            }
            for member in ensemble.members
        ],
        "classes": list(ensemble.classes),
        **({"multi_label": True} if ensemble.is_multilabel else {}),
        "ignored_class": ensemble.ignored_class,
        "labels": ensemble.coding.record,
        **({} if ensemble.unknown is None else {"unknown": ensemble.unknown.record}),
        **_output_ids(ensemble),
        **more,
    }


def _file(net: Net) -> dict[str, Any]:
    held: dict[str, Any] = {"name": net.path.name, "sha256": net.checksum}
    return {**held, "adapted": list(net.adapted)} if net.adapted else held


def run_header(ensemble: Ensemble, images: Source, input_sha256: str, labels_sha256: str = "") -> dict[str, Any]:
    """Return what determines all labels and scores of a run, as plain JSON types.

    Args:
        ensemble: the members and how they are fused.
        images: the images to predict.
        input_sha256: fingerprint of the images, see :func:`engine.sources.fingerprint.fingerprint`.
        labels_sha256: fingerprint of the true label maps; empty without labels.
    """
    size = [ensemble.masks_per_image, *images.size] if ensemble.is_multilabel else list(images.size)
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
        "members": {file.checksum: file.path.name for member in ensemble.members for file in member.nets or [member]},
        # Two runtimes round differently: labels close to a decision boundary may differ.
        "run_by": {net.checksum: _run_by(ensemble, net.session) for net in ensemble.nets},
        INPUT_KEY: input_sha256,
        "labels_sha256": labels_sha256,
        **_output_ids(ensemble),
    }


def _output_ids(ensemble: Ensemble) -> dict[str, Any]:
    """Return what masks hold where it is not the numbers of the classes; shards hold these in any case."""
    return {"output_ids": list(ensemble.coding.ids)} if ensemble.coding.output_ids else {}


def _run_by(ensemble: Ensemble, session: Session) -> str:
    if ensemble.device is not None:
        return ensemble.device.told
    return f"{session.runtime} on {session.provider} in {session.precision}"
