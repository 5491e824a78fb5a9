"""What a runtime is: the protocol of its sessions, and how it opens nets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Session(Protocol):
    """One ONNX file, opened in one runtime.

    Attributes:
        runtime: its name in :data:`RUNTIMES`, or the one its package gives it.
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        precision: the least precise arithmetic it was told to use; ``float32`` unless the user allowed less.
        path: the file it runs.
        input_name: the input that takes the images.
    """

    runtime: str
    provider: str
    precision: str
    path: Path
    input_name: str

    def run(self, output_name: str, prepared: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Run a batch; callable from several threads at once. A graph of a fixed batch size is run in groups.

        Args:
            output_name: the output to compute.
            prepared: (batch, ...) of the input's type, C-contiguous.
            out: where the result should go, C-contiguous; a runtime writes there when it can.

        Returns:
            ``out`` itself where it was written to, otherwise an array of the runtime's own.

        Raises:
            ModelError: the runtime fails.
        """

    def stop(self) -> None:
        """Make all runs under way, and all to come, fail soon: Ctrl-C must not wait for a large batch."""

    def resume(self) -> None:
        """Allow runs again after :meth:`stop`."""


@dataclass(frozen=True)
class Runtime:
    """How a runtime opens nets on the CPU.

    Attributes:
        open: (file, precision, threads that will run it at once) to a session. It raises ModelError for a file it
            cannot run, PlanError where its package is missing.
        part: how many images a net takes at a time, at most.
        precisions: returns the names out of :data:`PRECISIONS` that it computes in on this machine, the most careful
            first; ``int8`` is for files that are quantised.
        automatic: returns whether ``--runtime auto`` measures it too on this machine; of a package's it never does.
        on_gpu: whether ``--provider`` may choose a GPU for it.
    """

    open: Callable[[Path, str, int], Session]
    part: int = 4
    precisions: Callable[[], tuple[str, ...]] = lambda: ("float32",)
    automatic: Callable[[], bool] = lambda: False
    on_gpu: bool = False


def padded(prepared: NDArray[Any], batch: int) -> NDArray[Any]:
    """Return a batch filled up with zeros to ``batch`` images: compiled shapes stay fixed to the last batch."""
    if len(prepared) == batch:
        return prepared
    filled = np.zeros((batch, *prepared.shape[1:]), prepared.dtype)
    filled[: len(prepared)] = prepared
    return filled
