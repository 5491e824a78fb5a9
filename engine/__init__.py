"""maskfuse's engine: fuses the logits of ONNX segmentation nets into masks, at the speed of memory.

from engine import Ensemble

masks = Ensemble.open("models/").predict(images)  # uint8 (n, height, width)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ContractError, EngineError, InputError, ModelError, OutputError, PlanError
from engine.version import VERSION as __version__

if TYPE_CHECKING:
    from engine.contract import ModelContract as ModelContract
    from engine.decode import Decoding as Decoding
    from engine.metrics import CONVENTIONS as CONVENTIONS
    from engine.metrics import Score as Score
    from engine.pipeline import Ensemble as Ensemble
    from engine.strategies import STRATEGIES as STRATEGIES

# The rest is imported when it is asked for: `engine --help` must not wait for numba. The function of engine.fuse is no
# public name here: the module of that name, once imported, would take its place.
_LAZY = {
    "CONVENTIONS": "engine.metrics",
    "Decoding": "engine.decode",
    "Ensemble": "engine.pipeline",
    "ModelContract": "engine.contract",
    "STRATEGIES": "engine.strategies",
    "Score": "engine.metrics",
}

__all__ = [
    "CONVENTIONS",
    "STRATEGIES",
    "ContractError",
    "Decoding",
    "EngineError",
    "Ensemble",
    "InputError",
    "ModelContract",
    "ModelError",
    "OutputError",
    "PlanError",
    "Score",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, the same before and after any of them was used."""
    return sorted(__all__)
