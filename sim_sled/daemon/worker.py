"""One process of a rack that has several: some of its sleds, served until whoever started it says so, or is gone.

    python -m sim_sled.daemon.worker

A line of JSON on stdin says what to do (`Spec`: it has a secret in it, which arguments would show to everybody), one
on stdout that it is ready (`Ready`); empty ones there, that it still turns (daemon/pulse.py). It ends with SIGTERM,
and when its stdin closes: a worker does not outlive its parent, whatever becomes of that. SIGHUP reads the scenario
again.

Read before: daemon/control.py, daemon/pulse.py, daemon/serve.py, daemon/small_rack.py. Read next: daemon/workers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nexus_client.dropshot import collector, ending
from nexus_client.dropshot.command_line import ADDRESS_IN_USE, CLOSED_ADDRESS, UNREACHABLE
from nexus_client.dropshot.streams import CannotWrite
from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.daemon import descriptors, loop
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.part_files import CannotRecord
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.daemon.pulse import beat
from sim_sled.daemon.recorder import Recorder
from sim_sled.daemon.serve import BadScenario, load_again, reload_from
from sim_sled.daemon.small_rack import Part, RackError, SmallRack
from sim_sled.machine import assertions, cannot_bind

if TYPE_CHECKING:
    from sim_sled.language.schema import Scenario


class Spec(msgspec.Struct, frozen=True):
    """What a worker is told: which sleds of which rack, and what they do. `token` guards its control API."""

    name: str
    sleds: int
    first: int
    count: int
    nexus: str
    scenario: str | None
    seed: int
    pace: str
    token: str
    listen: str = "[::1]:0"
    log_level: str = "warning"
    made_by: str | None = None
    """What the file of `scenario` said when the rack started, with all that it includes."""
    rules: str | None = None
    """A scenario that has come since, and is in effect instead."""
    revision: int = 1
    """Of what is in effect, as the rack counts."""
    by_file: bool = True
    """What is in effect came from the file of `scenario`, and not over the control API."""
    addresses: list[str] = []
    """Where its sleds were when it died. Empty: it is the first one, or one of these has been taken since."""
    record: str | None = None
    """The folder of the rack's recording, in which each worker has one of its own."""
    again: bool = False
    """It has died, and is to come back: without a recording if there can be none, as the others go on without one."""


class Ready(msgspec.Struct, frozen=True):
    """What it says then: where its control API is, and the address of each of its sleds, in order."""

    control: str
    addresses: list[str]


async def _main() -> int:
    running = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await running.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    beating = asyncio.create_task(beat(sys.stdout.fileno()))
    try:
        spec = msgspec.json.decode(await reader.readline(), type=Spec)
        logs.configure(level=spec.log_level)
        return await _serve(spec, reader)
    except OSError as error:
        sys.stderr.write(f"sim-sled: {cannot_bind(error) if error.errno in CLOSED_ADDRESS else error}\n")
        return ADDRESS_IN_USE if error.errno in CLOSED_ADDRESS else UNREACHABLE
    except (RackError, BadScenario, CannotRecord, CannotWrite, ValueError) as error:
        sys.stderr.write(f"sim-sled: {error}\n")
        return UNREACHABLE
    finally:
        beating.cancel()
        transport.close()


async def _serve(spec: Spec, parent: asyncio.StreamReader) -> int:
    stop = ending.asked([signal.SIGTERM])
    running = asyncio.get_running_loop()
    gone = asyncio.create_task(_gone(parent, stop))  # while it waits for a Nexus, too, it does not outlive its parent
    stop.add_done_callback(lambda _: gone.cancel())
    file = None if spec.scenario is None else Path(spec.scenario)
    descriptors.allow(spec.count)
    try:
        rack = _rack(spec, file)
        started = await ending.unless(stop, rack.start())
    except CannotRecord as error:
        if not spec.again:
            raise
        logs.get("recorder").warning("sleds come back, and are not recorded", first=spec.first, why=str(error))
        rack = _rack(msgspec.structs.replace(spec, record=None), file)
        started = await ending.unless(stop, rack.start())
    if not started:
        return 0
    try:
        _take_up(rack, spec, file)
        if file is None:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # its parent knows what to make of it
        else:
            running.add_signal_handler(signal.SIGHUP, lambda: reload_from(rack.load, file, rack.daemon.played))
        listener = await serve_control(Control(rack.daemon, spec.token), SocketAddress("127.0.0.1", 0))
        try:
            ready = Ready(listener.address, [each.address for each in rack.handles])
            sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
            sys.stdout.flush()
            collector.started()
            with told_of(rack):
                await stop
        finally:
            await listener.close()
    finally:
        await rack.stop()
    return 0


