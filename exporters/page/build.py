"""A packed ensemble -> a folder that any web server can offer: the net, its runtime, a page."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from engine.errors import ContractError, InputError, OutputError
from engine.models.adapt.labels import NOT_FINITE
from engine.models.contract import ModelContract
from engine.models.opening import Opened, inspect_net
from engine.utils.files import temporary_name
from engine.utils.palette import colours
from engine.version import VERSION
from exporters.page import runtime

# Everything a browser loads beside the net and its runtime; plain files without a build step.
PARTS = ("index.html", "style.css", "icon.svg", "page.js", "show.js", "predict.js", "picture.js", "png.js", "zip.js")
FACTS, NET, RUNTIME = "ensemble.json", "ensemble.onnx", "runtime"
DOUBT = "doubt"


@dataclass(frozen=True)
class Page:
    """What was written.

    Attributes:
        folder: the folder.
        contract: what the ensemble promises.
        size: bytes of all files.
        first: bytes that a browser without a GPU loads.
    """

    folder: Path
    contract: ModelContract
    size: int
    first: int


def make_page(model: str | Path, out: str | Path, *, runtime_from: Path | None = None, overwrite: bool = False) -> Page:
    """Write a folder with a page that runs a packed ensemble in the browser.

    Args:
        model: an ONNX file of ``exporters pack``.
        out: the folder to make.
        runtime_from: see :func:`exporters.page.runtime.runtime_files`.
        overwrite: replace the folder, if it holds such a page.

    Raises:
        ContractError: the file is not a packed ensemble.
        InputError: its images are neither grey nor RGB, there is no such file, or the runtime's files are not the
            published ones.
        ModelError: the file cannot be opened.
        OutputError: ``out`` exists or cannot be written.
        PlanError: npm is missing or cannot fetch the runtime.
    """
    model, out = Path(model), Path(out)
    check_folder(out, overwrite)
    opened = inspect_net(model)
    facts = page_facts(opened)
    loaded = runtime.runtime_files(runtime_from)
    here = files("exporters.page")
    parts = {name: here.joinpath(name).read_bytes() for name in PARTS}
    parts[FACTS] = (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()
    parts[NET] = model.read_bytes()
    whole = {**parts, **{f"{RUNTIME}/{name}": data for name, data in loaded.items()}}
    _write(out, whole)
    assert opened.contract is not None
    gpu = sum(len(data) for name, data in loaded.items() if "webgpu" in name or "asyncify" in name)
    size = sum(map(len, whole.values()))
    return Page(out, opened.contract, size, size - gpu)


def page_facts(opened: Opened) -> dict[str, Any]:
    """Return what the page must know of a packed ensemble, as plain JSON values.

    Raises:
        ContractError: it is none.
        InputError: it takes images that are neither grey nor RGB.
    """
    held, path = opened.contract, opened.path
    if held is None or held.kind != "packed":
        raise ContractError(
            f"{path}: not a packed ensemble; make one of the plan first: exporters pack ensemble.toml --out "
            "ensemble.onnx"
        )
    if held.channels not in (1, 3):
        raise InputError(f"{path} takes images of {held.channels} channels; a page reads pictures, of 1 or 3")
    image = opened.ports.inputs[0]
    strategy = str(held.notes.get("strategy", ""))
    told = " · ".join(filter(None, (held.architecture, strategy, f"{len(held.classes)} classes")))
    return {
        "title": path.stem,
        "about": told,
        "made": f"maskfuse {VERSION}, {runtime.PACKAGE} {runtime.VERSION}",
        "classes": [
            {"name": name, "colour": list(colour)}
            for name, colour in zip(held.classes, colours(len(held.classes)), strict=True)
        ],
        "input": image.name,
        "kind": image.kind,
        "channels": held.channels,
        "size": None if held.size is None else list(held.size),
        "batch": image.shape[0] if isinstance(image.shape[0], int) else None,
        "doubt": any(port.name == DOUBT for port in opened.ports.outputs),
        "not_finite": NOT_FINITE,
    }


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be made, and one that is there and no page.

    Raises:
        OutputError: saying what is there.
    """
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise OutputError(f"{out}: already exists; choose another name or give --overwrite")
        if not (out / FACTS).is_file() or not (out / NET).is_file():
            raise OutputError(f"{out}: holds other files than a page's, which would be lost; choose another name")
    elif out.exists() and not out.is_dir():
        raise OutputError(f"{out}: a file; the page is a folder, choose another name")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise OutputError(f"{out}: {folder} is a file, not a folder; choose another name")


def _write(out: Path, parts: dict[str, bytes]) -> None:
    """Write the folder complete or not at all; one that is there is replaced."""
    partial, aside = temporary_name(out), temporary_name(out, "replaced")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        (partial / RUNTIME).mkdir(parents=True)
        for name, data in parts.items():
            (partial / name).write_bytes(data)
        if out.exists():
            out.rename(aside)
        try:
            partial.rename(out)
        except OSError:
            if aside.exists():
                aside.rename(out)
            raise
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); check the folder and its space") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
