"""senders.py: every send is performed once, and nobody waits for another VMM's trouble."""

import asyncio
import contextlib
import socket
from uuid import UUID

import pytest
import uvloop
from support.nexus.peers import NO_CONTENT, peer, read_request, target_of

from nexus_client import senders as module
from nexus_client.client import NexusClient
from nexus_client.outbox import Delivered, Send, Transient, Trouble
from nexus_client.senders import OPENS_AFTER, Senders
from nexus_client.types import SledVmmState, VmmRuntimeState, VmmState, time_of

_VMM = UUID(int=1)
_STATE = SledVmmState(VmmRuntimeState(VmmState.RUNNING, 3, time_of(1_700_000_000_000_000)))


class _Replies:
    """Collects what Senders reply; `until(n)` waits for so many."""

    def __init__(self):
        self.all = []
        self._more = asyncio.Event()

    def __call__(self, send, outcome):
        self.all.append((send.serial, outcome))
        self._more.set()

    async def until(self, number):
        while len(self.all) < number:
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), 60)
        return [outcome for _, outcome in sorted(self.all, key=lambda each: each[0])]

    def of(self, serial):
        return [outcome for each, outcome in self.all if each == serial]


def _send(serial, vmm=None):
    return Send(UUID(int=serial if vmm is None else vmm), _STATE, 0, serial)


@contextlib.asynccontextmanager
async def _senders(address, timeout_s=15.0, **options):
    """Senders and what they reply."""
    replies = _Replies()
    async with NexusClient(address, timeout_s=timeout_s) as client:
        made = Senders(client, replies, **options)
        try:
            yield made, replies
        finally:
            await made.stop()


def _nexus(hangs=lambda vmm: False, seen=None):
    """Acknowledges everything but the VMMs that `hangs` names, of which it says nothing."""

    async def talk(reader, writer, _nth):
        while True:
            vmm = UUID(target_of((await read_request(reader))[0]).rpartition("/")[2]).int
            if seen is not None:
                seen.append(vmm)
            if hangs(vmm):
                await reader.read()
                return
            writer.write(NO_CONTENT)
            await writer.drain()

    return peer(talk)


async def _opened(senders, replies):
    """As many as open the breaker have found nobody."""
    for serial in range(OPENS_AFTER):
        senders.send(_send(serial))
    await replies.until(OPENS_AFTER)
    assert senders.outage


def _nobody():
    """An address where nobody listens, as long as the socket lives."""
    unused = socket.socket()
    unused.bind(("127.0.0.1", 0))
    return unused, f"127.0.0.1:{unused.getsockname()[1]}"


async def test_every_send_is_performed_once_and_replied_to_once():
    seen = []
    async with _nexus(seen=seen) as address, _senders(address, quick_max=5) as (senders, replies):
        for serial in range(200):
            senders.send(_send(serial))
        assert await replies.until(200) == [Delivered()] * 200
        for serial in range(200, 300):
            senders.send(_send(serial))
        await replies.until(300)
    assert sorted(seen) == list(range(300))
    assert sorted(serial for serial, _ in replies.all) == list(range(300))


async def test_no_more_than_the_limit_are_in_flight_and_everybody_gets_a_turn():
    flying, most, done = 0, 0, set()

    async def talk(reader, writer, _nth):
        nonlocal flying, most
        while True:
            head, _ = await read_request(reader)
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(0)
            flying -= 1
            done.add(target_of(head))
            writer.write(NO_CONTENT)
            await writer.drain()

    async with peer(talk) as address, _senders(address, quick_max=4) as (senders, replies):
        for serial in range(100):
            senders.send(_send(serial))
        await replies.until(100)
    assert most <= 4
    assert len(done) == 100


async def test_stopped_senders_say_nothing_more():
    seen = []
    async with (
        _nexus(hangs=lambda _: True, seen=seen) as address,
        _senders(address, quick_max=1) as (senders, replies),
    ):
        for serial in range(3):
            senders.send(_send(serial))
        while not seen:
            await asyncio.sleep(0)
        await senders.stop()
        await senders.stop()
    assert not replies.all


