"""http_client.py against peers that say too much, too early, too late, half, or nothing."""

import asyncio
import socket

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nexus.peers import NO_CONTENT, answer, peer, read_request, says, target_of
from support.profile import by_profile
from support.rows import in_one_test

from nexus_client.exchange import http_client
from nexus_client.exchange.answer import Answer
from nexus_client.exchange.http_client import HOPS_MAX, Failure, HttpClient


class _Client:
    """An open client, closed at the end."""

    def __init__(self, **options):
        self.http = HttpClient({"api-version": "1.0.0"}, **{"timeout_s": 10.0, **options})

    async def __aenter__(self):
        self.http.open()
        return self.http

    async def __aexit__(self, *_):
        await self.http.close()
        assert not self.http._connections
        assert not self.http._calls


_STRAYS = [
    pytest.param(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", id="408"),
    pytest.param(NO_CONTENT, id="204"),
    pytest.param(answer(404, b"{}"), id="404"),
    pytest.param(b"0\r\n\r\n", id="a last chunk"),
    pytest.param(b"\r\n", id="an empty line"),
    pytest.param(b"x", id="a byte"),
]


@in_one_test("stray", _STRAYS)
@in_one_test("method", ["PUT", "GET", "POST"])
async def test_what_comes_on_an_idle_connection_answers_nothing(stray, method):
    """A front end says 408 on an idle connection; aiohttp's pool takes it for the next report's answer."""
    second = asyncio.Event()
    asked = []

    async def talk(reader, writer, nth):
        asked.append((nth, target_of((await read_request(reader))[0])))
        writer.write(NO_CONTENT)
        await writer.drain()
        if nth == 1:
            await second.wait()
            writer.write(stray)
            await writer.drain()
        await reader.read(1)

    async with peer(talk) as address, _Client() as client:
        assert await client.ask(address, method, "/first", b"{}") == Answer(204)
        second.set()
        while client._idle_count:  # until the stray has come
            await asyncio.sleep(0)
        assert await client.ask(address, method, "/second", b"{}") == Answer(204)
    assert asked == [(1, "/first"), (2, "/second")]


@in_one_test("stray", _STRAYS)
async def test_what_has_come_but_was_not_read_yet_answers_nothing(stray):
    """The loop was busy: the stray lies in the kernel when the connection is wanted again."""
    asked = []

    def serve(listener):
        first, _ = listener.accept()
        asked.append(_read_sync(first))
        first.sendall(NO_CONTENT)
        return first

    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        async with _Client() as client:
            served = loop.run_in_executor(None, serve, listener)
            assert await client.ask(address, "PUT", "/first", b"{}") == Answer(204)
            first = await served
            first.sendall(stray)  # no await between this and the next request
            call = client.start(address, "PUT", "/second", b"{}", lambda _: None)
            second, _ = await loop.run_in_executor(None, listener.accept)
            asked.append(await loop.run_in_executor(None, _read_sync, second))
            call.cancel()
            first.close()
            second.close()
    assert asked == ["/first", "/second"]


def _read_sync(connection):
    data = b""
    while not data.endswith(b"{}"):
        data += connection.recv(65_536)
    return target_of(data)


async def test_a_late_answer_to_what_was_given_up_answers_nothing_else():
    release = asyncio.Event()
    asked = []

    async def talk(reader, writer, nth):
        asked.append((nth, target_of((await read_request(reader))[0])))
        if nth == 1:
            await release.wait()
        writer.write(NO_CONTENT)
        await writer.drain()
        await reader.read(1)

    async with peer(talk) as address, _Client() as client:
        task = asyncio.ensure_future(client.ask(address, "PUT", "/given-up", b"{}"))
        while not asked:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        assert await client.ask(address, "PUT", "/next", b"{}") == Answer(204)
    assert asked == [(1, "/given-up"), (2, "/next")]


async def test_a_connection_closed_while_idle_is_not_used_and_nothing_is_sent_twice():
    asked = []

    async def talk(reader, writer, nth):
        asked.append((nth, target_of((await read_request(reader))[0])))
        writer.write(NO_CONTENT)
        await writer.drain()

    async with peer(talk) as address, _Client() as client:
        for path in ("/1", "/2", "/3"):
            assert await client.ask(address, "PUT", path, b"{}") == Answer(204)
            while client._connections:
                await asyncio.sleep(0)
    assert asked == [(1, "/1"), (2, "/2"), (3, "/3")]


async def test_a_connection_is_used_again_when_nothing_is_left_to_come():
    asked = []

    async def talk(reader, writer, nth):
        while True:
            asked.append((nth, target_of((await read_request(reader))[0])))
            writer.write(answer(500, b"no") if len(asked) == 2 else NO_CONTENT)
            await writer.drain()

    async with peer(talk) as address, _Client() as client:
        told = [await client.ask(address, "PUT", f"/{n}", b"{}") for n in range(4)]
    assert [each.status for each in told] == [204, 500, 204, 204]
    assert asked == [(1, f"/{n}") for n in range(4)]


async def test_a_half_closed_peer_has_answered():
    async def talk(reader, writer, _nth):
        await read_request(reader)
        writer.write(NO_CONTENT)
        writer.write_eof()
        await reader.read()

    async with peer(talk) as address, _Client() as client:
        assert await client.ask(address, "PUT", "/x", b"{}") == Answer(204)
        assert await client.ask(address, "PUT", "/x", b"{}") == Answer(204)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"HTTP/1.1 204 N\r\nx: y\r\n"])
