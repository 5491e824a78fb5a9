"""Whether the bound of --unknown-risk holds: groups of real tiles, drawn again and again.

    MASKFUSE_MARS=mars/ python -m benchmarks conformal

MASKFUSE_MARS names the folder of mars_for_students.npz and train_groups.npz. The mean of two nets of the zoo is
fixed; each resampling deals the panoramas at random to calibration and test, computes the threshold on the former
(engine.scores.risk.control) and the risk on the latter. Panoramas dealt at random are exchangeable, so the expected
risk on the test panoramas is at most what was asked for. Twice: on those that the nets were not trained on, and on
all. Nets run once. Writes benchmarks/results/conformal.md.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import RESULTS, rows, write
from benchmarks.zoo_nets import WITHOUT_FOLD_0
from engine import Ensemble
from engine.fusion.doubt import DOUBTS
from engine.fusion.evidence import Evidence
from engine.scores.risk import STEPS, DoubtCounts, aurc, control, least_aurc
from engine.sources.base import from_array
from trainers.data import load
from trainers.folds import assign_folds
from trainers.outliers import clean

# The nets' fold of five: trainers fit --groups train_groups.npz --folds 5 --fold 0.
FOLDS, FOLD, SEED = 5, 0, 0
DRAWS = 200


@dataclass(frozen=True)
class Tiles:
    """Labelled tiles: uint8 images and labels (n, height, width), the panorama of each, and whether nets saw it."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    groups: NDArray[np.int64]
    seen: NDArray[np.bool_]


def load_tiles(folder: Path) -> Tiles:
    """Return the tiles that the nets were trained and validated on."""
    with tempfile.TemporaryDirectory() as temporary:
        cleaned = Path(temporary) / "cleaned.npz"
        clean(folder / "mars_for_students.npz", cleaned)
        data = load(cleaned, folder / "train_groups.npz")
    assert data.groups is not None
    seen = assign_folds(data.labels, data.groups, FOLDS, SEED, len(data.class_names)) != FOLD
    groups = np.unique(data.groups, return_inverse=True)[1].astype(np.int64)
    return Tiles(data.images[..., 0].astype(np.uint8), data.labels, groups, seen)


def count_doubt(tiles: Tiles) -> dict[str, DoubtCounts]:
    """Run the nets once; return the scored pixels of each tile by doubt, for every map of doubt."""
    ensemble = Ensemble.open(WITHOUT_FOLD_0, strategy="mean-prob")
    source = from_array(tiles.images, "images", "tiles")
    found: dict[str, list[DoubtCounts]] = {name: [] for name in DOUBTS}
    for batch in source.batches(8):
        logits, _ = ensemble.logits(batch)
        truth = tiles.labels[batch.start : batch.start + len(batch.ids)].reshape(len(batch.ids), -1)
        scored = (truth != ensemble.ignored_class) & (truth < len(ensemble.classes))
        for name in DOUBTS:
            asked = Evidence(doubt=name, doubt_type="float32")
            held = ensemble.explain(logits, ensemble.variant, batch.size, asked)
            assert held.shown.doubt is not None
            found[name].append(DoubtCounts.of(held.shown.doubt, held.labels != truth, scored))
    return {name: DoubtCounts.joined(parts) for name, parts in found.items()}


