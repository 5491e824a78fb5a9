"""``engine bench``: how fast an ensemble runs on this machine, and the limit set by its members."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.options import (
    STRATEGY_NAMES,
    AsJson,
    BatchSize,
    GreyAsRgb,
    ImageLayout,
    Memory,
    MissingChunks,
    Models,
    Precision,
    Provider,
    Runtime,
    Workers,
    contract_fields,
)
from engine.utils import console
from engine.utils.console import with_options


@with_options(contract_fields, "stated")
def bench(
    models: Models = None,
    input: Annotated[
        str, typer.Option("--input", "-i", help="Images to run on, as for engine ensemble. Default: generated scenes.")
    ] = "",
    images: Annotated[int, typer.Option(help="Images per round; the input is repeated to reach that number.")] = 256,
    rounds: Annotated[int, typer.Option(help="How often the pipeline and the members are timed, in turn.")] = 3,
    strategy: Annotated[str, typer.Option(help=STRATEGY_NAMES)] = "mean-logit",
    batch_size: BatchSize = 0,
    workers: Workers = 0,
    provider: Provider = "auto",
    runtime: Runtime = "onnxruntime",
    precision: Precision = "float32",
    memory: Memory = "",
    as_json: AsJson = False,
    grey_as_rgb: GreyAsRgb = False,
    image_layout: ImageLayout = "",
    missing_chunks: MissingChunks = "",
    *,
    stated: dict[str, Any],
) -> None:
    """Measure images/s of each model alone and of the whole pipeline, the time per stage and the peak memory.

    The limit is what the models could reach without overhead: 1 over the sum of 1 / (images/s), each at its best
    batch size and thread layout.

    Examples:
      engine bench

      engine bench -m models/ -i tiles.npz --images 1000 --runtime auto --precision bf16
    """
    from engine.bench import bench_job
    from engine.cli.printing import print_bench
    from engine.models.runtimes import RuntimeOptions
    from engine.runs.options import Options

    options = Options(
        models=models or (),
        input=input,
        strategy=strategy,
        grey_as_rgb=grey_as_rgb,
        image_layout=image_layout,
        missing_chunks=missing_chunks,
        stated=stated,
    )
    runtime_options = RuntimeOptions(provider, runtime, precision)
    print_bench(bench_job(options, runtime_options, images, rounds, batch_size, workers), as_json)
    named = [word for model in models or ["MODELS"] for word in ("--models", model)]
    console.say_next("engine", "ensemble", *named, "--input", "IMAGES", "--output", "masks.csv")
