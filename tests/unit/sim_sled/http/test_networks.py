"""Operations 5 to 12 and 14 to 22 over HTTP: their bodies and answers (SA 3.1, 3.4)."""

from __future__ import annotations

import pytest
from support.daemon.sled_http import NIC_V1, NIC_V10, RULE, VMM, register_body, serving
from support.rows import in_one_test

BASE = f"/vmms/{VMM}"
VPC = "476d0062-5852-40c1-b406-07837a96b5f6"
ROUTER = "ddda423c-6e54-4048-8356-d2690c6ffdcb"
SUBNETS = BASE + "/attached-subnets"
SYSTEM = {"vni": 1, "kind": {"type": "system"}}
BAD_JSON = "unable to parse JSON body: "


async def registered(sled, level=48):
    got = await sled.ask("PUT", BASE, register_body(level), version=f"{level}.0.0")
    assert got.status == 200


def assert_refused(got, status, code=None, prefix=""):
    assert got.status == status
    assert got.json.get("error_code") == code
    assert got.json["message"].startswith(prefix)


@in_one_test(
    ("method", "path", "body"),
    [
        ("PUT", "/external-ip", {"type": "ephemeral", "value": "203.0.113.77"}),
        ("DELETE", "/external-ip", {"type": "floating", "value": "203.0.113.77"}),
        ("PUT", "/multicast-group", {"join": {"group_ip": "239.10.0.2", "sources": []}}),
        ("DELETE", "/multicast-group", {"leave": {"group_ip": "239.10.0.2", "sources": []}}),
        ("PUT", "/attached-subnets", {"subnets": []}),
        ("POST", "/attached-subnets", {"kind": "vpc", "subnet": "10.0.0.0/24"}),
        ("DELETE", "/attached-subnets", None),
        ("DELETE", "/attached-subnets/10.0.0.0%2F24", None),
    ],
)
async def test_calls_on_a_vmm(method, path, body):
    """500 `Internal` while it is not registered, 204 while it is, 500 again once it is gone."""
    async with serving() as sled:
        for expected in (500, 204, 500):
            got = await sled.ask(method, BASE + path, body)
            assert got.status == expected
            if expected == 500:
                assert_refused(got, 500, "Internal", "Internal Server Error")
            await (sled.ask("DELETE", BASE) if sled.host.networking.snapshot()["vmms"] else registered(sled))


async def test_a_second_ephemeral_address_of_a_family_is_an_invalid_request():
    async with serving() as sled:
        await registered(sled)
        for value, status in [
            ("203.0.113.77", 204),
            ("203.0.113.78", 400),
            ("2001:db8::1", 204),
            ("2001:DB8:0::1", 204),
        ]:
            got = await sled.ask("PUT", BASE + "/external-ip", {"type": "ephemeral", "value": value})
            assert got.status == status, value
        assert_refused(
            await sled.ask("PUT", BASE + "/external-ip", {"type": "ephemeral", "value": "203.0.113.78"}),
            400, "InvalidRequest", "cannot replace existing ephemeral IP without explicit removal",
        )  # fmt: skip


async def test_a_subnet_attached_twice_is_a_conflict():
    async with serving() as sled:
        await registered(sled)
        subnet = {"kind": "external", "subnet": "198.51.100.0/27"}
        assert (await sled.ask("POST", BASE + "/attached-subnets", subnet)).status == 204
        got = await sled.ask("POST", BASE + "/attached-subnets", subnet)
        assert_refused(got, 409, "Conflict", "Subnet already attached")
        assert (await sled.ask("DELETE", BASE + "/attached-subnets/198.51.100.0%2f27")).status == 204
        assert (await sled.ask("POST", BASE + "/attached-subnets", subnet)).status == 204


