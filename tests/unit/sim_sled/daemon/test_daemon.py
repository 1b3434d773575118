"""The daemon's shell: starting, the one timer, what is logged, stopping."""

import asyncio
import socket
from uuid import UUID

import pytest
import structlog
from support.daemon.driving import running_daemon
from support.nexus.fake_nexus import FakeNexus
from support.ports import a_port
from support.rack.driving import SLED_A, V1

from nexus_client.dropshot.text import SocketAddress
from sim_sled.core.config import SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options

OTHER = UUID(int=0xB)


async def test_a_start_that_fails_keeps_no_address():
    """Two sleds, the second one's address is in use: the first one's is free again."""
    with a_port() as port, socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", 0))
        taken.listen()
        second = SledConfig(OTHER, f"[::1]:{taken.getsockname()[1]}")
        daemon = Daemon([SledConfig(SLED_A, f"[::1]:{port}"), second], Options("[::1]:1"))
        with pytest.raises(OSError, match="in use"):
            await daemon.start()
        again = Daemon([SledConfig(SLED_A, f"[::1]:{port}")], Options("[::1]:1", register=False))
        await again.start()
        await again.stop()


GET = "GET /vmms/{} HTTP/1.1\r\nhost: x\r\napi-version: 48.0.0\r\n\r\n"


async def test_while_it_stops_a_kept_connection_accepts_nothing_more():
    """What it accepted then, nobody would carry out or tell."""
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        daemon = client.daemon
        await client.register()
        nexus.status = 503
        await client.put_state("running")
        await nexus.until(lambda: nexus.seen)  # something waits for Nexus, so the daemon will take its time
        address = SocketAddress.parse(daemon.addresses[SLED_A])
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(GET.format(f"{V1}/state").encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0]
        stopping = asyncio.ensure_future(daemon.stop())
        while not daemon.stopping:
            await asyncio.sleep(0)
        writer.write(GET.format(f"{V1}/state").encode())
        rest = await reader.read()
        assert b"HTTP/1.1" not in rest, "no second answer"
        writer.close()
        left_over = await stopping
        assert [each.propolis_id for each in left_over] == [V1]


async def test_that_nexus_is_not_ready_is_said_once_per_reason(monkeypatch):
    """It is asked every 2 s, for ever."""
    with structlog.testing.capture_logs() as lines:
        async with FakeNexus() as nexus, running_daemon(nexus) as client:
            nexus.post_status = 503
            daemon = client.daemon
            said = [line for line in lines if line["event"] == "Nexus is not ready for registration"]
            assert said == []
            await nexus.until(lambda: len(nexus.posted) >= 3)
            nexus.post_status = 500
            await nexus.until(lambda: len(nexus.posted) >= 6)
            nexus.post_status = 204
            async with asyncio.timeout(20):
                await daemon.reporting.registered[SLED_A].wait()
    why = [line["why"] for line in lines if line["event"] == "Nexus is not ready for registration"]
    assert len(why) == len(set(why)) == 2, why
