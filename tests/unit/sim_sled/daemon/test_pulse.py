"""When a worker is silent, who waits for it, when it is killed, and that telling one's parent stops nobody."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys

import attrs
import msgspec
import pytest
import structlog
import typer
from support.rows import in_one_test

from sim_sled.cli.up import _hung_s
from sim_sled.daemon import pulse, workers
from sim_sled.daemon.pulse import HUNG_S, SILENT_S, Pulse, beat, is_debugged
from sim_sled.daemon.worker import Ready, Spec
from sim_sled.daemon.workers import Worker, Workers
from sim_sled.logs import _bunyan

SPEC = Spec("rack", 1, 1, 1, "", None, 0, "instant", "token")


def seconds(of: Pulse, count: int) -> None:
    for _ in range(count):
        of.second()


async def test_a_process_is_silent_after_five_seconds_and_no_longer_once_it_is_heard():
    beats = Pulse()
    seconds(beats, SILENT_S - 1)
    assert not beats.is_silent
    beats.heard()
    seconds(beats, SILENT_S - 1)
    assert not beats.is_silent
    seconds(beats, 1)
    assert beats.is_silent
    beats.heard()
    assert not beats.is_silent


async def test_who_asks_is_let_go_when_the_process_falls_silent_and_not_sooner():
    beats = Pulse()

    async def asks():
        async with beats.answering():
            await asyncio.Event().wait()

    asking = asyncio.create_task(asks())
    await asyncio.sleep(0)
    seconds(beats, SILENT_S - 1)
    await asyncio.wait([asking], timeout=0)
    assert not asking.done()
    seconds(beats, 1)
    await asyncio.wait([asking], timeout=60)
    assert isinstance(asking.exception(), TimeoutError)
    with pytest.raises(TimeoutError):
        async with beats.answering():
            pytest.fail("it is known to be silent")


async def test_who_is_let_go_and_takes_its_time_for_that_stops_no_seconds():
    """Nobody would have counted them from then on."""
    beats = Pulse()
    goes = asyncio.Event()

    async def asks():
        async with beats.answering():
            try:
                await asyncio.Event().wait()
            finally:
                await goes.wait()

    asking = asyncio.create_task(asks())
    await asyncio.sleep(0)
    seconds(beats, SILENT_S)
    for _ in range(3):
        await asyncio.sleep(0)
    seconds(beats, 1)
    goes.set()
    await asyncio.wait([asking], timeout=60)
    assert isinstance(asking.exception(), TimeoutError)


async def test_an_answer_that_takes_its_time_is_waited_for_through_a_silence_within_that_time():
    beats = Pulse()
    seconds(beats, SILENT_S)
    async with beats.answering(60):
        seconds(beats, 1)
        await asyncio.sleep(0)

    async def asks():
        async with beats.answering(1e-9):
            await asyncio.sleep(0)
            seconds(beats, 1)
            await asyncio.Event().wait()

    asking = asyncio.create_task(asks())
    await asyncio.wait([asking], timeout=60)
    assert isinstance(asking.exception(), TimeoutError)


async def test_beats_to_a_parent_that_does_not_read_stop_nobody_and_go_on_when_it_does(monkeypatch):
    monkeypatch.setattr(pulse, "BEAT_S", 0.0)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    filled = 0
    try:
        while True:
            filled += os.write(writes, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writes, True)  # from now on one that is written to waits
    beating = asyncio.create_task(beat(writes))
    try:
        for _ in range(3):
            await asyncio.sleep(0)
        while filled:
            filled -= len(os.read(reads, filled))
        await asyncio.sleep(0)
        assert await asyncio.to_thread(os.read, reads, 1) == b"\n"
        os.close(reads)
        for _ in range(3):
            await asyncio.sleep(0)
        assert not beating.done()
    finally:
        beating.cancel()
        os.close(writes)


@pytest.mark.skipif(sys.platform != "linux", reason="tells by /proc")
def test_a_process_that_a_debugger_holds_is_known():
    process = subprocess.Popen(["sleep", "600"])
    try:
        assert not is_debugged(process.pid)
        seize = 0x4206
        if ctypes.CDLL(None, use_errno=True).ptrace(seize, process.pid, None, None) != 0:
            pytest.skip("this machine lets nobody debug")
        assert is_debugged(process.pid)
    finally:
        process.kill()
        process.wait()
    assert not is_debugged(process.pid)


@attrs.define(eq=False)
class Process:
    """Of a worker, as far as whoever counts its seconds looks at it."""

    pid: int = 1
    returncode: int | None = None
    signals: list[int] = attrs.field(factory=list)

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


@attrs.define(eq=False)
class Talker(Process):
    """One that says something."""

    stdout: asyncio.StreamReader = attrs.field(factory=asyncio.StreamReader)


@in_one_test(
    ("process", "ready", "hung_s", "debugged", "killed"),
    [
        pytest.param(Process(), True, HUNG_S, False, True, id="one that hangs is killed"),
        pytest.param(Process(), False, HUNG_S, False, True, id="on its way up as well"),
        pytest.param(Process(), True, HUNG_S + 1, False, False, id="not before the time that was given"),
        pytest.param(Process(), True, None, False, False, id="nor if nobody is to be"),
        pytest.param(Process(), True, HUNG_S, True, False, id="nor while somebody debugs it"),
        pytest.param(Process(returncode=1), True, HUNG_S, False, False, id="who has ended hangs no more"),
        pytest.param(None, True, HUNG_S, False, False, id="who was never there neither"),
    ],
)
async def test_who_is_killed_after_two_minutes_of_silence(monkeypatch, process, ready, hung_s, debugged, killed):
    monkeypatch.setattr(workers, "is_debugged", lambda _: debugged)
    rack = Workers([SPEC], hung_s=hung_s)
    [worker] = rack.all
    worker.process = process
    worker.ready = Ready("127.0.0.1:1", []) if ready else None
    for _ in range(HUNG_S):
        rack.second()
    assert (process.signals if process else []) == ([signal.SIGKILL] if killed else [])


@pytest.mark.parametrize("ready", [True, False])
async def test_a_silence_is_told_once_and_not_of_one_that_is_on_its_way_up(ready):
    rack, told = Workers([SPEC]), []
    rack.told = told.append
    rack.all[0].process = Process()
    rack.all[0].ready = Ready("127.0.0.1:1", []) if ready else None
    for _ in range(HUNG_S - 1):
        rack.second()
    assert len(told) == (1 if ready else 0)


async def test_the_line_about_a_worker_that_hangs_is_the_parents_own():
    """As Bunyan reads it, `pid` is who has written a line."""
    rack = Workers([SPEC], hung_s=SILENT_S)
    rack.all[0].process, rack.all[0].ready = Process(pid=77), Ready("127.0.0.1:1", [])
    with structlog.testing.capture_logs() as lines:
        for _ in range(SILENT_S):
            rack.second()
    assert [line["worker"] for line in lines] == [77, 77]
    assert _bunyan(None, "error", {"event": "some", "pid": 77})["pid"] == os.getpid()


async def test_what_else_is_printed_where_a_worker_beats_is_not_taken_for_its_words():
    """Somebody's `sitecustomize` did it: no worker was ever ready, or, if it printed later, killed as silent."""
    process, ready = Talker(), Ready("127.0.0.1:1", ["[::1]:2"])
    process.stdout.feed_data(b"hello\n\n[1]\n\xff\n" + msgspec.json.encode(ready) + b"\nhello again\n")
    worker = Worker(SPEC, process=process)
    assert await worker.says_ready() == ready
    ends = asyncio.create_task(worker.ended())
    worker.pulse.silent_s = 3
    process.stdout.feed_data(b"\n")
    while worker.pulse.silent_s:
        await asyncio.sleep(0)
    assert not ends.done()
    process.stdout.feed_eof()
    await asyncio.wait_for(ends, 60)


