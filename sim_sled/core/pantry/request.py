"""Volume construction requests as values: what a volume is made of (SA 5.2).

Read next: volume.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from uuid import UUID

import attrs

DEPTH_MAX: Final = 64
"""Parents of parents: Nexus flattens images and snapshots into a handful."""


@attrs.frozen
class RegionPart:
    """Three downstairs, `targets`, that hold the same `size` bytes."""

    upstairs_id: UUID
    targets: tuple[str, ...]
    block_size: int
    blocks_per_extent: int
    extent_count: int
    gen: int
    read_only: bool = False
    encrypted: bool = False
    rest: object = None  # whatever else was said, for comparing

    @property
    def size(self) -> int:
        return self.block_size * self.blocks_per_extent * self.extent_count


@attrs.frozen
class OtherPart:
    """A `url` or `file` part: its bytes are nobody's here, and it has no size of its own."""

    kind: str
    id: UUID
    block_size: int
    where: str

    size: int = attrs.field(default=0, init=False)


@attrs.frozen
class VolumePart:
    """Parts one after the other, over a read-only parent."""

    id: UUID
    block_size: int
    parts: tuple[Part, ...]
    parent: Part | None = None

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


Part = VolumePart | RegionPart | OtherPart


def regions_of(part: Part | None) -> Iterator[RegionPart]:
    """All region parts, those of parents not included: what a snapshot is made of (SR 4.3)."""
    match part:
        case RegionPart():
            yield part
        case VolumePart():
            for each in part.parts:
                yield from regions_of(each)


def replaced_targets(old: Part, new: Part) -> int | None:
    """How many targets differ; None if anything else but the generations does."""
    match old, new:
        case RegionPart(), RegionPart():
            if attrs.evolve(old, targets=new.targets, gen=new.gen) != new or len(old.targets) != len(new.targets):
                return None
            return sum(ours != theirs for ours, theirs in zip(old.targets, new.targets, strict=True))
        case VolumePart(), VolumePart():
            if (old.id, old.block_size, len(old.parts)) != (new.id, new.block_size, len(new.parts)):
                return None
            pairs = list(zip(old.parts, new.parts, strict=True))
            if old.parent is not None and new.parent is not None:
                pairs.append((old.parent, new.parent))
            elif old.parent is not None:
                pass  # a parent may have been scrubbed away meanwhile
            elif new.parent is not None:
                return None
            counts = [replaced_targets(ours, theirs) for ours, theirs in pairs]
            return None if None in counts else sum(count for count in counts if count is not None)
        case _:
            return 0 if old == new else None
