"""Strategies and runtimes of other packages: found by name, in every process; what is broken in them is one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from engine.cli.options import STRATEGY_NAMES, Runtime
from engine.fusion.strategies import STRATEGIES
from engine.models.runtimes import AUTO, RUNTIMES
from tests.conftest import ROOT, Result
from tests.helpers.packages import FIRST_MEMBER, MIN_RULE, REFERENCE, install
from tests.helpers.world import World


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


def started(site: Path, *arguments: object, cwd: Path | None = None, code: str = "") -> Result:
    """Run ``engine ARGUMENTS`` (or some code) in a process that finds the packages of a folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    words = ["-c", code] if code else ["-m", "engine.cli"]
    command = [sys.executable, *words, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd or site.parent, env=environment, capture_output=True, text=True, timeout=300)
    return Result(done.returncode, done.stdout, done.stderr)


def ensemble(site: Path, world: World, *options: object) -> Result:
    more = ("--overwrite", "--provider", "cpu", *options)
    return started(site, "ensemble", "-m", world.models, "-i", world.images_file, "-o", "masks.npy", *more)


def record(site: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((site.parent / "masks.npy.json").read_text())
    return read


def min_rule_labels(world: World) -> np.ndarray:
    from engine import Ensemble
    from engine.sources.base import from_array
    from tests.helpers.reference import softmax

    opened = Ensemble.open(world.models)
    labels = []
    for batch in from_array(world.images).batches(1):
        scores = softmax(opened.logits(batch)[0]).min(axis=0)
        scores[:, sorted(opened.variant.decoding.suppress)] = -1
        labels.append(scores.argmax(axis=1))
    return np.concatenate(labels).reshape(world.labels.shape)


def test_a_strategy_of_another_package_predicts_and_is_in_the_plan(site: Path, world: World) -> None:
    install(site, "maskfuse-min-rule", {"min-rule": "min_rule"}, MIN_RULE)
    done = ensemble(site, world, "--strategy", "min-rule", "--labels", world.labels_file)
    assert done.code == 0, done.err
    agreement = (np.load(site.parent / "masks.npy") == min_rule_labels(world)).mean()
    assert agreement > 0.999  # float32 against float64
    assert "min-rule" in done.out
    plan = record(site)["plan"]
    assert plan["strategy"] == "min-rule"
    assert plan["added_by"] == {"strategy": "maskfuse-min-rule 0.1"}
    (site.parent / "plan.toml").write_text(f'strategy = "min-rule"\n[[members]]\nmodel = "{world.models}"\n')
    before, kept = record(site)["plan_sha256"], (site.parent / "masks.npy").read_bytes()
    again = started(site, "ensemble", "--plan", "plan.toml", "-i", world.images_file, "-o", "masks.npy", "--overwrite")
    assert again.code == 0, again.err
    assert record(site)["plan_sha256"] == before
    assert (site.parent / "masks.npy").read_bytes() == kept


def test_the_plan_of_another_version_of_the_package_is_another_one(world: World, tmp_path: Path) -> None:
    hashes = set()
    for version in ("0.1", "0.2"):
        site = install(tmp_path / version / "site", "x-min", {"min-rule": "min_rule"}, MIN_RULE, version=version)
        assert ensemble(site, world, "--strategy", "min-rule").code == 0
        hashes.add(record(site)["plan_sha256"])
    assert len(hashes) == 2


def test_a_built_in_name_cannot_be_replaced_and_nothing_is_loaded_for_it(site: Path, world: World) -> None:
    install(site, "x-vote", {"vote": "min_rule", "min-rule": "min_rule"}, MIN_RULE)
    install(site, "x-runtime", {"onnxruntime": "min_rule", "auto": "min_rule"}, MIN_RULE, "runtimes")
    assert ensemble(site, world, "--strategy", "vote").code == 0
    assert "added_by" not in record(site)["plan"]
    with_packages = (site.parent / "masks.npy").read_bytes()
    assert not (site / "imported").exists()
    assert ensemble(site.parent / "empty", world, "--strategy", "vote").code == 0
    assert (site.parent / "masks.npy").read_bytes() == with_packages


def test_help_names_every_built_in_strategy_and_runtime() -> None:
    assert re.sub(r" or |, ", " ", STRATEGY_NAMES.rstrip(".")).replace(" (default)", "").split() == list(STRATEGIES)
    (option,) = (item for item in get_args(Runtime) if hasattr(item, "help"))
    assert {AUTO, *RUNTIMES} <= set(re.findall(r"[\w-]+", option.help))


def test_help_and_errors_list_what_packages_add(site: Path, world: World) -> None:
    install(site, "x-min", {"min-rule": "min_rule", "vote": "min_rule"}, MIN_RULE)
    install(site, "x-slow", {"reference": "RUNTIME"}, REFERENCE, "runtimes")
    for command in ("ensemble", "bench"):
        shown = " ".join(started(site, command, "--help").out.replace("│", " ").split())
        assert "trimmed-mean or staple. From other packages: min-rule." in shown
        assert "measured as faster. From other packages: reference." in shown
    unknown = ensemble(site, world, "--strategy", "max-rule")
    assert unknown.code == 2
    assert unknown.err == f"error: unknown strategy 'max-rule'; allowed are {', '.join(STRATEGIES)}, min-rule\n"
    unknown = ensemble(site, world, "--runtime", "tvm")
    assert unknown.err == "error: unknown runtime 'tvm'; allowed are auto, onnxruntime, openvino, reference\n"
    assert not (site / "imported").exists()


BROKEN = {
    "import fails": ("raise ValueError('no such device\\nsecond line')", "ValueError: no such device"),
    "a package is missing": ("import no_such_package", "No module named 'no_such_package'"),
    "it leaves": ("raise SystemExit(3)", "SystemExit: 3"),
    "nothing there": ("", "has no attribute 'item'"),
    "no function": ("item = 5", "is a int; a "),
    "fails in the run": ("def item(task): task.labels[:] = task.nothing", "AttributeError: "),
    "no such label": ("def item(task): task.labels[:] = 200", "gives label 200; allowed are 0 to 4"),
    "a suppressed label": ("def item(task): task.labels[:] = 0", "gives label 0, which is suppressed"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_strategy_is_one_line_that_names_its_package(case: str, site: Path, world: World) -> None:
    source, expected = BROKEN[case]
    install(site, "x-broken", {"broken": "item"}, source)
    done = ensemble(site, world, "--strategy", "broken")
    assert done.code == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("error: strategy broken of package x-broken 0.1 ")
    assert expected in done.err
    assert [path.name for path in site.parent.iterdir()] == ["site"]


def test_two_packages_with_one_name_are_refused(site: Path, world: World) -> None:
    for package in ("x-one", "x-two"):
        install(site, package, {"min-rule": "min_rule"}, MIN_RULE)
    done = ensemble(site, world, "--strategy", "min-rule")
    assert done.code == 2
    assert done.err == (
        "error: strategy min-rule is added by x-one 0.1 and x-two 0.1: uninstall all packages but one\n"
    )


def test_metadata_that_cannot_be_read_is_one_line(site: Path, world: World) -> None:
    install(site, "x-min", {"min-rule": "min_rule"}, MIN_RULE)
    (site / "x_min-0.1.dist-info" / "entry_points.txt").write_bytes(b"[maskfuse.strategies]\n\xff = a:b\n")
    done = ensemble(site, world, "--strategy", "min-rule")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert done.err.startswith("error: cannot read the entry points of the installed packages (UnicodeDecodeError")
    assert "--strategy" in started(site, "ensemble", "--help").out


def test_a_runtime_of_another_package_runs_the_nets(site: Path, world: World) -> None:
    install(site, "x-slow", {"reference": "RUNTIME"}, REFERENCE, "runtimes")
    assert ensemble(site, world).code == 0
    expected = np.load(site.parent / "masks.npy")
    done = ensemble(site, world, "--runtime", "reference")
    assert done.code == 0, done.err
    assert (np.load(site.parent / "masks.npy") == expected).mean() > 0.999  # it rounds differently
    kept = record(site)
    assert kept["plan"]["arithmetic"] == {"runtime": "reference", "precision": "float32"}
    assert kept["plan"]["added_by"] == {"runtime": "x-slow 0.1"}
    assert {member["runtime"] for member in kept["members"]} == {"reference"}
    refused = ensemble(site, world, "--runtime", "reference", "--provider", "cuda")
    assert refused.code == 2
    assert "--runtime reference runs on the CPU" in refused.err


BROKEN_RUNTIME = {
    "no runtime": ("RUNTIME = print", "runtime slow of package x-slow 0.1 is a builtin_function_or_method"),
    "opening fails": (
        REFERENCE.replace("Session(path)", "Session(path, 5)"),
        "runtime slow of package x-slow 0.1 cannot open ",
    ),
    "running fails": (REFERENCE.replace("[0]\n", "[7]\n"), "runtime slow of package x-slow 0.1 cannot run "),
}


@pytest.mark.parametrize("case", BROKEN_RUNTIME)
def test_a_broken_runtime_is_one_line_that_names_its_package(case: str, site: Path, world: World) -> None:
    source, expected = BROKEN_RUNTIME[case]
    install(site, "x-slow", {"slow": "RUNTIME"}, source, "runtimes")
    done = ensemble(site, world, "--runtime", "slow")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert expected in done.err


COMPILING = """
import sys
from engine.fusion import compiling
compiling.WORTH_SHARING = 2
compiling.available_cores = lambda: 2
compiling.LONG = ("first",)  # which the second process then takes
compiling.compile_kernels({"mean-logit", "first"}, 5)
from x_first import _first_member
print(compiling.not_compiled(["mean-logit", "first"]), sum(_first_member.stats.cache_hits.values()) > 0)
"""


def test_the_process_that_compiles_ahead_finds_the_package(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "x-first", {"first": "first_member"}, FIRST_MEMBER)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    # A PYTHONPATH that means something in this folder alone.
    done = started(Path("site"), cwd=tmp_path, code=COMPILING)
    assert done.out.split() == ["[]", "True"], done.err


ACTOR = """
import json, os, sys
from engine.models.runtimes import RuntimeOptions
from engine.runs.on_ray.predictor import Predictor
from engine.runs.options import Options
models, images, plan_sha256 = sys.argv[1:]
options = Options(models=(models,), input=images, strategy="min-rule")
import numpy as np
actor = Predictor(options, RuntimeOptions("cpu"), 2, plan_sha256, False)
row = actor({"start": np.array([0]), "count": np.array([4])})
print(json.dumps([row["error"][0], list(row["labels"][0])]))
"""


def test_a_worker_of_a_cluster_finds_the_package(site: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor in a process and a folder of its own, given the PYTHONPATH that a run hands to Ray."""
    from engine.utils.plugins import search_path

    install(site, "x-min", {"min-rule": "min_rule"}, MIN_RULE)
    assert ensemble(site, world, "--strategy", "min-rule").code == 0
    monkeypatch.chdir(site.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["site", str(ROOT)]))
    path = search_path()
    assert path.split(os.pathsep) == [str(ROOT), str(site)]
    arguments = [world.models, world.images_file, record(site)["plan_sha256"]]
    for searched, expected in ((path, ""), (str(ROOT), "unknown strategy 'min-rule'; allowed are mean-logit, ")):
        done = subprocess.run(
            [sys.executable, "-c", ACTOR, *map(str, arguments)],
            cwd="/",
            env={**os.environ, "PYTHONPATH": searched},
            capture_output=True,
            text=True,
        )
        error, labels = json.loads(done.stdout)
        assert error.startswith(expected)
        assert bool(error) == bool(expected), error
        if not error:
            masks = np.load(site.parent / "masks.npy")
            np.testing.assert_array_equal(np.array(labels, np.uint8), masks[:4].ravel())
