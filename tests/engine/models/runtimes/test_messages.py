"""Errors of ONNX Runtime as a user reads them: the reason, without the places in its C++ sources."""

from __future__ import annotations

import pytest

from engine.models.runtimes.messages import reason_of

CASES = {
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 "
    "std::conditional_t<THRW, void, Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, ERRTYPE, "
    "const char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true] CUDA failure 100: no CUDA-capable "
    "device is detected ; GPU=-1 ; hostname=node7 ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/"
    "cuda_execution_provider.cc ; line=280 ; expr=cudaSetDevice(info_.device_id);": "CUDA failure 100: no CUDA-capable "
    "device is detected",
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1778 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: cannot open shared object file: No such file "
    "or directory": "Failed to load library libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: cannot "
    "open shared object file: No such file or directory",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
    "Name:'c1' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size "
    "1024": "Non-zero status code returned while running Conv node. Name:'c1' Status Message: Failed to allocate "
    "memory for requested buffer of size 1024",
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions\nfor input": "Got invalid dimensions for input",
}


@pytest.mark.parametrize(("text", "told"), CASES.items(), ids=range(len(CASES)))
def test_the_reason_is_left(text: str, told: str) -> None:
    assert reason_of(RuntimeError(text)) == told


def test_what_is_no_message_of_the_runtime_stays() -> None:
    assert reason_of(OSError("libcudart.so.13: cannot open shared object file")).startswith("libcudart.so.13: cannot")
    assert reason_of(ValueError()) == "ValueError"
    assert len(reason_of(ValueError("x" * 1000))) == 200
