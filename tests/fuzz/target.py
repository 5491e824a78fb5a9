"""What makes a function a fuzz target: inputs from strategies, few in CI, as many as fit into a time by hand."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coverage
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from tests.conftest import ROOT

# Of processor time, so that a busy machine gives no target fewer inputs.
SECONDS = float(os.environ.get("MASKFUSE_FUZZ_SECONDS", "0"))
# A folder for the figures of a long run, a file a target: `python -m benchmarks.reliability` makes a page of them.
FIGURES = os.environ.get("MASKFUSE_FUZZ_FIGURES", "")
FEW, MANY = 120, 500
# What a long run may take beyond what its first round took, in KiB.
MOST_GROWTH = 300_000
# No input may take longer, in seconds of this process's own time, and in seconds by the clock while it waits.
MOST_SECONDS, MOST_WAIT = 5.0, 60.0
# What the edges are counted in: the steps from line to line that the inputs took.
MEASURED = ["engine", "trainers"]
OURS = tuple(f"{ROOT / package}{os.sep}" for package in MEASURED)


class TooSlowError(AssertionError):
    """An input that takes too long."""


class Campaign:
    """One target: runs it, counts, and notes what it cost."""

    def __init__(self, function: Callable[..., None], few: int, strategies: dict[str, st.SearchStrategy[Any]]) -> None:
        """Take the function, its inputs without a long run, and the strategies of its arguments; nothing runs yet."""
        self.function, self.few, self.strategies = function, few, strategies
        self.executions, self.slowest, self.edges = 0, 0.0, 0
        # One entry for each line of ours that an unexpected error came through.
        self.findings: dict[str, str] = {}

    def run(self) -> None:
        """Give it a few inputs, then ever new ones for as long as was asked for.

        Raises:
            AssertionError: what the function asserts does not hold, an input takes too long, or memory grows.
        """
        self._long = False
        if not SECONDS:
            self._round(0, self.few)
            return
        self._long = True
        self._wall, self._cpu, self._before = time.monotonic(), time.process_time(), resident()
        self._peak, number = peak(), 0
        places = [f"{place}*" for place in OURS]
        lines = coverage.Coverage(data_file=None, config_file=False, branch=True, include=places, messages=False)
        lines.start()
        try:
            while time.process_time() < self._cpu + SECONDS:
                number += 1
                self._round(number, MANY)
                self._note()
            if peak() - self._peak >= MOST_GROWTH:
                self.findings["memory"] = f"memory grows by {peak() - self._peak} KiB"
        finally:
            lines.stop()
            taken = lines.get_data()
            self.edges = sum(len(taken.arcs(file) or ()) for file in taken.measured_files())
            print(f"\n{json.dumps(self._note())}")
        assert not self.findings

    def _round(self, number: int, examples: int) -> None:
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
        options = settings(max_examples=examples, deadline=None, suppress_health_check=checks, database=None)
        seed(number)(options(given(**self.strategies)(self._once)))()

    def _once(self, **arguments: Any) -> None:
        self.executions += 1
        began = time.process_time()
        watch(MOST_SECONDS)
        try:
            self.function(**arguments)
        except HypothesisException:
            raise
        except Exception as error:
            if not self._long:
                raise
            self._found(error, arguments)
        finally:
            watch(0)
        self.slowest = max(self.slowest, time.process_time() - began)

    def _found(self, error: Exception, arguments: dict[str, Any]) -> None:
        """Note an error and go on: one finding must not hide the next."""
        steps = traceback.extract_tb(error.__traceback__)
        last = next((step for step in reversed(steps) if step.filename.startswith(OURS)), steps[-1])
        place = f"{Path(last.filename).name}:{last.lineno}: {type(error).__name__}"
        if place not in self.findings:
            self.findings[place] = f"{place}: {error}"[:300]
            print(f"\n{self.findings[place]}\n{arguments!r}"[:3000], flush=True)

    def _note(self) -> dict[str, object]:
        told: dict[str, object] = {
            "target": self.function.__name__,
            "asked_seconds": SECONDS,
            "wall_seconds": round(time.monotonic() - self._wall, 1),
            "cpu_seconds": round(time.process_time() - self._cpu, 1),
            "executions": self.executions,
            "edges": self.edges,
            "slowest_seconds": round(self.slowest, 3),
            "resident_start_kib": self._before,
            "resident_end_kib": resident(),
            "peak_growth_kib": peak() - self._peak,
            "findings": list(self.findings.values()),
        }
        if FIGURES:
            Path(FIGURES).mkdir(parents=True, exist_ok=True)
            (Path(FIGURES) / f"{self.function.__name__}.json").write_text(json.dumps(told, indent=2) + "\n")
        return told


def target(
    few: int = FEW, before: Callable[[], object] = int, **strategies: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Turn a function of these inputs into a test.

    Args:
        few: how many inputs it gets where no long run is asked for.
        before: called first: what takes seconds once, such as compiling, is no slow input.
        strategies: one for each argument of the function.
    """

    def decorate(function: Callable[..., None]) -> Callable[[], None]:
        def run() -> None:
            before()
            Campaign(function, few, strategies).run()

        run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
        return run

    return decorate


def watch(seconds: float) -> None:
    """Let an input that hangs fail after so many seconds of processor time, or MOST_WAIT by the clock; 0 ends it."""
    if hasattr(signal, "setitimer"):
        for number, timer, most in (
            (signal.SIGPROF, signal.ITIMER_PROF, seconds),
            (signal.SIGALRM, signal.ITIMER_REAL, seconds and MOST_WAIT),
        ):
            signal.signal(number, _hangs if most else signal.SIG_IGN)
            signal.setitimer(timer, most)


def _hangs(number: int, frame: object) -> None:
    raise TooSlowError(f"an input takes more than {MOST_SECONDS if number == signal.SIGPROF else MOST_WAIT:g} s")


def resident() -> int:
    """Return the memory this process holds now, in KiB; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except OSError:
        return 0


def peak() -> int:
    """Return the most memory this process has held, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@st.composite
def spoilt(draw: st.DrawFn, *whole: bytes) -> bytes:
    """Sound files with bytes changed, cut out, doubled or cut off; now and then, bytes of no sense at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    held = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(held) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                held[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                held[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\0\0\0\x80", b"9999", b"-1,0"]))
            case 2:
                del held[at : at + draw(st.integers(1, 30))]
            case 3:
                held[at:at] = held[at : at + draw(st.integers(1, 30))]
            case _:
                del held[at:]
    return bytes(held)
