"""Registration bodies by version (SA 4.2): what each takes, refuses, and what the core gets of it."""

from __future__ import annotations

import json
from bisect import bisect_right
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.daemon.sled_http import NIC_V1, SNAT, drop, put, register_body
from support.rows import in_one_test

from nexus_client.dropshot.json import BadJson
from sim_sled.core import contract
from sim_sled.core.errors import InvalidRequest
from sim_sled.daemon.graph import pack, unpack
from sim_sled.http.bodies_register import BODIES, to_registration

ALL = range(1, 49)
SINCE = list(BODIES)


def decode(level, body):
    kind = BODIES[SINCE[bisect_right(SINCE, level) - 1]]
    return kind.decode(json.dumps(body).encode())


def refusal(level, body):
    """What it is refused with; None if it is taken."""
    try:
        decode(level, body)
    except BadJson as error:
        return str(error)
    return None


def registered(level, body):
    return to_registration(decode(level, body))


@in_one_test("level", ALL)
def test_each_version_takes_its_own_body(level):
    registration = registered(level, register_body(level))
    assert registration.instance_id == UUID("00000000-0000-4000-8000-000000000002")
    assert registration.vmm_runtime.time_updated == datetime(2026, 8, 21, 10, 0, 0, 123456, tzinfo=UTC)
    assert (registration.ncpus, registration.memory_mib, registration.hostname) == (2, 2048, "web-01")
    assert registration.propolis_addr == "[fd00:1122:3344:101::1:1]:12400"
    assert registration.nics == (contract.Nic(11382783, ("172.30.0.0/22",)),)
    assert set(registration.external_ips) == {
        contract.ExternalIp("ephemeral", "203.0.113.7"), contract.ExternalIp("floating", "203.0.113.8")
    }  # fmt: skip
    assert registration.multicast_groups == (
        (contract.MulticastMembership("239.10.0.1", ()),) if level >= 7 else ()
    )  # fmt: skip
    assert registration.attached_subnets == (
        (contract.AttachedSubnet("192.0.2.64/28", "external"),) if level >= 18 else ()
    )  # fmt: skip


@in_one_test("level", list(BODIES))
def test_a_registration_of_each_version_that_waits_outlives_a_file(level):
    """A rule holds it up while a checkpoint is taken: all of its parts have names that are found again."""
    registration = registered(level, register_body(level))
    assert unpack(json.loads(json.dumps(pack({"waits": registration}, {}))), {}, ()) == {"waits": registration}


@in_one_test("boundary", [7, 9, 10, 17, 18, 44])
def test_the_body_of_the_version_before_is_refused(boundary):
    """Each of these versions made something mandatory or changed a shape for good."""
    with pytest.raises(BadJson):
        decode(boundary, register_body(boundary - 1))


@pytest.mark.parametrize("boundary", [11, 32])
def test_addresses_in_the_form_of_the_version_before_are_unknown_fields(boundary):
    """11 made the addresses optional and 32 each family: the old form is ignored, as the original ignores it."""
    assert registered(boundary - 1, register_body(boundary - 1)).external_ips != ()
    assert registered(boundary, register_body(boundary - 1)).external_ips == ()


@in_one_test("boundary", [10, 11, 17, 29, 31, 32, 44])
def test_what_a_version_brought_is_refused_before(boundary):
    """29: the vsock component; 31: icmp6; 44: has_write_cache. (7, 9, 18 and 41 brought fields which are ignored.)"""
    body = register_body(boundary)
    if boundary == 29:
        vsock = {"guest_cid": 16, "pci_path": {"bus": 0, "device": 28, "function": 0}}
        put(body, "vmm_spec.components.vsock", {"type": "virtio_socket", "component": vsock})
    if boundary == 31:
        put(body, "local_config.firewall_rules.0.filter_protocols", [{"type": "icmp6", "value": None}])
    decode(boundary, body)
    with pytest.raises(BadJson):
        decode(boundary - 1, body)


