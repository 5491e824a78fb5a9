"""The files of a run over the report's systems."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.findings.systems import FOLDS, System


@dataclass(frozen=True)
class Place:
    """The files of a run of this script.

    Attributes:
        runs: the folder.
        data: training tiles without outliers.
        groups: panorama of each tile of the original file; None for a random split.
        unlabelled: images without labels, for the student; None for those of the data's own test set.
        original: the data with the outliers in it.
        quick: tiny networks, one epoch, few tiles.
        preset: size of the networks.
        precision: what single networks are trained in; folds are trained in float32.
    """

    runs: Path
    data: Path
    groups: Path | None
    unlabelled: Path | None
    original: Path
    quick: bool
    preset: str
    precision: str = "float32"

    @property
    def plan(self) -> Path:
        """Return the plan of the selected ensemble."""
        return self.runs / "pool" / "ensemble.toml"

    @property
    def validation(self) -> Path:
        """Return the validation tiles of the fold that all systems share."""
        found = sorted(self.runs.glob("*.validation.npz")) + sorted(self.runs.glob("*/k0.validation.npz"))
        found += sorted(self.runs.glob("*/*-fold0.validation.npz"))
        if not found:
            sys.exit(f"no network in {self.runs} is trained yet: omit --only, or train one first")
        return found[0]

    def soft(self, fold: int | str) -> Path:
        """Return what the members' networks of a fold say of images without labels."""
        return self.runs / "soft" / f"fold{fold}.npz"

    @property
    def soft_labelled(self) -> Path:
        """Return what the members say of labelled tiles, each by the networks that were trained without it."""
        return self.runs / "soft" / "labelled.npz"

    def networks(self, system: System) -> list[Path]:
        """Return the Keras archives of a system: one, or those of its folds or classes."""
        if system.is_set:
            return [self.runs / system.name / f"k{number}.keras" for number in range(5)]
        if system.folded:
            return [self.runs / system.name / f"{system.arch}-fold{fold}.keras" for fold in range(FOLDS)]
        return [self.runs / f"{system.name}.keras"]

    def onnx(self, system: System) -> Path:
        """Return the exported file of a system; of folds that of the one whose tiles all systems are scored on."""
        return self.onnx_files(system)[0]

    def onnx_files(self, system: System) -> list[Path]:
        """Return the exported files of a system: those of its folds, or one."""
        if not system.folded:
            return [self.runs / f"{system.name}.onnx"]
        return [self.runs / "pool" / f"{system.name}-fold{fold}.onnx" for fold in range(FOLDS)]
