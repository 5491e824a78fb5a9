"""One command for every table in README and docs.

    python -m benchmarks list              # what there is
    python -m benchmarks all --quick       # minutes: fewer repeats, smaller nets; into benchmarks/results/quick
    python -m benchmarks all               # an hour or so: into benchmarks/results
    python -m benchmarks kernels select    # these alone

Each benchmark is a separate process and records machine, versions and commit. A benchmark that lacks a
package is skipped with a message; one that fails does not stop the others, but the exit code is then 1. Peers come with
`pip install '.[bench]'`. `strategies` and `views` run on generated scenes, and on real tiles where MASKFUSE_POOL (nets)
and MASKFUSE_VALIDATION (labelled tiles) name them. Training on your own data (`python -m benchmarks.findings`) is not
part of `all`.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
ROOT = HERE.parent
PREFIX = "bench_"
# Arguments of a quick run; a script that is not named here may know `--quick` itself.
QUICK = {
    "exporters": "--preset tiny --epochs 1 --scenes 64 --rounds 3 --only unet unet_plus_plus",
    "peers": "--images 64 --rounds 1",
    "page": "--images 24 --rounds 1",
    "serve": "--tiles 32 --seconds 3 --rounds 1 --minutes 0.5",
    "pictures": "--images 48 --rounds 2",
    "pipeline": "--images 64 --rounds 1",
    "roofline": "--rounds 2",
    "kernels": "--images 64 --repeats 3",
    "select_draws": "--draws 1",
    "select": "--tiles 120 --members 6 --pixels 20000 --repeats 2",
    "strategies": "--scenes 96",
}
NEEDS: dict[str, tuple[str, ...]] = {
    "page": ("onnx", "selenium", "pytest"),
    "scene_memory": ("onnx", "rasterio"),
    "roofline": ("onnx",),
    "serve": ("starlette", "uvicorn", "prometheus_client", "fastapi"),
    "views": ("onnx", "cc3d"),
    "map": ("onnx", "rasterio", "pyogrio", "shapely"),
    "gpu": ("onnx",),
    "exporters": ("keras", "tensorflow", "tf2onnx", "onnx", "onnxslim"),
    "trainers": ("keras", "tensorflow"),
    "libraries": ("torch", "torchmetrics", "segmentation_models_pytorch", "monai", "keras", "sklearn", "SimpleITK"),
    "foreign": (
        "torch",
        "torchvision",
        "segmentation_models_pytorch",
        "transformers",
        "onnxscript",
        "onnx",
        "onnxslim",
    ),
}


@dataclass(frozen=True)
class Benchmark:
    """One script.

    Attributes:
        name: what follows ``bench_``.
        told: first line of its docstring.
        quick: arguments of a quick run.
        missing: required packages that are not installed.
    """

    name: str
    told: str
    quick: list[str]
    missing: list[str]


def found() -> dict[str, Benchmark]:
    """Return every script, without importing any."""
    made = {}
    for path in sorted(HERE.glob(f"{PREFIX}*.py")):
        name, text = path.stem.removeprefix(PREFIX), path.read_text("utf-8")
        told = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
        quick = QUICK.get(name, "--quick" if '"--quick"' in text else "").split()
        missing = [package for package in NEEDS.get(name, ()) if find_spec(package) is None]
        made[name] = Benchmark(name, told, quick, missing)
    return made


def run(benchmark: Benchmark, quick: bool, results: Path) -> bool:
    """Run one script as a separate process; return whether it succeeded."""
    arguments = benchmark.quick if quick else []
    module = f"benchmarks.{PREFIX}{benchmark.name}"
    print(f"\n$ python -m {module} {' '.join(arguments)}".rstrip(), flush=True)
    environment = {**os.environ, "MASKFUSE_RESULTS": str(results), "TF_CPP_MIN_LOG_LEVEL": "3"}
    began = perf_counter()
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment)
    verdict = "done" if done.returncode == 0 else f"FAILED with exit code {done.returncode}"
    print(f"{benchmark.name}: {verdict} after {perf_counter() - began:.0f} s", flush=True)
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is requested; return the exit code."""
    there = found()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, list, or some of: {', '.join(there)}")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--quick", action="store_true", help="minutes instead of an hour; rougher figures")
    speed.add_argument("--full", action="store_true", help="the default")
    parser.add_argument("--results", type=Path, help="folder for the tables")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in (*there, "all", "list")]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; choose all, list, {', '.join(there)}")
    if "list" in options.names:
        for benchmark in there.values():
            lacking = f" (needs {', '.join(benchmark.missing)})" if benchmark.missing else ""
            print(f"{benchmark.name:12} {benchmark.told}{lacking}")
        return 0
    results = (options.results or HERE / "results" / ("quick" if options.quick else "")).resolve()
    results.mkdir(parents=True, exist_ok=True)
    wanted = list(there) if "all" in options.names else list(dict.fromkeys(options.names))
    left_out = {name: there[name].missing for name in wanted if there[name].missing}
    failed = [name for name in wanted if name not in left_out and not run(there[name], options.quick, results)]
    for name, missing in left_out.items():
        print(f"{name}: skipped, it needs {', '.join(missing)}: pip install '.[bench]'")
    print(f"tables: {results}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
