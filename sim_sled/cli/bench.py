"""`sim-sled bench`: a rack under load, and whether it keeps its limits. For people who ask if their machine will do.

Users make so many VMs per sled, all at once; when all run they stop them all. Everything goes over sockets: the
model's calls to the sleds, the sleds' reports to Nexus. With `--nexus` and `--users` the model is a process of its
own, or whatever has its control API; without, it is in this process, whose memory counts it.

Read before: cli/asking.py, cli/load.py.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Final

import typer
from msgspec import Struct
from msgspec.structs import asdict

from nexus_client.dropshot.command_line import CLOSED_ADDRESS, FAILED, GOOD, UNREACHABLE, Needs, typed
from sim_sled.cli.asking import Token
from sim_sled.cli.sled_options import read_peer
from sim_sled.cli.surface import fail

TRANSITIONS_MIN: Final = 200.0
"""By processor time, which other work on the machine moves little; by the wall's, one and the same rack made from 25
to 500. With its model it makes some 500 on a core of 2024: slower cores have room, and a rack that has
become half as quick is noticed.
"""


class Limits(Struct, frozen=True):
    """What a run has to keep."""

    transitions_per_cpu_s_min: float
    rss_mib_max: float
    start_s_max: float
    report_p99_ms_max: float

    def broken(self, figures: dict[str, Any]) -> list[str]:
        """A sentence for each that was not kept."""
        said = []
        if figures["transitions_per_cpu_s"] < self.transitions_per_cpu_s_min:
            said.append(
                f"{figures['transitions_per_cpu_s']:.0f} transitions per second of processor time, at least "
                f"{self.transitions_per_cpu_s_min:.0f} were wanted"
            )
        for name, most, unit in (
            ("rss_mib", self.rss_mib_max, "MiB"),
            ("start_s", self.start_s_max, "s"),
            ("report_p99_ms", self.report_p99_ms_max, "ms"),
        ):
            if figures[name] > most:
                said.append(f"{name} is {figures[name]:g} {unit}, at most {most:g} {unit} were wanted")
        return said


@typed(Needs(("--nexus", "--token"), ("--users",)), Needs(("--users",), ("--nexus",)))
def bench(
    sleds: Annotated[int, typer.Option(min=1, max=20_000, help="how many")] = 8,
    vms_per_sled: Annotated[int, typer.Option(min=1, max=10_000, help="created, then stopped")] = 50,
    nexus: Annotated[
        str | None,
        typer.Option(metavar="ADDR", callback=read_peer, help="internal API; the model comes along if missing"),
    ] = None,
    users: Annotated[
        str | None,
        typer.Option(
            metavar="ADDR", callback=read_peer, help="with --nexus: where users create VMs (a model's control API)"
        ),
    ] = None,
    token: Token = None,
    min_transitions: Annotated[
        float, typer.Option(min=0, metavar="N", help="least changes of state per second of processor time")
    ] = TRANSITIONS_MIN,
    max_rss: Annotated[float, typer.Option(min=0, metavar="MIB", help="most memory")] = 1024.0,
    max_start: Annotated[float, typer.Option(min=0, help="most seconds until every sled is registered")] = 10.0,
    max_p99: Annotated[
        float, typer.Option(min=0, metavar="MS", help="most milliseconds until 99 of 100 reports are acknowledged")
    ] = 60_000.0,
    json_: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Put a rack under load; exit 1 if it does not keep its limits."""
    import aiohttp

    from sim_sled import logs
    from sim_sled.cli import load
    from sim_sled.daemon import descriptors, loop
    from sim_sled.daemon.small_rack import RackError
    from sim_sled.machine import cannot_bind

    logs.configure(level="warning")
    limits = Limits(min_transitions, max_rss, max_start, max_p99)
    figures: dict[str, Any] = {}

    async def whole() -> int:
        figures.update(await load.run(sleds, vms_per_sled, nexus, users, token))
        return 0

    try:
        descriptors.allow(sleds)
        loop.run(whole())
    except (RackError, aiohttp.ClientError, TimeoutError, OSError) as error:
        closed = isinstance(error, OSError) and error.errno in CLOSED_ADDRESS
        why = cannot_bind(OSError(*error.args)) if closed else str(error)
        fail(f"the bench ended early: {why or type(error).__name__}", UNREACHABLE)
    broken = limits.broken(figures)
    if json_:
        sys.stdout.write(json.dumps(figures | {"limits": asdict(limits), "broken": broken}, indent=2) + "\n")
    else:
        widest = max(map(len, figures))
        sys.stdout.write("".join(f"{name:{widest}} {_shown(value)}\n" for name, value in figures.items()))
        sys.stdout.write("".join(f"beyond its limit: {each}\n" for each in broken) or "all limits are kept\n")
    raise typer.Exit(FAILED if broken else GOOD)


def _shown(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".")
