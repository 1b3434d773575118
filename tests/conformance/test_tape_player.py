"""The tape player itself, against a scripted fake sled: what it sends, and that it sees every kind of fault."""

import asyncio
import base64
import contextlib
import hashlib
import json
import uuid

import aiohttp
import pytest
from conformance.raw_http import RawAnswer
from conformance.tape_match import equal, mismatches, subset
from conformance.tape_player import How, Tape, TapeError, load, play, play_file, tapes
from support.rows import in_one_test
from support.wire.documents import relax, validate_with

_VMM = "11111111-1111-4111-8111-111111111111"
_OTHER = "22222222-2222-4222-8222-222222222222"
_STATE = f"/vmms/{_VMM}/state"


@in_one_test(
    ("expected", "got", "is_subset", "is_equal"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, True, False, id="additional members"),
        pytest.param({"a": 1}, {"a": 1, "b": None}, True, True, id="an additional null is like none"),
        pytest.param({"a": None}, {}, True, True, id="an expected null may be missing"),
        pytest.param({}, {"a": None}, True, True, id="a null may be unexpected"),
        pytest.param({"a": None}, {"a": 0}, False, False, id="zero is not null"),
        pytest.param({"a": {"b": 1}}, {"a": None}, False, False, id="null is no object"),
        pytest.param([1, 2], [2, 1], True, True, id="order of arrays does not count"),
        pytest.param([1], [2, 1], True, False, id="additional elements"),
        pytest.param([1, 1], [1, 2], False, False, id="each element needs one of its own"),
        pytest.param([{}, {"a": 1}], [{"a": 1}, {"b": 1}], True, False, id="the greedy choice would be wrong"),
        pytest.param([], [], True, True, id="empty arrays"),
        pytest.param([], {}, False, False, id="an array is no object"),
        pytest.param({}, [], False, False, id="an object is no array"),
        pytest.param(True, 1, False, False, id="true is not 1"),
        pytest.param(1, True, False, False, id="1 is not true"),
        pytest.param(1, 1.0, True, True, id="1 is 1.0"),
        pytest.param("1", 1, False, False, id="a text is no number"),
        pytest.param(1, "1", False, False, id="a number is no text"),
        pytest.param({"a": [{"b": None}]}, {"a": [{}]}, True, True, id="nested"),
    ],
)
def test_fragments_are_compared_as_the_tapes_readme_says(expected, got, is_subset, is_equal):
    assert subset(expected, got) is is_subset
    assert equal(expected, got) is is_equal


def _json_answer(status, value, **headers):
    return RawAnswer(status, {"content-type": "application/json"} | headers, json.dumps(value).encode())


_GOOD = {"status": 404, "schema": "Error", "error_code": "GONE", "message": "gone away", "message_prefix": "gone"}
_GONE = {"request_id": "x", "error_code": "GONE", "message": "gone away"}


