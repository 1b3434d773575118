"""What the live page is told: the rack as it is, then what changes, as server-sent events.

    event: whole   the page forgets everything; sleds' and VMs' rows follow
    event: rows    VMs as they are now
    event: frame   what is new since the last frame, and with its id the page can come back later

A frame is made when it is sent, from what has happened since the number in the last id: a slow or a sleeping page
costs nothing in between, misses no state, and gets the whole again if the daemon has forgotten that far back, or is
another one. Rows are arrays; `whole` names their fields.

Read before: daemon/looking.py, page/files.py. Read next: daemon/control.py, daemon/page_api.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import msgspec
from msgspec import Struct

from sim_sled.core.event import Event, event_of
from sim_sled.core.happenings import Happening, Kind
from sim_sled.core.sled import Sled
from sim_sled.core.vmm import Vmm
from sim_sled.daemon.control_answers import Brief, Life, LifeEvent, Story, Why
from sim_sled.daemon.history import text_of
from sim_sled.daemon.sightings import Sighting
from sim_sled.language.figures import FOREVER

if TYPE_CHECKING:
    from sim_sled.daemon.daemon import Daemon
    from sim_sled.engine.engine import Engine
    from sim_sled.language.schema import Rule, Scenario

FRAME_S: Final = 0.2
"""Between two frames: quick enough for the eye, and a thousand changes in it cost one row each."""
LOOK_S: Final = 0.8
"""What nothing tells of (who counts a match, what Nexus has not registered yet) is looked at as often as this."""
KEEP_ALIVE_S: Final = 15.0
"""A quiet stream says so this often: proxies end what is silent for a minute."""
PAGES_MAX: Final = 32
"""Open pages: each costs one look at what has changed per frame."""
ROWS_MAX: Final = 500
"""Of one message: some 80 KB, so that other work of the daemon has its turn in between."""
HELD_MAX: Final = 200
"""Held reports that are listed; all are counted."""
LIVES_MAX: Final = 4
"""VMMs whose lives a story tells side by side: both sides of a migration, and of the next."""
OTHERS_MAX: Final = 20
"""Further VMMs of the same instance that a story names."""
UNWATCHED_S: Final = 2.0
"""Without a history nothing says what has changed: everything is sent again this often."""


class VmRow(msgspec.Struct, array_like=True, frozen=True):
    """A VMM on the page. `held`: reports that rules keep back; `tries`: of the report that Nexus has not
    acknowledged; `stuck`: nothing but a request, a fault or the release of a rule ends what it waits for; `phase`:
    of its migration.
    """

    id: UUID
    n: int
    name: str
    sled: UUID
    state: str
    since_us: int
    acked: str
    tries: int
    trouble: str
    held: int
    stuck: bool
    rule: str
    instance: UUID
    migration: UUID | None
    role: str
    phase: str


class SledRow(msgspec.Struct, array_like=True, frozen=True):
    """A sled on the page. `down`: why it does not answer."""

    id: UUID
    name: str
    address: str
    registration: str
    down: str
    vms: int
    unacknowledged: int
    threads: int
    threads_used: int
    memory_mib: int
    memory_mib_used: int


class RuleRow(msgspec.Struct, frozen=True):
    """A rule on the page, in the words of its file. `manual`: what `fire` calls it; `holds`: whether there is
    something to release.
    """

    name: str
    where: str
    words: dict[str, str]
    manual: str
    enabled: bool
    matched: int
    fired: int
    holds: bool


class HeldRow(msgspec.Struct, frozen=True):
    """A report that is kept back, by a rule or because of `why`."""

    rule: str
    why: str
    id: UUID
    n: int
    name: str
    state: str
    gen: int


class Feed:
    """What pages of one daemon are told."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        # numbers begin anew with each daemon: an id of an earlier one must not be taken for one of this
        self._boot = f"{daemon.clock.now_us():x}"
        self.pages = 0
        self._described: Scenario | None = None
        self._words: dict[str, dict[str, str]] = {}

    # ---- the stream

    async def messages(self, last_id: str, *, once: bool = False) -> AsyncGenerator[bytes]:
        """Server-sent events, for ever. `last_id`: of the last frame that the page has got, or "". `once`: as it is
        now, and no more.
        """
        look = self._daemon.look
        number = self._resumed(last_id)
        told = _Told()
        quiet_s = 0.0
        while True:
            if number is None or not self._daemon.options.history:
                number, told = look.number, _Told()
                yield message("whole", self._whole())
                for rows in self._all_rows():
                    yield message("rows", rows)
                    await asyncio.sleep(0)  # the daemon has other work
            touches = look.touches
            frame, rows_left, now = self._frame(number, told)
            number = now
            for rows in rows_left:
                yield message("rows", rows)
            if frame:
                quiet_s = 0.0
                yield message("frame", frame | {"at_us": self._daemon.clock.now_us()}, f"{self._boot}-{number}")
            elif quiet_s >= KEEP_ALIVE_S:
                quiet_s = 0.0
                yield b": still here\n\n"
            if once or self._daemon.stopping:
                return
            wait_s = FRAME_S if self._daemon.options.history else UNWATCHED_S
            await asyncio.sleep(wait_s)
            quiet_s += wait_s
            if number == look.number and touches == look.touches:
                await look.change(LOOK_S)
                quiet_s += LOOK_S
            if not self._remembers(number):
                number = None

    def _resumed(self, last_id: str) -> int | None:
        """The number in an id of ours; None: everything must be told."""
        boot, _, text = last_id.partition("-")
        if boot != self._boot or not (text.isascii() and text.isdigit() and len(text) < 20):
            return None
        number = int(text)
        return number if self._remembers(number) else None

    def _remembers(self, number: int) -> bool:
        kept = self._daemon.look.happenings
        return number <= self._daemon.look.number and (not kept or kept[0][0] <= number + 1)

    def _whole(self) -> dict[str, Any]:
        engine = self._daemon.engine
        return {
            "boot": self._boot,
            "at_us": self._daemon.clock.now_us(),
            "fields": list(VmRow.__struct_fields__),
            "sled_fields": list(SledRow.__struct_fields__),
            "scenario": engine.scenario.name if self._daemon.passage.has_rules else "",
            "nexus": self._daemon.options.nexus,
            "history": self._daemon.options.history,
            "counts": _counted(each for _, each, _ in self._daemon.look.happenings if isinstance(each, Happening)),
        }

    def _frame(self, number: int, told: _Told) -> tuple[dict[str, Any], list[list[VmRow]], int]:
        """What is new since `number`; rows that come before because they are too many; the number now."""
        look = self._daemon.look
        new: list[Happening] = []
        changed: dict[UUID, UUID] = {}
        for at, happening, _ in reversed(look.happenings):
            if at <= number:
                break
            if isinstance(happening, Event):
                continue  # the rows of rules say it
            new.append(happening)
            if happening.propolis_id is not None:
                changed[happening.propolis_id] = happening.sled_id
        frame: dict[str, Any] = {}
        rows, gone = [], []
        for propolis_id, sled_id in changed.items():
            row = self._row_of(sled_id, propolis_id)
            if row is None:
                gone.append(propolis_id)
            else:
                rows.append(row)
        rows.extend(self._held_rows_changed(told, changed))
        pieces = list(_pieces(rows, ROWS_MAX))
        if pieces:
            frame["rows"] = pieces.pop()
        if gone:
            frame["gone"] = gone
        if new:
            frame["counts"] = _counted(new)
        frame |= told.news(self._figures())
        return frame, pieces, look.number

    def _held_rows_changed(self, told: _Told, changed: dict[UUID, UUID]) -> Iterator[VmRow]:
        """VMMs of which something is held now or was before, or that a rule froze: no happening tells of it."""
        engine = self._daemon.engine
        now = {one.publication.propolis_id: one.publication.sled_id for one in engine.post.held}
        if any(_freezes(rule) for rule in engine.scenario.rules):
            frozen = (who for who in engine.cast.subjects.values() if who.frozen_by and not who.gone)
            now |= {who.propolis_id: who.sled.id for who in frozen}
        for propolis_id, sled_id in (now | told.held_of).items():
            if (propolis_id in now) != (propolis_id in told.held_of) and propolis_id not in changed:
                row = self._row_of(sled_id, propolis_id)
                if row is not None:
                    yield row
        told.held_of = now

    # ---- rows

    def _all_rows(self) -> Iterator[list[VmRow]]:
        """Every VM that was there at the first piece; what becomes of them meanwhile is in the next frame."""
        there = [(sled, vmm) for sled in self._daemon.rack.sleds.values() for vmm in sled.vmms.values()]
        for first in range(0, len(there), ROWS_MAX):
            yield [self._row(sled, vmm) for sled, vmm in there[first : first + ROWS_MAX]]

    def _row_of(self, sled_id: UUID, propolis_id: UUID) -> VmRow | None:
        sled = self._daemon.rack.sleds.get(sled_id)
        vmm = None if sled is None else sled.vmms.get(propolis_id)
        return None if sled is None or vmm is None else self._row(sled, vmm)

    def _row(self, sled: Sled, vmm: Vmm) -> VmRow:
        seen = self._daemon.look.sightings.get(vmm.propolis_id)
        pending = sled.outbox.pending_of(vmm.propolis_id)
        who = self._daemon.engine.cast.subjects.get(vmm.propolis_id)
        waits_for = None if vmm.vm is None else vmm.vm.waits_for()
        record = vmm.record
        side = record.migration_in or record.migration_out
        role = "" if side is None else "target" if record.migration_in is not None else "source"
        return VmRow(
            id=vmm.propolis_id,
            n=0 if seen is None else seen.ordinal,
            name=vmm.about.hostname,
            sled=sled.config.sled_id,
            state=vmm.state.value if seen is None else seen.state,
            since_us=0 if seen is None else seen.since_us,
            acked="" if vmm.acked is None else vmm.acked.vmm_state.state.value,
            tries=0 if pending is None else pending.attempt + 1,
            trouble=vmm.refused or ("" if pending is None else pending.why),
            held=0 if who is None else len(self._daemon.engine.post.held_of(who)),
            stuck=vmm.silent is not None
            or (waits_for is not None and waits_for.endswith("for ever"))
            or (who is not None and who.frozen_by != "" and who.stalled_until_us >= FOREVER),
            rule="" if who is None or not who.notes else who.notes[-1].rule,
            instance=vmm.about.instance_id,
            migration=None if side is None else side.migration_id,
            role=role,
            phase="" if side is None else side.state.value,
        )

    def _figures(self) -> dict[str, Any]:
        """Everything but VMMs, as it is now."""
        daemon, engine = self._daemon, self._daemon.engine
        return {
            "sleds": [self._sled_row(sled) for sled in daemon.rack.sleds.values()],
            "rules": self._rules() if daemon.passage.has_rules else [],
            "held": [self._held_row(one) for one in islice(engine.post.held, HELD_MAX)],
            "held_total": len(engine.post.held),
            "pace": self._pace(),
            "waiting": sum(not event.is_set() for event in daemon.reporting.registered.values()),
        }

    def _pace(self) -> dict[str, Any]:
        """Whether time stands, and if so when something is due."""
        if not self._daemon.clock.stands:
            return {"paused": False}
        return {"paused": True, "next_us": self._daemon.pausing.next_deadline_us()}

    def _sled_row(self, sled: Sled) -> SledRow:
        config = sled.config
        info = self._daemon.engine.cast.by_id.get(config.sled_id)
        return SledRow(
            id=config.sled_id,
            name=str(config.sled_id)[:8] if info is None else info.name,
            address=self._daemon.addresses.get(config.sled_id, ""),
            registration="" if sled.registration is None else sled.registration.phase.value,
            down="" if info is None else info.down or "",
            vms=len(sled.vmms),
            unacknowledged=len(sled.outbox),
            threads=config.hardware.hardware_threads,
            threads_used=sled.threads_used,
            memory_mib=config.hardware.physical_ram // 2**20,
            memory_mib_used=sled.memory_mib_used,
        )

    def _rules(self) -> list[RuleRow]:
        engine = self._daemon.engine
        if self._described is not engine.scenario:
            from sim_sled.language.printing import rule_in_words  # noqa: PLC0415 -- most daemons play none

            self._described = engine.scenario
            self._words = {rule.name: rule_in_words(rule) for rule in engine.scenario.rules}
        words = self._words
        return [
            RuleRow(
                name=rule.name,
                where=str(rule.mark()),
                words=words[rule.name],
                manual=rule.when.manual or "",
                enabled=rule.enabled,
                matched=engine.counters[rule.name].matched,
                fired=engine.counters[rule.name].fired,
                holds=_holds(engine, rule),
            )
            for rule in engine.scenario.rules
        ]

    def _held_row(self, one: Any) -> HeldRow:
        publication = one.publication
        who = self._daemon.engine.cast.subjects.get(publication.propolis_id)
        seen = self._daemon.look.sightings.get(publication.propolis_id)
        state = publication.body.vmm_state
        return HeldRow(
            rule=one.rule,
            why=one.why,
            id=publication.propolis_id,
            n=0 if seen is None else seen.ordinal,
            name="" if who is None else who.hostname,
            state=state.state.value,
            gen=state.gen,
        )

    # ---- one VMM

    def story(self, seen: Sighting) -> Story:
        """A VMM's life with its why; beside it whoever it has migrated from or to."""
        look = self._daemon.look
        mine = [each for each in look.sightings.all() if each.instance_id == seen.instance_id and each is not seen]
        migrations = self._migrations(seen)
        beside = [each for each in mine if migrations & self._migrations(each)][-(LIVES_MAX - 1) :]
        return Story(
            at_us=self._daemon.clock.now_us(),
            why=cast("Why", look.why(seen)),
            lives=[self._life(each) for each in sorted([seen, *beside], key=lambda s: s.ordinal)],
            others=[self._brief(each) for each in mine if each not in beside][-OTHERS_MAX:],
        )

    def _brief(self, seen: Sighting) -> Brief:
        return Brief(
            id=str(seen.propolis_id),
            n=seen.ordinal,
            name=seen.hostname,
            sled=str(seen.sled_id),
            instance=str(seen.instance_id),
            state=seen.state,
            acked=seen.acked,
            gone=self._daemon.look.sightings.gone(seen),
        )

    def _migrations(self, seen: Sighting) -> set[UUID]:
        """Those that its reports speak of."""
        sent = (each.data for each in self._daemon.history.of(seen.propolis_id) if each.kind is Kind.SENT)
        bodies = (data[0] for data in sent if isinstance(data, tuple))
        sides = (side for body in bodies for side in (body.migration_in, body.migration_out))
        return {side.migration_id for side in sides if side is not None}

    def _life(self, seen: Sighting) -> Life:
        happened = (
            event_of(each).plain() | {"text": text_of(each)} for each in self._daemon.history.of(seen.propolis_id)
        )
        events = sorted(chain(happened, self._notes(seen.propolis_id)), key=lambda each: int(each["at_us"]))
        told = [{key: each[key] for key in _TOLD if each.get(key) not in ("", 0, None)} for each in events]
        return Life(
            **self._brief(seen),
            says=list(self._daemon.look.why(seen)["says"]),
            migrations=sorted(map(str, self._migrations(seen))),
            events=cast("list[LifeEvent]", told),
            states=list(seen.states),
        )

    def _notes(self, propolis_id: UUID) -> Iterator[dict[str, Any]]:
        """What rules did to it, as events."""
        who = self._daemon.engine.cast.subjects.get(propolis_id)
        for note in () if who is None else who.notes:
            yield {"at_us": note.at_us, "kind": "rule", "text": f"{note.rule} ({note.mark}) {note.text}"}


