"""Pieces of instance specifications, as JSON values."""

from __future__ import annotations

import json
from typing import Any

DISK_ID = "77777777-8888-4999-aaaa-bbbbccccdddd"


def board(**more: Any) -> dict[str, Any]:
    return {
        "chipset": {"type": "i440_fx", "value": {"enable_pcie": False}}, "cpus": 2, "memory_mb": 1024, **more
    }  # fmt: skip


def at(device: int, function: int = 0) -> dict[str, int]:
    return {"bus": 0, "device": device, "function": function}


def a_disk(backend: str, path: dict[str, int] | None = None) -> dict[str, Any]:
    return {"type": "virtio_disk", "component": {"backend_id": backend, "pci_path": path or at(9)}}


def a_blob(text: str = "") -> dict[str, Any]:
    return {"type": "blob_storage_backend", "component": {"base64": text, "readonly": True}}


def a_volume() -> dict[str, Any]:
    opts = {"id": DISK_ID, "target": ["[::1]:1", "[::1]:2", "[::1]:3"], "lossy": False, "read_only": False}
    region = {
        "type": "region", "block_size": 512, "blocks_per_extent": 100, "extent_count": 8, "gen": 1, "opts": opts
    }  # fmt: skip
    return {"type": "volume", "id": DISK_ID, "block_size": 512, "sub_volumes": [region], "read_only_parent": None}


def a_crucible(request: str | None = None) -> dict[str, Any]:
    text = json.dumps(a_volume()) if request is None else request
    return {"type": "crucible_storage_backend", "component": {"readonly": False, "request_json": text}}


def serial(port: str = "com1") -> dict[str, Any]:
    return {"type": "serial_port", "component": {"num": port}}


def a_sled_spec(components: dict[str, Any] | None = None, **of_the_board: Any) -> dict[str, Any]:
    return {
        "board": board(**of_the_board),
        "components": {"com": serial("com4")} if components is None else components,
    }
