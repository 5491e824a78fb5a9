"""The command that makes a web page of a packed ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.utils import console


def page(
    model: Annotated[Path, typer.Argument(metavar="ENSEMBLE.onnx", help="A file of `exporters pack`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.")],
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The tarball of onnxruntime-web, or its folder in node_modules, instead of a fetch with npm.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that holds such a page.")] = False,
) -> None:
    """Make a web page that runs a packed ensemble in the browser: drop a picture, see and save the mask.

    The folder is static: any web server can offer it, and no picture leaves the browser. The page runs on WebGPU
    where its labels are those of the CPU, else in WebAssembly. What runs it, onnxruntime-web, is fetched with npm in
    one version and checked against the published hash.

    Example:
      exporters page ensemble.onnx --out page
    """
    from exporters.page.build import make_page

    done = make_page(model, out, runtime_from=runtime, overwrite=overwrite)
    told = f"{done.size / 1e6:.1f} MB; a browser without a GPU loads {done.first / 1e6:.1f} MB"
    console.say(f"wrote {done.folder} ({told})")
    console.say_next("python", "-m", "http.server", "--bind", "127.0.0.1", "--directory", out)
