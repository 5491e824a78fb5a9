"""Compilation at first use is shared with a second process, and works without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from engine.fusion.compiling import compile_ahead, not_compiled
from engine.fusion.decoding import Decoding
from engine.fusion.fuse import fuse
from engine.fusion.strategies import STRATEGIES
from engine.fusion.strategies.task import Task
from engine.fusion.strategies.vote import _vote_packed

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
if sys.argv[1] == "early":
    first_use.begin_compiling({"mean-logit", "borda"}, first_use.Wanted(5, frozenset({0})))
first_use.compile_kernels({"mean-logit", "borda"}, 5, {0})
from engine.fusion.strategies.borda import _borda
from engine.fusion.strategies.mean_logit import _mean_logit
hits = [sum(kernel.stats.cache_hits.values()) for kernel in (_mean_logit, _borda)]
print(not_compiled(["mean-logit", "borda"]), sorted(hits) == [0, 1])
"""


@pytest.mark.parametrize(("how", "loaded"), [("shared", True), ("early", True), ("alone", False)])
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


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_nothing_is_left_to_compile_where_classes_are_suppressed() -> None:
    compile_ahead(["vote"], 4, {1})
    before = len(_vote_packed.signatures)
    logits = np.random.default_rng(1).normal(size=(3, 2, 4, 50)).astype(np.float32)
    for suppress in ((), (1,)):
        fuse(logits, "vote", None, Decoding(frozenset(suppress)))
    assert len(_vote_packed.signatures) == before
