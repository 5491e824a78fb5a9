"""What the server counts, in the form that Prometheus reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from engine.serve.batching import Batcher
from engine.serve.bounds import Bounds
from engine.serve.plan import ServedPlan
from engine.version import VERSION

__all__ = ["CONTENT_TYPE_LATEST", "Observed"]
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Observed:
    """The server's metrics, in a registry of its own."""

    def __init__(self, plan: ServedPlan) -> None:
        """Count nothing yet."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        held = self.registry
        self._requests = Counter(
            "maskfuse_requests", "Answered requests by route and HTTP status.", ["route", "status"], registry=held
        )
        self._seconds = Histogram(
            "maskfuse_request_seconds",
            "From the first byte of a request to its answer, by route.",
            ["route"],
            buckets=SECONDS,
            registry=held,
        )
        self._images = Counter("maskfuse_images", "Predicted images.", registry=held)
        self._batch_images = Histogram("maskfuse_batch_images", "Images per batch.", buckets=IMAGES, registry=held)
        self._batch_seconds = Histogram("maskfuse_batch_seconds", "Seconds per batch.", buckets=SECONDS, registry=held)
        self._open_images = Gauge("maskfuse_open_images", "Images that wait or are being predicted.", registry=held)
        self._open_requests = Gauge("maskfuse_open_requests", "Requests without an answer yet.", registry=held)
        info = Gauge("maskfuse_plan", "The plan that is served.", ["version", "name", "sha256"], registry=held)
        info.labels(VERSION, plan.name, plan.sha256).set(1)

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._images.inc(images)
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def follow(self, batcher: Batcher, bounds: Bounds) -> None:
        """Let the gauges show what is open whenever they are read."""
        self._open_images.set_function(lambda: batcher.open_images)
        self._open_requests.set_function(lambda: bounds.open_requests)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
