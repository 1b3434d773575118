"""The bytes of a volume: in the regions of its parts, over those of its parent (SR 5.2).

Read before: request.py, ../crucible/agents.py. Read next: pantry.py.
"""

from __future__ import annotations

import attrs

from sim_sled.core.crucible.agents import Agents
from sim_sled.core.crucible.blocks import PIECE, Blocks
from sim_sled.core.errors import BadRequest
from sim_sled.core.pantry.request import OtherPart, Part, RegionPart, VolumePart


@attrs.define(eq=False)
class Contents:
    """Bytes of the parts of one volume. `elsewhere`: for regions whose agents are none of this process; what they
    hold is unknown, so only what was written through this pantry is told, as long as the volume is attached.
    """

    agents: Agents
    elsewhere: dict[tuple[str, ...], Blocks] = attrs.field(factory=dict)

    def read(self, part: Part | None, offset: int, size: int) -> bytes:
        """Raises `Forgotten` for bytes that were not kept."""
        match part:
            case RegionPart():
                return self._to_read(part).read(offset, size)
            case VolumePart():
                return b"".join(
                    self._read_over(each, at, length, part, start)
                    for each, at, length, start in _spread(part, offset, size)
                )
            case None | OtherPart():
                return bytes(size)

    def _read_over(self, part: Part, at: int, size: int, volume: VolumePart, start: int) -> bytes:
        """From `part`, or from the parent of its volume where the part was never written."""
        if volume.parent is None or not isinstance(part, RegionPart):
            return self.read(part, at, size)
        found: list[bytes] = []
        blocks = self._to_read(part)
        while size > 0:
            length = min(size, PIECE - at % PIECE)
            piece = blocks.read(at, length) if blocks.has(at) else self._of_parent(volume, start + at, length)
            found.append(piece)
            at, size = at + length, size - length
        return b"".join(found)

    def _of_parent(self, volume: VolumePart, offset: int, size: int) -> bytes:
        """A parent may be shorter than what lies over it."""
        assert volume.parent is not None, "asked for only then"
        there = max(0, min(size, volume.parent.size - offset))
        return self.read(volume.parent, offset, there) + bytes(size - there)

    def write(self, part: Part, offset: int, data: bytes) -> None:
        """Raises `BadRequest` for a part that is read only."""
        match part:
            case VolumePart():
                at = 0
                for each, start_in, length, start in _spread(part, offset, len(data)):
                    if part.parent is not None and isinstance(each, RegionPart):
                        self._bring_up(part, each, start_in, length, start)
                    self.write(each, start_in, data[at : at + length])
                    at += length
            case RegionPart():
                if part.read_only:
                    raise BadRequest("Cannot modify read-only region")
                for blocks in self._to_write(part):
                    blocks.write(offset, data)
            case OtherPart():
                raise BadRequest(f"Unsupported: a {part.kind} cannot be written")

    def _bring_up(self, volume: VolumePart, part: RegionPart, at: int, size: int, start: int) -> None:
        """Copy the parent's bytes into pieces that are about to be written for the first time, only in part."""
        for edge in {at // PIECE, (at + size - 1) // PIECE}:
            whole = at <= edge * PIECE and (edge + 1) * PIECE <= at + size
            if whole or self._to_read(part).has(edge * PIECE):
                continue
            below = self._of_parent(volume, start + edge * PIECE, min(PIECE, part.size - edge * PIECE))
            for blocks in self._to_write(part):
                blocks.write(edge * PIECE, below)

    def _to_read(self, part: RegionPart) -> Blocks:
        for target in part.targets:
            found = self.agents.source(target)
            if found is not None:
                return found
        return self._elsewhere(part)

    def _to_write(self, part: RegionPart) -> list[Blocks]:
        return [region.blocks for region in self.agents.usable(part.targets)] or [self._elsewhere(part)]

    def _elsewhere(self, part: RegionPart) -> Blocks:
        if part.targets not in self.elsewhere:
            self.elsewhere[part.targets] = Blocks(self.agents.memory)
        return self.elsewhere[part.targets]

    def settle(self, part: Part | None) -> None:
        """Reconciliation, once an upstairs is active: a downstairs that was never written gets what another has."""
        match part:
            case RegionPart(read_only=False):
                usable = self.agents.usable(part.targets)
                full = next((region for region in usable if region.blocks.any_written()), None)
                for region in usable:
                    if full is not None and not region.blocks.any_written():
                        region.blocks = full.blocks.copy()
            case VolumePart():
                for each in part.parts:
                    self.settle(each)

    def close(self) -> None:
        for blocks in self.elsewhere.values():
            blocks.clear()
        self.elsewhere.clear()


def _spread(volume: VolumePart, offset: int, size: int) -> list[tuple[Part, int, int, int]]:
    """(part, offset in it, length, where it begins in the volume) of each part that these bytes lie in."""
    found: list[tuple[Part, int, int, int]] = []
    start = 0
    for part in volume.parts:
        first, last = max(offset, start), min(offset + size, start + part.size)
        if first < last:
            found.append((part, first - start, last - first, start))
        start += part.size
    return found
