"""`OmicronSledConfig` in every version from 1 to 48, both ways (SR 2.1, 3.1).

`CONFIGS(level)` decodes a request into the core's `OmicronConfig`, whose JSON values have the newest shape; `older`
makes an older shape of those again, or raises `InvalidRequest` where that has no words for a value.

    1  base    4  nexus.lockstep_port    10  nic.ip_config    14  measurements, required

Read before: http/bodies_network.py. Read next: http/bodies_inventory.py, http/omicron.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec

from nexus_client.dropshot.json import Json, plain
from nexus_client.dropshot.text import U8, U16, U32, Ip, Ipv6, Scalar, SockAddr, Uuid
from sim_sled.core.errors import InvalidRequest
from sim_sled.core.omicron_config.values import DATASET_KINDS, ZONE_KIND, OmicronConfig
from sim_sled.http.bodies_network import NicV1, NicV10, SnatV1, Struct

I63: Final = 2**63 - 1
Generation = Annotated[int, msgspec.Meta(ge=0, le=I63)]
ByteCount = Annotated[int, msgspec.Meta(ge=0, le=I63)]

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
LOCKSTEP_PORT: Final = 12232
"""What versions before 4 do not tell (SR 1)."""


class Sha256(Scalar):
    """64 hexadecimal digits; canonical: lower case."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if not _SHA256.fullmatch(text):
            raise ValueError(f"invalid length {len(text)}, expected a hex string 64 hex digits long")
        return text.lower()


class ZpoolName(Scalar):
    """`oxp_` or `oxi_` and a UUID of any version (SR 2.1)."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if text[:4] not in {"oxp_", "oxi_"}:
            raise ValueError(f"Bad zpool name {text}; must start with 'oxp_' or 'oxi_'")
        return text[:4] + Uuid.canonical(text[4:])


class DatasetKind(Scalar):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if text not in DATASET_KINDS and not text.startswith(ZONE_KIND):
            raise ValueError(f"Dataset unknown: {text}")
        return text


class SockAddrV6(SockAddr):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        found = super().canonical(text)
        if not found.startswith("["):
            raise ValueError("invalid IPv6 socket address syntax")
        return found


# ---- disks and datasets --------------------------------------------------------------------------------------------


class DiskIdentity(Struct, kw_only=True):
    vendor: str
    model: str
    serial: str


class Disk(Struct, kw_only=True):
    id: Uuid
    identity: DiskIdentity
    pool_id: Uuid


class DatasetName(Struct, kw_only=True):
    pool_name: ZpoolName
    kind: DatasetKind


def tagged(name: str, tag: str, field: str = "type", **fields: Any) -> type[msgspec.Struct]:
    """A struct that is told from its siblings by `tag`."""
    return msgspec.defstruct(
        name, list(fields.items()), bases=(Struct,), tag_field=field, tag=tag, kw_only=True, module=__name__
    )


_PLAIN_COMPRESSION: Final = tuple(
    tagged(f"Compression{name.title()}", name) for name in ("on", "off", "gzip", "lz4", "lzjb", "zle")
)
_GZIP_N: Final = tagged("CompressionGzipN", "gzip_n", level=U8)


def union(*kinds: type) -> Any:
    made: Any = kinds[0]
    for kind in kinds[1:]:
        made = made | kind
    return made


Compression: Any = union(*_PLAIN_COMPRESSION, _GZIP_N)


class Dataset(Struct, kw_only=True):
    id: Uuid
    name: DatasetName
    compression: Compression
    quota: ByteCount | None = None
    reservation: ByteCount | None = None


# ---- zones ---------------------------------------------------------------------------------------------------------


class ZoneDataset(Struct, kw_only=True):
    pool_name: ZpoolName


class InstallDataset(Struct, tag_field="type", tag="install_dataset", kw_only=True):
    pass


class Artifact(Struct, tag_field="type", tag="artifact", kw_only=True):
    hash: Sha256


class CurrentContents(Struct, tag_field="type", tag="current_contents", kw_only=True):
    pass


class HostPhase2(Struct, kw_only=True):
    slot_a: CurrentContents | Artifact
    slot_b: CurrentContents | Artifact


class Measurement(Struct, kw_only=True):
    hash: Sha256


_ADDRESS: Final[dict[str, Any]] = {"address": SockAddrV6}
_WITH_DATASET: Final[dict[str, Any]] = _ADDRESS | {"dataset": ZoneDataset}
_INTERNAL_DNS: Final[dict[str, Any]] = {
    "dataset": ZoneDataset,
    "http_address": SockAddrV6,
    "dns_address": SockAddrV6,
    "gz_address": Ipv6,
    "gz_address_index": U32,
}
_BARE: Final = tuple(
    tagged(f"Zone_{tag}", tag, **fields)
    for tag, fields in (
        ("clickhouse", _WITH_DATASET),
        ("clickhouse_keeper", _WITH_DATASET),
        ("clickhouse_server", _WITH_DATASET),
        ("cockroach_db", _WITH_DATASET),
        ("crucible", _WITH_DATASET),
        ("crucible_pantry", _ADDRESS),
        ("internal_dns", _INTERNAL_DNS),
        ("internal_ntp", _ADDRESS),
        ("oximeter", _ADDRESS),
    )
)
"""Zones without interfaces: the same in all versions."""

N = TypeVar("N", NicV1, NicV10)


class BoundaryNtp(Struct, Generic[N], tag_field="type", tag="boundary_ntp", kw_only=True):
    address: SockAddrV6
    ntp_servers: tuple[str, ...]
    dns_servers: tuple[Ip, ...]
    nic: N
    snat_cfg: SnatV1
    domain: str | None = None


class ExternalDns(Struct, Generic[N], tag_field="type", tag="external_dns", kw_only=True):
    dataset: ZoneDataset
    http_address: SockAddrV6
    dns_address: SockAddr
    nic: N


class Nexus(Struct, Generic[N], tag_field="type", tag="nexus", kw_only=True):
    internal_address: SockAddrV6
    external_ip: Ip
    nic: N
    external_tls: bool
    external_dns_servers: tuple[Ip, ...]
    lockstep_port: U16 = LOCKSTEP_PORT


def _zone_type(nic: type) -> Any:
    return union(*_BARE, BoundaryNtp[nic], ExternalDns[nic], Nexus[nic])  # type: ignore[valid-type]  # made at run time


def _config(nic: type, *, measurements: bool) -> type[msgspec.Struct]:
    zone = msgspec.defstruct(
        "Zone",
        [
            ("id", Uuid),
            ("zone_type", _zone_type(nic)),
            ("filesystem_pool", ZpoolName | None, None),
            ("image_source", InstallDataset | Artifact, msgspec.field(default_factory=InstallDataset)),
        ],
        bases=(Struct,),
        kw_only=True,
        module=__name__,
    )
    fields: list[Any] = [
        ("generation", Generation),
        ("disks", dict[str, Disk]),
        ("datasets", dict[str, Dataset]),
        ("zones", dict[str, zone]),  # type: ignore[valid-type]  # made just above
        ("remove_mupdate_override", Uuid | None, None),
        ("host_phase_2", HostPhase2, msgspec.field(default_factory=_current_contents)),
    ]
    if measurements:
        fields.append(("measurements", tuple[Measurement, ...]))
    return msgspec.defstruct(
        "OmicronSledConfig",
        fields,
        bases=(Struct,),
        namespace={"__post_init__": _refuse_repeated},
        kw_only=True,
        module=__name__,
    )


def _current_contents() -> HostPhase2:
    return HostPhase2(slot_a=CurrentContents(), slot_b=CurrentContents())


def _refuse_repeated(config: Any) -> None:
    for what in ("disks", "datasets", "zones"):
        ids = [row.id for row in getattr(config, what).values()]
        if len(set(ids)) != len(ids):
            raise ValueError(f"duplicate id in {what}")


class ConfigJson(Json[Any]):
    """Decodes one shape into an `OmicronConfig`."""

    __slots__ = ("_is_old",)

    def __init__(self, nic: type, *, measurements: bool) -> None:
        super().__init__(_config(nic, measurements=measurements))
        self._is_old = nic is NicV1

    def decode(self, body: bytes) -> OmicronConfig:
        """The configuration. Raises `BadJson`, and `InvalidRequest` for what an old interface cannot mean."""
        config = super().decode(body)
        wire: dict[str, Any] = plain(config)
        wire["measurements"] = [
            {"hash": each} for each in sorted({row["hash"] for row in wire.get("measurements", ())})
        ]
        for what in ("disks", "datasets", "zones"):
            rows = {row["id"]: row for row in wire[what].values()}  # the keys of a request do not count
            wire[what] = {key: rows[key] for key in sorted(rows)}
        if self._is_old:
            for zone in config.zones.values():
                if (nic := getattr(zone.zone_type, "nic", None)) is not None:
                    nic.to_edge()
            _each_nic(wire, _newer_nic)
        return OmicronConfig(wire)


_SHAPES: Final[Mapping[int, tuple[type, bool]]] = {1: (NicV1, False), 10: (NicV10, False), 14: (NicV10, True)}
"""Interfaces and measurements by the version that brought them; what 4 added to 1 has a default."""

_made: dict[int, ConfigJson] = {}


def CONFIGS(level: int) -> ConfigJson:  # noqa: N802 -- a table whose rows are made when they are first used
    """The decoder of a version's configuration."""
    since = max(each for each in _SHAPES if each <= max(level, 1))
    if since not in _made:
        nic, measurements = _SHAPES[since]
        _made[since] = ConfigJson(nic, measurements=measurements)
    return _made[since]


