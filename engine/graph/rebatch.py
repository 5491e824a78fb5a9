"""Graphs of a fixed batch in a pack: the same graph for any number, where that computes the same."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError
from engine.models.net import Net
from engine.models.open_batch import opened_batches
from engine.models.open_session import batch_of, same_for_any_number
from engine.models.ports import Ports
from engine.models.runtimes.messages import reason_of
from engine.models.runtimes.onnxruntime import OnnxSession, open_raw, runtime_errors


def constants_of(net: Net) -> dict[str, npt.NDArray[Any]]:
    """Return the values of a graph's further inputs."""
    return Ports.of(_raw(net)).filled(net.contract.constants)


def rebatched(model: Any, net: Net, images: npt.NDArray[Any]) -> Any | None:
    """Return a model that takes any number of images, or None where it would compute something else.

    Args:
        model: the model of a net that takes one number alone; left as it is.
        net: the same, opened.
        images: raw images (image, height, width, channels) that both are compared on; at least three.
    """
    constants, name = constants_of(net), net.session.input_name
    for candidate in opened_batches(model.SerializeToString(), name, batch_of(net)):
        try:
            session = open_raw(candidate, "cpu")
        except ModelError:
            continue

        def run(fed: npt.NDArray[Any], session: Any = session) -> npt.NDArray[Any]:
            try:
                return np.asarray(session.run([net.output_name], {**constants, name: fed})[0])
            except runtime_errors() as error:
                raise ModelError(f"{net.path} fails on a batch of {len(fed)}: {reason_of(error)}") from None

        if same_for_any_number(net, images, run):
            copy = type(model)()
            copy.ParseFromString(candidate)
            return copy
    return None


def _raw(net: Net) -> Any:
    return cast(OnnxSession, net.session).raw
