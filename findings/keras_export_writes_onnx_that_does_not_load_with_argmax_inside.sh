#!/usr/bin/env bash
# One would guess: Model.export(format="onnx") writes a file that onnxruntime loads, or raises.
#
# What happens: on the TensorFlow backend keras.ops.argmax of float32 is more than tf.argmax: it first looks for -0.0,
# with Bitcast and BitwiseAnd. tf2onnx has no translation of the two, logs that, and writes them as they are; export
# returns as usual and the file is refused where it is used.
#
# Versions: Python 3.11, keras 3.15.1, tensorflow 2.21.0, tf2onnx 1.17.0, onnx 1.23.2, onnxruntime 1.31.1.
# Seen on 2026-11-28:
#   without argmax: loads
#   with keras.ops.argmax: InvalidGraph Bitcast BitwiseAnd
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q keras==3.15.1 tensorflow==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.31.1
cd "$work"
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python -W ignore - 2>/dev/null <<'PY'
import sys

import keras
import numpy as np
import onnx
import onnxruntime

seen = []
for argmax in (False, True):
    image = keras.Input((8, 8, 3))
    out = keras.layers.Conv2D(4, 1)(image)
    net = keras.Model(image, keras.ops.argmax(out, axis=-1) if argmax else out)
    net(np.zeros((1, 8, 8, 3), np.float32))
    net.export("net.onnx", format="onnx", verbose=False)
    operators = {node.op_type for node in onnx.load("net.onnx").graph.node}
    try:
        onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
        told = "loads"
    except Exception as error:
        told = type(error).__name__
    foreign = sorted(operators & {"Bitcast", "BitwiseAnd"})
    print(("with keras.ops.argmax" if argmax else "without argmax") + f": {told}", *foreign)
    seen.append((told == "loads", foreign))
sys.exit(seen != [(True, []), (False, ["Bitcast", "BitwiseAnd"])])
PY