@in_one_test(
    ("expect", "answer", "fault"),
    [
        pytest.param(_GOOD, _json_answer(404, _GONE), None, id="everything fits"),
        pytest.param(_GOOD, _json_answer(400, _GONE), "status 400, expected 404", id="another status"),
        pytest.param(_GOOD, _json_answer(404, _GONE | {"error_code": "NO"}), "error_code 'NO'", id="another code"),
        pytest.param(_GOOD, _json_answer(404, _GONE | {"message": "gone"}), "message 'gone'", id="another message"),
        pytest.param(_GOOD, _json_answer(404, {"message": "gone away"}), "schema Error: ", id="not the schema"),
        pytest.param(_GOOD, RawAnswer(404, {}, json.dumps(_GONE).encode()), "content-type ''", id="no content type"),
        pytest.param(_GOOD, RawAnswer(404, {}, b"gone"), "not JSON", id="no JSON"),
        pytest.param(
            {"status": 404, "error_code": None}, _json_answer(404, _GONE), "error_code", id="code not absent"
        ),
        pytest.param(
            {"status": 404, "error_code": None}, _json_answer(404, {"error_code": None}), "absent", id="null code"
        ),
        pytest.param({"status": 204, "schema": None}, RawAnswer(204, {}, b""), None, id="no body"),
        pytest.param({"status": 204, "schema": None}, RawAnswer(204, {}, b"x"), "none belongs", id="a body too many"),
        pytest.param(
            {"status": 200, "json_subset": {"a": 1}}, _json_answer(200, {"a": 2}), "json_subset", id="subset"
        ),
        pytest.param({"status": 200, "json_equal": []}, _json_answer(200, [1]), "json_equal", id="equal"),
        pytest.param({"status": 200, "body_text": "a"}, RawAnswer(200, {}, b"b"), "body b'b'", id="text"),
        pytest.param({"status": 200, "body_base64": "YQ=="}, RawAnswer(200, {}, b"b"), "differs", id="bytes"),
        pytest.param({"status": 200, "headers": {"a": "1"}}, RawAnswer(200, {}, b""), "header a None", id="header"),
        pytest.param({"status": 200, "schema": "binary"}, RawAnswer(200, {}, b"\xff"), None, id="binary"),
        pytest.param(
            {"status": 200, "schema": "NoSuch"}, _json_answer(200, 1), "no such schema", id="unknown schema"
        ),
    ],
)
def test_a_fault_of_an_answer_is_found(expect, answer, fault):
    faults = mismatches(expect, answer, validate_with("sled-agent/48.0.0"))
    assert bool(faults) == (fault is not None), faults
    assert fault is None or fault in faults[0]


def test_schemas_are_relaxed_to_plain_json_schema():
    assert relax({"oneOf": [{"type": "string"}], "nullable": True, "x": {"nullable": False}}) == {
        "anyOf": [{"type": "null"}, {"anyOf": [{"type": "string"}], "x": {}}]
    }


class FakeSled:
    """Answers by script: `{(method, target): [answer, ...]}`, the last one for ever. An answer is (status, value).

    `{"notify": body}` among the answers of a target is PUT to Nexus before the next answer is given.
    """

    explicit = False
    capabilities = frozenset()

    def __init__(self, script, *, request_ids=None):
        self.script = {target: list(answers) for target, answers in script.items()}
        self.requests = []
        self.request_ids = request_ids
        self.stopped = False

    async def start(self, _sled, nexus):
        self.nexus = nexus
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return "127.0.0.1:%d" % self.listener.sockets[0].getsockname()[1]  # noqa: UP031 -- two quotes less

    def server(self, _server):
        return None

    async def stop(self):
        self.stopped = True
        self.listener.close()
        await self.listener.wait_closed()

    async def serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = first.split(" ")
                self.requests.append((method, target, headers, body))
                writer.write(await self.answer(method, target))
                await writer.drain()
        writer.close()

    async def answer(self, method, target):
        answers = self.script.get((method, target), [(404, {"message": "Not Found"})])
        while isinstance(answers[0], dict):
            body = answers.pop(0)["notify"]
            async with aiohttp.ClientSession() as session:
                url = f"http://{self.nexus}/vmms/{_VMM}"
                await (await session.put(url, json=body, headers={"api-version": "1.0.0"})).read()
        status, value = answers.pop(0) if len(answers) > 1 else answers[0]
        request_id = self.request_ids or str(uuid.uuid4())
        if status >= 400 and isinstance(value, dict):
            value = {"request_id": request_id, **value}
        raw = b"" if value is None else json.dumps(value).encode()
        kind = "content-type: application/json\r\n" if raw else ""
        return (
            f"HTTP/1.1 {status} X\r\nx-request-id: {request_id}\r\n{kind}content-length: {len(raw)}\r\n\r\n".encode()
            + raw
        )


def _tape(*exchanges, **head):
    base = {"op": None, "method": "GET", "path": "/", "headers": {}, "expect": {"status": 200}}
    return Tape(
        "made-up",
        {"tape": "made-up", "api_version": "48.0.0", "sled": {"id": _OTHER}} | head,
        tuple(enumerate((base | exchange for exchange in exchanges), 2)),
    )