async def test_a_fault_of_the_library_loses_no_state(monkeypatch):
    def broken(*_):
        raise ValueError("surprise")

    async with _senders("127.0.0.1:1") as (senders, replies):
        monkeypatch.setattr(senders._client, "start_put", broken)
        senders.send(_send(1))
        assert replies.all == [], "never from within send"
        assert await replies.until(1) == [Transient("ValueError: surprise")]


async def test_what_on_reply_raises_is_told_and_costs_nobody_a_turn():
    told, second = [], asyncio.Event()

    def on_reply(send, _outcome):
        if send.serial == 1:
            raise ValueError("a bug")
        second.set()

    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    async with _nexus() as address, NexusClient(address) as client:
        senders = Senders(client, on_reply, quick_max=1)
        for serial in (1, 2):
            senders.send(_send(serial))
        await asyncio.wait_for(second.wait(), 60)
        await senders.stop()
    assert [str(error) for error in told] == ["a bug"]


# --- another VMM's trouble delays nobody


@pytest.mark.parametrize("hanging", [10, 700])
async def test_those_who_hang_for_the_first_time_delay_nobody(hanging):
    """One FIFO of 256 let 300, 600, 1,000 hanging VMMs delay the others by 15, 29, 45 s."""
    nexus = _nexus(hangs=lambda vmm: vmm < hanging)
    async with nexus as address, _senders(address, timeout_s=100.0) as (senders, replies):
        for serial in range(hanging + 10):
            senders.send(_send(serial))
        assert await replies.until(10) == [Delivered()] * 10, "before any of those who hang has ended"
        assert senders.in_flight == hanging


async def test_suspects_take_at_most_half_of_all_places():
    async with (
        _nexus(hangs=lambda vmm: vmm < 8) as address,
        _senders(address, timeout_s=1.0, in_flight_max=8, quick_max=8) as (senders, replies),
    ):
        for serial in range(8):
            senders.send(_send(serial))
        assert {each.trouble for each in await replies.until(8)} == {Trouble.HUNG}
        for serial in range(8):
            senders.send(_send(100 + serial, vmm=serial))
        assert senders.in_flight == 4
        senders.send(_send(200))  # a healthy one
        await replies.until(9)
        assert replies.of(200) == [Delivered()], "behind no suspect"


async def test_a_suspect_that_is_answered_is_one_no_more():
    hang = True
    async with (
        _nexus(hangs=lambda _: hang) as address,
        _senders(address, timeout_s=1.0) as (senders, replies),
    ):
        senders.send(_send(1, vmm=7))
        await replies.until(1)
        assert 7 in senders._hung
        hang = False
        senders.send(_send(2, vmm=7))
        await replies.until(2)
        assert not senders._hung


async def test_the_number_of_remembered_suspects_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "SUSPECTS_MAX", 3)
    async with _nexus(hangs=lambda _: True) as address, _senders(address, timeout_s=1.0) as (senders, replies):
        for serial in range(5):
            senders.send(_send(serial))
        await replies.until(5)
        assert list(senders._hung) == [2, 3, 4]


async def test_when_every_place_is_taken_the_oldest_gives_its_own_to_the_next(monkeypatch):
    monkeypatch.setattr(module, "GIVE_UP_S", 0.2)
    async with (
        _nexus(hangs=lambda vmm: vmm < 4) as address,
        _senders(address, in_flight_max=4, quick_max=2) as (senders, replies),
    ):
        for serial in range(5):
            senders.send(_send(serial))
        await replies.until(2)
        assert replies.of(4) == [Delivered()]
        [given_up] = replies.of(0)
        assert given_up.trouble is Trouble.HUNG
        assert "others wait" in given_up.why


