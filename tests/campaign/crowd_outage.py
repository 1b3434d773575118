"""Two hundred thousand VMMs that each reboot once while Nexus is away.

    python -m tests.campaign.crowd_outage [--vmms 200000] [--away 600]

A whole daemon, as `serve` runs it, and a Nexus that takes no connections for so long. Printed: connects that were
tried, processor time while it was away, memory per VMM that waits, and after its return the time until the first and
until half of all are acknowledged. Nothing may be lost: it ends with 1 if anything is not acknowledged. The back-off
of a state grows to three minutes, so that half of all come within that, and the last within twice as much.
"""

import argparse
import asyncio
import gc
import json
import resource
import sys
import time
from pathlib import Path

from nexus_client.dropshot import collector
from nexus_client.dropshot.text import SocketAddress
from nexus_client.senders import QUICK_MAX
from nexus_client.types import Asked, VmmStateRequested
from sim_sled import logs
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.core.happenings import Kind
from sim_sled.daemon import loop
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.language.pacer import PresetPacer
from tests.bench import lives, wire
from tests.bench.children import vmm_id

BACK_OFF_S = 180.0
"""The longest pause between two attempts (NX 3.4)."""


def _rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _close(server: asyncio.Server) -> None:
    server.close()
    for connection in list(wire.Sink.open):
        connection.close()


class Acks:
    """Counts acknowledgements, and tells when there are so many."""

    def __init__(self):
        self.count, self._waits = 0, []

    def watch(self, happening):
        if happening.kind is Kind.ACKED:
            self.count += 1
            while self._waits and self._waits[0][0] <= self.count:
                self._waits.pop(0)[1].set()

    def reaching(self, count):
        event = asyncio.Event()
        self._waits.append((count, event))
        self._waits.sort(key=lambda each: each[0])
        if self.count >= count:
            event.set()
        return event


async def run(vmms: int, away_s: float) -> dict:
    logs.configure(level="error")
    server, nexus = await wire.sink()
    port = SocketAddress.parse(nexus).port
    daemon = Daemon([SledConfig(lives.SLED)], Options(nexus=nexus, pacer=PresetPacer("instant"), register=False))
    await daemon.start()
    acks = Acks()
    daemon.watchers.append(acks.watch)
    start = VmmStateRequested(Asked.RUNNING)
    settled = acks.reaching(vmms)
    for number in range(vmms):
        await daemon.submit(
            contract.Register(daemon.ticket(), lives.SLED, vmm_id(number), lives.registration(number))
        )
        await daemon.submit(contract.PutState(daemon.ticket(), lives.SLED, vmm_id(number), start))
        while daemon.reporting.senders.in_flight >= QUICK_MAX:
            await asyncio.sleep(0)  # the loop delivers meanwhile: this is no flood, but a crowd that has come
    await settled.wait()
    collector.started()
    gc.collect()
    tried = 0
    put = daemon.reporting.client.start_put

    def counted(*arguments):
        nonlocal tried
        tried += 1
        return put(*arguments)

    daemon.reporting.client.start_put = counted
    _close(server)
    before, cpu = _rss(), time.process_time()
    reboot = VmmStateRequested(Asked.REBOOT)
    acks.count = 0
    for number in range(vmms):
        await daemon.submit(contract.PutState(daemon.ticket(), lives.SLED, vmm_id(number), reboot))
        if number % 256 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(away_s)  # this is the outage, not a wait for something
    figures = {"vmms": vmms, "away_s": away_s, "connects_tried": tried, "cpu_s": round(time.process_time() - cpu, 1)}
    figures["bytes_per_waiting"] = round((_rss() - before) / vmms)
    first, half, everybody = acks.reaching(1), acks.reaching(vmms // 2), acks.reaching(vmms)
    server = await asyncio.get_running_loop().create_server(wire.Sink, "::1", port, backlog=1024)
    back = time.perf_counter()
    for name, event in (("first_s", first), ("half_s", half), ("all_s", everybody)):
        await asyncio.wait_for(event.wait(), 2 * BACK_OFF_S + 60)
        figures[name] = round(time.perf_counter() - back, 2)
    figures["lost"] = sum(len(sled.outbox) for sled in daemon.rack.sleds.values())
    _close(server)
    await daemon.stop()
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vmms", type=int, default=200_000)
    parser.add_argument("--away", type=float, default=600.0, help="seconds")
    options = parser.parse_args()
    collector.begin()  # the product's own policy

    async def go():
        figures = await run(options.vmms, options.away)
        print(json.dumps(figures))
        return 1 if figures["lost"] else 0

    sys.exit(loop.run(go()))


if __name__ == "__main__":
    main()
