"""The files of a run over the report's systems."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.findings.systems import System


@dataclass(frozen=True)
class Place:
    """The files of a run of this script.

    Attributes:
        runs: the folder.
        data: training tiles without outliers.
        groups: panorama of each tile of the original file; None for a random split.
        images: the file whose test images get pseudo-labels.
        quick: tiny networks, one epoch, few tiles.
        preset: size of the networks.
    """

    runs: Path
    data: Path
    groups: Path | None
    images: Sequence[Path]
    quick: bool
    preset: str

    @property
    def validation(self) -> Path:
        """Return the validation tiles of the fold that all systems share."""
        found = sorted(self.runs.glob("*.validation.npz")) + sorted(self.runs.glob("*/k0.validation.npz"))
        if not found:
            sys.exit(f"no network in {self.runs} is trained yet: omit --only, or train one first")
        return found[0]

    def network(self, system: System) -> Path:
        """Return the Keras archive of a system; of a set, the first one."""
        return self.runs / system.name / "k0.keras" if system.is_set else self.runs / f"{system.name}.keras"

    def onnx(self, system: System) -> Path:
        """Return the exported file of a system."""
        return self.runs / f"{system.name}.onnx"
