"""Every operation of the Sled Agent API x every version x the answers it has, against the documents, over a socket.

The calls of `session` are made at each version, in an order that brings each operation to its success and to the
refusals that SR names. What came back is validated, and what was shown is printed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from contextlib import aclosing, asynccontextmanager
from functools import cache
from uuid import UUID

import pytest
import support.wire.openapi_sled as documents
from conformance.raw_http import RawClient
from support.daemon.running import SLED, Reply, running
from support.daemon.sled_http import NIC_V10, register_body
from support.rack.estate import POOLS, an_id, config, dataset, zone
from support.rows import in_one_test
from support.wire.documents import FOLDER as OTHER_DOCUMENTS

from sim_sled.core.config import Hardware
from sim_sled.core.errors import Internal
from sim_sled.http.bodies_omicron import older

WIRE_WINS = {
    ("trust_quorum_coordinator_status", "null"): "nothing is coordinated: null, which the documents do not have",
    ("trust_quorum_network_config_get", "null"): "nothing was written: null, as above",
    ("trust_quorum_coordinator_status", "pairs"): "members are pairs, the documents say objects",
}
"""Answers that differ from the documents because the original's do (SR 4.5), by name."""

HEADERLESS = {"bad range": "an empty answer without content type (SR 4.1)"}

VMM, DISK, SNAPSHOT = an_id(0x1), an_id(0x51), an_id(0x52)
BUNDLE = an_id(0xB1)
DATA = b"an artifact"
SHA = hashlib.sha256(DATA).hexdigest()
OTHER_SHA = hashlib.sha256(b"another").hexdigest()
RACK = an_id(0xAC)
POOL = str(POOLS[0].id)


class Agents:
    """The Crucible agents; `fail` once they shall."""

    fail = False

    def snapshot(self, targets, snapshot_id, now_us):
        if self.fail:
            raise Internal("no region")


def omicron(generation, level):
    nic = dict(NIC_V10)
    rows = [
        dataset(1, "debug"),
        dataset(2, "zone", on=2),
        dataset(3, "local_storage_unencrypted"),
        dataset(4, "local_storage"),
        dataset(5, "crucible"),
    ]
    nexus = zone(3)
    nexus["zone_type"] = {
        "type": "nexus",
        "internal_address": "[fd00::1]:12221",
        "external_ip": "198.51.100.7",
        "nic": nic,
        "external_tls": False,
        "external_dns_servers": ["1.1.1.1"],
        "lockstep_port": 12232,
    }
    zones = [zone(1, "crucible"), zone(2), nexus]
    return older(config(generation, datasets=rows, zones=zones).wire, level)


def network(generation, level):
    address = {"type": "static", "ip_net": "198.51.100.225/29"} if level >= 30 else "198.51.100.225/29"
    peer = {"asn": 64512, "port": "qsfp0"}
    if level >= 47:
        peer["addr"] = {"type": "numbered", "target_addr": "198.51.100.230"}
    elif level >= 30:
        peer["addr"] = {"type": "numbered", "ip": "198.51.100.230"}
    else:
        peer["addr"] = "198.51.100.230"
    port = {
        "routes": [],
        "addresses": [{"address": address}],
        "switch": "switch0",
        "port": "qsfp0",
        "uplink_port_speed": "speed100_g",
        "bgp_peers": [peer],
    }
    rack = {
        "rack_subnet": "fd00::/56",
        "infra_ip_first": "198.51.100.225",
        "infra_ip_last": "198.51.100.230",
        "ports": [port],
        "bgp": [],
    }
    body = {"rack_network_config": rack}
    if level < 26:
        body["ntp_servers"] = []
    return {"generation": generation, "body": body} | ({"schema_version": 2} if level < 25 else {})


