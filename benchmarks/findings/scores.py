"""Scores every exported system and ensemble on the shared validation tiles, and writes table and figures.

A row is measured on the exported file by the engine: raw and with the background suppressed, under the
conventions `keras-ignore` (the task's) and `labelled`. Rows are stored in `results/systems.json`, so that the table can
be rewritten without the networks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.findings.page import write_findings
from benchmarks.findings.place import Place
from benchmarks.findings.systems import System
from benchmarks.findings.zoo import pruned, runs_of, select_both
from benchmarks.table import RESULTS, STANDING, rows, write
from engine.bootstrap import GroupedCounts, interval, paired_difference
from engine.fusion.compiling import compile_ahead, not_compiled
from engine.fusion.decoding import Decoding
from engine.fusion.strategies import STRATEGIES
from engine.inference.ensemble import Ensemble
from engine.inference.prediction import Variant
from engine.metrics import class_iou, mean_iou
from engine.sources.labels import open_labels
from engine.sources.open import open_source
from engine.utils.threads import available_cores

STORE = RESULTS / "systems.json"
CONVENTIONS = ("keras-ignore", "labelled")
Row = dict[str, Any]
NOTE = """Validation tiles of one fold by panorama, never trained on. `raw` and `suppressed` are MIoU under
`keras-ignore`, IoU of the classes is that of the suppressed masks under `labelled`. The report's scores are of its own
test set, not of these tiles. Training times are as they came: several networks were trained side by side.
"""


def write_results(place: Place, systems: Sequence[System]) -> tuple[list[System], dict[str, Row]]:
    """Score existing networks, select, store the rows, write `results/systems.md`.

    Args:
        place: where the networks are.
        systems: those that are exported.

    Returns:
        The members that the final ensemble was selected from, and the results of `engine select`, by flips; both
        empty if there was nothing to select from.
    """
    store = json.loads(STORE.read_text()) if STORE.exists() and not place.quick else {}
    store = {"systems": {}, "ensembles": {}, "report": {}, "selections": {}} | store
    compile_ahead(not_compiled(STRATEGIES))
    counts, own = {}, {}
    for system in systems:
        row, counts[system.name] = score_system(place, system)
        store["systems"][system.name] = row
        own[system.name] = row["scores"]["suppressed"]["keras-ignore"]
        print(f"{system.name}: {own[system.name]:.4f}", flush=True)
    members = pruned([one for one in systems if one.member], own)
    pools = {"ensembles": members, "report": [one for one in systems if one.notebook]}
    for name, pool in pools.items():
        if len(pool) > 1:
            best = max(pool, key=lambda one: own[one.name])
            store[name] = dict(score_ensembles(place, pool, best, counts[best.name]))
    found = select_both(place, members) if len(members) > 1 else {}
    if found:
        store["selections"] = {f"selected, flips {flips}": told for flips, told in found.items()}
    target = place.runs / "systems.json" if place.quick else STORE
    target.write_text(json.dumps(store, indent=1) + "\n")
    if not place.quick:
        write_table(store)
        if RESULTS == STANDING:
            write_findings(store)
    return members, found


def score_system(place: Place, system: System) -> tuple[Row, GroupedCounts]:
    """Return a system's row, and its suppressed counts by panorama."""
    ensemble = Ensemble.open([place.onnx(system)])
    raw, suppressed = Variant("mean-logit", Decoding()), ensemble.variant
    matrices, rates = count(place, ensemble, [raw, suppressed])
    found = {"raw": matrices[raw], "suppressed": matrices[suppressed]}
    runs = runs_of(place, system)
    results = [run["result"] for run in runs]
    row = {
        "parameters": sum(result["parameters"] for result in results),
        "training_seconds": round(sum(result["seconds"] for result in results), 1),
        "epochs": runs[0]["config"]["epochs"],
        "preset": runs[0]["config"]["preset"],
        "run": results[0]["run"],
        "backend": results[0]["backend"],
        "images_per_second": round(rates[suppressed], 1),
        "scores": {name: scores(of) for name, of in found.items()},
    }
    return row, GroupedCounts.of(matrices[suppressed], groups(place), ensemble.ignored_class)


