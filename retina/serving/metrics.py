"""What the service counts, for Prometheus; nothing of it is about a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PICTURES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one service, in a registry of its own.

    Args:
        num_inside: gives the number of requests that are held.
    """

    def __init__(self, num_inside: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "retina_requests",
            "Requests that were answered.",
            ("path", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "retina_request_seconds",
            "From the head of a request to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        inside = Gauge("retina_requests_held", "Requests that are held.", registry=self.registry)
        inside.set_function(num_inside)
        self._pictures = Histogram(
            "retina_batch_pictures",
            "Pictures of a batch.",
            buckets=_PICTURES,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "retina_batch_seconds",
            "What a batch takes.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._failed = Counter(
            "retina_failed_pictures",
            "Pictures on which the detector failed.",
            registry=self.registry,
        )

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """A request that was answered.

        Args:
            path: one of the service's own, or ``other``: whatever is asked for makes no new series.
            status: of HTTP.
            seconds: that it took.
        """
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_batch(self, num_pictures: int, seconds: float, outcomes: Sequence[object]) -> None:
        """A batch that has run; the outcomes that are exceptions have failed."""
        self._pictures.observe(num_pictures)
        self._batch_seconds.observe(seconds)
        self._failed.inc(sum(isinstance(outcome, Exception) for outcome in outcomes))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