def with_crucible_disk(level):
    """A registration whose disk is Crucible's."""
    body = register_body(level)
    opts = {"id": DISK, "target": ["[::1]:1"], "lossy": False, "read_only": False}
    region = {
        "type": "region",
        "block_size": 512,
        "blocks_per_extent": 1,
        "extent_count": 1,
        "opts": opts,
        "gen": 1,
    }
    request = {"type": "volume", "id": DISK, "block_size": 512, "sub_volumes": [region], "read_only_parent": None}
    component = {"request_json": json.dumps(request), "readonly": False}
    body["vmm_spec"]["components"][DISK] = {"type": "crucible_storage_backend", "component": component}
    return body


def session(level, agents):
    """(method, path, JSON body or bytes or None, headers, expected status). Bodies as at `level`."""
    no = {}
    # --- before anything was written
    yield "GET", "/inventory", None, no, 200
    yield "GET", "/artifacts", None, no, 400
    yield "GET", "/artifacts-config", None, no, 404
    yield "PUT", f"/artifacts/{SHA}?generation=1", DATA, no, 400
    yield "GET", "/bootstore/status", None, no, 200
    yield "GET", f"/support-bundles/{POOL}/{an_id(0xA01)}", None, no, 404
    # --- configuration
    yield "PUT", "/omicron-config", omicron(5, level), no, 204
    yield "PUT", "/omicron-config", omicron(4, level), no, 400
    yield "GET", "/inventory", None, no, 200
    yield "GET", "/zones", None, no, 200
    yield "GET", "/sled-identifiers", None, no, 200
    if level <= 7:
        yield "GET", "/sled-role", None, no, 200
    switch = "/chicken-switch/destroy-orphaned-datasets"
    if level == 1:
        yield "GET", switch, None, no, 200
    if level <= 2:
        yield "PUT", switch, {"destroy_orphans": True}, no, 204
        yield "PUT", switch, {"destroy_orphans": False}, no, 400
    if level >= 3:
        yield "GET", "/debug/switch-zone-policy", None, no, 200
        yield "PUT", "/debug/switch-zone-policy", {"policy": "stop_despite_switch_presence"}, no, 204
    # --- artifacts
    yield "PUT", "/artifacts-config", {"generation": 2, "artifacts": [SHA]}, no, 204
    yield "PUT", "/artifacts-config", {"generation": 1, "artifacts": []}, no, 409
    yield "GET", "/artifacts-config", None, no, 200
    yield "PUT", f"/artifacts/{SHA}?generation=2", DATA, no, 200
    yield "PUT", f"/artifacts/{SHA}?generation=1", DATA, no, 409
    yield "PUT", f"/artifacts/{SHA}?generation=2", b"x", no, 400
    yield "GET", "/artifacts", None, no, 200
    copy = {"depot_base_url": "http://[::1]:9"}
    yield "POST", f"/artifacts/{SHA}/copy-from-depot?generation=2", copy, no, 500
    yield "POST", f"/artifacts/{SHA}/copy-from-depot?generation=1", copy, no, 409
    yield "POST", f"/artifacts/{OTHER_SHA}/copy-from-depot?generation=2", copy, no, 400
    yield "POST", f"/artifacts/{SHA}/copy-from-depot?generation=2", {"depot_base_url": "DEPOT"}, no, 202
    # --- bundles
    there = f"/support-bundles/{POOL}/{an_id(0xA01)}"
    one = f"{there}/{BUNDLE}"
    yield "PUT", f"{one}/transfer?offset=0", b"x", no, 404
    yield "GET", f"{one}/download", None, no, 404
    yield "DELETE", one, None, no, 404
    yield "POST", one, None, no, 201
    yield "GET", f"{one}/download", None, no, 500
    yield "GET", f"{one}/index", None, no, 500
    yield "HEAD", f"{one}/index", None, no, 500
    yield "HEAD", f"{one}/download", None, no, 500
    yield "PUT", f"{one}/transfer?offset=0", ZIP, no, 201
    yield "POST", f"{one}/finalize?hash={OTHER_SHA}", None, no, 400
    yield "POST", f"{one}/finalize?hash={hashlib.sha256(ZIP).hexdigest()}", None, no, 201
    yield "GET", there, None, no, 200
    for method in ("GET", "HEAD"):
        yield method, f"{one}/download", None, no, 200
        yield method, f"{one}/index", None, no, 200
        yield method, f"{one}/download/a.txt", None, no, 200
        yield method, f"{one}/download/b.txt", None, no, 404
    yield "GET", f"{one}/download", None, {"range": "bytes=0-9"}, 206
    yield "GET", f"{one}/index", None, {"range": "bytes=0-1"}, 206
    yield "GET", f"{one}/download/a.txt", None, {"range": "bytes=0-1"}, 206
    yield "GET", f"{one}/download", None, {"range": "bytes=9-1"}, 400
    yield "GET", f"/support-bundles/{POOLS[1].id}/{an_id(0xA01)}", None, no, 500
    yield "DELETE", one, None, no, 204
    # --- bootstore
    yield "PUT", "/network-bootstore-config", network(3, level), no, 400 if level < 25 else 204
    yield "GET", "/bootstore/status", None, no, 200
    if level <= 22:
        yield "GET", "/network-bootstore-config", None, no, 200
    if level <= 44:
        yield "POST", "/switch-ports", {"uplinks": [{"port": "qsfp0", "addrs": []}]}, no, 204
    # --- local storage
    sizes = {"dataset_size": 2**30, "volume_size": 2**29}
    ids = {"zpool_id": POOL, "dataset_id": an_id(7)}
    if 9 <= level <= 16:
        yield "POST", f"/local-storage/{POOL}/{an_id(7)}", sizes, no, 400
        yield "DELETE", f"/local-storage/{POOL}/{an_id(7)}", None, no, 204
        yield "DELETE", f"/local-storage/{an_id(9)}/{an_id(7)}", None, no, 503
    if level >= 17:
        body = ids | sizes | {"encrypted_at_rest": False}
        yield "POST", "/local-storage", body, no, 204
        yield "POST", "/local-storage", body | {"volume_size": 1}, no, 500
        yield "POST", "/local-storage", body | {"encrypted_at_rest": True}, no, 400
        yield "POST", "/local-storage", body | {"zpool_id": an_id(9)}, no, 503
        yield "DELETE", "/local-storage", ids | {"encrypted_at_rest": False}, no, 204
        yield "DELETE", "/local-storage", ids | {"encrypted_at_rest": False, "zpool_id": an_id(9)}, no, 503
    # --- disks
    yield "PUT", f"/vmms/{VMM}", with_crucible_disk(level), no, 200
    yield "POST", f"/vmms/{VMM}/disks/{DISK}/snapshot", {"snapshot_id": SNAPSHOT}, no, 200
    yield "POST", f"/vmms/{VMM}/disks/{an_id(0x99)}/snapshot", {"snapshot_id": SNAPSHOT}, no, 404
    yield "POST", f"/vmms/{an_id(0x98)}/disks/{DISK}/snapshot", {"snapshot_id": SNAPSHOT}, no, 404
    agents.fail = True
    yield "POST", f"/vmms/{VMM}/disks/{DISK}/snapshot", {"snapshot_id": SNAPSHOT}, no, 500
    agents.fail = False
    if level <= 20:
        runtime = {"disk_state": {"state": "detached"}, "gen": 1, "time_updated": "2026-01-01T00:00:00Z"}
        attached = {"state": "attached", "instance": an_id(0x22)}
        yield "PUT", f"/disks/{DISK}", {"initial_runtime": runtime, "target": attached}, no, 200
        other = attached | {"instance": an_id(0x23)}
        yield "PUT", f"/disks/{DISK}", {"initial_runtime": runtime, "target": other}, no, 400
    # --- diagnostics, logs, zone bundles
    for which in ("zoneadm", "ipadm", "dladm", "nvmeadm", "pargs", "pstack", "pfiles", "zfs", "zpool"):
        yield "GET", f"/support/{which}-info", None, no, 200
    yield "GET", "/support/health-check", None, no, 200
    yield "GET", "/support/logs/zones", None, no, 200
    yield "GET", "/support/logs/download/global?max_rotated=5", None, no, 200
    yield "GET", "/support/logs/download/global", None, no, 400
    yield "DELETE", f"/vmms/{VMM}", None, no, 200
    yield "GET", "/zones/bundles", None, no, 200
    yield "GET", f"/zones/bundles/oxz_propolis-server_{VMM}", None, no, 200
    gone = f"/zones/bundles/oxz_propolis-server_{VMM}/{an_id(3)}"
    yield "GET", gone, None, no, 404
    yield "DELETE", gone, None, no, 404
    yield "GET", "BUNDLE OF VMM", None, no, 200
    yield "DELETE", "BUNDLE OF VMM", None, no, 204
    yield "GET", "/zones/bundle-cleanup/context", None, no, 200
    yield "PUT", "/zones/bundle-cleanup/context", {"storage_limit": 10}, no, 204
    yield "PUT", "/zones/bundle-cleanup/context", {"storage_limit": 90}, no, 400
    yield "POST", "/zones/bundle-cleanup", None, no, 200
    yield "GET", "/zones/bundle-cleanup/utilization", None, no, 200
    if level >= 13:
        yield from trust_quorum(level)
    if level >= 19:
        yield "GET", "/rot/oxide/measurement-log", None, no, 200
        yield "GET", "/rot/oxide/certificate-chain", None, no, 200
        yield "POST", "/rot/oxide/attest", "ab" * 32, no, 200
        yield "POST", "/rot/oxide/attest", "ab", no, 400


