"""The architectures by name. A new one is one file, one line here, and it is tested with the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import keras

from engine.errors import PlanError
from trainers.models import double_unet as _double_unet
from trainers.models import one_class as _one_class
from trainers.models import pan as _pan
from trainers.models import residual_attention_unet as _residual_attention_unet
from trainers.models import transformer_unet as _transformer_unet
from trainers.models import unet as _unet
from trainers.models import unet_plus_plus as _unet_plus_plus
from trainers.names import check_name, check_preset


@dataclass(frozen=True)
class Architecture:
    """How to build one architecture.

    Attributes:
        build: the builder: (input_shape, classes, **options) to an uncompiled model.
        presets: options per named size.
        specialist: True if the network outputs one map of log-odds.
        heads: more logits of a built model that training may supervise: (model, classes) to tensors; None
            if there are none.
        always: these heads are trained unless the run says otherwise by its stage, not only on request.
        stages: parts that can be trained in sequence, or nothing.
        first: prefix of the layers' names of the first part.
    """

    build: Callable[..., keras.Model]
    presets: dict[str, dict[str, int]]
    specialist: bool = False
    heads: Callable[[keras.Model, int], list[keras.KerasTensor]] | None = None
    always: bool = False
    stages: tuple[str, ...] = ()
    first: str = ""

    @property
    def options(self) -> dict[str, int | float | bool]:
        """Return the options of the builder that a run may set by name, with their defaults."""
        known = inspect.signature(self.build).parameters.values()
        return {
            item.name: item.default for item in known if item.name not in _FIXED and not isinstance(item.default, str)
        }


#: What a run sets elsewhere.
_FIXED = ("input_shape", "classes", "dropout", "stage", "name")

ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture(_unet.unet, _unet.PRESETS),
    "unet_plus_plus": Architecture(
        _unet_plus_plus.unet_plus_plus, _unet_plus_plus.PRESETS, heads=_unet_plus_plus.deep_heads
    ),
    "pan": Architecture(_pan.pan, _pan.PRESETS),
    "double_unet": Architecture(
        _double_unet.double_unet,
        _double_unet.PRESETS,
        heads=_double_unet.first_logits,
        always=True,
        stages=_double_unet.STAGES,
        first=_double_unet.FIRST,
    ),
    "transformer_unet": Architecture(_transformer_unet.transformer_unet, _transformer_unet.PRESETS),
    "residual_attention_unet": Architecture(
        _residual_attention_unet.residual_attention_unet, _residual_attention_unet.PRESETS
    ),
    "one_class": Architecture(_one_class.one_class, _one_class.PRESETS, specialist=True),
}


def architecture(name: str) -> Architecture:
    """Return an architecture by name.

    Raises:
        PlanError: there is none of that name; the message lists the known ones.
    """
    check_name(name)
    return ARCHITECTURES[name]


def build_model(
    name: str,
    preset: str = "small",
    *,
    input_shape: tuple[int, int, int] = (64, 128, 1),
    classes: int = 5,
    **overrides: int | float | str,
) -> keras.Model:
    """Build an architecture by name.

    Args:
        name: name of the architecture.
        preset: named size.
        input_shape: (height, width, channels) of an image.
        classes: number of classes; a specialist outputs one map in any case.
        **overrides: options of the builder that replace those of the preset.

    Returns:
        An uncompiled model of stock layers: float32 (B, H, W, channels) to logits float32 (B, H, W, maps).

    Raises:
        PlanError: the name, the preset or an option is unknown.
        ModelError: the image's sides do not fit the depth.
    """
    found = architecture(name)
    check_preset(name, preset)
    allowed = [*found.options, "dropout", *(["stage"] if found.stages else [])]
    unknown = sorted(set(overrides) - set(allowed))
    if unknown:
        raise PlanError(f"option: {name} has no {', '.join(unknown)}; its options are {', '.join(allowed)}")
    options: dict[str, int | float | str] = {**found.presets[preset], **overrides}
    return found.build(input_shape=input_shape, classes=classes, **options)
