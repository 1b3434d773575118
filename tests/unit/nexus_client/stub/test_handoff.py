"""Every rule that a Nexus has for a hand-off is a refusal with its text (SR 6.1)."""

import copy
import json
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from support.rows import in_one_test

from nexus_client.stub.handoff import RACK_ID, HandoffBody, RackState
from nexus_client.stub.refusal import Refused

BODY = json.loads((Path(__file__).parents[3] / "data" / "handoff" / "rack-initialization-complete.json").read_text())
OTHER = "00000000-0000-4000-8000-000000000001"


def parsed(body):
    return msgspec.convert(body, HandoffBody, strict=False)


@pytest.fixture(name="body")
def _body():
    return copy.deepcopy(BODY)


def refusal(body, rack_id=RACK_ID, rack=None):
    rack = rack or RackState()
    with pytest.raises(Refused) as caught:
        rack.complete(rack_id, parsed(body))
    assert rack.handed_over is None
    return caught.value.refusal.status, caught.value.refusal.message


def test_a_good_body_is_taken_and_repeating_it_has_no_effect(body):
    rack = RackState()
    rack.complete(RACK_ID, parsed(body))
    first = rack.handed_over
    body["recovery_silo"]["silo_name"] = "other"
    rack.complete(RACK_ID, parsed(body))
    assert rack.handed_over is first


def test_an_initialised_rack_looks_at_the_network_and_says_yes_to_the_rest(body):
    rack = RackState()
    rack.complete(RACK_ID, parsed(body))
    body["service_ip_pools"] = []
    body["crucible_datasets"][0]["zpool_id"] = OTHER
    body["zpools"][0]["physical_disk_id"] = OTHER
    rack.complete(RACK_ID, parsed(body))
    body["rack_network_config"]["ports"][0]["port"] = "qsfp99"
    with pytest.raises(Refused, match="qsfp99"):
        rack.complete(RACK_ID, parsed(body))


SLED = next(iter(BODY["blueprint"]["sleds"]))
REQUIRED = {
    (): (
        "allowed_source_ips blueprint certs crucible_datasets external_dns_zone_name internal_dns_zone_config"
        " physical_disks rack_network_config recovery_silo service_ip_pools zpools"
    ),
    ("blueprint",): (
        "cockroachdb_fingerprint cockroachdb_setting_preserve_downgrade comment creator external_dns_version"
        " external_networking_generation id internal_dns_version nexus_generation oximeter_read_mode"
        " oximeter_read_version pending_mgs_updates sleds source target_release_minimum_generation time_created"
    ),
    ("blueprint", "sleds", SLED): (
        "datasets disks host_phase_2 last_allocated_ip_subnet_offset measurements sled_agent_generation state subnet"
        " update_disposition zones"
    ),
    ("blueprint", "sleds", SLED, "disks", 0): "disposition id identity pool_id",
    ("blueprint", "sleds", SLED, "datasets", 0): "compression disposition id kind pool",
    ("rack_network_config", "ports", 0): "addresses bgp_peers port routes switch uplink_port_speed",
}


@in_one_test("where", REQUIRED, ids=lambda where: ".".join(map(str, where)) or "the body")
def test_what_a_hand_off_must_have_it_may_not_lack(body, where):
    part = body
    for step in where:
        part = part[step]
    for name in REQUIRED[where].split():
        kept = part.pop(name)
        with pytest.raises(msgspec.ValidationError, match=name):
            parsed(body)
        part[name] = kept
    parsed(body)


@pytest.mark.parametrize("port", [None, 1, ["qsfp0"], {"qsfp0": 1}])
def test_a_port_whose_name_is_no_text_is_refused_as_it_is_read(body, port):
    body["rack_network_config"]["ports"][0]["port"] = port
    with pytest.raises(msgspec.ValidationError, match=r"ports\[0\]\.port"):
        parsed(body)


def test_another_rack(body):
    assert refusal(body, UUID(OTHER)) == (404, f'not found: rack with id "{OTHER}"')


