"""distribution.py: what is drawn of it, and what needs no draw."""

import pytest

from nexus_client.draw import TellingSeed
from sim_sled.language.distribution import Fixed, Uniform, drawn
from sim_sled.language.draw import draw


class Asked(TellingSeed):
    """Tells that something was drawn."""

    def drawn(self, key, chance, /):
        raise LookupError(key)


def test_what_always_takes_the_same_draws_nothing():
    assert drawn(Fixed(1_500), Asked(7), "latency/x", "web/1", 3) == 1_500


def test_what_does_not_draws_by_seed_whom_and_occurrence():
    with pytest.raises(LookupError):
        drawn(Uniform(1, 1_000), Asked(7), "latency/x", "web/1", 3)
    takes = Uniform(0, 10**9)
    assert drawn(takes, 7, "latency/x", "web/1", 3) == takes.at(draw(7, "latency/x", "web/1", 3))
    assert len({drawn(takes, 7, "latency/x", whom, nth) for whom in ("a", "b") for nth in (0, 1)}) == 4
