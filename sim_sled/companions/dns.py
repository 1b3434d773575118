"""The configuration API of the internal DNS server: 2.0.0, and 1.0.0 as far as that can say it (SR 5.3).

Read before: companions/asking.py, core/dns/zones.py. Read next: companions/dns_wire.py, companions/servers.py.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U16, U32, Ipv4, Ipv6, utc
from sim_sled.companions.asking import ask
from sim_sled.core.companions import Server, Where
from sim_sled.core.dns.zones import U32_MAX, Dns, DnsConfig, Record, Srv, Zone
from sim_sled.core.errors import BadRequest
from sim_sled.http.app import Api
from sim_sled.http.asking import NO_CONTENT, ok
from sim_sled.http.bodies_network import Struct
from sim_sled.http.bodies_omicron import Generation
from sim_sled.http.routes import Answer, Call, Route, Router

VERSION: Final = 2
BODY_MAX: Final = 4 * 1024 * 1024
"""Bytes, as the original's own configuration: some ten thousand names."""

_HERE: Final = Where(Server.DNS)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Srv(Struct, kw_only=True):
    prio: U16
    weight: U16
    port: U16
    target: str


class _A(Struct, tag_field="type", tag="A", kw_only=True):
    data: Ipv4


class _Aaaa(Struct, tag_field="type", tag="AAAA", kw_only=True):
    data: Ipv6


class _SrvRecord(Struct, tag_field="type", tag="SRV", kw_only=True):
    data: _Srv


class _Ns(Struct, tag_field="type", tag="NS", kw_only=True):
    data: str


class _Zone1(Struct, kw_only=True):
    zone_name: str
    records: dict[str, tuple[_A | _Aaaa | _SrvRecord, ...]]


class _Zone(Struct, kw_only=True):
    zone_name: str
    records: dict[str, tuple[_A | _Aaaa | _SrvRecord | _Ns, ...]]


class _Config1(Struct, kw_only=True):
    generation: Generation
    time_created: datetime
    zones: tuple[_Zone1, ...]


class _Config(Struct, kw_only=True):
    generation: Generation
    serial: U32
    time_created: datetime
    zones: tuple[_Zone, ...]


def api() -> Api:
    """The two operations, in both versions."""
    routes = (
        Route("GET", "/config", _get, op="dns_config_get"),
        Route("PUT", "/config", _put, Json(_Config1), op="dns_config_put", until=2),
        Route("PUT", "/config", _put, Json(_Config), op="dns_config_put", since=2),
    )
    return Api(Router(routes), VERSION, unversioned=True, body_max=BODY_MAX)


async def _get(call: Call) -> Answer:
    config = await ask(call, _HERE, Dns.get, call.level)
    told: dict[str, Any] = {
        "generation": config.generation,
        "serial": config.serial,
        "time_created": config.created,
        "time_applied": _time(_EPOCH + timedelta(microseconds=config.applied_us)),
        "zones": [_zone_json(zone) for zone in config.zones],
    }
    if call.level < 2:
        del told["serial"]
    return ok(told)


async def _put(call: Call) -> Answer:
    body: _Config | _Config1 = call.body
    if isinstance(body, _Config):
        serial = body.serial
    elif body.generation <= U32_MAX:
        serial = body.generation  # version 1 knows no serial; it is the generation then
    else:
        raise BadRequest("IncompatibleRecord")
    zones = tuple(_zone(each) for each in body.zones)
    await ask(call, _HERE, Dns.put, DnsConfig(body.generation, serial, _time(utc(body.time_created)), zones))
    return NO_CONTENT


def config_from(body: bytes) -> DnsConfig:
    """A configuration as Nexus would send it. Raises `BadJson`."""
    parsed = Json(_Config).decode(body)
    zones = tuple(_zone(each) for each in parsed.zones)
    return DnsConfig(parsed.generation, parsed.serial, _time(utc(parsed.time_created)), zones)


def _zone(zone: _Zone | _Zone1) -> Zone:
    """Of two spellings of a name that differ in case only, the second adds to the first."""
    records: dict[str, tuple[Record, ...]] = {}
    for name, each in zone.records.items():
        records[name.lower()] = records.get(name.lower(), ()) + tuple(_record(record) for record in each)
    return Zone(zone.zone_name, records)


def _record(record: _A | _Aaaa | _SrvRecord | _Ns) -> Record:
    match record:
        case _A():
            return Record("A", str(record.data))
        case _Aaaa():
            return Record("AAAA", str(record.data))
        case _Ns():
            return Record("NS", record.data)
        case _SrvRecord():
            data = record.data
            return Record("SRV", Srv(data.prio, data.weight, data.port, data.target))


def _zone_json(zone: Zone) -> dict[str, Any]:
    records = {name: [_record_json(record) for record in each] for name, each in zone.records.items()}
    return {"zone_name": zone.name, "records": records}


def _record_json(record: Record) -> dict[str, Any]:
    data: object = record.data
    if isinstance(record.data, Srv):
        srv = record.data
        data = {"prio": srv.prio, "weight": srv.weight, "port": srv.port, "target": srv.target}
    return {"type": record.kind, "data": data}


def _time(when: datetime) -> str:
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")
