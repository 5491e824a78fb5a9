"""Sessions that run a graph of a fixed batch on any number of images, opened where a trial shows equal outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from numpy.typing import NDArray

from engine.errors import ModelError
from engine.models.net import Net
from engine.models.open_batch import opened_batches, same_outputs
from engine.models.runtimes import fed_as
from engine.models.runtimes.onnxruntime import OnnxSession

# Images that a trial takes: one, two and all of them.
TRIAL = 3


def batch_of(net: Net) -> int:
    """Return how many images the graph of a net declares to take at once; 0 for any number, and where nothing tells."""
    return net.session.group if isinstance(net.session, OnnxSession) else 0


def open_batch_session(net: Net, images: NDArray) -> OnnxSession | None:
    """Return a session of the same graph that takes any number of images; None where it would compute something else.

    Args:
        net: a net that takes one number of images alone, opened in ONNX Runtime on the CPU.
        images: raw images (image, height, width, channels) that both are compared on, the first three of them.
    """
    try:
        raw = net.path.read_bytes()
        for model in opened_batches(raw, net.session.input_name, batch_of(net)):
            try:
                session = OnnxSession(net.path, model=model)
            except ModelError:
                continue
            fed_as(session, net.session)
            if same_for_any_number(net, images[:TRIAL], partial(session.run, net.output_name)):
                return session
    except (OSError, ValueError):
        pass
    return None


def same_for_any_number(net: Net, images: NDArray, run: Callable[[NDArray], NDArray]) -> bool:
    """Return whether a graph gives what a net gives, for one, two and all of some images.

    Args:
        net: the net.
        images: raw images (image, height, width, channels).
        run: runs the other graph on a batch as :meth:`Net.windows` returns it; a ModelError of it is a no.
    """
    fed = net.windows(net.prepare(images))
    expected = net.session.run(net.output_name, fed)
    try:
        return all(same_outputs(run(fed[:count]), expected) for count in sorted({1, min(2, len(fed)), len(fed)}))
    except ModelError:
        return False
