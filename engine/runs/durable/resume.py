"""What ``--resume`` finds: an interrupted run, or nothing left to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import OutputError
from engine.runs.durable.journal import read_journal
from engine.runs.durable.lock import is_locked
from engine.runs.provenance import INPUT_KEY
from engine.sources.record import HASH_KEY, read_record
from engine.utils import console

JOURNAL = "journal"


def run_folder(output: Path) -> Path:
    """Return the folder of the run that writes an output."""
    return output.with_name(f".{output.name}.run")


def incomplete_output(output: Path) -> Path:
    """Return the path of the masks when some images were left out: never the name of the complete output."""
    return output.with_name(f"incomplete-{output.name}")


def skipped_list(output: Path) -> Path:
    """Return the path of the list of images left out, one per line: index, id, reason."""
    return output.with_name(f"{output.name}.skipped.txt")


def read_skipped(output: Path) -> list[tuple[int, str, str]]:
    """Return (index, id, reason) of the images missing from the incomplete result of an output.

    Raises:
        OSError: their list cannot be read.
        OutputError: it is not such a list.
    """
    rows = [line.split("\t", 2) for line in skipped_list(output).read_text("utf-8").splitlines()[1:]]
    if not all(len(row) == 3 and row[0].isdecimal() for row in rows):
        raise OutputError(f"{skipped_list(output)} is not a list of skipped images: remove it and run again")
    return [(int(index), name, reason) for index, name, reason in rows]


@dataclass(frozen=True)
class InterruptedRun:
    """An interrupted run.

    Attributes:
        output: the output that it was writing.
        header: the journal's first entry.
        done: how many images, or tiles of scenes, are finished.
        placing: whether the output was about to be moved into place, or had just been.
    """

    output: Path
    header: Mapping[str, Any]
    done: int
    placing: bool

    def refusal(self) -> OutputError:
        """Return the error that reports it and says what to do."""
        noun = "tiles" if "tiles" in self.header else "images"
        return OutputError(
            f"a run that writes {self.output} was interrupted; {self.done:,} of {self.header[noun]:,} {noun} are kept: "
            f"add --resume to continue, or remove {run_folder(self.output)}"
        )


def left_over(output: Path) -> InterruptedRun | None:
    """Return the interrupted run of an output; None if there is none.

    Raises:
        OutputError: another process writes this output, or the journal exists and cannot be read.
    """
    if not output.name or not run_folder(output).is_dir():
        return None
    folder = run_folder(output)
    holder = is_locked(folder)
    if holder:
        raise OutputError(f"{output} is being written by {holder}: wait for it, or choose another name")
    try:
        entries, _ = read_journal(folder / JOURNAL)
    except OSError as error:
        raise OutputError(
            f"cannot read {folder / JOURNAL} ({error.strerror or error}): check its permissions and the disk"
        ) from None
    return described(output, entries)


def recorded_runtime(output: Path) -> str:
    """Return the runtime that an interrupted or finished run of an output records, if not the default; else nothing.

    Raises:
        OutputError: as :func:`left_over`.
    """
    left = left_over(output)
    held: Any = (left.header if left is not None else read_record(output)).get("plan")
    held = held.get("arithmetic") if isinstance(held, dict) else None
    name = held.get("runtime") if isinstance(held, dict) else None
    return name if isinstance(name, str) else ""


def described(output: Path, entries: list[dict[str, Any]]) -> InterruptedRun | None:
    """Return the interrupted run described by the entries of a journal; None if there are none.

    Raises:
        OutputError: they are not a journal of this program.
    """
    if not entries:
        return None
    try:
        header = {**entries[0], **{key: int(entries[0][key]) for key in {"images", *entries[0]} & {"images", "tiles"}}}
        done = sum(consumed(entry) for entry in entries[1:] if "shard" in entry)
    except (KeyError, TypeError, ValueError):
        raise OutputError(f"{run_folder(output)} holds a journal of another kind: remove that folder") from None
    return InterruptedRun(output, header, done, any("placing" in entry for entry in entries))


def consumed(entry: Mapping[str, Any]) -> int:
    """Return how many images (including skipped ones) or tiles are in the shard of a journal entry."""
    if "tiles" in entry:
        return int(entry["tiles"])
    return int(entry["outcome"]["images"]) + len(entry["outcome"]["skipped"])


def may_replace(output: Path, resume: bool, overwrite: bool) -> bool:
    """Return whether existing outputs may be replaced.

    An existing output beside an interrupted run is that run's own, interrupted after the output was moved into place.
    Any other is checked once the members are known: it may be complete.

    Raises:
        OutputError: there is an interrupted run, and ``resume`` is not set.
    """
    left = left_over(output)
    if left is not None and not resume:
        raise left.refusal()
    begun = left is None or left.placing or bool(left.header.get("overwrite"))
    return overwrite or (resume and begun)


def is_complete(output: Path, header: Mapping[str, Any]) -> bool:
    """Return whether the existing output is the result of this same run, so that nothing is left to do.

    Raises:
        OutputError: there is an output of another run.
    """
    if not output.exists():
        return False
    record = read_record(output)
    same = all(
        record.get(key) == header.get(key)
        for key in ("maskfuse", HASH_KEY, "images", "tiling", "rle", INPUT_KEY, "output_ids", "output", "evidence")
    )
    if not same:
        raise OutputError(f"{output} exists, and was made by another run: add --overwrite to replace it")
    return True


def nothing_left(output: Path, header: Mapping[str, Any], *others: Path) -> Path | None:
    """Report on stderr what ``--resume`` finds if no run was interrupted; return the complete output.

    Args:
        output: the output.
        header: identifies the run, see :func:`engine.runs.provenance.run_header`.
        others: other names under which the same run may have written its output.

    Returns:
        The first of these paths that is complete; None if there is something left to do.

    Raises:
        OutputError: there is an output of another run.
    """
    if run_folder(output).exists():
        return None
    for path in (output, *others):
        if is_complete(path, header):
            console.say(f"{path} is complete: nothing to resume")
            return path
    console.say("nothing to resume: starting with the first image")
    return None
