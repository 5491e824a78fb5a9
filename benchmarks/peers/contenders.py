"""The contenders of bench_peers: ways to run several nets over a test set, each in a separate process.

Every peer follows its documentation, with its own thread defaults and the fastest of a few batch
sizes. All end in the same: mean logits, the ignored class suppressed, uint8 labels in an .npy file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

BATCH_SIZES = (4, 16, 32)
# Logits of this many images are kept at a time.
CHUNK = 256
Runner = Callable[[np.ndarray, np.ndarray], None]


def scaled(images: np.ndarray) -> np.ndarray:
    """Return float32 (n, 1, height, width) in 0..1."""
    return images.astype(np.float32)[:, None] / np.float32(255)


class Ours:
    """This project, through its own entry points."""

    def __init__(self, runtime: str, precision: str) -> None:
        self.runtime, self.precision = runtime, precision

    def load(self, folder: Path, names: Sequence[str], images: np.ndarray) -> str:
        from engine.inference.ensemble import Ensemble
        from engine.inference.tuning import tune
        from engine.models.runtimes import RuntimeOptions
        from engine.sources.base import from_array
        from engine.sources.slices import repeated

        self.ensemble = Ensemble.open([folder / f"{name}.onnx" for name in names], sample=images[0][..., None])
        # The warm-up of a run over the whole test set; its seconds are not part of the rounds, as no peer's are.
        source = repeated(from_array(images), 10_022)
        self.how = tune(self.ensemble, source, RuntimeOptions("cpu", self.runtime, self.precision))
        told = "; ".join(self.how.told)
        return f"batches of {self.how.batch_size}, {self.how.workers} workers, warm-up {self.how.seconds:.1f} s. {told}"

    def predict(self, images: np.ndarray, output: Path) -> None:
        from engine.outputs.open import open_writer
        from engine.runs.predict import run
        from engine.sources.base import from_array

        source = from_array(images)
        with open_writer(output, source.ids, source.size, len(self.ensemble.classes), overwrite=True) as writer:
            run(self.ensemble, source, writer, batch_size=self.how.batch_size, workers=self.how.workers)


class Plain:
    """Nets in sequence over a chunk of images, their logits summed and decoded with NumPy."""

    def load(self, folder: Path, names: Sequence[str], images: np.ndarray) -> str:
        self.nets = [self.open(folder, name) for name in names]
        sample, timed = scaled(images[: max(BATCH_SIZES)]), {}
        for size in BATCH_SIZES:
            runners = [self.at(net, size) for net in self.nets]
            total = np.zeros((len(sample), 5, *sample.shape[2:]), np.float32)
            for _ in range(2):
                began = perf_counter()
                for runner in runners:
                    runner(sample, total)
                timed[size] = perf_counter() - began
        best = min(timed, key=timed.__getitem__)
        self.runners = [self.at(net, best) for net in self.nets]
        return f"batches of {best}"

    def open(self, folder: Path, name: str) -> Any:
        raise NotImplementedError

    def at(self, net: Any, size: int) -> Runner:
        """Return what adds a net's logits of any number of images to a sum, ``size`` images at a time."""
        raise NotImplementedError

    def predict(self, images: np.ndarray, output: Path) -> None:
        labels = np.empty(images.shape, np.uint8)
        for start in range(0, len(images), CHUNK):
            part = scaled(images[start : start + CHUNK])
            total = np.zeros((len(part), 5, *part.shape[2:]), np.float32)
            for runner in self.runners:
                runner(part, total)
            total[:, 0] = -np.inf
            labels[start : start + CHUNK] = total.argmax(axis=1)
        np.save(output, labels)


class OnnxRuntime(Plain):
    """onnxruntime.InferenceSession(path) and session.run, as its page shows."""

    def open(self, folder: Path, name: str) -> Any:
        import onnxruntime

        return onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])

    def at(self, net: Any, size: int) -> Runner:
        feed = net.get_inputs()[0].name

        def add(images: np.ndarray, total: np.ndarray) -> None:
            for start in range(0, len(images), size):
                total[start : start + size] += net.run(None, {feed: images[start : start + size]})[0]

        return add


class Keras(Plain):
    """model.predict of the .keras file."""

    def open(self, folder: Path, name: str) -> Any:
        from exporters.archive import load_net

        return load_net(folder / f"{name}.keras")

    def at(self, net: Any, size: int) -> Runner:
        def add(images: np.ndarray, total: np.ndarray) -> None:
            found = net.predict(images.transpose(0, 2, 3, 1), batch_size=size, verbose=0)
            total += np.asarray(found).transpose(0, 3, 1, 2)

        return add


class Torch(Plain):
    """The same graph in torch's own operators, traced, frozen and optimised for inference."""

    def open(self, folder: Path, name: str) -> Any:
        import torch

        from benchmarks.peers.onnx_torch import GraphModule

        torch.set_grad_enabled(False)
        return GraphModule(folder / f"{name}.onnx").eval()

    def at(self, net: Any, size: int) -> Runner:
        import torch

        traced = torch.jit.trace(net, torch.zeros(size, 1, 64, 128))
        compiled = torch.jit.optimize_for_inference(torch.jit.freeze(traced))

        def add(images: np.ndarray, total: np.ndarray) -> None:
            with torch.inference_mode():
                for start in range(0, len(images), size):
                    part = images[start : start + size]
                    # Traced for one batch size: the last batch is padded.
                    fed = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), np.float32)])
                    total[start : start + size] += compiled(torch.from_numpy(fed)).numpy()[: len(part)]

        return add


class OpenVino(Plain):
    """OpenVINO's asynchronous queue with the throughput hint; with ``ending``, on the files NAME + ending."""

    def __init__(self, precision: str, ending: str = "") -> None:
        self.precision, self.ending = precision, ending

    def open(self, folder: Path, name: str) -> Any:
        import openvino

        return openvino.Core().read_model(folder / f"{name}{self.ending}.onnx")

    def at(self, net: Any, size: int) -> Runner:
        import openvino

        model = net.clone()
        model.reshape({model.inputs[0]: [size, 1, 64, 128]})
        hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": self.precision}
        queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", hints))

        def add(images: np.ndarray, total: np.ndarray) -> None:
            def take(request: Any, start: int) -> None:
                output = total[start : start + size]
                output += request.get_output_tensor(0).data[: len(output)]

            queue.set_callback(take)
            for start in range(0, len(images), size):
                part = images[start : start + size]
                fed = part if len(part) == size else np.resize(part, (size, *part.shape[1:]))
                queue.start_async({0: fed}, start)
            queue.wait_all()

        return add


CONTENDERS: dict[str, Callable[[], Any]] = {
    "maskfuse": lambda: Ours("onnxruntime", "float32"),
    "maskfuse --runtime openvino": lambda: Ours("openvino", "float32"),
    "maskfuse --runtime auto": lambda: Ours("auto", "float32"),
    "maskfuse --runtime auto --precision bf16": lambda: Ours("auto", "bf16"),
    "maskfuse --runtime auto --precision int8": lambda: Ours("auto", "int8"),
    "Keras predict + NumPy": Keras,
    "ONNX Runtime + NumPy": OnnxRuntime,
    "PyTorch + NumPy": Torch,
    "OpenVINO async float32 + NumPy": lambda: OpenVino("f32"),
    "OpenVINO async bf16 + NumPy": lambda: OpenVino("bf16"),
    "OpenVINO async int8 + NumPy": lambda: OpenVino("f32", "_int8"),
}
