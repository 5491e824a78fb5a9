"""The trained nets of the repository that other benchmarks run: of both architectures, none smaller than usual."""

from __future__ import annotations

from pathlib import Path

ZOO = Path(__file__).resolve().parents[1] / "zoo"
PLAN = ZOO / "ensemble.toml"
#: Four nets of two architectures; the first two were trained without the same fold.
FOUR = tuple(
    ZOO / f"{name}.onnx" for name in ("pan-zoo-fold0", "residual-zoo-fold0", "residual-zoo-fold1", "pan-zoo-fold1")
)
THREE = FOUR[:3]
#: Nets that were trained without fold 0.
WITHOUT_FOLD_0 = FOUR[:2]
