"""Which seeds come next: one after the other, a swarm of them, or a swarm that follows what was new.

Guided seeds come in rounds, short ones first. Most of a round is fresh, later half of it; the others descend from
seeds of earlier rounds that reached something new: their own chance, one or two of their parts are drawn again, or
parts of another such seed take their places. Who reached more that was new has more descendants, and each of them
makes the next less likely. A round depends on what the ones before it gave and on nothing else, so it is the same
wherever, in whatever batches and how often interrupted it was played.

Read before: campaign/swarm.py, campaign/coverage.py. Read next: campaign/explore.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final, Protocol

import attrs

from sim_sled.campaign.coverage import worth
from sim_sled.campaign.draws import PARTS, byte_of, with_byte
from sim_sled.campaign.job import Ran
from sim_sled.language.draw import below, draw

ROUNDS: Final = (8, 8, 16, 32, 64)
"""Seeds of the first rounds; all later ones have as many as the last. What is new is followed soon while all is new,
and later there is enough for many players.
"""
ROUND: Final = ROUNDS[-1]
EARLY: Final = 64
"""Until then everything is new, so variety is worth more: one seed of four is not fresh, then every second."""
TRIED: Final = 4
"""So many seeds are looked at for a parent, and the best of them is it."""
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
class Followed:
    """A seed that reached something new. `worth`: how much; `heirs`: how many descend from it already."""

    seed: int
    worth: int
    heirs: int = 0

    @property
    def energy(self) -> float:
        return self.worth / (1 + self.heirs)


@attrs.define(eq=False)
class Guided:
    """A swarm that follows what was new."""

    first: int = 0
    size: int | None = ROUND
    covered: set[int] = attrs.field(factory=set)
    _followed: list[Followed] = attrs.field(factory=list)
    """Seeds that reached something new, the newest last."""
    _new: list[Followed] = attrs.field(factory=list)
    """Those of the last round."""

    @property
    def order(self) -> str:
        return f"guided {self.first}"

    def rounds(self) -> Iterator[Iterator[int]]:
        number = 0
        for nth in count():
            self._followed = [*self._followed, *self._new][-FOLLOWED_MAX:]
            self._new = []
            size = self.size = ROUNDS[min(nth, len(ROUNDS) - 1)]
            yield iter([self._seed(number + i) for i in range(size)])
            number += size

    def _seed(self, number: int) -> int:
        every = 4 if number < EARLY else 2
        if number % every != every - 1 or not self._followed:
            return fresh(self.first, number)
        parent = self._parent(number, "")
        parent.heirs += 1
        return self._changed(parent.seed, number)

    def _parent(self, number: int, what: str) -> Followed:
        tried = [
            self._followed[below(draw(self.first, f"guide/parent{what} {n}", "", number), len(self._followed))]
            for n in range(TRIED)
        ]
        return max(tried, key=lambda each: each.energy)

    def _changed(self, seed: int, number: int) -> int:
        """Up to two parts are drawn again, or each is taken from another seed with an even chance. In any case the
        run's own chance is drawn anew.
        """
        drawn = PARTS[:-1]
        changed = below(draw(self.first, "guide/parts", "", number), 4)
        if changed > 2:
            other = self._parent(number, " too").seed
            for part in drawn:
                if below(draw(self.first, f"guide/of {part}", "", number), 2):
                    seed = with_byte(seed, part, byte_of(other, part))
        else:
            for n in range(changed):
                part = drawn[below(draw(self.first, f"guide/part {n}", "", number), len(drawn))]
                seed = with_byte(seed, part, below(draw(self.first, f"guide/byte {n}", "", number), 256))
        return with_byte(seed, "chance", below(draw(self.first, "guide/chance", "", number), 256))

    def learn(self, ran: Ran) -> Ran:
        new = ran.reached - self.covered
        self.covered |= new
        if new:
            self._new.append(Followed(ran.seed, worth(new)))
        return attrs.evolve(ran, reached=frozenset(new))
