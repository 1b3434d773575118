"""The bytes of a volume: in the regions of its parts, over those of its parent (SR 5.2).

Read before: core/pantry/request.py, core/crucible/agents.py. Read next: core/pantry/pantry.py.
"""

from __future__ import annotations

import attrs

from propolis_stub.spec.volumes import File, Region, Request, Url, Volume
from sim_sled.core.crucible.agents import Agents
from sim_sled.core.crucible.blocks import PIECE, Blocks
from sim_sled.core.errors import BadRequest
from sim_sled.core.pantry.request import size_of


@attrs.define(eq=False)
class Contents:
    """Bytes of the parts of one volume. `elsewhere`: for regions whose agents are none of this process; what they
    hold is unknown, so only what was written through this pantry is told, as long as the volume is attached.
    """

    agents: Agents
    elsewhere: dict[tuple[str, ...], Blocks] = attrs.field(factory=dict)

    def read(self, part: Request | None, offset: int, size: int) -> bytes:
        """Raises `Forgotten` for bytes that were not kept."""
        match part:
            case Region():
                return self._to_read(part).read(offset, size)
            case Volume():
                return b"".join(
                    self._read_over(each, at, length, part, start)
                    for each, at, length, start in _spread(part, offset, size)
                )
            case None | Url() | File():
                return bytes(size)

    def _read_over(self, part: Request, at: int, size: int, volume: Volume, start: int) -> bytes:
        """From `part`, or from the parent of its volume where the part was never written."""
        if volume.read_only_parent is None or not isinstance(part, Region):
            return self.read(part, at, size)
        found: list[bytes] = []
        blocks = self._to_read(part)
        while size > 0:
            length = min(size, PIECE - at % PIECE)
            piece = blocks.read(at, length) if blocks.has(at) else self._of_parent(volume, start + at, length)
            found.append(piece)
            at, size = at + length, size - length
        return b"".join(found)

    def _of_parent(self, volume: Volume, offset: int, size: int) -> bytes:
        """A parent may be shorter than what lies over it."""
        assert volume.read_only_parent is not None, "asked for only then"
        there = max(0, min(size, size_of(volume.read_only_parent) - offset))
        return self.read(volume.read_only_parent, offset, there) + bytes(size - there)

    def write(self, part: Request, offset: int, data: bytes) -> None:
        """Raises `BadRequest` for a part that is read only."""
        match part:
            case Volume():
                at = 0
                for each, start_in, length, start in _spread(part, offset, len(data)):
                    if part.read_only_parent is not None and isinstance(each, Region):
                        self._bring_up(part, each, start_in, length, start)
                    self.write(each, start_in, data[at : at + length])
                    at += length
            case Region():
                if part.opts.read_only:
                    raise BadRequest("Cannot modify read-only region")
                for blocks in self._to_write(part):
                    blocks.write(offset, data)
            case Url() | File():
                raise BadRequest("Unsupported: a URL or file cannot be written")

    def _bring_up(self, volume: Volume, part: Region, at: int, size: int, start: int) -> None:
        """Copy the parent's bytes into pieces that are about to be written for the first time, only in part."""
        for edge in {at // PIECE, (at + size - 1) // PIECE}:
            whole = at <= edge * PIECE and (edge + 1) * PIECE <= at + size
            if whole or self._to_read(part).has(edge * PIECE):
                continue
            below = self._of_parent(volume, start + edge * PIECE, min(PIECE, size_of(part) - edge * PIECE))
            for blocks in self._to_write(part):
                blocks.write(edge * PIECE, below)

    def _to_read(self, part: Region) -> Blocks:
        for target in part.opts.target:
            found = self.agents.source(target)
            if found is not None:
                return found
        return self._elsewhere(part)

    def _to_write(self, part: Region) -> list[Blocks]:
        return [region.blocks for region in self.agents.to_write(part.opts.target)] or [self._elsewhere(part)]

    def _elsewhere(self, part: Region) -> Blocks:
        if part.opts.target not in self.elsewhere:
            self.elsewhere[part.opts.target] = Blocks(self.agents.memory)
        return self.elsewhere[part.opts.target]

    def settle(self, part: Request | None) -> None:
        """Reconciliation, once an upstairs is active: a downstairs that was never written gets what another has."""
        match part:
            case Region() if not part.opts.read_only:
                usable = self.agents.to_write(part.opts.target)
                full = next((region for region in usable if region.blocks.any_written()), None)
                for region in usable:
                    if full is not None and not region.blocks.any_written():
                        region.blocks = full.blocks.copy()
            case Volume():
                for each in part.sub_volumes:
                    self.settle(each)

    def close(self) -> None:
        for blocks in self.elsewhere.values():
            blocks.clear()
        self.elsewhere.clear()


def _spread(volume: Volume, offset: int, size: int) -> list[tuple[Request, int, int, int]]:
    """(part, offset in it, length, where it begins in the volume) of each part that these bytes lie in."""
    found: list[tuple[Request, int, int, int]] = []
    start = 0
    for part in volume.sub_volumes:
        first, last = max(offset, start), min(offset + size, start + size_of(part))
        if first < last:
            found.append((part, first - start, last - first, start))
        start += size_of(part)
    return found
