"""The HTTP shell against the shapes of all versions: routes, request bodies, answers."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from ipaddress import IPv4Address, IPv6Address

import pytest
import support.wire.openapi_sled as documents
from conformance.drawn_values import each_of
from conformance.raw_http import RawClient
from hypothesis import strategies as st
from support.daemon.sled_http import NIC_V1, NIC_V10, RULE, VMM, put, register_body, serving
from support.rows import in_one_test
from support.wire.documents import FOLDER as OTHER_DOCUMENTS

from nexus_client.dropshot.json import Json
from sim_sled.core import contract
from sim_sled.core.errors import InvalidRequest
from sim_sled.http import bodies_small as small
from sim_sled.http.bodies_register import BODIES, to_registration
from sim_sled.http.operations import ROUTER

VMM_PATH = "/vmms/{propolis_id}"
BOUNDARIES = sorted({level for since in BODIES for level in (since - 1, since)} - {0} | {48})


# ---- routes --------------------------------------------------------------------------------------------------------


@in_one_test("level", documents.VERSIONS)
def test_the_route_table_is_the_document(level):
    """Same paths, methods and operation ids at each version; beyond it only what simulators have of their own."""
    ours = {(route.method, route.template): route.op for route in ROUTER.routes if route.since <= level < route.until}
    theirs = {key: operation["operationId"] for key, operation in documents.operations(level).items()}
    own = {("POST", f"{VMM_PATH}/{name}"): None for name in ("poke", "poke-single-step", "sim-migration-source")}
    assert ours == theirs | own


@in_one_test("level", documents.VERSIONS)
def test_parameters_and_bodies_are_those_of_the_document(level):
    for (method, path), operation in documents.operations(level).items():
        route, _ = ROUTER.find(method, re.sub(r"\{[^}]*\}", "x", path), level)
        parameters = operation.get("parameters", [])
        assert set(route.variables) == {row["name"] for row in parameters if row["in"] == "path"}
        assert set(route.query) == {row["name"] for row in parameters if row["in"] == "query" and row.get("required")}
        takes_json = "application/json" in operation.get("requestBody", {}).get("content", {})
        assert (route.body is not None) == takes_json, (method, path)


# ---- request bodies ------------------------------------------------------------------------------------------------

_U128 = st.integers(0, 2**128 - 1)


def _v4(draw):
    ip, width = IPv4Address(draw(st.integers(0, 2**32 - 1))), draw(st.integers(8, 26))
    net = IPv4Address(int(ip) >> (32 - width) << (32 - width))
    return {"ip": str(ip), "subnet": f"{net}/{width}"}


def _v6(draw):
    ip = draw(_U128)
    return {"ip": str(IPv6Address(ip)), "subnet": f"{IPv6Address(ip >> 64 << 64)}/64"}


_NET4 = st.builds(lambda n, w: f"{IPv4Address(n)}/{w}", st.integers(0, 2**32 - 1), st.integers(0, 32))
_NET6 = st.builds(lambda n, w: f"{IPv6Address(n)}/{w}", _U128, st.integers(0, 128))


@st.composite
def _private_v4(draw):
    return _v4(draw) | {"transit_ips": draw(st.lists(_NET4, max_size=2))}


@st.composite
def _private_v6(draw):
    return _v6(draw) | {"transit_ips": draw(st.lists(_NET6, max_size=2))}


@st.composite
def _old_nic(draw):
    is_v6 = draw(st.booleans())
    place = _v6(draw) if is_v6 else _v4(draw)
    transit = {"transit_ips": draw(st.lists(_NET6 if is_v6 else _NET4, max_size=2))}
    return NIC_V1 | place | draw(st.sampled_from([{}, transit]))


def _snat(address):
    def build(ip, block):
        return {"ip": ip, "first_port": block * 16384, "last_port": block * 16384 + 16383}

    return lambda: st.builds(build, address, st.integers(0, 3))


def _range(least, most):
    def text(first, last):
        return str(first) if last is None else f"{min(first, last)}-{max(first, last)}"

    ends = st.integers(least, most)
    return lambda: st.builds(text, ends, st.none() | ends)


_SOCKETS = st.builds(lambda ip, port: f"[{ip}]:{port}", st.ip_addresses(v=6), st.integers(0, 65535)) | st.builds(
    lambda ip, port: f"{ip}:{port}", st.ip_addresses(v=4), st.integers(0, 65535)
)
_REQUEST = json.dumps({"type": "url", "id": VMM, "block_size": 512, "url": "x"})
_IDS = st.uuids().map(str)
_LABEL = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9\-]{0,8}[a-zA-Z0-9])?", fullmatch=True)

SPECIAL = {
    "PrivateIpv4Config": _private_v4,
    "PrivateIpv6Config": _private_v6,
    "SourceNatConfig": _snat(st.ip_addresses(v=4).map(str)),
    "SourceNatConfigV4": _snat(st.ip_addresses(v=4).map(str)),
    "SourceNatConfigV6": _snat(st.ip_addresses(v=6).map(str)),
    "L4PortRange": _range(1, 65535),
    "IcmpParamRange": _range(0, 255),
    "Vni": lambda: st.integers(0, 2**24 - 1),
    "Generation": lambda: st.integers(0, 2**63 - 1),
    "Ipv4Net": lambda: _NET4,
    "Ipv6Net": lambda: _NET6,
    "Hostname": lambda: st.lists(_LABEL, min_size=1, max_size=3).map(".".join),
    "InstanceEnsureBody.propolis_addr": lambda: _SOCKETS,
    "InstanceMigrationTargetParams.src_propolis_addr": lambda: _SOCKETS,
    # one family (up to 10): all addresses like the source NAT's above
    "InstanceSledLocalConfig.ephemeral_ip": lambda: st.ip_addresses(v=4).map(str),
    "InstanceSledLocalConfig.floating_ips": lambda: st.lists(st.ip_addresses(v=4).map(str), max_size=3),
    "CrucibleStorageBackend.request_json": lambda: st.just(_REQUEST),
    "FileStorageBackend.path": lambda: st.just(f"/dev/zvol/rdsk/oxp_{VMM}/local_storage_unencrypted/{VMM}/vol"),
    "PciPath.device": lambda: st.integers(0, 31),  # DS 2; the document says only that it is a byte
    "PciPath.function": lambda: st.integers(0, 7),
    "ExternalIpGatewayMap.mappings": lambda: st.dictionaries(
        st.uuids().map(str),
        st.dictionaries(
            st.ip_addresses().map(str), st.lists(st.uuids().map(str), unique=True, max_size=2), max_size=2
        ),
        max_size=2,
    ),
}
"""Rules that the documents do not tell. A component's key is any text, but a Crucible disk's must be a UUID."""


def bodies(level, method, path):
    special = dict(SPECIAL)
    if level < 10:
        special["NetworkInterface"] = _old_nic
    for name in ("InstanceSpec", "InstanceSpecV0"):
        special[f"{name}.components"] = lambda: st.dictionaries(st.uuids().map(str), components, max_size=3)
    made = documents.Bodies(level, special)
    components = made.of({"$ref": "#/components/schemas/" + ("ComponentV0" if level < 29 else "Component")})
    return made.of(documents.body_schema(level, method, path))


def kind_at(level, method, path) -> Json:
    return ROUTER.find(method, re.sub(r"\{[^}]*\}", "x", path), level)[0].body


@pytest.mark.nightly
@in_one_test("level", BODIES)
def test_every_registration_of_the_document_is_taken(level):
    kind = kind_at(level, "PUT", VMM_PATH)

    def check(body):
        assert documents.faults(level, documents.body_schema(level, "PUT", VMM_PATH), body) == []
        registration = to_registration(kind.decode(json.dumps(body).encode()))
        assert str(registration.instance_id) == body["instance_id"]
        assert registration.ncpus == body["vmm_spec"]["board"]["cpus"]
        assert len(registration.nics) == len(body["local_config"]["nics"])

    each_of(f"bodies/vmm_register-{level}", lambda: bodies(level, "PUT", VMM_PATH), check, number=8)


_OTHER_BODIES = [
    ("PUT", VMM_PATH + "/state"),
    ("PUT", VMM_PATH + "/external-ip"),
    ("DELETE", VMM_PATH + "/external-ip"),
    ("PUT", VMM_PATH + "/multicast-group"),
    ("PUT", VMM_PATH + "/attached-subnets"),
    ("POST", VMM_PATH + "/attached-subnets"),
    ("POST", VMM_PATH + "/disks/{disk_id}/snapshot"),
    ("PUT", "/v2p"),
    ("DELETE", "/v2p"),
    ("PUT", "/vpc-routes"),
    ("PUT", "/vpc/{vpc_id}/firewall/rules"),
    ("PUT", "/eip-gateways"),
    ("PUT", "/probes"),
    ("PUT", "/sleds"),
]


@pytest.mark.nightly
@in_one_test(
    ("level", "method", "path"),
    [(level, *key) for level in (9, 18, 48) for key in _OTHER_BODIES if key in documents.operations(level)],
)
def test_every_other_body_of_the_document_is_taken(level, method, path):
    kind = kind_at(level, method, path)

    def check(body):
        assert documents.faults(level, documents.body_schema(level, method, path), body) == []
        decoded = kind.decode(json.dumps(body).encode())
        if isinstance(decoded, small.FirewallV1):
            decoded.check()

    name = f"bodies/{documents.operations(level)[method, path]['operationId']}-{level}"
    each_of(name, lambda: bodies(level, method, path), check, number=15)


_MUTATIONS = [
    ("instance_id", "x"),
    ("vmm_runtime.gen", -1),
    ("vmm_runtime.state", "creating"),
    ("local_config.nics.0.vni", "1"),
    ("local_config.nics.0.slot", 256),
    ("local_config.hostname", "a..b"),
    ("local_config.firewall_rules.0.priority", 65536),
    ("vmm_spec.board.memory_mb", "1"),
    ("vmm_spec.board.surprise", 1),
    ("vmm_spec.components.disk.component.serial_number", [0] * 19),
    ("vmm_spec.components.disk.type", "fpga"),
]


@in_one_test("level", BOUNDARIES)
def test_what_the_document_refuses_is_refused(level):
    """The test's own examples fit the document, and each spoilt one fits neither the document nor us."""
    schema = documents.body_schema(level, "PUT", VMM_PATH)
    kind = kind_at(level, "PUT", VMM_PATH)
    assert documents.faults(level, schema, register_body(level)) == []
    for path, value in _MUTATIONS:
        body = put(register_body(level), path, value)
        assert documents.faults(level, schema, body), path
        with pytest.raises(ValueError):
            kind.decode(json.dumps(body).encode())


