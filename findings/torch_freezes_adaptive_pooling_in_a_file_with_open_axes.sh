#!/usr/bin/env bash
# One would guess: a net that torch.onnx.export writes with dynamic height and width computes what torch computes at
# every size, or the export fails. AdaptiveAvgPool2d(k) is part of PSPNet and UPerNet.
#
# What happens: the default exporter (dynamo=True) writes the windows of the size it traced. Where k divides the traced
# size there is an AveragePool of a fixed kernel, elsewhere gathers of a fixed number of pixels. The file declares open
# height and width, exports without a warning and runs at other sizes, with other values. Only k = 1 is right.
#
# Versions: Python 3.11, torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2, onnxruntime 1.31.1. Seen on 2026-11-28
# (largest difference from torch for an input in 0..1; traced at 12x16):
#   k=1 open axes: True, at 12x16: 0.00, at 24x32: 0.00
#   k=2 open axes: True, at 12x16: 0.00, at 24x32: 0.08
#   k=6 open axes: True, at 12x16: 0.00, at 24x32: 0.43
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2 onnxruntime==1.31.1
cd "$work"
venv/bin/python -W ignore - 2>/dev/null <<'PY'
import sys

import onnxruntime
import torch
from torch.nn.functional import interpolate


class Pyramid(torch.nn.Module):
    def __init__(self, bins):
        super().__init__()
        self.pool = torch.nn.AdaptiveAvgPool2d(bins)

    def forward(self, x):
        return interpolate(self.pool(x), size=x.shape[2:], mode="bilinear", align_corners=False)


torch.manual_seed(0)
open_axis = torch.export.Dim.DYNAMIC
seen = []
for bins in (1, 2, 6):
    net = Pyramid(bins).eval()
    axes = ({0: open_axis, 2: open_axis, 3: open_axis},)
    torch.onnx.export(net, (torch.rand(2, 3, 12, 16),), "net.onnx", dynamic_shapes=axes, verbose=False)
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    declared = all(isinstance(port.shape[axis], str) for axis in (0, 2, 3))
    worst = []
    for size in ((12, 16), (24, 32)):
        image = torch.rand(1, 3, *size)
        there = torch.from_numpy(session.run(None, {port.name: image.numpy()})[0])
        worst.append(float((there - net(image)).abs().max()))
    print(f"k={bins} open axes: {declared}, at 12x16: {worst[0]:.2f}, at 24x32: {worst[1]:.2f}")
    seen.append((declared, worst[0] < 1e-5, worst[1] < 1e-5))
sys.exit(seen != [(True, True, True), (True, True, False), (True, True, False)])
PY
