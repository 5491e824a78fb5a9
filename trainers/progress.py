"""Progress of a training run: a live bar on a terminal, one line per epoch in a pipe."""

from __future__ import annotations

from typing import Any

import keras

from engine.utils import console


class Progress(keras.callbacks.Callback):
    """Shows the steps of the running epoch on a terminal; silent between epochs' lines elsewhere.

    Use it as a context manager around the whole training, and pass it to ``Model.fit`` as a callback.

    Args:
        epochs: maximum number of epochs.
        steps: steps per epoch.
        label: name of what is trained.
    """

    def __init__(self, epochs: int, steps: int, label: str) -> None:
        super().__init__()
        self.epochs, self.steps, self.label = epochs, steps, label
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        """Start the bar if stderr is a terminal."""
        terminal = console.stderr()
        if terminal.is_terminal:
            from rich import progress

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                console=terminal,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.steps)
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Reset the bar."""
        if self._bar is not None:
            self._bar.reset(self._task, description=f"{self.label} epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Advance the bar by one step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=batch + 1)

    def line(self, text: str) -> None:
        """Print one line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            console.say(text)