@in_one_test("level", BOUNDARIES)
def test_we_and_the_document_agree_on_bodies_of_other_versions(level):
    """A body of each version, at each version: taken by both or by none."""
    schema = documents.body_schema(level, "PUT", VMM_PATH)
    kind = kind_at(level, "PUT", VMM_PATH)
    for other in BOUNDARIES:
        body = register_body(other)
        fits = not documents.faults(level, schema, body)
        try:
            taken = isinstance(to_registration(kind.decode(json.dumps(body).encode())), contract.Registration)
        except (ValueError, InvalidRequest):
            taken = False
        assert taken == fits, f"a body of {other} at {level}"


# ---- answers -------------------------------------------------------------------------------------------------------

ROUTER_ID = "ddda423c-6e54-4048-8356-d2690c6ffdcb"
MAPPING = {"virtual_ip": "10.0.0.1", "virtual_mac": "a8:40:25:f:0:1", "physical_host_ip": "fd00::1", "vni": 7}


def calls(level):
    """(method, template, path, body): every operation that is offered, in an order that makes each succeed."""
    nic = NIC_V1 if level < 10 else NIC_V10
    own = f"/vmms/{VMM}"
    ip = {"type": "ephemeral", "value": "203.0.113.77"}
    group = {"group_ip": "239.10.0.2", "sources": []}
    subnet = {"kind": "vpc", "subnet": "10.0.0.0/24"}
    probe = {"id": VMM, "external_ips": [], "interface": nic}
    routes = {"id": {"vni": 11382783, "kind": {"type": "system"}}, "routes": []}
    start = {
        "generation": 1, "schema_version": 1,
        "body": {"id": VMM, "rack_id": VMM, "is_lrtq_learner": False, "use_trust_quorum": True,
                 "subnet": {"net": "fd00:1122:3344:101::/64"}},
    }  # fmt: skip
    yield "PUT", VMM_PATH, own, register_body(level)
    yield "GET", VMM_PATH + "/state", own + "/state", None
    yield "PUT", VMM_PATH + "/state", own + "/state", {"state": {"type": "running"}}
    yield "PUT", VMM_PATH + "/external-ip", own + "/external-ip", ip
    yield "DELETE", VMM_PATH + "/external-ip", own + "/external-ip", ip
    yield "PUT", VMM_PATH + "/multicast-group", own + "/multicast-group", {"join": group}
    yield "DELETE", VMM_PATH + "/multicast-group", own + "/multicast-group", {"leave": group}
    yield "PUT", VMM_PATH + "/attached-subnets", own + "/attached-subnets", {"subnets": []}
    yield "POST", VMM_PATH + "/attached-subnets", own + "/attached-subnets", subnet
    yield "DELETE", VMM_PATH + "/attached-subnets/{subnet}", own + "/attached-subnets/10.0.0.0%2F24", None
    yield "DELETE", VMM_PATH + "/attached-subnets", own + "/attached-subnets", None
    yield "PUT", "/v2p", "/v2p", MAPPING
    yield "GET", "/v2p", "/v2p", None
    yield "DELETE", "/v2p", "/v2p", MAPPING
    yield "PUT", "/vpc-routes", "/vpc-routes", [routes | {"version": {"router_id": ROUTER_ID, "version": 1}}]
    yield "GET", "/vpc-routes", "/vpc-routes", None
    rule = RULE | {"targets": [nic]}
    yield "PUT", "/vpc/{vpc_id}/firewall/rules", f"/vpc/{VMM}/firewall/rules", {"vni": 11382783, "rules": [rule]}
    yield "PUT", "/eip-gateways", "/eip-gateways", {"mappings": {VMM: {"203.0.113.1": [VMM]}}}
    yield "PUT", "/probes", "/probes", {"probes": [probe]}
    sled = {"part_number": "1", "serial_number": "2"}
    yield "PUT", "/sleds", "/sleds", {"sled_id": sled, "start_request": start}
    yield "DELETE", VMM_PATH, own, None


