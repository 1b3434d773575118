"""Connections have the manners of the original's HTTP library (DS 3). Times are short here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import aiohttp
import attrs
import pytest
from aiohttp import web
from aiohttp.http_parser import HttpRequestParser
from aiohttp.web_protocol import RequestHandler
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from nexus_client.dropshot.answers import Refused, error_body
from nexus_client.dropshot.body import Bodies, read_body
from nexus_client.dropshot.listen import (
    CONNECTION,
    HEAD_MAX,
    HEADERS_MAX,
    PATIENCE,
    TARGET_MAX,
    Direct,
    Patience,
    PortRange,
    Server,
    is_ordinary,
    listen,
    loop_is_known,
    mend,
)
from nexus_client.dropshot.text import SocketAddress

SHORT = Patience(idle_s=0.3, body_s=0.3, half_closed_s=0.3)
"""Longer than a busy machine lets a test wait between two lines."""
WAIT_S = 60


def _answer(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text)


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    """Method, target and body, as the handler sees them."""
    body = await request.read()
    return _answer(f"{request.method} {request.raw_path} {body.decode()}".rstrip())


@attrs.define
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def status(self) -> int:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), WAIT_S)
        self.head = head.decode()
        lines = self.head.lower().split("\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
        self.body = (await self.reader.readexactly(length)).decode()
        return int(head.split(b" ")[1])

    head: str = ""
    body: str = ""

    async def closed(self) -> None:
        """Returns when the server has closed, having said nothing more."""
        assert await asyncio.wait_for(self.reader.read(), WAIT_S) == b""


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Connect = Callable[[], Awaitable[Client]]


@asynccontextmanager
async def serving(handler: Handler = echo, patience: Patience = PATIENCE) -> AsyncIterator[Connect]:
    listener = await listen(Server(handler, patience=patience), SocketAddress("127.0.0.1", 0))
    address = SocketAddress.parse(listener.address)
    clients: list[Client] = []

    async def connect() -> Client:
        clients.append(Client(*await asyncio.open_connection(address.host, address.port, limit=2**20)))
        return clients[-1]

    try:
        yield connect
    finally:
        for client in clients:
            client.writer.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()
        await listener.close(0.01)


def test_the_times_are_those_of_the_original():
    assert Patience(idle_s=30.0, body_s=60.0, half_closed_s=0.5) == PATIENCE


@in_one_test(
    ("head", "seen"),
    [
        (b"GET /a HTTP/1.1\r\nhost: x", "GET /a"),
        (b"GET /a HTTP/1.1", "GET /a"),
        (b"GET /a HTTP/1.1\r\nhost: x\r\nHOST: y", "GET /a"),
        (b"FOO /a HTTP/1.1\r\nhost: x", "LINK /a"),
        (b"get /a HTTP/1.1\r\nhost: x", "LINK /a"),
        (b"PROPFIND /a HTTP/1.1\r\nhost: x", "LINK /a"),
        (b"GET /a#x HTTP/1.1\r\nhost: x", "GET /a"),
        (b"GET /a?b#c?d HTTP/1.1\r\nhost: x", "GET /a?b"),
        (b"\r\n\r\nGET /a HTTP/1.1\r\nhost: x", "GET /a"),
        (b"GET /a HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 20_000, "GET /a"),
        (b"GET /a HTTP/1.1\r\nhost: x\r\n" + b"\r\n".join(b"x-%d: y" % n for n in range(HEADERS_MAX - 1)), "GET /a"),
        (b"GET /" + b"a" * (TARGET_MAX - 1) + b" HTTP/1.1\r\nhost: x", "GET /" + "a" * (TARGET_MAX - 1)),
    ],
)
@in_one_test("pieces", [1, 2, 7])
async def test_odd_heads_are_taken_and_the_connection_stays(head, seen, pieces):
    async with serving() as connect:
        client = await connect()
        data = head + b"\r\n\r\n"
        cut = [len(data) * n // pieces for n in range(pieces + 1)]
        for start, end in pairwise(cut):
            client.send(data[start:end])
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.status(), client.body) == (200, seen)
        client.send(b"PUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc")
        assert (await client.status(), client.body) == (200, "PUT /b abc")


@in_one_test(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 70_000, 414),
        (b"GET /a HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /a HTTP/1.1\r\nhost: x\r\nx: " + b"y" * HEAD_MAX, 431),
        (b"GET /a\r\nhost: x\r\n\r\n", 400),
        (b"GET /a HTTP/2.0\r\nhost: x\r\n\r\n", 400),
        (b"GET /a HTTP/1.2\r\nhost: x\r\n\r\n", 400),
        (b"GET  /a HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /a HTTP/1.1\nhost: x\n\n", 400),
        (b"GET /a HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else str(value),
)
async def test_heads_that_are_refused_end_the_connection(data, status):
    async with serving() as connect:
        client = await connect()
        client.send(data)
        assert await client.status() == status
        assert (client.body == "") == (status != 400)
        with suppress(ConnectionError):  # bytes of ours may be unread
            await client.closed()


async def test_pipelined_requests_are_answered_in_order():
    async with serving() as connect:
        client = await connect()
        client.send(
            b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\nPUT /3 HTTP/1.1\r\nhost: x\r\n"
        )
        client.send(b"content-length: 1\r\n\r\na")
        assert [(await client.status(), client.body)[1] for _ in range(3)] == ["GET /1", "GET /2", "PUT /3 a"]


async def test_more_pipelined_requests_than_are_kept_waiting_are_answered_in_order():
    async with serving() as connect:
        client = await connect()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % n for n in range(200)))
        for n in range(200):
            assert (await client.status(), client.body) == (200, f"GET /{n}")


async def test_requests_of_a_connection_need_no_task_of_their_own():
    tasks = set()

    async def handler(_request):
        tasks.add(asyncio.current_task())
        return _answer("here")

    async with serving(handler) as connect:
        client = await connect()
        for _ in range(3):
            client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await client.status() == 200
        other = await connect()
        other.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await other.status() == 200
        assert len(tasks) == 2


async def test_a_body_that_nobody_reads_is_dropped_and_the_connection_stays():
    async def handler(request):
        return _answer(request.raw_path)

    async with serving(handler) as connect:
        client = await connect()
        client.send(b"PUT /a HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
        assert (await client.status(), client.body) == (200, "/a")
        client.send(b"def")
        client.send(b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await client.status(), client.body) == (200, "/b")


async def test_a_request_under_way_is_waited_for_when_a_server_ends():
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_request):
        begun.set()
        await go_on.wait()
        return _answer("after all")

    listener = await listen(Server(handler), SocketAddress("127.0.0.1", 0))
    address = SocketAddress.parse(listener.address)
    client = Client(*await asyncio.open_connection(address.host, address.port))
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await begun.wait()
    ending = asyncio.ensure_future(listener.close(WAIT_S))
    await asyncio.sleep(0)
    go_on.set()
    assert (await client.status(), client.body) == (200, "after all")
    await client.closed()
    await ending
    client.writer.close()


def test_the_loop_of_an_aiohttp_that_nobody_has_read_is_left_alone():
    here = (aiohttp.__version__, RequestHandler, HttpRequestParser)
    assert loop_is_known(*here)
    assert CONNECTION is Direct
    assert not loop_is_known("3.15.0", *here[1:])
    assert not loop_is_known("3.140.0", *here[1:])
    assert not loop_is_known(here[0], asyncio.Protocol, HttpRequestParser)
    assert not loop_is_known(here[0], RequestHandler, object)


async def test_a_kept_connection_without_a_request_is_closed():
    async with serving(patience=SHORT) as connect:
        client = await connect()
        client.send(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await client.status() == 200
        await client.closed()


async def test_a_connection_that_has_sent_nothing_stays():
    async with serving(patience=SHORT) as connect:
        silent, idle = await connect(), await connect()
        idle.send(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await idle.status() == 200
        await idle.closed()  # it began later and is over already
        silent.send(b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await silent.status() == 200


@pytest.mark.parametrize("half", [b"GET /a HTTP/1.1\r\nhost: x\r\n", b"G", b"GET /a HTTP/1.1\r\nhost: x\r\n\r"])
async def test_half_a_head_is_closed(half):
    async with serving(patience=SHORT) as connect:
        fresh, kept = await connect(), await connect()
        kept.send(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await kept.status() == 200
        for client in (fresh, kept):
            client.send(half)
        for client in (fresh, kept):
            await client.closed()


async def test_a_slow_operation_is_no_idle_connection():
    async def slow(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(SHORT.idle_s * 2)
        return _answer("at last")

    async with serving(slow, SHORT) as connect:
        client = await connect()
        for _ in range(2):
            client.send(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await client.status(), client.body) == (200, "at last")


@pytest.mark.parametrize("together", [True, False])
async def test_a_client_that_has_shut_its_sending_side_is_answered(together):
    async with serving(patience=Patience(half_closed_s=WAIT_S)) as connect:
        for _ in range(20):
            client = await connect()
            client.send(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\n")
            if not together:
                await client.writer.drain()
                await asyncio.sleep(0)
            client.writer.write_eof()
            assert [(await client.status(), client.body)[1] for _ in range(2)] == ["GET /1", "GET /2"]
            await client.closed()


async def test_a_slow_operation_is_not_answered_to_a_half_closed_client():
    over = asyncio.Event()

    async def never(_request: web.BaseRequest) -> web.StreamResponse:
        await over.wait()
        return _answer("too late")

    async with serving(never, SHORT) as connect:
        client = await connect()
        client.send(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n")
        client.writer.write_eof()
        await client.closed()
        over.set()


async def test_a_client_that_leaves_when_its_body_was_refused_is_no_error_of_ours(caplog):
    """Its answer came before its body had: the rest is waited for a while, and then it goes."""

    async def refuses(_request: web.BaseRequest) -> web.StreamResponse:
        return _answer("too large", 400)

    async with serving(refuses) as connect:
        client = await connect()
        client.send(b"POST /1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
        assert await client.status() == 400
        client.writer.write_eof()
        await client.closed()
    assert not caplog.records


async def test_a_client_that_leaves_in_the_middle_of_a_stream_is_no_error_of_ours(caplog):
    """Every page that is closed does; a log that has a traceback of each is of no use."""
    ended = asyncio.Event()

    async def stream(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        try:
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.001)
            while True:
                await response.write(b"more")
        finally:
            ended.set()

    async with serving(stream) as connect:
        client = await connect()
        client.send(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n")
        await client.reader.readuntil(b"first")
        client.writer.transport.abort()
        await asyncio.wait_for(ended.wait(), WAIT_S)
        for _ in range(5):
            await asyncio.sleep(0)
    assert not caplog.records


async def test_an_error_of_a_handlers_own_connection_is_told_and_answered(caplog):
    async def forwards(_request: web.BaseRequest) -> web.StreamResponse:
        raise ConnectionRefusedError("somebody else is not there")

    async with serving(forwards) as connect:
        client = await connect()
        client.send(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await client.status() == 500
    assert "somebody else is not there" in caplog.text


async def test_a_connection_that_comes_while_a_server_ends_is_closed():
    server = Server(echo)
    await server.shutdown(0)
    near, far = socket.socketpair()
    near.setblocking(False)
    await asyncio.get_running_loop().connect_accepted_socket(server, far)
    try:
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(near, 1), WAIT_S) == b""
    finally:
        near.close()


@in_one_test("turns", range(5))
def test_a_loop_that_ends_right_after_its_listener_leaves_no_socket_open(turns):
    """A connection may come in any of the last turns; what is left open is a warning, and an error here."""

    async def last() -> socket.socket:
        listener = await listen(Server(echo), SocketAddress("127.0.0.1", 0))
        address = SocketAddress.parse(listener.address)
        client = socket.create_connection((address.host, address.port))
        for _ in range(turns):
            await asyncio.sleep(0)
        await listener.close(0.01)
        return client

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.closing(asyncio.run(last())) as client:
            client.settimeout(WAIT_S)
            with contextlib.suppress(ConnectionResetError):  # never accepted: the kernel refuses it late
                assert client.recv(1) == b""
            gc.collect()


async def test_an_end_without_a_request_is_the_end():
    async with serving() as connect:
        client = await connect()
        client.writer.write_eof()
        await client.closed()


def reading(bodies: Bodies) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return _answer(str(len(await read_body(request, bodies))))
        except Refused as refused:
            answer = web.Response(status=refused.status, body=error_body("x", refused))
            if refused.close:
                answer.force_close()
            return answer

    return handle


def put(size: int, sent: bytes, **headers: str) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"PUT /a HTTP/1.1\r\nhost: x\r\n{more}content-length: {size}\r\n\r\n".encode() + sent


@in_one_test("slowly", [True, False])
@in_one_test(("size", "status"), [(9, 200), (10, 200), (11, 400)])
async def test_a_body_in_chunks_may_be_exactly_as_large_as_is_said(size, status, slowly):
    """Whether it comes behind its head or with it."""
    reached = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        reached.set()
        try:
            return _answer(str(len(await read_body(request, Bodies(), 10))))
        except Refused as refused:
            return _answer(refused.message, refused.status)

    async with serving(handler) as connect:
        client = await connect()
        head = b"PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        body = f"{size:x}\r\n".encode() + b"x" * size + b"\r\n0\r\n\r\n"
        if slowly:
            client.send(head)
            await asyncio.wait_for(reached.wait(), WAIT_S)
            client.send(body)
        else:
            client.send(head + body)
        assert await client.status() == status


async def test_a_body_that_ends_early_is_told_so():
    async with serving(reading(Bodies())) as connect:
        client = await connect()
        client.send(put(10, b"abc"))
        client.writer.write_eof()
        assert await client.status() == 400
        assert "error streaming request body: " in client.body
        await client.closed()


async def test_a_body_that_does_not_come_is_given_up():
    async with serving(reading(Bodies()), SHORT) as connect:
        client = await connect()
        client.send(put(10, b"abc"))
        assert await client.status() == 400
        assert "did not arrive within" in client.body


async def test_a_client_that_waits_for_leave_gets_it_when_its_body_is_read():
    async with serving(reading(Bodies())) as connect:
        client = await connect()
        client.send(put(3, b"", expect="100-continue"))
        assert await client.status() == 100
        client.send(b"abc")
        assert (await client.status(), client.body) == (200, "3")


async def test_a_client_whose_body_nobody_reads_gets_no_leave():
    async def handle(_request: web.BaseRequest) -> web.StreamResponse:
        return _answer("no")

    async with serving(handle) as connect:
        client = await connect()
        client.send(put(3, b"", expect="100-continue"))
        assert await client.status() == 200


async def test_many_slow_bodies_have_a_bound_and_do_not_keep_out_a_quick_one():
    bodies = Bodies(bytes_max=100_000)
    async with serving(reading(bodies)) as connect:
        slow = [await connect() for _ in range(30)]
        for client in slow:
            client.send(put(20_000, b"a" * 10_000))
            await client.writer.drain()
        refused = 0
        for client in slow[:20]:  # the oldest make room
            assert await client.status() == 503
            refused += 1
        assert refused == 20
        assert len(bodies) <= 100_000
        quick = await connect()
        quick.send(put(50_000, b"a" * 25_000))
        await quick.writer.drain()
        quick.send(b"a" * 25_000)
        assert (await quick.status(), quick.body) == (200, "50000")
        for client in slow[25:]:
            client.send(b"a" * 10_000)
            assert (await client.status(), client.body) == (200, "20000")


async def test_what_went_away_counts_no_more():
    bodies = Bodies()
    async with serving(reading(bodies), SHORT) as connect:
        client = await connect()
        client.send(put(20, b"a" * 10))
        assert await client.status() == 400
        assert len(bodies) == 0


# ---- heads, without sockets ----------------------------------------------------------------------------------------

_token = st.text("GETPOSFX-", min_size=1, max_size=8)
_fields = st.lists(
    st.sampled_from([b"host: a", b"Host: b", b"x: y", b"upgrade: websocket", b"Upgrade: h2c, websocket", b"a: 1"]),
    max_size=6,
)


@given(_token, st.text("/ab#?%20", min_size=1, max_size=20), _fields, st.binary(max_size=20))
def test_what_is_mended_is_ordinary_or_an_upgrade(method, target, fields, rest):
    head = b"\r\n".join([f"{method} {target} HTTP/1.1".encode(), *fields])
    mended = mend(head + b"\r\n\r\n" + rest, len(head))
    assert isinstance(mended, bytes)
    again, _, after = mended.partition(b"\r\n\r\n")
    assert after == rest
    assert again.lower().count(b"\r\nhost:") == 1
    if b"upgrade" not in again.lower() and not again.startswith(b"LINK"):
        assert is_ordinary(again)
    assert mend(again + b"\r\n\r\n", len(again)) == again + b"\r\n\r\n", "once is enough"


async def test_an_answer_that_is_on_its_way_is_not_followed_by_a_second_one():
    """A handler that breaks off: the error would be read as the answer to the next request."""

    async def breaks_off(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        answer.content_length = 100
        await answer.prepare(request)
        await answer.write(b"the first bytes")
        raise ValueError("a bug")

    async with serving(breaks_off) as connect:
        client = await connect()
        client.send(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        said = await asyncio.wait_for(client.reader.read(), WAIT_S)
        assert said.count(b"HTTP/1.1") == 1
        assert said.endswith(b"the first bytes")


async def test_a_range_of_ports_skips_those_that_are_taken_and_ends_with_a_sentence(monkeypatch):
    server = Server(echo)
    taken = await listen(server, SocketAddress("127.0.0.1", 0))
    port = SocketAddress.parse(taken.address).port
    free = await listen(server, SocketAddress("127.0.0.1", 0))
    after = SocketAddress.parse(free.address).port
    await free.close(0.01)
    monkeypatch.setattr(PortRange, "FIRST", port)
    monkeypatch.setattr(PortRange, "END", port + 2)
    ports = PortRange(0)
    ports._left = iter([port, after])
    found = await ports.listen(server, "127.0.0.1")
    try:
        assert SocketAddress.parse(found.address).port == after
        with pytest.raises(OSError, match=f"no port from {port} to {port + 1} of 127.0.0.1 is free"):
            await ports.listen(server, "127.0.0.1")
    finally:
        await found.close(0.01)
        await taken.close(0.01)


def test_a_range_goes_round_once_from_anywhere():
    ports = list(PortRange(2**128 - 1)._left)
    assert sorted(ports) == list(range(PortRange.FIRST, PortRange.END))
    assert all((one + 1 - two) % len(ports) == 0 for one, two in pairwise(ports))


async def test_what_is_wrong_with_an_address_is_said_at_the_first_port():
    with pytest.raises(OSError, match="assign requested address"):
        await PortRange(0).listen(Server(echo), "192.0.2.1")


async def test_a_socket_that_cannot_be_made_is_told_as_such(monkeypatch):
    """The loop passes over it, and gives a server that listens nowhere."""

    def none_left(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        await listen(Server(echo), SocketAddress("::1", 0))


async def test_a_large_body_that_pauses_its_connection_is_read_to_its_end():
    """Reading is only resumed where it was paused; here it is, many times."""

    async def count(request: web.BaseRequest) -> web.StreamResponse:
        size = 0
        while chunk := await request.content.read(1000):
            size += len(chunk)
            await asyncio.sleep(0)  # slower than the sender
        return _answer(str(size))

    async with serving(count) as connect:
        client = await connect()
        for _ in range(2):  # the connection is as good as before
            client.send(b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 700000\r\n\r\n" + b"x" * 700_000)
            assert await client.status() == 200
            assert client.body == "700000"
