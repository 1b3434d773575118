"""The serial console over real sockets; the client is the `websockets` package, not ours (cases 71, 72, 74)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from support.propolis.arms import QUEUED, B, S, run
from support.propolis.wire import PATIENCE_S, WireArm, WireNet
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from propolis_stub.server import websocket
from propolis_stub.waiting import Pace, Point


@pytest_asyncio.fixture
async def vm() -> AsyncIterator[WireArm]:
    async with WireNet() as net:
        yield await net.arm()


def console(vm: WireArm, query: str = "", **options: Any) -> connect:
    return connect(
        f"ws://{vm.address}/instance/serial{query}",
        additional_headers={"api-version": "5.0.0"},
        compression=None,
        ping_interval=None,
        proxy=None,
        **options,
    )


async def read_until(ws: ClientConnection, end: bytes, seen: bytes = b"") -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        while not seen.endswith(end):
            frame = await ws.recv()
            assert isinstance(frame, bytes)
            seen += frame
    return seen


async def read_to_end(ws: ClientConnection) -> tuple[list[Any], ConnectionClosed]:
    """All frames, and how the connection ended."""
    frames = []
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                frames.append(await ws.recv())
            except ConnectionClosed as end:
                return frames, end


async def test_somebody_logs_in_looks_around_and_reboots(vm: WireArm) -> None:
    await run(vm)
    async with console(vm, "?from_start=0") as ws:
        assert b"Linux version" in await read_until(ws, b"vm login: ")
        await ws.send(b"root\r")
        await read_until(ws, b"root@vm:~$ ")
        await ws.send(b"uname -a\r")
        assert b"x86_64" in await read_until(ws, b"root@vm:~$ ")
        await ws.send(b"reboot\r")
        assert b"(boot 2)" in await read_until(ws, b"vm login: ")
    await vm.told("4 Rebooting, 5 Running")


async def test_poweroff_stops_the_vm_and_the_console_says_goodbye(vm: WireArm) -> None:
    """#71: output, then close 1001 "VM stopped"."""
    await run(vm)
    await vm.pace(Point.RUNDOWN, Pace(50_000))
    async with console(vm, "?most_recent=0") as ws:
        await ws.send(b"root\rpoweroff\r")
        frames, end = await read_to_end(ws)
        # The rundown lasts: when the close frame is read, Destroyed has not been told yet or was just due.
        assert b"going down" in b"".join(frames)
    assert end.rcvd is not None
    assert (end.rcvd.code, end.rcvd.reason) == (1001, "VM stopped")
    await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")


async def test_the_close_frame_comes_while_the_rundown_still_lasts(vm: WireArm) -> None:
    await run(vm)
    await vm.pace(Point.RUNDOWN, Pace(None))
    async with console(vm) as ws:
        await vm.until(lambda view: view["console_clients"] == 1)
        assert await vm.put(S) == QUEUED
        _, end = await read_to_end(ws)
    assert end.rcvd is not None
    assert end.rcvd.code == 1001
    assert await vm.get() == "200 Stopped"
    await vm.settle()
    await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")


async def test_a_migration_sends_the_clients_to_the_target_which_goes_on_where_it_was(vm: WireArm) -> None:
    """#72: a text frame, then the bare end; the target continues with the same offsets."""
    await run(vm)
    target = await vm.another()
    async with console(vm, "?from_start=0") as ws:
        before = await read_until(ws, b"vm login: ")
        await ws.send(b"root\rech")
        before = await read_until(ws, b"ech", before)
        assert await vm.migrate_to(target) == "accepted"
        frames, end = await read_to_end(ws)
    assert isinstance(end, ConnectionClosedError)
    assert (end.rcvd, end.sent) == (None, None), "no close frame"
    moved = json.loads(frames[-1])["Migrating"]
    assert moved == {"destination": target.address, "from_start": len(before)}
    await target.told("11 Running in=Finish")
    async with console(target, f"?from_start={moved['from_start']}") as ws:
        await ws.send(b"o hello\r")
        assert await read_until(ws, b"$ ") == b"o hello\r\nhello\r\nroot@vm:~$ "
    async with console(target, "?from_start=0") as ws:
        assert (await read_until(ws, b"hello\r\nroot@vm:~$ ")).startswith(before)


async def test_after_a_failed_migration_the_console_stays_gone(vm: WireArm) -> None:
    """PR 3.5: the VM runs on without a live console, and fails every later attempt in the Server phase."""
    await run(vm)
    await vm.pace(Point.M_FINISH, Pace(0, fail=True))
    await vm.migrate_to(await vm.another())
    await vm.told("17 Migrating out=Error, 18 Running out=Error")
    async with console(vm, "?from_start=0") as ws:
        frames, end = await read_to_end(ws)
    assert b"".join(frames).endswith(b"vm login: "), "the replay is still sent"
    assert end.rcvd is None
    await vm.pace(Point.M_FINISH, Pace())
    await vm.migrate_to(await vm.another())
    view = await vm.until(lambda view: len(view["publications"]) >= 32)
    assert [told["migration"]["migration_out"]["state"] for told in view["publications"][-4:]] == [
        "RamPushDirty",
        "Server",
        "Error",
        "Error",
    ]
    assert await vm.get() == "200 Running"


