"""What runs a net: one small protocol, and the runtimes that keep it.

A session is opened once and shared by all workers; each call runs on the calling thread's share of the machine (one
core), because batches side by side were measured faster than threads inside a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from engine.errors import ModelError, PlanError
from engine.models.runtimes.base import Runtime, Session
from engine.utils import plugins

# The module of each runtime, which holds it as RUNTIME; imported when it is asked for. A new one is one file and one
# line here.
RUNTIMES = {
    "onnxruntime": "engine.models.runtimes.onnxruntime",
    "openvino": "engine.models.runtimes.openvino",
}
# What opens every net first, and reads what it promises.
DEFAULT = "onnxruntime"
# The fastest by measurement of those that take part in it.
AUTO = "auto"
PROVIDERS = ("auto", "cuda", "tensorrt", "cpu", "cpu-graph")
# The graph that a GPU would run, on the CPU: to try it without a GPU.
GRAPH_ON_CPU = "cpu-graph"
# What arithmetic is allowed: each name allows itself and all before it.
PRECISIONS = ("float32", "fp16", "bf16", "int8")


def named_runtime(name: str) -> Runtime:
    """Return the runtime of that name: a built-in one, or one that another installed package adds.

    Raises:
        PlanError: there is none (the message lists the names), or the package that adds it is broken.
    """
    if name in RUNTIMES:
        found: Runtime = import_module(RUNTIMES[name]).RUNTIME
        return found
    if name not in plugins.added_names(plugins.RUNTIMES, (AUTO,)):
        allowed = plugins.listed(plugins.RUNTIMES, (AUTO, *RUNTIMES))
        raise PlanError(f"unknown runtime {name!r}; allowed are {allowed}")
    from engine.models.runtimes.added import added_runtime

    return added_runtime(name)


def fed_as(session: Session, first: Session) -> Session:
    """Return a session that is fed as the first one of the same net: the same input, the same constants.

    A runtime whose sessions have no method ``feed(input_name, constants)`` takes nets of one input alone.

    Raises:
        ModelError: the net has further inputs, and the runtime cannot fill them.
    """
    constants: Mapping[str, NDArray[Any]] = getattr(first, "constants", {})
    feed = getattr(session, "feed", None)
    if feed is not None:
        feed(first.input_name, constants)
    elif constants or session.input_name != first.input_name:
        raise ModelError(f"{session.path} has several inputs, which runtime {session.runtime} does not take")
    return session


def automatic_runtimes() -> list[str]:
    """Return the built-in runtimes that ``--runtime auto`` measures on this machine."""
    return [name for name in RUNTIMES if named_runtime(name).automatic()]


@dataclass(frozen=True)
class RuntimeOptions:
    """What the user allows to run the nets.

    Attributes:
        provider: a name out of :data:`PROVIDERS`.
        runtime: a name out of :data:`RUNTIMES`, or one that a package adds; ``auto`` takes the fastest by measurement.
        precision: a name out of :data:`PRECISIONS`.
        stated: whether the user named the runtime; where not, a long run may take one that is installed and faster.
    """

    provider: str = "auto"
    runtime: str = DEFAULT
    precision: str = "float32"
    stated: bool = True

    def __post_init__(self) -> None:
        """Refuse names that do not exist and combinations that no runtime offers.

        Raises:
            PlanError: listing what is allowed.
        """
        for option, value, allowed in (
            ("provider", self.provider, PROVIDERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in allowed:
                raise PlanError(f"unknown {option} {value!r}; allowed are {', '.join(allowed)}")
        if not self.on_gpu and self.provider in ("cuda", "tensorrt", GRAPH_ON_CPU):
            told = f"--runtime {self.runtime} runs on the CPU, --provider is {self.provider}"
            raise PlanError(f"{told}: drop one of the two")

    @property
    def on_gpu(self) -> bool:
        """Return whether the provider may choose a GPU."""
        return self.runtime == AUTO or named_runtime(self.runtime).on_gpu

    def allows(self, precision: str) -> bool:
        """Return whether arithmetic of this precision may be used."""
        return PRECISIONS.index(precision) <= PRECISIONS.index(self.precision)