def trust_quorum(level):
    no = {}
    own = {"part_number": "i86pc", "serial_number": f"sim-{SLED}"}
    others = [{"part_number": "x", "serial_number": str(n)} for n in range(2)]
    wish = {"rack_id": RACK, "epoch": 1, "last_committed_epoch": None, "members": [own, *others], "threshold": 2}
    commit = {"rack_id": RACK, "epoch": 1}
    yield "GET", "/trust-quorum/coordinator-status", None, no, 200
    yield "PUT", "/trust-quorum/commit", commit, no, 500
    yield "POST", "/trust-quorum/configuration", wish, no, 204
    yield "POST", "/trust-quorum/configuration", wish, no, 500
    yield "GET", "/trust-quorum/coordinator-status", None, no, 200
    members = [{"id": each, "share_digest": "ab" * 32} for each in (own, *others)]
    told = {"rack_id": RACK, "epoch": 1, "coordinator": own, "members": members, "threshold": 2}
    yield "PUT", "/trust-quorum/prepare-and-commit", {"config": told}, no, 200
    yield "PUT", "/trust-quorum/prepare-and-commit", {"config": told | {"rack_id": VMM}}, no, 500
    yield "PUT", "/trust-quorum/commit", commit, no, 204
    upgrade = {key: value for key, value in wish.items() if key != "last_committed_epoch"}
    yield "POST", "/trust-quorum/upgrade", upgrade, no, 500
    member = {"part_number": "i86pc", "serial_number": f"sim-{SECOND}"}
    first = commit | {"epoch": 1}
    yield "PUT", "/trust-quorum/proxy/commit", {"destination": member, "request": first}, no, 500
    proxied = {"destination": member, "request": {"config": told}}
    yield "PUT", "/trust-quorum/proxy/prepare-and-commit", proxied, no, 200
    stranger = proxied | {"destination": others[0]}
    yield "PUT", "/trust-quorum/proxy/prepare-and-commit", stranger, no, 500
    query = f"part_number=i86pc&serial_number=sim-{SECOND}"
    yield "GET", f"/trust-quorum/proxy/status?{query}", None, no, 200
    yield "GET", "/trust-quorum/proxy/status?part_number=x&serial_number=0", None, no, 500
    if level >= 15:
        yield "GET", "/trust-quorum/status", None, no, 200
        yield "GET", "/trust-quorum/network-config", None, no, 200
        yield "PUT", "/trust-quorum/network-config", {"generation": 1, "blob": "AAAA"}, no, 204
        yield "PUT", "/trust-quorum/network-config", {"generation": 1, "blob": "AAAA"}, no, 500
        yield "GET", "/trust-quorum/network-config", None, no, 200


