"""Crucible volumes: construction requests, the replacement of one by another, and what one tells of itself (PR 4.2).

A stand-in: there are no downstairs behind it. Ids that a request does not name are derived from it.

Replacing compares two requests part by part (crucible's `compare_vcr_for_update`); all parts together must amount to
one change: of one target, or of generations alone.

Read before: spec/types.py. Read next: sim_sled/core/pantry/request.py, spec/build.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U32, SockAddr
from propolis_stub.spec.types import U64, fits_u64

_NAMESPACE: Final = UUID("5f0e2f0c-7b0a-5c8e-9c3d-2a54d1b7c2aa")


# --- construction requests (SA 5.2) -----------------------------------------------------------------------------


class RegionOptions(msgspec.Struct, kw_only=True):
    id: UUID
    target: tuple[str, ...]
    lossy: bool
    read_only: bool
    flush_timeout: float | None = None
    key: str | None = None
    cert_pem: str | None = None
    key_pem: str | None = None
    root_cert_pem: str | None = None
    control: str | None = None

    def __post_init__(self) -> None:
        self.target = tuple(SockAddr.canonical(target) for target in self.target)
        if self.control is not None:
            self.control = SockAddr.canonical(self.control)


class Volume(msgspec.Struct, tag_field="type", tag="volume", kw_only=True):
    id: UUID
    block_size: U64
    sub_volumes: tuple[Volume | Region | Url | File, ...]
    read_only_parent: Volume | Region | Url | File | None = None

    def __post_init__(self) -> None:
        fits_u64(block_size=self.block_size)


class Region(msgspec.Struct, tag_field="type", tag="region", kw_only=True):
    block_size: U64
    blocks_per_extent: U64
    extent_count: U32
    opts: RegionOptions
    gen: U64

    def __post_init__(self) -> None:
        fits_u64(block_size=self.block_size, blocks_per_extent=self.blocks_per_extent, gen=self.gen)


class Url(msgspec.Struct, tag_field="type", tag="url", kw_only=True):
    id: UUID
    block_size: U64
    url: str

    def __post_init__(self) -> None:
        fits_u64(block_size=self.block_size)


class File(msgspec.Struct, tag_field="type", tag="file", kw_only=True):
    id: UUID
    block_size: U64
    path: str

    def __post_init__(self) -> None:
        fits_u64(block_size=self.block_size)


Request = Volume | Region | Url | File
"""A volume construction request. Unknown fields are taken, as the original takes them."""

_REQUEST: Final[Json[Request]] = Json(Request)
_WHOLE: Final = msgspec.json.Decoder(msgspec.Raw)


def read(text: str) -> Request:
    """The request that `text` is. Raises `ValueError`."""
    try:
        body = text.encode()
        _WHOLE.decode(body)  # in a body text may follow the document, here it may not
        return _REQUEST.decode(body)
    except RecursionError:
        raise ValueError("failed to parse VCR JSON: recursion limit exceeded") from None
    except (msgspec.DecodeError, ValueError) as problem:
        raise ValueError(f"failed to parse VCR JSON: {problem}") from None


def targets(request: Request) -> tuple[str, ...]:
    """Addresses of the regions that a volume writes to: sub-volumes, not the read-only parent (SR 4.3)."""
    match request:
        case Volume():
            return tuple(each for part in request.sub_volumes for each in targets(part))
        case Region():
            return request.opts.target
        case _:
            return ()


# --- replacement ------------------------------------------------------------------------------------------------


class _Change(Enum):
    TARGET = "target"
    GENERATION = "generation"


def replacement_result(stored: str, wanted: str) -> str:
    """`"vcr_matches"` if only generations were raised, `"started"` if one target was changed.

    Raises `ValueError` with Crucible's kind of complaint for everything else, also for no change at all.
    """
    new, old = read(wanted), read(stored)
    try:
        return compare(old, new)
    except RecursionError:
        raise ValueError("failed to parse VCR JSON: recursion limit exceeded") from None


def compare(old: Request, new: Request) -> str:
    """See `replacement_result`."""
    changes = list(_changes(old, new))
    targets = changes.count(_Change.TARGET)
    if targets > 1:
        raise ValueError("Multiple target changes")
    if targets == 1:
        return "started"
    if not changes:
        raise ValueError("The VCRs have no difference")
    return "vcr_matches"


def _changes(old: Request | None, new: Request | None) -> Iterator[_Change]:
    """What is allowed to differ, once for each place where it does. Raises `ValueError` at what is not."""
    if isinstance(old, Volume) and isinstance(new, Volume):
        if (old.id, old.block_size, len(old.sub_volumes)) != (new.id, new.block_size, len(new.sub_volumes)):
            raise ValueError("The volumes differ in their id, block size or number of sub-volumes")
        for below, replacement in zip(old.sub_volumes, new.sub_volumes, strict=True):
            yield from _changes(below, replacement)
        yield from _changes(old.read_only_parent, new.read_only_parent)
    elif isinstance(old, Region) and isinstance(new, Region):
        yield from _region_changes(old, new)
    elif old != new:
        raise ValueError("The VCRs differ in a part that cannot be replaced")


def _region_changes(old: Region, new: Region) -> Iterator[_Change]:
    if new.gen < old.gen:
        raise ValueError(f"The generation goes back from {old.gen} to {new.gen}")
    options = msgspec.structs.replace(new.opts, target=old.opts.target)
    if msgspec.structs.replace(new, gen=old.gen, opts=options) != old:
        raise ValueError("The regions differ in their size or options")
    if len(new.opts.target) != len(old.opts.target):
        raise ValueError("The regions differ in their number of targets")
    for before, after in zip(old.opts.target, new.opts.target, strict=True):
        if before != after:
            yield _Change.TARGET
    if new.gen > old.gen:
        yield _Change.GENERATION


# --- status -----------------------------------------------------------------------------------------------------


def volume_info(key: str, request_json: str, *, active: bool) -> dict[str, Any]:
    """`VolumeInfo` of version 5.0.0."""
    return _info(key, read(request_json), active=active)


def _info(key: str, request: Request, *, active: bool) -> dict[str, Any]:
    if not isinstance(request, Volume):
        return {"upstairs": _upstairs(key, request, active=active)}
    parent = request.read_only_parent
    return {
        "volume": {
            "sub_volumes": [
                _info(f"{key}/{index}", sub, active=active) for index, sub in enumerate(request.sub_volumes)
            ],
            "read_only_parent": None if parent is None else _info(f"{key}/parent", parent, active=active),
        }
    }


def _upstairs(key: str, request: Region | Url | File, *, active: bool) -> dict[str, Any]:
    opts = request.opts if isinstance(request, Region) else None
    status: dict[str, Any] = (
        {"type": "active"} if active else {"type": "connecting", "mode": "new", "state": "wait_connect"}
    )
    return {
        "state": "active" if active else "initializing",
        "session_id": str(uuid5(_NAMESPACE, f"session/{key}")),
        "upstairs_id": str(request.id if not isinstance(request, Region) else request.opts.id),
        "generation": request.gen if isinstance(request, Region) else 1,
        "block_size": request.block_size,
        "read_only": opts.read_only if opts is not None else False,
        "encrypted": opts is not None and opts.key is not None,
        "live_repair_in_progress": False,
        "reconcile_in_progress": False,
        "targets": [
            {
                "state": status,
                "target_addr": target,
                "region_id": str(uuid5(_NAMESPACE, f"region/{target}")) if active else None,
                "repair_addr": None,
            }
            for target in (opts.target if opts is not None else ())[:3]
        ],
    }
