"""One pair of masks, every library's mean IoU: what each gives where a class is absent, false, stray or void.

    python -m benchmarks libraries          # runs the libraries; needs those in NEEDS of benchmarks/__main__.py
    python -m benchmarks.bench_libraries --check

Writes libraries.json (masks, numbers, versions) and the table of docs/scores.md. ``--check`` runs nothing: its exit
code is 1 if the page's table is not what the stored numbers give.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import RESULTS, STANDING
from engine.metrics import CONVENTIONS, Score
from engine.scores.libraries import LIBRARIES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scores.md"
FIRST_MARK, LAST_MARK = "<!-- libraries: written by python -m benchmarks libraries -->\n", "<!-- end of libraries -->"
CLASSES, SIZE, VOID = 5, (6, 8), 255
PACKAGES = ("keras", "torchmetrics", "segmentation_models_pytorch", "monai", "scikit-learn", "SimpleITK")
# Titles of the columns; a convention must agree in all of the first four to be named.
COLUMNS = {
    "plain": "all classes in both",
    "absent": "class 4 in neither",
    "false": "class 4 only predicted",
    "stray": "one stray 0",
    "outside": "one prediction of 6",
    "void": "void 255 left in",
    "left out": "void left out by its option",
}
COMPARED = ("plain", "absent", "false", "stray")


def masks() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return two true and two predicted masks, uint8 (2, height, width), of each case."""
    draw = np.random.default_rng(7)
    truth = draw.integers(0, CLASSES, (2, *SIZE)).astype(np.uint8)
    guess = np.where(draw.random(truth.shape) < 0.3, draw.integers(0, CLASSES, truth.shape), truth).astype(np.uint8)
    few, fewer = (np.where(array == 4, 1, array).astype(np.uint8) for array in (truth, guess))
    false, stray, outside, void = fewer.copy(), few.copy(), guess.copy(), truth.copy()
    false[0, 2, 3] = 4
    stray[tuple(np.argwhere(few == 2)[0])] = 0
    outside[tuple(np.argwhere(truth == 3)[0])] = 6
    void[:, 0, :5] = VOID
    return {
        "plain": (truth, guess),
        "absent": (few, fewer),
        "false": (few, false),
        "stray": (few, stray),
        "outside": (truth, outside),
        "void": (void, guess),
    }


def _keras(truth: np.ndarray, guess: np.ndarray, void: int | None, ignored: int | None) -> float:
    import keras

    if void is not None and ignored is not None:
        raise ValueError("one ignored value")
    metric = keras.metrics.MeanIoU(CLASSES, ignore_class=ignored if void is None else void)
    metric.update_state(truth, guess)
    return float(metric.result())


def _torchmetrics(truth: np.ndarray, guess: np.ndarray, void: int | None, ignored: int | None) -> float:
    import torch
    import torchmetrics

    if void is not None and ignored is not None:
        raise ValueError("one ignored value")
    # With their checks on, values outside the classes are refused; most code turns them off for speed.
    metric = torchmetrics.JaccardIndex(
        "multiclass", num_classes=CLASSES, ignore_index=ignored if void is None else void, validate_args=False
    )
    return float(metric(torch.from_numpy(guess.astype(np.int64)), torch.from_numpy(truth.astype(np.int64))))


def _torchmetrics_segmentation(truth: np.ndarray, guess: np.ndarray, void: int | None, ignored: int | None) -> float:
    import torch
    from torchmetrics.segmentation import MeanIoU

    if void is not None:
        raise ValueError("no option")
    metric = MeanIoU(CLASSES, include_background=ignored is None, input_format="index")
    return float(metric(torch.from_numpy(guess.astype(np.int64)), torch.from_numpy(truth.astype(np.int64))))


def _smp(truth: np.ndarray, guess: np.ndarray, void: int | None, ignored: int | None, how: str = "macro") -> float:
    import torch
    from segmentation_models_pytorch import metrics

    if ignored is not None:
        raise ValueError("no option")
    pair = (torch.from_numpy(array.astype(np.int64)) for array in (guess, truth))
    stats = metrics.get_stats(*pair, mode="multiclass", num_classes=CLASSES, ignore_index=void)
    return float(metrics.iou_score(*stats, reduction=how))


def _smp_imagewise(truth: np.ndarray, guess: np.ndarray, void: int | None, ignored: int | None) -> float:
    return _smp(truth, guess, void, ignored, "macro-imagewise")


def _monai(truth: np.ndarray, guess: np.ndarray, void: int | None, ignored: int | None) -> float:
    import torch
    from monai.metrics import MeanIoU

    if void is not None:
        raise ValueError("no option for label maps")
    # One-hot maps, as MONAI takes them: a value outside the classes is in none.
    hot = [torch.from_numpy((array[:, None] == np.arange(CLASSES)[:, None, None]).astype(np.float32))
           for array in (guess, truth)]  # fmt: skip
    metric = MeanIoU(include_background=ignored is None)
    metric(*hot)
    return float(metric.aggregate())