def _runtime(state, gen, **migrations):
    return {"vmm_state": {"state": state, "gen": gen, "time_updated": "2024-06-01T00:00:00Z"}} | migrations


async def _play_one(script, *exchanges, **options):
    head = options.pop("head", {})
    sled = FakeSled(script, request_ids=options.pop("request_ids", None))
    for name in ("explicit", "capabilities"):
        if name in options:
            setattr(sled, name, options.pop(name))
    results = await play(_tape(*exchanges, **head), sled, **options)
    assert sled.stopped
    return sled, results


async def test_requests_go_out_exactly_as_written():
    path = "/vmms/../%41/a%2Fb;c"
    target = f"{path}?generation=3&text=a+b%2Fc&yes=true"
    sled, results = await _play_one(
        {("PUT", target): [(200, {})]},
        {
            "method": "PUT",
            "path": path,
            "query": {"generation": 3, "text": "${word}/c", "yes": True},
            "headers": {"api-version": "7.0.0", "content-type": None, "Accept": "x/y"},
            "body": {"long": "${blob}", "list": ["${word}"], "n": 1, "z": None, "ä": "ö"},
        },
        head={"blobs": {"blob": [["ab", 3], ["c", 1]], "word": [["a b", 1]]}},
    )
    assert [result.how for result in results] == [How.PASSED], results
    [(_, _, headers, body)] = sled.requests
    assert {name: headers.get(name) for name in ("api-version", "content-type", "accept")} == {
        "api-version": "7.0.0",
        "content-type": None,
        "accept": "x/y",
    }
    assert json.loads(body) == {"long": "abababc", "list": ["a b"], "n": 1, "z": None, "ä": "ö"}


@in_one_test(
    ("exchange", "body", "kind"),
    [
        pytest.param({"body": {}}, b"{}", "application/json", id="JSON"),
        pytest.param({"body": None}, b"null", "application/json", id="JSON null"),
        pytest.param({"body_text": "{"}, b"{", "application/json", id="text"),
        pytest.param({"body_base64": "/w=="}, b"\xff", None, id="bytes"),
        pytest.param(
            {"body_repeat": {"prefix": "<", "unit": "ab", "count": 3, "suffix": ">"}},
            b"<ababab>", "application/json", id="repeat",
        ),
        pytest.param({}, b"", None, id="no body"),
    ],
)  # fmt: skip
async def test_bodies_of_every_kind_are_sent(exchange, body, kind):
    sled, _ = await _play_one({("POST", "/x"): [(200, {})]}, {"method": "POST", "path": "/x"} | exchange)
    [(_, _, headers, sent)] = sled.requests
    assert (sent, headers.get("content-type")) == (body, kind)


async def test_without_any_word_on_headers_the_tapes_version_is_sent():
    tape = _tape({"path": "/x"})
    del tape.exchanges[0][1]["headers"]
    sled = FakeSled({("GET", "/x"): [(200, {})]})
    await play(tape, sled)
    assert sled.requests[0][2]["api-version"] == "48.0.0"


async def test_saved_values_are_put_into_later_requests():
    sled, results = await _play_one(
        {("GET", "/a"): [(200, {"ports": [{"x/y": 17}]})], ("GET", "/b/17"): [(200, {})]},
        {"path": "/a", "save": {"port": "/ports/0/x~1y"}},
        {"path": "/b/${port}"},
    )
    assert [result.how for result in results] == [How.PASSED, How.PASSED]
    assert sled.requests[1][1] == "/b/17"


async def test_an_unknown_variable_is_the_tapes_fault():
    with pytest.raises(TapeError, match="nobody knows"):
        await _play_one({}, {"path": "/${typo}"})


async def test_an_unknown_capability_is_the_tapes_fault():
    with pytest.raises(TapeError, match="needs"):
        await _play_one({}, {"needs": ["wings"]})


