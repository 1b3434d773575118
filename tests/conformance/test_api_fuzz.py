"""Whatever fits or does not fit a version's document: no 5xx that SR does not name, no hang, no undocumented answer.

schemathesis makes the requests; a daemon of its own answers. The nightly profile draws them for all versions. Every
run sends those that are kept (`drawn_requests.py`), of the versions at which most changed, and of these for the
operations that the one before has not or has with another document.
"""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from copy import deepcopy

import pytest
import requests
import support.wire.openapi_sled as documents
from conformance import drawn_requests
from conformance.drawn_requests import Drawn
from conformance.raw_http import RawAnswer, RawClient
from conformance.test_api_answers import judge
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from support.daemon.running import running
from support.profile import NIGHTLY, by_profile
from support.rack.estate import POOLS
from support.wire.documents import FOLDER as OTHER_DOCUMENTS

from sim_sled.core.config import Hardware

LEVELS = list(documents.VERSIONS) if NIGHTLY else [1, 9, 22, 48]
EXAMPLES = by_profile(3, nightly=40)
"""Of each operation: the simplest request, and some that are drawn."""
ANSWER_S = 60.0

NAMED = {
    **dict.fromkeys(
        (
            "vmm_register",
            "vmm_put_external_ip",
            "vmm_delete_external_ip",
            "vmm_join_multicast_group",
            "vmm_leave_multicast_group",
            "vmm_put_attached_subnets",
            "vmm_post_attached_subnet",
            "vmm_delete_attached_subnet",
            "vmm_delete_attached_subnets",
        ),
        ("SA 2.12: an unknown VMM, another instance's", {500}),
    ),
    "vmm_issue_disk_snapshot_request": ("SR 4.3: a region is missing", {500}),
    "artifact_copy_from_depot": ("SR 4.2: the depot failed", {500}),
    "artifact_put": ("SR 4.2: no M.2 dataset", {503}),
    "read_network_bootstore_config_cache": ("SR 2.1: what was written has no words", {500}),
}
"""5xx that SR or SA name, by operation; those of a whole group are in `allowed`."""


UNMADE = {("DELETE", "/vmms/{propolis_id}/attached-subnets/{subnet}")}
"""What schemathesis cannot make: a path parameter that always has a slash in it. test_openapi_sled.py does."""


def allowed(op):
    if op.startswith("trust_quorum_"):
        return {500}  # SR 4.5: all failures
    if op.startswith("support_bundle_"):
        return {500}  # SR 4.1: another pool, not complete
    if op.startswith("local_storage_"):
        return {500, 503}  # SR 3.4
    return NAMED.get(op, ("", set()))[1]


@contextmanager
def serving():
    """A daemon on a loop of its own; gives its base URL."""
    ready: Future[str] = Future()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve():
        async with running(hardware=Hardware(zpools=POOLS)) as sled:
            ready.set_result(sled.base)
            await done.wait()

    def work():
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(serve())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ready.result(30)
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30)


def changed(level):
    """(method, path) of what this version has and the played one before it has not, or not so."""
    earlier = None if level == LEVELS[0] else LEVELS[LEVELS.index(level) - 1]
    before = {} if earlier is None else documents.operations(earlier)
    return {
        key
        for key, operation in documents.operations(level).items()
        if key not in before or documents.expanded(level, operation) != documents.expanded(earlier, before[key])
    }


def operations_of(level, played):
    import schemathesis  # a second, and every pytest worker collects this file

    own = deepcopy(documents.document(level))  # completed below; `changed` compares what was written
    document = {"openapi": "3.0.3", "info": {"title": "t", "version": f"{level}.0.0"}, **own}
    for method, path in documents.operations(level):
        responses = document["paths"][path][method.lower()]["responses"]
        for answer in responses.values():
            if "$ref" not in answer:
                answer.setdefault("description", "")
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        if (operation.method.upper(), operation.path) in played:
            yield operation


@pytest.mark.nightly
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.early
def test_no_answer_that_nobody_named(level, caplog):
    by_profile(send_kept, nightly=send_drawn)(level)
    assert drawn_requests.crashed(caplog.records) == []


def kept_as(level):
    return f"sled-agent-{level}"


def send_kept(level):
    if drawn_requests.UPDATE:
        drawn_requests.write(kept_as(level), send_drawn(level))
    there, wanted = documents.operations(level), changed(level) - UNMADE
    kept = [each for each in drawn_requests.read(kept_as(level)) if (each.method, each.path) in there]
    found = {(each.method, each.path) for each in kept}
    if OTHER_DOCUMENTS is None:
        assert found == wanted, "SIM_SLED_UPDATE=1 draws them"
    elif wanted - found:  # they may tell the same at another version, or in other words
        send_drawn(level, wanted - found)

    async def send():
        async with running(hardware=Hardware(zpools=POOLS)) as sled:
            async with aclosing(RawClient(sled.base.removeprefix("http://"), ANSWER_S)) as client:
                for each in kept:
                    check(level, each, await client.request(each.method, each.target, each.headers, each.body))
            assert (await sled.ask("GET", "/v2p")).status == 200

    asyncio.run(send())


def send_drawn(level, played=None):
    """Requests to these operations, by default all that the version changed. Gives what was sent."""
    sent, unmade = [], set()
    with serving() as base, requests.Session() as session:
        for operation in operations_of(level, changed(level) if played is None else played):
            key = operation.method.upper(), operation.path
            if key in UNMADE and not NIGHTLY:
                continue  # four seconds of draws, of which nothing is ever sent
            try:
                draw(level, operation, base, session, sent)
            except Unsatisfiable:
                unmade.add(key)
        assert unmade <= UNMADE
        assert session.get(f"{base}/v2p", headers={"api-version": "48.0.0"}, timeout=ANSWER_S).status_code == 200
    return sent


def draw(level, operation, base, session, sent):
    method, path = operation.method.upper(), operation.path

    @seed(level)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def send(case):
        made = case.as_transport_kwargs(base_url=base)
        headers = {**(made.get("headers") or {}), "api-version": f"{level}.0.0"}
        made = {key: value for key, value in made.items() if key in {"params", "data", "json", "cookies", "url"}}
        request = session.prepare_request(requests.Request(method, **made, headers=headers))
        got = session.send(request, timeout=ANSWER_S, allow_redirects=False)
        body = request.body.encode() if isinstance(request.body, str) else request.body
        sent.append(Drawn.sent(method, path, request.url, request.headers, body))
        headers = {key.lower(): value for key, value in got.headers.items()}
        check(level, sent[-1], RawAnswer(got.status_code, headers, got.content))

    send()


def check(level, sent, got):
    if got.status == 404 and (not got.body or json.loads(got.body).get("message") == "Not Found"):
        return  # a path parameter may be empty or have a separator in it: another path
    op, faults = judge(level, sent.method, sent.path, got)
    assert faults == [], (sent, got)
    assert got.status < 500 or got.status in allowed(op), (sent, got)
