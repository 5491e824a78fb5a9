#!/usr/bin/env bash
# One would guess: workers of a PyDataset only say how many threads prepare its batches; each batch is trained on once
# an epoch, in order (shuffle=False).
#
# What happens: on JAX the first fit of a network takes a batch to build it, and then starts the epoch anew. What the
# threads had prepared by then stays in the queue and comes first: of 30 batches the first eleven or so are trained on
# twice, as many at the end never, and the batch taken for building is late. Nothing is said; loss and progress look
# right. The second fit is right, and so is the first one with workers=1 (the default) or on TensorFlow.
#
# Versions: Python 3.11, keras 3.15.1, jax 0.10.2.
# Seen on 2026-11-29:
#   workers=1, first fit: 30 of 30 batches, in order: True
#   workers=2, first fit: 19 of 30 batches, in order: False
#   workers=2, second fit: 30 of 30 batches, in order: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q keras==3.15.1 jax==0.10.2
cd "$work"
KERAS_BACKEND=jax JAX_PLATFORMS=cpu venv/bin/python -W ignore - <<'PY'
import sys

import keras
import numpy as np

BATCHES = 30


class Numbered(keras.utils.PyDataset):
    """Batches whose target is their own number, so that the loss of a network that says 0 tells which it was."""

    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        return np.zeros((2, 1), np.float32), np.full((2, 1), index, np.float32)


class Seen(keras.callbacks.Callback):
    """The numbers of the batches, from the running mean of their losses."""

    def on_epoch_begin(self, epoch, logs=None):
        self.numbers, self.sum = [], 0.0

    def on_train_batch_end(self, batch, logs=None):
        total = logs["loss"] * (batch + 1)
        self.numbers.append(round(total - self.sum))
        self.sum = total


def told(net, workers):
    seen = Seen()
    net.fit(Numbered(workers=workers), shuffle=False, verbose=0, callbacks=[seen])
    return len(set(seen.numbers)), seen.numbers == list(range(BATCHES))


def network():
    image = keras.Input((1,))
    net = keras.Model(image, keras.layers.Dense(1, kernel_initializer="zeros")(image))
    net.compile(optimizer=keras.optimizers.SGD(0.0), loss="mae")
    return net


one, two = network(), network()
found = {"workers=1, first fit": told(one, 1), "workers=2, first fit": told(two, 2), "workers=2, second fit": told(two, 2)}
for name, (different, ordered) in found.items():
    print(f"{name}: {different} of {BATCHES} batches, in order: {ordered}")
right, wrong, again = found.values()
sys.exit(right != (BATCHES, True) or wrong[0] == BATCHES or again != (BATCHES, True))
PY
