"""The plain form's answers: which results there are, in which formats, and how one is chosen by query and Accept."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.fusion.evidence import MOST_DOUBT, Evidence
from engine.outputs.png import png_bytes
from engine.serve.plan import Answer, ServedPlan
from engine.serve.refusals import Refused
from engine.utils.palette import colours

PNG, NPY, JSON = "image/png", "application/x-npy", "application/json"
FORMATS = {"png": PNG, "npy": NPY, "json": JSON}
# What each result can be sent as; the first is the default for a picture.
RESULTS = {"mask": (PNG, NPY), "doubt": (PNG, NPY), "scores": (NPY,), "areas": (JSON,), "all": (JSON,)}
QUERY = ("result", "format", "doubt_map", "doubt_type", "scores_type")


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        result: a name from :data:`RESULTS`.
        media: how it is sent; empty for the default.
        evidence: what the ensemble shows beside masks.
    """

    result: str
    media: str
    evidence: Evidence

    def chosen(self, is_array: bool) -> str:
        """Return the media type of the answer: an array for an array, a picture for a picture, unless stated."""
        return self.media or (NPY if is_array and NPY in RESULTS[self.result] else RESULTS[self.result][0])


def asked(query: Mapping[str, str], accept: str, plan: ServedPlan) -> Asked:
    """Return what query and Accept ask for.

    Raises:
        Refused: 400 for an unknown word, 406 for a format that this result has not.
        PlanError: evidence that there is not.
    """
    for key in query:
        if key not in QUERY:
            raise Refused(400, f"query {key[:40]!r} is unknown; known are {', '.join(QUERY)}")
    result = query.get("result", "mask")
    if result not in RESULTS:
        raise Refused(400, f"result={result[:40]} is unknown; allowed are {', '.join(RESULTS)}")
    for key, name in (("doubt_map", "doubt"), ("doubt_type", "doubt"), ("scores_type", "scores")):
        if key in query and result not in (name, "all" if key == "doubt_map" else name):
            raise Refused(400, f"{key} without result={name}: leave it out")
    media = _media(result, query.get("format", ""), accept)
    if media == PNG and result == "doubt" and query.get("doubt_type", "uint8") != "uint8":
        raise Refused(400, f"doubt_type={query['doubt_type'][:40]} does not fit into a PNG: ask for format=npy")
    evidence = _evidence(result, query, plan)
    plan.check_shown(evidence)
    return Asked(result, media, evidence)


def _evidence(result: str, query: Mapping[str, str], plan: ServedPlan) -> Evidence:
    if result == "scores":
        return Evidence(scores=query.get("scores_type", "float16"))
    doubt = query.get("doubt_map", "entropy")
    if result == "doubt":
        return Evidence(doubt=doubt, doubt_type=query.get("doubt_type", "uint8"))
    if result == "all":
        evidence = Evidence(doubt=doubt)
        # Of an ensemble that outputs labels, masks are all there is.
        return evidence if "doubt_map" in query or plan.shows(evidence) else Evidence()
    return Evidence()


def _media(result: str, stated: str, accept: str) -> str:
    allowed = RESULTS[result]
    told = ", ".join(allowed)
    if stated:
        if FORMATS.get(stated) not in allowed:
            names = ", ".join(name for name, media in FORMATS.items() if media in allowed)
            raise Refused(406, f"result={result} has no format={stated[:40]}; allowed: {names}")
        return FORMATS[stated]
    wanted = [_weighed(part) for part in accept.split(",") if part.strip()]
    for media, _ in sorted((item for item in wanted if item[1] > 0), key=lambda item: -item[1]):
        if media == "*/*":
            return ""
        for one in allowed:
            if media in (one, one.partition("/")[0] + "/*") or (one == NPY and media == "application/octet-stream"):
                return one
    if wanted:
        raise Refused(406, f"result={result} comes as {told}; Accept asks for {accept[:80]}")
    return ""


def _weighed(part: str) -> tuple[str, float]:
    """Return a media range of an Accept header and its weight (RFC 9110, 12.4.2)."""
    media, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media.lower(), float(parameter[2:])
            except ValueError:
                return media.lower(), 0.0
    return media.lower(), 1.0


def encoded(asked: Asked, media: str, answers: Sequence[Answer], alone: bool, plan: ServedPlan) -> bytes:
    """Return the body of an answer.

    Raises:
        Refused: 406 where several maps would have to be one picture.
    """
    if asked.result in ("areas", "all"):
        told = [_told(answer, plan, asked.result == "all") for answer in answers]
        return json.dumps(told[0] if alone else told).encode()
    maps = [getattr(answer, asked.result) for answer in answers]
    if media == NPY:
        return npy_bytes(maps[0] if alone else np.stack(maps))
    if len(maps) > 1 or maps[0].ndim > 2:
        what = f"{len(maps)} images" if len(maps) > 1 else "several maps, one a class"
        raise Refused(406, f"{asked.result} of {what} is no single PNG: ask for {NPY}")
    return mask_png(maps[0], plan) if asked.result == "mask" else grey_png(maps[0])


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def mask_png(mask: NDArray[np.uint8], plan: ServedPlan) -> bytes:
    """Return a mask as the palette PNG that ``engine ensemble`` writes."""
    return png_bytes(mask, max(plan.values) + 1)


def grey_png(doubt: NDArray[Any]) -> bytes:
    """Return uint8 (height, width) doubt as a grey PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(doubt).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def described(plan: ServedPlan) -> list[dict[str, Any]]:
    """Return the classes with what masks hold for them and the colours of their PNGs."""
    table = colours(max(plan.values) + 1)
    return [
        {"id": value, "name": name, "colour": "#{:02x}{:02x}{:02x}".format(*table[value])}
        for value, name in zip(plan.values, plan.classes, strict=True)
    ]


def _told(answer: Answer, plan: ServedPlan, everything: bool) -> dict[str, Any]:
    """Return the areas of an image, and for ``everything`` its mask and doubt as PNGs in base64."""
    size = answer.mask.shape[-2:]
    pixels = size[0] * size[1]
    if answer.mask.ndim == 3:
        counts = answer.mask.reshape(len(plan.classes), -1).sum(axis=1, dtype=np.int64)
    else:
        counts = np.bincount(answer.mask.reshape(-1), minlength=256)[plan.values]
    areas = [
        {**held, "pixels": int(count), "share": count / pixels}
        for held, count in zip(described(plan), counts, strict=True)
    ]
    told: dict[str, Any] = {"height": size[0], "width": size[1], "areas": areas}
    if everything and answer.mask.ndim == 2:
        told["mask"] = base64.b64encode(mask_png(answer.mask, plan)).decode()
    if answer.doubt is not None:
        told["doubt"] = base64.b64encode(grey_png(answer.doubt)).decode()
        told["mean_doubt"] = float(answer.doubt.mean()) / MOST_DOUBT
    return told