def test_dns_without_the_control_plane(body):
    body["internal_dns_zone_config"]["zones"][0]["zone_name"] = "oxide.test"
    assert refusal(body) == (400, "expected initial DNS config to include control plane zone")


def test_a_port_that_dendrite_did_not_list(body):
    rack = RackState(switch_ports=frozenset())
    assert refusal(body, rack=rack) == (404, 'not found: switch-port with name "qsfp0"')


def test_an_external_address_outside_of_the_service_pools(body):
    body["service_ip_pools"][0]["ranges"] = [{"first": "198.51.100.21", "last": "198.51.100.29"}]
    assert refusal(body) == (400, "no system services pool for external IP 198.51.100.20")


@pytest.mark.parametrize(
    "zone_type",
    [
        pytest.param({"type": "nexus", "external_ip": {"ip": "203.0.113.7"}}, id="Nexus"),
        pytest.param({"type": "external_dns", "dns_address": {"addr": "203.0.113.7:53"}}, id="external DNS"),
        pytest.param({"type": "boundary_ntp", "external_ip": {"snat_cfg": {"ip": "203.0.113.7"}}}, id="boundary NTP"),
    ],
)
def test_each_kind_of_zone_with_an_external_address_needs_a_pool_for_it(body, zone_type):
    zones = body["blueprint"]["sleds"][SLED]["zones"]
    zones.append(zones[0] | {"zone_type": zone_type})
    assert refusal(body) == (400, "no system services pool for external IP 203.0.113.7")
    body["service_ip_pools"][0]["ranges"].append({"first": "203.0.113.7", "last": "203.0.113.7"})
    RackState().complete(RACK_ID, parsed(body))


def test_a_dataset_on_a_pool_that_nobody_has(body):
    body["crucible_datasets"][0]["zpool_id"] = OTHER
    assert refusal(body) == (404, f'not found: zpool with id "{OTHER}"')


def test_a_pool_on_a_disk_that_nobody_has(body):
    body["zpools"][0]["physical_disk_id"] = OTHER
    assert refusal(body) == (404, f'not found: physical-disk with id "{OTHER}"')


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(
            lambda body: body["rack_network_config"].update(ports=[]), "at least one uplink port", id="ports"
        ),
        pytest.param(
            lambda body: body["recovery_silo"].update(user_password_hash="oxide"), "PHC", id="a plain password"
        ),
        pytest.param(
            lambda body: body["recovery_silo"].update(user_password_hash="$argon2id$v=19$m=1024,t=1,p=1$a$b"),
            "argon2id",
            id="a cheap hash",
        ),
        pytest.param(
            lambda body: body["service_ip_pools"][0].update(ranges=[{"first": "10.0.0.2", "last": "10.0.0.1"}]),
            "last address",
            id="a range that runs backwards",
        ),
    ],
)
def test_what_the_types_refuse(body, change, words):
    change(body)
    status, message = refusal(body)
    assert status == 400
    assert words in message


def test_the_order_of_the_rules(body):
    """Everything is wrong: what is mended makes room for the next refusal."""
    rack = RackState(switch_ports=frozenset({"qsfp1"}))
    body["internal_dns_zone_config"]["zones"] = []
    body["service_ip_pools"] = []
    body["crucible_datasets"][0]["zpool_id"] = OTHER
    body["zpools"][0]["physical_disk_id"] = OTHER
    assert "rack" in refusal(body, UUID(OTHER), rack)[1]
    assert "DNS config" in refusal(body, rack=rack)[1]
    body["internal_dns_zone_config"] = BODY["internal_dns_zone_config"]
    assert "switch-port" in refusal(body, rack=rack)[1]
    body["rack_network_config"]["ports"][0]["port"] = "qsfp1"
    assert "services pool" in refusal(body, rack=rack)[1]
    body["service_ip_pools"] = BODY["service_ip_pools"]
    assert "zpool" in refusal(body, rack=rack)[1]
    body["crucible_datasets"] = BODY["crucible_datasets"]
    assert "physical-disk" in refusal(body, rack=rack)[1]
