"""The basis of resumable runs: a folder beside the output with a lock, a journal and shards of finished labels.

Beside ``masks.csv`` the folder ``.masks.csv.run`` contains, during the run:

- ``lock``: held by the one process that writes this output;
- ``journal``: a first entry that identifies the run (plan, members, input, by hash), then one entry per finished shard;
- ``00000000.labels`` and so on: finished labels, in order.

A shard is on disk before its entry, so every shard in the journal is complete. The folder is removed once the output is
in place and on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, InputChangedError, OutputError
from engine.runs.durable.journal import Journal, read_journal
from engine.runs.durable.lock import NAME, Lock
from engine.runs.durable.resume import (
    JOURNAL,
    InterruptedRun,
    consumed,
    described,
    incomplete_output,
    run_folder,
    skipped_list,
)
from engine.runs.durable.same_run import check_same_run
from engine.runs.durable.shards import Shard, is_whole, shard_path
from engine.utils import console
from engine.utils.files import clear_left_over, sync_folder, sync_output


class Checkpoint(ABC):
    """One run on one output: seals finished work, and restores it.

    Use it as a context manager. An error or an interruption seals and keeps finished work once a first shard is
    full; before that nothing is kept.

    Attributes:
        output: the output.
        folder: the folder of the shards.
        noun: the unit that is counted.
    """

    noun = "images"

    def __init__(self, output: Path, header: Mapping[str, Any], resume: bool) -> None:
        """Take the lock on the output and determine what is finished.

        Args:
            output: the output.
            header: identifies the run, see :func:`engine.runs.provenance.run_header`.
            resume: continue an interrupted run.

        Raises:
            OutputError: another run writes this output, an interrupted run was found and ``resume`` is not set, or the
                disk refuses.
            PlanError: the interrupted run was a different one.
        """
        self.output, self.folder = output, run_folder(output)
        self._shards: list[dict[str, Any]] = []
        self._shard: Shard | None = None
        try:
            self._lock = Lock(self.folder)
            entries: list[dict[str, Any]] = []
            try:
                entries, ends = read_journal(self.folder / JOURNAL)
                self._open(entries, ends, header, resume)
            except BaseException:
                if not entries:
                    self._empty()
                self._lock.close(remove=not entries)
                raise
        except OSError as error:
            raise self._refused(error) from None
        self._since = monotonic()
        self._begin()

    @abstractmethod
    def _bytes(self, entry: Mapping[str, Any]) -> int:
        """Return the size of the shard of a journal entry."""

    @abstractmethod
    def _adopt(self, entry: Mapping[str, Any], number: int) -> None:
        """Count the content of a shard as finished."""

    @abstractmethod
    def _begin(self) -> None:
        """Start counting for the next shard."""

    @abstractmethod
    def _entry(self) -> dict[str, Any]:
        """Return the journal entry of the shard that is being sealed."""

    def _open(self, entries: list[dict[str, Any]], ends: list[int], header: Mapping[str, Any], resume: bool) -> None:
        left: InterruptedRun | None = described(self.output, entries)
        if left is not None:
            if not resume:
                raise left.refusal()
            check_same_run(self.output, left.header, header)
        size = self._take_over(entries, ends)
        for path in (self.output, incomplete_output(self.output), skipped_list(self.output)):
            clear_left_over(path, "partial")
        self._journal = Journal(self.folder / JOURNAL, size)
        if left is None:
            self._journal.append(header)
            sync_folder(self.folder)

    def _take_over(self, entries: list[dict[str, Any]], ends: list[int]) -> int:
        """Keep the complete shards, up to the first that is not; return the bytes of the journal to keep."""
        size = ends[0] if ends else 0
        for entry, end in zip(entries[1:], ends[1:], strict=True):
            if "shard" in entry:
                number = len(self._shards)
                if not is_whole(shard_path(self.folder, number), self._bytes(entry), entry["shard"]):
                    break
                self._shards.append(entry)
                self._adopt(entry, number)
            size = end
        keep = {JOURNAL, NAME, *(shard_path(self.folder, number).name for number in range(len(self._shards)))}
        for path in self.folder.iterdir():
            if path.name not in keep:
                path.unlink()
        return size

    @property
    def done(self) -> int:
        """Return how many images (or tiles) are in sealed shards, including skipped ones."""
        return sum(map(consumed, self._shards))

    def _write(self, labels: NDArray[np.uint8]) -> Shard:
        """Append labels to the shard that is being filled, and return it."""
        try:
            if self._shard is None:
                self._shard = Shard(shard_path(self.folder, len(self._shards)))
            self._shard.write(labels)
        except OSError as error:
            raise self._refused(error) from None
        return self._shard

    def seal(self) -> None:
        """Flush recorded labels to disk, completely.

        Raises:
            OutputError: the disk refuses.
        """
        if self._shard is None:
            return
        try:
            entry = {"shard": self._shard.seal(), **self._entry()}
            sync_folder(self.folder)
            self._journal.append(entry)
        except OSError as error:
            # It may be closed by now: do not try again.
            self._drop()
            raise self._refused(error) from None
        self._shards.append(entry)
        self._shard, self._since = None, monotonic()
        self._begin()

    def placing(self) -> None:
        """Record that the output is about to be moved into place, in case of a kill before :meth:`finish`."""
        try:
            self.seal()
            self._journal.append({"placing": True})
        except OSError as error:
            raise self._refused(error) from None

    def finish(self, output: Path) -> None:
        """Remove the shards once the output is in place; it is flushed to disk first.

        Args:
            output: path of the output; not the requested name if images are missing from it.

        Raises:
            OutputError: the disk refuses.
        """
        try:
            sync_output(output)
            clear_left_over(output, "replaced")
            self._journal.close()
            self._empty()
            self._lock.close(remove=True)
        except OSError as error:
            raise self._refused(error) from None

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep finished work once a first shard is full, else nothing; the error message says so.

        Of an input that was changed meanwhile nothing is kept.
        """
        if isinstance(error, InputChangedError):
            self._drop()
            self._shards = []
        self.keep()
        self._journal.close()
        if error is None or self._shards:
            self._lock.close()
        else:
            self._empty()
            self._lock.close(remove=True)
        if self._shards and isinstance(error, EngineError):
            error.args = (f"{error}; {self.kept()}",)

    def keep(self) -> None:
        """Seal finished work once a first shard is full; what cannot be sealed is dropped."""
        try:
            if self._shards:
                self.seal()
        except EngineError:
            pass  # the disk may be the cause of the error; what was sealed before stays
        self._drop()

    def _drop(self) -> None:
        if self._shard is not None:
            self._shard.drop()
            self._shard = None

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Keep finished work when the user or the system ends the run within the context, and report it."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self.keep()
            if self.done:
                console.say(self.kept())
            raise

    def kept(self) -> str:
        """Return what is kept of an unfinished run."""
        return f"{self.done:,} {self.noun} are kept in {self.folder}: go on with --resume"

    def _empty(self) -> None:
        """Remove all but the lock; the journal last, so that the folder can be identified after a kill."""
        for path in self.folder.iterdir():
            if path.name not in (JOURNAL, NAME):
                path.unlink()
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot write {self.output} ({error.strerror or error}): choose another place or make space"
        )
