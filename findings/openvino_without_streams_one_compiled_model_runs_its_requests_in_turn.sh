#!/usr/bin/env bash
# One would guess: a compiled model serves as many infer requests at once as there are threads that call infer(). With
# NUM_STREAMS 0, where the calling thread computes itself, two threads with a request each would then take two cores.
#
# What happens: the requests of one compiled model take turns; two threads get no more done than one. Each thread needs a
# compiled model of its own. (With streams, requests do run side by side, but in threads that OpenVINO owns.)
#
# Seen with openvino 2026.4.1, numpy 2.4.6, Python 3.11, two cores, on 2026-11-29, runs a second, both threads together:
#   one thread 100 %, two threads with one compiled model 104 %, two threads with a compiled model each 200 %
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openvino==2026.4.1 numpy==2.4.6

cat > turns.py <<'PYTHON'
import os
import sys
from statistics import median
from threading import Thread
from time import perf_counter

import numpy as np
import openvino
from openvino import opset13 as ops

if len(os.sched_getaffinity(0)) < 2:
    sys.exit("needs two cores")

pixels = ops.parameter([4, 16, 64, 64], np.float32)
weights = ops.constant(np.ones((16, 16, 3, 3), np.float32))
out = pixels
for _ in range(4):
    out = ops.relu(ops.convolution(out, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
model = openvino.Model([out], [pixels])
core = openvino.Core()
settings = {"NUM_STREAMS": "0", "INFERENCE_NUM_THREADS": "1"}
images = np.zeros((4, 16, 64, 64), np.float32)


def rate(requests):
    """Return the runs a second of all requests together, each in a thread of its own."""
    counts = [0] * len(requests)
    end = perf_counter() + 1.0

    def work(number):
        while perf_counter() < end:
            requests[number].infer({0: images})
            counts[number] += 1

    threads = [Thread(target=work, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


shared, other = (core.compile_model(model, "CPU", settings) for _ in range(2))
first, second = shared.create_infer_request(), shared.create_infer_request()
third = other.create_infer_request()
rate([first])
ways = {"one thread": [first], "one compiled model": [first, second], "a compiled model each": [first, third]}
rates = {name: [] for name in ways}
for _ in range(5):
    for name, requests in ways.items():
        rates[name].append(rate(requests))
single = median(rates["one thread"])
found = {name: median(held) / single for name, held in rates.items()}
for name, share in found.items():
    print(f"{name}: {share:.0%} of one thread")
if found["one compiled model"] > 1.3 or found["a compiled model each"] < 1.5:
    sys.exit("changed: requests of one compiled model run side by side, or those of two no longer do")
PYTHON
venv/bin/python turns.py
