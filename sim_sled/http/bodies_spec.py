"""The VM specification in a registration: `board` and every component refuse unknown fields; so does the
specification object itself up to version 28 (SA 1.5, 4.2).

Read before: http/bodies_network.py. Read next: http/bodies_register.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import msgspec

from nexus_client.dropshot.text import U8, U32, U64, SockAddr, Uuid
from sim_sled.http.bodies_network import Struct


class Strict(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of whatever refuses unknown fields."""


class PciPath(Struct, kw_only=True):
    bus: U8
    device: U8
    function: U8


SpecKey = str  # a UUID or a name: any text will do


# ---- board ---------------------------------------------------------------------------------------------------------


class EnablePcie(Strict, kw_only=True):
    enable_pcie: bool


class I440Fx(Strict, tag_field="type", tag="i440_fx", kw_only=True):
    value: EnablePcie


class CpuidEntry(Strict, kw_only=True):
    leaf: U32
    eax: U32
    ebx: U32
    ecx: U32
    edx: U32
    subleaf: U32 | None = None


class CpuidVendor(Enum):
    AMD = "amd"
    INTEL = "intel"


class Cpuid(Strict, kw_only=True):
    entries: tuple[CpuidEntry, ...]
    vendor: CpuidVendor


class Bhyve(Strict, tag_field="type", tag="bhyve", kw_only=True):
    pass


class HyperVFeatures(Strict, kw_only=True):
    features: tuple[Literal["reference_tsc"], ...]


class HyperV(Strict, tag_field="type", tag="hyper_v", kw_only=True):
    value: HyperVFeatures


class Board(Strict, kw_only=True):
    cpus: U8
    memory_mb: U64
    chipset: I440Fx
    guest_hv_interface: Bhyve | HyperV = msgspec.field(default_factory=Bhyve)
    cpuid: Cpuid | None = None


class Smbios(Strict, kw_only=True):
    manufacturer: str
    product_name: str
    serial_number: str
    version: U64


# ---- components ----------------------------------------------------------------------------------------------------

_Serial = Annotated[tuple[U8, ...], msgspec.Meta(min_length=20, max_length=20)]


class _VirtioDisk(Strict, kw_only=True):
    backend_id: SpecKey
    pci_path: PciPath


class VirtioDisk(Strict, tag_field="type", tag="virtio_disk", kw_only=True):
    component: _VirtioDisk


class _NvmeDiskV1(Strict, kw_only=True):
    backend_id: SpecKey
    pci_path: PciPath
    serial_number: _Serial


class NvmeDiskV1(Strict, tag_field="type", tag="nvme_disk", kw_only=True):
    component: _NvmeDiskV1


class _NvmeDiskV44(Strict, kw_only=True):
    backend_id: SpecKey
    pci_path: PciPath
    serial_number: _Serial
    has_write_cache: bool


class NvmeDiskV44(Strict, tag_field="type", tag="nvme_disk", kw_only=True):
    component: _NvmeDiskV44


class _VirtioNic(Strict, kw_only=True):
    backend_id: SpecKey
    interface_id: Uuid
    pci_path: PciPath


class VirtioNic(Strict, tag_field="type", tag="virtio_nic", kw_only=True):
    component: _VirtioNic


class _SerialPort(Strict, kw_only=True):
    num: Literal["com1", "com2", "com3", "com4"]


class SerialPort(Strict, tag_field="type", tag="serial_port", kw_only=True):
    component: _SerialPort


class _PciPciBridge(Strict, kw_only=True):
    downstream_bus: U8
    pci_path: PciPath


class PciPciBridge(Strict, tag_field="type", tag="pci_pci_bridge", kw_only=True):
    component: _PciPciBridge


class _QemuPvpanic(Strict, kw_only=True):
    enable_isa: bool


class QemuPvpanic(Strict, tag_field="type", tag="qemu_pvpanic", kw_only=True):
    component: _QemuPvpanic


class BootOrderEntry(Struct, kw_only=True):
    id: SpecKey


class _BootSettings(Strict, kw_only=True):
    order: tuple[BootOrderEntry, ...]


class BootSettings(Strict, tag_field="type", tag="boot_settings", kw_only=True):
    component: _BootSettings


class _VirtioSocket(Strict, kw_only=True):
    guest_cid: U64
    pci_path: PciPath


class VirtioSocket(Strict, tag_field="type", tag="virtio_socket", kw_only=True):
    component: _VirtioSocket


