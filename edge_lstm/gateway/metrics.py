"""What Prometheus reads: counters of the gateway, and score, alarm and drift of each stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_lstm.gateway.scoring import Gateway

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


class Metrics:
    """All metrics of one gateway, read when they are asked for."""

    def __init__(self, gateway: Gateway, connected: Callable[[], bool], waiting: Callable[[], int]) -> None:
        """connected: to the broker.  waiting: payloads not yet scored."""
        self._registry = CollectorRegistry()
        self._registry.register(_Streams(gateway, connected, waiting, self))
        self.refused = 0  # requests and sockets without a valid token
        self.batch_s = Histogram(
            "edge_lstm_batch_seconds", "Time from a batch of payloads to its commit.",
            registry=self._registry, buckets=SECONDS,
        )  # fmt: skip

    def text(self) -> bytes:
        """In the text format."""
        return generate_latest(self._registry)


class _Streams(Collector):
    def __init__(
        self, gateway: Gateway, connected: Callable[[], bool], waiting: Callable[[], int], metrics: Metrics
    ) -> None:
        self._gateway, self._connected, self._waiting, self._metrics = gateway, connected, waiting, metrics

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        counts = self._gateway.counts
        for name, text, value in (
            ("rows", "Rows scored.", counts.rows),
            ("duplicates", "Rows that were not behind the last of their stream.", counts.duplicates),
            ("gaps", "Resets of a stream behind a gap.", counts.gaps),
            ("alarms", "Alarms that began.", counts.alarms),
            ("refused", "Requests without a valid token.", self._metrics.refused),
        ):
            yield CounterMetricFamily(f"edge_lstm_{name}", text, value)
        malformed = CounterMetricFamily("edge_lstm_malformed", "Payloads refused.", labels=["source"])
        for source, value in counts.malformed.items():
            malformed.add_metric([source], value)
        yield malformed
        yield GaugeMetricFamily("edge_lstm_broker_connected", "1 with a broker.", int(self._connected()))
        yield GaugeMetricFamily("edge_lstm_waiting", "Payloads not yet scored.", self._waiting())
        yield GaugeMetricFamily("edge_lstm_streams", "Streams known.", len(self._gateway.streams))
        yield from self._each()

    def _each(self) -> Iterator[Metric]:
        score = GaugeMetricFamily("edge_lstm_score", "Score of the last row, in spreads.", labels=["stream"])
        limit = GaugeMetricFamily("edge_lstm_threshold", "Its threshold.", labels=["stream"])
        alarm = GaugeMetricFamily("edge_lstm_alarm", "1 in alarm.", labels=["stream"])
        drift = GaugeMetricFamily("edge_lstm_drifted_channels", "Not as in calibration.", labels=["stream"])
        for name, record in self._gateway.streams.items():
            if record.sample:
                score.add_metric([name], record.sample["score"])
                limit.add_metric([name], record.sample["threshold"])
            alarm.add_metric([name], int(record.alarm))
            drift.add_metric([name], int(record.drift.drifted.sum()))
        yield from (score, limit, alarm, drift)
