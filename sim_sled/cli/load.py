"""The rack that `sim-sled bench` puts under load, its users, and what is measured.

Read before: daemon/small_rack.py, daemon/metrics.py. Read next: cli/bench.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs

from nexus_client.dropshot.text import counted
from sim_sled.core.config import GIB, Hardware
from sim_sled.daemon.metrics import Counters
from sim_sled.daemon.small_rack import RackError, SmallRack

AT_ONCE: Final = 64
"""Requests of users under way: more only wait in line at the model."""
STILL_S: Final = 60.0
"""A user's answer takes no longer, nor does it take longer until Nexus has heard of some VM again."""
MIB: Final = 2**20


async def run(
    sleds: int, vms_per_sled: int, nexus: str | None, users: str | None, token: str | None
) -> dict[str, Any]:
    """A rack from its start to its last report, and its figures. Raises `RackError` for a refusal, and for a Nexus
    that does not do what it was asked for.
    """
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
        patience = aiohttp.ClientTimeout(total=STILL_S)
        async with aiohttp.ClientSession(f"http://{where}", headers=headers, timeout=patience) as http:
            asked = Asking(http)
            # a life that does not count: what is imported when it is first asked for would be most of a small rack's
            reached = _reached(rack)
            await _phase(reached, "running", 1, lambda _: asked.create("first"))
            await _phase(reached, "destroyed", 1, lambda _: asked.stop("first"))
            counters, reached = Counters(), _reached(rack)
            rack.daemon.watchers.append(counters.add)
            cpu_began = time.process_time()
            run_s = await _phase(reached, "running", vms, asked.create)
            rss_mib = _rss_mib()
            stop_s = await _phase(reached, "destroyed", vms, asked.stop)
            cpu_s = max(0.001, time.process_time() - cpu_began)
            await asyncio.gather(*map(asked.delete, ("first", *range(vms))))
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
        """Raises `RackError` if a VM fails, or if Nexus hears of none for a while."""
        while self.counts.get(state, 0) < count:
            if self.counts.get("failed"):
                raise RackError(f"a VM has failed instead of being {state}")
            self._changed.clear()
            try:
                async with asyncio.timeout(STILL_S):
                    await self._changed.wait()
            except TimeoutError:
                some = f"{self.counts.get(state, 0)} of {counted(count, 'VM')}"
                raise RackError(f"{some} {state}, and Nexus has heard of none for {STILL_S:.0f} s") from None


@attrs.frozen
class Asking:
    """What users ask of Nexus; not too much at once. Raises `RackError` for a refusal.

    A Nexus may have VMs of an earlier bench that was ended: names are of this one only.
    """

    http: Any
    _of: str = attrs.field(factory=lambda: secrets.token_hex(4))
    _at_once: asyncio.Semaphore = attrs.field(factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def create(self, number: int | str) -> None:
        await self._ask("POST", "", {"name": self._name(number), "ncpus": 1, "memory": 2**30})

    async def stop(self, number: int | str) -> None:
        await self._ask("POST", f"/{self._name(number)}/stop", None)

    async def delete(self, number: int | str) -> None:
        """What is still busy with it keeps it: that is no matter of the bench."""
        with contextlib.suppress(RackError):
            await self._ask("DELETE", f"/{self._name(number)}", None)

    def _name(self, number: int | str) -> str:
        return f"bench-{self._of}-{number}"

    async def _ask(self, method: str, path: str, body: Any) -> None:
        where = f"/v1/instances{path}"
        async with self._at_once:
            try:
                async with self.http.request(method, where, json=body, allow_redirects=False) as answer:
                    if not 200 <= answer.status < 300:
                        raise RackError(f"a user was refused: {answer.status} {await answer.text()}")
            except TimeoutError:
                raise RackError(f"a user had no answer to {method} {where} within {STILL_S:.0f} s") from None


async def _phase(reached: Reached, state: str, vms: int, ask: Callable[[int], Awaitable[None]]) -> float:
    """Every VM is asked for something; the seconds until all are in the state."""
    began = _now()
    await asyncio.gather(*map(ask, range(vms)))
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
