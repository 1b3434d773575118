"""What the Nexus model sends to sleds fits the Sled Agent API of every version, and looks like the recorded tapes."""

import json
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from support.nexus.world import World
from support.rows import in_one_test
from support.wire.documents import answer_schema, fits, load

from nexus_client.stub.contract import (
    AttachSubnet,
    DeleteExternalIp,
    DetachSubnet,
    GetVmmState,
    IpKind,
    PutExternalIp,
    PutVmmState,
    ReadInventory,
    RegisterVmm,
    UnregisterVmm,
)
from nexus_client.stub.server.bodies import VERSIONS, register_body
from nexus_client.stub.server.sled_client import request_of
from nexus_client.types import Asked, InstanceMigrationTargetParams, VmmStateRequested

TAPES = Path(__file__).parents[1] / "data" / "tapes"
"""Always these: what a real Nexus sends is in them, and other tapes (SIM_SLED_TAPES) need not have all of it."""
VMM = UUID(int=1)
PATHS = {
    "RegisterVmm": "/vmms/{propolis_id}",
    "UnregisterVmm": "/vmms/{propolis_id}",
    "PutVmmState": "/vmms/{propolis_id}/state",
    "GetVmmState": "/vmms/{propolis_id}/state",
    "PutExternalIp": "/vmms/{propolis_id}/external-ip",
    "DeleteExternalIp": "/vmms/{propolis_id}/external-ip",
    "AttachSubnet": "/vmms/{propolis_id}/attached-subnets",
    "DetachSubnet": "/vmms/{propolis_id}/attached-subnets/{subnet}",
    "ReadInventory": "/inventory",
}


def registers():
    """A plain start, a start with addresses of both families and a subnet, a migration."""
    world = World.make()
    web = world.create()
    plain = world.calls[0].op
    world.settle()
    world.migrate(web)
    moving = world.calls[0].op
    world.settle()
    rich = world.create("rich", start=False)
    world.attach(rich, IpKind.EPHEMERAL)
    world.attach(rich, IpKind.FLOATING, "203.0.113.99")
    world.attach(rich, IpKind.FLOATING, "2001:db8::99")
    world.attach(rich, IpKind.SUBNET, "192.0.2.64/28")
    world.start(rich)
    return {"plain": plain, "moving": moving, "rich": world.calls[0].op}


REGISTERS = registers()
OTHERS = [
    UnregisterVmm(VMM),
    PutVmmState(VMM, VmmStateRequested(Asked.RUNNING)),
    PutVmmState(VMM, VmmStateRequested(Asked.STOPPED)),
    PutVmmState(VMM, VmmStateRequested(Asked.REBOOT)),
    PutVmmState(VMM, VmmStateRequested(Asked.MIGRATION_TARGET, InstanceMigrationTargetParams("[::1]:12400"))),
    GetVmmState(VMM),
    PutExternalIp(VMM, IpKind.FLOATING, "203.0.113.9"),
    DeleteExternalIp(VMM, IpKind.EPHEMERAL, "203.0.113.9"),
    AttachSubnet(VMM, "192.0.2.64/28"),
    DetachSubnet(VMM, "192.0.2.64/28"),
    ReadInventory(),
]


def sled_document(major):
    return f"sled-agent/{major}.0.0"


@in_one_test("kind", REGISTERS)
@in_one_test("major", VERSIONS)
def test_register_bodies_fit_every_version(kind, major):
    assert not fits(sled_document(major), "InstanceEnsureBody", register_body(REGISTERS[kind], major))


SINCE = {"AttachSubnet": 18, "DetachSubnet": 18}


@in_one_test(
    ("op", "major"),
    [
        pytest.param(op, major, id=f"{type(op).__name__}-{major}")
        for op in (*REGISTERS.values(), *OTHERS)
        for major in (1, 20, 48)
        if major >= SINCE.get(type(op).__name__, 1)
    ],
)
def test_requests_are_operations_of_the_document(op, major):
    name = type(op).__name__
    request = request_of(op, major)
    operation = load(sled_document(major))["paths"][PATHS[name]][request.method.lower()]
    assert str(request.success) in operation["responses"]
    body = operation.get("requestBody")
    assert (body is None) == (request.body is None)
    if body is not None:
        schema = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert not fits(sled_document(major), schema, request.body)
    if request.decoder is not None:
        schema = answer_schema(sled_document(major), request.method.lower(), PATHS[name], request.success)
        assert schema in ("SledVmmState", "VmmPutStateResponse", "VmmUnregisterResponse")