@in_one_test(
    ("level", "path", "value"),
    [
        pytest.param(6, "local_config.multicast_groups", "anything", id="multicast groups before 7"),
        pytest.param(8, "local_config.delegated_zvols", 5, id="delegated zvols before 9"),
        pytest.param(17, "local_config.attached_subnets", [1], id="attached subnets before 18"),
        pytest.param(40, "local_config.primary_nic_mtu", "x", id="primary NIC MTU before 41"),
        pytest.param(48, "newer", True, id="at the top"),
        pytest.param(48, "local_config.newer", True, id="in the local configuration"),
        pytest.param(48, "local_config.nics.0.newer", True, id="in an interface"),
        pytest.param(48, "metadata.newer", True, id="in the metadata"),
        pytest.param(48, "vmm_runtime.newer", True, id="in the runtime state"),
        pytest.param(29, "vmm_spec.newer", True, id="in the specification since 29"),
        pytest.param(48, "vmm_spec.components.disk.component.pci_path.newer", 1, id="in a PCI path"),
    ],
)
def test_unknown_fields_are_ignored(level, path, value):
    assert decode(level, put(register_body(level), path, value)) == decode(level, register_body(level))


@in_one_test(
    ("level", "path"),
    [
        pytest.param(28, "vmm_spec.newer", id="in the specification up to 28"),
        pytest.param(28, "vmm_spec.smbios", id="smbios before 29"),
        *(
            pytest.param(level, path, id=f"{what} at {level}")
            for level in (1, 28, 29, 43, 44, 48)
            for path, what in [
                ("vmm_spec.board.newer", "board"),
                ("vmm_spec.board.chipset.newer", "chipset"),
                ("vmm_spec.board.chipset.value.newer", "chipset value"),
                ("vmm_spec.board.guest_hv_interface.newer", "hypervisor interface"),
                ("vmm_spec.components.disk.newer", "component"),
                ("vmm_spec.components.disk.component.newer", "value of a component"),
                ("vmm_spec.components.com1.component.newer", "value of another component"),
            ]
        ),
    ],
)
def test_unknown_fields_are_refused_inside_the_specification(level, path):
    with pytest.raises(BadJson, match="unknown field"):
        decode(level, put(register_body(level), path, None))


@in_one_test(
    "path",
    ["instance_id", "local_config", "vmm_spec", "vmm_runtime", "propolis_addr", "metadata", "metadata.silo_id",
     "local_config.hostname", "local_config.nics", "local_config.firewall_rules", "local_config.dhcp_config",
     "vmm_spec.board", "vmm_spec.board.cpus", "vmm_spec.components", "vmm_runtime.gen",
     "vmm_spec.components.disk.component.serial_number"],
)  # fmt: skip
def test_mandatory_fields_are_mandatory(path):
    said = {
        level: refusal(level, drop(register_body(level), path)) for level in (1, 9, 10, 11, 18, 31, 32, 41, 44, 48)
    }
    assert not {level: text for level, text in said.items() if "missing required field" not in str(text)}


@in_one_test("level", [1, 9, 10, 11, 18, 31, 32, 41, 44, 48])
@in_one_test("path", ["migration_id", "vmm_spec.board.cpuid", "local_config.dhcp_config.host_domain"])
def test_optional_fields_may_be_absent(level, path):
    decode(level, drop(register_body(level), path))


