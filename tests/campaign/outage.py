"""The long outage: many churning VMMs tell a Nexus that misbehaves in every way we know, and nothing may be lost.

    python -m tests.campaign.outage [--seconds 60] [--vmms 500] [--seed 0]

All of delivery is real: outbox, senders, client, sockets. Nexus is `Hostile`: it draws one of `MODES` for each
request, says stray answers on idle connections, and goes away altogether from time to time. *Lost* is a state that
our side settled as delivered, or gave up, and that Nexus does not have. A stray answer is only said while no request
has reached the peer: one that crosses a request on the wire cannot be told from its answer by anybody
(docs/delivery.md).
"""

import argparse
import asyncio
import contextlib
import random
import select
import socket
import struct
import sys
from collections import Counter
from uuid import UUID

import msgspec

from nexus_client.backoff import Policy
from nexus_client.client import NexusClient
from nexus_client.outbox import Outbox, Permanent, Replied, Settled, Submit, Tick
from nexus_client.senders import Senders
from nexus_client.types import SledVmmState, VmmRuntimeState, VmmState, time_of

T0_US = 1_700_000_000_000_000
GENERATIONS = 12
"""States of one VMM's life; the last is `destroyed`."""

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


def _status(status, body=b"", headers=b""):
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), headers, body)


TAKEN = {
    "204": OK,
    "204, last chunk": b"HTTP/1.1 204 X\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "204, a chunk that nobody announced": OK + b"0\r\n\r\n",
    "204 with a body": b"HTTP/1.1 204 X\r\ncontent-length: 5\r\n\r\nhello",
    "204, a large head": b"HTTP/1.1 204 X\r\nx: " + b"p" * 20_000 + b"\r\n\r\n",
    "204 after a 100": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "204 and another 204": OK + OK,
    "204, then close": b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n",
}
"""Nexus has it, and says so in an odd way."""

NOT_TAKEN = {
    "503": _status(503, b'{"message": "Service Unavailable"}'),
    "500, a large body": _status(500, b"x" * 100_000),
    "429": _status(429),
    "408": _status(408, headers=b"connection: close\r\n"),
    "425": _status(425),
    "302": _status(302, headers=b"location: /login\r\n"),
    "200": _status(200, b"{}"),
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "half a head": b"HTTP/1.1 204 No Con",
    "garbage": b"\x00\xff" * 100,
    "nothing": b"",
}
"""It does not have it. After the last three, and what says so, it hangs up."""

STRAYS = {
    "stray 204": OK,
    "stray 404": _status(404, b"{}"),
    "stray 408": _status(408, headers=b"connection: close\r\n"),
    "stray byte": b"x",
}
OTHER = ("hang", "reset", "taken, answer lost", "moved", "byte by byte", "slow")
MODES = (*TAKEN, *NOT_TAKEN, *STRAYS, *OTHER)
_CLOSES = frozenset({"408", "101", "half a head", "garbage", "nothing", "204, then close"})


