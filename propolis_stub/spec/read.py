"""Instance specifications: read, checked as propolis-server checks them, and told per API version (PR 4.2).

A `Spec` holds canonical component keys: a key that parses as a UUID *is* that UUID, however it was written.

Read before: spec/versions.py. Read next: server/instance.py, spec/build.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
import msgspec

from nexus_client.dropshot import foreign
from nexus_client.dropshot.json import BadJson, Json
from propolis_stub.errors import PropolisError
from propolis_stub.spec import types as t
from propolis_stub.spec import versions as v
from propolis_stub.spec.types import spec_key


class SpecRefused(PropolisError):
    """A specification that cannot become a VM: 400 "failed to generate internal instance spec: ..."."""

    def __init__(self, why: str) -> None:
        super().__init__(f"failed to generate internal instance spec: {why}")


@attrs.frozen
class Spec:
    """A specification in the one form that everybody works with. `components` by canonical key."""

    board: t.Board
    components: Mapping[str, t.Component]
    smbios: t.Smbios | None = None

    def crucible(self, key: str) -> t.CrucibleStorageBackend | None:
        """The Crucible backend with this key, however the key is written."""
        component = self.components.get(spec_key(key))
        return component if isinstance(component, t.CrucibleStorageBackend) else None

    def with_component(self, key: str, component: t.Component) -> Spec:
        return attrs.evolve(self, components={**self.components, spec_key(key): component})


# --- read -------------------------------------------------------------------------------------------------------


def read_components(raw: bytes, level: int) -> dict[str, t.Component]:
    """Components of a body in API version `level`. Raises `BadJson` (400, wrong shape) for kinds or
    fields that this version does not know, and `SpecRefused` for a key given twice.
    """
    decoder = v.COMPONENTS_VSOCK if level >= 3 else v.COMPONENTS_INITIAL
    try:
        decoded = decoder.decode(raw)
    except BadJson as problem:
        path = problem.path.replace("$", "$.init.value.spec.components", 1)
        raise BadJson(path, problem.message) from None
    seen: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen[:] = [key for key, _ in pairs]  # objects end inside out: the outermost is the last

    try:
        foreign.loads(raw, note)
    except ValueError as error:
        raise BadJson("$.init.value.spec.components", str(error)) from None
    return _by_canonical_key((text, decoded[text].component) for text in seen)


def _by_canonical_key(parts: Iterable[tuple[str, t.Component]]) -> dict[str, t.Component]:
    components: dict[str, t.Component] = {}
    for text, component in parts:
        key = spec_key(text)
        if key in components:
            raise SpecRefused(f"duplicate component name: {key}")
        components[key] = component
    return components


def from_sled(told: v.SledSpec) -> Spec:
    """The specification of a registration at a sled agent, as its Propolis gets it. Raises `SpecRefused`."""
    smbios = None if isinstance(told, v.SledSpec1) else told.smbios
    parts: Iterable[tuple[str, v.Part]] = told.components.items()
    return Spec(told.board, _by_canonical_key((key, _for_propolis(part.component)) for key, part in parts), smbios)


def _for_propolis(component: t.Component) -> t.Component:
    if isinstance(component, t.CachedNvmeDisk):  # newer than the Propolis API that we know
        return t.NvmeDisk(
            backend_id=component.backend_id, pci_path=component.pci_path, serial_number=component.serial_number
        )
    return component


# --- check ------------------------------------------------------------------------------------------------------

_DISKS = (t.VirtioDisk, t.NvmeDisk)
_STORAGE = (t.CrucibleStorageBackend, t.FileStorageBackend, t.BlobStorageBackend)
_DISABLED: Final[dict[Any, str]] = {
    t.MigrationFailureInjector: "migration failure injection",
    t.SoftNpuPciPort: "SoftNPU",
    t.SoftNpuPort: "SoftNPU",
    t.SoftNpuP9: "SoftNPU",
    t.P9fs: "9p file systems",
}
_ONLY_ONE: Final[dict[Any, str]] = {
    t.QemuPvpanic: "pvpanic device",
    t.VirtioSocket: "virtio socket device",
    t.BootSettings: "boot order",
}


def check(spec: Spec) -> None:
    """Raises `SpecRefused` with the first reason found (the list is that of PR 4.2)."""
    used = _check_backends(spec)
    for key, component in spec.components.items():
        feature = _DISABLED.get(type(component))
        if feature is not None:
            raise SpecRefused(f"component {key}: this build has no support for {feature}")
        if isinstance(component, (*_STORAGE, t.VirtioNetworkBackend, t.DlpiNetworkBackend)) and key not in used:
            raise SpecRefused(f"backend {key} is not used by any device")
    _check_singles(spec)
    _check_pci(spec)
    _check_serial(spec)
    _check_boot_order(spec)
    if spec.board.cpuid is not None:
        _check_cpuid(spec.board.cpuid)


def _devices(spec: Spec) -> Iterator[tuple[str, str, tuple[type, ...]]]:
    """Device key, its backend's key, the kinds that this backend may have."""
    for key, component in spec.components.items():
        if isinstance(component, _DISKS):
            yield key, component.backend_id, _STORAGE
        elif isinstance(component, t.VirtioNic):
            yield key, component.backend_id, (t.VirtioNetworkBackend,)


