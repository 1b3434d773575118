"""`nexus.external` against a public API that answers badly, slowly, or for others: by the public document of the API.

In one process, with the model behind a small public API; whole runs are in tests/e2e/test_external.py.
"""

import asyncio
import contextlib
import functools
import gzip
import json
import socket
import uuid

import pytest
import structlog
from support.nexus.public_api import TOKEN, PublicApi

from nexus_client.stub import contract as nx
from nexus_client.stub.config import Config
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.server.serve import NexusServer
from sim_sled.daemon import external as module
from sim_sled.daemon.external import External

LIMIT_S = 30
PROJECT = "lab"


@pytest.fixture
async def api():
    async with NexusServer("[::1]:0", config=Config()) as server, PublicApi(server) as public:
        public.projects[PROJECT] = server.nexus._ctx.named_id("project", PROJECT)
        yield public


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(module, "RETRY_MAX_S", 0.05)


@pytest.fixture
def said():
    with structlog.testing.capture_logs() as lines:
        yield lambda: " / ".join(line["event"] for line in lines)


@contextlib.asynccontextmanager
async def looking(url, token=TOKEN):
    one = External(url, token, Nexus(Config()), list, projects={PROJECT: None})
    running = asyncio.ensure_future(one.run())
    try:
        yield one
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def until(holds):
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.01)  # whatever is looked at is another task's


async def asked(one, make):
    """What the user is answered."""
    answer = asyncio.get_running_loop().create_future()
    one.ask(make, answer.set_result)
    return await asyncio.wait_for(answer, LIMIT_S)


def create(name):
    return lambda ticket: nx.CreateInstance(ticket, name, name, 2, 2**30, start=False, project=PROJECT)


def mirrored(one):
    return {row.name: one.mirror.public_state(row.id).value for row in one.mirror.instances()}


# ---- what users do -------------------------------------------------------------------------------------------------


async def test_start_reboot_stop_and_delete_are_one_request_each_and_their_answers_come_back(api, quick):
    async with looking(api.url) as one:
        assert (await asked(one, create("web"))).status == 201
        await until(lambda: mirrored(one) == {"web": "stopped"})
        [row] = one.mirror.instances()
        api.asked.clear()
        # no sled has room for it: the refusal comes back as the public API words it
        started = await asked(one, lambda ticket: nx.Start(ticket, row.id))
        assert (started.status, started.body.error_code) == (507, "InsufficientCapacity")
        rebooted = await asked(one, lambda ticket: nx.Reboot(ticket, row.id))
        assert (rebooted.status, rebooted.body.error_code) == (400, "InvalidRequest")
        assert (await asked(one, lambda ticket: nx.Stop(ticket, row.id))).status == 202
        assert (await asked(one, lambda ticket: nx.Delete(ticket, row.id))).status == 204
        at = f"/v1/instances/{row.id}"
        done = [(method, path) for method, path, _ in api.asked if method != "GET"]
        assert done == [("POST", f"{at}/start"), ("POST", f"{at}/reboot"), ("POST", f"{at}/stop"), ("DELETE", at)]
        await until(lambda: mirrored(one) == {})


@pytest.mark.parametrize("policy", ["never", None])
async def test_what_a_user_wants_of_automatic_restarts_is_asked_for(api, quick, policy):
    async with looking(api.url) as one:
        more = {"start": False, "project": PROJECT, "auto_restart_policy": policy}
        assert (await asked(one, lambda ticket: nx.CreateInstance(ticket, "web", "web", **more))).status == 201
    [body] = [body for method, _, body in api.asked if method == "POST"]
    assert body.get("auto_restart_policy") == policy


async def test_a_migration_is_no_operation_of_the_public_api(api, quick):
    async with looking(api.url) as one:
        answer = await asked(one, lambda ticket: nx.Migrate(ticket, uuid.uuid4(), uuid.uuid4()))
    assert answer.status == 400
    assert "no such operation" in answer.body.message


# ---- others are left alone -----------------------------------------------------------------------------------------


