"""client.py against real sockets that answer, refuse, hang, close and talk nonsense."""

import asyncio
import contextlib
import json
import socket
from uuid import UUID

import pytest
from aiohttp import web
from support.nexus.peers import NO_CONTENT, answer, peer, read_request, says
from support.rows import in_one_test

from nexus_client.client import NexusClient
from nexus_client.codec import SLED_AGENT_INFO, SLED_VMM_STATE, encode
from nexus_client.outbox import Delivered, Outbox, Permanent, Replied, Settled, Submit, Tick, Transient
from nexus_client.registration import Found, NotFound
from nexus_client.senders import Senders
from nexus_client.types import (
    Baseboard,
    SledAgentInfo,
    SledCpuFamily,
    SledRole,
    SledVmmState,
    VmmRuntimeState,
    VmmState,
    time_of,
)

_VMM = UUID(int=1)
_SLED = UUID(int=2)
_STATE = SledVmmState(VmmRuntimeState(VmmState.RUNNING, 3, time_of(1_700_000_000_000_000)))
_INFO = SledAgentInfo(
    "[::1]:1",
    2,
    SledRole.GIMLET,
    Baseboard("s", "p", 3),
    4,
    2**36,
    2**35,
    SledCpuFamily.AMD_MILAN,
    5,
    decommissioned=False,
)


@contextlib.asynccontextmanager
async def _nexus(handler):
    """A real aiohttp server with one handler for everything; gives its address."""
    runner = web.AppRunner(_app(handler), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    try:
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


def _app(handler):
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    return app


async def test_a_state_is_put_as_nexus_expects_it():
    seen = []

    async def handler(request):
        seen.append((request.method, request.path, request.headers.copy(), await request.read()))
        return web.Response(status=204)

    async with _nexus(handler) as address, NexusClient(address) as client:
        assert await client.put_vmm_state(_VMM, _STATE) == Delivered()
    [(method, path, headers, body)] = seen
    assert (method, path) == ("PUT", f"/vmms/{_VMM}")
    assert headers["api-version"] == "1.0.0"
    assert headers["content-type"] == "application/json"
    assert SLED_VMM_STATE.decode(body) == _STATE


async def test_a_sled_is_posted_as_nexus_expects_it():
    seen = []

    async def handler(request):
        seen.append((request.method, request.path, request.headers["api-version"], await request.read()))
        return web.Response(status=204)

    async with _nexus(handler) as address, NexusClient(address) as client:
        assert await client.post_sled_agent(_SLED, _INFO) == Delivered()
    [(method, path, version, body)] = seen
    assert (method, path, version) == ("POST", f"/sled-agents/{_SLED}", "1.0.0")
    assert SLED_AGENT_INFO.decode(body) == _INFO


_ERROR = json.dumps({"request_id": "x", "error_code": "Gone", "message": "Gone away"}).encode()


@in_one_test(
    ("said", "outcome"),
    [
        pytest.param(NO_CONTENT, Delivered(), id="204"),
        pytest.param(answer(400, _ERROR), Permanent("400: Gone away", 400), id="400"),
        pytest.param(answer(404), Permanent("404: no message", 404), id="404 without a body"),
        pytest.param(answer(410, _ERROR), Permanent("410: Gone away", 410), id="410"),
        pytest.param(answer(429, b"slower"), Transient("429: slower"), id="429, a text"),
        pytest.param(answer(408), Transient("408: no message"), id="408"),
        pytest.param(answer(425), Transient("425: no message"), id="425"),
        pytest.param(answer(499, b"[1]"), Permanent("499: [1]", 499), id="499, not an error body"),
        pytest.param(answer(500, _ERROR), Transient("500: Gone away"), id="500"),
        pytest.param(answer(503), Transient("503: no message"), id="503"),
        pytest.param(answer(599, b"\xff"), Transient("599: �"), id="599, no text"),
        pytest.param(answer(200, b"{}"), Transient("200: {}"), id="200 is not what the API promises"),
        pytest.param(answer(500, b"x" * 200_000), Transient("500: " + "x" * 512), id="a huge error"),
        pytest.param(
            b"HTTP/1.1 500 X\r\ncontent-length: 100\r\n\r\nhalf",
            Transient("500: half"),
            id="500, broken off: the status counts",
        ),
        pytest.param(
            b"HTTP/1.1 400 X\r\ncontent-length: 100\r\n\r\nhalf", Permanent("400: half", 400), id="400, broken off"
        ),
    ],
)
async def test_answers_mean(said, outcome):
    async with peer(says(said)) as address, NexusClient(address) as client:
        assert await client.put_vmm_state(_VMM, _STATE) == outcome


@in_one_test(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 20", id="half a status line"),
        pytest.param(b"HTTP/1.1 204 No Content\r\nx", id="half a header"),
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", id="another protocol"),
        pytest.param(b"\x00\xff" * 4000, id="noise"),
    ],
)
async def test_a_broken_answer_is_transient(said):
    async with peer(says(said)) as address, NexusClient(address) as client:
        assert isinstance(await client.put_vmm_state(_VMM, _STATE), Transient)