async def test_an_exchange_whose_needs_are_not_met_is_skipped():
    sled, [result] = await _play_one({}, {"needs": ["depot"]})
    assert (result.how, result.detail, sled.requests) == (How.SKIPPED, "needs depot", [])


async def test_a_server_that_the_sled_has_not_is_not_offered_and_its_ports_are_imagined():
    sled, [first, second] = await _play_one(
        {("GET", "/1"): [(200, {})]},
        {
            "op": "region",
            "server": {"kind": "crucible-agent", "dataset_id": _OTHER},
            "save": {"port": "/port_number"},
        },
        {"path": "/${port}"},
        not_offered={"region"},
    )
    assert (first.how, second.how) == (How.NOT_OFFERED, How.PASSED)
    assert len(sled.requests) == 1


async def test_a_server_that_the_sled_has_not_is_a_failure_where_nobody_named_its_operation():
    _, [result] = await _play_one({}, {"op": "attach", "server": {"kind": "crucible-pantry"}})
    assert (result.how, result.detail) == (How.FAILED, "no crucible-pantry")


@in_one_test(
    ("kind", "version", "value", "fault"),
    [
        pytest.param("crucible-pantry", None, {"volume_active": "yes"}, "schema VolumeStatus", id="pantry"),
        pytest.param("internal-dns", "2.0.0", {"generation": -1}, "schema DnsConfig", id="DNS"),
        pytest.param("repo-depot", "1.0.0", {"message": 1}, "schema Error", id="depot"),
        pytest.param("crucible-agent", None, [], "schema Region", id="Crucible agent"),
    ],
)
async def test_answers_of_other_servers_are_validated_by_their_own_documents(kind, version, value, fault):
    class WithServer(FakeSled):
        def server(self, _server):
            return "127.0.0.1:%d" % self.listener.sockets[0].getsockname()[1]  # noqa: UP031 -- two quotes less

    schema = fault.removeprefix("schema ")
    exchange = {"path": "/x", "server": {"kind": kind}, "expect": {"status": 200, "schema": schema}}
    if version:
        exchange["headers"] = {"api-version": version}
    [result] = await play(_tape(exchange), WithServer({("GET", "/x"): [(200, value)]}))
    assert result.how is How.FAILED
    assert fault in result.detail


@in_one_test(("wire", "how"), [(False, How.FAILED), (True, How.PASSED)])
async def test_what_is_as_on_the_wire_is_not_validated(wire, how):
    exchange = {"path": "/x", "expect": {"status": 200, "schema": "CoordinatorStatus"}, "wire": wire}
    _, [result] = await _play_one({("GET", "/x"): [(200, "as it is on the wire")]}, exchange)
    assert result.how is how, result


@in_one_test(
    ("value", "how"),
    [({"a": {"bytes": 1, "bundles": 2}}, How.PASSED), ({"a": {"bytes": 1}}, How.FAILED), ([], How.FAILED)],
)
async def test_map_of_a_schema_is_a_schema(value, how):
    exchange = {"path": "/x", "expect": {"status": 200, "schema": "map of CleanupCount"}}
    _, [result] = await _play_one({("GET", "/x"): [(200, value)]}, exchange)
    assert result.how is how, result


async def test_alternatives_count_and_are_told_apart():
    _, [result] = await _play_one(
        {("GET", "/x"): [(404, {"message": "m"})]},
        {"path": "/x", "expect_alt": [{"status": 410}, {"status": 404, "schema": "Error"}]},
    )
    assert result.how is How.ALTERNATIVE


_NOT_IMPLEMENTED = [(405, {"message": "Method not implemented in sled-agent-sim"})]