def test_subnets_are_percent_encoded_as_in_the_tapes():
    assert request_of(DetachSubnet(VMM, "192.0.2.64/28")).path.endswith("/attached-subnets/192.0.2.64%2F28")


@pytest.mark.parametrize("major", [0, 49])
def test_unknown_versions_are_refused(major):
    with pytest.raises(ValueError, match="not known"):
        register_body(REGISTERS["plain"], major)


# ---- the shape of the tapes ----------------------------------------------------------------------------------------


def registrations():
    """(tape, version, body) of every valid registration in the tapes, at a version that there is."""
    for path in sorted(TAPES.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines[1:]:
            version = (line.get("headers") or {}).get("api-version", lines[0]["api_version"])
            body = line.get("body")
            known = version in {f"{major}.0.0" for major in VERSIONS} and not line.get("invalid")
            if known and line["method"] == "PUT" and isinstance(body, dict) and "vmm_spec" in body:
                yield path.stem, version, body


def shape(value, *, optional=()):
    """Names and kinds, recursively; an empty list says nothing of its items, so items are not compared there."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items() if key not in optional}
    if isinstance(value, list):
        return [shape(value[0])] if value and not isinstance(value[0], str) else []
    return type(value).__name__


def test_registrations_have_the_shape_of_the_tapes():
    """Compared: what does not depend on what the user attached (addresses, disks, NICs beyond the first)."""
    found = list(registrations())
    assert len(found) > 20, "the tapes are there"
    for tape, version, body in found:
        try:
            has_the_shape(version, body)
        except AssertionError as wrong:
            wrong.add_note(f"{tape} {version}")
            raise


def has_the_shape(version, body):
    ours = json.loads(msgspec.json.encode(register_body(REGISTERS["plain"], int(version.partition(".")[0]))))
    by_user = {"external_ips", "ephemeral_ip", "firewall_rules", "primary_nic_mtu"}
    theirs_local = {key: value for key, value in body["local_config"].items() if key not in by_user}
    ours_local = {key: value for key, value in ours["local_config"].items() if key not in by_user}
    assert set(ours_local) == set(theirs_local)
    theirs_nics, ours_nics = theirs_local.pop("nics"), ours_local.pop("nics")
    if theirs_nics:
        assert set(ours_nics[0]) == set(theirs_nics[0])
    for lists in ("attached_subnets", "delegated_zvols", "multicast_groups", "floating_ips"):
        theirs_local.pop(lists, None)
        ours_local.pop(lists, None)
    assert shape(ours_local) == shape(theirs_local)
    assert set(ours) - {"migration_id"} == set(body) - {"migration_id"}
    assert shape(ours["metadata"]) == shape(body["metadata"])
    assert shape(ours["vmm_runtime"]) == shape(body["vmm_runtime"])
    assert set(ours["vmm_spec"]["board"]) - {"guest_hv_interface"} == set(body["vmm_spec"]["board"])
    kinds = {value["type"]: set(value["component"]) for value in body["vmm_spec"]["components"].values()}
    for value in ours["vmm_spec"]["components"].values():
        if value["type"] in kinds:
            assert set(value["component"]) == kinds[value["type"]], value["type"]


def test_put_state_requests_look_like_the_tapes():
    seen = {
        json.dumps(line["body"], sort_keys=True)
        for path in TAPES.glob("*.jsonl")
        for line in map(json.loads, path.read_text().splitlines()[1:])
        if line["path"].endswith("/state") and line["method"] == "PUT" and not line.get("invalid")
    }
    for op in OTHERS[1:4]:
        assert json.dumps(json.loads(msgspec.json.encode(request_of(op).body)), sort_keys=True) in seen
    target = json.loads(msgspec.json.encode(request_of(OTHERS[4]).body))
    assert any(shape(json.loads(text)) == shape(target) for text in seen)


def test_the_register_op_of_a_migration_carries_its_id():
    op = REGISTERS["moving"]
    assert isinstance(op, RegisterVmm)
    assert register_body(op)["migration_id"] == str(op.migration_id)
    assert "migration_id" not in register_body(REGISTERS["plain"])
