"""Options specific to some architectures."""

from __future__ import annotations

from engine.errors import PlanError
from trainers.config import FitConfig
from trainers.models import ARCHITECTURES, architecture


def parsed_options(config: FitConfig) -> dict[str, int | float | bool]:
    """Return the architecture's own options by name, each with the type of its default.

    Raises:
        PlanError: a text is not ``name=value``, the name is unknown, or the value is of another type.
    """
    known = architecture(config.arch).options
    listed = ", ".join(f"{name} ({type(value).__name__})" for name, value in known.items())
    options: dict[str, int | float | bool] = {}
    for text in config.options:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or name not in known:
            raise PlanError(
                f"option: {text!r} is not an option of {config.arch}; write NAME=VALUE with one of {listed}"
            )
        kind = type(known[name])
        try:
            options[name] = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            wanted = "true or false" if kind is bool else "a whole number" if kind is int else "a number"
            raise PlanError(f"option: {name} is {value!r}; {wanted} is needed") from None
        if kind is int and options[name] < 1:
            raise PlanError(f"option: {name} is {value}; an integer of at least 1 is required")
    return options


def check_training(config: FitConfig) -> None:
    """Refuse options that do not fit the architecture, before anything is read or built.

    Raises:
        PlanError: naming the option and what is allowed.
    """
    found = architecture(config.arch)
    parsed_options(config)
    if config.deep_supervision and (found.heads is None or found.always):
        able = [name for name, item in ARCHITECTURES.items() if item.heads is not None and not item.always]
        raise PlanError(f"deep-supervision: {config.arch} has no inner heads; take {', '.join(able)}, or omit it")
    if config.stage != "whole" and not found.stages:
        able = [name for name, item in ARCHITECTURES.items() if item.stages]
        raise PlanError(f"stage: {config.arch} is trained end to end; only {', '.join(able)} has stages")
    if config.stage == "second" and not config.start_from:
        raise PlanError("stage: the second is trained on top of a first; give its network with --from first.keras")