async def test_a_refused_connection_is_transient():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can take the port
        async with NexusClient("127.0.0.1:%d" % unused.getsockname()[1]) as client:  # noqa: UP031 -- two quotes less
            outcome = await client.put_vmm_state(_VMM, _STATE)
    assert isinstance(outcome, Transient)
    assert outcome.why == f"cannot connect to {client.address}: Connection refused"


async def test_a_hanging_nexus_is_transient_after_the_timeout():
    async def talk(reader, _writer, _nth):
        await reader.read()  # until the client gives up

    async with peer(talk) as address, NexusClient(address, timeout_s=1.0) as client:
        assert await client.put_vmm_state(_VMM, _STATE) == Transient("no answer within 1 s")


async def test_every_hanging_request_is_given_up_and_later_ones_are_served():
    hang = True

    async def handler(request):
        await request.read()
        if hang:
            await asyncio.Event().wait()
        return web.Response(status=204)

    async with _nexus(handler) as address, NexusClient(address, timeout_s=1.0) as client:
        outcomes = await asyncio.gather(*(client.put_vmm_state(UUID(int=n), _STATE) for n in range(20)))
        assert outcomes == [Transient("no answer within 1 s")] * 20
        hang = False
        assert await client.put_vmm_state(_VMM, _STATE) == Delivered()


async def test_a_request_whose_task_is_cancelled_is_no_timeout():
    asked = asyncio.Event()

    async def talk(reader, _writer, _nth):
        await read_request(reader)
        asked.set()
        await reader.read()

    async with peer(talk) as address, NexusClient(address) as client:
        task = asyncio.ensure_future(client.put_vmm_state(_VMM, _STATE))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not client._http._calls


async def test_an_answer_that_never_ends_is_cut():
    async def talk(reader, writer, _nth):
        await read_request(reader)
        writer.write(b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"3e8\r\n" + b"y" * 1000 + b"\r\n")
            await writer.drain()

    async with peer(talk) as address, NexusClient(address) as client:
        assert await client.put_vmm_state(_VMM, _STATE) == Transient("500: " + "y" * 512)


async def test_a_pooled_connection_that_closes_unanswered_is_not_tried_again_silently():
    """The library would send the PUT a second time and tell nobody (dependencies.md, T8)."""
    puts = []

    async def talk(reader, writer, nth):
        puts.append((nth, (await read_request(reader))[1]))
        writer.write(NO_CONTENT)
        await writer.drain()
        puts.append((nth, (await read_request(reader))[1]))  # and hang up on the second

    async with peer(talk) as address, NexusClient(address) as client:
        assert await client.put_vmm_state(_VMM, _STATE) == Delivered()
        assert isinstance(await client.put_vmm_state(_VMM, _STATE), Transient)
    assert [nth for nth, _ in puts] == [1, 1], "one connection, two requests, nothing else"


async def test_a_nexus_that_comes_back_is_reached_again():
    async def talk(reader, writer, nth):
        await read_request(reader)
        if nth > 1:
            writer.write(NO_CONTENT)
            await writer.drain()

    async with peer(talk) as address, NexusClient(address) as client:
        assert isinstance(await client.put_vmm_state(_VMM, _STATE), Transient)
        assert await client.put_vmm_state(_VMM, _STATE) == Delivered()


@in_one_test(
    ("said", "outcome"),
    [
        pytest.param(answer(200, encode(_INFO)), Found(_INFO), id="known"),
        pytest.param(answer(404, _ERROR), NotFound(), id="unknown"),
        pytest.param(answer(400, _ERROR), Permanent("400: Gone away", 400), id="400"),
        pytest.param(answer(503), Transient("503: no message"), id="503"),
        pytest.param(answer(204), Transient("204: no message"), id="204 has no info"),
    ],
)
async def test_what_nexus_knows_of_a_sled_is_read(said, outcome):
    async with peer(says(said)) as address, NexusClient(address) as client:
        assert await client.get_sled_agent(_SLED) == outcome