def assert_fits(level, operation, got):
    answers, status = operation["responses"], str(got.status)
    answer = answers[status if status in answers else f"{status[0]}XX"]
    if "$ref" in answer:
        answer = documents.document(level)["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    if "content" not in answer:
        assert got.body == b""
        return
    assert documents.faults(level, answer["content"]["application/json"]["schema"], json.loads(got.body)) == []


DAILY = (6, 8, 9, 10, 16, 17, 28, 30, 31, 40, 43, 48)
"""Versions that have, together, every body and every answer that any version has of these operations."""


@pytest.mark.long
@pytest.mark.skipif(bool(OTHER_DOCUMENTS), reason="of these all are played each day")
def test_the_versions_of_each_day_have_every_body_and_every_answer():
    called = {template for level in documents.VERSIONS for _, template, _, _ in calls(level)}
    assert documents.said(DAILY, called.__contains__) == documents.said(documents.VERSIONS, called.__contains__)


@pytest.mark.parametrize("level", documents.played(DAILY))
async def test_answers_fit_the_document(level):
    """Success, a body that is no JSON, and an unknown VMM, of every operation offered at this version."""
    theirs = documents.operations(level)
    headers = {"api-version": f"{level}.0.0", "content-type": "application/json"}
    async with serving() as sled, aclosing(RawClient(f"[::1]:{sled.port}")) as client:

        async def ask(method, path, body):
            return await client.request(method, path, headers, None if body is None else json.dumps(body).encode())

        for method, template, path, body in calls(level):
            if (method, template) not in theirs:
                continue
            got = await ask(method, path, body)
            assert got.status in {200, 204}, (method, path, got)
            assert_fits(level, theirs[method, template], got)
            if body is not None:
                got = await client.request(method, path, headers, b"{")
                assert got.status == 400
                assert_fits(level, theirs[method, template], got)
        for method, template, path, body in calls(level):
            if (method, template) in theirs and template.startswith(VMM_PATH + "/"):
                got = await ask(method, path, body)
                assert got.status in {404, 500}
                assert_fits(level, theirs[method, template], got)
