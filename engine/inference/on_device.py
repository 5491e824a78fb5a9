"""Moves an ensemble to a device: the provider, one graph of all, its precision and batch size; or why not."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, ModelError, PlanError
from engine.inference.batch_size import first_size, settle_size
from engine.inference.device import DeviceFusion, why_not
from engine.inference.execution import Execution
from engine.models.members import Member
from engine.models.runtimes import GRAPH_ON_CPU, fed_as
from engine.models.runtimes.onnxruntime import OnnxSession
from engine.models.runtimes.providers import choose_provider
from engine.models.twins import twin_of
from engine.sources.base import Batch
from engine.utils import console
from engine.utils.threads import available_cores

if TYPE_CHECKING:
    from engine.inference.ensemble import Ensemble

# While one lane computes, one uploads and one downloads.
LANES = 3
# Images of a batch whose logits come back.
HOST_SIZE = 32
# Images that are also predicted by the CPU's kernels, and the share of their pixels that must agree.
CHECKED, LEAST_AGREEMENT = 8, 0.999


@dataclass
class Tuned:
    """The settings of a run.

    Attributes:
        batch_size: images per batch.
        workers: threads.
        told: messages about what was chosen and why.
        seconds: time spent on choosing.
    """

    batch_size: int
    workers: int
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Known:
    """What is known of the images of a run.

    Attributes:
        sample: a few of them; None for none.
        real: whether these are images, and not blank.
        count: how many there are; 0 if that is not known.
        whole: whether they are predicted one by one, and not as tiles of a scene, whose logits are blended.
        alone: whether the ensemble's labels are all that is asked, and not those of further members and strategies.
    """

    sample: Batch | None
    real: bool
    count: int
    whole: bool
    alone: bool = True


def labels_of(ensemble: Ensemble, sample: Batch) -> NDArray[np.uint8]:
    """Return the labels of a batch by the members' own sessions and the CPU's kernels, before clean-up."""
    logits, _ = ensemble.logits(sample)
    return ensemble.decode(logits, ensemble.variant, sample.size, clean=False)[0].copy()


def move_to_device(ensemble: Ensemble, known: Known, tuned: Tuned, batch_size: int, workers: int) -> bool:
    """Move an ensemble to what ``--provider`` names; return whether that is not the plain CPU.

    Args:
        ensemble: its ``device`` is set, or its members' sessions are opened on the provider.
        known: the images.
        tuned: batch size, workers and messages are set.
        batch_size: images per batch; 0 to measure.
        workers: threads; 0 for as many as there are lanes.

    Raises:
        PlanError: the provider asked for does not work.
    """
    runtime_options = ensemble.runtime_options
    choice = choose_provider(runtime_options.provider)
    if choice.told:
        tuned.told.append(choice.told)
    if choice.provider == "cpu":
        return False
    lanes = workers or (available_cores() if choice.provider == GRAPH_ON_CPU else LANES)
    try:
        reason = _as_graph(ensemble, known, choice.provider, lanes, tuned, batch_size)
        if reason:
            tuned.told.append(f"logits are fused on the CPU: {reason}")
            if choice.provider == GRAPH_ON_CPU:
                return False
            _open_there(ensemble, choice.provider)
            tuned.batch_size, tuned.workers = batch_size or HOST_SIZE, lanes
        elif choice.provider != GRAPH_ON_CPU:
            ensemble.sessions_elsewhere = partial(_open_later, ensemble, choice.provider)
    except ModelError as error:
        ensemble.device = None
        if runtime_options.provider != "auto":
            raise PlanError(
                f"--provider {runtime_options.provider} fails at first use: {error}; use --provider cpu, or auto"
            ) from None
        tuned.told.append(f"provider cpu; {choice.provider} fails at first use: {error}")
        return False
    return True


def _as_graph(ensemble: Ensemble, known: Known, provider: str, lanes: int, tuned: Tuned, batch_size: int) -> str:
    """Set the ensemble's device, warmed up and measured; return why it cannot be one graph, empty if it can.

    Raises:
        ModelError: the provider fails.
    """
    reason = "logits of tiles are blended" if not known.whole else ""
    reason = reason or ("" if known.alone else "other members and strategies are scored as well")
    reason = reason or why_not(ensemble, ensemble.early_exit is not None)
    if reason or known.sample is None:
        return reason or "no images"
    sample, want = _expected(ensemble, known.sample, known.real)
    size = batch_size or first_size(provider, sample, known.count, lanes)
    for precision in dict.fromkeys((ensemble.runtime_options.precision, "float32")):
        # TensorRT takes minutes for every size.
        first = size if provider == "tensorrt" else min(size, CHECKED)
        device = DeviceFusion(ensemble, provider, precision, first, lanes)
        lower = precision != "float32"
        try:
            device.build(sample.pixels)
        except EngineError as error:
            reason = str(error)
        else:
            try:
                reason = _tried(ensemble, device, sample, want, tuned)
            except ModelError as error:
                if not lower:
                    raise
                reason = str(error)
        if not reason:
            ensemble.device = device
            settle_size(device, sample, known.count, size, fixed=bool(batch_size))
            tuned.batch_size, tuned.workers = device.batch_size, lanes
            return ""
        if lower:
            tuned.told.append(f"--precision {precision} is not used: {reason}")
    return reason


def _tried(
    ensemble: Ensemble, device: DeviceFusion, sample: Batch, want: NDArray[np.uint8] | None, tuned: Tuned
) -> str:
    """Run the graph on the first images; return why it is not used, empty if it is.

    Raises:
        ModelError: the provider fails, or a member computes NaN or infinity in lower precision.
    """
    ensemble.device = device  # Ctrl-C stops it
    try:
        found = device.run(sample).labels
    finally:
        ensemble.device = None
    lower = device.precision != "float32"
    told = "their agreement with float32 could not be measured on the first images"
    if want is not None:
        same = float((found == want).mean())
        told = f"labels agree with float32 on {same:.3%} of the {want.size:,} pixels of the first images"
        if not lower and same < LEAST_AGREEMENT:
            return told
    if lower:
        tuned.told.append(f"members run in float16: {told}")
    return ""


def _expected(ensemble: Ensemble, sample: Batch, real: bool) -> tuple[Batch, NDArray[np.uint8] | None]:
    """Return images to try the graph on and the labels that the CPU's kernels give; blank ones where real ones fail."""
    few = Batch(sample.start, sample.ids[:CHECKED], sample.pixels[:CHECKED])
    try:
        return few, labels_of(ensemble, few) if real else None
    except ModelError:
        # Bad images are reported by the run, which knows how to handle them.
        return Batch(few.start, few.ids, np.zeros_like(few.pixels)), None


def _open_there(ensemble: Ensemble, provider: str) -> None:
    """Open the members' own sessions on a provider.

    Raises:
        ModelError: it cannot run one of them.
    """
    opened = [_execution(member, provider, ensemble.runtime_options.precision) for member in ensemble.members]
    for index, execution in enumerate(opened):
        ensemble.use(index, execution)


def _execution(member: Member, provider: str, precision: str) -> Execution:
    lower = [twin_of(net, "fp16") if precision != "float32" else None for net in member.nets]
    sessions = [
        fed_as(OnnxSession(twin or net.path, provider, precision), net.session)
        for net, twin in zip(member.nets, lower, strict=True)
    ]
    return Execution(tuple(sessions), 0)


def _open_later(ensemble: Ensemble, provider: str) -> None:
    """As :func:`_open_there`, in the middle of a run: under ``auto`` the nets stay on the CPU where that fails."""
    try:
        _open_there(ensemble, provider)
    except ModelError as error:
        if ensemble.runtime_options.provider != "auto":
            raise
        console.say(f"nets stay on the CPU: {error}")
