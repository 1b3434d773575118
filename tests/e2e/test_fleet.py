"""Racks of many sleds in one process (their speed: `make bench`)."""

from __future__ import annotations

import pytest

from nexus_client.dropshot.listen import PortRange
from nexus_client.dropshot.text import SocketAddress
from sim_sled.daemon import listening
from sim_sled.daemon.small_rack import RackError, SmallRack


async def test_beyond_what_the_kernel_draws_sleds_have_ports_of_our_own_range(monkeypatch):
    monkeypatch.setattr(listening, "DRAWN_MAX", 3)
    async with SmallRack(name="few", sleds=3) as few:
        drawn = [SocketAddress.parse(each.address).port for each in few.handles]
    async with SmallRack(name="many", sleds=40) as many:
        ports = [SocketAddress.parse(each.address).port for each in many.handles]
        await many.create_instance("web")
        await many.expect("web", "running", within_s=20)
        await many.scale(45)
        ports += [SocketAddress.parse(each.address).port for each in many.handles[40:]]
    inside = range(PortRange.FIRST, PortRange.END)
    assert len(set(ports)) == 45
    assert all(port in inside for port in ports)
    assert len(drawn) == 3


@pytest.mark.parametrize("sleds", [0, 20_001])
async def test_a_rack_of_a_size_that_cannot_be_is_refused_before_anything_listens(sleds):
    with pytest.raises(RackError, match="1 to 20,000 sleds"):
        await SmallRack(sleds=sleds).start()