def has_come(handle):
    """Whether something lies unread on a socket. Not `select`: that knows no descriptor beyond 1,023."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


class Hostile:
    """A Nexus of 29 moods. `kind` True: from now on it only says 204."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.has = {}  # generation by VMM
        self.seen = Counter()
        self.modes = Counter()
        self.kind = False
        self.port = 0
        self.server = None
        self.writers = set()

    async def up(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self.server.sockets[0].getsockname()[1]

    async def down(self):
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side, or `down`, has ended it
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        length = int(next(each for each in rest.split(b"\r\n") if each.startswith(b"content-length:")).split(b":")[1])
        body = msgspec.json.decode(await reader.readexactly(length))
        path = line.split(b" ")[1].decode()
        vmm, generation = path.rpartition("/")[2], body["vmm_state"]["gen"]
        moved = path.startswith("/moved")
        mode = "204" if self.kind or moved else self.random.choice(MODES)
        self.modes[mode] += 1
        if not moved:
            self.seen[vmm, generation] += 1
        if mode in NOT_TAKEN:
            writer.write(NOT_TAKEN[mode])
            return mode not in _CLOSES
        if mode == "moved":
            writer.write(_status(307, headers=f"location: /moved{path}\r\n".encode()))
            return True
        if mode == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        if mode == "hang":
            await reader.read()
            return False
        self.has[vmm] = max(generation, self.has.get(vmm, 0))
        if mode == "taken, answer lost":
            return False
        if mode == "slow":
            await asyncio.sleep(self.random.random() / 3)
        if mode == "byte by byte":
            for each in OK:
                if writer.is_closing():
                    return False
                writer.write(bytes([each]))
                await asyncio.sleep(0)
            return True
        if writer.is_closing():
            return False
        writer.write(TAKEN.get(mode, OK))
        await writer.drain()
        if mode in STRAYS:
            await asyncio.sleep(self.random.random() / 50)
            if writer.is_closing():
                return False
            idle = not reader._buffer and not has_come(writer.get_extra_info("socket").fileno())
            if idle:
                writer.write(STRAYS[mode])
            return mode != "stray 408" or not idle
        return mode not in _CLOSES


class Sled:
    """All of our side: so many VMMs at a time that live, are told, and make room for the next."""

    def __init__(self, client, nexus, vmms, seed):
        self.nexus = nexus
        self.random = random.Random(seed + 1)
        self.loop = asyncio.get_running_loop()
        self.outbox = Outbox(policy=Policy(20_000, 200, 500_000), seed=seed)
        self.senders = Senders(client, self._replied)
        self.living = {}
        self.ever = 0
        self.vmms = vmms
        self.sent = Counter()
        self.unheard = []  # settled as delivered, and Nexus does not have it
        self.refused = []
        self.last = {}
        self._timer = None

    def _now_us(self):
        return T0_US + int(self.loop.time() * 1e6)

    def live(self):
        """Something happens to some of them, and who is gone is replaced."""
        while len(self.living) < self.vmms:
            self.ever += 1
            self.living[UUID(int=self.ever)] = 0
        for vmm in self.random.sample(sorted(self.living), max(1, self.vmms // 10)):
            generation = self.living[vmm] = self.living[vmm] + 1
            state = VmmState.DESTROYED if generation == GENERATIONS else VmmState.RUNNING
            if state is VmmState.DESTROYED:
                del self.living[vmm]
            self.last[str(vmm)] = generation
            body = SledVmmState(VmmRuntimeState(state, generation, time_of(T0_US)))
            self._perform(self.outbox.handle(Submit(vmm, body), self._now_us()))

    def _perform(self, effects):
        for effect in effects:
            key = str(effect.propolis_id), effect.body.vmm_state.gen
            if isinstance(effect, Settled):
                if isinstance(effect.outcome, Permanent):
                    self.refused.append((key, effect.outcome.why))
                elif self.nexus.has.get(key[0], 0) < key[1]:
                    self.unheard.append(key)
            else:
                self.sent[key] += 1
                self.senders.send(effect)
        due_us = self.outbox.next_deadline_us()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_us is not None:
            self._timer = self.loop.call_later(max(0.001, (due_us - self._now_us()) / 1e6), self._tick)

    def _tick(self):
        self._timer = None
        self._perform(self.outbox.handle(Tick(), self._now_us()))

    def _replied(self, send, outcome):
        self._perform(self.outbox.handle(Replied(send.propolis_id, send.serial, outcome), self._now_us()))

    async def close(self):
        if self._timer is not None:
            self._timer.cancel()
        await self.senders.stop()


async def play(seconds, vmms, seed, timeout_s=2.0, client_class=NexusClient):
    """What came of it: lost, twice, told, VMMs, requests, modes."""
    nexus = Hostile(seed)
    await nexus.up()
    async with client_class(f"127.0.0.1:{nexus.port}", timeout_s=timeout_s) as client:
        sled = Sled(client, nexus, vmms, seed)
        loop = asyncio.get_running_loop()
        end, next_outage = loop.time() + seconds, loop.time() + seconds / 4
        while loop.time() < end:
            sled.live()
            await asyncio.sleep(0.02)
            if loop.time() > next_outage:
                await nexus.down()
                await asyncio.sleep(min(3.0, seconds / 10))
                await nexus.up()
                next_outage += seconds / 4
        nexus.kind = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while len(sled.outbox):
                    await asyncio.sleep(0.05)
        await sled.close()
    await nexus.down()
    await asyncio.sleep(0.01)
    untold = [vmm for vmm, generation in sled.last.items() if nexus.has.get(vmm, 0) < generation]
    twice = [key for key, number in nexus.seen.items() if number > sled.sent[key]]
    return {
        "lost": sorted({*untold, *(vmm for vmm, _ in sled.unheard), *(key[0] for key, _ in sled.refused)}),
        "sent behind our back": twice,
        "vmms": sled.ever,
        "requests": sum(nexus.seen.values()),
        "modes": nexus.modes,
    }


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.outage")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--vmms", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    told = asyncio.run(play(options.seconds, options.vmms, options.seed))
    print(
        f"{told['vmms']} VMMs, {told['requests']} requests, {len(told['modes'])} fault modes, seed {options.seed}: "
        f"lost = {len(told['lost'])}, sent behind our back = {len(told['sent behind our back'])}"
    )
    sys.exit(1 if told["lost"] or told["sent behind our back"] else 0)


if __name__ == "__main__":
    main()
