"""`InstanceEnsureBody` in every version from 1 to 48, and what the core wants of it (SA 2.2, 4.2).

`BODIES` says from which version on which shape holds. `to_registration` makes the `contract.Registration`; it raises
`InvalidRequest` for what fits the shape and is refused all the same (SA 6 #12 to #14), so that nothing
has been registered when it does.

Read before: http/bodies_network.py, propolis_stub/spec/versions.py. Read next: http/arrivals.py, http/routes.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U32, Hostname, Ip, SockAddr, Uuid, utc
from nexus_client.types import VmmRuntimeState
from propolis_stub.spec import volumes
from propolis_stub.spec.build import fault_of
from propolis_stub.spec.types import CrucibleStorageBackend, FileStorageBackend
from propolis_stub.spec.versions import Part, SledSpec, SledSpec1, SledSpec29, SledSpec44
from sim_sled.core import contract
from sim_sled.core.errors import InvalidRequest
from sim_sled.http.bodies_network import (
    ExternalV11,
    ExternalV32,
    Membership,
    NicV1,
    NicV10,
    RuleV1,
    RuleV10,
    RuleV31,
    SnatV1,
    Struct,
    Subnet,
    external_ips_v1,
    external_ips_v11,
    external_ips_v32,
)

_IDS_SHARED: Final = 4096
"""Silos and projects that are remembered: more than a rack has VMs of at a time, and some 2 MB."""

_ZVOL: Final = re.compile(
    r"/dev/zvol/rdsk/oxp_(?P<zpool>[0-9a-f-]{36})/local_storage_unencrypted/(?P<dataset>[0-9a-f-]{36})/vol"
)
"""The only paths a file backend may have (SA 2.2 step 2)."""


class Dhcp(Struct, kw_only=True):
    dns_servers: tuple[Ip, ...]
    search_domains: tuple[str, ...]
    host_domain: str | None = None


class Metadata(Struct, kw_only=True):
    silo_id: Uuid
    project_id: Uuid


class ZvolV9(Struct, tag_field="type", tag="local_storage", kw_only=True):
    zpool_id: Uuid
    dataset_id: Uuid


class ZvolUnencrypted(Struct, tag_field="type", tag="local_storage_unencrypted", kw_only=True):
    zpool_id: Uuid
    dataset_id: Uuid


class ZvolEncrypted(Struct, tag_field="type", tag="local_storage_encrypted", kw_only=True):
    zpool_id: Uuid
    dataset_id: Uuid


# ---- local_config, by version --------------------------------------------------------------------------------------


class _Local(Struct, kw_only=True):
    hostname: Hostname
    dhcp_config: Dhcp


class _UntaggedIps(_Local, kw_only=True):
    source_nat: SnatV1
    floating_ips: tuple[Ip, ...]
    ephemeral_ip: Ip | None = None


class LocalV1(_UntaggedIps, kw_only=True):
    nics: tuple[NicV1, ...]
    firewall_rules: tuple[RuleV1, ...]


class LocalV7(LocalV1, kw_only=True):
    multicast_groups: tuple[Membership, ...]


class LocalV9(LocalV7, kw_only=True):
    delegated_zvols: tuple[ZvolV9, ...]


class LocalV10(_UntaggedIps, kw_only=True):
    nics: tuple[NicV10, ...]
    firewall_rules: tuple[RuleV10, ...]
    multicast_groups: tuple[Membership, ...]
    delegated_zvols: tuple[ZvolV9, ...]


class _LocalV11(_Local, kw_only=True):
    nics: tuple[NicV10, ...]
    multicast_groups: tuple[Membership, ...]


class LocalV11(_LocalV11, kw_only=True):
    firewall_rules: tuple[RuleV10, ...]
    delegated_zvols: tuple[ZvolV9, ...]
    external_ips: ExternalV11 | None = None


class _LocalV17(_LocalV11, kw_only=True):
    delegated_zvols: tuple[ZvolUnencrypted | ZvolEncrypted, ...]


class LocalV17(_LocalV17, kw_only=True):
    firewall_rules: tuple[RuleV10, ...]
    external_ips: ExternalV11 | None = None


class LocalV18(LocalV17, kw_only=True):
    attached_subnets: tuple[Subnet, ...]


class LocalV31(_LocalV17, kw_only=True):
    firewall_rules: tuple[RuleV31, ...]
    attached_subnets: tuple[Subnet, ...]
    external_ips: ExternalV11 | None = None


class LocalV32(_LocalV17, kw_only=True):
    firewall_rules: tuple[RuleV31, ...]
    attached_subnets: tuple[Subnet, ...]
    external_ips: ExternalV32


class LocalV41(LocalV32, kw_only=True):
    primary_nic_mtu: U32 | None = None


Local = LocalV1 | LocalV10 | LocalV11 | LocalV17 | LocalV31 | LocalV32


# ---- the bodies ----------------------------------------------------------------------------------------------------


class _Body(Struct, kw_only=True):
    instance_id: Uuid
    vmm_runtime: VmmRuntimeState
    propolis_addr: SockAddr
    metadata: Metadata
    migration_id: Uuid | None = None

    def __post_init__(self) -> None:
        # Times are published as they came, so bring them to UTC once; ValueError gets this object's path
        self.vmm_runtime = replace(self.vmm_runtime, time_updated=utc(self.vmm_runtime.time_updated))


class BodyV1(_Body, kw_only=True):
    local_config: LocalV1
    vmm_spec: SledSpec1


class BodyV7(_Body, kw_only=True):
    local_config: LocalV7
    vmm_spec: SledSpec1


class BodyV9(_Body, kw_only=True):
    local_config: LocalV9
    vmm_spec: SledSpec1


class BodyV10(_Body, kw_only=True):
    local_config: LocalV10
    vmm_spec: SledSpec1


class BodyV11(_Body, kw_only=True):
    local_config: LocalV11
    vmm_spec: SledSpec1


class BodyV17(_Body, kw_only=True):
    local_config: LocalV17
    vmm_spec: SledSpec1


class BodyV18(_Body, kw_only=True):
    local_config: LocalV18
    vmm_spec: SledSpec1


class BodyV29(_Body, kw_only=True):
    local_config: LocalV18
    vmm_spec: SledSpec29


class BodyV31(_Body, kw_only=True):
    local_config: LocalV31
    vmm_spec: SledSpec29


class BodyV32(_Body, kw_only=True):
    local_config: LocalV32
    vmm_spec: SledSpec29


class BodyV41(_Body, kw_only=True):
    local_config: LocalV41
    vmm_spec: SledSpec29


class BodyV44(_Body, kw_only=True):
    local_config: LocalV41
    vmm_spec: SledSpec44


Body = (
    BodyV1 | BodyV7 | BodyV9 | BodyV10 | BodyV11 | BodyV17 | BodyV18 | BodyV29 | BodyV31 | BodyV32 | BodyV41 | BodyV44
)

BODIES: Final[Mapping[int, Json[Any]]] = {
    1: Json(BodyV1),
    7: Json(BodyV7),
    9: Json(BodyV9),
    10: Json(BodyV10),
    11: Json(BodyV11),
    17: Json(BodyV17),
    18: Json(BodyV18),
    29: Json(BodyV29),
    31: Json(BodyV31),
    32: Json(BodyV32),
    41: Json(BodyV41),
    44: Json(BodyV44),
}
"""By the major version since which it is so: each holds until the next."""


@lru_cache(maxsize=_IDS_SHARED)
def _shared(text: Uuid) -> UUID:
    """The id of a silo or a project: one object for all VMMs that have it, since each would cost them 100 bytes."""
    return text.uuid


def to_registration(body: Body) -> contract.Registration:
    """What the core keeps of a body of any version. Raises `InvalidRequest`."""
    local, board = body.local_config, body.vmm_spec.board
    for rule in local.firewall_rules:
        for target in rule.targets:
            target.to_edge()  # converted, and so refused, like the VMM's own interfaces; then forgotten
    crucible_disks, disk_targets, file_backends = _backends(body.vmm_spec)
    return contract.Registration(
        instance_id=body.instance_id.uuid,
        vmm_runtime=body.vmm_runtime,
        propolis_addr=str(body.propolis_addr),
        ncpus=board.cpus,
        memory_mib=int(board.memory_mb),
        hostname=str(local.hostname),
        silo_id=_shared(body.metadata.silo_id),
        project_id=_shared(body.metadata.project_id),
        migration_id=None if body.migration_id is None else body.migration_id.uuid,
        nics=tuple(nic.to_edge() for nic in local.nics),
        external_ips=_external_ips(local),
        multicast_groups=() if type(local) is LocalV1 else tuple(m.to_edge() for m in _multicast(local)),
        attached_subnets=tuple(subnet.to_edge() for subnet in _subnets(local)),
        crucible_disks=crucible_disks,
        disk_targets=disk_targets,
        file_backends=file_backends,
        unbuildable=fault_of(body.vmm_spec),
        vmm_spec=body.vmm_spec,
    )


def _multicast(local: Local) -> tuple[Membership, ...]:
    if isinstance(local, LocalV7 | LocalV10 | _LocalV11):
        return local.multicast_groups
    return ()


def _subnets(local: Local) -> tuple[Subnet, ...]:
    if isinstance(local, LocalV18 | LocalV31 | LocalV32):
        return local.attached_subnets
    return ()


def _external_ips(local: Local) -> tuple[contract.ExternalIp, ...]:
    match local:
        case LocalV1() | LocalV10():
            return external_ips_v1(local.source_nat, local.ephemeral_ip, local.floating_ips)
        case LocalV32():
            return external_ips_v32(local.external_ips)
        case LocalV11() | LocalV17() | LocalV31():
            return external_ips_v11(local.external_ips)


_Disks = tuple[tuple[UUID, str], ...]
_Targets = tuple[tuple[UUID, tuple[str, ...]], ...]


def _backends(spec: SledSpec) -> tuple[_Disks, _Targets, tuple[tuple[str, str], ...]]:
    """Id and request of each Crucible backend, its targets, key and path of each file backend (6 #12, #13, #14)."""
    disks: list[tuple[UUID, str]] = []
    regions: list[tuple[UUID, tuple[str, ...]]] = []
    files: list[tuple[str, str]] = []
    parts: Iterable[tuple[str, Part]] = spec.components.items()
    for key, part in parts:
        match part.component:
            case CrucibleStorageBackend() as backend:
                try:
                    disk_id = UUID(Uuid.canonical(key))
                except ValueError:
                    raise InvalidRequest(f"Crucible backend {key!r}: the key must be the disk's UUID") from None
                try:
                    volume = volumes.read(backend.request_json)
                except ValueError as error:
                    raise InvalidRequest(
                        f"Crucible backend {key!r}: request_json is no volume request: {error}"
                    ) from None
                disks.append((disk_id, backend.request_json))
                regions.append((disk_id, volumes.targets(volume)))
            case FileStorageBackend() as backend_file:
                if not _ZVOL.fullmatch(backend_file.path):
                    raise InvalidRequest(f"file backend {key!r}: {backend_file.path!r} is no local storage volume")
                files.append((key, backend_file.path))
    return tuple(disks), tuple(regions), tuple(files)
