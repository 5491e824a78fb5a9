"""A Ray cluster on this machine, what dies in it, and how figures of it are kept."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import commit, processor, versions

ROOT = Path(__file__).parents[2]
PACKAGES = ("ray", "pyarrow", "numpy", "onnxruntime-gpu", "onnxruntime")


class Blows:
    """Strikes at given moments after the first actor's process is seen; a thread of its own."""

    def __init__(self, strike: Callable[[], bool], moments: Sequence[float]) -> None:
        """Begin to watch.

        Args:
            strike: does it, and returns whether anything was there to strike.
            moments: seconds behind the first actor's appearance, ascending; none only looks on.
        """
        self.hits, self.window = 0, 0.0
        self._strike, self._moments, self._over = strike, moments, threading.Event()
        self._seen = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def over(self) -> None:
        """The run has ended; note how long it went on behind the first actor's appearance."""
        self._over.set()
        self._thread.join()
        self.window = time.monotonic() - self._seen if self._seen else 0.0

    def _watch(self) -> None:
        while not actors():
            if self._over.wait(0.05):
                return
        self._seen = time.monotonic()
        for moment in self._moments:
            if self._over.wait(max(0.0, self._seen + moment - time.monotonic())):
                return
            self.hits += self._strike()


def actors() -> list[int]:
    """Return the processes of actors that descend from this one."""
    parents, found = {}, []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            title = (place / "cmdline").read_bytes().decode("utf-8", "replace")
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if title.startswith("ray::") and "Map" in title:
            found.append(int(place.name))
    return [process for process in found if _descends(process, parents)]


def _descends(process: int, parents: dict[int, int]) -> bool:
    while process > 1:
        process = parents.get(process, 0)
        if process == os.getpid():
            return True
    return False


def kill(name: str, draw: np.random.Generator) -> bool:
    """Send a signal to one of the actors; return whether there was one."""
    there = actors()
    if not there:
        return False
    try:
        os.kill(int(draw.choice(there)), getattr(signal, f"SIG{name}"))
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """Start a cluster: of one node with two processors, or a head with one to which others are added."""
    import ray
    from ray.cluster_utils import Cluster

    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"env_vars": {"PYTHONPATH": paths}}
    logging.getLogger("ray").setLevel(logging.ERROR)
    head = {"num_cpus": 2 if nodes == 1 else 1, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=head)
    try:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address=started.address, runtime_env=environment, **quiet)
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


def node_fault(started: Any) -> Callable[[], Callable[[], bool]]:
    """Return what adds a second node before a run, and takes it away in its middle."""
    here: list[Any] = []

    def strikes() -> Callable[[], bool]:
        if not here:
            here.append(started.add_node(num_cpus=1))
            started.wait_for_nodes()

        def strike() -> bool:
            if here:
                started.remove_node(here.pop(), allow_graceful=False)
            return True

        return strike

    return strikes


def save(path: Path, rows: Sequence[dict[str, Any]], **more: object) -> None:
    """Write figures as JSON: what was measured, on which machine, with which versions, at which commit."""
    cores = len(os.sched_getaffinity(0))
    told = {"machine": f"{processor()}, {cores} cores", "versions": versions(PACKAGES), "commit": commit()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**told, **more, "rows": rows}, indent=2) + "\n")