async def test_a_worker_that_ends_within_its_words_was_never_ready():
    process = Talker()
    process.stdout.feed_data(b"\n" + msgspec.json.encode(Ready("127.0.0.1:1", [])))
    process.stdout.feed_eof()
    assert await Worker(SPEC, process=process).says_ready() is None


async def test_whoever_was_on_its_way_up_when_the_end_came_is_not_started_again(monkeypatch):
    rack, started = Workers([SPEC]), []

    async def start(worker):
        started.append(worker)
        await asyncio.Event().wait()

    monkeypatch.setattr(rack, "_start", start)
    await rack.stop()
    await asyncio.wait_for(rack._keep(rack.all[0]), 60)
    assert started == []


@in_one_test(("text", "seconds"), [("2m", HUNG_S), ("1h0.5s", 3600), ("10s", 10), ("never", None)])
def test_how_long_a_worker_may_be_silent_is_a_duration_or_never(text, seconds):
    assert _hung_s(text) == seconds


@pytest.mark.parametrize("text", ["9.9s", "120", "-2m", "", "soon"])
def test_less_than_ten_seconds_are_refused(text, capsys):
    with pytest.raises(typer.Exit):
        _hung_s(text)
    assert "--hung-after is a duration from 10s on, or never" in capsys.readouterr().err