@in_one_test(
    ("answers", "not_offered", "how"),
    [
        pytest.param(_NOT_IMPLEMENTED, {"thing"}, How.NOT_OFFERED, id="named and not implemented"),
        pytest.param(_NOT_IMPLEMENTED, {"other"}, How.FAILED, id="not named"),
        pytest.param([(405, {"message": "Method Not Allowed"})], {"thing"}, How.FAILED, id="another 405"),
        pytest.param([(500, {"message": "x"})], {"thing"}, How.FAILED, id="another error"),
        pytest.param([(200, {})], {"thing"}, How.PASSED, id="offered after all"),
    ],
)
async def test_not_offered_is_only_the_documented_405_of_a_named_operation(answers, not_offered, how):
    _, [result] = await _play_one({("GET", "/x"): answers}, {"path": "/x", "op": "thing"}, not_offered=not_offered)
    assert result.how is how


@in_one_test(("exact", "how"), [(False, How.PASSED), (True, How.FAILED)])
async def test_sim_subset_counts_only_when_exact_emulation_is_asked_for(exact, how):
    exchange = {"path": "/x", "sim_subset": {"gen": 3}}
    _, [result] = await _play_one({("GET", "/x"): [(200, {"gen": 4})]}, exchange, exact=exact)
    assert result.how is how


_LOST = (404, {"message": "Not Found", "error_code": "NO_SUCH_INSTANCE"})
_GET = {"path": _STATE, "expect": {"status": 200}}


def _states(*answers):
    return {("GET", _STATE): list(answers)}


@in_one_test(
    ("script", "exchanges", "fault"),
    [
        pytest.param(
            _states((200, _runtime("running", 3)), (200, _runtime("running", 2))), [_GET, _GET], "fell from 3 to 2",
            id="a generation falls",
        ),
        pytest.param(
            _states((200, _runtime("running", 3)), (200, _runtime("stopping", 3))), [_GET, _GET], "generation 3 was",
            id="the same generation, other contents",
        ),
        pytest.param(
            _states({"notify": _runtime("running", 3)}, (200, _runtime("stopping", 3))), [_GET], "generation 3 was",
            id="notified otherwise than answered",
        ),
        pytest.param(
            _states(*({"notify": _runtime("running", gen)} for gen in (3, 2)), (200, _runtime("running", 3))),
            [_GET], "fell from 3 to 2 (notification)", id="a notified generation falls",
        ),
        pytest.param(
            _states((200, _runtime("failed", 3)), (200, _runtime("running", 4))), [_GET, _GET], "went on from failed",
            id="it lives on after its end",
        ),
        pytest.param(_states((200, _runtime("creating", 1))), [_GET], "state 'creating'", id="Nexus's own state"),
        pytest.param(
            _states((200, _runtime("running", 3)), (404, {"message": "Not Found"})),
            [_GET, _GET | {"expect": {"status": 404}}], "was forgotten", id="forgotten without a last word",
        ),
        pytest.param(
            {("DELETE", f"/vmms/{_VMM}"): [(200, {"updated_runtime": _runtime("failed", 4)})]}
            | _states({"notify": _runtime("failed", 4)}, (404, {"message": "Not Found"})),
            [{"method": "DELETE", "path": f"/vmms/{_VMM}"}, _GET | {"expect": {"status": 404}}],
            "because of its DELETE", id="published because of a DELETE",
        ),
        pytest.param(
            _states(
                (200, _runtime("running", 3, migration_in={"migration_id": _OTHER, "state": "completed", "gen": 3})),
                (200, _runtime("running", 4, migration_in={"migration_id": _OTHER, "state": "failed", "gen": 4})),
            ),
            [_GET, _GET], "went on from completed to failed", id="a finished migration changes",
        ),
    ],
)  # fmt: skip
async def test_what_must_hold_of_every_answer_is_watched(script, exchanges, fault):
    _, results = await _play_one(script, *exchanges)
    details = " ".join(result.detail for result in results)
    assert fault in details
    assert How.FAILED in {result.how for result in results}


