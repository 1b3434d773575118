"""What a DNS server answers from what it was told (SR 5.3): zones, names, generations."""

import pytest

from sim_sled.core.dns.zones import Dns, DnsConfig, Record, Srv, Verdict, Zone
from sim_sled.core.errors import BadRequest, DnsBusy, DnsGeneration

HERE, THERE = Record("AAAA", "fd00::1"), Record("A", "10.0.0.1")


def config(generation, *zones, serial=7):
    return DnsConfig(generation, serial, "2026-01-01T00:00:00Z", zones)


def zone(name, **records):
    return Zone(name, {key.replace("apex", "@"): tuple(value) for key, value in records.items()})


@pytest.fixture(name="dns")
def _dns():
    dns = Dns()
    outer = zone("oxide.example", apex=[Record("NS", "ns1.oxide.example")], ns1=[HERE], api=[HERE, THERE])
    inner = zone("sys.oxide.example", api=[THERE], bare=[])
    service = zone("control-plane.internal", _nexus=[Record("SRV", Srv(0, 0, 12221, "api.oxide.example."))])
    dns.put(config(2, outer, inner, service), 5)
    return dns


def test_of_two_zones_around_a_name_the_inner_one_answers(dns):
    found = dns.ask("api.sys.oxide.example", "ANY")
    assert (found.zone, found.records) == ("sys.oxide.example", (THERE,))
    assert dns.ask("api.oxide.example.", "AAAA").records == (HERE,)


def test_a_name_that_only_ends_like_a_zone_is_in_none(dns):
    for name in ("noxide.example", "api.noxide.example", "example", ""):
        assert dns.ask(name, "ANY").verdict is Verdict.NO_ZONE


def test_the_zone_itself_is_a_name_also_without_records(dns):
    assert dns.ask("sys.oxide.example", "A").verdict is Verdict.FOUND
    assert dns.ask("sys.oxide.example", "A").records == ()
    nobody = dns.ask("nobody.oxide.example", "A")
    assert (nobody.verdict, nobody.serial) == (Verdict.NO_NAME, 7)
    assert nobody.name_servers == (Record("NS", "ns1.oxide.example"),)


def test_names_are_compared_without_case_and_last_dot(dns):
    assert dns.ask("API.Oxide.EXAMPLE.", "A").records == (THERE,)


def test_a_host_that_a_record_names_comes_along_with_its_addresses(dns):
    found = dns.ask("_nexus.control-plane.internal", "SRV")
    assert found.more == (("api.oxide.example.", HERE), ("api.oxide.example.", THERE))
    assert dns.ask("oxide.example", "NS").more == (("ns1.oxide.example", HERE),)
    assert dns.ask("oxide.example", "A").records == ()
    dns.put(config(3, zone("here.internal", _far=[Record("SRV", Srv(0, 0, 1, "far.away.example"))])), 6)
    assert dns.ask("_far.here.internal", "SRV").more == (), "nobody here knows that host"


def test_generations_only_grow_and_the_same_one_is_not_looked_at(dns):
    with pytest.raises(DnsGeneration):
        dns.put(config(1), 9)
    dns.put(config(2), 9)
    assert len(dns.config.zones) == 3
    assert dns.config.applied_us == 5
    dns.put(config(3), 9)
    assert (dns.config.zones, dns.config.applied_us) == ((), 9)


def test_a_busy_server_takes_nothing(dns):
    dns.knobs.busy = True
    with pytest.raises(DnsBusy):
        dns.put(config(3), 9)
    assert dns.config.generation == 2


def test_the_old_api_cannot_tell_of_name_servers(dns):
    with pytest.raises(BadRequest):
        dns.get(1)
    assert dns.get(2).generation == 2
    dns.put(config(3, zone("a.example", x=[HERE])), 9)
    assert dns.get(1).generation == 3


def test_what_is_dumped_is_taken_up_again(dns):
    again = Dns()
    again.load(dns.dump())
    assert again.config == dns.config
    assert again.ask("_nexus.control-plane.internal", "SRV") == dns.ask("_nexus.control-plane.internal", "SRV")
