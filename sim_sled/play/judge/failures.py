"""What was expected and was not so. Read next: play/judge/invariants.py, play/judge/expect.py."""

from __future__ import annotations

import attrs

from sim_sled.language.source import Mark


@attrs.frozen
class Failure:
    """What was expected and was not so. `key` says the same for the same fault in another run (for `shrink`)."""

    key: str
    text: str
    at_us: int
    mark: Mark | None = None
    why: tuple[str, ...] = ()
    seen: str = ""
    """What was seen instead, without times and names, and what users wanted: with `key`, the reason."""
    hostname: str = ""
    """Whose fault it is; empty: nobody's in particular."""

    @property
    def reason(self) -> tuple[str, str]:
        """The same for the same fault, in whichever scenario it shows."""
        return self.key, self.seen
