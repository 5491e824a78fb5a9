"""``engine report``: a run file in, one page out."""

from __future__ import annotations

from pathlib import Path

from engine.compare.report.page import render
from engine.compare.runfile import read_run
from engine.errors import OutputError, PlanError
from engine.outputs.open import check_replaceable
from engine.utils.boundary import refusing
from engine.utils.files import write_text


def report(run: Path, out: Path, overwrite: bool, everything: bool = False) -> int:
    """Write the page of a run.

    Args:
        run: the file written by ``engine compare --out``.
        out: the .html file to write; it appears complete or not at all.
        overwrite: whether to replace it.
        everything: show every row, also those with the same scores as another one.

    Returns:
        Its size in bytes.

    Raises:
        InputError: the run cannot be read or trusted.
        OutputError: the page cannot be written there.
        PlanError: a name without .html, or the packages of the extra ``report`` are missing.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise PlanError(f"--out {out}: the page is an .html file")
    if out.is_dir():
        raise OutputError(f"--out {out} is a folder: name an .html file")
    check_replaceable(out, overwrite)
    done = read_run(run)
    # What a changed file says may be of the right form and still be nothing that can be drawn.
    with refusing(lambda why: f"cannot draw {run} ({why}): run engine compare again", named=True):
        page = render(done, everything)
    # Bytes of file names that are not UTF-8 are shown as question marks.
    page = page.encode("utf-8", "replace").decode("utf-8")
    try:
        write_text(out, page)
    except OSError as error:
        raise OutputError(f"cannot write {out} ({error.strerror or error}): choose another place") from None
    return out.stat().st_size