def _sklearn(truth: np.ndarray, guess: np.ndarray, void: int | None, ignored: int | None) -> float:
    from sklearn.metrics import jaccard_score

    if void is not None:
        raise ValueError("no option")
    labels = None if ignored is None else [index for index in range(CLASSES) if index != ignored]
    return float(jaccard_score(truth.ravel(), guess.ravel(), average="macro", labels=labels))


def _simpleitk(truth: np.ndarray, guess: np.ndarray, void: int | None, ignored: int | None) -> float:
    import SimpleITK

    if void is not None or ignored is None:
        raise ValueError("no option")
    measures = SimpleITK.LabelOverlapMeasuresImageFilter()
    measures.Execute(*(SimpleITK.GetImageFromArray(array) for array in (truth, guess)))
    return float(measures.GetJaccardCoefficient())


RUNS: dict[str, Callable[[np.ndarray, np.ndarray, int | None, int | None], float]] = {
    "keras": _keras,
    "torchmetrics": _torchmetrics,
    "torchmetrics-segmentation": _torchmetrics_segmentation,
    "smp": _smp,
    "smp-imagewise": _smp_imagewise,
    "monai": _monai,
    "sklearn": _sklearn,
    "simpleitk": _simpleitk,
}


def measure() -> dict[str, Any]:
    """Run every call on every case, each library in a process of its own: some cannot share one."""
    cases, rows = masks(), []
    for name in LIBRARIES:
        module = [sys.executable, "-m", "benchmarks.bench_libraries", "--one", name]
        done = subprocess.run(module, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        rows += json.loads(done.stdout.splitlines()[-1])
    held = {name: {"truth": truth.tolist(), "guess": guess.tolist()} for name, (truth, guess) in cases.items()}
    return {"versions": {name: version(name) for name in PACKAGES}, "classes": CLASSES, "cases": held, "rows": rows}


def measure_one(name: str) -> list[dict[str, Any]]:
    """Run the calls of one library on every case."""
    cases, rows, library = masks(), [], LIBRARIES[name]
    for ignored, call in ((None, library.call), (0, library.ignoring)):
        if not call:
            continue
        values: dict[str, float | str] = {}
        for column in COLUMNS:
            truth, guess = cases["void" if column == "left out" else column]
            values[column] = _run(RUNS[name], truth, guess, VOID if column == "left out" else None, ignored)
        rows.append({"library": name, "ignored": ignored, "call": call, "values": values})
    return rows


def _run(function: Callable[..., float], *given: object) -> float | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*given)
        except Exception as error:  # every library refuses in its own way
            return "no option" if isinstance(error, ValueError) and str(error) in _NONE else "refused"


_NONE = ("no option", "no option for label maps", "one ignored value")


def table(held: dict[str, Any]) -> str:
    """Return the page's table: one row per call, with the conventions of this project that it equals."""
    lines = [
        "| call | " + " | ".join(COLUMNS.values()) + " | equals |",
        "| --- |" + " ---: |" * len(COLUMNS) + " --- |",
    ]
    for row in held["rows"]:
        cells = [value if isinstance(value, str) else f"{value:.4f}" for value in row["values"].values()]
        lines.append(f"| `{row['call']}` | {' | '.join(cells)} | {equal(held, row)} |")
    told = ", ".join(f"{name} {number}" for name, number in held["versions"].items())
    return "\n".join([*lines, "", f"Versions: {told}. n is the number of classes."])


def equal(held: dict[str, Any], row: dict[str, Any]) -> str:
    """Return the conventions that give what a call gives in every case of :data:`COMPARED`."""
    # Where no class is ignored, all conventions but that of single images are one.
    names = ("all",) if row["ignored"] is None else CONVENTIONS
    return ", ".join(f"`{name}`" for name in names if _same(held, row, name)) or "none"


def _same(held: dict[str, Any], row: dict[str, Any], convention: str) -> bool:
    values = row["values"]
    return all(abs(ours(held, case, convention, row["ignored"]) - values[case]) < 1e-6 for case in COMPARED)


def ours(held: dict[str, Any], case: str, convention: str, ignored: int | None) -> float:
    """Return the score of a case under a convention."""
    score = Score(held["classes"], ignored)
    score.update(*(np.array(held["cases"][case][side], np.uint8) for side in ("truth", "guess")))
    return score.mean_iou(convention)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the page with the stored numbers, and stop")
    parser.add_argument("--one", default="", help="print the rows of one library as JSON, and stop")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(options.one)))
        return 0
    stored = RESULTS / "libraries.json"
    before, first, rest = PAGE.read_text("utf-8").partition(FIRST_MARK)
    _, last, after = rest.partition(LAST_MARK)
    if options.check:
        made = (
            before + first + table(json.loads((STANDING / "libraries.json").read_text("utf-8"))) + "\n" + last + after
        )
        if made != PAGE.read_text("utf-8"):
            print(f"{PAGE} is not what benchmarks/results/libraries.json gives: run python -m benchmarks libraries")
            return 1
        return 0
    held = measure()
    stored.parent.mkdir(exist_ok=True)
    stored.write_text(json.dumps(held) + "\n", "utf-8")
    print(table(held))
    if stored.parent == STANDING:
        PAGE.write_text(before + first + table(held) + "\n" + last + after, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
