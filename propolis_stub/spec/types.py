"""Wire types of an instance specification and of `PUT /instance` (OpenAPI documents 1.0.0 to 5.0.0).

msgspec Structs, because unions with a tag are what attrs classes cannot do there; `board` and every component refuse
unknown fields, and in version 1 so does the specification itself. `components` stays raw: which kinds exist depends
on the version, and a key given twice has to be noticed (spec.py).

Read before: types.py. Read next: spec/read.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from nexus_client.dropshot.json import Json

U8 = Annotated[int, Meta(ge=0, le=2**8 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Meta(ge=0)]  # `fits_u64` has the other bound


def fits_u64(**fields: int) -> None:
    """The bound that msgspec cannot state. Raises `ValueError`, to which msgspec adds the path."""
    for name, value in fields.items():
        if value >= 2**64:
            raise ValueError(f"`{name}` is out of range for u64")


class Strict(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of whatever refuses unknown fields."""


class PciPath(msgspec.Struct, kw_only=True):
    bus: U8
    device: U8
    function: U8

    @property
    def text(self) -> str:
        return f"{self.bus}.{self.device}.{self.function}"


# --- board ----------------------------------------------------------------------------------------------------------


class I440FxValue(Strict):
    enable_pcie: bool


class I440Fx(Strict, tag_field="type", tag="i440_fx"):
    value: I440FxValue


class CpuidVendor(Enum):
    AMD = "amd"
    INTEL = "intel"


class CpuidEntry(Strict):
    leaf: U32
    eax: U32
    ebx: U32
    ecx: U32
    edx: U32
    subleaf: U32 | None = None


class Cpuid(Strict):
    entries: list[CpuidEntry]
    vendor: CpuidVendor


class HyperVFeature(Enum):
    REFERENCE_TSC = "reference_tsc"


class HyperVValue(Strict):
    features: list[HyperVFeature]


class Bhyve(Strict, tag_field="type", tag="bhyve"):
    pass


class HyperV(Strict, tag_field="type", tag="hyper_v"):
    value: HyperVValue


class Board(Strict):
    chipset: I440Fx
    cpus: U8
    memory_mb: U64
    cpuid: Cpuid | None = None
    guest_hv_interface: Bhyve | HyperV = msgspec.field(default_factory=Bhyve)

    def __post_init__(self) -> None:
        fits_u64(memory_mb=self.memory_mb)


# --- components: `{"type": kind, "component": {...}}` ---------------------------------------------------------------


class VirtioDisk(Strict):
    backend_id: str
    pci_path: PciPath


class NvmeDisk(Strict):
    backend_id: str
    pci_path: PciPath
    serial_number: Annotated[list[U8], Meta(min_length=20, max_length=20)]


class VirtioNic(Strict):
    backend_id: str
    interface_id: UUID
    pci_path: PciPath


class SerialPortNumber(Enum):
    COM1 = "com1"
    COM2 = "com2"
    COM3 = "com3"
    COM4 = "com4"


class SerialPort(Strict):
    num: SerialPortNumber


class PciPciBridge(Strict):
    downstream_bus: U8
    pci_path: PciPath


class QemuPvpanic(Strict):
    enable_isa: bool


class BootOrderEntry(msgspec.Struct, kw_only=True):
    id: str


class BootSettings(Strict):
    order: list[BootOrderEntry]


class VirtioSocket(Strict):
    guest_cid: U64
    pci_path: PciPath

    def __post_init__(self) -> None:
        fits_u64(guest_cid=self.guest_cid)


class SoftNpuPciPort(Strict):
    pci_path: PciPath


class SoftNpuPort(Strict):
    backend_id: str
    link_name: str


class SoftNpuP9(Strict):
    pci_path: PciPath


class P9fs(Strict):
    chunk_size: U32
    pci_path: PciPath
    source: str
    target: str


class MigrationFailureInjector(Strict):
    fail_exports: U32
    fail_imports: U32


class CrucibleStorageBackend(Strict):
    readonly: bool
    request_json: str


class FileStorageBackend(Strict):
    block_size: U32
    path: str
    readonly: bool
    workers: Annotated[int, Meta(ge=1)] | None = None


class BlobStorageBackend(Strict):
    base64: str
    readonly: bool


class VirtioNetworkBackend(Strict):
    vnic_name: str


class DlpiNetworkBackend(Strict):
    vnic_name: str


_KINDS: dict[str, type[Strict]] = {
    "virtio_disk": VirtioDisk,
    "nvme_disk": NvmeDisk,
    "virtio_nic": VirtioNic,
    "serial_port": SerialPort,
    "pci_pci_bridge": PciPciBridge,
    "qemu_pvpanic": QemuPvpanic,
    "boot_settings": BootSettings,
    "soft_npu_pci_port": SoftNpuPciPort,
    "soft_npu_port": SoftNpuPort,
    "soft_npu_p9": SoftNpuP9,
    "p9fs": P9fs,
    "migration_failure_injector": MigrationFailureInjector,
    "crucible_storage_backend": CrucibleStorageBackend,
    "file_storage_backend": FileStorageBackend,
    "blob_storage_backend": BlobStorageBackend,
    "virtio_network_backend": VirtioNetworkBackend,
    "dlpi_network_backend": DlpiNetworkBackend,
}
_KINDS_3: dict[str, type[Strict]] = {**_KINDS, "virtio_socket": VirtioSocket}
KIND_OF: dict[Any, str] = {klass: kind for kind, klass in _KINDS_3.items()}

Component = Any
"""One of the component Structs above; `KIND_OF` knows its tag."""


def _wrapped(kinds: dict[str, type[Strict]]) -> Any:
    """Components by key: each is `{"type": kind, "component": ...}` with one of these kinds."""
    union: Any = None
    for kind, klass in kinds.items():
        wrapper = msgspec.defstruct(
            f"Tagged{klass.__name__}",
            [("component", klass)],
            bases=(Strict,),
            tag_field="type",
            tag=kind,
            kw_only=True,
        )
        union = wrapper if union is None else union | wrapper
    return dict.__class_getitem__((str, union))


COMPONENTS_0: Json[Any] = Json(_wrapped(_KINDS))  # versions 1 and 2
COMPONENTS_3: Json[Any] = Json(_wrapped(_KINDS_3))  # version 3 brought virtio sockets


# --- ensure ---------------------------------------------------------------------------------------------------------


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


class Smbios(Strict):
    manufacturer: str
    product_name: str
    serial_number: str
    version: U64

    def __post_init__(self) -> None:
        fits_u64(version=self.version)


class RawSpec1(Strict):
    board: Board
    components: msgspec.Raw


class RawSpec2(msgspec.Struct, kw_only=True):
    board: Board
    components: msgspec.Raw
    smbios: Smbios | None = None


class SpecValue1(msgspec.Struct):
    spec: RawSpec1


class SpecValue2(msgspec.Struct):
    spec: RawSpec2


class ReplaceInjector(Strict, tag_field="component", tag="MigrationFailureInjector"):
    spec: MigrationFailureInjector


class ReplaceCrucible(Strict, tag_field="component", tag="CrucibleStorageBackend"):
    spec: CrucibleStorageBackend


class ReplaceNic(Strict, tag_field="component", tag="VirtioNetworkBackend"):
    spec: VirtioNetworkBackend


Replacement = ReplaceInjector | ReplaceCrucible | ReplaceNic


class TargetValue(msgspec.Struct, kw_only=True):
    migration_id: UUID
    src_addr: str
    replace_components: dict[str, Replacement]


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
