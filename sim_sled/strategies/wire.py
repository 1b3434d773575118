"""What goes over the wire between Nexus and a sled, as plain JSON values in the shapes of the newest API.

Read before: strategies/__init__.py.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import attrs
from hypothesis import strategies as st

from nexus_client.types import Asked, time_of, us_of
from propolis_stub.spec.build import CPUS_MAX
from propolis_stub.spec.types import SerialPortNumber
from sim_sled.language.words import EDGES, PUBLISHED_STATES, Truth

JsonValue = dict[str, Any]

MEMORY_MB_MAX: Final = 1_024 * 1_024
"""MiB of one VM: a TiB, more than any sled gives."""
DEVICES_MAX: Final = 4
"""Disks of one VM, and its interfaces: enough to get into each other's way."""
STEPS_MAX: Final = 12
"""Reports of one life: several reboots and migrations."""
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PAUSE_US_MAX: Final = 3_600_000_000
_FIRST_SLOT: Final = 8
"""PCI devices below are the platform's own (PR 4.2)."""

_uuids: Final = st.integers(1, 2**16).map(lambda n: UUID(int=n))
_hostnames: Final = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)


# ---- VMM specs


@st.composite
def vmm_specs(draw: st.DrawFn) -> JsonValue:
    """`vmm_spec` of a registration (since 44.0.0): a board of 1 to 254 CPUs and up to 1 TiB (`memory_mb` is in MiB),
    serial ports, disks with their backends, interfaces, and perhaps a boot order. No two devices have one PCI slot.
    """
    components: JsonValue = {}
    for port in draw(st.lists(st.sampled_from(SerialPortNumber), unique=True, max_size=4)):
        components[port.value] = {"type": "serial_port", "component": {"num": port.value}}
    disks, nics = draw(st.integers(0, DEVICES_MAX)), draw(st.integers(0, DEVICES_MAX))
    for n in range(disks):
        components |= draw(_disks(n))
    for n in range(nics):
        components |= _nic(n, draw(_uuids))
    if disks and draw(st.booleans()):
        order = draw(st.permutations([f"disk-{n}" for n in range(disks)]))
        components["boot"] = {"type": "boot_settings", "component": {"order": [{"id": each} for each in order]}}
    return {
        "board": {
            "chipset": {"type": "i440_fx", "value": {"enable_pcie": draw(st.booleans())}},
            "cpus": draw(st.integers(1, CPUS_MAX)),
            "memory_mb": draw(st.integers(1, MEMORY_MB_MAX)),
        },
        "components": components,
    }


def _at(device: int) -> JsonValue:
    return {"bus": 0, "device": _FIRST_SLOT + device, "function": 0}


@st.composite
def _disks(draw: st.DrawFn, n: int) -> JsonValue:
    """A disk and what it stands on: an image in the request itself, at most 64 bytes."""
    content = base64.b64encode(draw(st.binary(max_size=64))).decode()
    backend = {"type": "blob_storage_backend", "component": {"base64": content, "readonly": draw(st.booleans())}}
    disk: JsonValue = {"backend_id": f"backend-{n}", "pci_path": _at(n)}
    kind = draw(st.sampled_from(["virtio_disk", "nvme_disk"]))
    if kind == "nvme_disk":
        disk |= {"serial_number": [0] * 20, "has_write_cache": draw(st.booleans())}
    return {f"backend-{n}": backend, f"disk-{n}": {"type": kind, "component": disk}}


def _nic(n: int, interface: UUID) -> JsonValue:
    at = _at(DEVICES_MAX + n)
    nic = {"backend_id": f"vnic-{n}", "interface_id": str(interface), "pci_path": at}
    return {
        f"vnic-{n}": {"type": "virtio_network_backend", "component": {"vnic_name": f"vnic{n}"}},
        f"nic-{n}": {"type": "virtio_nic", "component": nic},
    }


# ---- requests to a sled


