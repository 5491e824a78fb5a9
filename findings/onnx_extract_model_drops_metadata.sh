#!/usr/bin/env bash
# One would guess: onnx.utils.extract_model, asked for the whole graph from its inputs to its outputs, gives back the
# same model. Class names, scaling and the like stand in the file's metadata_props.
#
# What happens: the nodes are the same, metadata_props is empty, nothing is said.
#
# Versions: Python 3.11, onnx 1.23.2. Seen on 2026-11-28:
#   ['Relu', 'Neg'] {'names': 'road,tree'} -> ['Relu', 'Neg'] {}
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnx==1.23.2
cd "$work"
venv/bin/python - <<'PY'
import sys

import onnx
from onnx import TensorProto, helper

values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "z")]
nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
model = helper.make_model(helper.make_graph(nodes, "net", values[:1], values[1:]))
helper.set_model_props(model, {"names": "road,tree"})
onnx.save(model, "whole.onnx")
onnx.utils.extract_model("whole.onnx", "part.onnx", ["x"], ["z"])


def facts(path):
    model = onnx.load(path)
    return [node.op_type for node in model.graph.node], {entry.key: entry.value for entry in model.metadata_props}


before, after = facts("whole.onnx"), facts("part.onnx")
print(*before, "->", *after)
sys.exit(before != (["Relu", "Neg"], {"names": "road,tree"}) or after != (["Relu", "Neg"], {}))
PY
