"""The body of a hand-off, the configurations that go with it, and what cannot be handed over (SR 6)."""

import json
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from uuid import UUID

import attrs
import msgspec
import pytest
from support.rows import in_one_test
from support.wire.documents import fits

from nexus_client.stub.handoff import HandoffBody, RackState
from sim_sled.core.config import Hardware
from sim_sled.core.handoff.body import config_of, make
from sim_sled.core.handoff.wishes import Facts, HandoffImpossible, RackSled, Wishes
from sim_sled.http.bodies_omicron import CONFIGS

FIRST = UUID("b6d65341-167c-41df-9b5c-41cded99c229")
SECOND = UUID("b6d65341-167c-41df-9b5c-41cded99c230")
EXAMPLES = Path(__file__).parents[4] / "data" / "handoff"
HASH = "$argon2id$v=19$m=98304,t=23,p=1$c2FsdHNhbHRzYWx0$aGFzaA"


def a_sled(sled_id=FIRST, ip="fd00:1122:3344:101::6", zpools=2, scrimlet=True):
    hardware = Hardware(zpools=zpools)
    return RackSled(
        sled_id,
        f"[{ip}]:12345",
        12348,
        scrimlet,
        hardware.pools_of(sled_id),
        {
            each.dataset_id: (each.zpool_id, f"[{ip}]:{32345 + number}")
            for number, each in enumerate(hardware.crucible_datasets_of(sled_id))
        },
        f"[{ip}]:17000",
    )


def facts(*sleds, dns="[fd00:1122:3344:101::3]:53"):
    http = dns.rpartition(":")[0] + ":5353"
    return Facts(sleds or (a_sled(),), dns, http, "2026-11-28T04:00:00Z", HASH)


WISHES = Wishes(
    "[fd00:1122:3344:101::5]:12221",
    12232,
    nexus_external="[fd00:1122:3344:101::5]:12220",
    dns="[fd00:1122:3344:101::3]:53",
    dns_http="[fd00:1122:3344:101::3]:5353",
    cockroach=("[fd00:1122:3344:101::4]:32221",),
    rack_subnet=IPv6Network("fd00:1122:3344:100::/56"),
)


def taken(made):
    """The model of Nexus says yes."""
    rack = RackState()
    rack.complete(rack.rack_id, msgspec.convert(made.body, HandoffBody, strict=False))
    return rack.handed_over is not None


@in_one_test(
    ("wishes", "known"),
    [
        pytest.param(WISHES, facts(), id="one sled, as in a compose file"),
        pytest.param(
            WISHES,
            facts(a_sled(), a_sled(SECOND, "fd00:1122:3344:102::6", scrimlet=False)),
            id="two sleds, each with its own /64",
        ),
        pytest.param(
            attrs.evolve(WISHES, nexus_external="198.51.100.20:80", external_dns_http="[fd00:1122:3344:101::9]:5353"),
            facts(),
            id="Nexus on IPv4, and external DNS",
        ),
        pytest.param(attrs.evolve(WISHES, certificate=("cert", "key")), facts(), id="with a certificate"),
        pytest.param(
            Wishes("[::1]:12221", 12232),
            facts(a_sled(ip="::1"), dns="[::1]:5353"),
            id="on loopback, and nothing is known of the rack's services",
        ),
    ],
)
def test_what_is_handed_over_fits_the_documents_and_is_taken(wishes, known):
    made = make(wishes, known)
    assert not fits("other/nexus-lockstep", "RackInitializationRequest", made.body)
    for config in made.configs.values():
        assert not fits("sled-agent/48.0.0", "OmicronSledConfig", config)
        CONFIGS(48).decode(json.dumps(config).encode())
    assert taken(made)


