"""Scores every exported system and ensemble on the shared validation tiles, and writes table and figures.

A row is measured on the exported file by the engine: raw and with the background suppressed, under the
conventions `keras-ignore` (the task's) and `labelled`. Rows are stored in `results/systems.json`, so that the table can
be rewritten without the networks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.findings.curves import DOCS, draw_curves, draw_steps, history, seconds_of
from benchmarks.findings.out_of_fold import Found, Labelled, ablation
from benchmarks.findings.page import write_findings
from benchmarks.findings.place import Place
from benchmarks.findings.student import student_rows
from benchmarks.findings.systems import STUDENT, SYSTEMS, System
from benchmarks.findings.tables import CONVENTIONS, write_table
from benchmarks.findings.zoo import runs_of
from benchmarks.table import RESULTS, STANDING
from engine.bootstrap import GroupedCounts, interval, paired_difference
from engine.fusion.compiling import compile_ahead, not_compiled
from engine.fusion.decoding import Decoding
from engine.fusion.strategies import STRATEGIES
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.metrics import class_iou, mean_iou
from engine.runs.out_of_fold import predict_out_of_fold
from engine.sources.labels import open_labels
from engine.sources.open import open_source
from engine.utils.threads import available_cores

STORE = RESULTS / "systems.json"
Row = dict[str, Any]


def write_results(place: Place, systems: Sequence[System], found: Mapping[str, Found]) -> None:
    """Score existing networks, store the rows, write `results/systems.md`.

    Args:
        place: where the networks are.
        systems: those that are exported.
        found: the output of `engine select` for the members, by flips; empty if there was nothing to select from.
    """
    store = json.loads(STORE.read_text()) if STORE.exists() and not place.quick else {}
    empty = {"systems": {}, "short": {}, "ensembles": {}, "report": {}, "selections": {}, "steps": [], "student": []}
    store = empty | store
    compile_ahead(not_compiled(STRATEGIES))
    # Rows of systems that are no more would be shown nowhere.
    known = {system.name for system in SYSTEMS}
    for part in ("systems", "short"):
        store[part] = {name: row for name, row in store[part].items() if name in known}
    counts, own = {}, {}
    shared = Scored.validation(place)
    for system in systems:
        row, counts[system.name] = score_system(place, system, shared)
        before = store["systems"].get(system.name, row)
        if before["epochs"] < row["epochs"]:
            # Steps are between networks of like epochs, so a row is kept until all have had more.
            store["short"][system.name] = before
        store["systems"][system.name] = row
        own[system.name] = row["scores"]["suppressed"]["keras-ignore"]
        print(f"{system.name}: {own[system.name]:.4f}", flush=True)
    report = [one for one in systems if one.notebook]
    # Some of them alone do not take the place of all.
    if len(report) > 1 and len(report) >= max((len(row["members"]) for row in store["report"].values()), default=0):
        best = max(report, key=lambda one: own[one.name])
        files = [[place.onnx(one)] for one in report]
        store["report"] = dict(score_ensembles(files, shared, best.name, counts[best.name]))
    members = [one for one in systems if one.member]
    if found:
        store["selections"] = {f"selected, flips {flips}": told for flips, told in found.items()}
        store["ensembles"] = dict(score_members(place, members))
        store["steps"] = ablation(place, systems)
        for student in (one for one in systems if one.name == STUDENT):
            store["student"] = student_rows(place, student)
    target = place.runs / "systems.json" if place.quick else STORE
    target.write_text(json.dumps(store, indent=1) + "\n")
    if not place.quick:
        write_table(store)
        if RESULTS == STANDING:
            write_findings(store)
    pictures = place.runs if place.quick or RESULTS != STANDING else DOCS
    if found:
        draw_curves(place, [one for one in systems if one.folded], pictures / "curves.png")
        draw_steps(store["steps"], pictures / "steps.png")


@dataclass(frozen=True)
class Scored:
    """Tiles that ensembles are scored on: images, labels, the panorama of each (or None), and whether out of fold."""

    images: str
    labels: str
    groups: np.ndarray[Any, np.dtype[np.int64]] | None
    out_of_fold: bool = False

    @classmethod
    def validation(cls, place: Place) -> Scored:
        """Return the tiles of the fold that all systems share."""
        with np.load(place.validation) as file:
            groups = np.unique(file["groups"], return_inverse=True)[1] if "groups" in file.files else None
        return cls(f"{place.validation}:images", f"{place.validation}:labels", groups)


def score_members(place: Place, members: Sequence[System]) -> Iterator[tuple[str, Row]]:
    """Yield one row per strategy of the final ensemble's members, on all tiles, out of fold."""
    labelled = Labelled.of(place)
    index = np.unique(np.load(labelled.groups), return_inverse=True)[1]
    every = Scored(labelled.images, str(place.data), index, out_of_fold=True)
    alone = {}
    for system in members:
        ensemble = Ensemble.open([place.onnx_files(system)])
        matrices, _ = count(every, ensemble, [ensemble.variant])
        alone[system.name] = GroupedCounts.of(matrices[ensemble.variant], index, ensemble.ignored_class)
    best = max(alone, key=lambda name: interval(alone[name], "keras-ignore").value)
    yield from score_ensembles([place.onnx_files(system) for system in members], every, best, alone[best])


