"""Chance as a function: `draw(seed, who, what, occurrence)` is the same number in every process, in every order.

The whole product draws here and nowhere else. There is no generator with a state: a draw depends on its key
alone, so it does not matter who else drew before, in which order VMMs are served or what PYTHONHASHSEED is.
A run is repeated by its seed; two draws are independent as soon as their keys differ in any part.

Choose keys as (seed, what is drawn, for whom, which occurrence), for example
`draw(seed, "retry", propolis_id, gen, attempt)`. Parts may be int, str, bytes or UUID; each part goes into the
hash with its kind and its length, so `("ab", "c")` and `("a", "bc")`, `1` and `"1"` are different keys.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final
from uuid import UUID

KeyPart = int | str | bytes | UUID

DRAW_BITS: Final = 64
DRAW_END: Final = 1 << DRAW_BITS
"""Draws are integers in [0, DRAW_END)."""


class TellingSeed(int):
    """A seed that is asked for each draw: what was drawn is written down, or known from elsewhere. The number that it
    is decides what `chance` is.
    """

    def drawn(self, key: tuple[KeyPart, ...], chance: int, /) -> int:
        """What is drawn instead of `chance`."""
        raise NotImplementedError  # Python does not look for abstract methods when it makes an `int`


def draw(seed: int, /, *key: KeyPart) -> int:
    """A uniform integer in [0, 2**64) that depends on `seed` and `key` only (blake2b)."""
    chance = _chance(seed, key)
    return seed.drawn(key, chance) if isinstance(seed, TellingSeed) else chance


def _chance(seed: int, key: tuple[KeyPart, ...]) -> int:
    parts = [b"%d" % seed]
    for part in key:
        # bool is an int; it draws like 0 and 1
        if isinstance(part, str):
            raw = part.encode()
            parts.append(b"s%d:%b" % (len(raw), raw))
        elif isinstance(part, UUID):
            parts.append(b"u" + part.bytes)
        elif isinstance(part, int):
            parts.append(b"i%d;" % part)
        else:
            parts.append(b"b%d:%b" % (len(part), part))
    return int.from_bytes(blake2b(b"|".join(parts), digest_size=8).digest(), "big")
