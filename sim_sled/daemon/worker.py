"""One process of a rack that has several: some of its sleds, served until whoever started it says so, or is gone.

    python -m sim_sled.daemon.worker

A line of JSON on stdin says what to do (`Spec`: it has a secret in it, which arguments would show to everybody), one
on stdout that it is ready (`Ready`). It ends with SIGTERM, and when its stdin closes: a worker does not outlive its
parent, whatever becomes of that. SIGHUP reads the scenario again.

Read before: daemon/control.py, daemon/serve.py, daemon/small_rack.py. Read next: daemon/workers.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from nexus_client.dropshot import collector
from nexus_client.dropshot.command_line import ADDRESS_IN_USE, CLOSED_ADDRESS, UNREACHABLE
from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.daemon import descriptors, loop
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.daemon.serve import BadScenario, load_one, reload_from
from sim_sled.daemon.small_rack import Part, RackError, SmallRack
from sim_sled.files import CannotWrite
from sim_sled.machine import assertions, cannot_bind


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


class Ready(msgspec.Struct, frozen=True):
    """What it says then: where its control API is, and the address of each of its sleds, in order."""

    control: str
    addresses: list[str]


async def _main() -> int:
    running = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await running.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    try:
        spec = msgspec.json.decode(await reader.readline(), type=Spec)
        logs.configure(level=spec.log_level)
        return await _serve(spec, reader)
    except OSError as error:
        sys.stderr.write(f"sim-sled: {cannot_bind(error) if error.errno in CLOSED_ADDRESS else error}\n")
        return ADDRESS_IN_USE if error.errno in CLOSED_ADDRESS else UNREACHABLE
    except (RackError, BadScenario, CannotWrite, ValueError) as error:
        sys.stderr.write(f"sim-sled: {error}\n")
        return UNREACHABLE
    finally:
        transport.close()


async def _serve(spec: Spec, parent: asyncio.StreamReader) -> int:
    stop = asyncio.Event()
    running = asyncio.get_running_loop()
    running.add_signal_handler(signal.SIGTERM, stop.set)
    running.add_signal_handler(signal.SIGINT, lambda: None)  # whoever sends it one by one: the parent decides
    file = None if spec.scenario is None else Path(spec.scenario)
    rack = SmallRack(
        name=spec.name,
        sleds=spec.sleds,
        nexus=spec.nexus,
        scenario=None if file is None else load_one(file),
        seed=spec.seed,
        pace=spec.pace,
        address=spec.listen,
        # the other side of a migration may be in another process: it is found by its address, as on a real rack
        propolis=PropolisMode.REGISTERED,
        part=Part(spec.first, spec.count),
    )
    descriptors.allow(spec.count)
    await rack.start()
    try:
        if file is not None:
            running.add_signal_handler(signal.SIGHUP, lambda: reload_from(rack.load, file, rack.daemon.played))
        listener = await serve_control(Control(rack.daemon, spec.token), SocketAddress("127.0.0.1", 0))
        try:
            ready = Ready(listener.address, [each.address for each in rack.handles])
            sys.stdout.buffer.write(msgspec.json.encode(ready) + b"\n")
            sys.stdout.flush()
            collector.started()
            with told_of(rack):
                await _until(stop, parent)
        finally:
            await listener.close()
    finally:
        await rack.stop()
    return 0


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


async def _until(stop: asyncio.Event, parent: asyncio.StreamReader) -> None:
    """Until SIGTERM, or until nobody holds the other end of stdin."""
    waiting = [asyncio.ensure_future(parent.read()), asyncio.ensure_future(stop.wait())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()


if __name__ == "__main__":
    raise SystemExit(loop.run(_main()))
