"""DNS questions and answers, byte for byte on the wire (SR 5.3)."""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_sled.companions.dns_wire import UDP_MAX, answer
from sim_sled.core.dns.zones import Dns, DnsConfig, Record, Srv, Zone
from sim_sled.core.errors import BadRequest, DnsGeneration

ZONE = "control-plane.oxide.internal"
HOST = f"a.host.{ZONE}"
RECORDS = {
    "@": (Record("NS", f"ns1.{ZONE}"),),
    "ns1": (Record("AAAA", "fd00::53"),),
    "a.host": (Record("AAAA", "fd00::1"), Record("A", "10.0.0.1")),
    "_nexus._tcp": tuple(Record("SRV", Srv(0, 0, 12221, HOST)) for _ in range(1)),
    "_many._tcp": tuple(Record("SRV", Srv(0, 0, port, HOST)) for port in range(1, 101)),
    "_bad._tcp": (Record("SRV", Srv(0, 0, 1, "x" * 70)),),
}


@pytest.fixture(name="server", scope="module")
def _server():
    server = Dns()
    server.put(DnsConfig(7, 7, "2026-11-28T00:00:00Z", (Zone(ZONE, RECORDS),)), 0)
    return server


def ask(server, name, kind, size_max=None, **more):
    question = dns.message.make_query(name, kind, **more)
    reply = dns.message.from_wire(answer(question.to_wire(), server.ask, size_max))
    assert reply.id == question.id
    assert reply.question == question.question
    return reply


def texts(section):
    return sorted(rdata.to_text() for rrset in section for rdata in rrset)


def test_addresses_of_a_host_in_any_case_and_without_a_time_to_live(server):
    reply = ask(server, HOST.upper(), "AAAA")
    assert (reply.rcode(), texts(reply.answer), reply.answer[0].ttl) == (dns.rcode.NOERROR, ["fd00::1"], 0)
    assert reply.flags & dns.flags.AA
    assert texts(ask(server, HOST, "A").answer) == ["10.0.0.1"]


def test_a_service_comes_with_the_addresses_of_its_host(server):
    reply = ask(server, f"_nexus._tcp.{ZONE}", "SRV")
    assert texts(reply.answer) == [f"0 0 12221 {HOST}."]
    assert texts(reply.additional) == ["10.0.0.1", "fd00::1"]


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "authority"),
    [
        pytest.param(f"nobody.{ZONE}", "AAAA", dns.rcode.NXDOMAIN, 1, id="a name that is not there"),
        pytest.param(f"ns1.{ZONE}", "A", dns.rcode.NOERROR, 1, id="a name without this type"),
        pytest.param("oxide.computer", "A", dns.rcode.SERVFAIL, 0, id="no zone of ours"),
        pytest.param(f"not{ZONE}", "A", dns.rcode.SERVFAIL, 0, id="the end of the name alone is not enough"),
        pytest.param(f"_bad._tcp.{ZONE}", "SRV", dns.rcode.SERVFAIL, 0, id="a target that no wire can carry"),
    ],
)
def test_answers_that_name_nothing(server, name, kind, rcode, authority):
    reply = ask(server, name, kind)
    assert (reply.rcode(), reply.answer, len(reply.authority)) == (rcode, [], authority)
    for rrset in reply.authority:
        assert (rrset.rdtype, rrset[0].serial) == (dns.rdatatype.SOA, 7)


def test_the_zone_itself(server):
    assert texts(ask(server, ZONE, "NS").answer) == [f"ns1.{ZONE}."]
    assert ask(server, ZONE, "SOA").answer[0][0].mname.to_text() == f"ns1.{ZONE}."


def test_what_does_not_fit_a_packet_is_cut_off_and_asked_for_again_over_tcp(server):
    small = ask(server, f"_many._tcp.{ZONE}", "SRV", UDP_MAX)
    assert small.flags & dns.flags.TC
    large = ask(server, f"_many._tcp.{ZONE}", "SRV", UDP_MAX, use_edns=0, payload=65_000)
    assert large.flags & dns.flags.TC
    assert len(ask(server, f"_many._tcp.{ZONE}", "SRV").answer[0]) == 100


def test_other_requests_than_questions(server):
    update = dns.message.make_query(HOST, "A")
    update.set_opcode(4)
    assert dns.message.from_wire(answer(update.to_wire(), server.ask)).rcode() == dns.rcode.NOTIMP
    reply = dns.message.make_response(dns.message.make_query(HOST, "A"))
    assert answer(reply.to_wire(), server.ask) is None, "an answer is not answered"


@given(st.binary(max_size=60))
def test_garbage_is_answered_with_a_format_error_or_not_at_all(server, packet):
    reply = answer(packet, server.ask, UDP_MAX)
    if reply is not None:
        assert reply[:2] == packet[:2]
        assert reply[2] & 0x80


def test_generations(server):
    config = server.config
    server.put(DnsConfig(7, 9, "x", ()), 1)
    assert server.config is config, "an equal generation is not looked at"
    with pytest.raises(DnsGeneration, match="generation 6 while at generation 7"):
        server.put(DnsConfig(6, 6, "x", ()), 1)
    with pytest.raises(BadRequest, match="IncompatibleRecord"):
        server.get(1)  # version 1 knows no NS
