"""Many training steps in one compiled call: for JAX on a GPU or TPU, where a small network waits for the host.

Keras calls its compiled step once a batch, and after each call the host hands a few hundred arrays over again; a small
network's step takes less than that. Here a chunk of batches goes to the device as uint8 while the chunk before it is
computed, and ``jax.lax.scan`` runs Keras' own step over it. Batches, steps and results are those of ``Model.fit``.
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
Stack = tuple[np.ndarray, np.ndarray]


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
        self._steps = jax.jit(self._scan)

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
        loss, done = float("nan"), 0
        for images, targets in _ahead(batches):
            state, losses = self._steps(state, images, targets)
            listening.on_train_batch_end(done - 1 if done else 0)
            done, loss = done + len(images), losses
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        listening.on_train_batch_end(done - 1)
        # As in Keras: what is told of the end still sees the raw weights, before their average replaces them.
        listening.on_epoch_end(batches.epoch)
        trained.optimizer.finalize_variable_values(trained.trainable_weights)
        return float(np.asarray(loss)[-1])

    def _variables(self) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        trained = self.trained
        return (
            trained.trainable_variables,
            trained.non_trainable_variables,
            trained.optimizer.variables,
            trained.metrics_variables,
        )

    def _scan(self, state: Any, images: Any, targets: Any) -> tuple[Any, Any]:
        """Run the steps of a chunk, images (K, B, H, W, C) and targets (K, B, H, W, ...); return the running losses."""
        import jax
        from jax import numpy as jnp

        def step(state: Any, batch: tuple[Any, Any]) -> tuple[Any, Any]:
            pixels, target = batch
            labels = target.astype(jnp.int32) if target.dtype == jnp.uint8 else target
            logs, state = self.trained.train_step(state, (pixels.astype(jnp.float32) * np.float32(SCALE), labels))
            return state, logs["loss"]

        return jax.lax.scan(step, state, (images, targets))


def _ahead(batches: Batches) -> Iterator[Stack]:
    """Yield chunks of batches of one size, each prepared and on its way to the device while the one before is used."""
    import jax

    with ThreadPoolExecutor(WORKERS) as threads, ThreadPoolExecutor(1) as other:

        def prepared(steps: range) -> list[Stack]:
            found = list(threads.map(batches.pixels, steps))
            sizes = groupby(found, key=lambda pair: len(pair[0]))
            stacks = [[np.stack(arrays) for arrays in zip(*same, strict=True)] for _, same in sizes]
            return [tuple(jax.device_put(stack)) for stack in stacks]

        spans = [range(start, min(start + CHUNK, len(batches))) for start in range(0, len(batches), CHUNK)]
        coming = other.submit(prepared, spans[0])
        for following in [*spans[1:], None]:
            ready = coming.result()
            if following is not None:
                coming = other.submit(prepared, following)
            yield from ready
