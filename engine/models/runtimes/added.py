"""A runtime of another installed package: loaded by its name; whatever its sessions raise becomes one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.errors import EngineError, ModelError, PlanError
from engine.models.runtimes.base import Runtime, Session
from engine.utils import plugins
from engine.utils.console import first_line


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
        self._inner, self._called = inner, f"runtime {runtime} of package {package}"
        self.runtime, self.path, self.precision = runtime, path, precision
        self.input_name = inner.input_name
        if hasattr(inner, "feed"):  # else the net may have one input alone, see engine.models.runtimes.fed_as
            self.feed = self._feed

    def _feed(self, input_name: str, constants: Mapping[str, NDArray[Any]]) -> None:
        with _guarded(f"{self._called} cannot feed {self.path}"):
            self._inner.feed(input_name, constants)  # type: ignore[attr-defined]
        self.input_name = input_name

    def run(self, output_name: str, prepared: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See :meth:`engine.models.runtimes.base.Session.run`."""
        with _guarded(f"{self._called} cannot run {self.path} on {prepared.shape}"):
            return self._inner.run(output_name, prepared, out)

    def stop(self) -> None:
        """See :meth:`engine.models.runtimes.base.Session.stop`."""
        self._inner.stop()

    def resume(self) -> None:
        """See :meth:`engine.models.runtimes.base.Session.resume`."""
        self._inner.resume()


@contextmanager
def _guarded(called: str) -> Iterator[None]:
    """Turn what a package's code raises into a ModelError of one line."""
    try:
        yield
    except (EngineError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{called} ({first_line(error, kind=True)}): use another --runtime") from None


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
        with _guarded(f"runtime {name} of package {package} cannot open {path}"):
            return AddedSession(found.open(path, precision, workers), name, package, path, precision)

    return replace(found, open=opened, on_gpu=False)
