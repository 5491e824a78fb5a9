#!/usr/bin/env bash
# One would guess: iterating a tf.data.Dataset ends when its last element was used; autotuning may change the speed
# between elements, but has nothing to wait for.
#
# What happens: with prefetch(AUTOTUNE) a thread looks at the pipeline after 10 ms and then after twice the pause each
# time: 0.63, 1.27, 2.55, 5.11, 10.2, 20.5 s after the start. Dropping the iterator sometimes waits for the next look,
# so a loop of 0.85 s takes 1.27 s in about a third of the rounds. An epoch of 16 s takes 20.5 s: Keras 3 puts a
# PyDataset with workers=1 (its default) into such a pipeline, and epochs of any network come out at the same few
# durations. With workers=2, or autotune.enabled = False, nothing waits.
#
# Versions: Python 3.11, tensorflow 2.21.0.
# Seen on 2026-11-29:
#   autotune on: 9 of 30 loops waited, 0.39 s on average
#   autotune off: 0 of 30 loops waited
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q tensorflow==2.21.0
cd "$work"
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python -W ignore - 2>/dev/null <<'PY'
import sys
import time

import numpy as np
import tensorflow as tf


def elements():
    for _ in range(20):
        yield np.zeros(3, np.float32)


waited = {}
for autotune in (True, False):
    pipeline = tf.data.Dataset.from_generator(elements, output_signature=tf.TensorSpec((3,), tf.float32))
    pipeline = pipeline.prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.autotune.enabled = autotune
    pipeline = pipeline.with_options(options)
    waits = []
    for _ in range(30):
        iterator = iter(pipeline)
        for _ in iterator:
            time.sleep(0.04)
        done = time.perf_counter()
        del iterator
        waits.append(time.perf_counter() - done)
    waited[autotune] = [wait for wait in waits if wait > 0.1]
    told = f"{len(waited[autotune])} of {len(waits)} loops waited"
    if waited[autotune]:
        told += f", {sum(waited[autotune]) / len(waited[autotune]):.2f} s on average"
    print(f"autotune {'on' if autotune else 'off'}: {told}")
sys.exit(not waited[True] or bool(waited[False]))
PY