# ---- conversions ---------------------------------------------------------------------------------------------------


def _each_nic(wire: Mapping[str, Any], convert: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    for zone in wire["zones"].values():
        if "nic" in zone["zone_type"]:
            zone["zone_type"]["nic"] = convert(zone["zone_type"]["nic"])


def _newer_nic(nic: dict[str, Any]) -> dict[str, Any]:
    new = dict(nic)
    value = {key: new.pop(key) for key in ("ip", "subnet", "transit_ips")}
    return new | {"ip_config": {"type": "v6" if ":" in value["ip"] else "v4", "value": value}}


def _older_nic(nic: dict[str, Any]) -> dict[str, Any]:
    new = dict(nic)
    config = new.pop("ip_config")
    if config["type"] == "dual_stack":
        raise InvalidRequest("Cannot convert dual-stack v2 NetworkInterface to v1")
    return {**new, **config["value"]}


def older(config: Mapping[str, Any], level: int) -> Mapping[str, Any]:
    """A configuration in the shape of `level`. Raises `InvalidRequest` where that cannot be said (SR 3.6)."""
    if level >= 14:
        return config
    new = {key: value for key, value in config.items() if key != "measurements"}
    if level >= 10:
        return new
    new["zones"] = {key: zone | {"zone_type": dict(zone["zone_type"])} for key, zone in new["zones"].items()}
    _each_nic(new, _older_nic)
    if level < 4:
        for zone in new["zones"].values():
            zone["zone_type"].pop("lockstep_port", None)
    return new
