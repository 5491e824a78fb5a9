"""The server's interface as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from engine.fusion.doubt import DOUBTS
from engine.fusion.evidence import DOUBT_TYPES, SCORE_TYPES
from engine.serve.answers import FORMATS, JSON, NPY, PNG, RESULTS
from engine.serve.plan import ServedPlan
from engine.serve.tensors import DTYPES
from engine.version import VERSION

OCTETS = "application/octet-stream"
ERROR = {"$ref": "#/components/schemas/Error"}
# What a request for a prediction may be refused with.
REFUSALS = {
    400: "What was sent cannot be read, or does not fit the plan's members.",
    408: "The body stopped arriving.",
    413: "The body, or an image in it, is too large.",
    415: "The body is compressed, or a multipart form.",
    500: "A member failed twice.",
    503: "Too many requests are open, or too little memory is left: Retry-After says when to try again.",
}


def document(plan: ServedPlan) -> dict[str, Any]:
    """Return the document of a server of this plan."""
    model = "/v2/models/{name}"
    paths: dict[str, Any] = {
        "/": {"get": _get("A page to try pictures on.", {"text/html": {}})},
        "/plan": {"get": _get("What is served: classes, members, hash of the plan.")},
        "/predict": {"post": _predict()},
        "/metrics": {"get": _get("Metrics for Prometheus.", {"text/plain": {}})},
        "/openapi.json": {"get": _get("This document.")},
        "/v2": {"get": _get("Name, version and extensions of the server.")},
        "/v2/health/live": {"get": _get("Whether the server runs.")},
        "/v2/health/ready": {"get": _get("Whether it takes requests; 503 once it is about to stop.", ready=True)},
    }
    for path in (model, model + "/versions/{version}"):
        names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        paths[path] = {"get": _get("Inputs and outputs of the model.", named=True), "parameters": parameters}
        paths[path + "/ready"] = {
            "get": _get("Whether the model takes requests.", ready=True, named=True),
            "parameters": parameters,
        }
        paths[path + "/infer"] = {"post": _infer(), "parameters": parameters}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"maskfuse: {plan.name}", "version": VERSION},
        "paths": paths,
        "components": {"schemas": _schemas()},
    }


def _answer(told: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": told, "content": content or {JSON: {"schema": {"type": "object"}}}}


def _refusals(*statuses: int) -> dict[str, Any]:
    return {str(status): _answer(REFUSALS[status], {JSON: {"schema": ERROR}}) for status in statuses}


def _get(told: str, content: dict[str, Any] | None = None, ready: bool = False, named: bool = False) -> dict[str, Any]:
    responses = {"200": _answer(told, content)}
    if ready:
        responses["503"] = _answer("Not any more.")
    if named:
        responses["404"] = _answer("Another model is served.", {JSON: {"schema": ERROR}})
    return {"summary": told, "responses": responses}


def _query(name: str, allowed: list[str], told: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": told, "schema": {"type": "string", "enum": allowed}}


def _predict() -> dict[str, Any]:
    octets = {"schema": {"type": "string", "contentMediaType": OCTETS}}
    return {
        "summary": "The mask of a picture or of arrays, or its doubt, probabilities or areas.",
        "parameters": [
            _query("result", list(RESULTS), "What to send; mask by default."),
            _query("format", list(FORMATS), "In place of Accept: how to send it."),
            _query("doubt_map", list(DOUBTS), "Which map of doubt; entropy by default."),
            _query("doubt_type", list(DOUBT_TYPES), "Type of the doubt; uint8 (254 means 1) by default."),
            _query("scores_type", list(SCORE_TYPES), "Type of the probabilities; float16 by default."),
        ],
        "requestBody": {
            "required": True,
            "description": "A picture (PNG, JPEG, TIFF, BMP, PNM, WebP) or a .npy file of one image or a set of them.",
            "content": {"image/*": octets, NPY: octets, OCTETS: octets},
        },
        "responses": {
            "200": _answer("The result.", {PNG: octets, NPY: octets, JSON: {"schema": {"type": "object"}}}),
            "406": _answer("This result has no such format.", {JSON: {"schema": ERROR}}),
            **_refusals(*REFUSALS),
        },
    }


def _infer() -> dict[str, Any]:
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Length of the JSON in bytes, where tensors follow it as bytes.",
        "schema": {"type": "integer", "minimum": 0},
    }
    octets = {"schema": {"type": "string", "contentMediaType": OCTETS}}
    return {
        "summary": "Inference by the Open Inference Protocol, version 2, with the binary tensor extension.",
        "parameters": [length],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}, OCTETS: octets},
        },
        "responses": {
            "200": _answer(
                "The outputs.",
                {JSON: {"schema": {"$ref": "#/components/schemas/InferenceResponse"}}, OCTETS: octets},
            ),
            "404": _answer("Another model is served.", {JSON: {"schema": ERROR}}),
            **_refusals(*REFUSALS),
        },
    }


def _schemas() -> dict[str, Any]:
    tensor = {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": list(DTYPES)},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    }
    needed = ["name", "shape", "datatype"]
    whole = {"type": "object", "properties": tensor, "required": needed}
    asked = {"type": "object", "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}}}
    return {
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
        "Tensor": whole,
        "InferenceRequest": {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "parameters": {"type": "object"},
                "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
                "outputs": {"type": "array", "items": {**asked, "required": ["name"]}},
            },
            "required": ["inputs"],
        },
        "InferenceResponse": {
            "type": "object",
            "properties": {
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "id": {"type": "string"},
                "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
            },
            "required": ["model_name", "outputs"],
        },
    }
