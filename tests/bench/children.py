"""What runs in processes of its own: `python -m tests.bench.children ROLE [ARG...]`.

Each prints one JSON line when it is ready and then answers each JSON line on stdin with one on stdout.
"""

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
import time
from pathlib import Path
from uuid import UUID

import aiohttp
from aiohttp import web
from yarl import URL

from nexus_client.client import NexusClient
from nexus_client.codec import VMM_PUT_STATE_BODY, encode
from nexus_client.dropshot import collector
from nexus_client.outbox import Delivered, Outbox, Replied, Send, Submit
from nexus_client.senders import Senders
from nexus_client.types import (
    Asked,
    SledVmmState,
    UpdatedRuntime,
    VmmRuntimeState,
    VmmState,
    VmmStateRequested,
    time_of,
)
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.core.happenings import Kind
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.metrics import Counters
from sim_sled.daemon.options import Options
from sim_sled.daemon.recorder import Recorder
from sim_sled.language.pacer import PresetPacer
from tests.bench import lives, wire

_RUNNING = SledVmmState(VmmRuntimeState(VmmState.RUNNING, 3, time_of(lives.T0_US)))
_IN_FLIGHT = 32


def say(**values):
    print(json.dumps(values), flush=True)


async def commands():
    """The lines on stdin, parsed, until it closes."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def vmm_id(number):
    return UUID(int=2**80 + number)


# --- (a) PUT state ---------------------------------------------------------------------------------------------


async def _running_daemon(nexus, vmms, record=None):
    """A daemon as `serve` runs it, with VMMs that run; nothing else happens. `record`: a folder."""
    recorder = None if record is None else Recorder(Path(record), {})
    options = Options(nexus=nexus, pacer=PresetPacer("instant"), register=False)
    daemon = Daemon([SledConfig(lives.SLED)], options, recorder=recorder)
    await daemon.start()
    acked = 0
    all_there = asyncio.Event()

    def watch(happening):
        nonlocal acked
        if happening.kind is Kind.ACKED:
            acked += 1
            if acked == vmms:
                all_there.set()

    daemon.watchers.append(watch)
    run = VmmStateRequested(Asked.RUNNING)
    for number in range(vmms):
        await daemon.submit(
            contract.Register(daemon.ticket(), lives.SLED, vmm_id(number), lives.registration(number))
        )
        await daemon.submit(contract.PutState(daemon.ticket(), lives.SLED, vmm_id(number), run))
    await all_there.wait()
    daemon.watchers.remove(watch)
    return daemon


async def our_server(nexus, vmms, record=None):
    daemon = await _running_daemon(nexus, int(vmms), record)
    say(address=daemon.addresses[lives.SLED])
    async for _ in commands():
        say()
    await daemon.stop()


async def floor_server(kind):
    """A bare aiohttp handler that decodes the same body and answers a constant."""
    constant = encode(UpdatedRuntime(_RUNNING))

    async def handler(request):
        VMM_PUT_STATE_BODY.decode(await request.read())
        return web.Response(body=constant, content_type="application/json")

    if kind == "application":
        app = web.Application()
        app.router.add_put("/vmms/{id}/state", handler)
        runner = web.AppRunner(app, access_log=None)
    else:
        runner = web.ServerRunner(web.Server(handler, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "::1", 0, backlog=1024).start()
    say(address=f"[::1]:{runner.addresses[0][1]}")
    async for _ in commands():
        say()
    await runner.cleanup()


async def load():
    say()
    async for command in commands():
        body = b'{"state":{"type":"running"}}'
        requests = [
            wire.put_request(command["address"], f"/vmms/{vmm_id(number)}/state", body)
            for number in range(command["vmms"])
        ]
        say(**await wire.load(command["address"], requests, _IN_FLIGHT, command["seconds"]))


# --- (b) updates to Nexus ---------------------------------------------------------------------------------------


async def sink():
    server, address = await wire.sink()
    say(address=address)
    async for _ in commands():
        say()
    server.close()


def _bodies(updates, vmms):
    """What both arms send, in order: each VMM's state in rising generations."""
    return [
        (
            vmm_id(number % vmms),
            SledVmmState(VmmRuntimeState(VmmState.RUNNING, 3 + number // vmms, time_of(lives.T0_US))),
        )
        for number in range(updates)
    ]


async def our_client(nexus, in_flight=_IN_FLIGHT):
    """Outbox, Senders and client; time stands still, as nothing fails."""
    async with NexusClient(nexus) as client:
        say()
        async for command in commands():
            say(rate=await _deliver_all(client, _bodies(command["updates"], command["vmms"]), int(in_flight)))


async def _deliver_all(client, bodies, in_flight):
    """Updates per second from the submission of the first to the acknowledgement of the last."""
    outbox, done, settled = Outbox(), asyncio.get_running_loop().create_future(), 0
    waiting = list(reversed(bodies))

    def perform(effects):
        nonlocal settled
        for effect in effects:
            if isinstance(effect, Send):
                senders.send(effect)
            else:
                settled += 1
                more()

    def more():
        if waiting:
            perform(outbox.handle(Submit(*waiting.pop()), lives.T0_US))
        elif not len(outbox):
            done.set_result(None)

    def on_reply(send, outcome):
        perform(outbox.handle(Replied(send.propolis_id, send.serial, outcome), lives.T0_US))

    senders = Senders(client, on_reply, quick_max=in_flight)
    began = time.perf_counter()
    for _ in range(min(2 * in_flight, len(bodies))):  # some wait in the queue, so that no sender ever does
        more()
    await done
    took = time.perf_counter() - began
    await senders.stop()
    assert settled == len(bodies)
    return settled / took


async def floor_client(nexus):
    """A bare aiohttp client loop that sends the same bodies to the same paths."""
    headers = {"api-version": "1.0.0", "content-type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        say()
        async for command in commands():
            bodies = [
                (propolis_id, encode(body)) for propolis_id, body in _bodies(command["updates"], command["vmms"])
            ]
            bodies.reverse()

            async def send(bodies=bodies):
                while bodies:
                    propolis_id, body = bodies.pop()
                    url = URL(f"http://{nexus}/vmms/{propolis_id}", encoded=True)
                    async with session.put(url, data=body, headers=headers) as response:
                        assert response.status == 204

            began = time.perf_counter()
            await asyncio.gather(*(send() for _ in range(_IN_FLIGHT)))
            say(rate=command["updates"] / (time.perf_counter() - began))


async def our_daemon(nexus, vmms, counted="", record=None):
    """The whole daemon: VMs that reboot for ever, two updates each time, one timer, the rack, the history."""
    daemon = await _running_daemon(nexus, int(vmms), record)
    if counted:
        daemon.watchers.append(Counters().add)
    reboot = VmmStateRequested(Asked.REBOOT)
    say()
    async for command in commands():
        acked, done = 0, asyncio.get_running_loop().create_future()
        rebooting = set()

        def watch(happening, wanted=command["updates"], done=done, rebooting=rebooting):
            nonlocal acked
            if happening.kind is not Kind.ACKED:
                return
            acked += 1
            if happening.data.vmm_state.state is VmmState.RUNNING:
                rebooting.discard(happening.propolis_id)
                if acked < wanted:
                    asyncio.get_running_loop().call_soon(ask, happening.propolis_id)
                elif not rebooting and not done.done():
                    done.set_result(None)

        def ask(propolis_id, rebooting=rebooting):
            rebooting.add(propolis_id)
            daemon.handle(contract.PutState(daemon.ticket(), lives.SLED, propolis_id, reboot))

        daemon.watchers.append(watch)
        began = time.perf_counter()
        for number in range(int(vmms)):
            ask(vmm_id(number))
        await done
        say(rate=acked / (time.perf_counter() - began))
        daemon.watchers.remove(watch)
    await daemon.stop()


# --- (d) memory --------------------------------------------------------------------------------------------------


def _rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def memory(vmms):
    """Bytes per registered VMM, and per running one that Nexus knows all about."""
    warm = lives.rack_with(100)
    lives.our_life(warm, 10**9, lives.T0_US)
    del warm
    gc.collect()
    before = _rss()
    rack = lives.rack_with(int(vmms))
    gc.collect()
    registered = _rss()
    run = VmmStateRequested(Asked.RUNNING)
    now_us = lives.T0_US
    for number in range(int(vmms)):
        rack.handle(contract.PutState(0, lives.SLED, UUID(int=2**70 + number), run), now_us)
    while (due_us := rack.next_deadline_us()) is not None:
        now_us = max(now_us, due_us)
        for effect in rack.handle(contract.Tick(), now_us):
            if isinstance(effect, contract.PutToNexus):
                rack.handle(contract.NexusReplied(lives.SLED, effect.propolis_id, effect.serial, Delivered()), now_us)
    gc.collect()
    running = _rss()
    assert len(rack.sleds[lives.SLED].vmms) == int(vmms)
    say(registered=(registered - before) / int(vmms), running=(running - before) / int(vmms))


_ROLES = {
    role.__name__: role
    for role in (our_server, floor_server, load, sink, our_client, floor_client, our_daemon, memory)
}


def main():
    role, core, *arguments = sys.argv[1:]
    if core != "any":
        os.sched_setaffinity(0, {int(core)})
    run = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop  # both arms of each bench run on the same loop

        run = uvloop.run
    collector.worker()  # the product's own policy, for both arms
    run(_ROLES[role](*arguments))


if __name__ == "__main__":
    main()
