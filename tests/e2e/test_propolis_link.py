"""One connection between two Propolis processes over a socket: how it ends, and that nothing of it stays (PR 4.5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from aiohttp import web

from propolis_stub.migration.link import PeerLink
from propolis_stub.migration.messages import Message, Okay, Text

MIGRATION = UUID(int=1)


@asynccontextmanager
async def source(*, drops: bool = False) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A source that upgrades, says `hello`, and then drops the connection or waits; and when it has said so."""
    said = asyncio.Event()

    async def serve(request: web.BaseRequest) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(autoclose=False, autoping=False)
        await ws.prepare(request)
        await ws.send_str("hello")
        said.set()
        if drops:
            assert request.transport is not None
            request.transport.close()
            return ws
        async for _ in ws:
            pass
        return ws

    runner = web.ServerRunner(web.Server(serve, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", said
    finally:
        await runner.cleanup()


def strangers(before: set[asyncio.Task[object]], task: asyncio.Task[None]) -> set[str]:
    """Tasks of the link that are still there."""
    left = {each for each in asyncio.all_tasks() - before if not each.done() and each is not task}
    return {repr(each) for each in left if "PeerLink" in repr(each) or "WebSocket" in repr(each)}


@pytest.mark.parametrize("end", ["abort", "close", "close with a code", "cancelled", "dropped by the source"])
async def test_nothing_outlives_a_link_however_it_ends(end: str) -> None:
    heard: list[Message] = []
    lost: list[str] = []
    async with source(drops=end.startswith("dropped")) as (address, said):
        before = asyncio.all_tasks()
        link = PeerLink(heard.append, lost.append)
        task = link.dial(address, MIGRATION)
        async with asyncio.timeout(20):
            await said.wait()
            while not heard and not task.done():
                await asyncio.sleep(0)
            match end:
                case "abort":
                    link.abort()
                case "close":
                    link.close()
                case "close with a code":
                    link.close(1002)
                case "cancelled":
                    task.cancel()
                case _:
                    pass
            await asyncio.wait({task})
        assert strangers(before, task) == set()
    assert heard == [Text("hello")]
    assert lost == ([] if end in {"abort", "close", "close with a code"} else ["connection lost"])


async def test_what_is_said_before_the_link_is_up_is_said_when_it_is() -> None:
    async with source() as (address, _):
        heard: list[Message] = []
        link = PeerLink(heard.append, lambda _why: None)
        link.send(Okay())
        task = link.dial(address, MIGRATION)
        link.close()
        await asyncio.wait_for(asyncio.wait({task}), 20)
        assert task.done()


async def test_a_source_that_is_not_there_is_told_once() -> None:
    lost: list[str] = []
    link = PeerLink(lambda _message: None, lost.append)
    await asyncio.wait_for(link.dial("127.0.0.1:9", MIGRATION), 20)
    assert len(lost) == 1
    assert lost[0].startswith("cannot reach the source at 127.0.0.1:9")


async def test_a_message_that_the_core_chokes_on_ends_the_link_with_its_error() -> None:
    def choke(_message: Message) -> None:
        raise LookupError("a bug of ours")

    lost: list[str] = []
    async with source() as (address, _):
        link = PeerLink(choke, lost.append)
        task = link.dial(address, MIGRATION)
        with pytest.raises(LookupError):
            await asyncio.wait_for(task, 20)
    assert lost == ["connection lost"]
