"""Which provider works is tried, not assumed; asking for one that does not is an error."""

from __future__ import annotations

import os

import pytest

from engine.errors import ModelError, PlanError
from engine.models.runtimes import providers
from engine.models.runtimes.onnxruntime import provider_options
from engine.models.runtimes.providers import TRIAL, Choice, choose_provider


@pytest.fixture
def working(monkeypatch):
    """Say which providers work."""

    def set_working(*names: str) -> None:
        monkeypatch.setattr(providers, "obstacle", lambda name: "" if name in names else f"no {name} here")

    return set_working


def test_the_trial_model_is_what_it_is_said_to_be():
    import onnx
    from onnx import TensorProto, helper

    made = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    assert onnx.load_from_string(TRIAL) == made


def test_auto_says_in_one_line_what_it_took_and_why(working):
    working()
    assert choose_provider("auto") == Choice("cpu", "provider cpu; not cuda or tensorrt: no cuda here")
    working("cuda")
    assert choose_provider("auto").provider == "cuda"
    assert "no tensorrt here" in choose_provider("auto").told
    working("cuda", "tensorrt")
    assert choose_provider("auto").provider == "cuda"
    assert "only when asked for" in choose_provider("auto").told


def test_what_is_asked_for_must_work(working):
    working("cuda")
    assert choose_provider("cuda") == Choice("cuda")
    with pytest.raises(PlanError, match="--provider tensorrt does not work here: no tensorrt here; use --provider cpu"):
        choose_provider("tensorrt")
    working()
    assert choose_provider("cpu") == Choice("cpu")


def test_a_session_that_falls_back_does_not_count(monkeypatch):
    class Fallen:
        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr("engine.models.runtimes.onnxruntime.open_raw", lambda *given: Fallen())
    assert "cannot be loaded" in providers._trial("cuda")

    def refuse(*given):
        raise ModelError("broken\nand more")

    monkeypatch.setattr("engine.models.runtimes.onnxruntime.open_raw", refuse)
    assert providers._trial("cuda") == "broken and more"


def test_the_libraries_that_are_needed_are_asked_from_the_runtime(monkeypatch):
    import onnxruntime

    class Fallen:
        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr("engine.models.runtimes.onnxruntime.open_raw", lambda *given: Fallen())
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime, "cuda_version", "17.3", raising=False)
    told = providers._trial("cuda")
    assert "needs CUDA 17 and cuDNN: pip install 'maskfuse[cuda]'" in told
    assert "TensorRT for the same CUDA" in providers._trial("tensorrt")
    monkeypatch.delattr(onnxruntime, "cuda_version")
    assert "CUDA of the version that it was built for" in providers._trial("cuda")


@pytest.mark.parametrize("kind", [ImportError, AttributeError, TypeError])
def test_whatever_a_broken_installation_raises_is_a_reason(kind, monkeypatch):
    import onnxruntime

    def broken(*given):
        raise kind("module 'numpy' has no attribute 'row_stack'")

    monkeypatch.setattr(providers, "has_driver", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(providers, "_trial", broken)
    providers.obstacle.cache_clear()
    try:
        assert "row_stack" in choose_provider("auto").told
        with pytest.raises(PlanError, match="--provider cuda does not work here: it cannot be tried: module 'numpy'"):
            choose_provider("cuda")
    finally:
        providers.obstacle.cache_clear()


def test_the_graph_on_the_cpu_needs_no_trial(monkeypatch):
    monkeypatch.setattr(providers, "obstacle", lambda name: pytest.fail("tried"))
    assert choose_provider("cpu-graph") == Choice("cpu-graph")


def test_without_a_driver_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(providers, "has_driver", lambda: False)
    monkeypatch.setattr(providers, "_trial", lambda name: pytest.fail("tried"))
    providers.obstacle.cache_clear()
    assert providers.obstacle("cuda")
    providers.obstacle.cache_clear()


def test_float32_leaves_tf32_out_and_less_lets_it_in(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    (name, options), cpu = provider_options("cuda", "bf16")
    assert (name, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["use_tf32"] == "1"
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    (_, options), _ = provider_options("cuda")
    assert (options["use_tf32"], options["cudnn_conv_algo_search"]) == ("0", "HEURISTIC")
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    (name, options), *_ = provider_options("tensorrt", "int8")
    assert name == "TensorrtExecutionProvider"
    assert (options["trt_engine_cache_enable"], options["trt_int8_enable"]) == ("1", "1")
    assert (tmp_path / "maskfuse" / "tensorrt").is_dir()


def test_two_wheels_of_onnx_runtime_at_once_are_said_in_one_line(monkeypatch, tmp_path, world, engine):
    """They overwrite each other's files: which of them runs is chance."""
    folder = tmp_path / "site"
    for name, version in (("onnxruntime", "1.20"), ("onnxruntime_gpu", "1.31")):
        notes = folder / f"{name}-{version}.dist-info"
        notes.mkdir(parents=True)
        (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    providers.mixed_wheels.cache_clear()
    monkeypatch.syspath_prepend(str(folder))
    told = "warning: onnxruntime 1.20 and onnxruntime-gpu 1.31 are installed at once and overwrite each other's files"
    for command in (("inspect", world.models), ("ensemble", "-m", world.models, "-i", world.images_file)):
        done = engine(*command, *(("-o", tmp_path / "m.npy") if command[0] == "ensemble" else ()))
        assert done.code == 0
        assert sum(line.startswith(told) for line in done.err.splitlines()) == 1
    providers.mixed_wheels.cache_clear()
