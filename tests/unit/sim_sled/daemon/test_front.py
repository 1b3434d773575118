"""What the front of a rack of workers passes on to them."""

import asyncio
import json
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web
from support.rows import in_one_test

from nexus_client.dropshot.listen import Server, listen
from nexus_client.dropshot.text import SocketAddress
from sim_sled.daemon.front import Front, Said
from sim_sled.daemon.pulse import SILENT_S
from sim_sled.daemon.worker import Ready, Spec
from sim_sled.daemon.workers import Worker, Workers


@in_one_test(
    ("target", "arrives"),
    [
        ("/version", "/version"),
        ("http://elsewhere/version?a=%2F", "/version?a=%2F"),
        ("/vmms/%2e%2e/log", "/vmms/%2e%2e/log"),
        ("/vmms/%2E%2E/expect?state=running&within_ms=0", "/vmms/%2E%2E/expect?state=running&within_ms=0"),
        ("/vmms/a%2Fb/log", "/vmms/a%2Fb/log"),
        ("/vmms/expect", "/vmms/expect"),
    ],
)
async def test_a_worker_is_asked_for_what_the_front_was_asked_for(target, arrives):
    """A client that tidies a path up asked for another one, and the front could not read the answer."""
    asked = []

    async def worker(request):
        asked.append(request.raw_path)
        return web.json_response({"instance_id": "i", "registered_at": "now", "met": True})

    there = await listen(Server(worker), SocketAddress("127.0.0.1", 0))
    spec = Spec("rack", 1, 1, 1, "", None, 0, "instant", "token")
    front = Front(Workers([]))
    front._workers.all.append(Worker(spec, ready=Ready(there.address, [])))
    address = SocketAddress.parse(await front.serve(SocketAddress("127.0.0.1", 0)))
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 60)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert asked[-1] == arrives
    finally:
        writer.close()
        await front.close()
        await there.close()


@pytest.mark.parametrize(
    ("second", "status", "message"),
    [
        ("takes them", 200, ""),
        ("is on its way up", 200, ""),
        (
            "does not answer",
            503,
            "sled-3 to sled-4 have not taken the rules",
        ),
    ],
)
async def test_rules_that_a_worker_has_not_taken_are_no_success(second, status, message):
    async def worker(request):
        return web.json_response({"rules": 0})

    async def ends(request):
        request.transport.abort()
        return web.Response()

    there = await listen(Server(worker), SocketAddress("127.0.0.1", 0))
    gone = await listen(Server(ends), SocketAddress("127.0.0.1", 0))
    ready = {"takes them": there.address, "does not answer": gone.address}.get(second)
    workers = Workers([Spec("rack", 4, first, 2, "", None, 0, "instant", "token") for first in (1, 3)])
    workers.all[0].ready = Ready(there.address, [])
    workers.all[1].ready = None if ready is None else Ready(ready, [])
    front = Front(workers)
    control = await front.serve(SocketAddress("127.0.0.1", 0))
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.put(f"http://{control}/rules", json={"scenario": "version: 1"}) as answer,
        ):
            said = await answer.json()
        assert (answer.status, said.get("message", "").startswith(message)) == (status, True)
    finally:
        await front.close()
        await there.close()
        await gone.close()


@in_one_test(
    ("who", "seen", "meant"),
    [
        pytest.param("WEB", [("a", "1", "gone"), ("b", "2", "there")], 1, id="another instance has the name now"),
        pytest.param("web", [("b", "2", "there"), ("a", "3", "gone")], 0, id="whoever ended later"),
        pytest.param("web", [("a", "2", "gone"), ("b", "1", "gone")], 0, id="nobody is there: who ended last"),
        pytest.param("web", [("a", "1", "there"), ("b", "2", "there")], None, id="two are there"),
        pytest.param("dead", [("a", "1", "gone"), ("b", "2", "there")], None, id="the beginning of two ids"),
        pytest.param("dead", [("a", "1", "gone"), ("a", "2", "there")], 1, id="an instance, here and there"),
    ],
)
async def test_whom_several_workers_know_is_meant_as_in_one_process(monkeypatch, who, seen, meant):
    workers = Workers([Spec("rack", 2, first, 1, "", None, 0, "instant", "token") for first in (1, 2)])
    front = Front(workers)

    async def ask(worker, _, path=None):
        number = workers.all.index(worker)
        if path is None:
            return Said(200, "text/plain", str(number).encode())
        instance, time, state = seen[number]
        known = {
            "instance_id": instance,
            "hostname": "web",
            "since": time,
            "registered_at": time,
            "propolis_id": time,
        }
        return Said(200, "application/json", json.dumps(known | {"gone": state == "gone"}).encode())

    monkeypatch.setattr(front, "ask", ask)
    said = await front._owner(SimpleNamespace(text=lambda _: who, values={}))
    assert (said.status, said.body) == (200, str(meant).encode()) if meant is not None else said.status == 409


@pytest.mark.parametrize("ready", [Ready("127.0.0.1:1", []), None], ids=["hangs", "is on its way up"])
async def test_while_a_worker_cannot_be_asked_the_feed_of_the_page_says_so(ready):
    """It was an empty one, and a success."""
    workers = Workers([Spec("rack", 1, 1, 1, "", None, 0, "instant", "token")])
    workers.all[0].ready, workers.all[0].pulse.silent_s = ready, SILENT_S
    front = Front(workers)
    control = await front.serve(SocketAddress("127.0.0.1", 0))
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://{control}/page/feed?once=1") as answer:
            said = await answer.json()
        assert (answer.status, said["message"].split(":")[0]) == (503, "sled-1 cannot be asked")
    finally:
        await front.close()
