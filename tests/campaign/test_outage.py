"""A short one of the long outage, and what it catches."""

import asyncio
import fcntl
import os
import socket

import pytest

from nexus_client import client
from nexus_client import verdict as verdicts
from nexus_client.exchange import http_client
from nexus_client.outbox import Delivered
from tests.campaign.outage import MODES, has_come, play


@pytest.mark.early
async def test_nothing_is_lost_and_nothing_is_sent_behind_our_back():
    told = await play(seconds=4, vmms=60, seed=1, timeout_s=0.5)
    assert told["lost"] == []
    assert told["sent behind our back"] == []
    assert len(told["modes"]) == len(MODES) >= 18


def _no_look_before_use(monkeypatch):
    """A connection is handed out whatever lies unread on it, as a pool does that does not look."""
    received, sent, unread = http_client._Connection.data_received, http_client._Connection.send, {}

    def data_received(self, data):
        if self._call is None:
            unread[self] = unread.get(self, b"") + data
        else:
            received(self, data)

    def send(self, call, request, body_max):
        sent(self, call, request, body_max)
        if self in unread:
            asyncio.get_running_loop().call_soon(self.data_received, unread.pop(self))

    monkeypatch.setattr(http_client._Connection, "is_quiet", lambda self: self._transport is not None)
    monkeypatch.setattr(http_client._Connection, "data_received", data_received)
    monkeypatch.setattr(http_client._Connection, "send", send)


def _slower_is_final(monkeypatch):
    monkeypatch.setattr(verdicts, "PASSING_4XX", frozenset())


def _any_success_is_delivered(monkeypatch):
    monkeypatch.setattr(
        client, "verdict", lambda status, body: Delivered() if status < 300 else verdicts.refusal(status, body)
    )


@pytest.mark.early
@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(_no_look_before_use, marks=pytest.mark.long),
        pytest.param(_slower_is_final, marks=pytest.mark.long),
        _any_success_is_delivered,
    ],
)
async def test_what_it_catches(monkeypatch, plant):
    plant(monkeypatch)
    told = await play(seconds=3, vmms=60, seed=1, timeout_s=0.5)
    assert told["lost"]


def test_the_judge_of_strays_knows_sockets_beyond_the_thousandth():
    """As it did not: an outage of 360 s under load ended a thousand connections by that."""
    near, far = socket.socketpair()
    high = fcntl.fcntl(near.fileno(), fcntl.F_DUPFD_CLOEXEC, 1_100)
    try:
        assert not has_come(high)
        far.send(b"x")
        assert has_come(high)
    finally:
        os.close(high)
        near.close()
        far.close()
