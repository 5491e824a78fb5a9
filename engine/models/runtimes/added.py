"""A runtime of another installed package: loaded by its name; whatever its sessions raise becomes one line."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError, ModelError, PlanError
from engine.models.runtimes.base import Runtime, Session
from engine.utils import plugins


class AddedSession:
    """A session of a package's runtime; attributes as :class:`engine.models.runtimes.base.Session`."""

    provider = "cpu"

    def __init__(self, inner: Session, runtime: str, package: str, path: Path, precision: str) -> None:
        """Take a session.

        Args:
            inner: what the package opened.
            runtime: the name by which it was asked for.
            package: who added it, for messages.
            path: the file.
            precision: what it was opened for.
        """
        self._inner, self._package = inner, package
        self.runtime, self.path, self.precision = runtime, path, precision
        self.input_name = inner.input_name

    def run(self, output_name: str, prepared: NDArray[np.float32], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See :meth:`engine.models.runtimes.base.Session.run`."""
        try:
            return self._inner.run(output_name, prepared, out)
        except (EngineError, MemoryError):
            raise
        except Exception as error:
            raise ModelError(
                f"{self.path} fails on {prepared.shape} in runtime {self.runtime} of package {self._package} "
                f"({plugins.in_one_line(error)}): use another --runtime"
            ) from None

    def stop(self) -> None:
        """See :meth:`engine.models.runtimes.base.Session.stop`."""
        self._inner.stop()

    def resume(self) -> None:
        """See :meth:`engine.models.runtimes.base.Session.resume`."""
        self._inner.resume()


@cache
def added_runtime(name: str) -> Runtime:
    """Return the runtime that a package adds under a name.

    Raises:
        PlanError: no package adds it, several do, or what the package adds cannot be loaded or is no runtime.
    """
    found = plugins.load(plugins.RUNTIMES, name)
    package = plugins.package_of(plugins.RUNTIMES, name)
    if not isinstance(found, Runtime):
        raise PlanError(
            f"runtime {name} of package {package} is a {type(found).__name__}; "
            "an engine.models.runtimes.base.Runtime is needed: update or uninstall it"
        )

    def opened(path: Path, precision: str, workers: int) -> Session:
        try:
            return AddedSession(found.open(path, precision, workers), name, package, path, precision)
        except (EngineError, MemoryError):
            raise
        except Exception as error:
            reason = plugins.in_one_line(error)
            raise ModelError(
                f"runtime {name} of package {package} cannot open {path} ({reason}): use another --runtime"
            ) from None

    return replace(found, open=opened, on_gpu=False)
