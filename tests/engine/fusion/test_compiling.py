"""Compilation at first use is shared with a second process, and works without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.fusion.compiling import not_compiled
from engine.fusion.strategies import STRATEGIES
from engine.fusion.strategies.task import Task

ROOT = Path(__file__).parents[3]
# The kernels that the second process compiled are loaded: each counts as a hit of the cache and not as a miss.
TRIAL = """
import sys
from engine.fusion import compiling as first_use
from engine.fusion.compiling import not_compiled
first_use.WORTH_SHARING = 2
first_use.available_cores = lambda: 2
if sys.argv[1] == "alone":
    first_use.sys.executable = "no-such-interpreter"
first_use.compile_kernels({"mean-logit", "borda"}, 5)
held = vars(sys.modules["engine.fusion.strategies.borda"])
kernels = [value for name, value in held.items() if hasattr(value, "stats") and name.startswith("_")]
print(not_compiled(["mean-logit", "borda"]), sum(sum(k.stats.cache_hits.values()) for k in kernels) > 0)
"""


@pytest.mark.parametrize(("how", "loaded"), [("shared", True), ("alone", False)])
def test_two_processes_compile_and_one_is_enough(how: str, loaded: bool, tmp_path: Path) -> None:
    place = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "0"}
    done = subprocess.run([sys.executable, "-c", TRIAL, how], env=place, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", str(loaded)]
    assert done.stderr == ""


def test_a_strategy_of_plain_numpy_needs_no_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(task: Task) -> None:
        task.labels[:] = task.logits.mean(0).argmax(1)

    monkeypatch.setitem(STRATEGIES, "plain", plain)
    assert not_compiled(["plain"]) == []
