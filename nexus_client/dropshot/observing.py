"""`/healthz`, `/readyz` and `/metrics` of all three programs: for orchestrators and for Prometheus.

A program counts in plain integers while it works. Only when somebody scrapes it, prometheus-client is imported and
writes them as text: who is never asked pays for neither.

    *observed(ready=Control.readyz, metrics=Control.metrics)      # rows for the table of a control API
    exposition("sim-sled", [Family("sim_sled_vmms", "VMMs", "gauge", ("sled_id",), {("…",): 3.0})])

The series are bounded: by sled (`Slots`), by words of a table, by rule of a scenario; never by VMM.

Read before: dropshot/operations.py.
Read next: propolis_stub/server/counters.py, propolis_stub/server/metrics.py, sim_sled/daemon/metrics.py,
stub/server/counters.py, stub/server/metrics.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, Literal, NotRequired, TypedDict, TypeVar

from msgspec import Struct

from nexus_client.dropshot.operations import Answered, Call, Operation, Text

O = TypeVar("O")  # noqa: E741 -- the owner of the handlers
K = TypeVar("K")
"""What has a slot."""

MEDIA: Final = "text/plain; version=0.0.4"
"""The text format that every Prometheus, OpenTelemetry Collector and Grafana Agent reads."""

BOUNDS_US: Final = (
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000, 300_000_000,
)  # fmt: skip
"""From what loopback takes to what an outage of Nexus lasts."""

SLOTS_MAX: Final = 256
"""Sleds with series of their own; some 50 series each are what a scrape of a second can carry. More share a slot."""
OTHERS: Final = "others"


class Histogram:
    """Durations in microseconds, by upper bounds."""

    __slots__ = ("counts", "total_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.total_us = 0

    def observe(self, took_us: int) -> None:
        self.counts[bisect_left(BOUNDS_US, took_us)] += 1
        self.total_us += took_us

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def at_most_us(self, share: float) -> int:
        """An upper bound of so large a share of them; 0 if there were none."""
        least, total = share * self.count, 0
        for bound_us, count in zip((*BOUNDS_US, 2 * BOUNDS_US[-1]), self.counts, strict=True):
            total += count
            if total and total >= least:
                return bound_us
        return 0

    def buckets(self) -> Iterator[tuple[str, int]]:
        """(upper bound in seconds, how many were at most that), as Prometheus wants them."""
        total = 0
        for bound, count in zip((*(f"{us / 1e6:g}" for us in BOUNDS_US), "+Inf"), self.counts, strict=True):
            total += count
            yield bound, total


class Slots(Generic[K]):
    """Labels of things of which there may be too many: the first `SLOTS_MAX` have their own for good, so that a
    counter never moves to another series; the rest are `others`.
    """

    def __init__(self) -> None:
        self._label_of: dict[K, str] = {}

    def label(self, key: K) -> str:
        known = self._label_of.get(key)
        if known is not None:
            return known
        if len(self._label_of) >= SLOTS_MAX:
            return OTHERS
        label = self._label_of[key] = str(key)
        return label


class Family(Struct, frozen=True):
    """One metric. `samples` by the values of its `labels`; counters are named `..._total`, times `..._seconds`."""

    name: str
    says: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    samples: Mapping[tuple[str, ...], float | Histogram]


def one(name: str, says: str, kind: Literal["counter", "gauge"], value: float) -> Family:
    """A metric with one series."""
    return Family(name, says, kind, (), {(): value})


def exposition(service: str, families: Iterable[Family]) -> Answered:
    """The answer to a scrape: `families`, what this process needs of its machine, and who it is (`target_info`, the
    name that OpenTelemetry gives to resource attributes).
    """
    from importlib.metadata import version  # noqa: PLC0415 -- it reads e-mail; once per scrape's server

    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest  # noqa: PLC0415 -- see above
    from prometheus_client.core import (  # noqa: PLC0415 -- same
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )

    who = (service, version("sim-sled"))
    target = Family("target_info", "This program", "gauge", ("service_name", "service_version"), {who: 1.0})

    class Collected:
        """What prometheus-client asks."""

        def collect(self) -> Iterator[Metric]:
            for family in (target, *families):
                if family.kind == "histogram":
                    histogram = HistogramMetricFamily(family.name, family.says, labels=family.labels)
                    for values, found in family.samples.items():
                        assert isinstance(found, Histogram), "a histogram's samples are histograms"
                        histogram.add_metric(values, list(found.buckets()), found.total_us / 1e6)
                    yield histogram
                    continue
                made = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                metric = made(family.name, family.says, labels=family.labels)
                for values, value in family.samples.items():
                    assert not isinstance(value, Histogram), "a counter's samples are numbers"
                    metric.add_metric(values, value)
                yield metric

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    ProcessCollector(registry=registry)
    return Answered(generate_latest(registry).decode(), media=MEDIA)


class Probe(TypedDict):
    """What a probe of an orchestrator is told."""

    status: Literal["ok", "waiting"]
    message: NotRequired[str]
    """Which part of it does not answer, of a program of several processes."""


async def _healthy(_owner: object, _call: Call[None]) -> Probe:
    """Who answers is alive: the event loop that answers this is the one that does everything."""
    return Probe(status="ok")


def probed(ready: bool) -> Answered:
    """The answer to `/readyz`."""
    return Answered(Probe(status="ok" if ready else "waiting"), 200 if ready else 503)


def observed(
    *, ready: Callable[[O, Call[None]], Awaitable[Answered]], metrics: Callable[[O, Call[None]], Awaitable[Answered]]
) -> tuple[Operation[O, Any], ...]:
    """The three rows. Probes need no token: a kubelet has none, and they say nothing of what is simulated."""
    return (
        Operation("GET", "/healthz", _healthy, "200 while this program answers", Probe, open=True),
        Operation("GET", "/readyz", ready, "200 once it does its work, 503 before", Probe, others={503: Probe},
                  open=True),
        Operation("GET", "/metrics", metrics, "Metrics for Prometheus", Text("text/plain")),
    )  # fmt: skip
