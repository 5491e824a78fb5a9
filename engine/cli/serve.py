"""``engine serve``: a plan kept open behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.options import (
    RUN,
    GreyAsRgb,
    ImageLayout,
    Memory,
    Precision,
    Provider,
    Runtime,
)

SERVER = "What is taken"
PACKAGES = ("starlette", "uvicorn", "prometheus_client")


def _bytes(text: str) -> str:
    from engine.utils.memory import byte_count

    byte_count(text, "--max-upload")
    return text


def serve(
    plan: Annotated[
        Path, typer.Argument(help="An ensemble.toml; or an .onnx file or a folder of them, with what they declare.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in, without a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one, which is printed.")] = 8000,
    name: Annotated[str, typer.Option(help="What clients call the model. Default: the plan's file name.")] = "",
    queue: Annotated[
        int,
        typer.Option(
            help="Most requests that wait or are being answered; more get 503 and Retry-After.", rich_help_panel=SERVER
        ),
    ] = 256,
    max_upload: Annotated[
        str, typer.Option(metavar="SIZE", callback=_bytes, help="Largest request, as in 64MB.", rich_help_panel=SERVER)
    ] = "64MB",
    memory: Memory = "",
    batch_size: Annotated[
        int,
        typer.Option(help="Most images per batch, of any size; 0: 16, fewer of large ones.", rich_help_panel=RUN),
    ] = 0,
    workers: Annotated[
        int,
        typer.Option(
            help="Batches that run at once, in threads that share the nets; 0 means one per core.", rich_help_panel=RUN
        ),
    ] = 0,
    provider: Provider = "auto",
    runtime: Runtime = "onnxruntime",
    precision: Precision = "float32",
    grey_as_rgb: GreyAsRgb = False,
    image_layout: ImageLayout = "",
) -> None:
    """Keep a plan's nets open and answer requests: pictures and arrays in, masks, doubt and probabilities out.

    Serves a page to try pictures on (GET /), a plain form (POST /predict), the Open Inference Protocol v2 (/v2) and
    metrics (/metrics). Masks are those of engine ensemble with the same plan. Needs the extra serve.

    Examples:
      engine serve ensemble.toml

      engine serve models/ --port 9000 --max-upload 16MB

      curl --data-binary @tile.png http://127.0.0.1:8000/predict -o mask.png
    """
    from engine.utils.memory import byte_count
    from engine.utils.optional import require

    for package in PACKAGES:
        require(package, "serve", "engine serve needs Starlette, uvicorn and prometheus-client")
    from engine.models.runtimes import RuntimeOptions
    from engine.serve.run import ServeOptions
    from engine.serve.run import serve as run

    run(
        ServeOptions(
            plan,
            name,
            host,
            port,
            queue,
            byte_count(max_upload, "--max-upload"),
            RuntimeOptions(provider, runtime, precision),
            batch_size,
            workers,
            grey_as_rgb,
            image_layout,
        )
    )
