"""The trained nets of the repository that other benchmarks run: of both architectures, none smaller than usual."""

from __future__ import annotations

import tomllib
from pathlib import Path

ZOO = Path(__file__).resolve().parents[1] / "zoo"
PLAN = ZOO / "ensemble.toml"
_ONE, _OTHER = (member["folds"] for member in tomllib.loads(PLAN.read_text("utf-8"))["members"][:2])
#: Four nets of two architectures; the first two were trained without the same fold.
FOUR = tuple(ZOO / name for name in (_ONE[0], _OTHER[0], _OTHER[1], _ONE[1]))
THREE = FOUR[:3]
#: Nets that were trained without fold 0.
WITHOUT_FOLD_0 = FOUR[:2]