def score_ensembles(
    place: Place, pool: Sequence[System], best: System, single: GroupedCounts
) -> Iterator[tuple[str, Row]]:
    """Yield one row per strategy: all members, equal weights, without and with flips."""
    for flips in ("none", "horizontal"):
        ensemble = Ensemble.open([place.onnx(system) for system in pool], flips=flips)
        suppressed = ensemble.variant.decoding
        names = STRATEGIES if flips == "none" else ("mean-logit", "mean-prob")
        variants = {name: (Variant(name, Decoding()), Variant(name, suppressed)) for name in names}
        matrices, rates = count(place, ensemble, [variant for pair in variants.values() for variant in pair])
        for name, (raw, own) in variants.items():
            counts = GroupedCounts.of(matrices[own], groups(place), ensemble.ignored_class)
            gain = paired_difference(counts, single, "keras-ignore")
            yield (
                name + (", flips" if flips != "none" else ""),
                {
                    "members": [system.name for system in pool],
                    "images_per_second": round(rates[own], 1),
                    "scores": {"raw": scores(matrices[raw]), "suppressed": scores(matrices[own])},
                    "interval": str(interval(counts, "keras-ignore")),
                    "best_single": best.name,
                    "gain": [gain.value, gain.low, gain.high],
                },
            )


def count(
    place: Place, ensemble: Ensemble, variants: Sequence[Variant]
) -> tuple[dict[Variant, np.ndarray[Any, np.dtype[np.int64]]], dict[Variant, float]]:
    """Return the confusion matrices of all tiles, and the images/s, of each variant."""
    images, labels = open_source(f"{place.validation}:images"), open_labels(f"{place.validation}:labels")
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


def groups(place: Place) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """Return the panorama of each shared tile, numbered from 0; None if the data have none."""
    with np.load(place.validation) as file:
        return np.unique(file["groups"], return_inverse=True)[1] if "groups" in file.files else None


def scores(matrices: np.ndarray[Any, np.dtype[np.int64]]) -> Row:
    """Return MIoU by convention, and the IoU per labelled class."""
    total = matrices.sum(axis=0)
    told: Row = {convention: round(mean_iou(total, convention, 0), 4) for convention in CONVENTIONS}
    told["iou"] = [round(float(value), 4) for value in class_iou(total, "labelled", 0)[1:]]
    return told


def write_table(store: Row) -> None:
    """Write `results/systems.md` from the stored rows."""
    from benchmarks.findings.systems import STUDENTS, SYSTEMS

    header = ["system", "notebook", "report", "raw", "suppressed", "labelled raw", "labelled suppressed"]
    header += ["soil", "bedrock", "sand", "big rock", "parameters", "epochs", "training, min", "images/s"]
    lines: list[list[object]] = []
    missing = []
    for system in (*SYSTEMS, *STUDENTS):
        row = store["systems"].get(system.name)
        if row is None:
            missing.append(f"{system.title} as a member" if system.member else system.title)
            continue
        kaggle = "-" if system.kaggle is None else f"{system.kaggle:.4g}"
        lines.append(
            [
                *(system.title, system.notebook or "-", kaggle, *_cells(row)),
                *(f"{row['parameters']:,}", row["epochs"], f"{row['training_seconds'] / 60:.1f}"),
                f"{row['images_per_second']:.0f}",
            ]
        )
    text = NOTE
    if missing:
        text += "\nNot trained yet: " + "; ".join(missing) + ".\n"
    header_two = ["strategy", *header[3:11], "interval", "over best single", "images/s"]
    chosen = [
        [
            name,
            next(level["name"] for level in found["levels"] if level["chosen"]),
            *(_ends(found[key]) for key in ("gain_over_best_single", "gain_over_plain_mean")),
            _ends(next(level["cross_fitted"] for level in found["levels"] if level["chosen"])),
        ]
        for name, found in store["selections"].items()
    ]
    write(
        *("systems", "The systems of the report, trained here", "python -m benchmarks.findings"),
        ["keras", "tensorflow", "onnxruntime-gpu"],
        *(text, rows(header, lines), "## Ensembles of the members without background in the loss\n"),
        *(rows(header_two, _fused(store["ensembles"])), "## Ensembles of the report's systems\n"),
        *(rows(header_two, _fused(store["report"])), "## Selected of the members, cross-fitted over panoramas\n"),
        rows(["", "level", "over best single", "over plain mean", "score"], chosen),
    )


def _fused(found: Row) -> list[list[object]]:
    return [
        [name, *_cells(row), row["interval"], _gain(row["gain"]), f"{row['images_per_second']:.0f}"]
        for name, row in found.items()
    ]


def _cells(row: Row) -> list[str]:
    raw, own = row["scores"]["raw"], row["scores"]["suppressed"]
    return [
        *(f"{score[name]:.4f}" for name in CONVENTIONS for score in (raw, own)),
        *(f"{value:.3f}" for value in own["iou"]),
    ]


def _gain(gain: Sequence[float]) -> str:
    return f"{gain[0]:+.4f} [{gain[1]:+.4f}, {gain[2]:+.4f}]"


def _ends(found: Row) -> str:
    return f"{found['score']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
