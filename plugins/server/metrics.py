"""Counters and histograms of a server, as Prometheus reads them. (prometheus-client)"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sized

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

#: Bounds of the histograms, in seconds.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
#: The same for whole requests, which may take minutes.
REQUEST_SECONDS = (*SECONDS, 30.0, 60.0, 120.0, 300.0, 600.0)
#: How often the lag of the event loop is measured.
LAG_INTERVAL = 0.1


class ModelMetrics:
    """What is measured of one model. The methods are called for each chunk, so they look nothing up."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._symbols = metrics.symbols.labels(model)
        self._first_symbol = metrics.first_symbol.labels(model)
        self._chunk = metrics.chunk.labels(model)
        self._busy, self._queue = metrics.busy.labels(model), metrics.queue.labels(model)
        self.restarts: Callable[[], int] = int
        """How often a worker died and was started again."""

    def first_symbol(self, seconds: float) -> None:
        """Count the time from the arrival of a request to the first symbol of a text."""
        self._first_symbol.observe(seconds)

    def chunk(self, seconds: float) -> None:
        """Count the time between two chunks of a text."""
        self._chunk.observe(seconds)

    def symbols(self, count: int) -> None:
        """Count symbols that were drawn."""
        self._symbols.inc(count)

    def watch(self, busy: Callable[[], int], queued: Callable[[], int], restarts: Callable[[], int]) -> None:
        """Ask for the busy slots, the texts that wait and the restarts of workers whenever the metrics are read."""
        self._busy.set_function(busy)
        self._queue.set_function(queued)
        self.restarts = restarts


class Metrics(Collector):
    """Everything that ``/metrics`` shows, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("gentext_requests", "Answered requests.", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "gentext_request_seconds", "Duration of requests.", ["route"], registry=registry, buckets=REQUEST_SECONDS
        )
        self.symbols = Counter("gentext_symbols", "Symbols that were drawn.", ["model"], registry=registry)
        self.first_symbol = Histogram(
            "gentext_first_symbol_seconds",
            "From the arrival of a request to the first symbol of a text.",
            ["model"],
            registry=registry,
            buckets=SECONDS,
        )
        self.chunk = Histogram(
            "gentext_chunk_seconds", "Between two chunks of a text.", ["model"], registry=registry, buckets=SECONDS
        )
        self.busy = Gauge("gentext_busy_slots", "Texts that are being written.", ["model"], registry=registry)
        self.queue = Gauge("gentext_queued_texts", "Texts that wait for a slot.", ["model"], registry=registry)
        self.connections = Gauge("gentext_open_connections", "Open connections.", registry=registry)
        self.lag = Histogram(
            "gentext_event_loop_lag_seconds", "How late the event loop is.", registry=registry, buckets=SECONDS
        )
        self._models: dict[str, ModelMetrics] = {}
        registry.register(self)

    def model(self, name: str) -> ModelMetrics:
        """Return what is measured of a model, to be kept by whoever writes with it."""
        if name not in self._models:
            self._models[name] = ModelMetrics(self, name)
        return self._models[name]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield what others count already; the registry calls this."""
        restarts = CounterMetricFamily(
            "gentext_worker_restarts", "Workers that died and were started again.", labels=["model"]
        )
        for name, model in self._models.items():
            restarts.add_metric([name], model.restarts())
        yield restarts

    def request_finished(self, route: str, status: int, seconds: float) -> None:
        """Count a request. A route is one of the server's own, so that strangers do not choose the labels."""
        self.requests.labels(route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def watch_connections(self, connections: Sized) -> None:
        """Count these connections, uvicorn's ``server_state.connections``, whenever the metrics are read."""
        self.connections.set_function(lambda: len(connections))

    async def measure_lag(self) -> None:
        """Measure how late the event loop wakes a task, until that is cancelled."""
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(LAG_INTERVAL)
            self.lag.observe(max(0.0, time.perf_counter() - begun - LAG_INTERVAL))

    def expose(self) -> tuple[bytes, str]:
        """Return the body of ``/metrics`` and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
