"""What `/metrics` shows, in Prometheus' text form."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The numbers of one server; two servers in a process have two."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        registry = self._registry
        self._requests = Counter("mlic_requests", "Answered requests.", ["handler", "status"], registry=registry)
        self._seconds = Histogram(
            "mlic_request_seconds", "From the head to the answer.", ["handler"], buckets=_SECONDS, registry=registry
        )
        self._rows = Counter("mlic_predictions", "Pictures and captions.", ["outcome"], registry=registry)
        self._batches = Histogram(
            "mlic_batch_rows", "Pictures in a run of the graph.", buckets=_ROWS, registry=registry
        )
        self._queue = Gauge("mlic_queue_rows", "Pictures accepted and not yet answered.", registry=registry)
        Gauge("mlic_model_info", "The model.", ["model"], registry=registry).labels(model).set(1)

    def watch_queue(self, rows: Callable[[], int]) -> None:
        """Take the function that says how many pictures are accepted and not yet answered."""
        self._queue.set_function(rows)

    def request(self, handler: str, status: int, seconds: float) -> None:
        """Take note of an answered request."""
        self._requests.labels(handler, str(status)).inc()
        self._seconds.labels(handler).observe(seconds)

    def predicted(self, good: int, bad: int) -> None:
        """Take note of the rows of a request."""
        self._rows.labels("predicted").inc(good)
        self._rows.labels("refused").inc(bad)

    def batch(self, rows: int) -> None:
        """Take note of a run of the graph."""
        self._batches.observe(rows)

    def text(self) -> bytes:
        """Return all of them as Prometheus reads them."""
        return generate_latest(self._registry)