class _Told:
    """What one page knows of everything but VMMs, so that only news are sent."""

    def __init__(self) -> None:
        self._sleds: dict[UUID, SledRow] = {}
        self._others: dict[str, Any] = {}
        self.held_of: dict[UUID, UUID] = {}

    def news(self, figures: dict[str, Any]) -> dict[str, Any]:
        """What is not known yet; known from now on."""
        sleds = {row.id: row for row in figures.pop("sleds")}
        news = {key: value for key, value in figures.items() if self._others.get(key) != value}
        changed = [row for key, row in sleds.items() if self._sleds.get(key) != row]
        left = [key for key in self._sleds if key not in sleds]
        self._sleds, self._others = sleds, figures
        if changed:
            news["sleds"] = changed
        if left:
            news["sleds_gone"] = left
        return news


_TOLD: Final = ("at_us", "kind", "from", "to", "gen", "attempt", "text")


def _holds(engine: Engine, rule: Rule) -> bool:
    return engine.holds(rule.name) if _freezes(rule) else engine.post.holds(rule.name)


def _freezes(rule: Rule) -> bool:
    """Whom a rule froze is looked up among all VMMs: not in every frame for those that never freeze anybody."""
    from sim_sled.language.actions import Stall  # noqa: PLC0415 -- whoever has rules has it; others need not wait for it

    return any(isinstance(action, Stall) for action in rule.do)


