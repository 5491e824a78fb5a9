"""The numbers of other libraries: as they were recorded, and as those give that are installed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from engine.errors import PlanError
from engine.metrics import confusion_matrices
from engine.scores.libraries import LIBRARIES, score_as
from tests.conftest import ROOT, Result

STORED = json.loads((ROOT / "benchmarks" / "results" / "libraries.json").read_text("utf-8"))
# Values outside the classes and void beside an ignored class are no masks of this project.
CASES = ("plain", "absent", "false", "stray", "left out")


def matrices_of(case: str) -> np.ndarray:
    held = STORED["cases"]["void" if case == "left out" else case]
    return confusion_matrices(np.array(held["truth"], np.uint8), np.array(held["guess"], np.uint8), STORED["classes"])


def drawn(seed: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, (3, 40)).astype(np.uint8)
    guess = np.where(draw.random(truth.shape) < 0.4, draw.integers(0, classes, truth.shape), truth).astype(np.uint8)
    gone = draw.integers(0, 2 * classes)
    return np.where(truth == gone, 0, truth).astype(np.uint8), np.where(guess == gone, 1, guess).astype(np.uint8)


@pytest.mark.parametrize("row", STORED["rows"], ids=lambda row: row["call"])
def test_numbers_are_those_that_the_library_gave(row: dict[str, object]) -> None:
    for case in CASES:
        recorded = row["values"][case]  # type: ignore[index]
        if not isinstance(recorded, str):
            got = score_as(str(row["library"]), matrices_of(case), row["ignored"])  # type: ignore[arg-type]
            assert got == pytest.approx(recorded, abs=1e-6), case


def test_every_library_and_every_case_is_recorded() -> None:
    calls = {call for library in LIBRARIES.values() for call in (library.call, library.ignoring) if call}
    assert {row["call"] for row in STORED["rows"]} == calls
    for row in STORED["rows"]:
        assert all(isinstance(row["values"][case], float) for case in CASES[:4])


@pytest.mark.parametrize("seed", range(12))
def test_numbers_of_installed_libraries(seed: int) -> None:
    keras, itk = pytest.importorskip("keras"), pytest.importorskip("SimpleITK")
    truth, guess = drawn(seed)
    counts = confusion_matrices(truth, guess, 4)
    for ignored in (None, 0):
        metric = keras.metrics.MeanIoU(4, ignore_class=ignored)
        metric.update_state(truth, guess)
        assert score_as("keras", counts, ignored) == pytest.approx(float(metric.result()), abs=1e-6)
        labels = None if ignored is None else [1, 2, 3]
        expected = jaccard_score(truth.ravel(), guess.ravel(), average="macro", labels=labels, zero_division=0)
        assert score_as("sklearn", counts, ignored) == pytest.approx(expected, abs=1e-12)
    measures = itk.LabelOverlapMeasuresImageFilter()
    measures.Execute(itk.GetImageFromArray(truth), itk.GetImageFromArray(guess))
    assert score_as("simpleitk", counts, 0) == pytest.approx(measures.GetJaccardCoefficient(), abs=1e-12)


def test_the_command(tmp_path: Path, engine: Callable[..., Result]) -> None:
    truth, guess = drawn(3)
    np.save(tmp_path / "y.npy", truth.reshape(3, 5, 8))
    np.save(tmp_path / "m.npy", guess.reshape(3, 5, 8))
    given = ("evaluate", tmp_path / "m.npy", "--labels", tmp_path / "y.npy", "--classes", 4)
    done = engine(*given, "--as", "monai", "--json")
    expected = score_as("monai", confusion_matrices(truth, guess, 4), 0)
    assert json.loads(done.out)["as"] == {"library": "monai", "miou": pytest.approx(expected, abs=1e-5)}
    shown = engine(*given, "--as", "monai").out
    assert f"as monai.metrics.MeanIoU(include_background=False): {expected:.4f}" in " ".join(shown.split())
    for more, told in (
        (("--as", "scipy"), "allowed are keras"),
        (("--as", "smp"), "add --ignored-class none"),
        (("--as", "monai", "--ignored-class", 1), "ignores class 0 alone"),
    ):
        refused = engine(*given, *more)
        assert (refused.code, refused.err.count("\n"), told in refused.err) == (2, 1, True), refused.err


def test_nothing_to_score_is_no_number() -> None:
    nothing = np.zeros((2, 3, 3), np.int64)
    for name in LIBRARIES:
        value = score_as(name, nothing, None if not LIBRARIES[name].ignoring else 0)
        assert value == 1 if name.startswith("smp") else math.isnan(value) or value == 0
    with pytest.raises(PlanError, match="allowed are"):
        score_as("numpy", nothing, None)