async def test_case_74_a_long_output_is_read_in_pieces(vm: WireArm) -> None:
    await run(vm)
    _, before, _ = await vm.request("GET", "/instance/serial/history?most_recent=0")
    start = before["last_byte_offset"]
    await vm.control("POST", "serial", {"text": "0123456789abcdef" * 64, "times": 20})
    assert start < 16_384
    _, body, _ = await vm.request("GET", "/instance/serial/history?from_start=0")
    assert (len(body["data"]), body["last_byte_offset"]) == (16_384, 16_384)
    _, body, _ = await vm.request("GET", "/instance/serial/history?from_start=16384")
    assert len(body["data"]) == start + 20_480 - 16_384
    assert body["last_byte_offset"] == start + 20_480
    _, body, _ = await vm.request("GET", "/instance/serial/history?most_recent=6&max_bytes=3")
    assert (bytes(body["data"]), body["last_byte_offset"]) == (b"abc", start + 20_480 - 3)
    _, body, _ = await vm.request("GET", f"/instance/serial/history?from_start={2**64 - 1}")
    assert body == {"data": [], "last_byte_offset": start + 20_480}


@pytest.mark.parametrize("query", ["", "?max_bytes=3", "?from_start=1&most_recent=1"])
async def test_case_73_a_history_wants_exactly_one_offset(vm: WireArm, query: str) -> None:
    await vm.ensure()
    status, body, _ = await vm.request("GET", f"/instance/serial/history{query}")
    assert status == 400
    assert body["message"] == "Exactly one of 'from_start' or 'most_recent' must be specified."
    assert "error_code" not in body


async def test_a_gap_in_the_history_is_400_and_ends_a_replay(vm: WireArm) -> None:
    await run(vm)
    await vm.control("POST", "serial", {"text": "x" * 4096, "times": 600})
    status, body, _ = await vm.request("GET", f"/instance/serial/history?from_start={1 << 20}")
    assert status == 400
    assert "is no longer cached: Only have first 1048576 + most recent 1048576 saved" in body["message"]
    async with console(vm, "?from_start=1048570") as ws:
        frames, end = await read_to_end(ws)
    assert len(b"".join(frames)) == 6
    assert end.rcvd is None


@pytest.mark.parametrize("query", ["", "?from_start=0&most_recent=5"])
async def test_without_exactly_one_offset_there_is_no_replay(vm: WireArm, query: str) -> None:
    await run(vm)
    async with console(vm, query) as ws:
        await vm.until(lambda view: view["console_clients"] == 1)
        await vm.control("POST", "serial", {"text": "now"})
        assert await asyncio.wait_for(ws.recv(), PATIENCE_S) == b"now"


async def test_live_frames_are_at_most_1024_bytes_and_replayed_ones_16384(vm: WireArm) -> None:
    await run(vm)
    async with console(vm) as live:
        await vm.until(lambda view: view["console_clients"] == 1)
        await vm.control("POST", "serial", {"text": "y" * 40_000})
        sizes = []
        while sum(sizes) < 40_000:
            sizes.append(len(await asyncio.wait_for(live.recv(), PATIENCE_S)))
        assert max(sizes) <= 1024
    async with console(vm, "?most_recent=40000") as replay:
        frames = [await asyncio.wait_for(replay.recv(), PATIENCE_S) for _ in range(3)]
        assert [len(frame) for frame in frames] == [16_384, 16_384, 40_000 - 2 * 16_384]


async def test_everybody_sees_what_anybody_types(vm: WireArm) -> None:
    await run(vm)
    async with console(vm) as one, console(vm) as two:
        await vm.until(lambda view: view["console_clients"] == 2)
        await one.send("text is ignored")
        await (await one.ping())
        await one.send(b"ab")
        await read_until(two, b"ab")
        await two.send(b"c")
        await read_until(one, b"abc")


async def test_a_client_that_leaves_is_answered_without_a_code(vm: WireArm) -> None:
    await run(vm)
    async with console(vm) as ws:
        await ws.close()
        assert ws.close_code == 1005
    await vm.until(lambda view: view["console_clients"] == 0)