def _rack(spec: Spec, file: Path | None) -> SmallRack:
    """Its part of the rack. Raises `CannotRecord`, as `start` does."""
    return SmallRack(
        name=spec.name,
        sleds=spec.sleds,
        nexus=spec.nexus,
        scenario=_scenario(spec, file),
        seed=spec.seed,
        pace=spec.pace,
        address=spec.listen,
        # the other side of a migration may be in another process: it is found by its address, as on a real rack
        propolis=PropolisMode.REGISTERED,
        record=None if spec.record is None else Recorder(_own_folder(Path(spec.record), spec), {}),
        part=Part(spec.first, spec.count, spec.addresses),
    )


def _own_folder(top: Path, spec: Spec) -> Path:
    """`sleds-1-4`; of a worker that has died and is back `sleds-1-4-again-1`, as that begins anew."""
    name = f"sleds-{spec.first}-{spec.first + spec.count - 1}"
    again = (f"{name}-again-{number}" for number in itertools.count(1))
    return next(folder for each in itertools.chain((name,), again) if not (folder := top / each).exists())


@contextlib.contextmanager
def told_of(rack: SmallRack) -> Iterator[None]:
    """An Antithesis environment hears what each worker sees of its own sleds; the parent says when all are there."""
    told = assertions()
    if told is None:
        yield
        return
    from sim_sled.daemon.judging import Judging  # noqa: PLC0415 -- nobody else pays for it

    judging = Judging(rack.daemon, rack.daemon.engine.scenario, rack.seed, assertions=told)
    try:
        yield
    finally:
        judging.ending()
        judging.result()
        told.close()


def _scenario(spec: Spec, file: Path | None) -> Scenario | None:
    """What the rack is made by: its fleet stays that of its start, whatever the file says by now."""
    return None if spec.made_by is None else _of(spec.made_by, file)


def _take_up(rack: SmallRack, spec: Spec, file: Path | None) -> None:
    """The rules that are in effect by now are these sleds' too, if they concern them."""
    if spec.rules is not None:
        from sim_sled.play.fleet import NotInFleet  # noqa: PLC0415 -- few racks are given other rules

        with contextlib.suppress(NotInFleet):  # as it was when they came: the other parts of the rack took them
            rack.daemon.load(_of(spec.rules, file))
    rack.daemon.played.revision = spec.revision
    rack.daemon.played.file = spec.scenario if spec.by_file else None


def _of(text: str, file: Path | None) -> Scenario:
    """The scenario of a text. The file's own if it says the same: then its rules have their places in it."""
    from sim_sled.language.check import parse_scenario  # noqa: PLC0415 -- most racks have no rules

    scenario, problems = parse_scenario(text, "scenario")
    if scenario is None:
        raise BadScenario(problems.text())
    if file is not None:
        with contextlib.suppress(BadScenario):
            again = load_again(file)
            if again == scenario:
                return again
    return scenario


async def _gone(parent: asyncio.StreamReader, stop: asyncio.Future[int]) -> None:
    """Nobody holds the other end of stdin any more: that is the end."""
    await parent.read()
    if not stop.done():
        stop.set_result(0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever sends it one by one: the parent decides
    ending.begin("sim-sled")
    collector.begin()
    raise SystemExit(loop.run(_main()))
