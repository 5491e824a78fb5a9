"""The full table of the report's systems and of the final ensemble, `results/systems.md`, from the stored rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.findings.page import steps_table
from benchmarks.findings.student import student_table
from benchmarks.findings.systems import SYSTEMS
from benchmarks.table import gain_cell, held_cell, rows, write

CONVENTIONS = ("keras-ignore", "labelled")
Row = Mapping[str, Any]
NOTE = """Validation tiles of one fold by panorama, never trained on. `raw` and `suppressed` are MIoU under
`keras-ignore`, IoU of the classes is that of the suppressed masks under `labelled`. The report's scores are of its own
test set, not of these tiles. Training times are the median epoch's for each epoch; several networks were trained side
by side. Epochs: run, and at most; the best is the one that was kept.
"""


def write_table(store: Row) -> None:
    """Write `results/systems.md` from the stored rows."""
    header = ["system", "notebook", "report", "raw", "suppressed", "labelled raw", "labelled suppressed"]
    header += [
        "soil",
        "bedrock",
        "sand",
        "big rock",
        "parameters",
        "epochs",
        "best",
        "seed",
        "trained in",
        "training, min",
        "images/s",
    ]
    lines: list[list[object]] = []
    missing = []
    for system in SYSTEMS:
        row = store["systems"].get(system.name)
        if row is None:
            missing.append(system.title)
            continue
        kaggle = "-" if system.kaggle is None else f"{system.kaggle:.4g}"
        lines.append(
            [
                *(system.title, system.notebook or "-", kaggle, *_cells(row)),
                *(f"{row['parameters']:,}", f"{row.get('epochs_run', row['epochs'])} of {row['epochs']}"),
                *(row.get("best_epoch", "-"), row.get("seed", 0), row.get("precision", "float32")),
                *(f"{row['training_seconds'] / 60:.1f}", f"{row['images_per_second']:.0f}"),
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
            *(held_cell(found[key]) for key in ("gain_over_best_single", "gain_over_plain_mean")),
            held_cell(next(level["cross_fitted"] for level in found["levels"] if level["chosen"])),
        ]
        for name, found in store["selections"].items()
    ]
    write(
        *("systems", "The systems of the report, trained here", "python -m benchmarks.findings"),
        ["keras", "tensorflow", "onnxruntime-gpu"],
        *(text, rows(header, lines), "## Steps to the final ensemble, out of fold\n", steps_table(store)),
        *("## The student, out of fold, tiles stitched\n", student_table(store["student"])),
        "## Strategies over the members of the final ensemble, out of fold\n",
        *(rows(header_two, _fused(store["ensembles"])), "## Ensembles of the report's systems\n"),
        *(rows(header_two, _fused(store["report"])), "## Selected of the members, cross-fitted over panoramas\n"),
        rows(["", "level", "over best single", "over plain mean", "score"], chosen),
    )


def _fused(found: Row) -> list[list[object]]:
    return [
        [name, *_cells(row), row["interval"], gain_cell(row["gain"]), f"{row['images_per_second']:.0f}"]
        for name, row in found.items()
    ]


def _cells(row: Row) -> list[str]:
    raw, own = row["scores"]["raw"], row["scores"]["suppressed"]
    return [
        *(f"{score[name]:.4f}" for name in CONVENTIONS for score in (raw, own)),
        *(f"{value:.3f}" for value in own["iou"]),
    ]