async def test_suspects_are_not_given_up_before_their_time(monkeypatch):
    """Or a Nexus that is merely slow would never get an answer through."""
    monkeypatch.setattr(module, "GIVE_UP_S", 0.0)
    slow = asyncio.Event()

    async def talk(reader, writer, _nth):
        while True:
            await read_request(reader)
            await slow.wait()
            writer.write(NO_CONTENT)
            await writer.drain()

    async with peer(talk) as address, _senders(address, in_flight_max=2, quick_max=1) as (senders, replies):
        senders._hung[1] = None
        senders.send(_send(1))  # a suspect: keeps its place
        for serial in range(2, 6):
            senders.send(_send(serial))
        await replies.until(3)
        assert not replies.of(1)
        slow.set()
        await replies.until(5)
        assert replies.of(1) == [Delivered()]


async def test_bad_limits_are_refused():
    async with NexusClient("127.0.0.1:1") as client:
        with pytest.raises(ValueError, match="a place each"):
            Senders(client, lambda *_: None, in_flight_max=1)


# --- the breaker


async def test_while_nothing_takes_connections_one_probe_goes_out_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "PROBE_S", 3_600.0)
    outages = []
    unused, address = _nobody()
    with unused:
        async with _senders(address, on_outage=outages.append) as (senders, replies):
            for serial in range(OPENS_AFTER):
                senders.send(_send(serial))
            assert {each.trouble for each in await replies.until(OPENS_AFTER)} == {Trouble.UNREACHED}
            assert outages == [True]
            for serial in range(100, 1_100):
                senders.send(_send(serial))
            told = (await replies.until(OPENS_AFTER + 1_000))[OPENS_AFTER:]
            assert [each.trouble for each in told].count(Trouble.UNREACHED) <= 1
            senders._probe_at -= module.PROBE_S  # an hour later
            senders.send(_send(2_000))
            senders.send(_send(2_001))
            await replies.until(OPENS_AFTER + 1_002)
            assert {each.trouble for each in (*replies.of(2_000), *replies.of(2_001))} == {
                Trouble.UNREACHED,
                Trouble.HELD,
            }
            unused.listen()
            senders._probe_at -= module.PROBE_S
            senders.send(_send(3_000))
            connection, _ = await asyncio.get_running_loop().run_in_executor(None, unused.accept)
            connection.sendall(NO_CONTENT)
            await replies.until(OPENS_AFTER + 1_003)
            assert replies.of(3_000) == [Delivered()]
            assert outages == [True, False]
            connection.close()


@contextlib.contextmanager
def _a_host_that_takes_nothing():
    """Connects to its address are neither taken nor refused: its line of those who wait is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as line:
        for _ in range(4):
            one = line.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"


async def test_a_host_that_takes_no_connections_is_an_outage_and_hangs_on_nobody(monkeypatch):
    """200,000 VMMs whose Nexus's host is gone: each had its five seconds, and each was a suspect afterwards."""
    monkeypatch.setattr(module, "GIVE_UP_S", 0.05)
    monkeypatch.setattr(module, "SLOW_AFTER_S", 0.01)
    outages, complaints = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    with _a_host_that_takes_nothing() as address:
        async with _senders(address, in_flight_max=8, quick_max=4, on_outage=outages.append) as (senders, replies):
            for serial in range(4 * OPENS_AFTER):
                senders.send(_send(serial))
            await replies.until(4 * OPENS_AFTER - 8)
            assert outages == [True]
            assert not senders._hung
            told = [outcome.trouble for _, outcome in replies.all]
            assert (told.count(Trouble.UNREACHED), set(told)) == (OPENS_AFTER, {Trouble.UNREACHED, Trouble.HELD})
    assert complaints == []


async def test_a_probe_that_waits_for_a_connection_keeps_back_no_other(monkeypatch):
    monkeypatch.setattr(module, "PROBE_S", 0.0)
    with _a_host_that_takes_nothing() as address:
        async with _senders(address) as (senders, replies):
            senders._open = True
            for serial in range(3):
                senders.send(_send(serial))
            assert (senders.in_flight, replies.all) == (3, [])