@st.composite
def register_bodies(draw: st.DrawFn, specs: st.SearchStrategy[JsonValue] | None = None) -> JsonValue:
    """The body of `PUT /vmms/{propolis_id}` (since 44.0.0) for a VMM that is to start. `specs`: its `vmm_spec`."""
    return {
        "instance_id": str(draw(_uuids)),
        "local_config": {
            "attached_subnets": [],
            "delegated_zvols": [],
            "dhcp_config": {"dns_servers": [], "search_domains": []},
            "external_ips": {},
            "firewall_rules": [],
            "hostname": draw(_hostnames),
            "multicast_groups": [],
            "nics": [],
        },
        "metadata": {"project_id": str(draw(_uuids)), "silo_id": str(draw(_uuids))},
        "migration_id": None,
        "propolis_addr": f"[fd00:1122:3344:101::{draw(st.integers(1, 0xFFFF)):x}]:12400",
        "vmm_runtime": {"gen": 2, "state": "starting", "time_updated": _told(us_of(_BEGIN))},
        "vmm_spec": draw(vmm_specs() if specs is None else specs),
    }


@st.composite
def state_requests(draw: st.DrawFn) -> JsonValue:
    """The body of `PUT /vmms/{propolis_id}/state`: running, stopped, reboot, or migration_target with its source."""
    asked = draw(st.sampled_from(Asked))
    state: JsonValue = {"type": asked.value}
    if asked is Asked.MIGRATION_TARGET:
        source = f"[fd00:1122:3344:102::{draw(st.integers(1, 0xFFFF)):x}]:12400"
        state["value"] = {"src_propolis_addr": source}
    return {"state": state}


@attrs.frozen
class Request:
    """What Nexus asks of a sled. `operation`: its id in the API's document; `body` None: it has none."""

    operation: str
    method: str
    path: str
    body: Mapping[str, Any] | None = None


@st.composite
def requests(draw: st.DrawFn, vmms: st.SearchStrategy[UUID] | None = None) -> Request:
    """One request about a VMM: register, put or get its state, unregister. Ids come from few (`vmms`), so that
    requests meet.
    """
    some = st.integers(1, 4).map(lambda n: UUID(int=n)) if vmms is None else vmms
    path = f"/vmms/{draw(some)}"
    match draw(st.sampled_from(["vmm_get_state", "vmm_register", "vmm_put_state", "vmm_unregister"])):
        case "vmm_register":
            return Request("vmm_register", "PUT", path, draw(register_bodies()))
        case "vmm_put_state":
            return Request("vmm_put_state", "PUT", f"{path}/state", draw(state_requests()))
        case "vmm_unregister":
            return Request("vmm_unregister", "DELETE", path)
        case _:
            return Request("vmm_get_state", "GET", f"{path}/state")


# ---- reports of a sled

_AFTER: Final[dict[Truth, list[Truth]]] = {
    state: sorted(after for before, after in EDGES if before is state and after in PUBLISHED_STATES)
    for state in Truth
}
_AFTER[Truth.STOPPING] = [Truth.DESTROYED, Truth.FAILED]  # `stopped` is told as `stopping`, then the end (NX 7 #4)
"""What may be told after what: the edges of Propolis, in the order in which they shrink."""


def _told(at_us: int) -> str:
    return time_of(at_us).isoformat().replace("+00:00", "Z")


def _report(state: Truth, gen: int, at_us: int) -> JsonValue:
    told = {"state": state.value, "gen": gen, "time_updated": _told(at_us)}
    return {"vmm_state": told, "migration_in": None, "migration_out": None}


@st.composite
def lives(draw: st.DrawFn) -> list[JsonValue]:
    """All that a sled tells Nexus of one VMM, in order: bodies of `PUT NEXUS/vmms/{propolis_id}` (`SledVmmState`),
    from `starting` on along the edges of Propolis, up to 12. Generations and times (UTC, microseconds) grow. Who
    delivers them twice, late or in another order has what a network does; a life may end at any of its reports.
    """
    state, gen, at_us = Truth.STARTING, draw(st.integers(3, 10)), us_of(_BEGIN)
    life = [_report(state, gen, at_us)]
    for _ in range(draw(st.integers(0, STEPS_MAX - 1))):
        if not _AFTER[state]:
            break
        state = draw(st.sampled_from(_AFTER[state]))
        gen += draw(st.integers(1, 3))
        at_us += draw(st.integers(1, _PAUSE_US_MAX))
        life.append(_report(state, gen, at_us))
    return life


def reports() -> st.SearchStrategy[JsonValue]:
    """One report out of some life (`SledVmmState`)."""
    return lives().flatmap(st.sampled_from)