async def theirs(api, name="theirs", project="other"):
    reply = await api.server.host.submit(
        lambda ticket: nx.CreateInstance(ticket, name, name, start=False, project=project)
    )
    return uuid.UUID(str(reply.body["id"]))


@pytest.mark.parametrize("kind", [nx.Start, nx.Stop, nx.Reboot, nx.Delete])
async def test_an_instance_of_another_project_is_never_touched(kind, api, quick):
    foreign = await theirs(api)
    async with looking(api.url) as one:
        await until(lambda: api.asked)
        answer = await asked(one, lambda ticket: kind(ticket, foreign))
        assert answer.status == 400
        assert "left alone" in answer.body.message
    assert {method for method, _, _ in api.asked} == {"GET"}
    assert api.server.nexus.records.instances[foreign].time_deleted is None


async def test_an_api_that_forgets_the_project_and_lists_everybodys_makes_nobodys_ours(api, quick, said):
    foreign = await theirs(api)
    other = api.server.nexus.records.instances[foreign].project_id
    api.projects["other"] = other
    view = api._view(foreign)
    api.troubles["/v1/instances"] = [(200, {}, json.dumps({"items": [view], "next_page": None}))] * 10_000
    async with looking(api.url) as one:
        await until(lambda: "it lists those of another" in said())
        assert mirrored(one) == {}
        assert (await asked(one, lambda ticket: nx.Delete(ticket, foreign))).status == 400
    assert api.server.nexus.records.instances[foreign].time_deleted is None


# ---- answers that refuse -------------------------------------------------------------------------------------------


def error_body(code, message):
    return json.dumps({"request_id": str(uuid.uuid4()), "error_code": code, "message": message})


@pytest.mark.parametrize(
    ("status", "code", "message", "told"),
    [
        (401, "Unauthorized", "credentials missing or invalid", "does not know the token of `token_file` (401)"),
        (403, "Forbidden", "Forbidden", "allows this token's user not to do it (403): Forbidden"),
        (503, "ServiceNotAvailable", "Service Unavailable", "is in trouble (503); it is asked again"),
        (429, None, "slow down", "is asked too often (429)"),
        (400, "InvalidRequest", "unsupported version", "answers 400: unsupported version"),
    ],
)
async def test_a_refusal_is_a_sentence_said_once_and_the_next_look_may_be_good(
    status, code, message, told, api, quick, said
):
    api.troubles["/v1/instances"] = [(status, {"retry-after": "1"}, error_body(code, message))] * 3
    async with looking(api.url):
        await until(lambda: "the public API answers" in said().split(" / "))
    assert said().count(told) == 1, said()


async def test_whom_the_api_refuses_to_create_is_told_so(api, quick, said):
    async with looking(api.url, token="stale") as one:
        answer = await asked(one, create("web"))
    assert (answer.status, answer.body.error_code) == (401, "Unauthorized")
    assert "does not know the token" in said()
    assert TOKEN not in said()


# ---- answers that are none -----------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
PAGE = b'{"items": [], "next_page": null}'


async def silent(_reader, _writer):
    await asyncio.Event().wait()


async def head_only(_reader, writer):
    writer.write(HEAD[:20])
    await asyncio.Event().wait()


async def dribbling(_reader, writer):
    """A byte now and then: always something new, and never an end."""
    writer.write(HEAD + b"content-length: 100000\r\n\r\n")
    for _ in range(10_000):
        writer.write(b" ")
        await asyncio.sleep(0.02)


async def endless(_reader, writer):
    writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
        await writer.drain()


@functools.cache
def packed():
    """A few kilobytes that become many megabytes."""
    return gzip.compress(b" " * (8 * module.BODY_MAX), 1)


async def inflating(_reader, writer):
    writer.write(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed()) + packed())
    await writer.drain()


async def no_http(_reader, writer):
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    writer.close()


async def broken_off(_reader, writer):
    writer.write(HEAD + b"content-length: 100\r\n\r\n" + PAGE)
    writer.close()