LOOKED_AT = EXAMPLES / "own-racks.json"
RACKS = {
    "two sleds, with everything": (
        attrs.evolve(
            WISHES,
            external_dns_http="[fd00:1122:3344:101::9]:5353",
            cockroach=("[fd00:1122:3344:101::4]:32221", "[fd00:1122:3344:102::4]:32221"),
            certificate=("cert", "key"),
        ),
        facts(a_sled(), a_sled(SECOND, "fd00:1122:3344:102::6", zpools=1, scrimlet=False)),
    ),
    "Nexus on IPv4": (attrs.evolve(WISHES, nexus_external="198.51.100.20:80"), facts(a_sled(zpools=1))),
    "loopback": (Wishes("[::1]:12221", 12232), facts(a_sled(ip="::1", zpools=1), dns="[::1]:5353")),
}
"""Between them every option of a hand-off."""


def _made():
    racks = {name: make(*rack) for name, rack in RACKS.items()}
    return {
        name: {"body": rack.body, "configs": {str(key): config for key, config in rack.configs.items()}}
        for name, rack in racks.items()
    }


def test_the_whole_of_a_rack_is_as_it_was_looked_at():
    """Each value was compared with SR 6.2 and the body that others wrote; what changes here is looked at again:
    `PYTHONPATH=.:tests python tests/unit/sim_sled/core/handoff/test_body.py` writes the file.
    """
    assert json.loads(json.dumps(_made())) == json.loads(LOOKED_AT.read_text())


def test_the_configuration_is_what_nexus_makes_of_the_blueprint():
    """The transformation, on a pair that was written down by others."""
    body = json.loads((EXAMPLES / "rack-initialization-complete.json").read_text())
    (sled,) = body["blueprint"]["sleds"].values()
    assert config_of(sled) == json.loads((EXAMPLES / "omicron-config.json").read_text())


def test_the_written_down_body_is_taken_but_for_its_placeholder_hash():
    body = json.loads((EXAMPLES / "rack-initialization-complete.json").read_text())
    rack = RackState()
    rack.complete(rack.rack_id, msgspec.convert(body, HandoffBody, strict=False))


def test_every_sled_has_the_generation_of_its_blueprint_and_its_own_subnet():
    made = make(WISHES, facts(a_sled(), a_sled(SECOND, "fd00:1122:3344:102::6")))
    for sled_id, sled in made.body["blueprint"]["sleds"].items():
        assert made.configs[UUID(sled_id)]["generation"] == sled["sled_agent_generation"]
        assert made.configs[UUID(sled_id)] == config_of(sled)
    subnets = [sled["subnet"]["net"] for sled in made.body["blueprint"]["sleds"].values()]
    assert subnets == ["fd00:1122:3344:101::/64", "fd00:1122:3344:102::/64"]


def test_nexus_finds_itself_and_everything_that_it_looks_up_in_dns():
    made = make(WISHES, facts())
    records = made.dns["zones"][0]["records"]
    for service in ("nexus", "nexus-lockstep", "cockroach", "crucible-pantry", "mgs", "dendrite", "repo-depot"):
        (srv,) = records[f"_{service}._tcp"]
        host = srv["data"]["target"].removesuffix(".control-plane.oxide.internal")
        assert records[host][0]["type"] == "AAAA"
    assert records["_nexus-lockstep._tcp"][0]["data"]["port"] == 12232
    zones = [zone for sled in made.body["blueprint"]["sleds"].values() for zone in sled["zones"]]
    assert "e6bff1ff-24fb-49dc-a54e-c6a350cd4d6c" in [zone["id"] for zone in zones]


def test_every_zone_and_durable_dataset_has_its_dataset_once_per_pool():
    (sled,) = make(WISHES, facts()).body["blueprint"]["sleds"].values()
    kinds = [(each["pool"], each["kind"]) for each in sled["datasets"]]
    assert len(kinds) == len(set(kinds))
    for zone in sled["zones"]:
        assert any(pool == zone["filesystem_pool"] and kind.endswith(zone["id"]) for pool, kind in kinds)
    ids = [each["id"] for each in sled["datasets"]]
    assert len(ids) == len(set(ids))