def _counted(happenings: Iterable[Happening]) -> list[list[Any]]:
    """How many of each kind in each second: [[second, {kind: count}]], oldest first."""
    found: dict[int, dict[str, int]] = {}
    for each in happenings:
        of = found.setdefault(each.at_us // 1_000_000, {})
        kind = KIND_WORDS[each.kind]
        of[kind] = of.get(kind, 0) + 1
    return [[second, counts] for second, counts in sorted(found.items())]


KIND_WORDS: Final = {kind: kind.value.replace(" ", "-") for kind in Kind}
"""As events call them."""


def _pieces(rows: list[VmRow], most: int) -> Iterator[list[VmRow]]:
    for first in range(0, len(rows), most):
        yield rows[first : first + most]


def message(event: str, data: Any, number: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n" + (f"id: {number}\n" if number else "")
    return head.encode() + b"data: " + msgspec.json.encode(data) + b"\n\n"


class Message(Struct, frozen=True):
    """One server-sent event as somebody reads it. `data`: JSON."""

    event: str
    data: bytes


async def read_messages(lines: AsyncIterable[bytes]) -> AsyncIterator[Message]:
    """The events of a stream of lines, as `message` writes them."""
    event = ""
    async for line in lines:
        name, _, value = line.rstrip(b"\n").partition(b": ")
        if name == b"event":
            event = value.decode()
        elif name == b"data":
            yield Message(event, value)
