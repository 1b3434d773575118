"""What happened in a rack, for traces, logs, `why` and scenario triggers. Values only; nothing here decides.

A `Watch` is called synchronously by the core with each happening. It must not call back into the rack.

Read next: core/event.py, daemon/metrics.py, daemon/sightings.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from msgspec import Struct

from nexus_client.dropshot.identity import IdentityEnum


class Kind(IdentityEnum):
    """Sorts of happenings; `data` of each in brackets."""

    REGISTERED = "registered"  # [SledVmmState]
    ASKED = "asked"  # Nexus requested a state [(VmmStateRequested, Verdict)]
    REFUSED = "refused"  # ... and was refused [(VmmStateRequested, SledError)]
    PROPOLIS = "propolis"  # Propolis published [(Publication before | None, Publication)]
    OBSERVED = "observed"  # the sled's record changed [(SledVmmState before, SledVmmState)]
    SENT = "sent"  # a publication goes to Nexus [(SledVmmState, attempt)]
    ACKED = "acked"  # Nexus acknowledged [SledVmmState]
    RETRYING = "retrying"  # a passing failure: it will be sent again [Transient]
    GIVEN_UP = "given up"  # Nexus refused this body for good [Permanent]
    POKED = "poked"  # [drain: bool]
    MIGRATION = "migration"  # two VMMs met, or could not [text]
    INJECTED = "injected"  # somebody misbehaved on demand [the fault]
    UNREGISTERED = "unregistered"  # DELETE [SledVmmState]
    FORGOTTEN = "forgotten"  # last state acknowledged or refused for good [SledVmmState]
    SLED = "sled"  # registration with Nexus [text]


class Happening(Struct, frozen=True):
    """One thing that has happened. `at_us`: since the Unix epoch; `propolis_id` None: to the sled itself; `data`: as
    `Kind` says.
    """

    at_us: int
    sled_id: UUID
    propolis_id: UUID | None
    kind: Kind
    data: object


AGENT_ABORTS: Final = "lost: the sled agent aborts"
"""What is `INJECTED` into every VMM of a sled whose agent aborts (SA 2.12)."""
AGENT_FORGETS: Final = "forgotten"
"""What is `INJECTED` into a VMM that its agent forgets without an end, or that goes with its sled."""

Watch = Callable[[Happening], None]