def test_the_next_address_of_the_planner_is_free():
    zone_at = attrs.evolve(WISHES, cockroach=("[fd00:1122:3344:101::40]:32221",))
    (sled,) = make(zone_at, facts()).body["blueprint"]["sleds"].values()
    assert sled["last_allocated_ip_subnet_offset"] == 0x40
    (sled,) = make(WISHES, facts()).body["blueprint"]["sleds"].values()
    assert sled["last_allocated_ip_subnet_offset"] == 32
    assert IPv6Address("fd00:1122:3344:101::6") in IPv6Network(sled["subnet"]["net"])


@pytest.mark.parametrize(
    ("dns", "address"),
    [("[fd00:1122:3344:1::1]:53", "fd00:1122:3344:1::2"), ("[fd00:1122:3344:101::3]:53", "::1")],
)
def test_the_global_zone_takes_no_address_that_may_be_somebody_elses(dns, address):
    (sled,) = make(WISHES, facts(dns=dns)).body["blueprint"]["sleds"].values()
    (zone,) = (each["zone_type"] for each in sled["zones"] if each["zone_type"]["type"] == "internal_dns")
    assert (zone["dns_address"], zone["gz_address"]) == (dns, address)


def test_the_same_facts_always_give_the_same_rack():
    assert make(WISHES, facts()).body == make(WISHES, facts()).body


@in_one_test(
    ("wishes", "known", "why"),
    [
        pytest.param(WISHES, facts(a_sled(zpools=0)), "--zpools", id="no pool for the zones"),
        pytest.param(
            attrs.evolve(WISHES, nexus_internal="127.0.0.1:12221"), facts(), "NEXUS_ADDR", id="Nexus on IPv4 inside"
        ),
        pytest.param(
            attrs.evolve(WISHES, cockroach=("10.0.0.1:32221",)), facts(), "--cockroach-addr", id="as a zone"
        ),
        pytest.param(
            attrs.evolve(WISHES, cockroach=tuple(f"[fd00::{n}]:32221" for n in range(3))),
            facts(),
            "zpool of its own",
            id="more CockroachDB nodes than pools",
        ),
    ],
)
def test_what_cannot_be_handed_over_names_its_option(wishes, known, why):
    with pytest.raises(HandoffImpossible, match=why):
        make(wishes, known)


def test_what_is_not_as_on_a_rack_is_said():
    told = "\n".join(make(Wishes("[::1]:12221", 12232), facts(a_sled(ip="::1"), dns="[::1]:5353")).told)
    for words in ("--rss-nexus-external-addr", "--cockroach-addr", "loopback", "execution"):
        assert words in told
    assert make(WISHES, facts()).told == ()


@in_one_test(
    ("wishes", "known", "word"),
    [
        (WISHES, facts(a_sled(scrimlet=False)), "--role scrimlet"),
        (WISHES, facts(a_sled(), a_sled(SECOND)), "share an address"),
        (attrs.evolve(WISHES, rack_subnet=IPv6Network("fd00:1122:3344::/56")), facts(), "--rack-subnet"),
        (attrs.evolve(WISHES, cockroach=()), facts(), "--cockroach-addr"),
        (attrs.evolve(WISHES, cockroach=("[fd00:1122:3344:109::4]:32221",)), facts(), "lies in no sled's /64"),
    ],
)
def test_each_difference_to_a_rack_is_one_sentence(wishes, known, word):
    (told,) = make(wishes, known).told
    assert word in told


def test_at_most_six_depots_are_in_dns():
    sleds = [a_sled(UUID(int=number + 1), f"fd00:1122:3344:10{number}::6", zpools=1) for number in range(8)]
    (zone,) = make(WISHES, facts(*sleds)).dns["zones"]
    targets = [each["data"]["target"].partition(".")[0] for each in zone["records"]["_repo-depot._tcp"]]
    assert targets == [str(UUID(int=number + 1)) for number in range(6)]


def test_the_lockstep_api_is_at_the_host_of_the_internal_one():
    assert WISHES.lockstep == "[fd00:1122:3344:101::5]:12232"


if __name__ == "__main__":
    LOOKED_AT.write_text(json.dumps(_made(), indent=1, sort_keys=True) + "\n")