class _OnlyPci(Strict, kw_only=True):
    pci_path: PciPath


class SoftNpuPciPort(Strict, tag_field="type", tag="soft_npu_pci_port", kw_only=True):
    component: _OnlyPci


class _SoftNpuPort(Strict, kw_only=True):
    backend_id: SpecKey
    link_name: str


class SoftNpuPort(Strict, tag_field="type", tag="soft_npu_port", kw_only=True):
    component: _SoftNpuPort


class SoftNpuP9(Strict, tag_field="type", tag="soft_npu_p9", kw_only=True):
    component: _OnlyPci


class _P9fs(Strict, kw_only=True):
    chunk_size: U32
    pci_path: PciPath
    source: str
    target: str


class P9fs(Strict, tag_field="type", tag="p9fs", kw_only=True):
    component: _P9fs


class _MigrationFailureInjector(Strict, kw_only=True):
    fail_exports: U32
    fail_imports: U32


class MigrationFailureInjector(Strict, tag_field="type", tag="migration_failure_injector", kw_only=True):
    component: _MigrationFailureInjector


class _CrucibleBackend(Strict, kw_only=True):
    readonly: bool
    request_json: str


class CrucibleBackend(Strict, tag_field="type", tag="crucible_storage_backend", kw_only=True):
    component: _CrucibleBackend


class _FileBackend(Strict, kw_only=True):
    block_size: U32
    path: str
    readonly: bool
    workers: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None


class FileBackend(Strict, tag_field="type", tag="file_storage_backend", kw_only=True):
    component: _FileBackend


class _BlobBackend(Strict, kw_only=True):
    base64: str
    readonly: bool


class BlobBackend(Strict, tag_field="type", tag="blob_storage_backend", kw_only=True):
    component: _BlobBackend


class _NetworkBackend(Strict, kw_only=True):
    vnic_name: str


class VirtioNetworkBackend(Strict, tag_field="type", tag="virtio_network_backend", kw_only=True):
    component: _NetworkBackend


class DlpiNetworkBackend(Strict, tag_field="type", tag="dlpi_network_backend", kw_only=True):
    component: _NetworkBackend


_Always = (
    VirtioDisk
    | VirtioNic
    | SerialPort
    | PciPciBridge
    | QemuPvpanic
    | BootSettings
    | SoftNpuPciPort
    | SoftNpuPort
    | SoftNpuP9
    | P9fs
    | MigrationFailureInjector
    | CrucibleBackend
    | FileBackend
    | BlobBackend
    | VirtioNetworkBackend
    | DlpiNetworkBackend
)


class SpecV1(Strict, kw_only=True):
    board: Board
    components: dict[SpecKey, _Always | NvmeDiskV1]


class SpecV29(Struct, kw_only=True):
    board: Board
    components: dict[SpecKey, _Always | NvmeDiskV1 | VirtioSocket]
    smbios: Smbios | None = None


class SpecV44(Struct, kw_only=True):
    board: Board
    components: dict[SpecKey, _Always | NvmeDiskV44 | VirtioSocket]
    smbios: Smbios | None = None


Spec = SpecV1 | SpecV29 | SpecV44


# ---- volume construction request (SA 5.2) --------------------------------------------------------------------------


class RegionOptions(Struct, kw_only=True):
    id: Uuid
    target: tuple[SockAddr, ...]
    lossy: bool
    read_only: bool
    flush_timeout: float | None = None
    key: str | None = None
    cert_pem: str | None = None
    key_pem: str | None = None
    root_cert_pem: str | None = None
    control: SockAddr | None = None


class VolumeRequest(Struct, tag_field="type", tag="volume", kw_only=True):
    id: Uuid
    block_size: U64
    sub_volumes: tuple[VolumeRequest | RegionRequest | UrlRequest | FileRequest, ...]
    read_only_parent: VolumeRequest | RegionRequest | UrlRequest | FileRequest | None = None


class RegionRequest(Struct, tag_field="type", tag="region", kw_only=True):
    block_size: U64
    blocks_per_extent: U64
    extent_count: U32
    opts: RegionOptions
    gen: U64


class UrlRequest(Struct, tag_field="type", tag="url", kw_only=True):
    id: Uuid
    block_size: U64
    url: str


class FileRequest(Struct, tag_field="type", tag="file", kw_only=True):
    id: Uuid
    block_size: U64
    path: str


VolumeConstructionRequest = VolumeRequest | RegionRequest | UrlRequest | FileRequest
