#!/usr/bin/env bash
# One would guess: ultralytics.YOLO is a torch.nn.Module, so torch.onnx.export takes it, and a module that holds it goes
# into evaluation mode by .eval() as every module does.
#
# What happens: its train() is its own command that trains. PyTorch sets modes by calling train(mode), with False for
# evaluation: the exporter without dynamo does so with what it is given, and .eval() of a module does so with each of its
# children. Both therefore ask for a trainer and its default data set, and would download that. Its own .eval() is
# overridden and does not. What both are meant for is the net inside, at .model.
#
# Versions: Python 3.11, torch 2.13.0, ultralytics 8.4.190. Seen on 2026-11-28 (the trainer is replaced by an error, so
# that nothing is downloaded and no epoch runs):
#   a torch.nn.Module: True
#   .eval(): done
#   Sequential(model).eval(): a trainer is asked for
#   torch.onnx.export(model, dynamo=False): a trainer is asked for
#   torch.onnx.export(model.model, dynamo=False): done
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 ultralytics==8.4.190 onnx opencv-python-headless
# It asks for the OpenCV with windows, which needs libraries of a desktop.
"$work/venv/bin/pip" uninstall -q -y opencv-python
"$work/venv/bin/pip" install -q --force-reinstall --no-deps opencv-python-headless
cd "$work"
export YOLO_AUTOINSTALL=false YOLO_OFFLINE=true YOLO_VERBOSE=false YOLO_CONFIG_DIR="$work"
venv/bin/python -W ignore - <<'PY'
import sys

import torch
import ultralytics
from ultralytics.engine.model import Model

net = ultralytics.YOLO("yolo11n.yaml")
load = Model._smart_load


def told(self, key):
    if key == "trainer":
        raise RuntimeError("a trainer is asked for")
    return load(self, key)


def export(module):
    torch.onnx.export(module, (torch.zeros(1, 3, 64, 64),), "net.onnx", dynamo=False)


Model._smart_load = told
seen = [f"a torch.nn.Module: {isinstance(net, torch.nn.Module)}"]
for name, call in (
    (".eval()", net.eval),
    ("Sequential(model).eval()", torch.nn.Sequential(net).eval),
    ("torch.onnx.export(model, dynamo=False)", lambda: export(net)),
    ("torch.onnx.export(model.model, dynamo=False)", lambda: export(net.model)),
):
    try:
        call()
        seen.append(f"{name}: done")
    except RuntimeError as error:
        seen.append(f"{name}: {error}")
print(*seen, sep="\n")
expected = [
    "a torch.nn.Module: True",
    ".eval(): done",
    "Sequential(model).eval(): a trainer is asked for",
    "torch.onnx.export(model, dynamo=False): a trainer is asked for",
    "torch.onnx.export(model.model, dynamo=False): done",
]
sys.exit(seen != expected)
PY
