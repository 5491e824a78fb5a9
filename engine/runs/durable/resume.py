"""What ``--resume`` finds: what a run that was cut off has left, or that there is nothing left to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError, OutputError
from engine.outputs.sidecar import HASH_KEY, MOST_BYTES, NPZ_KEY, sidecar
from engine.runs.durable.journal import read_journal
from engine.runs.durable.lock import is_locked
from engine.runs.provenance import INPUT_KEY
from engine.utils import console

JOURNAL = "journal"


def run_folder(output: Path) -> Path:
    """Return the folder of the run that writes an output."""
    return output.with_name(f".{output.name}.run")


def incomplete_output(output: Path) -> Path:
    """Return where the masks go when some images had to be left out: never under the name of the whole set."""
    return output.with_name(f"incomplete-{output.name}")


def skipped_list(output: Path) -> Path:
    """Return where the images that were left out are listed, a line each: index, id, reason."""
    return output.with_name(f"{output.name}.skipped.txt")


def read_skipped(output: Path) -> list[tuple[int, str, str]]:
    """Return (index, id, reason) of the images that are missing in the result beside an output.

    Raises:
        OSError: their list cannot be read.
        OutputError: it is none.
    """
    rows = [line.split("\t", 2) for line in skipped_list(output).read_text("utf-8").splitlines()[1:]]
    if not all(len(row) == 3 and row[0].isdecimal() for row in rows):
        raise OutputError(f"{skipped_list(output)} is no list of skipped images: remove it and run again")
    return [(int(index), name, reason) for index, name, reason in rows]


@dataclass(frozen=True)
class InterruptedRun:
    """What a run that was cut off left.

    Attributes:
        output: the output it was to write.
        header: the journal's first entry.
        done: how many images, or tiles of scenes, are finished.
        placing: whether the output was about to be put in its place, or had just been.
    """

    output: Path
    header: Mapping[str, Any]
    done: int
    placing: bool

    def refusal(self) -> OutputError:
        """Return the error that tells of it and of what can be done about it."""
        noun = "tiles" if "tiles" in self.header else "images"
        return OutputError(
            f"a run that writes {self.output} was cut off; {self.done:,} of {self.header[noun]:,} {noun} are kept: add "
            f"--resume to go on, or remove {run_folder(self.output)}"
        )


def left_over(output: Path) -> InterruptedRun | None:
    """Return what a run that was cut off left beside an output; None when there is nothing.

    Raises:
        OutputError: another process is at work on this output, or the journal is there and cannot be read.
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
            f"cannot read {folder / JOURNAL} ({error.strerror or error}): see to its rights and to the disk"
        ) from None
    return described(output, entries)


def described(output: Path, entries: list[dict[str, Any]]) -> InterruptedRun | None:
    """Return what the entries of a journal tell; None when there are none.

    Raises:
        OutputError: they are no journal of this program's.
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
    """Return how many images (those that were skipped among them) or tiles the journal entry of a shard stands for."""
    if "tiles" in entry:
        return int(entry["tiles"])
    return int(entry["outcome"]["images"]) + len(entry["outcome"]["skipped"])


def may_replace(output: Path, resume: bool, overwrite: bool) -> bool:
    """Return whether outputs that are there may be replaced.

    An output that is there beside what a run has left is that run's own, cut off after it was put in its place. One
    without is looked at once the members are known: it may be complete.

    Raises:
        OutputError: a run that was cut off has left something, and ``resume`` is not set.
    """
    left = left_over(output)
    if left is not None and not resume:
        raise left.refusal()
    begun = left is None or left.placing or bool(left.header.get("overwrite"))
    return overwrite or (resume and begun)


def is_complete(output: Path, header: Mapping[str, Any]) -> bool:
    """Return whether the output that is there is what this very run writes, so that nothing is left to do.

    Raises:
        OutputError: an output is there, and it is another run's.
    """
    if not output.exists():
        return False
    record = _record_of(output)
    same = all(
        record.get(key) == header.get(key) for key in ("maskfuse", HASH_KEY, "images", "tiling", INPUT_KEY, "output")
    )
    if not same:
        raise OutputError(f"{output} exists, and was made by another run: add --overwrite to replace it")
    return True


def nothing_left(output: Path, header: Mapping[str, Any], *others: Path) -> Path | None:
    """Tell on stderr what ``--resume`` finds where no run has left anything; return the output that is complete.

    Args:
        output: the output.
        header: what is run, see :func:`engine.runs.provenance.run_header`.
        others: further names under which the same run may have written its output.

    Returns:
        The first of these paths that is complete; None where there is something left to do.

    Raises:
        OutputError: an output is there, and it is another run's.
    """
    if run_folder(output).exists():
        return None
    for path in (output, *others):
        if is_complete(path, header):
            console.say(f"{path} is complete: nothing to resume")
            return path
    console.say("nothing to resume: starting with the first image")
    return None


def _record_of(output: Path) -> Mapping[str, Any]:
    """Return the record that goes with an output; empty where there is none that can be read."""
    path = sidecar(output)
    try:
        if path is not None:
            held = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_BYTES else None
        else:
            from engine.sources.numpy_files import array_files

            array = array_files(output).get(NPZ_KEY)
            if array is None or array.shape != () or array.dtype.itemsize > 4 * MOST_BYTES:
                return {}
            with np.load(output, allow_pickle=False) as archive:
                held = json.loads(archive[NPZ_KEY].item())
    except (OSError, ValueError, TypeError, RecursionError, InputError):
        return {}
    return held if isinstance(held, dict) else {}