BAD_AT_EVERY_VERSION = [
    ("vmm_spec.board.cpus", 256, "more CPUs than a byte holds"),
    ("vmm_spec.board.cpus", -1, "negative CPUs"),
    ("vmm_spec.board.cpus", 2.0, "a fraction of CPUs"),
    ("vmm_spec.board.memory_mb", "2048", "memory as text"),
    ("vmm_spec.board.memory_mb", 2**64, "memory beyond 64 bits"),
    ("vmm_spec.board.chipset", {"type": "q35", "value": {}}, "another chipset"),
    ("vmm_spec.board.guest_hv_interface", {"type": "hyper_v", "value": {"features": ["x"]}}, "unknown feature"),
    ("vmm_spec.components.x", {"type": "fpga", "component": {}}, "unknown component"),
    ("vmm_spec.components.x", {"type": "serial_port", "component": {"num": "com5"}}, "unknown port"),
    ("vmm_spec.components.disk.component.serial_number", [0] * 19, "serial number of 19 bytes"),
    ("vmm_spec.components.disk.component.serial_number", [0] * 21, "serial number of 21 bytes"),
    ("vmm_spec.components.disk.component.serial_number", [256] * 20, "serial number that is no bytes"),
    ("local_config.hostname", "-bad-", "bad host name"),
    ("local_config.dhcp_config.dns_servers", ["one"], "DNS server by name"),
    ("local_config.nics.0.mac", "A8-40-25-F3-48", "MAC of five octets"),
    ("local_config.nics.0.vni", 2**32, "VNI beyond 32 bits"),
    ("local_config.nics.0.slot", 256, "slot beyond a byte"),
    ("local_config.nics.0.name", "Net", "bad interface name"),
    ("local_config.nics.0.primary", "yes", "boolean as text"),
    ("local_config.nics.0.kind", {"type": "vmm", "id": NIC_V1["id"]}, "unknown interface kind"),
    ("local_config.firewall_rules.0.action", "drop", "unknown action"),
    ("local_config.firewall_rules.0.filter_ports", ["0"], "port 0"),
    ("local_config.firewall_rules.0.filter_ports", ["9-8"], "port range the wrong way round"),
    ("local_config.firewall_rules.0.filter_hosts", [{"type": "ip", "value": "10.0.0.1"}], "host without prefix"),
    ("local_config.firewall_rules.0.filter_protocols", [{"type": "sctp"}], "unknown protocol"),
    ("vmm_runtime.gen", -1, "negative generation"),
    ("vmm_runtime.gen", 2**63, "generation beyond 2^63-1"),
    ("vmm_runtime.state", "creating", "state that Nexus keeps to itself"),
    ("vmm_runtime.time_updated", "2026-08-21 10 o'clock", "no RFC 3339 time"),
    ("vmm_runtime.time_updated", "2026-08-21T10:00:00", "time without zone"),
    ("vmm_runtime.time_updated", "2026-02-30T00:00:00Z", "a day that is none"),
    ("propolis_addr", "fd00::1", "address without port"),
    ("instance_id", "web-01", "instance by name"),
    ("migration_id", "x", "bad migration id"),
]


@in_one_test(("path", "value"), [pytest.param(path, value, id=name) for path, value, name in BAD_AT_EVERY_VERSION])
def test_bad_values_are_refused_while_parsing(path, value):
    levels = (1, 7, 9, 10, 11, 17, 18, 29, 31, 32, 41, 44, 48)
    assert not [level for level in levels if refusal(level, put(register_body(level), path, value)) is None]


@in_one_test("level", [1, 7, 9, 10, 11, 17, 18, 29, 31, 32, 41, 44, 48])
@in_one_test(
    ("first", "last", "ok"),
    [(0, 16383, True), (49152, 65535, True), (16384, 16384, False), (1024, 17407, False), (16384, 65535, False),
     (32767, 16384, False)],
)  # fmt: skip
def test_source_nat_ports_are_aligned_blocks_in_every_version(level, first, last, ok):
    snat = SNAT | {"first_port": first, "last_port": last}
    where = (
        "source_nat"
        if level < 11
        else "external_ips.value.source_nat"
        if level < 32
        else "external_ips.v4.source_nat"
    )
    body = put(register_body(level), f"local_config.{where}", snat)
    if ok:
        decode(level, body)
    else:
        with pytest.raises(BadJson, match="block"):
            decode(level, body)


# ---- interfaces ----------------------------------------------------------------------------------------------------


