"""Which seeds come next: one after the other, a swarm of them, or a swarm that follows what was new.

Guided seeds come in rounds. Half of a round is fresh; the other half are seeds of earlier rounds that reached
something new, the newest first, with one or two of their parts drawn again. A round depends on what the ones before
it gave and on nothing else, so it is the same wherever, in whatever batches and how often interrupted it was played.

Read before: campaign/swarm.py, campaign/coverage.py. Read next: campaign/explore.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Final, Protocol

import attrs

from sim_sled.campaign.job import Ran
from sim_sled.campaign.swarm import PARTS, with_byte
from sim_sled.language.draw import below, draw

ROUND: Final = 32
"""Seeds of a guided round: enough for a few players, few enough that what is new is followed soon."""
FOLLOWED_MAX: Final = 4_096
"""Seeds kept that reached something new; the oldest are forgotten."""
SEEDS_END: Final = 2**64


class Guide(Protocol):
    """`size` is that of a round; None: there is only one. `order` names the sequence in the campaign's file."""

    size: int | None

    @property
    def order(self) -> str: ...
    def rounds(self) -> Iterator[Iterator[int]]:
        """Seeds for ever, in rounds: the next is asked for when `learn` was told all of the last."""
        ...

    def learn(self, ran: Ran) -> Ran:
        """Told every run in order; gives it back as it goes into the file."""
        ...


@attrs.define(eq=False)
class OneByOne:
    """The seeds from the first on, within 64 bits."""

    first: int = 0
    size: int | None = None

    @property
    def order(self) -> str:
        return f"from {self.first}"

    def rounds(self) -> Iterator[Iterator[int]]:
        yield ((self.first + i) % SEEDS_END for i in count())

    def learn(self, ran: Ran) -> Ran:
        return ran


def fresh(first: int, nth: int) -> int:
    """The n-th unguided seed of a swarm: all its parts are drawn."""
    return draw(first, "swarm/seed", "", nth)


@attrs.define(eq=False)
class Swarm:
    """Seeds whose parts are all drawn anew."""

    first: int = 0
    size: int | None = None

    @property
    def order(self) -> str:
        return f"swarm {self.first}"

    def rounds(self) -> Iterator[Iterator[int]]:
        yield (fresh(self.first, i) for i in count())

    def learn(self, ran: Ran) -> Ran:
        return attrs.evolve(ran, reached=frozenset())


@attrs.define(eq=False)
class Guided:
    """A swarm that follows what was new."""

    first: int = 0
    size: int | None = ROUND
    covered: set[int] = attrs.field(factory=set)
    _followed: list[int] = attrs.field(factory=list)
    """Seeds that reached something new, the newest last."""
    _new: list[int] = attrs.field(factory=list)
    """Those of the last round."""

    @property
    def order(self) -> str:
        return f"guided {self.first}"

    def rounds(self) -> Iterator[Iterator[int]]:
        for nth in count():
            self._followed = [*self._followed, *self._new][-FOLLOWED_MAX:]
            newest, self._new = self._new[::-1], []
            yield iter(list(islice(self._round(nth, newest), ROUND)))

    def _round(self, nth: int, newest: list[int]) -> Iterator[int]:
        for i in range(ROUND):
            number = nth * ROUND + i
            if i % 2 == 0 or not self._followed:
                yield fresh(self.first, number)
                continue
            parent = newest[i // 2] if i // 2 < len(newest) else None
            if parent is None:
                parent = self._followed[below(draw(self.first, "guide/parent", "", number), len(self._followed))]
            yield self._changed(parent, number)

    def _changed(self, seed: int, number: int) -> int:
        """One or two parts are drawn again, and the run's own chance."""
        changed = 1 + below(draw(self.first, "guide/parts", "", number), 2)
        for n in range(changed):
            part = PARTS[below(draw(self.first, f"guide/part {n}", "", number), len(PARTS) - 1)]
            seed = with_byte(seed, part, below(draw(self.first, f"guide/byte {n}", "", number), 256))
        return with_byte(seed, "chance", below(draw(self.first, "guide/chance", "", number), 256))

    def learn(self, ran: Ran) -> Ran:
        new = ran.reached - self.covered
        self.covered |= new
        if new:
            self._new.append(ran.seed)
        return attrs.evolve(ran, reached=frozenset(new))
