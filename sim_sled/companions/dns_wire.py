"""DNS over UDP and TCP: dnspython reads and writes the wire, `core/dns/zones.py` decides what is said (SR 5.3).

A name outside of every zone is a SERVFAIL, not a REFUSED: that sends simple resolvers on to their next server, as the
original has it. All records have a time to live of 0, as the original's.

Read before: companions/dns.py, core/dns/zones.py. Read next: companions/servers.py.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from sim_sled.core.dns.zones import Found, Record, Srv, Verdict

Asked = Callable[[str, str], Found]
"""`Dns.ask`: name and type of record, both as text."""

UDP_PLAIN_MAX: Final = 512
"""Bytes of an answer to a client that does not speak EDNS."""

UDP_MAX: Final = 1232
"""Bytes of an answer over UDP: what fits an IPv6 packet without fragments; the rest is asked for over TCP."""

TCP_IDLE_S: Final = 10.0
"""How long a TCP connection may be silent, as the original's."""

TCP_CONNECTIONS_MAX: Final = 64
"""At once: resolvers of a development cluster come over UDP."""

_LENGTH: Final = struct.Struct("!H")
_ANSWER_MAX: Final = 65_535

_log = logging.getLogger(__name__)


def answer(packet: bytes, asked: Asked, size_max: int | None = None) -> bytes | None:
    """The answer to a packet; None for what is no DNS query. `size_max` None: over TCP."""
    try:
        query = dns.message.from_wire(packet, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        _log.debug("no DNS message: %s", error)
        return _format_error(packet)
    if query.flags & dns.flags.QR:
        return None  # answering an answer would make a loop of two servers
    reply = dns.message.make_response(query, recursion_available=False)
    try:
        _fill(reply, query, asked)
    except (dns.exception.DNSException, ValueError) as error:
        # a name in the configuration that no wire can carry
        _log.warning("DNS answer cannot be written: %s", error)
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.SERVFAIL)
    if size_max is None:
        return reply.to_wire(max_size=_ANSWER_MAX)
    size = max(UDP_PLAIN_MAX, min(size_max, query.payload)) if query.edns >= 0 else UDP_PLAIN_MAX
    return reply.to_wire(max_size=size, prefer_truncation=True)


def _format_error(packet: bytes) -> bytes | None:
    """FORMERR with nothing in it, if there is at least a header that asks."""
    if len(packet) < 12 or packet[2] & 0x80:
        return None
    reply = dns.message.Message(id=int.from_bytes(packet[:2], "big"))
    reply.flags |= dns.flags.QR
    reply.set_rcode(dns.rcode.FORMERR)
    return reply.to_wire()


def _fill(reply: dns.message.Message, query: dns.message.Message, asked: Asked) -> None:
    if query.opcode() != dns.opcode.QUERY:
        reply.set_rcode(dns.rcode.NOTIMP)
        return
    if len(query.question) != 1:
        reply.set_rcode(dns.rcode.FORMERR)
        return
    question = query.question[0]
    found = asked(question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype))
    if found.verdict is Verdict.NO_ZONE:
        reply.set_rcode(dns.rcode.SERVFAIL)
        return
    reply.flags |= dns.flags.AA
    if found.verdict is Verdict.NO_NAME:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    for record in found.records:
        _add(reply, reply.answer, question.name, record)
    apex = dns.name.from_text(found.zone)
    if question.name == apex and question.rdtype in {dns.rdatatype.SOA, dns.rdatatype.ANY}:
        _add_rdata(reply, reply.answer, apex, "SOA", _soa(found))
    if not reply.answer:
        _add_rdata(reply, reply.authority, apex, "SOA", _soa(found))
    for name, record in found.more:
        _add(reply, reply.additional, dns.name.from_text(name), record)


def _add(reply: dns.message.Message, section: list[dns.rrset.RRset], name: dns.name.Name, record: Record) -> None:
    if isinstance(record.data, Srv):
        srv = record.data
        text = f"{srv.prio} {srv.weight} {srv.port} {_full(srv.target)}"
    else:
        text = _full(record.data) if record.kind == "NS" else record.data
    _add_rdata(reply, section, name, record.kind, text)


def _add_rdata(
    reply: dns.message.Message, section: list[dns.rrset.RRset], name: dns.name.Name, kind: str, text: str
) -> None:
    rdtype = dns.rdatatype.from_text(kind)
    rdata = dns.rdata.from_text(dns.rdataclass.IN, rdtype, text)
    rrset = reply.find_rrset(section, name, dns.rdataclass.IN, rdtype, create=True)
    rrset.add(rdata, 0)


def _full(name: str) -> str:
    return name if name.endswith(".") else name + "."


def _soa(found: Found) -> str:
    """As the original: the first name server of the zone, and an administrator that nobody is."""
    servers = [record.data for record in found.name_servers if isinstance(record.data, str)]
    primary = servers[0] if servers else f"ns1.{found.zone}"
    return f"{_full(primary)} admin.{_full(found.zone)} {found.serial} 3600 600 18000 150"


class Tcp:
    """Queries one after the other, each with its length in front."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until its client is silent for too long."""
        if len(self._open) >= TCP_CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            while True:
                async with asyncio.timeout(TCP_IDLE_S):
                    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                    packet = await reader.readexactly(length)
                reply = answer(packet, self._asked)
                if reply is None:
                    return
                writer.write(_LENGTH.pack(len(reply)) + reply)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._open.discard(writer)
            writer.close()

    def close(self) -> None:
        """End all connections."""
        for writer in tuple(self._open):
            writer.close()
