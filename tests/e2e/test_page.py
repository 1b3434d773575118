"""The page as a listener serves it, without a browser: files for everybody, the rest by the rules of the API."""

import asyncio
import json
import re

import aiohttp
import pytest
from support.command import in_process

from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.daemon import control as control_module
from sim_sled.daemon import page_api
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.looking import Looking
from sim_sled.daemon.page import Feed
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.page.files import static


@pytest.fixture
async def served():
    """Serves a rack's control API: `(address, http)`; with a token if one is given."""
    ends = []
    logs.configure(level="error")

    async def serve(token=None):
        rack = SmallRack(sleds=2)
        await rack.start()
        ends.append(rack.stop)
        listener = await serve_control(Control(rack.daemon, token), SocketAddress("127.0.0.1", 0))
        ends.append(listener.close)
        http = aiohttp.ClientSession()
        ends.append(http.close)
        return f"http://{listener.address}", http

    yield serve
    for end in reversed(ends):
        await end()


async def test_every_file_has_its_type_its_policy_and_no_store_of_old_ones(served):
    url, http = await served()
    for name, text in static().items():
        async with http.get(f"{url}/page/{name}") as answer:
            assert answer.status == 200
            assert answer.content_type == {"html": "text/html", "css": "text/css", "js": "text/javascript",
                                           "svg": "image/svg+xml"}[name.rpartition(".")[2]]  # fmt: skip
            assert await answer.read() == text
            assert "script-src 'self'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/page", "/page/"])
async def test_the_page_is_there_with_and_without_a_slash_and_names_files_that_are_there(served, path):
    url, http = await served()
    async with http.get(url + path) as answer:
        text = await answer.text()
    named = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert len(named) == 3
    for each in named:
        async with http.get(url + each) as answer:
            assert answer.status == 200, each


@pytest.mark.parametrize("name", ["nothing.js", "..%2flooks.py", "looks.py", "main.js%00", "%C3%A4"])
async def test_what_is_no_file_of_the_page_is_not_found(served, name):
    url, http = await served()
    async with http.get(f"{url}/page/{name}") as answer:
        assert answer.status in (400, 404)


async def test_with_a_token_only_the_files_are_open(served):
    url, http = await served(token="secret")
    for path in ("/page", "/page/main.js", "/page/words.json"):
        async with http.get(url + path) as answer:
            assert answer.status == 200
    for path in ("/page/feed", "/vmms", "/vmms/v1/story", "/openapi.json"):
        async with http.get(url + path) as answer:
            assert answer.status == 401
    async with http.get(f"{url}/page/feed?once=1", headers={"authorization": "Bearer secret"}) as answer:
        assert answer.status == 200


async def test_the_feed_says_what_it_is_and_once_is_once(served):
    url, http = await served()
    async with http.get(f"{url}/page/feed?once=1") as answer:
        text = await answer.text()
        assert answer.content_type == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert [line for line in text.splitlines() if line.startswith("event")] == ["event: whole", "event: frame"]
    assert re.search(r"^id: [0-9a-f]+-\d+$", text, re.MULTILINE)


async def test_a_feed_goes_on_from_the_id_that_it_is_told(served):
    url, http = await served()
    async with http.get(f"{url}/page/feed?once=1") as answer:
        last = re.search(r"^id: (\S+)$", await answer.text(), re.MULTILINE)[1]
    async with http.get(f"{url}/page/feed?once=1", headers={"last-event-id": last}) as answer:
        assert "event: whole" not in await answer.text()


async def test_so_many_pages_and_no_more_and_one_that_is_closed_makes_room(served, monkeypatch):
    monkeypatch.setattr(control_module, "PAGES_MAX", 2)
    url, http = await served()
    first, second = [await http.get(f"{url}/page/feed") for _ in range(2)]
    async with http.get(f"{url}/page/feed") as answer:
        assert answer.status == 503
        assert "close one" in (await answer.json())["message"]
    first.close()
    async with asyncio.timeout(20):
        while True:
            async with http.get(f"{url}/page/feed?once=1") as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.02)  # nobody is told when the server has noticed it
    second.close()


async def test_a_page_that_does_not_read_is_let_go(served, monkeypatch):
    monkeypatch.setattr(page_api, "SLOW_S", 0.05)

    let_go = asyncio.Event()

    async def much(*_args, **_more):
        try:
            while True:
                yield b": " + b"x" * 1_000_000 + b"\n\n"
        finally:
            let_go.set()

    monkeypatch.setattr("sim_sled.daemon.page.Feed.messages", much)
    url, _ = await served()
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1000)
    writer.write(f"GET /page/feed HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n".encode())
    await reader.readline()
    async with asyncio.timeout(60):
        await let_go.wait()  # nothing is read meanwhile: the sockets' own buffers are full long before
        while await reader.read(2**20):
            pass
    writer.close()


