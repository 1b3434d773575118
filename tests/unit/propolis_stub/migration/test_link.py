"""The connection of a migration: both halves end with it."""

import asyncio

import pytest
from aiohttp import WSMessage, WSMsgType

from propolis_stub.migration.link import PeerLink
from propolis_stub.migration.messages import Text


class Ws:
    """A websocket that says what it is given, and then nothing."""

    def __init__(self, *messages):
        self.messages = list(messages)
        self.sent = []

    async def receive(self):
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)

    async def send_str(self, text):
        self.sent.append(text)

    async def close(self, *, code):
        self.sent.append(code)


async def others():
    """Tasks of this loop but the test's own, when all that can go on has."""
    for _ in range(5):
        await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("end", ["abort", "close", "peer"])
async def test_no_half_of_a_connection_outlives_it(end):
    lost = []
    said = [WSMessage(WSMsgType.CLOSED, None, None)] if end == "peer" else []
    link, ws = PeerLink(lambda _: None, lost.append), Ws(*said)
    task = asyncio.ensure_future(link.run(ws))
    if end != "peer":
        assert len(await others()) == 3, "the connection and its two halves"
    if end == "abort":
        task.cancel()
    elif end == "close":
        link.close()
    await asyncio.gather(task, return_exceptions=True)
    assert await others() == set()
    assert lost == ([] if end == "close" else ["connection lost"])


async def test_what_was_sent_before_the_connection_was_up_is_sent_then():
    link, ws = PeerLink(lambda _: None, lambda _: None), Ws()
    link.send(Text("one"))
    link.close(1000)
    await link.run(ws)
    assert ws.sent == ["one", 1000]