@pytest.mark.parametrize(("method", "word", "other"), [("PUT", "join", "leave"), ("DELETE", "leave", "join")])
async def test_multicast_endpoints_take_one_variant_each(method, word, other):
    group = {"group_ip": "239.10.0.2", "sources": []}
    async with serving() as sled:
        await registered(sled)
        path = BASE + "/multicast-group"
        assert (await sled.ask(method, path, {word: group})).status == 204
        got = await sled.ask(method, path, {other: group})
        assert_refused(got, 400, None, f"{word.capitalize()} endpoint cannot process {other.capitalize()} operations")
        for bad in (
            {},
            {word: group, other: group},
            {word: group, "x": 1},
            {word: {"group_ip": "239.10.0.2"}},
            [],
            None,
        ):
            got = await sled.ask(method, path, raw_body=b"null" if bad is None else None, body=bad)
            assert_refused(got, 400, None, BAD_JSON)


@in_one_test(
    ("method", "path", "body"),
    [
        pytest.param("PUT", BASE + "/external-ip", {"type": "snat", "value": "203.0.113.5"}, id="kind of address"),
        pytest.param("PUT", BASE + "/external-ip", {"type": "floating", "value": "203.0.113.500"}, id="no address"),
        pytest.param("DELETE", BASE + "/external-ip", None, id="DELETE without its body"),
        pytest.param("POST", SUBNETS, {"kind": "external", "subnet": "198.51.100.0"}, id="no prefix"),
        pytest.param("POST", SUBNETS, {"kind": "x", "subnet": "198.51.100.0/24"}, id="kind of subnet"),
        pytest.param(
            "PUT", SUBNETS,
            {"subnets": [{"kind": "vpc", "subnet": "10.0.0.0/8"}, {"kind": "external", "subnet": "10.0.0.0/8"}]},
            id="the same subnet twice",
        ),
        pytest.param("PUT", "/v2p", {"virtual_ip": "10.0.0.1"}, id="half a mapping"),
        pytest.param(
            "PUT", "/v2p",
            {"virtual_ip": "10.0.0.1", "virtual_mac": "a:b", "physical_host_ip": "fd00::1", "vni": 1}, id="bad MAC",
        ),
        pytest.param(
            "PUT", "/v2p",
            {"virtual_ip": "10.0.0.1", "virtual_mac": "a:b:c:d:e:f", "physical_host_ip": "10.0.0.2", "vni": 1},
            id="a physical host with an IPv4 address",
        ),
        pytest.param("PUT", "/vpc-routes", {}, id="no list"),
        pytest.param("PUT", "/vpc-routes", [{"id": {"vni": 1, "kind": {"type": "custom"}}, "routes": []}], id="half"),
        pytest.param(
            "PUT", "/vpc-routes",
            [{"id": SYSTEM, "routes": [{"dest": "0.0.0.0/0", "target": {"type": "up"}}]}],
            id="unknown target",
        ),
        pytest.param("PUT", f"/vpc/{VPC}/firewall/rules", {"vni": 1, "rules": [{}]}, id="an empty rule"),
        pytest.param("PUT", f"/vpc/{VPC}/firewall/rules", {"vni": 2**32, "rules": []}, id="VNI too large"),
        pytest.param("PUT", "/eip-gateways", {"mappings": {"net0": {}}}, id="key is no UUID"),
        pytest.param("PUT", "/eip-gateways", {"mappings": {VPC: {"x": []}}}, id="inner key is no address"),
        pytest.param("PUT", "/eip-gateways", {"mappings": {VPC: {"10.0.0.1": "any"}}}, id="no list of gateways"),
        pytest.param("PUT", "/probes", {"probes": [{"id": VPC, "external_ips": []}]}, id="probe without interface"),
        pytest.param("PUT", "/sleds", {"sled_id": {}}, id="half a sled"),
    ],
)  # fmt: skip
async def test_bodies_that_do_not_fit(method, path, body):
    async with serving() as sled:
        await registered(sled)
        before = sled.host.networking.snapshot()
        assert_refused(await sled.ask(method, path, body), 400, None, BAD_JSON)
        assert sled.host.networking.snapshot() == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/attached-subnets/10.0.0.0", 400),
        ("/attached-subnets/10.0.0.0/24", 404),
        ("/attached-subnets/fd00::%2F64", 204),
    ],
)
async def test_the_subnet_in_the_path_is_one_segment(path, status):
    async with serving() as sled:
        await registered(sled)
        got = await sled.ask("DELETE", BASE + path)
        assert got.status == status
        if status == 400:
            assert_refused(got, 400, None, "bad parameter in URL path: ")