def score_system(place: Place, system: System, shared: Scored) -> tuple[Row, GroupedCounts]:
    """Return a system's row (of folds that of one network), and its suppressed counts by panorama."""
    ensemble = Ensemble.open([place.onnx(system)])
    raw, suppressed = Variant("mean-logit", Decoding()), ensemble.variant
    matrices, rates = count(shared, ensemble, [raw, suppressed])
    found = {"raw": matrices[raw], "suppressed": matrices[suppressed]}
    runs = runs_of(place, system)
    if system.folded:
        runs = runs[:1]
    results = [run["result"] for run in runs]
    row = {
        "parameters": sum(result["parameters"] for result in results),
        "training_seconds": round(sum(map(seconds_of, place.networks(system)[: len(runs)])), 1),
        "epochs": runs[0]["config"]["epochs"],
        "epochs_run": len(history(place.networks(system)[0])),
        "best_epoch": results[0]["best_epoch"],
        "seed": runs[0]["config"]["seed"],
        "preset": runs[0]["config"]["preset"],
        "precision": runs[0]["config"]["precision"],
        "run": results[0]["run"],
        "backend": results[0]["backend"],
        "images_per_second": round(rates[suppressed], 1),
        "scores": {name: scores(of) for name, of in found.items()},
    }
    return row, GroupedCounts.of(matrices[suppressed], shared.groups, ensemble.ignored_class)


def score_ensembles(
    files: Sequence[Sequence[Path]], tiles: Scored, best: str, single: GroupedCounts
) -> Iterator[tuple[str, Row]]:
    """Yield one row per strategy: all members, equal weights, without and with flips.

    Args:
        files: those of each member; several are its folds.
        tiles: what to score on.
        best: name of the best single member.
        single: its counts.
    """
    models = [list(own) if len(own) > 1 else own[0] for own in files]
    for flips in ("none", "horizontal"):
        ensemble = Ensemble.open(models, flips=flips)
        suppressed = ensemble.variant.decoding
        names = STRATEGIES if flips == "none" else ("mean-logit", "mean-prob")
        variants = {name: (Variant(name, Decoding()), Variant(name, suppressed)) for name in names}
        matrices, rates = count(tiles, ensemble, [variant for pair in variants.values() for variant in pair])
        for name, (raw, own) in variants.items():
            counts = GroupedCounts.of(matrices[own], tiles.groups, ensemble.ignored_class)
            gain = paired_difference(counts, single, "keras-ignore")
            yield (
                name + (", flips" if flips != "none" else ""),
                {
                    "members": [member.name for member in ensemble.members],
                    "images_per_second": round(rates[own], 1),
                    "scores": {"raw": scores(matrices[raw]), "suppressed": scores(matrices[own])},
                    "interval": str(interval(counts, "keras-ignore")),
                    "best_single": best,
                    "gain": [gain.value, gain.low, gain.high],
                },
            )


def count(
    tiles: Scored, ensemble: Ensemble, variants: Sequence[Variant]
) -> tuple[dict[Variant, np.ndarray[Any, np.dtype[np.int64]]], dict[Variant, float]]:
    """Return the confusion matrices of all tiles, and the images/s, of each variant."""
    images, labels = open_source(tiles.images), open_labels(tiles.labels)
    if tiles.out_of_fold:
        predict_out_of_fold(ensemble, images)
    parts: dict[Variant, list[Any]] = {variant: [] for variant in variants}
    seconds = dict.fromkeys(variants, 0.0)
    members = 0.0
    for part in ensemble.stream(images, labels, variants):
        members += sum(part.member_seconds)
        for variant in variants:
            parts[variant].append(part.confusion[variant])
            seconds[variant] += part.variant_seconds[variant]
    rates = {variant: len(images) * available_cores() / (members + own) for variant, own in seconds.items()}
    return {variant: np.concatenate(found) for variant, found in parts.items()}, rates


def scores(matrices: np.ndarray[Any, np.dtype[np.int64]]) -> Row:
    """Return MIoU by convention, and the IoU per labelled class."""
    total = matrices.sum(axis=0)
    told: Row = {convention: round(mean_iou(total, convention, 0), 4) for convention in CONVENTIONS}
    told["iou"] = [round(float(value), 4) for value in class_iou(total, "labelled", 0)[1:]]
    return told
