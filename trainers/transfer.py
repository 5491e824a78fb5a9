"""Transfer: a network takes over the weights of another one, layer by layer, by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras

from engine.errors import InputError, ModelError
from engine.utils.console import first_line


def take_weights(model: keras.Model, source: Path) -> None:
    """Copy the weights of every layer of a trained network into the layer of the same name.

    Raises:
        InputError: the file is missing or no network.
        ModelError: the network has layers that ``model`` has not, or of other shapes.
    """
    if not zipfile.is_zipfile(source):
        raise InputError(f"{source}: no .keras network; give one that fit wrote")
    try:
        first = keras.saving.load_model(source, compile=False)
    except Exception as error:  # Keras raises whatever a foreign archive makes it raise: one line says which.
        raise InputError(f"{source}: cannot be loaded ({first_line(error, kind=True)})") from None
    here = {layer.name: layer for layer in model.layers}
    for layer in first.layers:
        weights = layer.get_weights()
        if not weights:
            continue
        wanted = [value.shape for value in here[layer.name].get_weights()] if layer.name in here else None
        given = [value.shape for value in weights]
        if wanted != given:
            needed = "has no such layer" if wanted is None else f"needs {wanted}"
            raise ModelError(
                f"{source}: its layer {layer.name} holds {given}, the network {needed}; "
                "train both with the same architecture, preset, options, channels and classes"
            )
        here[layer.name].set_weights(weights)
