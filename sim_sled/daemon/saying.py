"""What happens, as lines of the daemon's log: one per transition, report, retry, injection, with the same words and
fields in each, so that `sim-sled import` makes a scenario of our own logs, too (docs/importing.md).

    propolis_id, instance_id, vm (its host name), sled, from, to, gen

Where a sled agent has a line for it, the line has its words (LG 2). What is rare is said at info, the rest at debug:
a daemon with a thousand VMMs has thousands of transitions a minute.

Read before: core/event.py, logs.py. Read next: daemon/daemon.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
from msgspec.structs import asdict

from nexus_client.types import SledVmmState
from propolis_stub.types import Publication
from sim_sled import logs
from sim_sled.core.event import event_of
from sim_sled.core.happenings import Happening, Kind

if TYPE_CHECKING:
    from uuid import UUID

    from sim_sled.daemon.clock import Clock
    from sim_sled.daemon.sightings import Sightings
    from sim_sled.http.app import Over
    from sim_sled.play.passage import Passage

WORDS: Final = {
    Kind.REGISTERED: "ensuring instance is registered",
    Kind.ASKED: "Nexus asks for a state",
    Kind.REFUSED: "refused a state that Nexus asks for",
    Kind.PROPOLIS: "observed new Propolis state",
    Kind.OBSERVED: "VMM state changed",
    Kind.SENT: "Publishing instance state update to Nexus",
    Kind.ACKED: "Nexus has taken the update",
    Kind.RETRYING: "Failed to publish instance state to Nexus, will retry",
    Kind.GIVEN_UP: "Failed to publish instance state to Nexus, will not retry",
    Kind.POKED: "poked",
    Kind.MIGRATION: "migration",
    Kind.INJECTED: "fault injected",
    Kind.UNREGISTERED: "unregistered",
    Kind.FORGOTTEN: "VMM is forgotten: its end is told",
}
"""Of sleds themselves (`Kind.SLED`) the shell tells."""
RARE: Final = frozenset({Kind.REFUSED, Kind.GIVEN_UP, Kind.MIGRATION, Kind.INJECTED, Kind.POKED, Kind.UNREGISTERED})
FAILURES: Final = frozenset({Kind.REFUSED, Kind.RETRYING, Kind.GIVEN_UP})


@attrs.define(eq=False)
class Saying:
    """The lines of one daemon."""

    passage: Passage
    sightings: Sightings
    clock: Clock
    everything: bool
    _log: Any = attrs.field(factory=lambda: logs.get("vmm"))

    @property
    def watchers(self) -> list[Callable[[Happening], None]]:
        """Nobody, if nothing of it would be written."""
        return [self.watch] if logs.says("info") else []

    def watch(self, happening: Happening) -> None:
        """One happening of the rack."""
        kind = happening.kind
        if not (self.everything or kind in RARE) or kind not in WORDS or happening.propolis_id is None:
            return
        say = self._log.info if kind in RARE else self._log.debug
        say(WORDS[kind], at_us=happening.at_us, **self._fields(happening))

    def _fields(self, happening: Happening) -> dict[str, Any]:
        assert happening.propolis_id is not None, "asked before"
        fields = {"sled": self.passage.known_as(happening.sled_id), "propolis_id": str(happening.propolis_id)}
        seen = self.sightings.get(happening.propolis_id)
        if seen is not None:
            fields |= {"instance_id": str(seen.instance_id), "vm": seen.hostname}
        event = event_of(happening)
        more = {"from": event.before, "to": event.after, "gen": event.gen}
        more["error" if happening.kind in FAILURES else "text"] = event.text
        found: dict[str, Any] = fields | {name: value for name, value in more.items() if value}
        match happening.kind, happening.data:
            case Kind.REGISTERED, _:
                vmm = self.passage.rack.sleds[happening.sled_id].vmms[happening.propolis_id]
                found |= {"ncpus": vmm.about.ncpus, "memory_mib": vmm.about.memory_mib}
                if vmm.about.migration_id is not None:
                    found["migration_id"] = str(vmm.about.migration_id)
            case Kind.SENT, (SledVmmState() as body, int(attempt)):
                found |= {"attempt": attempt + 1}
                for side, migration in (("in", body.migration_in), ("out", body.migration_out)):
                    if migration is not None:
                        found[f"migration_{side}"] = migration.state.value
            case Kind.PROPOLIS, (_, Publication() as now):
                for side, status in (("in", now.migration_in), ("out", now.migration_out)):
                    if status is not None:
                        found[f"migration_{side}"] = status.state.value
        return found

    def request(self, sled_id: UUID, over: Over) -> None:
        """A request of Nexus is over."""
        fields = {name: value for name, value in asdict(over).items() if value is not None}
        words = "request completed" if over.response_code is not None else "request handling cancelled"
        gone = "" if over.response_code is not None else " (client disconnected)"
        self._log.debug(words + gone, at_us=self.clock.now_us(), sled=self.passage.known_as(sled_id), **fields)
