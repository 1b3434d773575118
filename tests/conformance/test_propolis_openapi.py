"""Every operation of the Propolis API in all five versions against its OpenAPI document.

Requests are generated from the document; every answer must fit it, and its status must be one that PR 4
documents. `test_every_documented_error_is_reached` goes through the errors one by one and prints the table.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.profile import by_profile
from support.propolis.arms import B, R, S, run
from support.propolis.wire import PROPERTIES, WireArm, WireNet, by_spec, make_spec
from support.rows import in_one_test
from support.wire import documents

from propolis_stub.server.app import ROUTES
from propolis_stub.waiting import Pace, Point

VERSIONS = ["1.0.0", "2.0.0", "3.0.0", "4.0.0", "5.0.0"]
UUID_1 = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
UNPUBLISHED = {("GET", "/instance/vnc")}
WEBSOCKETS = {"/instance/migrate/{migration_id}/start", "/instance/serial"}


def document(version: str) -> dict[str, Any]:
    return documents.load(f"propolis-server/{version}")


def operation(version: str, method: str, path: str) -> dict[str, Any]:
    return dict(document(version)["paths"][path][method.lower()])


def body_schema(version: str, method: str, path: str) -> dict[str, Any] | None:
    body = operation(version, method, path).get("requestBody")
    return None if body is None else dict(body["content"]["application/json"]["schema"])


def check_answer(version: str, method: str, path: str, status: int, body: Any) -> None:
    """The answer is one that the document and PR 4 have for the operation."""
    responses = operation(version, method, path)["responses"]
    if status < 300:
        content = responses[str(status)].get("content")
        if content is None:
            assert body is None
            return
        schema = content["application/json"]["schema"]
    else:
        assert status in DOCUMENTED[(method, path)] | {400}, (status, body)
        schema = {"$ref": "#/components/schemas/Error"}
    if schema.get("enum") == [None]:
        assert body is None
        return
    errors = documents.faults(f"propolis-server/{version}", schema, body)
    assert not errors, (status, body, errors)


DOCUMENTED: dict[tuple[str, str], set[int]] = {
    ("PUT", "/instance"): {400, 409, 500},
    ("GET", "/instance"): {424},
    ("GET", "/instance/spec"): {424},
    ("GET", "/instance/state-monitor"): {410, 424},
    ("PUT", "/instance/state"): {403, 424},
    ("GET", "/instance/migration-status"): {424},
    ("GET", "/instance/serial/history"): {400, 424},
    ("POST", "/instance/disk/{id}/snapshot/{snapshot_id}"): {400, 404, 424},
    ("GET", "/instance/disk/{id}/status"): {400, 404, 424},
    ("PUT", "/instance/disk/{id}/vcr"): {400, 403, 404, 410, 424},
    ("POST", "/instance/nmi"): {424},
    ("GET", "/instance/migrate/{migration_id}/start"): {400},
    ("GET", "/instance/serial"): {400},
}


@in_one_test("version", VERSIONS)
def test_the_routes_are_those_of_the_document(version: str) -> None:
    ours = {(method, path) for path, methods in ROUTES.items() for method in methods}
    theirs = {(method.upper(), path) for path, item in document(version)["paths"].items() for method in item}
    assert ours - UNPUBLISHED == theirs
    assert set(DOCUMENTED) == theirs


# --- requests out of the schema -------------------------------------------------------------------------------------


def requests_of(version: str, schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that fit `schema`; small, because what is looked at is the answer."""
    if "$ref" in schema:
        return requests_of(version, document(version)["components"]["schemas"][schema["$ref"].split("/")[-1]], depth)
    if schema.get("nullable"):
        return st.none() | requests_of(version, {**schema, "nullable": False}, depth)
    if "oneOf" in schema:
        return st.one_of([requests_of(version, item, depth + 1) for item in schema["oneOf"]])
    if "allOf" in schema:
        return requests_of(version, schema["allOf"][0], depth)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object":
            return _objects(version, schema, depth)
        case "array":
            low = schema.get("minItems", 0)
            return st.lists(
                requests_of(version, schema["items"], depth + 1),
                min_size=low,
                max_size=schema.get("maxItems", low + 2),
                unique=schema.get("uniqueItems", False),
            )
        case "boolean":
            return st.booleans()
        case "integer":
            top = {"uint8": 255, "uint32": 2**32 - 1, "uint64": 2**64 - 1}.get(schema.get("format", ""), 2**31)
            low = schema.get("minimum", 0)
            return st.sampled_from([low, low + 1, top]) | st.integers(low, min(top, 40))
        case "string":
            if schema.get("format") == "uuid":
                return st.uuids().map(str)
            return st.sampled_from(["[::1]:9", "127.0.0.1:9", "disk", "{}", "", "x"]) | st.text(max_size=8)
    raise AssertionError(f"no strategy for {schema}")