def _check_backends(spec: Spec) -> set[str]:
    used: set[str] = set()
    for key, backend_key, kinds in _devices(spec):
        if backend_key == key:
            raise SpecRefused(f"device and backend have the same name: {key}")
        if not isinstance(spec.components.get(backend_key), kinds):
            raise SpecRefused(f"device {key}: no backend with name {backend_key}")
        if backend_key in used:
            raise SpecRefused(f"backend {backend_key} is used by more than one device")
        used.add(backend_key)
    return used


def _check_singles(spec: Spec) -> None:
    seen: set[type] = set()
    for component in spec.components.values():
        kind = type(component)
        if kind in _ONLY_ONE and kind in seen:
            raise SpecRefused(f"more than one {_ONLY_ONE[kind]}")
        seen.add(kind)


def _check_pci(spec: Spec) -> None:
    taken: dict[str, str] = {}
    for key, component in spec.components.items():
        path = getattr(component, "pci_path", None)
        if path is None:
            continue
        if path.text in taken:
            raise SpecRefused(f"PCI address {path.text} is used by {taken[path.text]} and {key}")
        taken[path.text] = key


def _check_serial(spec: Spec) -> None:
    taken: set[t.SerialPortNumber] = set()
    for component in spec.components.values():
        if isinstance(component, t.SerialPort):
            if component.num in taken:
                raise SpecRefused(f"serial port {component.num.value} is used twice")
            taken.add(component.num)


def _check_boot_order(spec: Spec) -> None:
    for component in spec.components.values():
        if isinstance(component, t.BootSettings):
            for entry in component.order:
                if not isinstance(spec.components.get(entry.id), _DISKS):
                    raise SpecRefused(f"boot option {entry.id} is not an attached disk")


def _check_cpuid(cpuid: t.Cpuid) -> None:
    whole: set[int] = set()
    parts: set[tuple[int, int]] = set()
    for entry in cpuid.entries:
        leaf = entry.leaf
        twice = leaf in whole if entry.subleaf is None else (leaf, entry.subleaf) in parts
        mixed = any(part == leaf for part, _ in parts) if entry.subleaf is None else leaf in whole
        if twice or mixed:
            raise SpecRefused(f"CPUID leaf {leaf:#x} is given {'twice' if twice else 'with and without a subleaf'}")
        if entry.subleaf is None:
            whole.add(leaf)
        else:
            parts.add((leaf, entry.subleaf))


# --- normalise and tell -----------------------------------------------------------------------------------------


