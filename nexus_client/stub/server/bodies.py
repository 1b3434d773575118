"""Bodies of Nexus's calls to sleds, in the shape of each Sled Agent API version (SA 4.1, 4.2).

One latest body is made and then taken back, change by change, to the version asked for: each function below the table
undoes what its version introduced. Values are plain dicts, ready for JSON.

Read next: stub/server/sled_client.py.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable
from typing import Any, Final

import msgspec

from nexus_client.stub.contract import NetworkInterface, RegisterVmm, VmSpec
from nexus_client.types import time_of

LATEST: Final = 48
VERSIONS: Final = range(1, LATEST + 1)

Json = dict[str, Any]


def register_body(op: RegisterVmm, major: int = LATEST) -> Json:
    """`InstanceEnsureBody` of version `major`.0.0. Raises ValueError for a version that is not known."""
    if major not in VERSIONS:
        raise ValueError(f"Sled Agent API {major}.0.0 is not known; 1.0.0 to {LATEST}.0.0 are")
    body = _latest(op)
    for introduced, take_back in _CHANGES:
        if major < introduced:
            take_back(body, op.spec)
    return body


def _latest(op: RegisterVmm) -> Json:
    spec = op.spec
    nic = _nic(spec.nic, str(op.instance_id))
    body: Json = {
        "instance_id": str(op.instance_id),
        "vmm_spec": _vmm_spec(spec),
        "local_config": {
            "hostname": spec.hostname,
            "nics": [nic],
            "external_ips": _external_ips(spec),
            "multicast_groups": [],
            "delegated_zvols": [],
            "attached_subnets": [{"kind": "external", "subnet": subnet} for subnet in spec.subnets],
            "firewall_rules": _firewall_rules(nic),
            "dhcp_config": {"dns_servers": ["1.1.1.1", "9.9.9.9"], "search_domains": []},
        },
        "metadata": {"silo_id": str(spec.silo_id), "project_id": str(spec.project_id)},
        "propolis_addr": op.propolis_addr,
        "vmm_runtime": {"state": op.state, "gen": op.gen, "time_updated": time_of(op.time_us)},
    }
    if op.migration_id is not None:  # an absent option is left out, as the generated client does
        body["migration_id"] = str(op.migration_id)
    return body


def _nic(nic: NetworkInterface, instance_id: str) -> Json:
    return {
        "id": str(nic.id),
        "kind": {"type": "instance", "id": instance_id},
        "name": nic.name,
        "ip_config": {"type": "v4", "value": {"ip": nic.ip, "subnet": nic.subnet, "transit_ips": []}},
        "mac": nic.mac,
        "vni": nic.vni,
        "primary": True,
        "slot": 0,
    }


def _is_v4(address: str) -> bool:
    return ipaddress.ip_address(address).version == 4


def _external_ips(spec: VmSpec) -> Json:
    nat = spec.source_nat
    ephemeral = spec.ephemeral_ip
    v6 = [ip for ip in spec.floating_ips if not _is_v4(ip)]
    v6_ephemeral = ephemeral if ephemeral is not None and not _is_v4(ephemeral) else None
    return {
        "v4": {
            "source_nat": {"ip": nat.ip, "first_port": nat.first_port, "last_port": nat.last_port},
            "ephemeral_ip": ephemeral if v6_ephemeral is None else None,
            "floating_ips": [ip for ip in spec.floating_ips if _is_v4(ip)],
        },
        "v6": {"source_nat": None, "ephemeral_ip": v6_ephemeral, "floating_ips": v6} if v6 or v6_ephemeral else None,
    }


def _firewall_rules(nic: Json) -> list[Json]:
    """The default rules of a VPC: ICMP, everything from inside, SSH."""
    common = {"status": "enabled", "direction": "inbound", "action": "allow", "priority": 65534}
    none: Json = {"filter_hosts": None, "filter_ports": None, "filter_protocols": None}
    return [
        common | none | {"targets": [nic], "filter_protocols": [{"type": "icmp", "value": None}]},
        common | none | {"targets": [nic], "filter_hosts": [{"type": "vpc", "value": nic["vni"]}]},
        common | none | {"targets": [nic], "filter_ports": ["22"], "filter_protocols": [{"type": "tcp"}]},
    ]


def _vmm_spec(spec: VmSpec) -> Json:
    disk = str(spec.boot_disk_id)
    nic = str(spec.nic.id)
    serial = f"{spec.hostname}-boot".encode()[:20].ljust(20, b"\0")
    components: Json = {f"com{n}": _component("serial_port", num=f"com{n}") for n in range(1, 5)}
    components |= {
        "pvpanic": _component("qemu_pvpanic", enable_isa=True),
        "vsock": _component("virtio_socket", guest_cid=16, pci_path=_pci(25)),
        "boot-settings": _component("boot_settings", order=[{"id": f"{disk}:device"}]),
        f"{disk}:device": _component(
            "nvme_disk", backend_id=disk, pci_path=_pci(16), serial_number=list(serial), has_write_cache=True
        ),
        disk: _component("crucible_storage_backend", readonly=False, request_json=_volume(disk)),
        nic: _component("virtio_network_backend", vnic_name=""),
        f"{nic}:device": _component("virtio_nic", backend_id=nic, interface_id=nic, pci_path=_pci(8)),
    }
    board = {
        "chipset": {"type": "i440_fx", "value": {"enable_pcie": False}},
        "cpuid": None,
        "cpus": spec.ncpus,
        "memory_mb": spec.memory_mb,
    }
    return {"board": board, "components": components}


def _component(kind: str, **fields: Any) -> Json:
    return {"type": kind, "component": fields}


def _pci(device: int) -> Json:
    return {"bus": 0, "device": device, "function": 0}


def _volume(disk: str) -> str:
    """A volume construction request of one region in three places; addresses of the documentation range."""
    options = {
        "id": disk,
        "target": [f"[2001:db8::{n}]:19000" for n in (1, 2, 3)],
        "lossy": False,
        "flush_timeout": None,
        "key": base64.b64encode(bytes.fromhex(disk.replace("-", "")) * 2).decode(),
        "cert_pem": None,
        "key_pem": None,
        "root_cert_pem": None,
        "control": None,
        "read_only": False,
    }
    region = {"type": "region", "block_size": 512, "blocks_per_extent": 131072, "extent_count": 640}
    volume = {"type": "volume", "id": disk, "block_size": 512}
    volume |= {"sub_volumes": [region | {"opts": options, "gen": 1}], "read_only_parent": None}
    return msgspec.json.encode(volume).decode()


# ---- taking back, newest change first ------------------------------------------------------------------------------


def _no_write_cache(body: Json, spec: VmSpec) -> None:
    del body["vmm_spec"]["components"][f"{spec.boot_disk_id}:device"]["component"]["has_write_cache"]


def _tagged_external_ips(body: Json, _spec: VmSpec) -> None:
    """Before 32: `{"type": "v4", "value": …}`, or both families as `dual_stack`."""
    both = body["local_config"]["external_ips"]
    if both["v6"] is None:
        body["local_config"]["external_ips"] = {"type": "v4", "value": both["v4"]}
    else:
        body["local_config"]["external_ips"] = {"type": "dual_stack", "value": both}


def _no_vsock(body: Json, _spec: VmSpec) -> None:
    del body["vmm_spec"]["components"]["vsock"]


def _without(name: str) -> Callable[[Json, VmSpec], None]:
    def take_back(body: Json, _spec: VmSpec) -> None:
        del body["local_config"][name]

    return take_back


def _flat_external_ips(body: Json, _spec: VmSpec) -> None:
    """Before 11: three fields, one family; IPv6 addresses cannot be said and are left out."""
    local = body["local_config"]
    tagged = local.pop("external_ips")
    v4 = tagged["value"] if tagged["type"] == "v4" else tagged["value"]["v4"]
    local["source_nat"] = v4["source_nat"]
    local["floating_ips"] = v4["floating_ips"]
    if v4["ephemeral_ip"] is not None:
        local["ephemeral_ip"] = v4["ephemeral_ip"]


def _flat_nics(body: Json, _spec: VmSpec) -> None:
    """Before 10: `ip`, `subnet`, `transit_ips` beside the other fields. The rules' targets are the same object."""
    nic = body["local_config"]["nics"][0]
    nic |= nic.pop("ip_config")["value"]


_CHANGES: Final[tuple[tuple[int, Callable[[Json, VmSpec], None]], ...]] = (
    (44, _no_write_cache),
    (32, _tagged_external_ips),
    (29, _no_vsock),
    (18, _without("attached_subnets")),
    (11, _flat_external_ips),
    (10, _flat_nics),
    (9, _without("delegated_zvols")),
    (7, _without("multicast_groups")),
)
