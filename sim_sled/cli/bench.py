"""`sim-sled bench`: a rack under load, and whether it keeps its limits. For people who ask if their machine will do.

Users make so many VMs per sled, all at once; when all run they stop them all. Everything goes over sockets: the
model's calls to the sleds, the sleds' reports to Nexus. With `--nexus` and `--users` the model is a process of its
own, or whatever has its control API; without, it is in this process, whose memory counts it.

Read before: daemon/small_rack.py, daemon/metrics.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import attrs
import typer

from nexus_client.dropshot.command_line import FAILED, GOOD, UNREACHABLE

AT_ONCE: Final = 64
"""Requests of users under way: more only wait in line at the model."""
WITHIN_S: Final = 600.0
"""No phase of a rack of the largest size takes longer."""
MIB: Final = 2**20


@attrs.frozen
class Limits:
    """What a run has to keep."""

    transitions_per_s_min: float
    rss_mib_max: float
    start_s_max: float
    report_p99_ms_max: float

    def broken(self, figures: dict[str, Any]) -> list[str]:
        """A sentence for each that was not kept."""
        said = []
        if figures["transitions_per_s"] < self.transitions_per_s_min:
            said.append(
                f"{figures['transitions_per_s']:.0f} transitions per second, at least "
                f"{self.transitions_per_s_min:.0f} were wanted"
            )
        for name, most, unit in (
            ("rss_mib", self.rss_mib_max, "MiB"),
            ("start_s", self.start_s_max, "s"),
            ("report_p99_ms", self.report_p99_ms_max, "ms"),
        ):
            if figures[name] > most:
                said.append(f"{name} is {figures[name]:g} {unit}, at most {most:g} {unit} were wanted")
        return said


def bench(
    sleds: Annotated[int, typer.Option(min=1, max=20_000, help="how many")] = 8,
    vms_per_sled: Annotated[int, typer.Option(min=1, max=10_000, help="created, then stopped")] = 50,
    nexus: Annotated[
        str | None, typer.Option(metavar="ADDR", help="internal API; the model comes along if missing")
    ] = None,
    users: Annotated[
        str | None, typer.Option(metavar="ADDR", help="with --nexus: where users create VMs (a model's control API)")
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="SIM_SLED_TOKEN", help="of --users")] = None,
    min_transitions: Annotated[float, typer.Option(min=0, help="least changes of state per second")] = 25.0,
    max_rss: Annotated[float, typer.Option(min=0, help="most memory, in MiB")] = 1024.0,
    max_start: Annotated[float, typer.Option(min=0, help="most seconds until every sled is registered")] = 10.0,
    max_p99: Annotated[
        float, typer.Option(min=0, help="most milliseconds until 99 of 100 reports are acknowledged")
    ] = 60_000.0,
    json_: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Put a rack under load; exit 1 if it does not keep its limits."""
    import aiohttp

    from sim_sled.daemon import descriptors, logs, loop
    from sim_sled.daemon.small_rack import RackError

    if (nexus is None) != (users is None):
        raise typer.BadParameter("--nexus and --users go together")
    logs.configure(level="warning")
    limits = Limits(min_transitions, max_rss, max_start, max_p99)
    figures: dict[str, Any] = {}

    async def whole() -> int:
        figures.update(await _run(sleds, vms_per_sled, nexus, users, token))
        return 0

    try:
        descriptors.allow(sleds)
        loop.run(whole())
    except (RackError, aiohttp.ClientError, TimeoutError, OSError) as error:
        sys.stderr.write(f"sim-sled: the bench ended early: {str(error) or type(error).__name__}\n")
        raise typer.Exit(UNREACHABLE) from None
    broken = limits.broken(figures)
    if json_:
        sys.stdout.write(json.dumps(figures | {"limits": attrs.asdict(limits), "broken": broken}, indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{name:18} {_shown(value)}\n" for name, value in figures.items()))
        sys.stdout.write("".join(f"beyond its limit: {each}\n" for each in broken) or "all limits are kept\n")
    raise typer.Exit(FAILED if broken else GOOD)


def _shown(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".")


async def _run(
    sleds: int, vms_per_sled: int, nexus: str | None, users: str | None, token: str | None
) -> dict[str, Any]:
    import aiohttp

    from sim_sled.core.config import GIB, Hardware
    from sim_sled.daemon.metrics import Counters
    from sim_sled.daemon.small_rack import SmallRack

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
        counters, reached = Counters(), Reached()
        rack.daemon.watchers += [counters.add, reached.add]
        where = users if rack.server is None else rack.server.control
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(f"http://{where}", headers=headers) as http:
            asked = Asking(http)
            run_s = await _phase(asked, reached, "running", vms, lambda n: ("", _wish(n)))
            rss_mib = _rss_mib()
            stop_s = await _phase(asked, reached, "destroyed", vms, lambda n: (f"/bench-{n}/stop", None))
    transitions, reports = counters.transitions, counters.reports
    return {
        "sleds": sleds,
        "vms": vms,
        "start_s": round(start_s, 3),
        "run_s": round(run_s, 3),
        "stop_s": round(stop_s, 3),
        "transitions": transitions,
        "transitions_per_s": round(transitions / (run_s + stop_s), 1),
        "reports": reports.count,
        "reports_per_s": round(reports.count / (run_s + stop_s), 1),
        "report_p50_ms": reports.at_most_us(0.5) / 1000,
        "report_p99_ms": reports.at_most_us(0.99) / 1000,
        "rss_mib": round(max(rss_mib, _rss_mib()), 1),
    }


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
        from sim_sled.daemon.small_rack import RackError

        async with self._at_once, self.http.post(f"/v1/instances{path}", json=body) as answer:
            if answer.status >= 400:
                raise RackError(f"a user was refused: {answer.status} {await answer.text()}")


def _wish(number: int) -> dict[str, Any]:
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
