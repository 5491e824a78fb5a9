"""``engine report``: a run of ``engine compare`` as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.utils import console


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The .npz written by engine compare --out.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .html page to write.")] = Path("report.html"),
    everything: Annotated[
        bool, typer.Option("--all", help="Show every row, also those with the same scores as another one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
) -> None:
    """Make one self-contained page of a run: scores, speed, plots, members and the most informative tiles.

    The page needs no network and no other file. A run made without labels shows agreement, class
    shares and the most disputed tiles. Needs the extra named report (matplotlib and Jinja).

    Examples:
      engine compare -m models/ -i val.npz --labels val.npz --out run.npz

      engine report run.npz --out report.html
    """
    from engine.compare.report.command import report as write_report

    size = write_report(run, out, overwrite, everything)
    console.say(f"wrote {out}: {size / 1e6:.1f} MB, open it in any browser")
    names = ("--models", "MODELS", "--input", "IMAGES", "--labels", "TRUE_MASKS")
    console.say_next("engine", "select", *names, "--out", "ensemble.toml")
