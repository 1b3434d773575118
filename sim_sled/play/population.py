"""Who a `churn` can act on, kept up to date by what the model says: no action looks at every instance.

Read before: play/users.py.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final
from uuid import UUID

import attrs

from nexus_client.stub.nexus import Nexus
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import Instance

CHUNK_MAX: Final = 1_024
"""Numbers in one list: moving half of them costs less than looking for the list among those of a million."""


@attrs.define(eq=False)
class Ordered:
    """A sorted set of integers that finds its nth member without walking through all."""

    _chunks: list[list[int]] = attrs.field(factory=lambda: [[]])
    _size: int = 0

    def __len__(self) -> int:
        return self._size

    def add(self, number: int) -> None:
        """It must not be in there."""
        at = self._chunk_of(number)
        chunk = self._chunks[at]
        insort(chunk, number)
        self._size += 1
        if len(chunk) > CHUNK_MAX:
            half = len(chunk) // 2
            self._chunks[at : at + 1] = [chunk[:half], chunk[half:]]

    def remove(self, number: int) -> None:
        """Raises KeyError if it is not in there."""
        at = self._chunk_of(number)
        chunk = self._chunks[at]
        place = bisect_left(chunk, number)
        if place == len(chunk) or chunk[place] != number:
            raise KeyError(number)
        del chunk[place]
        self._size -= 1
        if not chunk and len(self._chunks) > 1:
            del self._chunks[at]

    def __getitem__(self, nth: int) -> int:
        """The nth smallest, from 0. Raises IndexError."""
        if nth >= 0:
            for chunk in self._chunks:
                if nth < len(chunk):
                    return chunk[nth]
                nth -= len(chunk)
        raise IndexError("fewer members than that")

    def _chunk_of(self, number: int) -> int:
        """The last chunk that begins at or before it, else the first."""
        low, high = 0, len(self._chunks) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._chunks[middle][0] <= number:
                low = middle
            else:
                high = middle - 1
        return low


@attrs.define(eq=False)
class Population:
    """The undeleted instances whose host name begins so, in groups of public states, oldest first."""

    prefix: str
    groups: tuple[frozenset[str], ...]
    _members: dict[frozenset[str], Ordered] = attrs.field(init=False)
    _ids: dict[int, UUID] = attrs.field(factory=dict)
    _group: dict[int, frozenset[str]] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._members = {group: Ordered() for group in self.groups}

    def follow(self, nexus: Nexus) -> None:
        """From now on; what the model already has is counted too."""
        for row in nexus.instances():
            self.moved(row, nexus.public_state(row.id))
        nexus.watch_public(self.moved)

    def moved(self, row: Instance, state: PublicState | None) -> None:
        """Users see this state of an instance from now on; None: it is deleted."""
        if not row.hostname.startswith(self.prefix):
            return
        left = self._group.pop(row.ordinal, None)
        if left is not None:
            self._members[left].remove(row.ordinal)
        if state is None:
            self._ids.pop(row.ordinal, None)
            return
        self._ids[row.ordinal] = row.id
        for group in self.groups:
            if state.value in group:
                self._group[row.ordinal] = group
                self._members[group].add(row.ordinal)
                return

    def __len__(self) -> int:
        return len(self._ids)

    def of(self, group: frozenset[str]) -> int:
        """How many are in one of these states."""
        return len(self._members[group])

    def nth(self, group: frozenset[str], nth: int) -> UUID:
        """The nth oldest of them, from 0. Raises IndexError."""
        return self._ids[self._members[group][nth]]
