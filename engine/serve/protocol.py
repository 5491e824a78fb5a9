"""The Open Inference Protocol, version 2 (KServe): metadata of server and model, and inference.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with the binary
extension https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.fusion.evidence import Evidence
from engine.serve.plan import Answer, ServedPlan
from engine.serve.refusals import Refused
from engine.serve.tensors import Binary, bad, flag, parameters, split, tensor, written
from engine.version import VERSION

IMAGES = "images"
MASKS, SCORES, DOUBT = "masks", "scores", "doubt"
MODEL_VERSION = "1"
BINARY = "binary_tensor_data"
Outputs = dict[str, dict[str, Any]]
# Parameters of an output that would change what comes back, and are not there.
NOT_THERE = ("classification", "shared_memory_region")


@dataclass(frozen=True)
class Wanted:
    """An inference request, checked.

    Attributes:
        images: raw pixels (n, height, width, channels).
        outputs: the name of each output, and whether it goes behind the JSON as bytes.
        evidence: what the ensemble shows beside masks.
        id: of the request; None if it has none.
    """

    images: NDArray[Any]
    outputs: Sequence[tuple[str, bool]]
    evidence: Evidence
    id: str | None


def server_metadata() -> dict[str, Any]:
    """Return what the server is."""
    return {"name": "maskfuse", "version": VERSION, "extensions": [BINARY]}


def outputs_of(plan: ServedPlan) -> Outputs:
    """Return the outputs of a plan: those that its ensemble has."""
    classes = [len(plan.classes)] if plan.ensemble.is_multilabel else []
    found = {MASKS: {"name": MASKS, "datatype": "UINT8", "shape": [-1, *classes, -1, -1]}}
    for name, evidence, shape in (
        (SCORES, Evidence(scores="float32"), [-1, len(plan.classes), -1, -1]),
        (DOUBT, Evidence(doubt="entropy", doubt_type="float32"), [-1, -1, -1]),
    ):
        if plan.shows(evidence):
            found[name] = {"name": name, "datatype": "FP32", "shape": shape}
    return found


def model_metadata(plan: ServedPlan, outputs: Outputs) -> dict[str, Any]:
    """Return what a plan takes, and the outputs that it has."""
    contracts = [member.contract for member in plan.ensemble.members]
    sizes = {held.size for held in contracts if not held.fit}
    size = next(iter(sizes)) if len(sizes) == 1 else None
    counts = {-1 if held.bands else held.channels for held in contracts}
    channels = next(iter(counts)) if len(counts) == 1 else -1
    planar = plan.reading.layout == "NCHW"
    sides = [-1, -1] if size is None else list(size)
    shape = [-1, channels, *sides] if planar else [-1, *sides, channels]
    return {
        "name": plan.name,
        "versions": [MODEL_VERSION],
        "platform": "maskfuse",
        "inputs": [{"name": IMAGES, "datatype": "UINT8", "shape": shape}],
        "outputs": list(outputs.values()),
    }


def wanted(body: bytes, length: str | None, plan: ServedPlan, known: Outputs) -> Wanted:
    """Check an inference request.

    Args:
        body: the whole body.
        length: the header Inference-Header-Content-Length; None if there is none.
        plan: what is served.
        known: its outputs, of :func:`outputs_of`.

    Raises:
        Refused: 400 for what breaks the protocol.
        EngineError: images that the members do not take, or evidence that there is not.
    """
    held, rest = split(body, length)
    common = parameters(held, "the request")
    number = held.get("id")
    if number is not None and not isinstance(number, str):
        raise bad(f"id {str(number)[:20]}: a text is needed")
    inputs = held.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise bad(f"inputs: a list of one tensor, named {IMAGES}, is needed")
    if inputs[0].get("name") != IMAGES:
        raise bad(f"input {str(inputs[0].get('name'))[:40]!r} is unknown; the input is {IMAGES}")
    binary = Binary(rest)
    array = tensor(inputs[0], binary)
    binary.finish()
    outputs = _outputs(held, common, known)
    names = {name for name, _ in outputs}
    doubt = common.get("doubt_map", "entropy")
    if not isinstance(doubt, str):
        raise bad(f"doubt_map {str(doubt)[:20]}: a text is needed")
    evidence = Evidence("float32" if SCORES in names else "", doubt if DOUBT in names else "", "float32")
    plan.check_shown(evidence)
    images, alone = plan.arranged(array)
    if alone:
        raise InputError(f"input {IMAGES} has shape {list(array.shape)}, one image: state how many, as in [1, ...]")
    return Wanted(images, outputs, evidence, number)


def _outputs(held: dict[str, Any], common: dict[str, Any], known: Outputs) -> list[tuple[str, bool]]:
    binary = flag(common, "binary_data_output", "the request", False)
    asked = held.get("outputs")
    if asked is None or asked == []:
        return [(name, binary) for name in known]
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise bad("outputs: a list of objects with a name is needed")
    found: dict[str, bool] = {}
    for one in asked:
        name = one.get("name")
        if not isinstance(name, str) or name not in known:
            raise bad(f"output {str(name)[:40]!r} is unknown; there are {', '.join(known)}")
        if name in found:
            raise bad(f"output {name} is asked for twice")
        own = parameters(one, f"output {name}")
        for key in NOT_THERE:
            if own.get(key):
                raise bad(f"output {name}: {key} is not supported: leave it out")
        found[name] = flag(own, "binary_data", f"output {name}", binary)
    return list(found.items())


def response(asked: Wanted, answers: Sequence[Answer], plan: ServedPlan) -> tuple[bytes, int | None]:
    """Return the body of a response, and the length of its JSON if bytes follow it."""
    fields = {MASKS: "mask", SCORES: "scores", DOUBT: "doubt"}
    tensors = [
        (name, np.stack([getattr(answer, fields[name]) for answer in answers]), binary)
        for name, binary in asked.outputs
    ]
    head: dict[str, Any] = {"model_name": plan.name, "model_version": MODEL_VERSION}
    if asked.id is not None:
        head["id"] = asked.id
    return written(tensors, head)


def check_name(plan: ServedPlan, name: str, version: str | None) -> None:
    """Refuse a model that there is not.

    Raises:
        Refused: 404, naming the model that is served.
    """
    if name != plan.name or version not in (None, MODEL_VERSION):
        told = name if version is None else f"{name} in version {version}"
        raise Refused(404, f"no model {told[:60]}; there is {plan.name}, version {MODEL_VERSION}")