async def test_a_stalled_client_stalls_nobody_and_is_dropped_when_it_has_missed_too_much(vm: WireArm) -> None:
    await run(vm)
    host, port = vm.address.split(":")
    stalled, writer = await asyncio.open_connection(host, port, limit=1)
    writer.write(
        b"GET /instance/serial HTTP/1.1\r\nhost: x\r\napi-version: 5.0.0\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await vm.until(lambda view: view["console_clients"] == 1)
    async with console(vm) as quick:
        await vm.until(lambda view: view["console_clients"] == 2)
        read = 0
        for _ in range(8):
            await vm.control("POST", "serial", {"text": "z" * 65_536, "times": 16})
            async with asyncio.timeout(PATIENCE_S):
                while read < 65_536 * 16:
                    read += len(await quick.recv())
            read -= 65_536 * 16
        assert (await vm.look())["console_clients"] == 2
        writer.transport.resume_reading()  # now it reads, and finds the end instead of the rest
        async with asyncio.timeout(PATIENCE_S):
            while await stalled.read(1 << 20):
                pass
        await vm.until(lambda view: view["console_clients"] == 1)
    writer.close()


async def test_a_reboot_by_request_boots_the_guest_again_for_those_who_watch(vm: WireArm) -> None:
    await run(vm)
    async with console(vm, "?most_recent=0") as ws:
        await vm.put(B)
        assert b"(boot 2)" in await read_until(ws, b"login: ")


# --- bytes, whatever they are and however they come (PR 4.4) --------------------------------------------------


async def logged_in(ws: ClientConnection) -> None:
    await ws.send(b"root\r")
    await read_until(ws, b"root@vm:~$ ")


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param("\u00f1".encode(), id="two bytes"),
        pytest.param("\u20ac\U0001f600".encode(), id="three and four"),
        pytest.param(b"\xf1\xe4", id="Latin-1"),
        pytest.param(b"\xff", id="no letter"),
    ],
)
async def test_letters_typed_in_parts_are_echoed_as_they_are(vm: WireArm, typed: bytes) -> None:
    await run(vm)
    async with console(vm, "?most_recent=0") as ws:
        await logged_in(ws)
        for byte in typed:
            await ws.send(bytes([byte]))
        assert await read_until(ws, typed) == typed
        await ws.send([typed[at : at + 1] for at in range(len(typed))])  # one message in fragments
        assert await read_until(ws, typed) == typed


@pytest.mark.parametrize(
    "size", [*(pytest.param(few, marks=pytest.mark.long) for few in (1 << 20, (4 << 20) + 1)), 16 << 20]
)
async def test_a_frame_of_up_to_16_mib_is_input_like_any_other(vm: WireArm, size: int) -> None:
    await run(vm)
    async with console(vm, "?most_recent=0") as ws:
        await logged_in(ws)
        await ws.send(b"x" * size)
        await ws.send(b"\x03echo still here\r")
        assert b"still here\r\n" in await read_until(ws, b"still here\r\nroot@vm:~$ ")


@pytest.fixture(params=[pytest.param(10, id="in KiB"), pytest.param(20, id="in MiB", marks=pytest.mark.long)])
def unit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of limits, as a power of two: what is 16 and 64 MiB takes a second to send, and is decided in KiB."""
    assert (websocket.FRAME_BYTES_MAX, websocket.MESSAGE_BYTES_MAX) == (16 << 20, 64 << 20)
    monkeypatch.setattr(websocket, "FRAME_BYTES_MAX", 16 << request.param)
    monkeypatch.setattr(websocket, "MESSAGE_BYTES_MAX", 64 << request.param)
    return request.param


async def test_a_message_of_64_mib_comes_in_frames_of_16(vm: WireArm, unit: int) -> None:
    await run(vm)
    async with console(vm, "?most_recent=0") as ws:
        await logged_in(ws)
        await ws.send(b"x" * (16 << unit) for _ in range(4))
        await ws.send(b"\x03whoami\r")
        await read_until(ws, b"root\r\nroot@vm:~$ ")


@pytest.mark.parametrize("frames", [0, 4], ids=["a frame", "a message"])
async def test_what_is_larger_ends_the_connection(vm: WireArm, unit: int, frames: int) -> None:
    whole = [16 << unit] * frames + [1] if frames else [(16 << unit) + 1]
    await run(vm)
    async with console(vm, "?most_recent=0") as ws:
        with contextlib.suppress(ConnectionClosed):
            await ws.send(b"x" * part for part in whole)
        _, end = await read_to_end(ws)
    assert end.rcvd is None or end.rcvd.code == 1009
    assert await vm.get() == "200 Running"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x82\x05root\r", id="binary"),
        pytest.param(b"\x81\x04root", id="text"),
        pytest.param(b"\x89\x00", id="a ping"),
        pytest.param(b"\x82\x7e\x01\x00" + b"x" * 256, id="a longer one"),
        pytest.param(b"\x02\x01r\x80\x04oot\r", id="fragments"),
    ],
)
@pytest.mark.parametrize("together", [False, True], ids=["after the upgrade", "with the upgrade"])
async def test_frames_without_a_mask_are_a_protocol_error_and_are_not_typed(
    vm: WireArm, frame: bytes, together: bool
) -> None:
    await run(vm)
    _, before, _ = await vm.request("GET", "/instance/serial/history?most_recent=0")
    reader, writer = await asyncio.open_connection(*vm.address.split(":"))
    upgrade = (
        b"GET /instance/serial?most_recent=0 HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\napi-version: 5.0.0\r\n\r\n"
    )
    writer.write(upgrade + (frame if together else b""))
    async with asyncio.timeout(PATIENCE_S):
        await reader.readuntil(b"\r\n\r\n")
        if not together:
            writer.write(frame)
        assert (await reader.read()).startswith(b"\x88\x02\x03\xea"), "close 1002, then the end"
    writer.close()
    _, after, _ = await vm.request("GET", "/instance/serial/history?most_recent=0")
    assert after == before
