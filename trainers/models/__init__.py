"""The architectures by name. A new one is one file, one line here, and it is tested with the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras

from engine.errors import PlanError
from trainers.models import one_class as _one_class
from trainers.models import unet as _unet
from trainers.models import unet_plus_plus as _unet_plus_plus


@dataclass(frozen=True)
class Architecture:
    """How to build one architecture.

    Attributes:
        build: the builder: (input_shape, classes, **options) to an uncompiled model.
        presets: options of each named size.
        specialist: True when the network puts out one map of log-odds.
    """

    build: Callable[..., keras.Model]
    presets: dict[str, dict[str, int]]
    specialist: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture(_unet.unet, _unet.PRESETS),
    "unet_plus_plus": Architecture(_unet_plus_plus.unet_plus_plus, _unet_plus_plus.PRESETS),
    "one_class": Architecture(_one_class.one_class, _one_class.PRESETS, specialist=True),
}


def architecture(name: str) -> Architecture:
    """Return an architecture by name.

    Raises:
        PlanError: there is none of that name; the message lists those there are.
    """
    if name not in ARCHITECTURES:
        raise PlanError(f"architecture: {name!r} is unknown; choose one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def build_model(
    name: str, preset: str = "base", *, input_shape: tuple[int, int, int], classes: int, **overrides: int | float
) -> keras.Model:
    """Build an architecture by name.

    Args:
        name: name of the architecture.
        preset: named size.
        input_shape: (height, width, channels) of an image.
        classes: number of classes; a specialist puts out one map whatever it is.
        **overrides: options of the builder that replace those of the preset.

    Returns:
        An uncompiled model of stock layers: float32 (B, H, W, channels) to logits float32 (B, H, W, maps).

    Raises:
        PlanError: name or preset are unknown.
        ModelError: the image's sides do not fit the depth.
    """
    found = architecture(name)
    if preset not in found.presets:
        raise PlanError(f"preset: {preset!r} is unknown for {name}; choose one of {', '.join(found.presets)}")
    options: dict[str, int | float] = {**found.presets[preset], **overrides}
    return found.build(input_shape=input_shape, classes=classes, **options)