@dataclass(frozen=True)
class Held:
    """What became of a bound over all resamplings.

    Attributes:
        alpha: the risk that was asked for.
        calibration: groups that calibrated the threshold.
        test: groups that were left.
        risks: float64 (draws,), mean risk of the groups left.
        coverages: float64 (draws,), share of their scored pixels with a class.
    """

    alpha: float
    calibration: int
    test: int
    risks: NDArray[np.float64]
    coverages: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Return two standard deviations of the mean of as many coins that fall with probability alpha."""
        return 2 * math.sqrt(self.alpha * (1 - self.alpha) / len(self.risks))

    @property
    def holds(self) -> bool:
        """Return whether the mean risk is at most what was asked for, within the binomial error."""
        return float(self.risks.mean()) <= self.alpha + self.error


def resample(counts: DoubtCounts, alpha: float, calibration: int, draws: int) -> Held:
    """Deal groups to calibration and test, again and again; no threshold leaves every pixel unknown."""
    groups, risks = len(counts.pixels), counts.risks
    found, kept = np.zeros(draws), np.zeros(draws)
    for draw in range(draws):
        order = np.random.default_rng((SEED, draw)).permutation(groups)
        bound = control(counts.chosen(order[:calibration]), alpha)
        if bound is not None:
            place = round(bound.threshold * STEPS)
            found[draw] = risks[order[calibration:], place].mean()
            kept[draw] = counts.chosen(order[calibration:]).coverage[place]
    return Held(alpha, calibration, groups - calibration, found, kept)


def table(counts: DoubtCounts, plan: Sequence[tuple[float, int]], draws: int) -> tuple[str, bool]:
    """Return the rows of one set of groups, and whether every bound holds."""
    lines, holds = [], True
    for alpha, calibration in plan:
        held = resample(counts, alpha, calibration, draws)
        holds &= held.holds
        spread = float(held.risks.std(ddof=1)) / math.sqrt(draws)
        lines.append([
            f"{alpha:g}", held.calibration, held.test, f"{held.risks.mean():.4f} ± {2 * spread:.4f}",
            f"{alpha + held.error:.4f}", "yes" if held.holds else "NO", f"{held.coverages.mean():.1%}",
        ])  # fmt: skip
    head = ["risk asked for", "calibration panoramas", "test panoramas", "mean risk of these", "at most",
            "holds", "pixels with a class"]  # fmt: skip
    return rows(head, lines), holds


def measures(counts: dict[str, DoubtCounts], chosen: NDArray[np.bool_]) -> str:
    """Return the area under the risk-coverage curve of each map of doubt, and of the best order there is."""
    lines = []
    for name, held in counts.items():
        pixels, wrong = (side[chosen].sum(axis=0) for side in (held.pixels, held.wrong))
        lines.append([name, f"{float(aurc(pixels, wrong)):.4f}"])
    lines.append(["all wrong pixels last", f"{least_aurc(float(pixels.sum()), float(wrong.sum())):.4f}"])
    return rows(["map of doubt", "AURC"], lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mars", type=Path, default=os.environ.get("MASKFUSE_MARS"), help="folder of the real tiles")
    parser.add_argument("--draws", type=int, default=DRAWS)
    options = parser.parse_args()
    if options.mars is None:
        print("skipped: needs real tiles, name their folder with --mars or MASKFUSE_MARS")
        return 0
    tiles = load_tiles(options.mars)
    counts = count_doubt(tiles)
    new = ~tiles.seen
    own = np.unique(tiles.groups[new], return_inverse=True)[1]
    every = counts["entropy"].grouped(tiles.groups)
    unseen = counts["entropy"].chosen(np.flatnonzero(new)).grouped(own)
    few, few_hold = table(unseen, ((0.12, 8), (0.15, 8), (0.2, 8), (0.12, 10)), options.draws)
    many, many_hold = table(every, ((0.03, 40), (0.05, 20), (0.05, 40), (0.1, 40)), options.draws)
    sizes = (
        f"{len(unseen.pixels)} panoramas ({int(new.sum())} tiles)",
        f"{len(every.pixels)} panoramas ({len(new)} tiles)",
    )
    write(
        "conformal", "Does the bound of --unknown-risk hold?", "python -m benchmarks conformal",
        ("numpy", "onnxruntime-gpu"),
        f"Mean of {', '.join(net.stem for net in WITHOUT_FOLD_0)} (mean-prob), doubt: entropy, "
        f"{options.draws} seeded resamplings. Risk: share of a "
        "panorama's scored pixels that have a class, and a wrong one. At most: the risk asked for plus two standard "
        f"deviations of the mean of {options.draws} coins that fall with that probability, which vary no less.\n",
        f"## {sizes[0]} that the nets were not trained on\n\n{few}",
        f"## All {sizes[1]}, most of them trained on\n\n{many}",
        f"## Maps of doubt on the tiles that the nets were not trained on\n\n{measures(counts, new)}",
    )  # fmt: skip
    print((RESULTS / "conformal.md").read_text("utf-8"))
    return 0 if few_hold and many_hold else 1


if __name__ == "__main__":
    raise SystemExit(main())