SECOND = an_id(0x5B)
ZIP = (
    b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00!\x00\x83\x16\xdc\x8c\x01\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00\x00"
    b"a.txtxPK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00\x00\x00!\x00\x83\x16\xdc\x8c\x01\x00\x00\x00\x01\x00\x00\x00"
    b"\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x01\x00\x00\x00\x00a.txtPK\x05\x06\x00\x00\x00\x00\x01\x00"
    b"\x01\x003\x00\x00\x00$\x00\x00\x00\x00\x00"
)
"""An archive with `x` in `a.txt`."""


# ---- judging -------------------------------------------------------------------------------------------------------


def words(path):
    return [part for part in path.partition("?")[0].split("/") if part]


@cache
def templates(level, method):
    """The words of each path of a document that has this method, with its operation."""
    found = documents.operations(level).items()
    return [(words(template), operation) for (known, template), operation in found if known == method]


@cache
def operation_of(level, method, path):
    """The operation of the document that a path means."""
    parts = words(path)
    best = None
    for names, operation in templates(level, method):
        fits = len(names) == len(parts) and all(
            name == part or name.startswith("{") for name, part in zip(names, parts, strict=True)
        )
        literal = sum(not name.startswith("{") for name in names)
        if fits and (best is None or literal > best[0]):
            best = (literal, operation)
    assert best is not None, f"{method} {path} is not in the document of {level}"
    return best[1]