def _objects(version: str, schema: dict[str, Any], depth: int) -> st.SearchStrategy[Any]:
    required = set(schema.get("required", ()))
    fields = {name: requests_of(version, item, depth + 1) for name, item in schema.get("properties", {}).items()}
    fixed = st.fixed_dictionaries(
        {name: field for name, field in fields.items() if name in required},
        optional={name: field for name, field in fields.items() if name not in required},
    )
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        keys = st.sampled_from(["a", "b", "disk", UUID_1, UUID_1.upper()])
        return st.dictionaries(keys, requests_of(version, more, depth + 1), max_size=3)
    return fixed


def spoiled(value: Any, how: int) -> Any:
    """`value` with something wrong in it, maybe."""
    if isinstance(value, dict) and value:
        name = sorted(value)[how % len(value)]
        return [
            {key: item for key, item in value.items() if key != name},
            {**value, name: None},
            {**value, name: [{}]},
        ][how % 3]
    return [None, [], {}, -1, "nonsense"][how % 5]


PREPARED = ("no VM", "created", "running", "destroyed")


def long_between(version: str, *row: str) -> Any:
    """A row of a version between the first and the last, where it says what another says: for `make test-long`."""
    daily = version in {VERSIONS[0], VERSIONS[-1]} or documents.FOLDER
    return pytest.param(*row, marks=() if daily else pytest.mark.long)


async def prepare(vm: WireArm, state: str) -> None:
    if state != "no VM":
        await vm.ensure()
    if state in {"running", "destroyed"}:
        await vm.put(R)
    if state == "destroyed":
        await vm.put(S)


def send(version: str, state: str, method: str, path: str, body: Any) -> None:
    """One request in a fresh process that is in `state`; the answer must fit."""

    async def go() -> None:
        async with WireNet() as net:
            vm = await fresh(net, version)
            await prepare(vm, state)
            await sent(vm, method, path, body)

    asyncio.run(go())


async def sent(vm: WireArm, method: str, path: str, body: Any) -> None:
    url = path.replace("{id}", "disk").replace("{snapshot_id}", UUID_1).replace("{migration_id}", UUID_1)
    call = asyncio.ensure_future(vm.request(method, url, data=None if body is None else json.dumps(body).encode()))
    view = vm.until(lambda view: call.done() or view["monitors_waiting"] == 1)
    if path == "/instance/state-monitor":
        await view  # a generation that is never reached is no answer, and no fault
        if not call.done():
            call.cancel()
            return
    else:
        view.close()
    status, answer, headers = await call
    assert headers["x-request-id"]
    check_answer(vm.version, method, path, status, answer)


ALWAYS_THE_SAME = (
    ("PUT", "/instance/state"),
    ("GET", "/instance/state-monitor"),
    ("PUT", "/instance/disk/{id}/vcr"),
)
"""Operations whose body is the same in all versions."""
WITH_BODY = [
    *(long_between(version, version, *each) for each in ALWAYS_THE_SAME for version in VERSIONS),
    ("2.0.0", "PUT", "/instance"),
    *(long_between(version, version, "PUT", "/instance") for version in VERSIONS if version != "2.0.0"),
]


@in_one_test(
    ("versions", "method", "path"),
    [(VERSIONS[2:], "PUT", "/instance"), *((VERSIONS, *each) for each in ALWAYS_THE_SAME)],
)
def test_bodies_of_the_versions_between_are_those_of_others(versions: list[str], method: str, path: str) -> None:
    schema = body_schema(VERSIONS[-1], method, path)
    assert schema is not None
    assert documents.FOLDER or documents.agree([f"propolis-server/{version}" for version in versions], schema)


@pytest.mark.nightly
@pytest.mark.parametrize(("version", "method", "path"), WITH_BODY)
def test_generated_requests_get_answers_of_the_document(version: str, method: str, path: str) -> None:
    schema = body_schema(version, method, path)
    assert schema is not None

    @settings(max_examples=by_profile(6, nightly=60), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        state=st.sampled_from(PREPARED),
        body=requests_of(version, schema),
        spoil=st.none() | st.integers(0, 20),
    )
    def look(state: str, body: Any, spoil: int | None) -> None:
        send(version, state, method, path, body if spoil is None else spoiled(body, spoil))

    look()


