"""What a daemon counts, and its metrics for Prometheus. Never by VMM: a rack makes them by the hundred thousand.

Counted as it happens: happenings and changes of state per sled, and how long reports take. Everything else is looked
up when somebody scrapes.

Read before: core/happenings.py, nexus_client/dropshot/observing.py. Read next: cli/load.py, daemon/control.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from nexus_client.dropshot.observing import Family, Histogram, Slots, one
from nexus_client.types import SledVmmState
from sim_sled.core.happenings import Happening, Kind

if TYPE_CHECKING:
    from sim_sled.daemon.daemon import Daemon

_SLED: Final = ("sled_id",)


class _Tally:
    """Of one sled, or of all that share a slot."""

    __slots__ = ("kinds", "reports", "transitions")

    def __init__(self) -> None:
        self.kinds: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self.transitions: dict[tuple[str, str], int] = {}
        self.reports = Histogram()


class Counters:
    """Plain integers, counted by watching; text only when scraped."""

    def __init__(self) -> None:
        self._slots: Slots[UUID] = Slots()
        self._of: dict[UUID, _Tally] = {}
        self._of_slot: dict[str, _Tally] = {}
        self._told_us: dict[UUID, int] = {}  # by VMM: since when Nexus has not acknowledged; gone with the answer

    def add(self, happening: Happening) -> None:
        """Take one."""
        tally = self._of.get(happening.sled_id) or self._tally(happening.sled_id)
        kind = happening.kind
        tally.kinds[kind] += 1
        propolis_id = happening.propolis_id
        if propolis_id is None:
            return
        if kind is Kind.SENT:
            self._told_us.setdefault(propolis_id, happening.at_us)  # also while it is sent again
        elif kind is Kind.ACKED:
            told_us = self._told_us.pop(propolis_id, None)
            if told_us is not None:
                tally.reports.observe(happening.at_us - told_us)
        elif kind is Kind.OBSERVED:
            match happening.data:
                case (SledVmmState(vmm_state=before), SledVmmState(vmm_state=after)) if before.state != after.state:
                    change = before.state.value, after.state.value
                    tally.transitions[change] = tally.transitions.get(change, 0) + 1
        elif kind in _ENDS:
            self._told_us.pop(propolis_id, None)

    def _tally(self, sled_id: UUID) -> _Tally:
        tally = self._of_slot.setdefault(self._slots.label(sled_id), _Tally())
        self._of[sled_id] = tally
        return tally

    def label(self, sled_id: UUID) -> str:
        """As what a sled's series are told."""
        return self._slots.label(sled_id)

    @property
    def transitions(self) -> int:
        """Changes of state of all VMMs."""
        return sum(sum(tally.transitions.values()) for tally in self._of_slot.values())

    @property
    def reports(self) -> Histogram:
        """How long reports of all sleds took."""
        every = Histogram()
        for tally in self._of_slot.values():
            every.counts = [a + b for a, b in zip(every.counts, tally.reports.counts, strict=True)]
            every.total_us += tally.reports.total_us
        return every

    def families(self) -> Iterator[Family]:
        """What has been counted."""
        tallies = self._of_slot.items()
        yield Family(
            "sim_sled_happenings_total", "What happened, by kind", "counter", (*_SLED, "kind"),
            {
                (label, kind.value.replace(" ", "_")): count
                for label, tally in tallies for kind, count in tally.kinds.items()
            },
        )  # fmt: skip
        yield Family(
            "sim_sled_transitions_total", "Changes of state of VMMs, as their sleds see them", "counter",
            (*_SLED, "from", "to"),
            {(label, *change): count for label, tally in tallies for change, count in tally.transitions.items()},
        )  # fmt: skip
        yield Family(
            "sim_sled_report_duration_seconds", "From the first sending of a report until Nexus has acknowledged it",
            "histogram", _SLED, {(label,): tally.reports for label, tally in tallies},
        )  # fmt: skip


_ENDS: Final = frozenset({Kind.GIVEN_UP, Kind.FORGOTTEN, Kind.UNREGISTERED})
"""After which a report waits for nothing any more."""


def families(daemon: Daemon, counters: Counters) -> Iterator[Family]:
    """All metrics of a daemon."""
    yield from counters.families()
    sleds = daemon.rack.sleds
    yield one("sim_sled_sleds", "Sleds of this daemon", "gauge", len(sleds))
    registered = sum(event.is_set() for event in daemon.reporting.registered.values())
    yield one("sim_sled_sleds_registered", "Sleds that Nexus knows", "gauge", registered)
    gauges: tuple[tuple[str, str, Any], ...] = (
        ("sim_sled_vmms", "VMMs on a sled", lambda sled: len(sled.vmms)),
        ("sim_sled_unacknowledged", "Reports that Nexus has not acknowledged", lambda sled: len(sled.outbox)),
        ("sim_sled_hardware_threads_used", "Threads of a sled that VMMs have", lambda sled: sled.threads_used),
        ("sim_sled_memory_used_bytes", "Memory of a sled that VMMs have", lambda sled: sled.memory_mib_used << 20),
    )
    for name, says, of in gauges:
        samples: dict[tuple[str, ...], float | Histogram] = {}
        for sled_id, sled in sleds.items():
            key = (counters.label(sled_id),)
            before = samples.get(key, 0.0)
            assert not isinstance(before, Histogram), "these are gauges"
            samples[key] = before + of(sled)
        yield Family(name, says, "gauge", _SLED, samples)
    yield one("sim_sled_requests_held", "Requests that a rule or a latency has wait", "gauge", daemon.held)
    yield one("sim_sled_answers_awaited", "Answers of Nexus that are waited for", "gauge", daemon.on_the_network)
    yield Family(
        "sim_sled_faults_fired_total", "How often each rule of the scenario fired", "counter", ("rule",),
        {(name,): count for name, count in daemon.passage.fired().items()},
    )  # fmt: skip