@in_one_test(
    ("ip", "subnet", "transit"),
    [
        pytest.param("10.99.0.1", "172.30.0.0/22", [], id="address outside of its subnet"),
        pytest.param("fd00::1", "172.30.0.0/22", [], id="IPv6 address in an IPv4 subnet"),
        pytest.param("172.30.0.5", "fd00::/64", [], id="IPv4 address in an IPv6 subnet"),
        pytest.param("172.30.0.5", "172.30.0.0/22", ["fd00::/64"], id="IPv6 transit network of an IPv4 interface"),
        pytest.param("172.30.0.5", "172.30.0.4/30", [], id="prefix too long"),
        pytest.param("172.30.0.5", "128.0.0.0/1", [], id="prefix too short"),
        pytest.param("fd00::5", "fd00::/56", [], id="IPv6 prefix that is not 64"),
    ],
)
@in_one_test("level", [1, 7, 9])
@in_one_test("where", ["nics.0", "firewall_rules.0.targets.0"])
def test_up_to_9_interfaces_that_cannot_be_converted_are_invalid_requests(level, where, ip, subnet, transit):
    """The body parses: the refusal has the code `InvalidRequest`, not the parser's message."""
    nic = NIC_V1 | {"ip": ip, "subnet": subnet, "transit_ips": transit}
    body = decode(level, put(register_body(level), f"local_config.{where}", nic))
    with pytest.raises(InvalidRequest):
        to_registration(body)


@in_one_test(
    "config",
    [
        pytest.param({"type": "v4", "value": {"ip": "10.99.0.1", "subnet": "172.30.0.0/22"}}, id="outside"),
        pytest.param({"type": "v4", "value": {"ip": "172.30.0.5", "subnet": "172.30.0.4/30"}}, id="prefix too long"),
        pytest.param(
            {"type": "v6", "value": {"ip": "fd00::5", "subnet": "fd00::/48", "transit_ips": []}}, id="not 64"
        ),
        pytest.param(
            {"type": "v6", "value": {"ip": "10.0.0.1", "subnet": "fd00::/64", "transit_ips": []}}, id="mixed"
        ),
        pytest.param({"type": "v5", "value": {}}, id="unknown family"),
        pytest.param({"type": "dual_stack", "value": {"v4": {"ip": "10.0.0.1", "subnet": "10.0.0.0/24"}}}, id="half"),
    ],
)
@in_one_test("level", [10, 11, 31, 32, 48])
def test_from_10_on_bad_interfaces_are_refused_while_parsing(level, config):
    with pytest.raises(BadJson):
        decode(level, put(register_body(level), "local_config.nics.0.ip_config", config))


@pytest.mark.parametrize("level", [10, 31, 48])
def test_a_dual_stack_interface_has_both_subnets(level):
    v4 = {"ip": "172.30.0.5", "subnet": "172.30.0.0/22"}  # transit_ips may be absent for IPv4
    v6 = {"ip": "FD41::5", "subnet": "fd41:0::/64", "transit_ips": ["fd42::/64"]}
    config = {"type": "dual_stack", "value": {"v4": v4, "v6": v6}}
    registration = registered(level, put(register_body(level), "local_config.nics.0.ip_config", config))
    assert registration.nics == (contract.Nic(11382783, ("172.30.0.0/22", "fd41::/64")),)


@pytest.mark.parametrize("level", [10, 31, 48])
def test_transit_addresses_may_be_absent_for_ipv6_too_whatever_the_documents_say(level):
    config = {"type": "v6", "value": {"ip": "fd41::5", "subnet": "fd41::/64"}}
    registration = registered(level, put(register_body(level), "local_config.nics.0.ip_config", config))
    assert registration.nics == (contract.Nic(11382783, ("fd41::/64",)),)


def test_an_ipv6_interface_of_version_1():
    nic = NIC_V1 | {"ip": "fd41::5", "subnet": "fd41::/64"}
    registration = registered(1, put(register_body(1), "local_config.nics", [nic]))
    assert registration.nics == (contract.Nic(11382783, ("fd41::/64",)),)