async def test_v2p_mappings_are_listed_in_their_canonical_form_and_order():
    spelled = {"virtual_ip": "FD00::0:2", "virtual_mac": "a8:40:25:f:0:1", "physical_host_ip": "fd00::1", "vni": 7}
    other = {"virtual_ip": "10.0.0.1", "virtual_mac": "A8:40:25:00:00:01", "physical_host_ip": "fd00::1", "vni": 7}
    async with serving() as sled:
        for mapping in (spelled, other, spelled):
            assert (await sled.ask("PUT", "/v2p", mapping)).status == 204
        canonical = spelled | {"virtual_ip": "fd00::2", "virtual_mac": "A8:40:25:0F:00:01"}
        assert (await sled.ask("GET", "/v2p")).json == [other, canonical]
        assert (await sled.ask("DELETE", "/v2p", canonical)).status == 204
        assert (await sled.ask("DELETE", "/v2p", canonical)).status == 204
        assert (await sled.ask("GET", "/v2p")).json == [other]


async def test_vpc_routes_of_a_registered_vmm():
    system = {"vni": 11382783, "kind": {"type": "system"}}
    custom = {"vni": 11382783, "kind": {"type": "custom", "subnet": "172.30.0.0/22"}}
    version = {"router_id": ROUTER, "version": 5}
    gateway = {"type": "internet_gateway", "value": {"type": "instance", "value": VPC}}
    routes = [
        {"dest": "0.0.0.0/0", "target": gateway},
        {"dest": "0.0.0.0/0", "target": gateway},
        {"dest": "10.0.0.0/8", "target": {"type": "ip", "value": "10.0.0.1"}},
        {"dest": "10.1.0.0/16", "target": {"type": "vpc_subnet", "value": "10.0.0.0/8"}},
        {"dest": "10.2.0.0/16", "target": {"type": "drop"}},
    ]
    async with serving() as sled:
        assert (await sled.ask("GET", "/vpc-routes")).json == []
        await registered(sled)
        assert (await sled.ask("GET", "/vpc-routes")).json == [
            {"id": system, "version": None}, {"id": custom, "version": None}
        ]  # fmt: skip
        new = [
            {"id": system, "version": version, "routes": routes},
            {"id": {"vni": 1, "kind": {"type": "system"}}, "routes": []},
        ]
        assert (await sled.ask("PUT", "/vpc-routes", new)).status == 204
        assert (await sled.ask("GET", "/vpc-routes")).json == [
            {"id": system, "version": version}, {"id": custom, "version": None}
        ]  # fmt: skip
        stored = sled.host.networking.snapshot()["vpc_routes"][0]["routes"]
        assert len(stored) == 4, "routes are a set"
        assert all(route in routes for route in stored)
        await sled.ask("DELETE", BASE)
        assert (await sled.ask("GET", "/vpc-routes")).json == []


@in_one_test(
    ("version", "nic", "protocols", "status"),
    [
        ("9.0.0", NIC_V1, [{"type": "tcp"}], 204),
        ("10.0.0", NIC_V1, [], 400),
        ("9.0.0", NIC_V10, [], 400),
        ("10.0.0", NIC_V10, [{"type": "icmp", "value": None}], 204),
        ("30.0.0", NIC_V10, [{"type": "icmp6", "value": None}], 400),
        ("31.0.0", NIC_V10, [{"type": "icmp6", "value": {"icmp_type": 1}}], 204),
        ("48.0.0", NIC_V10, [{"type": "icmp6"}], 204),
    ],
)
async def test_firewall_rules_by_version(version, nic, protocols, status):
    body = {"vni": 11382783, "rules": [RULE | {"targets": [nic], "filter_protocols": protocols}]}
    async with serving() as sled:
        got = await sled.ask("PUT", f"/vpc/{VPC}/firewall/rules", body, version=version)
        assert got.status == status
        if status == 204:
            (rule,) = sled.host.networking.snapshot()["firewall"][VPC]["rules"]
            assert (rule["action"], rule["filter_ports"]) == ("allow", ["22", "1024-2048"])
        else:
            assert_refused(got, 400, None, BAD_JSON)


