"""Makes an ensemble ready to run: kernels compiled, provider and runtime chosen, batch size and workers settled."""

from __future__ import annotations

import sys

from engine.fusion.compiling import compile_kernels
from engine.models.runtimes import Wanted
from engine.pipeline import Ensemble
from engine.sources.base import Source
from engine.tuning import Settled, settle
from engine.utils import console


def make_ready(
    ensemble: Ensemble, images: Source | None, wanted: Wanted, batch_size: int = 0, workers: int = 0
) -> Settled:
    """Settle how an ensemble runs; on a terminal say at once what was chosen. Arguments, errors: :func:`settle`."""
    compile_kernels({ensemble.variant.strategy}, len(ensemble.classes))
    settled = settle(ensemble, images, wanted, batch_size, workers)
    if sys.stderr.isatty():
        _say(settled)
    return settled


def tell(settled: Settled) -> None:
    """Say behind the run what was chosen, where it was not said before: in a pipe an error stays the only line."""
    if not sys.stderr.isatty():
        _say(settled)


def _say(settled: Settled) -> None:
    for line in settled.told:
        console.say(line)
