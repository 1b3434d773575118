"""Board and components of an instance specification, as the Propolis API and the Sled Agent API have them.

msgspec Structs, because unions with a tag are what attrs classes cannot do there; `board` and every component refuse
unknown fields. What comes in is brought to its one form at once (ids canonical, sets without duplicates), because a
specification is told rebuilt, not echoed (PR 4.2).
Which API version knows which of these stands in versions.py.

Read before: types.py. Read next: spec/versions.py, spec/volumes.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from nexus_client.dropshot.text import U8, U32, Uuid

U64 = Annotated[int, Meta(ge=0)]  # `fits_u64` has the other bound


def fits_u64(**fields: int) -> None:
    """The bound that msgspec cannot state. Raises `ValueError`, to which msgspec adds the path."""
    for name, value in fields.items():
        if value >= 2**64:
            raise ValueError(f"`{name}` is out of range for u64")


def spec_key(text: str) -> str:
    """The canonical form of a component key (PR 4.2): UUIDs in lower case with hyphens, names as they are."""
    try:
        return Uuid.canonical(text)
    except ValueError:
        return text


class Strict(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of whatever refuses unknown fields."""


class Backed(Strict):
    """Base of a device with a backend: `backend_id` is the key of another component."""

    backend_id: str

    def __post_init__(self) -> None:
        self.backend_id = spec_key(self.backend_id)


class PciPath(msgspec.Struct, kw_only=True):
    bus: U8
    device: U8
    function: U8

    def __post_init__(self) -> None:
        # Both APIs refuse it while they read the body (DS 2), so it is a matter of the shape.
        if self.device >= _PCI_DEVICES or self.function >= _PCI_FUNCTIONS:
            raise ValueError(f"{self.text} is not a PCI address")

    @property
    def text(self) -> str:
        return f"{self.bus}.{self.device}.{self.function}"


_PCI_DEVICES: Final = 32
_PCI_FUNCTIONS: Final = 8


# --- board ------------------------------------------------------------------------------------------------------


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
    entries: tuple[CpuidEntry, ...]
    vendor: CpuidVendor


class HyperVFeature(Enum):
    REFERENCE_TSC = "reference_tsc"


class HyperVValue(Strict):
    features: tuple[HyperVFeature, ...]

    def __post_init__(self) -> None:
        self.features = tuple(dict.fromkeys(self.features))


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


class Smbios(Strict):
    manufacturer: str
    product_name: str
    serial_number: str
    version: U64

    def __post_init__(self) -> None:
        fits_u64(version=self.version)


# --- components: `{"type": kind, "component": {...}}` -------------------------------------------------------------


class VirtioDisk(Backed):
    pci_path: PciPath


class NvmeDisk(Backed):
    pci_path: PciPath
    serial_number: Annotated[tuple[U8, ...], Meta(min_length=20, max_length=20)]


class CachedNvmeDisk(NvmeDisk):
    """As the Sled Agent API has it since 44.0.0 (SA 4.2); no Propolis API that we know does."""

    has_write_cache: bool


class VirtioNic(Backed):
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

    def __post_init__(self) -> None:
        self.id = spec_key(self.id)


class BootSettings(Strict):
    order: tuple[BootOrderEntry, ...]


class VirtioSocket(Strict):
    guest_cid: U64
    pci_path: PciPath

    def __post_init__(self) -> None:
        fits_u64(guest_cid=self.guest_cid)


class SoftNpuPciPort(Strict):
    pci_path: PciPath


class SoftNpuPort(Backed):
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

    def __post_init__(self) -> None:
        if self.workers is not None:
            fits_u64(workers=self.workers)


class BlobStorageBackend(Strict):
    base64: str
    readonly: bool


class VirtioNetworkBackend(Strict):
    vnic_name: str


class DlpiNetworkBackend(Strict):
    vnic_name: str


Component = (
    VirtioDisk
    | NvmeDisk
    | VirtioNic
    | SerialPort
    | PciPciBridge
    | QemuPvpanic
    | BootSettings
    | VirtioSocket
    | SoftNpuPciPort
    | SoftNpuPort
    | SoftNpuP9
    | P9fs
    | MigrationFailureInjector
    | CrucibleStorageBackend
    | FileStorageBackend
    | BlobStorageBackend
    | VirtioNetworkBackend
    | DlpiNetworkBackend
)
