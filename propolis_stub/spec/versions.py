"""Which API version knows which parts of a specification, and the bodies that carry one (PR 4.1, SA 4.2).

Propolis: 1 board and components; 2 `smbios`, and unknown fields beside them are taken; 3 virtio sockets.
Sled agent: the same three at once from 29.0.0 on, and NVMe disks that say whether they have a write cache at 44.0.0.

For Propolis `components` stays raw, because a key given twice has to be noticed (read.py).

Read before: spec/types.py. Read next: sim_sled/http/bodies_register.py, spec/read.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U32, SockAddr
from propolis_stub.spec import types as t

_INITIAL: Final[dict[str, type[t.Strict]]] = {
    "virtio_disk": t.VirtioDisk,
    "nvme_disk": t.NvmeDisk,
    "virtio_nic": t.VirtioNic,
    "serial_port": t.SerialPort,
    "pci_pci_bridge": t.PciPciBridge,
    "qemu_pvpanic": t.QemuPvpanic,
    "boot_settings": t.BootSettings,
    "soft_npu_pci_port": t.SoftNpuPciPort,
    "soft_npu_port": t.SoftNpuPort,
    "soft_npu_p9": t.SoftNpuP9,
    "p9fs": t.P9fs,
    "migration_failure_injector": t.MigrationFailureInjector,
    "crucible_storage_backend": t.CrucibleStorageBackend,
    "file_storage_backend": t.FileStorageBackend,
    "blob_storage_backend": t.BlobStorageBackend,
    "virtio_network_backend": t.VirtioNetworkBackend,
    "dlpi_network_backend": t.DlpiNetworkBackend,
}
_VSOCK: Final = {**_INITIAL, "virtio_socket": t.VirtioSocket}
_WRITE_CACHE: Final = {**_VSOCK, "nvme_disk": t.CachedNvmeDisk}

KIND_OF: Final = {klass: kind for kinds in (_VSOCK, _WRITE_CACHE) for kind, klass in kinds.items()}
"""The wire name of each component's kind."""


class Part(t.Strict):
    """One value of `components`: `{"type": kind, "component": {...}}`."""

    component: t.Component


if TYPE_CHECKING:
    InitialPart = Part
    VsockPart = Part
    WriteCachePart = Part
else:

    def _tagged(level: str, kinds: dict[str, type[t.Strict]]) -> Any:
        """A union of one wrapper per kind, because the tag stands outside of the component. Each is a class of this
        module, of its own name: a request that waits is kept in snapshots and recordings by the names of its parts.
        """
        union: Any = None
        for kind, klass in kinds.items():
            fields = [("component", klass)]
            name = f"{level}{klass.__name__}"
            wrapper = globals()[name] = msgspec.defstruct(
                name, fields, bases=(t.Strict,), tag_field="type", tag=kind, kw_only=True, module=__name__
            )
            union = wrapper if union is None else union | wrapper
        return union

    InitialPart = _tagged("Initial", _INITIAL)
    VsockPart = _tagged("Vsock", _VSOCK)
    WriteCachePart = _tagged("WriteCache", _WRITE_CACHE)

COMPONENTS_INITIAL: Final[Json[dict[str, Part]]] = Json(dict[str, InitialPart])
COMPONENTS_VSOCK: Final[Json[dict[str, Part]]] = Json(dict[str, VsockPart])


# --- the Sled Agent API: `vmm_spec` of a registration -------------------------------------------------------------


class SledSpec1(t.Strict):
    board: t.Board
    components: dict[str, InitialPart]


class SledSpec29(msgspec.Struct, kw_only=True):
    board: t.Board
    components: dict[str, VsockPart]
    smbios: t.Smbios | None = None


class SledSpec44(msgspec.Struct, kw_only=True):
    board: t.Board
    components: dict[str, WriteCachePart]
    smbios: t.Smbios | None = None


SledSpec = SledSpec1 | SledSpec29 | SledSpec44


# --- the Propolis API: `PUT /instance` ----------------------------------------------------------------------------


class InstanceMetadata(msgspec.Struct, kw_only=True):
    project_id: UUID
    silo_id: UUID
    sled_id: UUID
    sled_model: str
    sled_revision: U32
    sled_serial: str


class InstanceProperties(msgspec.Struct, kw_only=True):
    id: UUID
    name: str
    description: str
    metadata: InstanceMetadata


class RawSpec1(t.Strict):
    board: t.Board
    components: msgspec.Raw


class RawSpec2(msgspec.Struct, kw_only=True):
    board: t.Board
    components: msgspec.Raw
    smbios: t.Smbios | None = None


class SpecValue1(msgspec.Struct):
    spec: RawSpec1


class SpecValue2(msgspec.Struct):
    spec: RawSpec2


class ReplaceInjector(t.Strict, tag_field="component", tag="MigrationFailureInjector"):
    spec: t.MigrationFailureInjector


class ReplaceCrucible(t.Strict, tag_field="component", tag="CrucibleStorageBackend"):
    spec: t.CrucibleStorageBackend


class ReplaceNic(t.Strict, tag_field="component", tag="VirtioNetworkBackend"):
    spec: t.VirtioNetworkBackend


Replacement = ReplaceInjector | ReplaceCrucible | ReplaceNic


class TargetValue(msgspec.Struct, kw_only=True):
    migration_id: UUID
    src_addr: str
    replace_components: dict[str, Replacement]

    def __post_init__(self) -> None:
        self.src_addr = SockAddr.canonical(self.src_addr)


class BySpec1(msgspec.Struct, tag_field="method", tag="Spec"):
    value: SpecValue1


class BySpec2(msgspec.Struct, tag_field="method", tag="Spec"):
    value: SpecValue2


class ByTarget(msgspec.Struct, tag_field="method", tag="MigrationTarget"):
    value: TargetValue


class EnsureRequest1(msgspec.Struct, kw_only=True):
    properties: InstanceProperties
    init: BySpec1 | ByTarget


class EnsureRequest2(msgspec.Struct, kw_only=True):
    properties: InstanceProperties
    init: BySpec2 | ByTarget