def judge(level, method, path, got):
    """Faults of an answer by the document; what the wire does differently is asked for by name."""
    operation = operation_of(level, method, path)
    op = operation["operationId"]
    answers, status = operation["responses"], str(got.status)
    key = next((each for each in (status, f"{status[0]}XX", "default") if each in answers), None)
    if key is None:
        return op, [f"status {status} is not in the document"]
    answer = answers[key]
    if "$ref" in answer:
        answer = documents.document(level)["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    schema = answer.get("content", {}).get("application/json", {}).get("schema")
    if schema is None or method == "HEAD":
        return op, ["a body where none belongs"] if method == "HEAD" and got.body else []
    if got.status == 400 and not got.body and "content-type" not in got.headers:
        return op, [] if HEADERLESS["bad range"] and "support-bundles" in path else ["an empty refusal"]
    if got.headers.get("content-type") != "application/json":
        return op, [f"content type {got.headers.get('content-type')}"]
    value = json.loads(got.body)
    if value is None and (op, "null") in WIRE_WINS:
        return op, []
    if (op, "pairs") in WIRE_WINS and isinstance(value, dict) and "config" in value:
        members = value["config"]["members"]
        value["config"]["members"] = [{"id": board, "share_digest": digest} for board, digest in members]
    return op, documents.faults(level, schema, value)


@asynccontextmanager
async def depot():
    """Has one artifact."""

    async def serve(reader, writer):
        while (await reader.readline()).strip():
            pass
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(DATA), DATA))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "::1", 0)
    try:
        yield f"http://[::1]:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture(scope="module", name="record_shown")
def _record_shown(pytestconfig):
    """Collects what was shown, and prints the table when all versions were played."""
    table = defaultdict(lambda: defaultdict(set))

    def record(level, shown):
        for op, statuses in shown.items():
            table[op][frozenset(statuses)].add(level)

    yield record
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print()
        for op in sorted(table):
            for statuses, levels in table[op].items():
                print(f"{op:48} {min(levels):>2}-{max(levels):<2} {' '.join(map(str, sorted(statuses)))}")
        print(f"{len(table)} operations are shown here; {len(OTHERS)} more in test_openapi_sled.py")


