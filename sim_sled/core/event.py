"""A happening as a record for programs: the same fields whoever asks (`events --follow`, the page, `run --events`).

Read before: core/happenings.py. Read next: daemon/saying.py, play/events.py.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from nexus_client.outbox import Permanent, Transient
from nexus_client.registration import Decommissioned, Registered, RegistrationRefused
from nexus_client.types import SledVmmState, VmmStateRequested
from propolis_stub.types import Publication
from sim_sled.core.happenings import Happening, Kind
from sim_sled.core.rules import Verdict


class Event(Struct, frozen=True):
    """`before`, `after`: states, "" where the kind has none. `gen`: of the report or record, 0 without one. `attempt`
    counts from 0. `text`: what the other fields do not say. `sled`: its name. `status`: of an HTTP answer, 0 without
    one.
    """

    at_us: int
    kind: str
    sled_id: str
    vmm: str = ""
    instance: str = ""
    hostname: str = ""
    ordinal: str = ""
    before: str = ""
    after: str = ""
    gen: int = 0
    attempt: int = 0
    text: str = ""
    sled: str = ""
    status: int = 0

    def plain(self) -> dict[str, Any]:
        """As JSON is written: `from` and `to` for the states."""
        found = asdict(self)
        return {{"before": "from", "after": "to"}.get(key, key): value for key, value in found.items()}


def event_of(
    happening: Happening, *, instance: str = "", hostname: str = "", ordinal: str = "", sled: str = ""
) -> Event:
    """The event of a happening; names are those of its VMM, which the core does not know."""
    vmm = "" if happening.propolis_id is None else str(happening.propolis_id)
    event = Event(
        happening.at_us,
        happening.kind.value.replace(" ", "-"),
        str(happening.sled_id),
        vmm,
        instance,
        hostname,
        ordinal,
        sled=sled,
    )
    match happening.kind, happening.data:
        case Kind.PROPOLIS, (before, Publication() as now):
            was = before.state.value.lower() if isinstance(before, Publication) else ""
            return replace(event, before=was, after=now.state.value.lower(), gen=now.gen)
        case Kind.OBSERVED, (SledVmmState() as before, SledVmmState() as now):
            state, gen = now.vmm_state.state.value, now.vmm_state.gen
            return replace(event, before=before.vmm_state.state.value, after=state, gen=gen)
        case Kind.SENT, (SledVmmState() as body, int(attempt)):
            state, gen = body.vmm_state.state.value, body.vmm_state.gen
            return replace(event, after=state, gen=gen, attempt=attempt)
        case Kind.ASKED, (VmmStateRequested(type=asked), Verdict() as verdict):
            return replace(event, after=asked.value, text=verdict.value)
        case Kind.REFUSED, (VmmStateRequested(type=asked), error):
            return replace(event, after=asked.value, text=str(error))
        case _, (Transient(why=why, status=status) | Permanent(why=why, status=status)):
            return replace(event, text=why, status=status or 0)
        case _, SledVmmState() as body:
            return replace(event, after=body.vmm_state.state.value, gen=body.vmm_state.gen)
        case _, Registered(generation=generation):
            return replace(event, text=f"registered with Nexus, generation {generation}")
        case _, RegistrationRefused(message=message):
            return replace(event, text=f"Nexus refuses the registration: {message}")
        case _, Decommissioned():
            return replace(event, text="Nexus has decommissioned this sled")
        case _, data:
            return replace(event, text=str(data))
