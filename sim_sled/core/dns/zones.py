"""What a DNS server was told to answer, by generation, and what it answers (SR 5.3). No wire format in here.

Read next: companions/dns.py, companions/dns_wire.py, core/companions.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import attrs

from sim_sled.core.errors import BadRequest, DnsBusy, DnsGeneration
from sim_sled.core.timed import timed

U32_MAX: Final = 2**32 - 1
APEX: Final = "@"
"""Name of a zone itself among the names of its records."""

CNAME_LIKE: Final = frozenset({"SRV", "NS"})
"""Types that name another host, whose addresses come along in the answer."""


@attrs.frozen
class Srv:
    prio: int
    weight: int
    port: int
    target: str


@attrs.frozen
class Record:
    """`kind`: A, AAAA, NS or SRV; `data`: an address, a name, or an `Srv`."""

    kind: str
    data: str | Srv

    @property
    def target(self) -> str | None:
        """The host that it names."""
        if isinstance(self.data, Srv):
            return self.data.target
        return self.data if self.kind in CNAME_LIKE else None


@attrs.frozen
class Zone:
    """Records by name in the zone, in lower case; `APEX` for the zone itself."""

    name: str
    records: Mapping[str, tuple[Record, ...]]


@attrs.frozen
class DnsConfig:
    """`created`: as it was said; `applied_us`: core time."""

    generation: int
    serial: int
    created: str
    zones: tuple[Zone, ...]
    applied_us: int = 0


EMPTY: Final = DnsConfig(0, 0, "1970-01-01T00:00:00Z", ())


class Verdict(Enum):
    """How a question ends."""

    FOUND = "found"
    NO_NAME = "no such name in a zone of ours"
    NO_ZONE = "no zone of ours"


@attrs.frozen
class Found:
    """An answer without a wire: `zone` is the name of the one that the question belongs to.

    `more`: (name, record) of the addresses of hosts that the records name.
    """

    verdict: Verdict
    zone: str = ""
    serial: int = 0
    records: tuple[Record, ...] = ()
    name_servers: tuple[Record, ...] = ()
    more: tuple[tuple[str, Record], ...] = ()


@attrs.define
class Knobs:
    """How a server misbehaves (SR 8). `busy`: every update is refused as if another one were under way."""

    busy: bool = False


class Dns:
    """One server."""

    def __init__(self) -> None:
        self.config = EMPTY
        self.knobs = Knobs()

    def get(self, level: int) -> DnsConfig:
        """Raises `BadRequest` where version 1 of the API cannot say what is there."""
        if level < 2 and any(record.kind == "NS" for zone in self.config.zones for record in _records(zone)):
            raise BadRequest("IncompatibleRecord")
        return self.config

    @timed
    def put(self, new: DnsConfig, now_us: int) -> None:
        """Take a configuration. One of the same generation is not looked at.

        Raises `DnsGeneration` for an older one, `DnsBusy`.
        """
        if self.knobs.busy:
            raise DnsBusy("update already in progress")
        current = self.config.generation
        if new.generation < current:
            raise DnsGeneration(
                f"unsupported attempt to update to generation {new.generation} while at generation {current}"
            )
        if new.generation > current:
            self.config = attrs.evolve(new, applied_us=now_us)

    def ask(self, name: str, kind: str) -> Found:
        """What is known of `name`, a full name with or without its last dot. `kind` ANY: all of it."""
        full = name.rstrip(".").lower()
        zone = self._zone_of(full)
        if zone is None:
            return Found(Verdict.NO_ZONE)
        serial = self.config.serial
        inner = full.removesuffix(zone.name.rstrip(".").lower()).rstrip(".") or APEX
        servers = tuple(record for record in zone.records.get(APEX, ()) if record.kind == "NS")
        known = zone.records.get(inner)
        if known is None and inner != APEX:
            return Found(Verdict.NO_NAME, zone.name, serial, name_servers=servers)
        records = tuple(record for record in known or () if kind in {record.kind, "ANY"})
        more = tuple(
            (target, each) for record in records if (target := record.target) for each in self._hosts(target)
        )
        return Found(Verdict.FOUND, zone.name, serial, records, servers, more)

    def _hosts(self, target: str) -> tuple[Record, ...]:
        full = target.rstrip(".").lower()
        zone = self._zone_of(full)
        if zone is None:
            return ()
        inner = full.removesuffix(zone.name.rstrip(".").lower()).rstrip(".") or APEX
        return tuple(each for each in zone.records.get(inner, ()) if each.kind in {"A", "AAAA"})

    def _zone_of(self, full: str) -> Zone | None:
        """The most specific zone that `full` lies in."""
        inside = [
            zone
            for zone in self.config.zones
            if f".{full}".endswith("." + zone.name.rstrip(".").lower()) and zone.name
        ]
        return max(inside, key=lambda zone: len(zone.name), default=None)

    def dump(self) -> Any:
        """The configuration as JSON values."""
        return attrs.asdict(self.config, value_serializer=_plain)

    def load(self, kept: Any) -> None:
        """Take up what `dump` gave."""
        zones = tuple(
            Zone(zone["name"], {name: tuple(map(_record, rows)) for name, rows in zone["records"].items()})
            for zone in kept["zones"]
        )
        self.config = DnsConfig(**(kept | {"zones": zones}))


def _plain(_owner: object, _field: object, value: object) -> object:
    """Records lie in a mapping, where attrs does not look for more of its classes."""
    if isinstance(value, Mapping):
        return {name: [attrs.asdict(record) for record in records] for name, records in value.items()}
    return value


def _record(kept: Any) -> Record:
    data = kept["data"]
    return Record(kept["kind"], Srv(**data) if isinstance(data, dict) else data)


def _records(zone: Zone) -> list[Record]:
    return [record for records in zone.records.values() for record in records]