async def test_old_firewall_targets_that_cannot_be_converted_are_invalid_requests():
    nic = NIC_V1 | {"ip": "fd00::1"}
    async with serving() as sled:
        body = {"vni": 1, "rules": [RULE | {"targets": [nic]}]}
        got = await sled.ask("PUT", f"/vpc/{VPC}/firewall/rules", body, version="9.0.0")
        assert_refused(got, 400, "InvalidRequest")


def probe(nic, probe_id=VPC):
    ip = {"ip": "203.0.113.40", "kind": "ephemeral", "first_port": 0, "last_port": 65535}
    return {"id": probe_id, "external_ips": [ip], "interface": nic | {"kind": {"type": "probe", "id": probe_id}}}


@in_one_test(
    ("version", "nic", "status"),
    [("5.0.0", NIC_V1, 404), ("6.0.0", NIC_V1, 204), ("9.0.0", NIC_V1, 204), ("9.0.0", NIC_V10, 400),
     ("10.0.0", NIC_V10, 204), ("10.0.0", NIC_V1, 400), ("48.0.0", NIC_V10, 204)],
)  # fmt: skip
async def test_probes_by_version(version, nic, status):
    async with serving() as sled:
        got = await sled.ask("PUT", "/probes", {"probes": [probe(nic)]}, version=version)
        assert got.status == status
        assert len(sled.host.networking.snapshot()["probes"]) == (status == 204)


async def test_probes_are_a_set_by_id():
    async with serving() as sled:
        got = await sled.ask("PUT", "/probes", {"probes": [probe(NIC_V10), probe(NIC_V10)]})
        assert_refused(got, 400, None, BAD_JSON)
        got = await sled.ask("PUT", "/probes", {"probes": [probe(NIC_V10), probe(NIC_V10, ROUTER)]})
        assert got.status == 204
        assert [row["id"] for row in sled.host.networking.snapshot()["probes"]] == [VPC, ROUTER]
        assert (await sled.ask("PUT", "/probes", {"probes": []})).status == 204
        assert sled.host.networking.snapshot()["probes"] == []


async def test_old_probes_that_cannot_be_converted_are_invalid_requests():
    async with serving() as sled:
        nic = NIC_V1 | {"subnet": "10.0.0.0/8"}
        got = await sled.ask("PUT", "/probes", {"probes": [probe(nic)]}, version="6.0.0")
        assert_refused(got, 400, "InvalidRequest")


async def test_gateways_are_replaced_as_a_whole():
    async with serving() as sled:
        body = {"mappings": {VPC.upper(): {"203.0.113.14": [ROUTER, VPC, ROUTER], "2001:DB8::5": []}}}
        assert (await sled.ask("PUT", "/eip-gateways", body)).status == 204
        assert sled.host.networking.snapshot()["eip_gateways"] == {
            VPC: {"2001:db8::5": [], "203.0.113.14": [VPC, ROUTER]}
        }  # fmt: skip
        assert (await sled.ask("PUT", "/eip-gateways", {"mappings": {}})).status == 204
        assert sled.host.networking.snapshot()["eip_gateways"] == {}


async def test_other_sleds_are_accepted_and_ignored():
    start = {
        "generation": 1, "schema_version": 1,
        "body": {"id": VPC, "rack_id": ROUTER, "is_lrtq_learner": False, "use_trust_quorum": True,
                 "subnet": {"net": "fd00:1122:3344:101::/64"}},
    }  # fmt: skip
    body = {"sled_id": {"part_number": "913-0000019", "serial_number": "BRM1"}, "start_request": start}
    async with serving() as sled:
        for version in ("1.0.0", "41.0.0", "42.0.0", "48.0.0"):
            assert (await sled.ask("PUT", "/sleds", body, version=version)).status == 204
