"""Which execution provider truly works here: tried, not assumed.

A wheel built for CUDA lists CUDA on every machine, and a session that asks for it falls back to the CPU without
an error. So a provider counts as working once a session on it ran, and names it among its own providers.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from engine.errors import PlanError
from engine.models.runtimes import GRAPH_ON_CPU
from engine.models.runtimes.messages import reason_of
from engine.utils.console import silenced

# y = Identity(x), float32 (1,): the smallest model there is; test_providers.py says how it was made.
TRIAL = (
    b'\x08\x07:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
# Distributions that write the same package.
WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-training")
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@dataclass(frozen=True)
class Choice:
    """What runs the nets.

    Attributes:
        provider: ``cpu``, ``cuda``, ``tensorrt`` or ``cpu-graph``.
        told: one line for people: what was chosen, and why not the others; empty where the user chose.
    """

    provider: str
    told: str = ""


def choose_provider(requested: str) -> Choice:
    """Settle what ``--provider`` names.

    Args:
        requested: out of :data:`engine.models.runtimes.PROVIDERS`; ``auto`` takes CUDA where it works, else the CPU.
            TensorRT builds an engine for every net first, which takes minutes: it is used when it is asked for.

    Raises:
        PlanError: the provider asked for does not work here; never a silent fall to the CPU.
    """
    if requested in ("cpu", GRAPH_ON_CPU):
        return Choice(requested)
    if requested != "auto":
        reason = obstacle(requested)
        if reason:
            raise PlanError(f"--provider {requested} does not work here: {reason}; use --provider cpu, or auto")
        return Choice(requested)
    reason = obstacle("cuda")
    if reason:
        return Choice("cpu", f"provider cpu; not cuda or tensorrt: {reason}")
    other = obstacle("tensorrt")
    told = f"does not work here ({other})" if other else "only when asked for: it builds an engine a net first"
    return Choice("cuda", f"provider cuda; tensorrt {told}")


@cache
def mixed_wheels() -> str:
    """Return in one line which distributions of ONNX Runtime are installed at once; empty for one alone.

    All of them write the package ``onnxruntime``: the last one installed has overwritten files of the others, and to
    uninstall one takes files from the rest.
    """
    found = {}
    for name in WHEELS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if len(found) < 2:
        return ""
    listed = " and ".join(f"{name} {version}" for name, version in found.items())
    return (
        f"warning: {listed} are installed at once and overwrite each other's files: "
        f"pip uninstall -y {' '.join(found)}, then install one of them"
    )


@cache
def obstacle(provider: str) -> str:
    """Return why a provider does not work on this machine; empty where it does."""
    try:
        import onnxruntime
    except Exception as error:  # a broken installation raises whatever it likes
        return f"onnxruntime cannot be imported: {reason_of(error)}"

    from engine.models.runtimes.onnxruntime import NAMES

    if NAMES[provider] not in onnxruntime.get_available_providers():
        return "this onnxruntime was built without it (pip install onnxruntime-gpu)"
    if not has_driver():
        return f"no NVIDIA driver ({DRIVER} is not there)"
    try:
        with silenced(1, 2):
            return _trial(provider)
    except Exception as error:  # whatever a broken installation raises at import or at first use
        return f"it cannot be tried: {reason_of(error)}"


def has_driver() -> bool:
    """Return whether the library of the NVIDIA driver can be loaded."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def _trial(provider: str) -> str:
    """Run the trial model on a provider and return why that fails; empty where it works."""
    import numpy as np
    import onnxruntime

    from engine.models.runtimes.onnxruntime import NAMES, open_raw

    with contextlib.suppress(Exception):  # what it cannot load shows below
        onnxruntime.preload_dlls()  # finds the CUDA libraries that pip installed
    try:
        session = open_raw(TRIAL, provider)
        if NAMES[provider] not in session.get_providers():
            return f"its libraries cannot be loaded ({_needed(provider)})"
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:  # whatever the runtime and its libraries raise
        told = reason_of(error)
        return f"{told} ({_needed(provider)})" if "librar" in told or ".so" in told or ".dll" in told else told
    return ""


def _needed(provider: str) -> str:
    """Say which libraries the installed runtime was built for."""
    import onnxruntime

    version = str(getattr(onnxruntime, "cuda_version", "") or "")
    cuda = f"CUDA {version.partition('.')[0]}" if version else "CUDA of the version that it was built for"
    told = f"{onnxruntime.package_name} {onnxruntime.__version__} needs {cuda} and cuDNN: pip install 'maskfuse[cuda]'"
    return told if provider == "cuda" else f"{told}; and TensorRT for the same CUDA"