@in_one_test("state", PREPARED)
@in_one_test("version", VERSIONS)
async def test_requests_without_a_body_get_answers_of_the_document(version: str, state: str) -> None:
    """None of them changes the state."""
    async with WireNet() as net:
        vm = await fresh(net, version)
        await prepare(vm, state)
        for method, path in DOCUMENTED:
            if body_schema(version, method, path) is None and path not in WEBSOCKETS:
                await sent(vm, method, path, None)


@in_one_test("version", VERSIONS)
def test_a_valid_ensure_is_valid_by_the_document_too(version: str) -> None:
    """The bodies of our own tests are not made up."""
    schema = body_schema(version, "PUT", "/instance")
    assert schema is not None
    assert documents.faults(f"propolis-server/{version}", schema, by_spec()) == []


@in_one_test("version", VERSIONS)
async def test_a_running_vms_answers_fit_the_document(version: str) -> None:
    async with WireNet() as net:
        vm = await net.arm()
        vm.version = version
        await run(vm)
        target = await vm.another()
        target.version = version
        await target.pace(Point.M_RAM_PUSH, Pace(None))  # later the source's guest is paused and its objects locked
        assert await target.ensure_target(vm) == "201"
        for arm in (vm, target):
            for path in ("/instance", "/instance/spec", "/instance/migration-status", "/instance/disk/disk/status"):
                status, body, _ = await arm.request("GET", path)
                assert status == 200
                check_answer(version, "GET", path.replace("disk/disk", "disk/{id}"), status, body)
            status, body, _ = await arm.request("GET", "/instance/state-monitor", {"gen": 0})
            check_answer(version, "GET", "/instance/state-monitor", status, body)


# --- every documented error -----------------------------------------------------------------------------------------


