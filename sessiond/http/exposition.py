"""The daemon's figures in Prometheus' text format: the one door to prometheus-client, entered only when somebody scrapes."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sessiond import __version__
from sessiond.metrics import Histogram
from sessiond.store import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Figures(Collector):
    """`sessions`: how many live now, by namespace. `connections`: of the stream."""

    def __init__(self, store: Store, sessions: Mapping[str, int], connections: int) -> None:
        self._store = store
        self._sessions = sessions
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        calls, engine = self._store.figures, self._store.engine_figures

        build = GaugeMetricFamily("sessiond_build_info", "The running version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build

        answered = CounterMetricFamily("sessiond_calls", "Calls answered.", labels=["verb", "outcome"])
        for (verb, outcome), number in calls.answered.items():
            answered.add_metric([verb, outcome], number)
        yield answered

        refused = CounterMetricFamily("sessiond_refused", "Wrong calls and requests, refused unbegun.", labels=["code"])
        for code, number in calls.refused.items():
            refused.add_metric([code], number)
        yield refused
        yield _histogram(
            "sessiond_call_seconds", "From a call's arrival to its answer.", calls.seconds.items(), label="verb"
        )

        sessions = GaugeMetricFamily("sessiond_sessions", "Sessions that live now.", labels=["namespace"])
        for namespace, number in self._sessions.items():
            sessions.add_metric([namespace], number)
        yield sessions
        yield GaugeMetricFamily("sessiond_stream_connections", "Open streams.", self._connections)

        yield GaugeMetricFamily("sessiond_event_readers", "Readers of events.", self._store.events.readers)
        if self._store.audit is not None:
            yield CounterMetricFamily("sessiond_audit_lost", "Lines that were not kept.", self._store.audit.lost)

        yield _histogram("sessiond_commit_rows", "Rows written by a commit.", [("", engine.commit_rows)])
        yield _histogram(
            "sessiond_commit_seconds", "From a commit's start to its end on disk.", [("", engine.commit_seconds)]
        )
        yield GaugeMetricFamily("sessiond_cache_entries", "Sessions in the hot cache.", engine.cache_entries)
        yield GaugeMetricFamily("sessiond_cache_bytes", "What they are reckoned to take.", engine.cache_bytes)
        yield CounterMetricFamily("sessiond_cache_hits", "Records found in the hot cache.", engine.cache_hits)
        yield CounterMetricFamily("sessiond_cache_misses", "Records looked for in the file.", engine.cache_misses)
        yield CounterMetricFamily("sessiond_swept", "Dead records removed by sweeps.", engine.swept)
        yield _histogram("sessiond_sweep_seconds", "One batch of a sweep.", [("", engine.sweep_seconds)])
        yield CounterMetricFamily("sessiond_rekeyed", "Rows brought under the current key.", engine.rekeyed)
        yield GaugeMetricFamily("sessiond_rekey_left", "Rows that may be under an old key.", engine.rekey_left)
        yield CounterMetricFamily("sessiond_damaged", "Times a stored row was not what was written.", engine.damaged)


def exposition(store: Store, sessions: Mapping[str, int], connections: int) -> bytes:
    registry = CollectorRegistry()
    registry.register(_Figures(store, sessions, connections))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return generate_latest(registry)


def _histogram(
    name: str, text: str, series: Iterable[tuple[str, Histogram]], label: str | None = None
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=[label] if label else None)
    for value, histogram in series:
        buckets, running = [], 0
        for bound, number in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
            running += number
            buckets.append((bound, running))
        family.add_metric([value] if label else [], buckets, histogram.total)
    return family
