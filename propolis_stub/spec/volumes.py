"""What a Crucible volume would say about itself, derived from its construction request (PR 4.2).

A stand-in: there are no downstairs behind it. Ids that the request does not name are derived from it.
"""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID, uuid5

_NAMESPACE: Final = UUID("5f0e2f0c-7b0a-5c8e-9c3d-2a54d1b7c2aa")
_DEPTH_MAX: Final = 16
"""Of nested volumes: snapshots of snapshots; the real ones stop below ten."""


def replacement_result(stored: str, wanted: str) -> str:
    """`"vcr_matches"` or `"started"`. Raises `ValueError` with Crucible's kind of complaint."""
    try:
        new = json.loads(wanted)
    except ValueError as problem:
        raise ValueError(f"failed to parse VCR JSON: {problem}") from None
    if not isinstance(new, dict):
        raise ValueError("failed to parse VCR JSON: invalid type, expected a volume construction request")  # noqa: TRY004
    try:
        old = json.loads(stored)
    except ValueError:
        old = None
    return "vcr_matches" if new == old else "started"


def volume_info(key: str, request_json: str, *, active: bool) -> dict[str, Any]:
    """`VolumeInfo` of version 5.0.0."""
    try:
        request = json.loads(request_json)
    except ValueError:
        request = None
    return _info(key, request, active=active, depth=0)


def _info(key: str, request: Any, *, active: bool, depth: int) -> dict[str, Any]:
    if isinstance(request, dict) and request.get("type") == "volume" and depth < _DEPTH_MAX:
        parent = request.get("read_only_parent")
        subs = request.get("sub_volumes")
        return {
            "volume": {
                "sub_volumes": [
                    _info(f"{key}/{index}", sub, active=active, depth=depth + 1)
                    for index, sub in enumerate(subs if isinstance(subs, list) else [])
                ],
                "read_only_parent": None
                if parent is None
                else _info(f"{key}/parent", parent, active=active, depth=depth + 1),
            }
        }
    return {"upstairs": _upstairs(key, request if isinstance(request, dict) else {}, active=active)}


def _upstairs(key: str, request: dict[str, Any], *, active: bool) -> dict[str, Any]:
    opts = request.get("opts")
    opts = opts if isinstance(opts, dict) else {}
    targets = opts.get("target")
    status: dict[str, Any] = (
        {"type": "active"} if active else {"type": "connecting", "mode": "new", "state": "wait_connect"}
    )
    return {
        "state": "active" if active else "initializing",
        "session_id": str(uuid5(_NAMESPACE, f"session/{key}")),
        "upstairs_id": _uuid(opts.get("id"), f"upstairs/{key}"),
        "generation": _natural(request.get("gen"), 1),
        "block_size": _natural(request.get("block_size"), 512),
        "read_only": bool(opts.get("read_only", False)),
        "encrypted": opts.get("key") is not None,
        "live_repair_in_progress": False,
        "reconcile_in_progress": False,
        "targets": [
            {
                "state": status,
                "target_addr": str(target),
                "region_id": str(uuid5(_NAMESPACE, f"region/{target}")) if active else None,
                "repair_addr": None,
            }
            for target in (targets if isinstance(targets, list) else [])[:3]
        ],
    }


def _uuid(value: Any, otherwise: str) -> str:
    try:
        return str(UUID(str(value)))
    except ValueError:
        return str(uuid5(_NAMESPACE, otherwise))


def _natural(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise
