"""Writes the tables of docs/findings.md and README.md, between their marks, from the scores of benchmarks.findings.

python -m benchmarks.findings.page             # writes them
python -m benchmarks.findings.page --check     # exit code 1 if the page shows anything else
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.findings.student import student_table
from benchmarks.findings.systems import KEEP, SYSTEMS
from benchmarks.table import STANDING, gain_cell, held_cell, rows

MODULE = "benchmarks.findings.page"
STORE = STANDING / "systems.json"
ROOT = Path(__file__).resolve().parents[2]
Store = Mapping[str, Any]
# Networks are compared if one had at most this many times the epochs of the other.
ALIKE = 2
#: The report's steps, each from one system to another, both scored raw as in the report.
STEPS = (
    ("U-Net++ for U-Net", "unet", "upp"),
    ("flips", "upp", "upp-flips"),
    ("weighted loss", "upp-flips", "upp-weighted"),
    ("Dice loss", "upp-flips", "upp-dice"),
    ("focal loss", "upp-flips", "upp-focal"),
    ("boundary loss", "upp-flips", "upp-boundary"),
    ("best mix of losses", "upp-flips", "upp-mix"),
    ("PAN for U-Net++", "upp-flips", "pan"),
    ("squeeze-and-excitation, dropout, custom augmentation", "pan", "pan-full"),
    ("two cascaded U-Nets for U-Net++", "upp-flips", "double"),
    ("the cascade, trained in two stages", "double", "double-staged"),
    ("transformer U-Net for U-Net++", "upp-flips", "transformer"),
    ("five one-class networks for U-Net++", "upp-flips", "five"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table is out of date")
    options = parser.parse_args(arguments)
    store = json.loads(STORE.read_text("utf-8"))
    if not options.check:
        write_findings(store)
        return 0
    wrong = [
        f"{page.name}: the table {name} differs from {STORE.name}: run python -m {MODULE}"
        for page, names in PAGES.items()
        for name in names
        if _shown(page, page.read_text("utf-8"), name)[0] != TABLES[name](store)
    ]
    empty = [name for name, table in TABLES.items() if len(table(store).splitlines()) < 3]
    wrong += [f"{STORE.name}: no row for the table {name}" for name in empty]
    print("\n".join(wrong) or f"{', '.join(page.name for page in PAGES)}: up to date")
    return int(bool(wrong))


def write_findings(store: Store) -> None:
    """Put the tables into the pages; exit if a mark is missing. Systems without a row are left out."""
    for page, names in PAGES.items():
        text = page.read_text("utf-8")
        for name in names:
            _, start, end = _shown(page, text, name)
            text = text[:start] + TABLES[name](store) + text[end:]
        page.write_text(text, "utf-8")


def _shown(page: Path, text: str, name: str) -> tuple[str, int, int]:
    """Return the table of a page's text between its marks, and where it starts and ends."""
    mark = f"<!-- {name}: written by python -m benchmarks.findings -->\n"
    found = re.search(f"(?<={mark}).*?(?=<!-- end)", text, re.DOTALL)
    if not found:
        raise SystemExit(f"{page} lacks the marks of the table {name}")
    return found[0], found.start(), found.end()


def steps(store: Store) -> str:
    """Return the gain of each step, in the report and here."""
    kaggle = {system.name: system.kaggle for system in SYSTEMS}
    lines = []
    for title, *names in STEPS:
        pair = _alike(store, names)
        if pair:
            there = [kaggle[name] for name in names]
            told = "-" if None in there else f"{there[1] - there[0]:+.3f}"  # type: ignore[operator]
            before, after = ([row["scores"][state]["keras-ignore"] for state in ("raw", "suppressed")] for row in pair)
            gains = [f"{new - old:+.3f}" for old, new in zip(before, after, strict=True)]
            lines.append([title, told, *gains, ", ".join(str(row["epochs"]) for row in pair)])
    return rows(["step", "in the report", "here, raw", "here, suppressed", "epochs at most"], lines)


def _alike(store: Store, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the rows of systems that had about as many epochs each: the longest trainings, else earlier ones."""
    now = [store["systems"][name] for name in names if name in store["systems"]]
    earlier = [store.get("short", {}).get(name, store["systems"].get(name)) for name in names]
    for pair in (now, [row for row in earlier if row is not None]):
        epochs = [row["epochs"] for row in pair]
        if len(pair) == len(names) and max(epochs) <= ALIKE * min(epochs):
            return pair
    return []


def suppression(store: Store) -> str:
    """Return the gain by suppression of each network trained with the background, and how much of it is the mean's."""
    lines = []
    for system in SYSTEMS:
        # The set of specialists has a network for the background as well.
        if not (KEEP in system.arguments or system.notebook) or system.name not in store["systems"]:
            continue
        raw, own = (_score(store, system.name, state) for state in ("raw", "suppressed"))
        four = _score(store, system.name, "raw", "labelled")
        row = store["systems"][system.name]
        epochs = row.get("epochs_run", row["epochs"])
        lines.append([system.title, epochs, *(f"{value:.4f}" for value in (raw, own)), *_changes(raw, four, own)])
    header = [
        "network",
        "epochs",
        "raw",
        "suppressed",
        "gain",
        "due to the mean: four classes, not five",
        "due to better labels",
    ]
    return rows(header, lines)


def background(store: Store) -> str:
    """Return the same network with the background in the loss and left out."""
    lines = []
    for title, name in (("in the loss", "unet-flips"), ("excluded from the loss", "unet-left-out")):
        if name in store["systems"]:
            row = store["systems"][name]
            shown = [
                _score(store, name, state, kind) for kind in ("keras-ignore", "labelled") for state in row["scores"]
            ]
            lines.append([title, *(f"{value:.4f}" for value in shown)])
    return rows(["background", "raw", "suppressed", "raw, labelled", "suppressed, labelled"], lines)


def ensembles(store: Store) -> str:
    """Return the ensembles of the report's systems and of the members, suppressed, against the best of each."""
    lines = []
    for title, kind in (("the report's systems", "report"), ("members of the final ensemble", "ensembles")):
        for name, row in store[kind].items():
            lines.append(
                [
                    *(title, name, len(row["members"]), f"{row['scores']['raw']['keras-ignore']:.4f}"),
                    *(f"{row['scores']['suppressed']['keras-ignore']:.4f}", gain_cell(row["gain"])),
                ]
            )
    return rows(["pool", "strategy", "networks", "raw", "suppressed", "gain over best single"], lines)


def steps_table(store: Store) -> str:
    """Return what each step to the final ensemble gains, on all panoramas, out of fold."""
    lines = []
    for number, row in enumerate(store.get("steps", []), 1):
        gain = gain_cell(row["gain"]) if "gain" in row else ""
        over = row["over"] + 1 if "over" in row else ""
        lines.append([number, row["title"], held_cell(row), gain, over])
    return rows(["", "step", "MIoU", "gain", "over row"], lines)


TABLES: Mapping[str, Callable[[Store], str]] = {
    "steps": steps,
    "suppression": suppression,
    "background": background,
    "ensembles": ensembles,
    "final": steps_table,
    "student": lambda store: student_table(store.get("student", [])),
}


PAGES: Mapping[Path, Sequence[str]] = {
    ROOT / "docs" / "findings.md": tuple(TABLES),
    ROOT / "README.md": ("student",),
}


def _score(store: Store, name: str, state: str, convention: str = "keras-ignore") -> float:
    return float(store["systems"][name]["scores"][state][convention])


def _changes(raw: float, four: float, own: float) -> list[str]:
    return [f"{value:+.4f}" for value in (own - raw, four - raw, own - four)]


if __name__ == "__main__":
    sys.exit(main())
