"""Small packages that add to the engine by entry points, put into a folder as pip would install them."""

from __future__ import annotations

from pathlib import Path

MIN_RULE = """
from pathlib import Path

import numpy as np

Path(__file__).with_name("imported").touch()


def min_rule(task):
    logits = task.logits[(task.weights > 0).any(axis=1)]
    terms = np.exp(logits - logits.max(axis=2, keepdims=True))
    scores = (terms / terms.sum(axis=2, keepdims=True)).min(axis=0)
    rule = task.rule()
    scores = scores * rule.gain[:, None] + rule.bias[:, None]
    scores[:, ~rule.allowed] = -np.inf
    task.labels[:] = scores.argmax(axis=1)
"""
# Its kernel is compiled ahead, as those of the built-in strategies are.
FIRST_MEMBER = """
import numpy as np

from engine.kernels.jit import kernel


def first_member(task):
    _first_member(task.logits, task.labels)


@kernel
def _first_member(logits, labels):
    _, batch, classes, pixels = logits.shape
    for b in range(batch):
        for i in range(pixels):
            best = 0
            for c in range(1, classes):
                if logits[0, b, c, i] > logits[0, b, best, i]:
                    best = c
            labels[b, i] = best
"""
REFERENCE = """
import threading

import numpy as np
from onnx.reference import ReferenceEvaluator

from engine.models.runtimes import Runtime


class Session:
    def __init__(self, path):
        self._evaluator, self._lock = ReferenceEvaluator(str(path)), threading.Lock()
        (self.input_name,) = self._evaluator.input_names

    def run(self, output_name, prepared, out=None):
        with self._lock:
            return self._evaluator.run([output_name], {self.input_name: prepared})[0]

    def stop(self): ...

    def resume(self): ...


RUNTIME = Runtime(open=lambda path, precision, workers: Session(path))
"""


def install(
    folder: Path, package: str, entries: dict[str, str], source: str, group: str = "strategies", version: str = "0.1"
) -> Path:
    """Put a package of one module into a folder for PYTHONPATH; return the folder.

    Args:
        folder: where packages lie; made when it is missing.
        package: its name; the module's has underscores instead of hyphens.
        entries: the object of the module that each name stands for.
        source: the module.
        group: the part of the group's name behind ``maskfuse.``.
        version: the package's.
    """
    module = package.replace("-", "_")
    notes = folder / f"{module}-{version}.dist-info"
    notes.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = [f"{name} = {module}:{item}" for name, item in entries.items()]
    (notes / "entry_points.txt").write_text("\n".join([f"[maskfuse.{group}]", *lines, ""]))
    return folder