class Table:
    """Which documented error was seen how often."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, int, str]] = Counter()

    def note(self, what: str, answer: tuple[int, Any, Any]) -> None:
        status, body, _ = answer
        assert status >= 400, (what, status, body)
        code = body.get("error_code", "-").removeprefix("instance state change not allowed: ")
        self.seen[(what, status, code if len(code) < 60 else code[:57] + "...")] += 1

    def text(self) -> str:
        return "\n".join(
            f"{what:<48} {status} {code:<60} x{count}" for (what, status, code), count in sorted(self.seen.items())
        )


@pytest.mark.parametrize("version", [long_between(version, version) for version in VERSIONS])
async def test_every_documented_error_is_reached(version: str) -> None:
    table = Table()
    async with WireNet() as net:
        await reach_generic(table, await fresh(net, version))
        await reach_no_instance(table, await fresh(net, version))
        await reach_ensure(table, await fresh(net, version))
        await reach_denials(table, net, version)
        await reach_disks(table, await fresh(net, version))
        await reach_history(table, await fresh(net, version))
    print(f"\nPropolis API {version}: documented errors reached\n{table.text()}")
    reached = {(what, status) for what, status, _ in table.seen}
    expected = {
        (f"{method} {path}", status) for (method, path), statuses in DOCUMENTED.items() for status in statuses
    }
    assert expected - reached == set()
    codes = {code for what, _, code in table.seen if what == "PUT /instance/state"}
    assert codes >= {
        "Operation requires an active instance",
        "Instance is currently starting",
        "Operation cannot be performed on a migration source",
        "Instance is preparing to stop",
        "Instance has migrated out and is being torn down",
        "Instance has already halted",
        "Instance failed to start or halted due to a failure",
        "NoInstance",
    }


async def fresh(net: WireNet, version: str) -> WireArm:
    arm = await net.arm()
    arm.version = version
    return arm


async def reach_generic(table: Table, vm: WireArm) -> None:
    for bad in (None, "x", "99.0.0"):
        table.note("any (version header)", await vm.request("GET", "/instance", version=bad))
    table.note("any (unknown path)", await vm.request("GET", "/nowhere"))
    table.note("any (method)", await vm.request("PATCH", "/instance"))
    table.note("any (body)", await vm.request("PUT", "/instance/state", data=b"{"))
    table.note("any (body size)", await vm.request("PUT", "/instance/state", data=b" " * ((1 << 20) + 1)))
    for path in WEBSOCKETS:
        for change in ({"connection": "close"}, {"upgrade": "x"}, {"sec-websocket-version": "1"}):
            table.note(f"GET {path}", await half_upgrade(vm, path.replace("{migration_id}", UUID_1), change))
    table.note("GET /instance/migrate/{migration_id}/start", await vm.request("GET", "/instance/migrate/x/start"))
    table.note("GET /instance/serial", await vm.request("GET", "/instance/serial?from_start=x"))


async def half_upgrade(vm: WireArm, path: str, change: dict[str, str]) -> tuple[int, Any, Any]:
    headers = {
        "api-version": vm.version,
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        **change,
    }
    assert vm.net.session is not None
    async with vm.net.session.get(f"http://{vm.address}{path}", headers=headers) as answer:
        return answer.status, await answer.json(), answer.headers


async def reach_no_instance(table: Table, vm: WireArm) -> None:
    bodies: dict[str, Any] = {
        "/instance/state-monitor": {"gen": 0},
        "/instance/state": "Run",
        "/instance/disk/{id}/vcr": {"vcr_json": "{}"},
    }
    for (method, path), statuses in DOCUMENTED.items():
        if 424 in statuses:
            url = path.replace("{id}", "disk").replace("{snapshot_id}", UUID_1)
            query = "?from_start=0" if path.endswith("history") else ""
            table.note(f"{method} {path}", await vm.request(method, url + query, bodies.get(path)))


async def reach_ensure(table: Table, vm: WireArm) -> None:
    what = "PUT /instance"
    spec = make_spec()
    table.note(what, await vm.request("PUT", "/instance", {"properties": PROPERTIES}))
    del spec["components"]["disk-device"]
    table.note(what, await vm.request("PUT", "/instance", by_spec(spec)))
    await vm.pace(Point.CREATE, Pace(0, fail=True))
    table.note(what, await vm.request("PUT", "/instance", by_spec()))
    await vm.pace(Point.CREATE, Pace())
    await vm.ensure()
    table.note(what, await vm.request("PUT", "/instance", by_spec()))
    await vm.put(S)
    await vm.told("4 Destroyed")
    table.note("GET /instance/state-monitor", await vm.request("GET", "/instance/state-monitor", {"gen": 5}))


async def reach_denials(table: Table, net: WireNet, version: str) -> None:
    what = "PUT /instance/state"

    async def refused(vm: WireArm, kind: str) -> None:
        table.note(what, await vm.request("PUT", "/instance/state", kind))

    vm = await fresh(net, version)
    await vm.ensure()
    await refused(vm, "Reboot")  # InstanceNotActive
    await vm.pace(Point.BACKENDS, Pace(None))
    await vm.put(R)
    await refused(vm, "Reboot")  # StartInProgress
    await vm.hold()
    await vm.settle(fail=True)
    await refused(vm, "Run")  # InstanceFailed
    vm = await fresh(net, version)
    await run(vm)
    await vm.migrate_raw("rubbish")
    await refused(vm, "Reboot")  # InvalidForMigrationSource
    await vm.hold()
    await vm.put(S)
    await refused(vm, "Run")  # HaltPending
    await vm.step()
    await refused(vm, "Run")  # Halted
    vcr = await vm.request("PUT", "/instance/disk/disk/vcr", {"vcr_json": "{}"})
    table.note("PUT /instance/disk/{id}/vcr", vcr)
    vm = await fresh(net, version)
    await run(vm)
    await vm.pace(Point.HALT, Pace(None))
    await vm.migrate_to(await fresh(net, version))
    await vm.reached(Point.HALT)
    assert await vm.put(S) == "204"
    await refused(vm, B.value)  # MigratedOut


async def reach_disks(table: Table, vm: WireArm) -> None:
    await run(vm)
    calls: dict[str, tuple[str, str, Any]] = {
        "GET /instance/disk/{id}/status": ("GET", "status", None),
        "POST /instance/disk/{id}/snapshot/{snapshot_id}": ("POST", f"snapshot/{UUID_1}", None),
        "PUT /instance/disk/{id}/vcr": ("PUT", "vcr", {"vcr_json": "{"}),
    }
    await vm.control("PUT", "knobs", {"failing_disks": {"disk": "Crucible is unhappy"}})
    for what, (method, path, body) in calls.items():
        for disk in ("nope", "disk"):
            table.note(what, await vm.request(method, f"/instance/disk/{disk}/{path}", body))
    table.note(
        "POST /instance/disk/{id}/snapshot/{snapshot_id}", await vm.request("POST", "/instance/disk/disk/snapshot/x")
    )
    await vm.hold()
    late = asyncio.ensure_future(vm.request("PUT", "/instance/disk/disk/vcr", {"vcr_json": "{}"}))
    await vm.until(lambda view: view["reconfigures_waiting"] == 1)
    await vm.put(S)
    await vm.go()
    table.note("PUT /instance/disk/{id}/vcr", await late)


async def reach_history(table: Table, vm: WireArm) -> None:
    what = "GET /instance/serial/history"
    await run(vm)
    await vm.control("POST", "serial", {"text": "x" * 4096, "times": 600})
    for query in ("", "?from_start=1&most_recent=1", "?from_start=-1", f"?from_start={1 << 20}"):
        table.note(what, await vm.request("GET", f"/instance/serial/history{query}"))
