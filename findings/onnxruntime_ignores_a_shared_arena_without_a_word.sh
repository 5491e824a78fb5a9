#!/usr/bin/env bash
# One would guess: a session that asks for the environment's allocator (session.use_env_allocators) fails, or warns, where
# none is registered or where the entry's name is misspelt.
#
# What happens: the session opens, prints no warning, and takes an arena of its own. Whether the shared arena is used shows
# only by a limit: one of 64 KiB, registered with the environment, makes a session fail that really allocates from it, and
# no other.
#
# Versions: Python 3.11, onnx 1.23.2, onnxruntime 1.31.1, numpy 2.4.6. Seen on 2026-11-28:
#   asked, none registered                 ran
#   misspelt, limit of 64 KiB registered   ran
#   not asked, limit of 64 KiB registered  ran
#   asked, limit of 64 KiB registered      failed
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
cd "$work"
cat >one.py <<'PY'
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

entry, limit = sys.argv[1], int(sys.argv[2])
ports = ([helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
         [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])])
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", *ports)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
if limit:
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
    settings = {"max_mem": limit, "arena_extend_strategy": -1, "initial_chunk_size_bytes": -1,
                "max_dead_bytes_per_chunk": -1}
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(settings))
options = onnxruntime.SessionOptions()
options.log_severity_level = 2
if entry:
    options.add_session_config_entry(entry, "1")
session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
try:
    session.run(None, {"x": np.zeros(1 << 20, np.float32)})
    print("ran")
except Exception:
    print("failed")
PY
seen=$(
  venv/bin/python one.py session.use_env_allocators 0 2>>errors
  venv/bin/python one.py session.use_env_allocator 65536 2>>errors
  venv/bin/python one.py "" 65536 2>>errors
  venv/bin/python one.py session.use_env_allocators 65536 2>last
)
echo "$seen"
[ "$seen" = $'ran\nran\nran\nfailed' ]
! grep -i alloc errors
