"""Many training steps in one compiled call: for JAX on a GPU or TPU, where a small network waits for the host.

Keras calls its compiled step once a batch, and after each call the host hands a few hundred arrays over again; a small
network's step takes less than that. Here a chunk of batches goes to the device as uint8 while the chunk before it is
computed, and one loop of XLA runs Keras' own step over it. Batches, steps and results are those of ``Model.fit``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import keras
import numpy as np

from trainers.batches import WORKERS, Batches
from trainers.contract import SCALE

#: Batches of a call. A chunk of 32 times 32 tiles of 64x128 is 17 MB.
CHUNK = 32

EpochRun = Callable[[Batches, Sequence[keras.callbacks.Callback]], float]


def epoch_of(trained: keras.Model) -> EpochRun:
    """Return what trains a compiled network for one epoch and returns its mean loss, as the backend does it best."""
    return CompiledSteps(trained) if on_accelerator() else _Fit(trained)


def on_accelerator() -> bool:
    """Return whether the backend is JAX on a GPU or TPU."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    # XLA's code for a CPU computes the convolutions of a loop in one thread.
    return bool(jax.default_backend() != "cpu")


class _Fit:
    """An epoch by ``Model.fit``."""

    def __init__(self, trained: keras.Model) -> None:
        self.trained = trained

    def __call__(self, batches: Batches, calls: Sequence[keras.callbacks.Callback]) -> float:
        span = {"initial_epoch": batches.epoch, "epochs": batches.epoch + 1}
        done = self.trained.fit(batches, **span, shuffle=False, verbose=0, callbacks=list(calls))
        return float(done.history["loss"][-1])


class CompiledSteps:
    """An epoch by calls of :data:`CHUNK` steps each.

    Args:
        trained: a compiled network; the backend must be JAX.
    """

    def __init__(self, trained: keras.Model) -> None:
        import jax

        self.trained = trained
        self._steps = jax.jit(self._loop)

    def __call__(self, batches: Batches, calls: Sequence[keras.callbacks.Callback]) -> float:
        """Train for one epoch; the state returns to the network's variables at its end.

        Args:
            batches: the tiles of the epoch.
            calls: told of the beginning and the end of the epoch, and of each call's last step.

        Returns:
            The mean loss.
        """
        trained = self.trained
        listening = keras.callbacks.CallbackList(list(calls), model=trained)
        trained.reset_metrics()
        listening.on_epoch_begin(batches.epoch)
        groups = self._variables()
        state = tuple([variable.value for variable in group] for group in groups)
        before, steps = None, 0
        for images, targets, count in _ahead(batches):
            state, loss = self._steps(state, images, targets, count)
            if before is not None:
                # One call waits behind the one that is computed, so that a large epoch does not fill the device.
                before.block_until_ready()
                listening.on_train_batch_end(steps - 1)
            before, steps = loss, steps + count
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        listening.on_train_batch_end(len(batches) - 1)
        # As in Keras: what is told of the end still sees the raw weights, before their average replaces them.
        listening.on_epoch_end(batches.epoch)
        trained.optimizer.finalize_variable_values(trained.trainable_weights)
        return float(loss)

    def _variables(self) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        trained = self.trained
        return (
            trained.trainable_variables,
            trained.non_trainable_variables,
            trained.optimizer.variables,
            trained.metrics_variables,
        )

    def _loop(self, state: Any, images: Any, targets: Any, count: int) -> tuple[Any, Any]:
        """Run the first ``count`` steps of images (K, B, H, W, C) and targets (K, B, H, W, ...).

        Returns:
            The state, and the mean loss of the epoch so far.
        """
        import jax
        from jax import numpy as jnp

        def step(index: Any, carried: tuple[Any, Any]) -> tuple[Any, Any]:
            pixels = images[index].astype(jnp.float32) * np.float32(SCALE)
            target = targets[index]
            labels = target.astype(jnp.int32) if target.dtype == jnp.uint8 else target
            logs, after = self.trained.train_step(carried[0], (pixels, labels))
            return after, logs["loss"]

        return jax.lax.fori_loop(0, count, step, (state, jnp.float32(0)))


def _ahead(batches: Batches) -> Iterator[tuple[Any, Any, int]]:
    """Yield chunks of batches of one size, on the device, and how many there are; made while those before are used.

    All have room for :data:`CHUNK` batches, so that a call is compiled once for each size of a batch.
    """
    import jax

    with ThreadPoolExecutor(WORKERS) as threads, ThreadPoolExecutor(1) as other:

        def prepared(steps: range) -> list[tuple[Any, Any, int]]:
            found = list(threads.map(batches.pixels, steps))
            chunks = [list(same) for _, same in groupby(found, key=lambda pair: len(pair[0]))]
            return [(*jax.device_put(_stacked(chunk)), len(chunk)) for chunk in chunks]

        spans = [range(start, min(start + CHUNK, len(batches))) for start in range(0, len(batches), CHUNK)]
        coming = other.submit(prepared, spans[0])
        for following in [*spans[1:], None]:
            ready = coming.result()
            if following is not None:
                coming = other.submit(prepared, following)
            yield from ready


def _stacked(chunk: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    stacks = []
    for arrays in zip(*chunk, strict=True):
        stack = np.zeros((CHUNK, *arrays[0].shape), arrays[0].dtype)
        stack[: len(arrays)] = arrays
        stacks.append(stack)
    return tuple(stacks)
