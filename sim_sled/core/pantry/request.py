"""What a pantry reads out of volume construction requests; the requests themselves are Propolis's (SA 5.2).

Read before: propolis_stub/spec/volumes.py. Read next: core/pantry/volume.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from propolis_stub.spec.volumes import File, Region, Request, Url, Volume
from sim_sled.core.errors import BadRequest

DEPTH_MAX: Final = 64
"""Volumes within volumes: Nexus nests images and snapshots a handful deep."""


def check_depth(request: Request | None, left: int = DEPTH_MAX) -> None:
    """Raises `BadRequest`: everything else here goes down to the bottom without looking."""
    if left == 0:
        raise BadRequest(f"volumes are nested more than {DEPTH_MAX} deep")
    if isinstance(request, Volume):
        for part in (*request.sub_volumes, request.read_only_parent):
            check_depth(part, left - 1)


def size_of(request: Request) -> int:
    """Bytes. The bytes behind a URL or in a file are nobody's here: they have no size."""
    match request:
        case Volume():
            return sum(size_of(part) for part in request.sub_volumes)
        case Region():
            return request.block_size * request.blocks_per_extent * request.extent_count
        case Url() | File():
            return 0


def regions_of(request: Request | None) -> Iterator[Region]:
    """All regions, those of parents not included: what a snapshot is made of (SR 4.3)."""
    match request:
        case Region():
            yield request
        case Volume():
            for part in request.sub_volumes:
                yield from regions_of(part)
