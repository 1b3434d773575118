"""A small body that registers a VMM, in the shape of the newest API version."""

import uuid
from typing import Any

INSTANCE = uuid.UUID(int=0x1057)
ADDRESS = "[fd00:1122:3344:101::1]:12400"


def register_body(
    state: str = "starting",
    *,
    migration_id: uuid.UUID | None = None,
    addr: str = ADDRESS,
    hostname: str = "web",
    ncpus: int = 2,
    instance_id: uuid.UUID = INSTANCE,
) -> dict[str, Any]:
    return {
        "instance_id": str(instance_id),
        "local_config": {
            "attached_subnets": [],
            "delegated_zvols": [],
            "dhcp_config": {"dns_servers": [], "search_domains": []},
            "external_ips": {},
            "firewall_rules": [],
            "hostname": hostname,
            "multicast_groups": [],
            "nics": [],
        },
        "metadata": {"project_id": str(uuid.UUID(int=1)), "silo_id": str(uuid.UUID(int=2))},
        "migration_id": None if migration_id is None else str(migration_id),
        "propolis_addr": addr,
        "vmm_runtime": {"gen": 2, "state": state, "time_updated": "2026-11-22T10:00:00Z"},
        "vmm_spec": {
            "board": {
                "chipset": {"type": "i440_fx", "value": {"enable_pcie": False}},
                "cpus": ncpus,
                "memory_mb": 1024,
            },
            "components": {"com1": {"type": "serial_port", "component": {"num": "com1"}}},
        },
    }