# ---- external addresses --------------------------------------------------------------------------------------------


@in_one_test("level", [1, 7, 9, 10])
@in_one_test(
    ("path", "value"),
    [("ephemeral_ip", "2001:db8::1"), ("floating_ips", ["203.0.113.8", "2001:db8::1"]),
     ("source_nat", SNAT | {"ip": "2001:db8::1"})],
)  # fmt: skip
def test_up_to_10_external_addresses_of_mixed_families_are_invalid_requests(level, path, value):
    body = decode(level, put(register_body(level), f"local_config.{path}", value))
    with pytest.raises(InvalidRequest):
        to_registration(body)


@in_one_test("level", [11, 17, 18, 29, 31])
def test_from_11_to_31_external_addresses_may_be_null_or_absent(level):
    assert registered(level, put(register_body(level), "local_config.external_ips", None)).external_ips == ()
    assert registered(level, drop(register_body(level), "local_config.external_ips")).external_ips == ()


@pytest.mark.parametrize("level", [32, 48])
def test_from_32_on_external_addresses_are_mandatory_and_may_be_empty(level):
    with pytest.raises(BadJson):
        decode(level, put(register_body(level), "local_config.external_ips", None))
    with pytest.raises(BadJson):
        decode(level, drop(register_body(level), "local_config.external_ips"))
    assert registered(level, put(register_body(level), "local_config.external_ips", {})).external_ips == ()


@in_one_test("level", [11, 31, 32, 48])
def test_both_families_at_once(level):
    v4 = {"source_nat": None, "ephemeral_ip": None, "floating_ips": ["203.0.113.8", "203.0.113.8"]}
    v6 = {"ephemeral_ip": "2001:DB8::1", "floating_ips": []}
    both = {"v4": v4, "v6": v6}
    config = {"type": "dual_stack", "value": both} if level < 32 else both
    registration = registered(level, put(register_body(level), "local_config.external_ips", config))
    assert set(registration.external_ips) == {
        contract.ExternalIp("floating", "203.0.113.8"), contract.ExternalIp("ephemeral", "2001:db8::1")
    }  # fmt: skip


@in_one_test("level", [11, 31, 32, 48])
def test_an_address_of_the_other_family_does_not_parse(level):
    where = "external_ips.value.floating_ips" if level < 32 else "external_ips.v4.floating_ips"
    with pytest.raises(BadJson):
        decode(level, put(register_body(level), f"local_config.{where}", ["2001:db8::1"]))


@in_one_test(
    ("level", "kind", "ok"),
    [(9, "local_storage", True), (16, "local_storage", True), (17, "local_storage", False),
     (16, "local_storage_unencrypted", False), (17, "local_storage_unencrypted", True),
     (48, "local_storage_encrypted", True)],
)  # fmt: skip
def test_kinds_of_delegated_volumes(level, kind, ok):
    body = put(register_body(level), "local_config.delegated_zvols.0.type", kind)
    if ok:
        decode(level, body)
    else:
        with pytest.raises(BadJson):
            decode(level, body)


# ---- disks ---------------------------------------------------------------------------------------------------------

DISK = "fe0b58a3-9b20-4ae8-9a3b-8a4e1c6b1d10"
REGION = {
    "type": "region",
    "block_size": 512,
    "blocks_per_extent": 131072,
    "extent_count": 16,
    "opts": {"id": DISK, "target": ["[fd00::1]:19000"], "lossy": False, "read_only": False},
    "gen": 1,
}
VOLUME = {"type": "volume", "id": DISK, "block_size": 512, "sub_volumes": [REGION], "read_only_parent": None}


def crucible(request_json):
    return {"type": "crucible_storage_backend", "component": {"readonly": False, "request_json": request_json}}


