"""What happens in a run, or is told by a conductor, as the records of `core.event`: `run --events` has the
fields that `events` of a daemon has.

Read before: core/event.py, play/virtual.py. Read next: daemon/looking.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from msgspec.structs import replace

from sim_sled.core.event import Event, event_of
from sim_sled.core.happenings import Happening

if TYPE_CHECKING:
    from sim_sled.engine.cast import Subject


def told_event(
    at_us: int,
    kind: str,
    who: Subject | None,
    text: str,
    *,
    sled: str = "",
    sled_id: UUID | None = None,
    status: int = 0,
) -> Event:
    """Of what is no happening of a rack: a request, a user's wish, a rule that fired. `sled`: where, if not where the
    VMM is.
    """
    if who is None:
        return Event(at_us, kind, "" if sled_id is None else str(sled_id), text=text, sled=sled, status=status)
    return Event(
        at_us,
        kind,
        str(who.sled.id),
        str(who.propolis_id),
        str(who.instance_id),
        who.hostname,
        who.short,
        text=text,
        sled=sled or who.sled.name,
        status=status,
    )


def event_in_run(at_us: int, happening: Happening, who: Subject, line: str) -> Event:
    """Of a happening of a VMM, at this time of the run. `line`: what the trace says of it, "" if nothing."""
    event = event_of(
        happening, instance=str(who.instance_id), hostname=who.hostname, ordinal=who.short, sled=who.sled.name
    )
    return replace(event, at_us=at_us, text=line or event.text)


def events_json(events: Iterable[Event]) -> Iterator[str]:
    """A line of JSON each, numbered from 1."""
    for number, event in enumerate(events, 1):
        yield json.dumps({"number": number} | event.plain(), ensure_ascii=False) + "\n"
