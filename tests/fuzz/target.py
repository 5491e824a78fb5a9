"""What makes a function a fuzz target: inputs from strategies, few in CI, as many as fit into a time by hand."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("MASKFUSE_FUZZ_SECONDS", "0"))
FEW, MANY = 120, 2000
# What a long run may take beyond what its first round took, in KiB.
MOST_GROWTH = 300_000
# No input may take longer, in seconds of this process's own time.
MOST_SECONDS = 5.0


def target(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Turn a function of these inputs into a test."""

    def decorate(function: Callable[..., None]) -> Callable[[], None]:
        def timed(**given: Any) -> None:
            timed.count += 1  # type: ignore[attr-defined]
            began = time.process_time()
            function(**given)
            assert time.process_time() - began < MOST_SECONDS, "an input that takes too long"

        timed.count = 0  # type: ignore[attr-defined]

        def rounds(number: int, examples: int) -> None:
            checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
            options = settings(max_examples=examples, deadline=None, suppress_health_check=checks, database=None)
            seed(number)(options(given(**strategies)(timed)))()

        def run() -> None:
            rounds(0, FEW)
            before, end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic() + SECONDS
            number = 0
            while time.monotonic() < end:
                number += 1
                rounds(number, MANY)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            if SECONDS:
                told = f"{timed.count:,} inputs in {SECONDS:,.0f} s, memory grew by {grown / 1024:.0f} MiB"  # type: ignore[attr-defined]
                print(f"\n{function.__name__}: {told}")
                assert grown < MOST_GROWTH

        run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
        return run

    return decorate


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
