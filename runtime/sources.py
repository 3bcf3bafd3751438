"""What is looked up for the metrics at each scrape: the state of connections."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg_pool import AsyncConnectionPool


class Pool(Collector):
    GAUGES: Mapping[str, tuple[str, str]] = {
        "pool_size": ("size", "Open connections."),
        "pool_max": ("max", "Connections that may be open at most."),
        "pool_available": ("available", "Open connections that nobody uses."),
        "requests_waiting": ("waiting", "Who waits for a connection."),
    }
    COUNTERS: Mapping[str, tuple[str, str]] = {
        "requests_num": ("requests", "Times that a connection was asked for."),
        "requests_queued": ("queued", "Times that one had to be waited for."),
        "requests_wait_ms": ("wait_seconds", "Time spent waiting for one."),
        "requests_errors": ("errors", "Times that none became free in time."),
        "connections_lost": ("lost", "Connections found broken."),
    }

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        stats = self._pool.get_stats()
        for key, (name, about) in self.GAUGES.items():
            yield GaugeMetricFamily(f"clew_db_pool_{name}", about, stats.get(key, 0))
        for key, (name, about) in self.COUNTERS.items():
            value = stats.get(key, 0) / (1000 if key.endswith("_ms") else 1)
            yield CounterMetricFamily(f"clew_db_pool_{name}", about, value)


class Link(Protocol):
    """A line to Redis, whose package is an extra."""

    @property
    def up(self) -> bool: ...

    @property
    def losses(self) -> int: ...


class Redis(Collector):
    def __init__(self, link: Link) -> None:
        self._link = link

    def collect(self) -> Iterable[Metric]:
        about = "Whether Redis answered the last time; only where CLEW_REDIS_URL is set."
        yield GaugeMetricFamily("clew_redis_up", about, self._link.up)
        about = "Times that Redis was lost, or refused what it was asked."
        yield CounterMetricFamily("clew_redis_losses", about, self._link.losses)
