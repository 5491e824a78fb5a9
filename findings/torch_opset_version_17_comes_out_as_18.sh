#!/usr/bin/env bash
# One would guess: torch.onnx.export(..., opset_version=17) writes opset 17, or fails where it cannot.
#
# What happens: the default exporter (dynamo=True) translates to opset 18 and converts down afterwards. A net with a
# global average pooling becomes a ReduceMean whose axes are an input, which opset 17 does not have: the file stays at 18
# and the call returns as usual (with a warning in the log). A host that reads up to 17 refuses it. dynamo=False writes 17.
#
# Versions: Python 3.11, torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2. Seen on 2026-11-28:
#   convolution alone, dynamo=True: opset 17
#   with a global pooling, dynamo=True: opset 18
#   with a global pooling, dynamo=False: opset 17
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2
cd "$work"
venv/bin/python -W ignore - 2>/dev/null <<'PY'
import sys

import onnx
import torch

plain = torch.nn.Conv2d(3, 4, 1)
pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(3, 4, 1))
seen = []
for name, net, dynamo in (
    ("convolution alone", plain, True),
    ("with a global pooling", pooled, True),
    ("with a global pooling", pooled, False),
):
    image = torch.rand(1, 3, 8, 8)
    torch.onnx.export(net.eval(), (image,), "net.onnx", opset_version=17, dynamo=dynamo, verbose=False)
    seen.append(onnx.load("net.onnx").opset_import[0].version)
    print(f"{name}, dynamo={dynamo}: opset {seen[-1]}")
sys.exit(seen != [17, 18, 17])
PY
