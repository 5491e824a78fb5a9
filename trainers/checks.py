"""What the training commands share: the architecture as an argument, refusals before Keras, the line of a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.names import ARCHITECTURES

if TYPE_CHECKING:
    from trainers.config import FitConfig
    from trainers.fit import FitResult

KNOWN = f"{', '.join(ARCHITECTURES[:-1])} or {ARCHITECTURES[-1]}"
Arch = Annotated[str, typer.Argument(help=f"Architecture: {KNOWN}.", show_default=False)]


def check_early(run: FitConfig, overwrite: bool, resume: bool) -> None:
    """Refuse what can be refused before Keras is imported, which takes seconds.

    Raises:
        EngineError: a name is unknown, a file is missing, or a result exists.
    """
    from trainers.data import check_npz
    from trainers.names import LOSSES, SPECIALIST_LOSSES, check_architecture, check_preset, parse_loss
    from trainers.records import refuse_results

    check_architecture(run.arch, run.class_id)
    check_preset(run.arch, run.preset)
    parse_loss(run.loss, LOSSES if run.class_id is None else SPECIALIST_LOSSES)
    for path in filter(None, (run.data, run.extra, run.soft)):
        check_npz(Path(path))
    if not resume:
        refuse_results(run, overwrite, resume)


def summary(result: FitResult) -> str:
    """Return the line of one finished network."""
    if result.raw != result.raw:  # NaN: nothing was held out
        return f"{result.path}: trained on all tiles, {result.seconds:.0f} s"
    return (
        f"{result.path}: raw {result.raw:.4f}, suppressed {result.suppressed:.4f} "
        f"at epoch {result.best_epoch}, {result.seconds:.0f} s"
    )