async def test_a_peer_that_hangs_up_before_its_head_is_complete_has_not_answered(said):
    async with peer(says(said)) as address, _Client() as client:
        told = await client.ask(address, "PUT", "/x", b"{}")
    assert isinstance(told, Failure)
    assert not told.hung
    assert not told.unreached


async def test_an_answer_before_the_request_has_left_is_none():
    """A peer that answers at once whatever comes: what has not left us cannot have been read."""
    done = asyncio.Event()

    async def talk(_reader, writer, _nth):
        writer.write(NO_CONTENT)
        await writer.drain()
        await done.wait()

    async with peer(talk) as address, _Client() as client:
        told = await client.ask(address, "PUT", "/x", b"x" * 50_000_000)
        done.set()
    assert isinstance(told, Failure)
    assert "before the request" in told.why


async def test_the_time_is_for_the_whole_request_and_the_connection_ends_with_it():
    ended = asyncio.Event()

    async def talk(reader, _writer, _nth):
        await read_request(reader)
        await reader.read()
        ended.set()

    async with peer(talk) as address, _Client(timeout_s=1.0) as client:
        assert await client.ask(address, "PUT", "/x", b"{}") == Failure("no answer within 1 s", hung=True)
        await asyncio.wait_for(ended.wait(), 60)


async def test_an_answer_whose_body_never_ends_costs_its_connection():
    ended = asyncio.Event()

    async def talk(reader, writer, _nth):
        await read_request(reader)
        writer.write(b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"3e8\r\n" + b"y" * 1000 + b"\r\n")
                await writer.drain()
        finally:
            ended.set()

    async with peer(talk) as address, _Client(body_max=10) as client:
        assert await client.ask(address, "PUT", "/x", b"{}") == Answer(500, b"y" * 10)
        await asyncio.wait_for(ended.wait(), 60)


async def test_a_connection_given_up_while_it_is_made_is_not_waited_for_at_the_end(monkeypatch):
    # uvloop tells nobody that it has closed one: the end of a daemon used to wait for it for ever
    made = asyncio.Event()

    async def without_a_word(factory, *_address):
        with socket.socket() as there:
            factory().connection_made(asyncio.Transport({"socket": there}))
        made.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", without_a_word)
    client = HttpClient({}, timeout_s=5.0)
    client.open()
    client.start("[::1]:1", "GET", "/", None, lambda _: None)
    await made.wait()
    await client.close()
    assert not client._connections


async def test_connections_that_were_idle_too_long_are_closed(monkeypatch):
    monkeypatch.setattr(http_client, "IDLE_S", 0.05)
    ended = asyncio.Event()

    async def talk(reader, writer, _nth):
        await read_request(reader)
        writer.write(NO_CONTENT)
        await writer.drain()
        await reader.read()
        ended.set()

    async with peer(talk) as address, _Client(timeout_s=1.0) as client:
        await client.ask(address, "PUT", "/x", b"{}")
        await asyncio.wait_for(ended.wait(), 60)
        assert not client._idle


async def test_no_more_connections_are_kept_than_the_limit():
    async def talk(reader, writer, _nth):
        while True:
            await read_request(reader)
            writer.write(NO_CONTENT)
            await writer.drain()

    async with peer(talk) as address, _Client(idle_max=3) as client:
        await asyncio.gather(*(client.ask(address, "PUT", "/x", b"{}") for _ in range(20)))
        assert client._idle_count == 3


async def test_cookies_are_not_sent_back_and_bodies_are_asked_for_plain():
    heads = []

    async def talk(reader, writer, _nth):
        while True:
            heads.append((await read_request(reader))[0].lower())
            writer.write(answer(204, headers=b"set-cookie: a=b\r\n"))
            await writer.drain()

    async with peer(talk) as address, _Client() as client:
        await client.ask(address, "PUT", "/x", b"{}")
        await client.ask(address, "GET", "/x", None)
    assert len(heads) == 2
    for head in heads:
        assert b"cookie" not in head
        assert b"accept-encoding" not in head
        assert head.count(b"host: ") == 1


# --- redirections


