"""The search of the loss mix: pruning, interruption, resumption, and one real fold."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ModelError, PlanError
from tests.conftest import Result
from tests.trainers.conftest import tiles
from trainers.cli import app
from trainers.config import FitConfig
from trainers.cross_validate import TABLE, CrossValidation, expression, table

pytest.importorskip("optuna", reason="needs the train extra")

Fold = Callable[[CrossValidation, str, int], float]


@pytest.fixture
def config(tmp_path: Path) -> FitConfig:
    data = tiles(12, size=(16, 32))
    np.savez(tmp_path / "d.npz", images=data.images, labels=data.labels, groups=data.groups)
    return FitConfig(
        arch="unet",
        data=str(tmp_path / "d.npz"),
        out=str(tmp_path / "study" / "candidate.keras"),
        preset="tiny",
        options=("depth=1",),
        epochs=1,
        batch_size=8,
        folds=3,
    )


def pretend(monkeypatch: pytest.MonkeyPatch, fold: Fold) -> list[tuple[str, int]]:
    """Put a function in the place of the training of a fold, and return the list of its calls."""
    calls: list[tuple[str, int]] = []

    def score(self: CrossValidation, loss: str, number: int) -> float:
        calls.append((loss, number))
        return fold(self, loss, number)

    monkeypatch.setattr(CrossValidation, "_fold", score)
    return calls


class Killed(BaseException):
    """The end of the process as Optuna sees it: not at all."""


def dice_wins(_: CrossValidation, loss: str, fold: int) -> float:
    return (0.6 if loss == "dice" else 0.1 if loss == "boundary" else 0.4) + 0.01 * fold


def test_the_single_losses_come_first_and_the_best_stands_on_top(
    config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boundary misses the threshold in its first fold and is trained no further."""
    calls = pretend(monkeypatch, dice_wins)
    study = CrossValidation(config, tmp_path / "study", trials=5, threshold=0.3)
    study.run()
    assert [loss for loss, fold in calls if fold == 0][:3] == ["dice", "boundary", "focal"]
    assert [fold for loss, fold in calls if loss == "boundary"] == [0]
    found = study.candidates()
    assert len(found) == 5
    assert (found[0].loss, found[0].scores, found[0].state) == ("dice", pytest.approx((0.6, 0.61, 0.62)), "complete")
    assert found[0].mean == pytest.approx(0.61)
    stopped = [one for one in found if one.state == "stopped"]
    assert [one.loss for one in stopped] == ["boundary"]
    assert found[-1] is stopped[0]
    rows = list(csv.DictReader((tmp_path / "study" / TABLE).open()))
    assert [row["loss"] for row in rows] == [one.loss for one in found]
    assert float(rows[0]["fold_2"]) == pytest.approx(0.62)
    text = table(found, 3)
    assert text.splitlines()[1].split()[:3] == ["0", "dice", "0.6100"]
    assert "boundary" in text
    assert text.splitlines()[-1].endswith("stopped")


@pytest.mark.parametrize("killed", [False, True])
def test_an_interruption_keeps_every_fold_and_the_search_goes_on(
    config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """By Ctrl-C, which Optuna notes as a failure, or by a kill, which it never hears of."""

    def interrupted(study: CrossValidation, loss: str, fold: int) -> float:
        if (loss, fold) == ("boundary", 2):
            raise Killed if killed else KeyboardInterrupt
        return dice_wins(study, loss, fold)

    calls = pretend(monkeypatch, interrupted)
    with pytest.raises(Killed if killed else KeyboardInterrupt):
        CrossValidation(config, tmp_path / "study", trials=4).run()
    assert calls[-1] == ("boundary", 2)
    half = CrossValidation(config, tmp_path / "study", trials=4)
    assert [(one.loss, len(one.scores), one.state) for one in half.candidates()] == [
        ("dice", 3, "complete"),
        ("boundary", 2, "unfinished"),
    ]
    rows = list(csv.DictReader((tmp_path / "study" / TABLE).open()))
    assert [row["state"] for row in rows] == ["complete", "unfinished"]

    calls = pretend(monkeypatch, dice_wins)
    half.run()
    assert ("dice", 0) not in calls, "a finished candidate was trained again"
    assert [fold for loss, fold in calls if loss == "boundary"] == [2], "a scored fold was trained again"
    found = half.candidates()
    assert len(found) == 4
    assert {one.state for one in found} == {"complete"}
    assert half.trials == len({one.loss for one in found})
    CrossValidation(config, tmp_path / "study", trials=4).run()
    assert len(calls) == 1 + 3 + 3


def test_a_loss_that_became_infinite_stops_its_candidate_alone(
    config: FitConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(study: CrossValidation, loss: str, fold: int) -> float:
        if loss == "focal":
            raise ModelError("the training loss became nan in epoch 1")
        return dice_wins(study, loss, fold)

    pretend(monkeypatch, broken)
    study = CrossValidation(config, tmp_path / "study", trials=3)
    study.run()
    assert {one.loss: one.state for one in study.candidates()}["dice"] == "complete"
    assert len(study.candidates()) == 3


def test_one_real_candidate_from_the_command_line(
    call: Callable[..., Result], config: FitConfig, tmp_path: Path
) -> None:
    """All runs of a fold are trained; the folder holds the study and the table, and no network."""
    options = ("cross-validate", "unet", "--data", config.data, "--preset", "tiny", "--option", "depth=1")
    options += ("--epochs", 1, "--batch-size", 8, "--folds", 2, "--trials", 1, "--out", tmp_path / "study")
    done = call(app, *options)
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].split()[1] == "dice"
    rows = list(csv.DictReader((tmp_path / "study" / TABLE).open()))
    assert all(0 <= float(rows[0][f"fold_{fold}"]) <= 1 for fold in range(2))
    assert sorted(item.suffix for item in (tmp_path / "study").iterdir() if item.is_file()) == [".csv", ".log"]
    other = call(app, *options, "--seed", 4)
    assert other.code == 2
    assert "contains the study of another run" in other.err


def test_refusals(config: FitConfig, tmp_path: Path, call: Callable[..., Result]) -> None:
    for options, message in (
        ({"search": "sizes"}, "choose one of losses"),
        ({"threshold": 1.5}, "run from 0 to 1"),
    ):
        with pytest.raises(PlanError, match=message):
            CrossValidation(config, tmp_path / "study", **options)  # type: ignore[arg-type]
    arguments = ("cross-validate", "unet", "--data", config.data, "--out", tmp_path / "study", "--loss", "dice")
    result = call(app, *arguments)
    assert result.code == 2
    assert "leave --loss out" in result.err
    assert not (tmp_path / "study").exists()


def test_weights_become_shares() -> None:
    assert expression({"dice": 0.5, "boundary": 0.0, "focal": 0.25}) == "0.67*dice+0.33*focal"
    assert expression({"dice": 0.0, "boundary": 0.0, "focal": 0.3}) == "focal"
    assert expression({"dice": 0.0, "boundary": 0.0, "focal": 0.0}) == "dice"
    assert expression({"dice": 1.0, "boundary": 0.004, "focal": 0.0}) == "dice"