def _host_cpuid() -> t.Cpuid:
    """What this make-believe host fills in: "AuthenticAMD", and little else."""
    leaves = ((0x0, 0x10, 0x68747541, 0x444D4163, 0x69746E65), (0x1, 0xA00F11, 0x800, 0x7ED8320B, 0x178BFBFF))
    return t.Cpuid(
        entries=tuple(t.CpuidEntry(leaf=leaf, eax=a, ebx=b, ecx=c, edx=d) for leaf, a, b, c, d in leaves),
        vendor=t.CpuidVendor.AMD,
    )


def normalised(spec: Spec) -> Spec:
    """As the server keeps it, which is not an echo: CPUID values by leaf, those of the host if none are given."""
    cpuid = spec.board.cpuid
    if cpuid is None:
        cpuid = _host_cpuid()
    else:
        entries = sorted(
            cpuid.entries, key=lambda entry: (entry.leaf, -1 if entry.subleaf is None else entry.subleaf)
        )
        cpuid = t.Cpuid(entries=tuple(entries), vendor=cpuid.vendor)
    return attrs.evolve(spec, board=msgspec.structs.replace(spec.board, cpuid=cpuid))


def plain(spec: Spec, level: int) -> dict[str, Any]:
    """The specification as API version `level` tells it: without what that version does not know."""
    board: dict[str, Any] = msgspec.to_builtins(spec.board)
    if isinstance(spec.board.guest_hv_interface, t.Bhyve):
        del board["guest_hv_interface"]  # "only serialized if it specifies a non-default interface" (its schema)
    told: dict[str, Any] = {
        "board": board,
        "components": {
            key: {"type": v.KIND_OF[type(component)], "component": msgspec.to_builtins(component)}
            for key, component in spec.components.items()
            if level >= 3 or not isinstance(component, t.VirtioSocket)
        },
    }
    if level >= 2:
        told["smbios"] = msgspec.to_builtins(spec.smbios)
    return told


def told_status(spec: Spec | None, level: int) -> dict[str, Any]:
    """`InstanceSpecStatus`: None is a target that has not heard from its source yet."""
    if spec is None:
        return {"type": "WaitingForMigrationSource"}
    value = plain(spec, level)
    return {"type": "Present", "value": {"version": "V0", "spec": value} if level < 2 else value}


# --- migration --------------------------------------------------------------------------------------------------


def to_preamble(spec: Spec) -> str:
    """What a source sends first. It is a version 1 specification: SMBIOS and virtio sockets stay behind."""
    return json.dumps({"instance_spec": plain(spec, 1), "blobs": []}, separators=(",", ":"), sort_keys=True)


class _Preamble(msgspec.Struct):
    instance_spec: v.RawSpec1


_PREAMBLE: Final = Json(_Preamble)


def from_preamble(text: str, replacements: Mapping[str, v.Replacement]) -> Spec:
    """The target's specification: the source's, with some backends replaced. Raises `SpecRefused`."""
    try:
        raw = _PREAMBLE.decode(text.encode()).instance_spec
        spec = Spec(raw.board, read_components(bytes(raw.components), 1))
    except ValueError as problem:
        raise SpecRefused(f"cannot read the preamble: {problem}") from None
    for text_key, replacement in replacements.items():
        key = spec_key(text_key)
        present = spec.components.get(key)
        if present is None:
            raise SpecRefused(f"component to replace is not in the source's spec: {key}")
        if type(present) is not type(replacement.spec):
            raise SpecRefused(f"component {key} is a {kind(present)}, not a {kind(replacement.spec)}")
        if isinstance(replacement, v.ReplaceInjector):
            raise SpecRefused(f"component {key}: this build has no support for migration failure injection")
        spec = spec.with_component(key, replacement.spec)
    check(spec)
    return spec


def kind(component: t.Component) -> str:
    """The wire name of a component's kind."""
    return v.KIND_OF[type(component)]
