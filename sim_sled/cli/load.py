"""The rack that `sim-sled bench` puts under load, its users, and what is measured.

Read before: daemon/small_rack.py, daemon/metrics.py. Read next: cli/bench.py.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs

from sim_sled.core.config import GIB, Hardware
from sim_sled.daemon.metrics import Counters
from sim_sled.daemon.small_rack import RackError, SmallRack

AT_ONCE: Final = 64
"""Requests of users under way: more only wait in line at the model."""
WITHIN_S: Final = 600.0
"""No phase of a rack of the largest size takes longer."""
MIB: Final = 2**20


async def run(
    sleds: int, vms_per_sled: int, nexus: str | None, users: str | None, token: str | None
) -> dict[str, Any]:
    """A rack from its start to its last report, and its figures. Raises `RackError` for a refusal."""
    vms = sleds * vms_per_sled
    room = Hardware(
        hardware_threads=vms_per_sled + 8,
        physical_ram=(2 * vms_per_sled + 64) * GIB,
        reservoir_size=(vms_per_sled + 8) * GIB,
        zpools=1,
    )
    rack = SmallRack(name="bench", sleds=sleds, nexus=nexus, hardware=room)
    began = _now()
    async with rack:
        start_s = _now() - began
        where = users if rack.server is None else rack.server.control
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(f"http://{where}", headers=headers) as http:
            asked = Asking(http)
            # a life that does not count: what is imported when it is first asked for would be most of a small rack's
            reached = _reached(rack)
            await _phase(asked, reached, "running", 1, lambda _: ("", _wish("first")))
            await _phase(asked, reached, "destroyed", 1, lambda _: ("/bench-first/stop", None))
            counters, reached = Counters(), _reached(rack)
            rack.daemon.watchers.append(counters.add)
            cpu_began = time.process_time()
            run_s = await _phase(asked, reached, "running", vms, lambda n: ("", _wish(n)))
            rss_mib = _rss_mib()
            stop_s = await _phase(asked, reached, "destroyed", vms, lambda n: (f"/bench-{n}/stop", None))
            cpu_s = max(0.001, time.process_time() - cpu_began)
    transitions, reports = counters.transitions, counters.reports
    return {
        "sleds": sleds,
        "vms": vms,
        "start_s": round(start_s, 3),
        "run_s": round(run_s, 3),
        "stop_s": round(stop_s, 3),
        "transitions": transitions,
        "transitions_per_s": round(transitions / (run_s + stop_s), 1),
        "cpu_s": round(cpu_s, 3),
        "transitions_per_cpu_s": round(transitions / cpu_s, 1),
        "reports": reports.count,
        "reports_per_s": round(reports.count / (run_s + stop_s), 1),
        "report_p50_ms": reports.at_most_us(0.5) / 1000,
        "report_p99_ms": reports.at_most_us(0.99) / 1000,
        "rss_mib": round(max(rss_mib, _rss_mib()), 1),
    }


def _reached(rack: SmallRack) -> Reached:
    """Counts from now on."""
    reached = Reached()
    rack.daemon.watchers.append(reached.add)
    return reached


@attrs.define(eq=False)
class Reached:
    """How many VMMs Nexus knows to be in a state: counted at its acknowledgements."""

    counts: dict[str, int] = attrs.field(factory=dict)
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    def add(self, happening: Any) -> None:
        if happening.kind.value != "acked":
            return
        state = happening.data.vmm_state.state.value
        self.counts[state] = self.counts.get(state, 0) + 1
        self._changed.set()

    async def until(self, state: str, count: int) -> None:
        while self.counts.get(state, 0) < count:
            self._changed.clear()
            await self._changed.wait()


@attrs.frozen
class Asking:
    """What users ask of Nexus; not too much at once. Raises `RackError` for a refusal."""

    http: Any
    _at_once: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def post(self, path: str, body: Any) -> None:
        async with self._at_once, self.http.post(f"/v1/instances{path}", json=body) as answer:
            if answer.status >= 400:
                raise RackError(f"a user was refused: {answer.status} {await answer.text()}")


def _wish(number: int | str) -> dict[str, Any]:
    return {"name": f"bench-{number}", "ncpus": 1, "memory": 2**30}


async def _phase(asked: Asking, reached: Reached, state: str, vms: int, request: Any) -> float:
    """Every VM is asked for something; the seconds until all are in the state."""
    began = _now()
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*(asked.post(*request(number)) for number in range(vms)))
        await reached.until(state, vms)
    return _now() - began


def _now() -> float:
    return time.monotonic()  # noqa: TID251 -- a bench looks at the clock of whoever waits for it


def _rss_mib() -> float:
    """Of this process, now; 0 where nobody says."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / MIB
    except OSError:
        return 0.0
