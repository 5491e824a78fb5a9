"""Training with plain Keras 3: data, networks, losses, and the loop that writes self-describing ``.keras`` files.

from trainers import build_model

model = build_model("unet", preset="small", input_shape=(64, 128, 1), classes=5)

The names below load on first use: importing the package costs nothing, and Keras comes in with the first of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ARCHITECTURES": "trainers.models",
    "FitConfig": "trainers.config",
    "build_model": "trainers.models",
    "make_loss": "trainers.losses",
}

__all__ = ["ARCHITECTURES", "FitConfig", "build_model", "make_loss"]


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trainers' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