async def hanging_up(_reader, writer):
    writer.close()


def saying(body, head=HEAD):
    async def answer(_reader, writer):
        writer.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        writer.close()

    return answer


NO_ANSWERS = {
    "silence": (silent, "no answer within"),
    "a head that does not end": (head_only, "no answer within"),
    "a body that dribbles": (dribbling, "no answer within"),
    "a body without end": (endless, "its answer is longer than"),
    "a body that inflates": (inflating, "its answer is longer than"),
    "no HTTP": (no_http, "cannot be asked"),
    "a body that breaks off": (broken_off, "cannot be asked"),
    "a connection that ends": (hanging_up, "cannot be asked"),
    "no JSON": (saying(b"<html>"), "not in its document"),
    "other JSON": (saying(b'{"items": 7}'), "not in its document"),
    "a list": (saying(b"[]"), "not in its document"),
    "deep JSON": (saying(b"[" * 100_000), "not in its document"),
    "bytes that are no text": (saying(b"\xff\xfe\x00"), "not in its document"),
    "nothing": (saying(b""), "not in its document"),
    "another place": (
        saying(b"", b"HTTP/1.1 302 Found\r\nlocation: http://[::1]:1/\r\n"),
        "answers 302",
    ),
}


@contextlib.asynccontextmanager
async def listening(answer):
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                await answer(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "::1", 0)
    try:
        yield f"http://[::1]:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("kind", NO_ANSWERS)
async def test_an_answer_that_is_none_is_a_sentence_and_users_see_no_answer(kind, quick, said, monkeypatch):
    answer, told = NO_ANSWERS[kind]
    if "longer" in told:
        monkeypatch.setattr(module, "TIMEOUT_S", float(LIMIT_S))  # its length ends it, not the time
    async with listening(answer) as url, looking(url) as one:
        await until(lambda: told in said())
        reply = await asked(one, create("web"))
        assert isinstance(reply, nx.Dropped) or reply.status >= 300
        assert mirrored(one) == {}
    assert TOKEN not in said()


async def test_a_connection_that_never_comes_about_is_a_sentence(quick, said):
    """A listener whose queue is full lets nobody in, and nobody know."""
    with socket.socket(socket.AF_INET6) as listener, contextlib.ExitStack() as stack:
        listener.bind(("::1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket(socket.AF_INET6))
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        async with looking(f"http://[::1]:{listener.getsockname()[1]}"):
            await until(lambda: "no answer within" in said())


async def test_pages_without_end_are_told(api, quick, said, monkeypatch):
    monkeypatch.setattr(module, "PAGES_MAX", 5)
    view = api._view(await theirs(api, "mine", PROJECT))
    api.troubles["/v1/instances"] = [(200, {}, json.dumps({"items": [view], "next_page": "again"}))] * 10_000
    async with looking(api.url):
        await until(lambda: "more than 5 pages" in said())


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "web"},
        {"run_state": 7},
        {"ncpus": "two"},
        {"project_id": None},
        {"name": None},
    ],
)
async def test_a_view_that_is_not_as_documented_changes_nothing(wrong, api, quick, said):
    view = api._view(await theirs(api, "mine", PROJECT)) | wrong
    api.troubles["/v1/instances"] = [(200, {}, json.dumps({"items": [view]}))] * 10_000
    async with looking(api.url) as one:
        await until(lambda: "not in its document" in said())
        assert mirrored(one) == {}


async def test_a_state_that_nobody_knows_yet_is_passed_over(api, quick):
    """A later Nexus may have more; the next look may show one that is known."""
    view = api._view(await theirs(api, "mine", PROJECT))
    pages = [json.dumps({"items": [view | {"run_state": state}]}) for state in ("hibernating", "running")]
    api.troubles["/v1/instances"] = [(200, {}, pages[0])] * 3 + [(200, {}, pages[1])] * 10_000
    async with looking(api.url) as one:
        await until(lambda: mirrored(one) == {"mine": "running"})