async def play(level):
    """Everything of one version; returns what was shown as {operation: {status}}."""
    shown = defaultdict(set)
    hardware = Hardware(zpools=POOLS)
    agents = Agents()
    version = {"api-version": f"{level}.0.0"}
    async with (
        running(hardware=hardware, sleds=(SLED, UUID(SECOND))) as sled,
        depot() as base,
        aclosing(RawClient(sled.base.removeprefix("http://"))) as client,
    ):
        for each in sled.daemon.rack.sleds.values():
            each.regions = agents
        for method, path, body, headers, expected in session(level, agents):
            if path == "BUNDLE OF VMM":
                [there] = await sled.json("GET", "/zones/bundles", version=f"{level}.0.0")
                path = f"/zones/bundles/{there['id']['zone_name']}/{there['id']['bundle_id']}"  # noqa: PLW2901 -- now known
            if isinstance(body, dict) and body.get("depot_base_url") == "DEPOT":
                body = {"depot_base_url": base}  # noqa: PLW2901 -- now known
            data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
            got = await client.request(method, path, version | JSON | headers, data)
            assert got.status == expected, f"{level}: {method} {path}: {got}"
            op, faults = judge(level, method, path, got)
            assert faults == [], f"{level}: {method} {path} {got.status}: {faults}"
            shown[op].add(got.status)
            if isinstance(body, dict | str):
                spoilt = await client.request(method, path, version | JSON | headers, b"{")
                assert (spoilt.status, judge(level, method, path, spoilt)[1]) == (400, [])
                shown[op].add(400)
    return shown


JSON = {"content-type": "application/json"}


DAILY = (1, 9, 11, 13, 15, 20, 23, 25, 27, 32, 36, 38, 41, 44, 47, 48)
"""Versions that have, together, every body and every answer that any version has."""


@pytest.mark.long
@pytest.mark.skipif(bool(OTHER_DOCUMENTS), reason="of these all are played each day")
def test_the_versions_of_each_day_have_every_body_and_every_answer():
    assert documents.said(DAILY, is_shown_here) == documents.said(documents.VERSIONS, is_shown_here)


@pytest.mark.parametrize("level", documents.played(DAILY))
async def test_every_operation_answers_as_its_document_says(level, record_shown):
    shown = await play(level)
    own = {"vmm_register", "vmm_unregister"}
    elsewhere = own | OTHERS
    missing = {each["operationId"] for each in documents.operations(level).values()} - set(shown) - elsewhere
    assert missing == set(), "an operation without a call here"
    for op, statuses in shown.items():
        assert any(status < 300 for status in statuses) or (op, level < 25) in NEVER, f"{op} never succeeded"
    record_shown(level, shown)


@in_one_test(
    ("path", "got", "fault"),
    [
        pytest.param("/zones", Reply(302, {}, b""), "status 302", id="a status that nobody knows of"),
        pytest.param("/zones", Reply(200, JSON, b"[3]"), "is not of type", id="another shape"),
        pytest.param("/zones", Reply(200, {"content-type": "text/plain"}, b"[]"), "content type", id="no JSON"),
        pytest.param("/zones", Reply(400, {}, b""), "an empty refusal", id="a refusal without a word"),
        pytest.param("/zones", Reply(400, JSON, b'{"message":"x"}'), "request_id", id="half an error"),
        pytest.param("/artifacts", Reply(200, JSON, b"null"), "null is not", id="null where nobody named it"),
    ],
)
def test_the_judge_sees_what_is_wrong(path, got, fault):
    _, faults = judge(48, "GET", path, got)
    assert any(fault in each for each in faults), faults


def is_shown_here(path):
    return "/disks/" in path or not path.startswith(("/vmms/", "/v2p", "/vpc", "/eip", "/probes", "/sleds"))


OTHERS = {each["operationId"] for (_, path), each in documents.operations(48).items() if not is_shown_here(path)}
"""Operations of VMMs and networks: test_openapi_sled.py shows these."""

NEVER = {
    ("write_network_bootstore_config", True): "400 before 25 (SR 4.4)",
    ("trust_quorum_upgrade_from_lrtq", False): "no sled here has a share of the old scheme (SR 4.5)",
    ("trust_quorum_upgrade_from_lrtq", True): "the same",
    ("trust_quorum_proxy_commit", False): "see test_trust_quorum.py; here the other sled has prepared nothing",
    ("trust_quorum_proxy_commit", True): "the same",
    ("local_storage_dataset_ensure", True): "9 to 16 mean encrypted storage (SR 3.4)",
}
"""Operations that cannot succeed, with the reason; the second part: before 25."""