@in_one_test(
    "request_body",
    [
        pytest.param(VOLUME, id="a volume"),
        pytest.param(VOLUME | {"read_only_parent": VOLUME}, id="with a parent"),
        pytest.param({"type": "url", "id": DISK, "block_size": 512, "url": "http://x"}, id="a URL"),
        pytest.param({"type": "file", "id": DISK, "block_size": 512, "path": "/x"}, id="a file"),
    ],
)
def test_crucible_disks_are_kept_with_their_requests(request_body):
    text = json.dumps(request_body)
    registration = registered(48, put(register_body(48), f"vmm_spec.components.{DISK.upper()}", crucible(text)))
    assert registration.crucible_disks == ((UUID(DISK), text),)


@in_one_test(
    ("key", "text"),
    [
        pytest.param("root-disk", json.dumps(VOLUME), id="key is a name (6 #14)"),
        pytest.param(DISK, "", id="empty request (6 #12)"),
        pytest.param(DISK, "{}", id="no volume request (6 #12)"),
        pytest.param(DISK, json.dumps(VOLUME | {"block_size": -1}), id="bad block size (6 #12)"),
        pytest.param(DISK, json.dumps(REGION | {"opts": {}}), id="region without options (6 #12)"),
        pytest.param(DISK, '{"type":"volume","read_only_parent":' * 30_000, id="nested without end (6 #12)"),
    ],
)
def test_crucible_disks_that_cannot_be(key, text):
    body = decode(48, put(register_body(48), f"vmm_spec.components.{key}", crucible(text)))
    with pytest.raises(InvalidRequest):
        to_registration(body)


def file_backend(path):
    component = {"block_size": 4096, "path": path, "readonly": False, "workers": 30}
    return {"type": "file_storage_backend", "component": component}


def test_file_backends_are_kept_with_their_paths():
    path = f"/dev/zvol/rdsk/oxp_{DISK}/local_storage_unencrypted/{DISK}/vol"
    registration = registered(48, put(register_body(48), "vmm_spec.components.local", file_backend(path)))
    assert registration.file_backends == (("local", path),)


@pytest.mark.parametrize("path", ["/tmp/x", f"/dev/zvol/rdsk/oxp_{DISK}/local_storage_encrypted/{DISK}/vol", ""])
def test_file_backends_elsewhere_are_refused(path):
    """SA 6 #13: the original panics."""
    body = decode(48, put(register_body(48), "vmm_spec.components.local", file_backend(path)))
    with pytest.raises(InvalidRequest):
        to_registration(body)


def test_times_are_brought_to_utc():
    body = put(register_body(48), "vmm_runtime.time_updated", "2026-08-21T12:30:00.5+02:30")
    assert registered(48, body).vmm_runtime.time_updated == datetime(2026, 8, 21, 10, 0, 0, 500000, tzinfo=UTC)
    assert registered(48, body).vmm_runtime.time_updated.tzinfo is UTC


def _fields(value, path=""):
    """Paths of everything inside a body."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}{key}"
            yield from _fields(inner, f"{path}{key}.")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield f"{path}{index}"
            yield from _fields(inner, f"{path}{index}.")


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_any_value_anywhere_is_taken_or_refused(data):
    """Whatever stands at a field: a registration, a parse error or an `InvalidRequest`; never another exception."""
    level = data.draw(st.sampled_from(SINCE), label="level")
    body = register_body(level)
    path = data.draw(st.sampled_from(sorted(_fields(body))), label="path")
    put(body, path, data.draw(ANY_JSON, label="value"))
    with suppress(BadJson, InvalidRequest):
        assert isinstance(registered(level, body), contract.Registration)


def test_vms_of_a_project_share_its_id_and_no_other():
    one, other = (registered(48, {**register_body(48), "instance_id": str(UUID(int=n))}) for n in (1, 2))
    assert one.project_id is other.project_id
    assert one.silo_id is other.silo_id
    assert one.silo_id != one.project_id
    assert one.instance_id != other.instance_id