def only_the_first(monkeypatch, messages):
    """The first page is told these messages, later ones what they are always told; there is room for one."""
    told, usual = [], Feed.messages

    def of(self, *args, **more):
        told.append(True)
        return messages() if len(told) == 1 else usual(self, *args, **more)

    monkeypatch.setattr(Feed, "messages", of)
    monkeypatch.setattr(control_module, "PAGES_MAX", 1)


async def until_there_is_room(http, url):
    async with asyncio.timeout(20):
        while True:
            async with http.get(f"{url}/page/feed?once=1") as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.01)


async def test_a_page_that_never_reads_again_gives_its_place_back(served, monkeypatch):
    monkeypatch.setattr(page_api, "SLOW_S", 0.05)

    async def much():
        while True:
            yield b": " + b"x" * 1_000_000 + b"\n\n"

    only_the_first(monkeypatch, much)
    url, http = await served()
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1000)
    writer.write(f"GET /page/feed HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n".encode())
    await reader.readline()
    await until_there_is_room(http, url)
    writer.close()


@pytest.mark.parametrize("path", ["/page/feed", "/events?follow=1"])
async def test_a_stream_whose_client_goes_ends_also_where_nothing_happens(served, monkeypatch, path):
    ended = asyncio.Event()

    async def quiet(*_args, **_more):
        yield b": here\n\n"
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def forever(*_args):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(Feed, "messages", quiet)
    monkeypatch.setattr(Looking, "change", forever)
    url, http = await served()
    answer = await http.get(url + path)
    await answer.content.readline()
    answer.close()
    async with asyncio.timeout(20):
        await ended.wait()


@pytest.mark.parametrize(("query", "headers"), [("?after=999999", {}), ("", {"last-event-id": "999999"})])
async def test_who_comes_back_with_a_number_of_an_earlier_daemon_hears_everything(served, query, headers):
    # it used to hear nothing until this daemon had counted so far
    url, http = await served()
    async with http.get(f"{url}/events") as answer:
        everything = await answer.text()
    async with http.get(f"{url}/events{query}", headers=headers) as answer:
        assert await answer.text() == everything
    assert everything.count("registered with Nexus, generation 1") == 2


async def command(*args):
    return await asyncio.to_thread(in_process, *args)


def recording_in(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="recording">(.*?)</script>', text, re.DOTALL)[1])


async def test_a_run_and_its_trace_make_the_same_page(tmp_path):
    trace, run, again = tmp_path / "run.trace", tmp_path / "run.html", tmp_path / "again.html"
    code, _, err = await command("run", "stuck-stop", "--seed", "7", "--trace", str(trace), "--page", str(run))
    assert code == 0, err
    code, out, err = await command("page", str(trace), "--out", str(again))
    assert (code, out) == (0, f"{again}\n"), err
    assert recording_in(run) == recording_in(again)
    code, out, _ = await command("page", str(trace))
    assert out == f"{tmp_path / 'run.html'}\n"


async def test_a_trace_that_is_played_differently_is_shown_as_it_was_recorded(tmp_path):
    trace, page = tmp_path / "run.trace", tmp_path / "run.html"
    await command("run", "stuck-stop", "--seed", "7", "--trace", str(trace))
    text = trace.read_text()
    trace.write_text(text.replace("starting -> running", "starting -> failed", 1))
    code, _, err = await command("page", str(trace))
    assert code == 0
    assert "plays it differently" in err
    told = recording_in(page)
    assert told["judged"] is False
    assert any(event[-1] == "starting -> failed" for event in told["events"])


@pytest.mark.parametrize("text", ["", "no trace\n", "# sim-sled trace 1\n# seed 1\n"])
async def test_what_is_no_trace_makes_no_page(tmp_path, text):
    trace = tmp_path / "bad.trace"
    trace.write_text(text)
    code, _, err = await command("page", str(trace))
    assert code == 2
    assert "trace" in err
    assert not (tmp_path / "bad.html").exists()


async def test_a_page_that_cannot_be_written_is_said_before_anything_is_played(tmp_path):
    code, out, err = await command("run", "stuck-stop", "--seed", "7", "--page", str(tmp_path / "no" / "run.html"))
    assert (code, out) == (2, "")
    assert "cannot write" in err


async def test_the_address_of_a_live_page_is_printed(served):
    url, _ = await served()
    code, out, _ = await command("page", "--at", url.removeprefix("http://"))
    assert (code, out) == (0, f"{url}/page\n")
