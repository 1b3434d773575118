"""Looking at a daemon: whom somebody means, what became of a VMM, why it is where it is, and waiting for a state.

One place for the control API, `sim-sled up` and the pytest plugin.

Read before: daemon/daemon.py, daemon/sightings.py, play/events.py.
Read next: daemon/control.py, daemon/event_feed.py, daemon/page.py, daemon/small_rack.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import attrs

from nexus_client.types import stamp
from sim_sled.core.event import Event, event_of
from sim_sled.core.happenings import Happening
from sim_sled.core.why import row, why
from sim_sled.daemon.history import text_of
from sim_sled.daemon.sightings import Sighting, Sightings, whole_id
from sim_sled.language.words import hint
from sim_sled.play.events import told_event

if TYPE_CHECKING:
    from sim_sled.daemon.clock import Clock
    from sim_sled.daemon.history import History
    from sim_sled.daemon.propolis_api import PropolisApis
    from sim_sled.engine.cast import Note, Subject
    from sim_sled.play.passage import Passage

EVENTS_KEPT: Final = 20_000
"""Events for whoever comes late or comes back: some 6 MB, minutes of a busy daemon."""
MISSPELT_S: Final = 2.0
"""How long a VMM may take to appear whose name looks like a misspelt one."""
NEAR: Final = 0.75
"""How like two names are then: one wrong letter of four."""
LISTED_MAX: Final = 10
"""VMMs that an error names."""
NONE_YET: Final = "there are none yet"
NOT_TAKEN: Final = "has no VMM"
"""What is said of who is nobody: the least, and the most."""


class NobodyMeant(LookupError):
    """No VMM, or several, is meant. `several`: which of the two; the text lists them."""

    def __init__(self, text: str, *, several: bool) -> None:
        super().__init__(text)
        self.several = several


class Unmet(AssertionError):
    """A VMM was not in a state in time. The text has its timeline and its why."""


@attrs.define(eq=False)
class Looking:
    """What can be asked of one daemon."""

    passage: Passage
    history: History
    clock: Clock
    propolis: PropolisApis | None = None
    sightings: Sightings = attrs.field(init=False)
    happenings: deque[tuple[int, Happening | Event, Sighting | None]] = attrs.field(
        factory=lambda: deque(maxlen=EVENTS_KEPT)
    )
    """As they came; made into events for whoever asks, since mostly nobody does. What rules do is one already."""
    number: int = 0
    touches: int = 0
    """What has changed without a happening, counted like these: whoever looks now and then sees that it has to."""
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self.sightings = Sightings(self.passage.rack)

    def watch(self, happening: Happening) -> None:
        """One happening of the rack."""
        seen = self.sightings.watch(happening, self._ordinal)
        self.number += 1
        self.happenings.append((self.number, happening, seen))
        self._changed.set()

    def _ordinal(self, propolis_id: UUID) -> int | None:
        who = self.passage.who(propolis_id)
        return None if who is None else who.ordinal

    def told(self, kind: str, who: Subject | None, sled: str, text: str) -> None:
        """What the conductor tells: a rule that fired, what became of a report, a sled that is down."""
        event = told_event(self.clock.now_us(), kind, who, text, sled="" if sled == "-" else sled)
        self.number += 1
        self.happenings.append((self.number, event, None))
        self._changed.set()

    def _event(self, number: int, happened: Happening | Event, seen: Sighting | None) -> tuple[int, Event]:
        if isinstance(happened, Event):
            return number, happened
        sled = self.passage.known_as(happened.sled_id)
        if seen is None:
            return number, event_of(happened, sled=sled)
        names = {"instance": str(seen.instance_id), "hostname": seen.hostname, "ordinal": seen.short}
        return number, event_of(happened, sled=sled, **names)

    def touch(self, *_: object) -> None:
        """Something else has changed that somebody may wait for."""
        self.touches += 1
        self._changed.set()

    def after(self, number: int, most: int = 1_000) -> list[tuple[int, Event]]:
        """Events behind `number`, oldest first, at most so many; all that are kept if it is none of ours: whoever
        comes back may have been told it by a daemon that was here before.
        """
        if number == self.number or not self.happenings:
            return []
        if number > self.number:
            number = 0
        first = self.happenings[0][0]
        skip = max(0, number + 1 - first)
        return [self._event(*self.happenings[i]) for i in range(skip, min(len(self.happenings), skip + most))]

    async def change(self, seconds: float) -> None:
        """Until something has changed, for so long at most. Look after calling this, and do not await in between."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    # ---- who

    def meant(self, who: str) -> Sighting:
        """The VMM that is meant (`Sightings.named`). Raises `NobodyMeant`."""
        found = self.sightings.named(who)
        if len(found) == 1:
            return found[0]
        refused = "" if found else self._not_registered(who)
        if refused:
            raise NobodyMeant(refused, several=False)
        shown = [f"{s.short} {s.hostname} {s.propolis_id}" for s in (found or self.sightings.all())[:LISTED_MAX]]
        listed = ", ".join(shown) or NONE_YET
        raise NobodyMeant(
            f"{'several VMMs are' if found else 'no VMM is'} called {who!r}: {listed}", several=bool(found)
        )

    def _not_registered(self, who: str) -> str:
        """Of a VMM that a sled was asked to register and did not: what the rules did. "": nobody is called so."""
        low = who.strip().lower()
        exactly = whole_id(low)
        last = next((one for one in reversed(self.passage.subjects()) if _is_called(one, low, exactly)), None)
        if last is None or self.sightings.get(last.propolis_id) is not None:
            return ""
        asked = f"{last.sled.name} was asked to register {last.propolis_id} and has not taken it"
        return ". ".join([f"{last.hostname} {NOT_TAKEN}: {asked}", *map(_said, last.notes)])

    # ---- what and why

    def timeline(self, seen: Sighting) -> list[str]:
        """What happened to a VMM, oldest first, with milliseconds since the first line."""
        happened = self.history.of(seen.propolis_id)
        return [f"{(each.at_us - happened[0].at_us) / 1e3:9.1f} ms  {text_of(each)}" for each in happened]

    def why(self, seen: Sighting) -> dict[str, Any]:
        """Everything known about a VMM, `says` in sentences; also of one that is gone."""
        sled = self.passage.rack.sleds.get(seen.sled_id)
        answer: dict[str, Any]
        if sled is not None and seen.propolis_id in sled.vmms:
            answer = why(sled, sled.get(seen.propolis_id), self.clock.now_us())
        else:
            told = f"Nexus acknowledged {seen.acked or 'nothing'}."
            if sled is None:
                told += " Its sled has left the rack."
            answer = self._gone(seen) | {
                "says": [f"{seen.propolis_id} ({seen.hostname}) is gone: it was {seen.state}. {told}"]
            }
        earlier = [each for each in self._lives(seen) if each.ordinal < seen.ordinal]
        if earlier:
            last = earlier[-1]
            state = "gone" if last.lost_us else last.state
            answer["says"].append(
                f"Before it, {last.hostname} was {last.short}: {state} (sim-sled log {last.short})."
            )
        answer["registered_at"], answer["since"] = stamp(seen.registered_us), stamp(seen.since_us)
        who = self.passage.who(seen.propolis_id)
        notes = [] if who is None else list(who.notes)
        answer["rules"] = [
            {"at": stamp(each.at_us), "rule": each.rule, "where": str(each.mark), "text": each.text} for each in notes
        ]
        answer["says"] += [f"{_said(each)}." for each in notes]
        return answer

    def _gone(self, seen: Sighting) -> dict[str, Any]:
        ids = {"propolis_id": seen.propolis_id, "sled_id": seen.sled_id, "instance_id": seen.instance_id}
        return {key: str(value) for key, value in ids.items()} | {
            "hostname": seen.hostname,
            "state": seen.state,
            "acked": seen.acked or None,
            "gone": True,
        }

    def rows(self) -> list[dict[str, Any]]:
        """A row per VMM that is there, by sled and id."""
        out, propolis, earlier = [], self.propolis, self.sightings.earlier()
        for sled_id, sled in sorted(self.passage.rack.sleds.items()):
            for propolis_id, vmm in sorted(sled.vmms.items()):
                seen = self.sightings.get(propolis_id)
                pending = sled.outbox.pending_of(propolis_id)
                out.append(
                    row(vmm)
                    | {
                        "ordinal": "" if seen is None else seen.short,
                        "sled": self.passage.known_as(sled_id),
                        "in": vmm.state.value if seen is None else seen.state,
                        "since": None if seen is None else stamp(seen.since_us),
                        "asked": vmm.asked[-1].requested.type.value if vmm.asked else None,
                        "unacknowledged": 0 if pending is None else pending.attempt + 1,
                        "rule": self._rule(propolis_id, seen),
                        "restarts": earlier.get(propolis_id, 0),
                        "propolis_listens": None if propolis is None else propolis.address_of(sled_id, propolis_id),
                    }
                )
        return out

    def _lives(self, seen: Sighting) -> list[Sighting]:
        """The VMMs of its instance that were seen here, oldest first, and itself."""
        return [each for each in self.sightings.all() if each.instance_id == seen.instance_id]

    def _rule(self, propolis_id: UUID, seen: Sighting | None) -> str | None:
        """The rule that holds a report of it, or stalls it where it is."""
        who = self.passage.who(propolis_id)
        if who is None:
            return None
        held = [one.rule for one in self.passage.conductor.engine.post.held_of(who) if one.rule]
        since_us = 0 if seen is None else seen.since_us
        now_us = self.clock.now_us()
        held += [note.rule for note in who.notes if note.at_us >= since_us and note.stalls_until_us > now_us]
        return held[0] if held else None

    # ---- waiting

    async def expect(self, who: str, state: str, *, within_s: float, since_us: int | None = None) -> Sighting:
        """Waits until a VMM is in a state (words of the scenario language). Level-triggered: it counts if it is so
        now, and with `since_us` also if it was so in between. Raises `Unmet`, also if nobody is meant by then; soon,
        if the name looks like that of another VMM.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        until = began + within_s
        since = 2**62 if since_us is None else since_us
        while True:
            nobody: NobodyMeant | None = None
            seen: Sighting | None = None
            try:
                seen = self.meant(who)
            except NobodyMeant as error:
                nobody = error
            if seen is not None and seen.was(state, since):
                return seen
            left = until - loop.time()
            if left <= 0:
                if seen is None:
                    raise Unmet(self._nobody(who, nobody, within_s))
                raise Unmet(self.unmet(seen, state, within_s))
            meant = "" if seen is not None else self._misspelt(who)
            if meant and loop.time() - began >= MISSPELT_S:
                raise Unmet(f"{nobody}; did you mean {meant!r}?")
            await self.change(min(left, MISSPELT_S) if meant else left)

    def _misspelt(self, who: str) -> str:
        """The host name that somebody may have meant who wrote this; "" if it looks like none, or like one of a
        numbered row of which the next is still to come.
        """
        names = {seen.hostname.lower(): seen.hostname for seen in self.sightings.all()}
        for near in get_close_matches(who.lower(), names, n=3, cutoff=NEAR):
            if _unnumbered(near) != _unnumbered(who):
                return names[near]
        return ""

    def _nobody(self, who: str, nobody: NobodyMeant | None, within_s: float) -> str:
        """What is said at the end of the time: by now whoever is like it at all may have been meant."""
        names = [seen.hostname for seen in self.sightings.all() if _unnumbered(seen.hostname) != _unnumbered(who)]
        return f"after {within_s:g} s {nobody}{hint(who, names)}"

    def is_in(self, who: str, state: str) -> bool:
        """Whether a VMM is there and in that state now."""
        try:
            return self.meant(who).was(state, 2**62)
        except NobodyMeant:
            return False

    def not_in(self, who: str, state: str, within_s: float) -> list[str]:
        """Why not, in lines."""
        try:
            return self.unmet(self.meant(who), state, within_s).splitlines()
        except NobodyMeant as nobody:
            return [self._nobody(who, nobody, within_s)]

    def unmet(self, seen: Sighting, state: str, within_s: float) -> str:
        """What a failed expectation says."""
        who = f"{seen.hostname} ({seen.short}, {seen.propolis_id})"
        now = f"is gone, and was {seen.state!r}" if seen.lost_us else f"is {seen.state!r}"
        lines = [f"{who} was not {state!r} within {within_s:g} s: it {now}"]
        lines += ["timeline:", *(f"  {line}" for line in self.timeline(seen))]
        lines += ["why:", *(f"  {line}" for line in self.why(seen)["says"])]
        return "\n".join(lines)


def _unnumbered(hostname: str) -> str:
    return hostname.lower().strip("0123456789")


def _is_called(who: Subject, low: str, exactly: UUID | None) -> bool:
    return who.hostname.lower() == low or (exactly is not None and exactly in (who.propolis_id, who.instance_id))


def _said(note: Note) -> str:
    return f"At {stamp(note.at_us)} rule {note.rule} ({note.mark}) {note.text}"
