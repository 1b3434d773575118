"""`make bench`: ours against the floor, interleaved in one run, as ratios.

    python -m tests.bench [--quick] [--rounds N] [--only abcdefghijk] [--json FILE]

The machine may swing by a factor of two between minutes, so nothing here compares with yesterday: ours and the
floor take turns within each round. Where both are measured in each round, the ratio is the median of the rounds' own,
which a slow minute changes less than it changes the figures beside it; else it is the one of the medians.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import aiohttp
import attrs
import msgspec

from nexus_client.dropshot import collector
from nexus_client.senders import QUICK_MAX
from tests.bench import (
    bench_fleet,
    bench_long_outage,
    bench_propolis,
    bench_start,
    bench_workers,
    bench_world,
    lives,
)
from tests.bench.performance import figure

_ROOT = Path(__file__).resolve().parents[2]


@attrs.frozen
class Row:
    """One line of the table. `aim`: the least ratio wanted, or the greatest if `at_most`."""

    name: str
    ours: float
    floor: float
    ratio: float
    unit: str
    aim: float | None = None
    at_most: bool = False
    cpu_ratio: float | None = None
    """The same by processor time of the measured process: neighbours on the machine disturb it less, so that it is
    what is judged where it is known.
    """

    @property
    def verdict(self) -> str:
        if self.aim is None:
            return "-"
        ratio = self.ratio if self.cpu_ratio is None else self.cpu_ratio
        good = ratio <= self.aim if self.at_most else ratio >= self.aim
        return f"{'<=' if self.at_most else '>='} {self.aim:g} {'ok' if good else 'MISSED'}"


@attrs.frozen
class Size:
    """How much of everything."""

    rounds: int
    seconds: float  # of load per arm and round
    updates: int
    lives: int
    vmms: int  # that the socket benches talk about
    many: tuple[int, int]  # registered VMMs, memory
    flat: tuple[int, int]  # registered VMMs, time
    world: bench_world.Size
    fleet: int  # sleds
    socket_lives: int  # of one turn
    outage: bench_long_outage.Size


FULL = Size(
    rounds=9, seconds=1.5, updates=12_000, lives=3_000, vmms=1_000, many=(10_000, 200_000), flat=(1_000, 200_000),
    world=bench_world.Size(rounds=3, live=(1_000, 10_000), steps=20_000, churning=200, lasts="2h"),
    fleet=10_000, socket_lives=2_000, outage=bench_long_outage.Size(vmms=200_000, away_s=600.0),
)  # fmt: skip
QUICK = Size(rounds=1, seconds=0.1, updates=400, lives=20, vmms=200, many=(100, 1_000), flat=(10, 500),
    world=bench_world.Size(rounds=1, live=(10, 50), steps=500, churning=5, lasts="2m"),
    fleet=20, socket_lives=64, outage=bench_long_outage.Size(vmms=50, away_s=0.5),
)  # fmt: skip


class Child:
    """A process of `children.py`, pinned to a core if there are two."""

    def __init__(self, core: int | None, role: str, *arguments: object):
        pinned = "any" if core is None else str(core)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.children", role, pinned, *map(str, arguments)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hello = self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a bench child ended with code {self._process.wait()}")
        return json.loads(line)

    def ask(self, **command: object) -> dict:
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def cpu_s(self) -> float:
        """Processor time so far; 0 where nobody says."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _cores() -> tuple[int | None, int | None]:
    """One for what is measured, one for the rest."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def _median(arm: list[float]) -> float:
    return statistics.median(arm)


@attrs.define
class Arm:
    """One of the things that take turns: its rates, and processor seconds per unit."""

    child: Child
    rates: list[float] = attrs.field(factory=list)
    costs: list[float] = attrs.field(factory=list)

    def run(self, turn: Callable[[], tuple[float, float]], *, counts: bool) -> None:
        """`turn() -> (rate, units)`."""
        before = self.child.cpu_s()
        rate, units = turn()
        if counts:
            self.rates.append(rate)
            self.costs.append((self.child.cpu_s() - before) / units)


def _row(name: str, ours: Arm, floor: Arm, unit: str, aim: float | None = None) -> Row:
    rate = _of_rounds(ours.rates, floor.rates)
    cost = _of_rounds(floor.costs, ours.costs) if all(ours.costs) else None
    return Row(name, _median(ours.rates), _median(floor.rates), rate, unit, aim, cpu_ratio=cost)


def _of_rounds(ours: list[float], floor: list[float]) -> float:
    return _median([mine / least for mine, least in zip(ours, floor, strict=True)])


def bench_put_state(size: Size) -> list[Row]:
    measured, rest = _cores()
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        nexus = start(Child(rest, "sink")).hello["address"]
        arms = {
            "ours": Arm(start(Child(measured, "our_server", nexus, size.vmms))),
            "recorded": Arm(start(Child(measured, "our_server", nexus, size.vmms, _empty_folder(stack)))),
            "application": Arm(start(Child(measured, "floor_server", "application"))),
            "low level": Arm(start(Child(measured, "floor_server", "low level"))),
        }
        load = start(Child(rest, "load"))

        def turn(arm: Arm) -> tuple[float, float]:
            told = load.ask(address=arm.child.hello["address"], vmms=size.vmms, seconds=size.seconds)
            return told["rate"], told["requests"]

        _take_turns(size.rounds, arms, turn)
    return [
        _row("(a) PUT state; floor: aiohttp application", arms["ours"], arms["application"], "req/s", 0.9),
        _row("    the same; floor: aiohttp low-level server", arms["ours"], arms["low level"], "req/s"),
        _row("    recorded (--record), against not", arms["recorded"], arms["ours"], "req/s", 0.95),
    ]


def bench_updates(size: Size) -> list[Row]:
    measured, rest = _cores()
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        nexus = start(Child(rest, "sink")).hello["address"]
        arms = {
            "ours": Arm(start(Child(measured, "our_client", nexus))),
            "floor": Arm(start(Child(measured, "floor_client", nexus))),
            "many": Arm(start(Child(measured, "our_client", nexus, QUICK_MAX))),
            "daemon": Arm(start(Child(measured, "our_daemon", nexus, size.vmms))),
            "recorded": Arm(start(Child(measured, "our_daemon", nexus, size.vmms, "", _empty_folder(stack)))),
            "counted": Arm(start(Child(measured, "our_daemon", nexus, size.vmms, "counted"))),
        }

        def turn(arm: Arm) -> tuple[float, float]:
            return arm.child.ask(updates=size.updates, vmms=size.vmms)["rate"], size.updates

        _take_turns(size.rounds, arms, turn)
    return [
        _row("(b) updates delivered: outbox and client", arms["ours"], arms["floor"], "PUT/s", 0.9),
        _row("    the same with as many in flight as a daemon has", arms["many"], arms["floor"], "PUT/s"),
        _row("    the same, by a whole daemon of rebooting VMs", arms["daemon"], arms["floor"], "PUT/s"),
        _row("    that daemon counting for /metrics, against not", arms["counted"], arms["daemon"], "PUT/s", 0.9),
        _row("    that daemon recorded (--record), against not", arms["recorded"], arms["daemon"], "PUT/s", 0.95),
    ]


def _empty_folder(stack: contextlib.ExitStack) -> str:
    """Gone with the bench, which writes some hundred MB into it."""
    return stack.enter_context(tempfile.TemporaryDirectory())


def _take_turns(rounds: int, arms: dict[str, Arm], turn: Callable[[Arm], tuple[float, float]]) -> None:
    for number in range(rounds + 1):  # the first round warms up
        for name in sorted(arms, reverse=bool(number % 2)):  # who begins changes
            arms[name].run(lambda arm=arms[name]: turn(arm), counts=number > 0)


def bench_lives(size: Size) -> list[Row]:
    rack, machine = lives.rack_with(0), lives.DictMachine()
    moves = lives.assert_same_moves(lives.rack_with(0))
    ours, floor = [], []
    for number in range(size.rounds + 1):
        first = number * size.lives
        ours.append(lives.lives_per_second(lambda n, now: lives.our_life(rack, n, now), size.lives, first))
        floor.append(lives.lives_per_second(machine.life, size.lives, first))
    mine, least = _median(ours[1:]), _median(floor[1:])
    return [Row(f"(c) whole life in the core ({moves} published)", mine, least, mine / least, "lives/s", 0.2)]


def bench_scale(size: Size) -> list[Row]:
    _, rest = _cores()
    few, many = size.many
    with Child(rest, "memory", few) as small:
        at_few = small.hello
    with Child(rest, "memory", many) as large:
        at_many = large.hello
    rows = [
        Row(
            f"(d) memory per {what} VMM, {many:,} against {few:,}",
            at_many[what],
            at_few[what],
            # a few VMMs may fit into pages that the process had already, and then the kernel counts nothing
            at_many[what] / max(at_few[what], 1.0),
            "bytes",
            1.3,
            at_most=True,
        )
        for what in ("registered", "running")
    ]
    few, many = size.flat
    racks = {few: lives.rack_with(few), many: lives.rack_with(many)}
    took: dict[int, list[float]] = {few: [], many: []}
    for number in range(size.rounds + 1):
        for registered, rack in racks.items():
            rate = lives.lives_per_second(
                lambda n, now, rack=rack: lives.our_life(rack, n, now), size.lives, number * size.lives
            )
            if number:
                took[registered].append(1e6 / rate)
    slow, fast = _median(took[many]), _median(took[few])
    name = f"(d) time per life, {many:,} registered against {few:,}"
    return [*rows, Row(name, slow, fast, slow / fast, "us", 1.3, at_most=True)]


def bench_propolis_put_state(size: Size) -> list[Row]:
    return [Row(*figures) for figures in bench_propolis.bench_put_state(size.rounds, size.seconds)]


def bench_propolis_monitor(size: Size) -> list[Row]:
    return [Row(*figures) for figures in bench_propolis.bench_monitor(size.rounds, size.vmms)]


def bench_virtual_time(size: Size) -> list[Row]:
    return [Row(*fields) for fields in bench_world.bench(attrs.evolve(size.world, rounds=size.rounds))]


def bench_starts(size: Size) -> list[Row]:
    return [Row(*fields) for fields in bench_start.bench(size.rounds)]


def bench_fleets(size: Size) -> list[Row]:
    return [Row(*fields) for fields in bench_fleet.bench(size.fleet, max(1, size.rounds // 3))]


def bench_socket_lives(size: Size) -> list[Row]:
    rounds = max(1, size.rounds // 3)
    measured, rest = _cores()
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        nexus = start(Child(rest, "sink")).hello["address"]
        server = Arm(start(Child(measured, "floor_server", "application")))
        client = Arm(start(Child(measured, "floor_client", nexus)))
        load = start(Child(rest, "load"))

        def request() -> tuple[float, float]:
            told = load.ask(address=server.child.hello["address"], vmms=size.vmms, seconds=size.seconds)
            return told["rate"], told["requests"]

        def report() -> tuple[float, float]:
            return client.child.ask(updates=size.updates, vmms=size.vmms)["rate"], size.updates

        for number in range(rounds + 1):
            server.run(request, counts=number > 0)
            client.run(report, counts=number > 0)
    floor_life = 1 / lives.lives_per_second(lives.DictMachine().life, size.lives, 0)
    per_request, per_report = min(server.costs), min(client.costs)

    def floor_of(reports: float) -> float:
        return bench_workers.REQUESTS * per_request + reports * per_report + floor_life

    return [Row(*fields) for fields in bench_workers.bench(size.socket_lives, rounds, floor_of)]


def bench_outage(size: Size) -> list[Row]:
    return [Row(*fields) for fields in bench_long_outage.bench(size.outage)]


BENCHES = {
    "a": bench_put_state,
    "b": bench_updates,
    "c": bench_lives,
    "d": bench_scale,
    "e": bench_propolis_put_state,
    "f": bench_propolis_monitor,
    "g": bench_virtual_time,
    "h": bench_starts,
    "i": bench_fleets,
    "j": bench_socket_lives,
    "k": bench_outage,
}


def table(rows: list[Row]) -> str:
    lines = [f"{'':56}{'ours':>12}{'floor':>12}  {'unit':9}{'ratio':>7}{'by CPU':>8}   aim"]
    lines += [
        f"{row.name:56}{figure(row.ours):>12}{figure(row.floor):>12}  {row.unit:9}{row.ratio:>7.2f}"
        f"{'-' if row.cpu_ratio is None else f'{row.cpu_ratio:.2f}':>8}   {row.verdict}"
        for row in rows
    ]
    return "\n".join(lines)


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    try:
        import uvloop

        loop = f"uvloop {uvloop.__version__}"
    except ImportError:
        loop = "asyncio"
    return (
        f"{cpu}, {len(os.sched_getaffinity(0))} cores; {platform.system()} {platform.release()}; CPython "
        f"{platform.python_version()}, aiohttp {aiohttp.__version__}, msgspec {msgspec.__version__}, {loop}"
    )


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="ours against the floors")
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds, to see that it works; figures mean nothing"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 9)")
    parser.add_argument("--only", default="abcdefghijk", help="which benches, e.g. bc")
    parser.add_argument(
        "--crowd", type=int, help="live VMMs of (g)'s crowd (default 10000; 200000 takes minutes and 2 GB)"
    )
    parser.add_argument("--lasts", help="how long (g)'s churning world lasts (default 2h; 24h takes a minute or two)")
    parser.add_argument("--waiting", type=int, help="VMMs of (k)'s outage (default 200000)")
    parser.add_argument("--away", type=float, help="seconds that it lasts (default 600)")
    parser.add_argument("--json", type=Path, help="the rows also as JSON, with machine, commit and time")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    world = size.world
    if options.crowd:
        world = attrs.evolve(world, live=(world.live[0], options.crowd))
    if options.lasts:
        world = attrs.evolve(world, lasts=options.lasts)
    outage = size.outage
    if options.waiting:
        outage = attrs.evolve(outage, vmms=options.waiting)
    if options.away:
        outage = attrs.evolve(outage, away_s=options.away)
    size = attrs.evolve(size, world=world, outage=outage)
    if options.rounds:
        size = attrs.evolve(size, rounds=options.rounds)
    command = " ".join(["python -m tests.bench", *_without_file(sys.argv[1:] if arguments is None else arguments)])
    print(command)
    print(machine())
    print(f"medians of {size.rounds} interleaved rounds, after one to warm up\n", flush=True)
    rows, benches = [], {}
    for name in options.only:
        before = os.getloadavg()[0]
        made = BENCHES[name](size)
        print(table(made), flush=True)  # at once: a run of all takes minutes
        rows += made
        benches[name] = told(made, command, before)
        if options.json:  # after each: a run that is ended early has told what it had
            options.json.write_text(json.dumps(benches, indent=1) + "\n")
    return rows


def _without_file(arguments: list[str]) -> list[str]:
    """As somebody else would give them: where the figures go is nobody's business."""
    if "--json" not in arguments:
        return arguments
    at = arguments.index("--json")
    return arguments[:at] + arguments[at + 2 :]


def told(rows: list[Row], command: str, load: float) -> dict:
    """One bench, as `performance.py` keeps it."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=False)
    return {
        "command": command,
        "machine": machine(),
        "commit": commit.stdout.strip(),
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "load": [load, os.getloadavg()[0]],
        "rows": [attrs.asdict(row) | {"verdict": row.verdict} for row in rows],
    }


if __name__ == "__main__":
    collector.worker()  # the product's own policy
    main()
