"""How many examples a property test runs: set per test, scaled by the hypothesis profile."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numba
from hypothesis import HealthCheck, settings

#: Examples of a test without settings of its own; the profile ``long`` has more, and every test in proportion.
USUAL = 100
LONG = 20 * USUAL


def load_profile() -> None:
    """Load the profile that HYPOTHESIS_PROFILE names.

    ``fixed`` (the default) and ``ci`` run the same examples each time, ``long`` many random ones. None has a deadline:
    what a shared machine is slow at is no failure.
    """
    shared = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
    for name in ("fixed", "ci"):
        settings.register_profile(name, max_examples=USUAL, derandomize=True, **shared)
    settings.register_profile("long", max_examples=LONG, derandomize=False, **shared)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "fixed")


def examples(usual: int, interpreted: int | None = None, suppress: Sequence[HealthCheck] = ()) -> settings:
    """Return settings of so many examples, scaled as the profile scales :data:`USUAL`.

    Args:
        usual: examples in a usual run.
        interpreted: examples where numba's JIT is off and kernels are slow; by default as many.
        suppress: health checks to leave out, besides those of the profile.
    """
    count = usual if interpreted is None or not numba.config.DISABLE_JIT else interpreted
    profile = settings()
    checks = {*profile.suppress_health_check, *suppress}
    return settings(max_examples=count * profile.max_examples // USUAL, suppress_health_check=sorted(checks, key=str))
