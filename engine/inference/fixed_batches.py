"""Members whose graphs declare one number of images alone run on larger batches, where that computes the same."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.errors import EngineError
from engine.inference.execution import present_execution
from engine.models.open_session import batch_of, open_batch_session
from engine.models.runtimes.onnxruntime import PART
from engine.sources.base import Batch

if TYPE_CHECKING:
    from engine.inference.ensemble import Ensemble

# Fewer images are predicted faster than a graph is opened a second time.
WORTH_OPENING = 64


def open_batches(ensemble: Ensemble, sample: Batch) -> list[str]:
    """Install sessions that take any number of images for members whose graphs declare one; return what to say of it.

    Whether they are used rests on their outputs alone, not on a measurement: a resumed run must round as the first did.

    Args:
        ensemble: its members' sessions are replaced.
        sample: the first images, on which both sessions are compared.
    """
    told = []
    for index, member in enumerate(ensemble.members):
        groups = [batch_of(net) for net in member.nets]
        if not any(groups):
            continue
        with contextlib.suppress(EngineError):  # bad images are reported by the run
            opened = [
                open_batch_session(net, sample.pixels) if group else net.session
                for net, group in zip(member.nets, groups, strict=True)
            ]
            sessions = tuple(session for session in opened if session is not None)
            if len(sessions) == len(opened):
                ensemble.use(index, replace(present_execution(member, PART), sessions=sessions))
                told.append(f"{member.name} declares batches of {max(groups)}: run on larger ones, with equal outputs")
    return told
