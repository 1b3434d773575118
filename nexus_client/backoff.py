"""How long to wait before the next attempt: pure, `delay_us(policy, attempt, draw)` (NX 3.1).

A base grows from *initial* by *multiplier* until *max*; the delay is drawn around the base. The cap is on the
base, so a single delay may reach 1.5 times *max*. The first attempt is immediate and no business of this file;
`attempt` counts the attempts that have failed before the one just failed, from 0.

Read next: outbox.py, registration.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from nexus_client.draw import DRAW_BITS, DRAW_END


class Jitter(Enum):
    """Where the delay lies around its base b."""

    HALF = "half"  # uniform in [0.5 b, 1.5 b)
    ADDITIVE = "additive"  # uniform in [b, 2 b): the second library of NX 3.1


@attrs.frozen
class Policy:
    """One retry policy. Times in microseconds; the multiplier in percent, so that bases are exact integers."""

    initial_us: int = attrs.field(validator=attrs.validators.gt(0))
    multiplier_percent: int = attrs.field(validator=attrs.validators.gt(100))
    max_us: int = attrs.field()
    jitter: Jitter = Jitter.HALF
    bases_us: tuple[int, ...] = attrs.field(init=False, repr=False, eq=False)

    @max_us.validator
    def _max_is_reached(self, _attribute: object, value: int) -> None:
        if value < self.initial_us:
            raise ValueError("max_us is below initial_us")

    def __attrs_post_init__(self) -> None:
        # the exact product is rounded each time, not a rounded one multiplied: as the original's floating point
        bases, base, exact, percent = [], self.initial_us, self.initial_us, 1
        while base < self.max_us:
            bases.append(base)
            exact, percent = exact * self.multiplier_percent, percent * 100
            # at least 1 more: a tiny initial times 1.2 would otherwise round down to itself for ever
            base = max(base + 1, exact // percent)
        object.__setattr__(self, "bases_us", (*bases, self.max_us))


INTERNAL_SERVICE: Final = Policy(250_000, 200, 180_000_000)
"""Publishing of VMM states."""

INTERNAL_SERVICE_AGGRESSIVE: Final = Policy(100_000, 120, 180_000_000)
"""What the original simulator registers itself with."""

LOCAL: Final = Policy(50_000, 200, 1_000_000)
"""Polling on the same machine."""

INDEFINITE: Final = Policy(167_000, 200, 180_000_000, Jitter.ADDITIVE)
"""The second retry library that Nexus uses for its calls to sleds."""


def base_us(policy: Policy, attempt: int) -> int:
    """The base before jitter after `attempt` earlier failures."""
    if attempt < 0:
        raise ValueError(f"attempt {attempt} is negative")
    bases = policy.bases_us
    return bases[attempt] if attempt < len(bases) else bases[-1]


def delay_us(policy: Policy, attempt: int, draw: int) -> int:
    """Microseconds to wait after the `attempt`-th attempt (from 0) failed; `draw` is in [0, 2**64)."""
    if not 0 <= draw < DRAW_END:
        raise ValueError("draw is not a 64 bit number")
    base = base_us(policy, attempt)
    least = base if policy.jitter is Jitter.ADDITIVE else (base + 1) // 2
    return least + (base * draw >> DRAW_BITS)
