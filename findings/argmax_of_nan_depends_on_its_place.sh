#!/usr/bin/env bash
# One would guess: ArgMax of scores that hold a NaN gives the NaN's place, as NumPy and the reference implementation of
# ONNX do, or at least treats it alike wherever it stands.
#
# What happens: onnxruntime and OpenVINO start from the first score and take what is greater. A NaN in the first place
# wins over everything (class 0), since nothing is greater than it; in any other place it is passed over as if it were
# the least. A net that computes NaN thus labels its pixels with class 0 or with the best of the rest, without an error.
#
# Versions: Python 3.11, onnx 1.23.2, onnxruntime 1.31.1, openvino 2026.4.1, numpy 2.4.6. Seen on 2026-11-28:
#   scores           numpy  onnx reference  onnxruntime  openvino
#   nan   1   2          0               0            0         0
#     1 nan   2          1               1            2         2
#     2   1 nan          2               2            0         0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.31.1 openvino==2026.4.1 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

nan = np.nan
scores = np.array([[nan, 1, 2], [1, nan, 2], [2, 1, nan]], np.float32)
ports = (
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
    [helper.make_tensor_value_info("y", TensorProto.INT64, ["N"])],
)
graph = helper.make_graph([helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)], "net", *ports)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.save(model, "net.onnx")
session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
compiled = openvino.Core().compile_model("net.onnx", "CPU")
found = {
    "numpy": np.argmax(scores, axis=1),
    "onnx reference": ReferenceEvaluator(model).run(None, {"x": scores})[0],
    "onnxruntime": session.run(None, {"x": scores})[0],
    "openvino": compiled(scores)[0],
}
print(f"{'scores':15}", *(f"{name:>{len(name) + 1}}" for name in found))
for row, values in enumerate(scores):
    text = " ".join(f"{value:3.0f}" for value in values)
    print(f"{text:15}", *(f"{labels[row]:{len(name) + 1}}" for name, labels in found.items()))
seen = {name: labels.tolist() for name, labels in found.items()}
sys.exit(list(seen.values()) != [[0, 1, 2], [0, 1, 2], [0, 2, 0], [0, 2, 0]])
PY
