"""Matrices and scores of classes on the page, against scikit-learn, also with more classes than fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from engine.compare.report.tables import MOST_SIDES, SHADES, agreement, class_rows, confusion
from engine.compare.result import Facts
from tests.engine.compare.report.test_page import hostile_run

DRAW = np.random.default_rng(4)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return hostile_run(tmp_path_factory.mktemp("tables")).facts


def counted(facts: Facts, classes: int) -> tuple[Facts, np.ndarray, np.ndarray]:
    """The same run with labels of so many classes; the last is never true."""
    truth = DRAW.integers(0, classes - 1, 4000)
    guess = np.where(DRAW.random(4000) < 0.6, truth, DRAW.integers(0, classes, 4000))
    counts = confusion_matrix(truth, guess, labels=range(classes)).tolist()
    row = replace(facts.rows[0], confusion=counts)
    return replace(facts, rows=[row], classes=[f"c{index}" for index in range(classes)]), truth, guess


def test_shares_of_each_true_class(facts: Facts) -> None:
    many, truth, guess = counted(facts, 21)
    found = confusion(many, many.rows[0])
    expected = 100 * confusion_matrix(truth, guess, labels=range(21), normalize="true")
    assert [index for index, _ in found.down] == list(range(20))
    assert [index for index, _ in found.across] == list(range(21))
    for (y, x), value in np.ndenumerate(expected[:20]):
        cell = found.cells[y][x]
        assert cell.text == (f"{value:.0f}" if value >= 0.5 else "")
        assert cell.shade == round(SHADES * value / 100)
        assert cell.told == f"{value:.2f}% of c{y} predicted as c{x}"


def test_more_classes_than_fit(facts: Facts) -> None:
    many, truth, _ = counted(facts, 60)
    found = confusion(many, many.rows[0])
    assert (len(found.across), found.left_out) == (MOST_SIDES, 60 - MOST_SIDES)
    kept = {index for index, _ in found.across}
    pixels = np.bincount(truth, minlength=60)
    assert min(pixels[list(kept)]) >= max(pixels[[index for index in range(60) if index not in kept]])


def test_scores_of_classes_are_those_of_scikit_learn(facts: Facts) -> None:
    many, truth, guess = counted(facts, 6)
    rows = class_rows(many, [many.rows[0], many.rows[0]])
    assert many.ignored_class == 0
    assert [row.index for row in rows] == [1, 2, 3, 4, 5]
    seen = truth != 0
    p, r, f, _ = precision_recall_fscore_support(truth[seen], guess[seen], labels=range(6), zero_division=np.nan)
    for row in rows:
        np.testing.assert_allclose([row.precision, row.recall, row.dice], [p[row.index], r[row.index], f[row.index]])
        np.testing.assert_allclose(row.share, (truth[seen] == row.index).mean())
        np.testing.assert_allclose(row.iou, [row.dice / (2 - row.dice)] * 2)


def test_agreement_of_members(facts: Facts) -> None:
    found = agreement(facts)
    assert [name for _, name in found.down] == [member.name for member in facts.members]
    assert [[cell.text for cell in line] for line in found.cells] == [
        [f"{100 * value:.0f}" if value >= 0.005 else "" for value in line] for line in facts.agreement
    ]
    assert found.cells[0][0].shade == SHADES