@in_one_test("status", [307, 308])
@in_one_test("absolute", [True, False])
async def test_307_and_308_are_followed_with_method_and_body(status, absolute):
    asked = []

    async def talk(reader, writer, _nth):
        while True:
            head, body = await read_request(reader)
            asked.append((head.split(b" ")[0], target_of(head), body))
            where = f"http://{address}/moved?to=1" if absolute else "/moved?to=1"
            moved = answer(status, headers=f"location: {where}\r\n".encode())
            writer.write(NO_CONTENT if b"/moved" in head else moved)
            await writer.drain()

    async with peer(talk) as address, _Client() as client:
        assert await client.ask(address, "PUT", "/x", b"body") == Answer(204)
    assert asked == [(b"PUT", "/x", b"body"), (b"PUT", "/moved?to=1", b"body")]


@in_one_test(
    "said",
    [
        answer(307),
        answer(307, headers=b"location: https://example.test/\r\n"),
        answer(307, headers=b"location: ftp://example.test/\r\n"),
        answer(307, headers=b"location: http://user@127.0.0.1:1/\r\n"),
        answer(307, headers=b"location: http://[::1/\r\n"),
        answer(307, headers=b"location: http://127.0.0.1:99999/\r\n"),
        answer(307, headers=b"location: /with a space\r\n"),
        answer(307, headers="location: /ä\r\n".encode()),
        answer(301, headers=b"location: /moved\r\n"),
        answer(302, headers=b"location: /login\r\n"),
        answer(303, headers=b"location: /login\r\n"),
        answer(300, headers=b"location: /many\r\n"),
    ],
)
async def test_what_is_not_followed_is_the_answer(said):
    async with peer(says(said)) as address, _Client() as client:
        told = await client.ask(address, "PUT", "/x", b"{}")
    assert told.status == int(said[9:12])


async def test_a_circle_of_redirections_ends():
    asked = []

    async def talk(reader, writer, _nth):
        while True:
            asked.append(await read_request(reader))
            writer.write(answer(307, headers=b"location: /x\r\n"))
            await writer.drain()

    async with peer(talk) as address, _Client() as client:
        told = await client.ask(address, "PUT", "/x", b"{}")
    assert told == Failure(f"more than {HOPS_MAX} redirections")
    assert len(asked) == HOPS_MAX + 1


async def test_a_redirection_to_where_nobody_listens_is_told_with_its_address():
    async with peer(says(answer(307, headers=b"location: http://127.0.0.1:1/\r\n"))) as address, _Client() as client:
        told = await client.ask(address, "PUT", "/x", b"{}")
    assert told == Failure("cannot connect to 127.0.0.1:1: Connection refused", unreached=True)


async def test_a_name_that_nobody_knows_is_told_in_words(monkeypatch):
    async def unknown(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with _Client() as client:
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", unknown)
        told = await client.ask("nexus.invalid:12221", "PUT", "/x", b"{}")
    assert told == Failure("cannot connect to nexus.invalid:12221: Name or service not known", unreached=True)


# --- fuzz

_SAID = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.sampled_from([NO_CONTENT, answer(500, b"abc"), answer(404), b"0\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n"]),
    ),
    max_size=5,
)


@pytest.mark.early
@pytest.mark.nightly
@settings(max_examples=by_profile(25, nightly=600))
@given(rounds=st.lists(_SAID, min_size=1, max_size=4), seed=st.integers(0, 2**16))
def test_whatever_a_peer_says_each_request_is_written_once_and_ends_once(rounds, seed):
    """Each request is seen at most once, and none is taken for acknowledged which the peer did not see."""

    async def play():
        seen, writes = [], iter([*rounds, *[[]] * 20])

        async def talk(reader, writer, _nth):
            while True:
                head, _ = await read_request(reader)
                seen.append(target_of(head))
                for part in next(writes):
                    writer.write(part)
                    await asyncio.sleep(0)
                if seed % 3 == 0:
                    return

        async with peer(talk) as address, _Client(timeout_s=0.05) as client:
            for number in range(4):
                told = await client.ask(address, "PUT", f"/{number}", b"{}")
                assert isinstance(told, Answer | Failure)
                if isinstance(told, Answer):
                    assert f"/{number}" in seen
        assert len(seen) == len(set(seen))

    asyncio.run(play())


@pytest.mark.parametrize(
    "test",
    [
        test_a_late_answer_to_what_was_given_up_answers_nothing_else,
        test_a_connection_closed_while_idle_is_not_used_and_nothing_is_sent_twice,
        test_a_connection_is_used_again_when_nothing_is_left_to_come,
        test_a_half_closed_peer_has_answered,
        test_an_answer_before_the_request_has_left_is_none,
        test_the_time_is_for_the_whole_request_and_the_connection_ends_with_it,
        test_an_answer_whose_body_never_ends_costs_its_connection,
        test_no_more_connections_are_kept_than_the_limit,
        test_cookies_are_not_sent_back_and_bodies_are_asked_for_plain,
        test_a_circle_of_redirections_ends,
        test_a_redirection_to_where_nobody_listens_is_told_with_its_address,
    ],
    ids=lambda test: test.__name__,
)
def test_the_same_on_uvloop(test):
    """The daemon runs on it where it is installed, and its transports are others."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())
