"""A rack's start and its end, where somebody is in the way."""

import asyncio

from nexus_client.dropshot import ending
from sim_sled.daemon.small_rack import SmallRack


async def test_a_start_that_waits_for_a_nexus_ends_when_somebody_asks_for_the_end():
    # it used to hear nothing for 30 s, and then told of itself in a traceback
    complaints, loop = [], asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    rack = SmallRack(nexus="[::1]:1", sleds=2, shutdown_wait_s=0.0)
    stop = loop.create_future()
    starting = asyncio.ensure_future(ending.unless(stop, rack.start()))
    while not getattr(rack, "daemon", None) or len(rack.daemon.addresses) < 2:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    stop.set_result(0)
    assert not await starting
    assert rack.daemon.stopping
    assert not complaints
