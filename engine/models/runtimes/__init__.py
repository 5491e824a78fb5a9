"""What runs a net: one small protocol, and the runtimes that keep it.

A session is opened once and shared by all workers; each call runs on the calling thread's share of the machine (one
core), because batches side by side were measured faster than threads inside a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError

RUNTIMES = ("auto", "onnxruntime", "openvino")
PROVIDERS = ("auto", "cuda", "tensorrt", "cpu")
# What arithmetic is allowed: each name allows itself and all before it.
PRECISIONS = ("float32", "bf16", "int8")


class Session(Protocol):
    """One ONNX file, opened in one runtime.

    Attributes:
        runtime: ``onnxruntime`` or ``openvino``.
        provider: ``cpu``, ``cuda`` or ``tensorrt``.
        precision: the least precise arithmetic it was told to use; ``float32`` unless the user allowed less.
        path: the file it runs.
        input_name: the input that takes the images.
        constants: the values of all other inputs.
    """

    runtime: str
    provider: str
    precision: str
    path: Path
    input_name: str
    constants: dict[str, NDArray[Any]]

    def feed(self, input_name: str, constants: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Name the input that takes the images, and the values of all others; called before the first run."""

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


AnySession = TypeVar("AnySession", bound=Session)


@dataclass(frozen=True)
class RuntimeOptions:
    """What the user allows to run the nets.

    Attributes:
        provider: a name out of :data:`PROVIDERS`.
        runtime: a name out of :data:`RUNTIMES`; ``auto`` takes the fastest by measurement.
        precision: a name out of :data:`PRECISIONS`.
    """

    provider: str = "auto"
    runtime: str = "onnxruntime"
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Refuse names that do not exist and combinations that no runtime offers.

        Raises:
            PlanError: listing what is allowed.
        """
        for option, value, allowed in (
            ("provider", self.provider, PROVIDERS),
            ("runtime", self.runtime, RUNTIMES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in allowed:
                raise PlanError(f"unknown {option} {value!r}; allowed are {', '.join(allowed)}")
        if self.runtime == "openvino" and self.provider in ("cuda", "tensorrt"):
            raise PlanError(f"--runtime openvino runs on the CPU, --provider is {self.provider}: drop one of the two")

    def allows(self, precision: str) -> bool:
        """Return whether arithmetic of this precision may be used."""
        return PRECISIONS.index(precision) <= PRECISIONS.index(self.precision)


def fed_alike(session: AnySession, other: Session) -> AnySession:
    """Return a session that takes images and constants as another one of the same file does."""
    session.feed(other.input_name, other.constants)
    return session


def padded(prepared: NDArray[Any], batch: int) -> NDArray[Any]:
    """Return a batch filled up with zeros to ``batch`` images: compiled shapes stay fixed to the last batch."""
    if len(prepared) == batch:
        return prepared
    filled = np.zeros((batch, *prepared.shape[1:]), prepared.dtype)
    filled[: len(prepared)] = prepared
    return filled


def first_line(error: BaseException) -> str:
    """Return the first line of what a runtime complains about."""
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]
