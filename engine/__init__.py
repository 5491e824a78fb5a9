"""maskfuse's engine: fuses the logits of ONNX segmentation nets into masks, at the speed of memory.

from engine import Ensemble

masks = Ensemble.open("models/").predict(images)  # uint8 (n, height, width)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import ContractError, EngineError, InputError, ModelError, OutputError, PlanError
from engine.version import VERSION as __version__

if TYPE_CHECKING:
    from engine.fusion.decoding import Decoding as Decoding
    from engine.fusion.strategies import STRATEGIES as STRATEGIES
    from engine.inference.ensemble import Ensemble as Ensemble
    from engine.metrics import CONVENTIONS as CONVENTIONS
    from engine.metrics import Score as Score
    from engine.models.contract import ModelContract as ModelContract

# The rest is imported when it is asked for: `engine --help` must not wait for numba.
_LAZY = {
    "CONVENTIONS": "engine.metrics",
    "Decoding": "engine.fusion.decoding",
    "Ensemble": "engine.inference.ensemble",
    "ModelContract": "engine.models.contract",
    "STRATEGIES": "engine.fusion.strategies",
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