async def test_an_outage_of_one_nexus_disturbs_nobody_who_reports_to_another(monkeypatch):
    """Two racks in one process: the breaker is the endpoint's, not the process's."""
    monkeypatch.setattr(module, "PROBE_S", 3_600.0)
    unused, nowhere = _nobody()
    with unused:
        async with (
            _nexus() as somewhere,
            _senders(nowhere) as (cut_off, unheard),
            _senders(somewhere) as (healthy, heard),
        ):
            await _opened(cut_off, unheard)
            for serial in range(100, 300):
                cut_off.send(_send(serial))
                healthy.send(_send(serial))
            assert await heard.until(200) == [Delivered()] * 200
            assert not healthy.outage
            assert cut_off.outage


async def test_a_few_are_tried_as_often_as_they_like(monkeypatch):
    unused, address = _nobody()
    with unused:
        async with _senders(address) as (senders, replies):
            for serial in range(OPENS_AFTER - 1):
                senders.send(_send(serial, vmm=1))
            await replies.until(OPENS_AFTER - 1)
            senders._period_began -= 2 * module.PROBE_S  # a second later
            for serial in range(100, 100 + OPENS_AFTER - 1):
                senders.send(_send(serial, vmm=1))
            await replies.until(2 * OPENS_AFTER - 2)
            assert not senders.outage
    assert {outcome.trouble for _, outcome in replies.all} == {Trouble.UNREACHED}


async def test_without_a_breaker_every_send_is_tried():
    unused, address = _nobody()
    with unused:
        async with _senders(address, breaker=False) as (senders, replies):
            for serial in range(4 * OPENS_AFTER):
                senders.send(_send(serial))
            told = await replies.until(4 * OPENS_AFTER)
    assert {each.trouble for each in told} == {Trouble.UNREACHED}


async def test_once_somebody_counts_attempts_every_send_is_tried_though_the_breaker_has_opened(monkeypatch):
    monkeypatch.setattr(module, "PROBE_S", 3_600.0)
    unused, address = _nobody()
    with unused:
        async with _senders(address) as (senders, replies):
            await _opened(senders, replies)
            senders.breaker = False
            for serial in range(100, 100 + OPENS_AFTER):
                senders.send(_send(serial))
            told = await replies.until(2 * OPENS_AFTER)
    assert {each.trouble for each in told} == {Trouble.UNREACHED}


@pytest.mark.early
async def test_a_nexus_that_hangs_or_refuses_opens_no_breaker():
    async with (
        _nexus(hangs=lambda vmm: vmm % 2) as address,
        _senders(address, timeout_s=5.0) as (senders, replies),  # enough for all to have connected
    ):
        for serial in range(4 * OPENS_AFTER):
            senders.send(_send(serial))
        await replies.until(4 * OPENS_AFTER)
        assert not senders.outage


async def test_trust_tries_everybody_again():
    unused, address = _nobody()
    with unused:
        async with _senders(address) as (senders, replies):
            await _opened(senders, replies)
            senders.trust()
            senders.send(_send(100))
            await replies.until(OPENS_AFTER + 1)
            assert replies.of(100)[0].trouble is Trouble.UNREACHED


@pytest.mark.early
@pytest.mark.parametrize(
    "test",
    [
        test_every_send_is_performed_once_and_replied_to_once,
        test_no_more_than_the_limit_are_in_flight_and_everybody_gets_a_turn,
        test_stopped_senders_say_nothing_more,
        test_what_on_reply_raises_is_told_and_costs_nobody_a_turn,
        test_suspects_take_at_most_half_of_all_places,
        test_a_suspect_that_is_answered_is_one_no_more,
        test_bad_limits_are_refused,
        test_without_a_breaker_every_send_is_tried,
        test_a_nexus_that_hangs_or_refuses_opens_no_breaker,
        test_trust_tries_everybody_again,
    ],
    ids=lambda test: test.__name__,
)
def test_the_same_on_uvloop(test):
    """The daemon runs on it where it is installed, and its transports are others."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())