async def test_what_was_on_its_way_when_the_delete_came_is_no_fault():
    _, results = await _play_one(
        {("DELETE", f"/vmms/{_VMM}"): [(200, {"updated_runtime": _runtime("failed", 4)})]}
        | _states({"notify": _runtime("running", 3)}, _LOST),
        {"method": "DELETE", "path": f"/vmms/{_VMM}"},
        *[_GET | {"expect": {"status": 404}}] * 2,
    )
    assert [result.how for result in results] == [How.PASSED] * 3, results


@in_one_test(
    ("request_id", "fault"),
    [pytest.param("7", "is no UUID", id="no UUID"), pytest.param(_OTHER, "came twice", id="the same twice")],
)
async def test_request_ids_are_watched(request_id, fault):
    _, results = await _play_one({("GET", "/x"): [(200, {})]}, {"path": "/x"}, {"path": "/x"}, request_ids=request_id)
    assert fault in results[1].detail


async def test_an_error_body_repeats_the_request_id():
    script = {("GET", "/x"): [(400, {"message": "m", "request_id": "other"})]}
    _, [result] = await _play_one(script, {"path": "/x", "expect": {"status": 400}})
    assert "request_id 'other' in the body" in result.detail


def _wait(state, within_s=5):
    return {"wait": {"until": {"vmm": _VMM, "state": state}, "within_s": within_s}}


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([(200, _runtime("starting", 2)), (200, _runtime("running", 3))], id="seen by GET"),
        pytest.param(
            [(200, _runtime("starting", 2)), {"notify": _runtime("running", 3)}, (200, _runtime("stopping", 4))],
            id="seen by notification, and passed by",
        ),
    ],
)
async def test_a_wait_ends_when_the_state_is_reached(answers):
    script = {("PUT", _STATE): [(200, {"updated_runtime": _runtime("starting", 2)})]} | _states(*answers)
    _, [result] = await _play_one(script, {"method": "PUT", "path": _STATE} | _wait("running"))
    assert result.how is How.PASSED, result


@pytest.mark.parametrize(
    ("more", "how"),
    [
        pytest.param(_wait("gone", 0.1) | {"expect_alt": [{"status": 410}]}, How.FAILED, id="by the exchange"),
        pytest.param({"expect_alt": [{"status": 410} | _wait("gone", 0.1)]}, How.FAILED, id="by the answer itself"),
        pytest.param(
            _wait("gone", 0.1) | {"expect_alt": [{"status": 410, "wait": None}]},
            How.ALTERNATIVE,
            id="not by this answer",
        ),
    ],
)
async def test_what_an_alternative_answer_says_is_waited_for_too(more, how):
    script = {("PUT", _STATE): [(410, {"message": "m"})]} | _states((200, _runtime("stopping", 4)))
    _, [result] = await _play_one(script, {"method": "PUT", "path": _STATE} | more)
    assert result.how is how
    assert ("waited 0.1 s" in result.detail) == (how is How.FAILED)


async def test_a_state_from_before_the_request_does_not_end_a_wait():
    script = {
        ("PUT", _STATE): [{"notify": _runtime("running", 3)}, (200, {"updated_runtime": _runtime("rebooting", 4)})],
    } | _states((200, _runtime("rebooting", 4)))
    _, [result] = await _play_one(script, {"method": "PUT", "path": _STATE} | _wait("running", 0.1))
    assert result.how is How.FAILED
    assert "waited 0.1 s" in result.detail


@pytest.mark.parametrize(
    ("answers", "how"),
    [
        pytest.param([{"notify": _runtime("destroyed", 5)}, _LOST], How.PASSED, id="acknowledged and forgotten"),
        pytest.param([_LOST], How.FAILED, id="forgotten without a word"),
        pytest.param([{"notify": _runtime("destroyed", 5)}, (200, _runtime("destroyed", 5))], How.FAILED, id="kept"),
        pytest.param([{"notify": _runtime("failed", 5)}, _LOST], How.FAILED, id="failed, not destroyed"),
    ],
)
async def test_gone_means_destroyed_acknowledged_and_forgotten(answers, how):
    script = {("PUT", _STATE): [(200, {"updated_runtime": _runtime("stopping", 4)})]} | _states(*answers)
    _, results = await _play_one(script, {"method": "PUT", "path": _STATE} | _wait("gone", 0.3))
    assert results[0].how is how