@in_one_test("body", [b"", b"{}", b"nonsense", encode(_INFO)[:-1]])
async def test_an_unreadable_info_is_transient(body):
    """The real sled reads again after any failed GET (NX 3.3)."""
    async with peer(says(answer(200, body))) as address, NexusClient(address) as client:
        outcome = await client.get_sled_agent(_SLED)
    assert isinstance(outcome, Transient)
    assert "unreadable" in outcome.why


async def test_a_closed_client_answers_transient():
    client = NexusClient("127.0.0.1:1")
    assert await client.put_vmm_state(_VMM, _STATE) == Transient("the client is closed")
    client.open()
    client.open()  # twice is once
    await client.close()
    await client.close()
    assert await client.get_sled_agent(_SLED) == Transient("the client is closed")


async def test_closing_ends_what_is_under_way():
    asked = asyncio.Event()

    async def talk(reader, _writer, _nth):
        await read_request(reader)
        asked.set()
        await reader.read()

    async with peer(talk) as address:
        client = NexusClient(address)
        client.open()
        under_way = asyncio.ensure_future(client.put_vmm_state(_VMM, _STATE))
        await asked.wait()
        await client.close()
        assert isinstance(await under_way, Transient)


async def test_a_registration_gets_through_while_every_put_hangs():
    async def handler(request):
        if request.method == "PUT":
            await asyncio.Event().wait()
        return web.Response(status=204)

    async with _nexus(handler) as address, NexusClient(address, timeout_s=120) as client:
        puts = [asyncio.ensure_future(client.put_vmm_state(UUID(int=n), _STATE)) for n in range(300)]
        assert await client.post_sled_agent(_SLED, _INFO) == Delivered()
        for put in puts:
            put.cancel()
        await asyncio.gather(*puts, return_exceptions=True)


async def test_property_24_core_and_shell_together_deliver_across_an_outage():
    """Outbox, Senders and a Nexus that answers 503 to the first three PUTs; time is ours, so nothing waits."""
    stored, now_us = [], 0
    outbox, settled = Outbox(), asyncio.get_running_loop().create_future()

    async def handler(request):
        body = SLED_VMM_STATE.decode(await request.read())
        stored.append(body.vmm_state.gen)
        return web.Response(status=503 if len(stored) <= 3 else 204)

    def perform(effects):
        for effect in effects:
            if isinstance(effect, Settled):
                settled.set_result(effect)
            else:
                senders.send(effect)

    def on_reply(send, outcome):
        nonlocal now_us
        perform(outbox.handle(Replied(send.propolis_id, send.serial, outcome), now_us))
        if (due_us := outbox.next_deadline_us()) is not None:
            now_us = due_us
            perform(outbox.handle(Tick(), now_us))

    async with _nexus(handler) as address, NexusClient(address) as client:
        senders = Senders(client, on_reply)
        perform(outbox.handle(Submit(_VMM, _STATE), now_us))
        assert await settled == Settled(_VMM, _STATE, Delivered())
        await senders.stop()
    assert stored == [3, 3, 3, 3]


async def test_a_request_given_up_by_its_caller_and_by_the_clock_at_once_is_given_up():
    """CL6: the caller's cancel must not be swallowed because the time ran out in the same turn."""
    asked = asyncio.Event()

    async def talk(reader, _writer, _nth):
        await read_request(reader)
        asked.set()
        await reader.read()

    async with peer(talk) as address, NexusClient(address, timeout_s=1000.0) as client:
        for clock_first in (True, False):
            asked.clear()
            task = asyncio.ensure_future(client.put_vmm_state(_VMM, _STATE))
            await asked.wait()
            [call] = client._http._calls
            call.began -= 2000.0
            if clock_first:
                client._http._check()
                task.cancel()
            else:
                task.cancel()
                client._http._check()
            with pytest.raises(asyncio.CancelledError):
                await task


@in_one_test("status", [101, 200, 201, 204, 300, 302, 304, 307, 399, 408, 425, 429, 500, 503, 600, 799])
@in_one_test("method", ["GET", "POST"])
async def test_no_odd_answer_ends_a_registration(status, method):
    """Something in front of Nexus answers while Nexus is away: the daemon goes on asking (D20)."""
    async with peer(says(answer(status))) as address, NexusClient(address) as client:
        outcome = (
            await client.get_sled_agent(_SLED) if method == "GET" else await client.post_sled_agent(_SLED, _INFO)
        )
    assert isinstance(outcome, Delivered if (method, status) == ("POST", 204) else Transient)
