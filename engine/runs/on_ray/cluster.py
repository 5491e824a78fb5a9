"""The only module that calls Ray: connects, builds the pool of actors, and passes on its results."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ModelError, PlanError
from engine.utils.optional import require
from engine.utils.plugins import search_path

# Number of Ray tasks; each takes several blocks if there are more.
MOST_TASKS = 16384


@dataclass(frozen=True)
class Cluster:
    """Where a run on Ray goes, and its number of workers.

    Attributes:
        address: address of the Ray cluster; empty for one on this machine only.
        workers: number of actors; 0 for as many as fit on the cluster.
        gpus: GPUs of each actor; a fraction lets actors share one.
    """

    address: str = ""
    workers: int = 0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Refuse impossible numbers.

        Raises:
            PlanError: a negative number of workers or GPUs, or not a number.
        """
        if self.workers < 0 or not 0 <= self.gpus < 1024:
            raise PlanError(f"{self.workers} workers with {self.gpus:g} GPUs each: give numbers of 0 or above")


def require_ray() -> None:
    """Raise a PlanError if Ray is not installed."""
    require("ray.data", "ray", "--on ray needs Ray")


def connect(cluster: Cluster) -> bool:
    """Connect to the cluster, or start one on this machine; return whether to disconnect afterwards.

    Raises:
        PlanError: Ray is not installed, or nothing answers at the address.
    """
    # Ray's core writes to stderr itself; what matters is also raised as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    require_ray()
    import ray

    if ray.is_initialized():
        return False
    logging.getLogger("ray").setLevel(logging.ERROR)  # it prints before it reads its own option
    # Workers on this machine import the same modules as this process, installed or not; elsewhere they are installed.
    here = {"env_vars": {"PYTHONPATH": search_path()}}
    try:
        ray.init(
            address=cluster.address or "local",
            include_dashboard=None if cluster.address else False,
            runtime_env=None if cluster.address else here,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        where = cluster.address or "this machine"
        raise PlanError(f"cannot reach Ray at {where} ({_last_line(error)}): check --ray-address") from None
    return True


def leave() -> None:
    """Disconnect from the cluster; one started for the run is stopped."""
    import ray

    ray.shutdown()


def predicted_rows(
    predictor: type, arguments: tuple[Any, ...], cluster: Cluster, spans: Sequence[tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    """Yield the results of actors, one row per block, in the blocks' order.

    Args:
        predictor: the actor's class.
        arguments: arguments of its constructor.
        cluster: number of actors and GPUs of each.
        spans: index of each block's first image (or row of tiles), and their number.

    Raises:
        PlanError: not even one actor fits on the cluster.
        ModelError: Ray gives up.
    """
    import ray.data
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    tasks = min(len(spans), MOST_TASKS)
    actors = min(tasks, cluster.workers or _room(cluster.gpus))
    blocks = ray.data.from_arrow(_tables(spans, tasks))
    try:
        done = blocks.map_batches(
            predictor,
            fn_constructor_args=arguments,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=1,
            num_gpus=cluster.gpus or None,
        )
        yield from done.iter_rows()
    except RayError as error:
        raise ModelError(f"the run on Ray failed ({_last_line(error)}): see Ray's logs, go on with --resume") from None


def _tables(spans: Sequence[tuple[int, int]], tasks: int) -> list[Any]:
    """Return one Arrow table per task: start and count of its blocks."""
    import pyarrow

    parts = np.array_split(np.array(spans, np.int64), tasks)
    return [pyarrow.table({"start": part[:, 0], "count": part[:, 1]}) for part in parts]


def _room(gpus: float) -> int:
    """Return how many actors fit on the cluster."""
    import ray

    held = ray.cluster_resources()
    room = held.get("GPU", 0.0) / gpus if gpus else held.get("CPU", 1.0)
    if room < 1:
        raise PlanError(f"the Ray cluster has no room for a worker with {gpus:g} GPUs: check --gpus-per-worker")
    return int(room)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