async def test_an_explicit_sled_is_poked_instead_of_waited_for():
    script = {("PUT", _STATE): [(200, {})], ("POST", f"/vmms/{_VMM}/poke"): [(200, None)]} | _states(
        (200, _runtime("starting", 2)), (200, _runtime("starting", 2)), (200, _runtime("running", 3))
    )
    sled, [result] = await _play_one(script, {"method": "PUT", "path": _STATE} | _wait("running"), explicit=True)
    assert result.how is How.PASSED
    assert [target for _, target, _, _ in sled.requests].count(f"/vmms/{_VMM}/poke") == 2


async def test_artifacts_are_waited_for_and_the_depot_serves_them():
    content = b"artifact"
    name = hashlib.sha256(content).hexdigest()

    class Fetching(FakeSled):
        capabilities = frozenset({"depot"})

        async def answer(self, method, target):
            if method == "POST":
                depot = json.loads(self.requests[-1][3])["depot_base_url"]
                async with aiohttp.ClientSession() as session, session.get(f"{depot}/artifact/sha256/{name}") as got:
                    self.script["GET", "/artifacts"] = [(200, {"list": {}}), (200, {"list": {name: 2}})]
                    assert await got.read() == content
            return await super().answer(method, target)

    exchange = {
        "method": "POST",
        "path": "/copy",
        "body": {"depot_base_url": "${depot_url}"},
        "needs": ["depot"],
        "expect": {"status": 202},
        "wait": {"until": {"artifact": name}, "within_s": 5},
    }
    depot = {name: base64.b64encode(content).decode()}
    [result] = await play(_tape(exchange, depot=depot), Fetching({("POST", "/copy"): [(202, {})]}))
    assert result.how is How.PASSED, result


async def test_a_depot_may_serve_on_purpose_what_is_not_what_its_name_says():
    name = hashlib.sha256(b"something else").hexdigest()
    got = []

    class Fetching(FakeSled):
        capabilities = frozenset({"depot"})

        async def answer(self, method, target):
            depot = json.loads(self.requests[-1][3])["depot_base_url"]
            async with aiohttp.ClientSession() as session, session.get(f"{depot}/artifact/sha256/{name}") as answer:
                got.append(await answer.read())
            return await super().answer(method, target)

    exchange = {
        "method": "POST",
        "path": "/copy",
        "body": {"depot_base_url": "${depot_url}"},
        "expect": {"status": 502},
    }
    depot = {name: base64.b64encode(b"wrong").decode()}
    [result] = await play(_tape(exchange, depot=depot), Fetching({("POST", "/copy"): [(502, {"message": "m"})]}))
    assert (result.how, got) == (How.PASSED, [b"wrong"]), result


def test_every_tape_of_the_folder_can_be_read():
    read = [load(path) for path in tapes()]
    assert read
    assert all(tape.exchanges for tape in read)


@in_one_test(
    ("text", "said"),
    [
        pytest.param("", "not enough values", id="empty"),
        pytest.param("{", "JSONDecodeError", id="no JSON"),
        pytest.param(
            '{"tape": "t", "api_version": "48.0.0", "sled": {}}\n{"method": "GET"}', "KeyError", id="no path"
        ),
        pytest.param(
            '{"tape": "t", "api_version": "48.0.0", "sled": {}}\n{"method": "GET", "path": "/${typo}", "expect": {}}',
            "nobody knows ${typo}",
            id="an unknown variable",
        ),
    ],
)
async def test_a_broken_tape_is_one_failed_line(tmp_path, text, said):
    path = tmp_path / "broken.jsonl"
    path.write_text(text)
    [result] = await play_file(path, FakeSled({}))
    assert (result.tape, result.how) == ("broken", How.FAILED)
    assert said in result.detail
