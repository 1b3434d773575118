"""A recording played again: its inputs go into a core of today, and every effect is compared, in order.

Closed loop: what Nexus answered is one of the inputs, so nothing but the core decides. Time is what the lines say.
A bug of a live rack is thereby a deterministic test: the same inputs, the same turn, as often as somebody likes.

Read before: play/baggage.py, play/fleet.py, play/passage.py, recording/lines.py.
Read next: daemon/checkpoint.py, daemon/recordings.py, recording/open_loop.py, recording/scrub.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import attrs

from nexus_client.draw import KeyPart, TellingSeed, draw
from nexus_client.outbox import Outcome
from propolis_stub.migration.script import NO_BAGGAGE, Baggage
from sim_sled.core.companions import Companions
from sim_sled.core.config import SledConfig
from sim_sled.core.contract import PropolisInput
from sim_sled.core.crucible.agents import Agents, equip
from sim_sled.core.happenings import Happening
from sim_sled.core.sled import Sled
from sim_sled.engine.cast import Subject
from sim_sled.engine.plans import Overrun
from sim_sled.language.schema import Scenario
from sim_sled.play.baggage import Witness
from sim_sled.play.calls import Answered, Call, Carried, Effect, Input, Refused, Send
from sim_sled.play.fleet import NotInFleet, engine_for, outbox_of
from sim_sled.play.passage import Passage
from sim_sled.recording.forms import BadForm, value_of
from sim_sled.recording.lines import (
    REMOTE,
    RESTORED,
    Did,
    End,
    Header,
    Http,
    Line,
    Owned,
    Turn,
    effects_as_written,
    raised,
    simple,
)

NOTHING: Final = None
"""What stands on a side that has no effect there."""


class CannotReplay(ValueError):
    """The recording cannot be played from this line on; the text says why."""


@attrs.frozen
class Difference:
    """The first: `number` counts the effects of its line from 1; 0: what rules told. A side without any is None."""

    where: str
    number: int
    recorded: Any
    replayed: Any


@attrs.frozen
class Replayed:
    """What came of it. `end`: why the recording ends before its rack did, if it says so."""

    turns: int
    effects: int
    began_us: int
    ended_us: int
    difference: Difference | None = None
    end: str = ""
    notes: tuple[str, ...] = ()


@attrs.define(eq=False)
class _Told:
    """A `Watcher` that keeps what rules tell until their turn is compared."""

    lines: list[Any] = attrs.field(factory=list)

    def happened(self, happening: Happening, who: Subject | None, /) -> None:
        pass

    def tell(self, kind: str, who: Subject | None, sled: str, text: str, /) -> None:
        self.lines.append([kind, "-" if who is None else who.short, sled, text])

    def carried(self, call: Call, ending: Carried | Refused, who: Subject | None, /) -> None:
        pass

    def lost(self, who: Subject, /) -> None:
        pass


@attrs.define(eq=False)
class Desk:
    """Where the cores of a replay ask what a migrating VM takes along: the line of their turn says it."""

    answers: list[Owned] = attrs.field(factory=list)

    def baggage(self, sled_id: UUID, propolis_id: UUID) -> Witness:
        """As a rack asks for it."""
        return Witness(sled_id, propolis_id, self)

    def asked(self, witness: Witness, question: str, ask: Callable[[Baggage], object]) -> object:
        """Of a turn that goes another way than the line's: what a VM says that nobody owns."""
        for nth, each in enumerate(self.answers):
            if (each.propolis_id, each.question) == (witness.propolis_id, question):
                del self.answers[nth]
                return each.answer
        return ask(NO_BAGGAGE)


Draws = Callable[[int, tuple[KeyPart, ...], int], int]
"""Seed, key and chance: what is drawn."""


@attrs.define(eq=False)
class Rack:
    """The rack of a recording, in this process and without sockets."""

    passage: Passage
    told: _Told
    agents: Agents | None
    seed: int
    draws: Draws | None = None
    """Who says what it draws, if anybody does."""
    desk: Desk = attrs.field(factory=Desk)
    sends: dict[int, Send] = attrs.field(factory=dict)
    """Reports that may be answered, by their numbers."""
    sent: int = 0

    def resumes(self, sends: dict[int, Send], sent: int) -> None:
        """Its passage has another state: that of a checkpoint."""
        self.sends, self.sent = sends, sent
        if self.agents is not None:
            regions = [each.regions for each in self.passage.rack.sleds.values()]
            self.agents = next((each for each in regions if isinstance(each, Agents)), self.agents)

    def input(self, told: Any) -> Input:
        """The input of a line. Raises `CannotReplay`."""
        if isinstance(told, dict) and told.get("~") == "lost":
            raise CannotReplay(f"an input was not written down: {told.get('what')} ({told.get('why')})")
        try:
            if isinstance(told, dict) and told.get("~") == "Answered":
                return self._answered(told)
            item: Input = simple(told) if isinstance(told, dict) and "is" in told else value_of(told)
        except (BadForm, ValueError, TypeError, KeyError, StopIteration) as error:
            if isinstance(error, CannotReplay):
                raise
            raise CannotReplay(f"this input is none of this sim-sled's: {error}") from error
        if type(item) is PropolisInput and isinstance(baggage := getattr(item.item, "baggage", None), Witness):
            baggage.desk = self.desk
        return item

    def _answered(self, told: dict[str, Any]) -> Answered:
        send = self.sends.pop(told.get("send", -1), None)
        if send is None:
            raise CannotReplay(f"Nexus answers report {told.get('send')}, which was not sent")
        outcome: Outcome = value_of(told.get("outcome"))
        return Answered(send, outcome)

    def turn(self, item: Input, now_us: int) -> list[Any]:
        """What comes of it, as a line has it."""
        return self.run(item, now_us)[1]

    def run(self, item: Input, now_us: int) -> tuple[Sequence[Effect], list[Any]]:
        """What comes of it, and that as a line has it."""
        try:
            effects = self.passage.run(item, now_us)
        except Overrun:
            raise
        except Exception as error:  # noqa: BLE001 -- a refusal or a bug: what was recorded may be the very same
            return [], [raised(error)]
        for effect in effects:
            if type(effect) is Send:
                self.sends[self.sent] = effect
                self.sent += 1
        return effects, effects_as_written(effects)

    def do(self, did: dict[str, Any], now_us: int) -> None:
        """What a shell did beside turns. Raises `CannotReplay`."""
        try:
            match did:
                case {"kind": "listens", "sled_id": sled_id, "address": str(address)}:
                    self._sled(sled_id).address = address
                case {"kind": "joins", "config": told, "name": str(name)}:
                    self._joins(value_of(told), name)
                case {"kind": "leaves", "sled_id": told}:
                    self._leaves(UUID(told), now_us)
                case {"kind": "keeps", "sled_id": told, "kept": dict(kept)}:
                    sled = self._sled(told)
                    sled.estate.kept.update(kept)
                    if sled.regions is not None:
                        sled.estate.of(Companions)
                case _:
                    raise CannotReplay(f"nobody knows how to do {did.get('kind')!r:.40}")
        except (BadForm, ValueError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, CannotReplay):
                raise
            raise CannotReplay(f"{did.get('kind')!r:.40} cannot be done: {error}") from error

    def _sled(self, told: str) -> Sled:
        return self.passage.rack.sleds[UUID(told)]

    def _joins(self, config: SledConfig, name: str) -> None:
        sled = self.passage.rack.add_sled(config)
        if self.agents is not None:
            equip([sled], self.agents)
        if self.passage.has_rules:
            engine = self.passage.conductor.engine
            sled.outbox = outbox_of(engine.scenario, self.seed)
            engine.cast.join(name or str(config.sled_id), config.sled_id)

    def _leaves(self, sled_id: UUID, now_us: int) -> None:
        sled = self.passage.rack.sleds[sled_id]
        self.passage.rack.remove_sled(sled_id, now_us)
        if self.agents is not None:
            datasets = sled.config.hardware.crucible_datasets_of(sled_id)
            self.agents.remove(each.dataset_id for each in datasets)
        self.passage.leave(sled_id)


class _Seed(TellingSeed):
    ask: Draws

    def drawn(self, key: tuple[KeyPart, ...], chance: int, /) -> int:
        return self.ask(int(self), key, chance)


def seed_of(number: int, draws: Draws | None) -> int:
    """The seed that asks `draws`, if there is somebody to be asked."""
    if draws is None:
        return number
    made = _Seed(number)
    made.ask = draws
    return made


def rack_of(header: Header, draws: Draws | None) -> Rack:
    """The rack as it was at the first line; `draws`, if any, says what it draws. Raises `CannotReplay`."""
    seed, rules_seed = seed_of(header.seed, draws), seed_of(header.rules_seed, draws)
    try:
        configs = value_of(header.sleds)
        scenario = value_of(header.scenario)
        pacer, sled_pacer = value_of(header.pacer), value_of(header.sled_pacer)
        for each in (pacer, sled_pacer):
            if type(getattr(each, "seed", None)) is int:
                each.seed = seed_of(each.seed, draws)
        if not isinstance(configs, tuple) or not all(isinstance(each, SledConfig) for each in configs):
            raise CannotReplay("the first line names no sleds")
        if scenario is not None and not isinstance(scenario, Scenario):
            raise CannotReplay("what the first line has for a scenario is none")
        ids = [each.sled_id for each in configs]
        engine = None if scenario is None else engine_for(scenario, rules_seed, ids, header.plays)
        told = _Told()
        passage = Passage(
            engine,
            seed,
            told,
            pacer,
            silence_us=header.silence_us,
            first_name=header.plays,
            watched=header.watched,
            sled_pacer=sled_pacer,
        )
        desk = Desk()
        if header.propolis:
            passage.rack.serve_propolis(desk.baggage, remote_peers=header.propolis == REMOTE)
        for config in configs:
            passage.rack.add_sled(config)
        sleds = list(passage.rack.sleds.values())
        agents = equip(sleds) if header.companions else None
        if scenario is not None:
            for sled in sleds:
                sled.outbox = outbox_of(scenario, seed)
    except (BadForm, NotInFleet, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, CannotReplay):
            raise
        raise CannotReplay(f"the rack of the first line cannot be made: {error}") from error
    return Rack(passage, told, agents, seed, draws, desk)


Resume = Callable[[Rack, Header], None]
"""Puts the state of a checkpoint into a rack of its sleds (daemon/checkpoint.py). Raises `CannotReplay`."""


@attrs.define(eq=False)
class Player:
    """Plays lines, one after the other, until the first difference. `hears` is told of whatever the rack draws.
    `resume`: of whoever can begin at a checkpoint.
    """

    hears: Callable[[int, tuple[KeyPart, ...], int], None] | None = None
    resume: Resume | None = None
    rack: Rack | None = None
    turns: int = 0
    effects: int = 0
    began_us: int = 0
    at_us: int = 0
    end: str = ""
    difference: Difference | None = None
    _known: dict[str, int] = attrs.field(factory=dict)

    def play(self, where: str, line: Line) -> None:
        """One line, and where it stands. Raises `CannotReplay`, whose text begins with the place."""
        try:
            if isinstance(line, End):
                self.end = line.end
            elif isinstance(line, Header):
                self._begins(line)
            elif not isinstance(line, Http):  # whose turns are lines of their own
                self._rack_does(where, line)
        except CannotReplay as error:
            raise CannotReplay(f"{where}: {error}") from error

    def _begins(self, line: Header) -> None:
        if self.rack is not None and line.begins != RESTORED:
            return
        if not line.state and line.part > 1:
            raise CannotReplay("parts before this one are missing, and it begins with no checkpoint")
        if line.state and self.resume is None:
            raise CannotReplay("it goes on from a checkpoint there, which nobody takes up here")
        self.rack = rack_of(line, self._draw)
        if line.state and self.resume is not None:
            self.resume(self.rack, line)

    def _rack_does(self, where: str, line: Turn | Did) -> None:
        if isinstance(line, Turn):
            self.compare(where, line, self.turn(line))
        else:
            self.at_us = line.at
            self._there().do(line.did, self.at_us)

    def turn(self, line: Turn) -> tuple[list[Any], list[Any]]:
        """What comes of an input, and what rules tell. Raises `CannotReplay`."""
        rack = self._there()
        self.at_us = line.at
        self.began_us = self.began_us or self.at_us
        self.knows(line.drawn)
        rack.desk.answers = list(line.baggage)
        out = rack.turn(rack.input(line.item), line.at)
        told, rack.told.lines = rack.told.lines, []
        self.turns += 1
        self.effects += len(line.out)
        return out, told

    def knows(self, drawn: dict[str, int]) -> None:
        """What is drawn from here on is in here, if it is."""
        self._known = drawn

    def compare(self, where: str, line: Turn, came: tuple[list[Any], list[Any]]) -> None:
        """With what is recorded."""
        self.difference = _compared(where, line, *came)

    def _there(self) -> Rack:
        if self.rack is None:
            raise CannotReplay("nothing says how the rack began")
        return self.rack

    def _draw(self, seed: int, key: tuple[KeyPart, ...], chance: int) -> int:
        if self._known:
            chance = self._known.get(key_of(seed, key), chance)
        if self.hears is not None:
            self.hears(seed, key, chance)
        return chance

    def found(self, notes: Iterable[str] = ()) -> Replayed:
        """What came of it so far."""
        return Replayed(self.turns, self.effects, self.began_us, self.at_us, self.difference, self.end, tuple(notes))


def replay(lines: Iterable[tuple[str, Line]], notes: Iterable[str] = (), *, resume: Resume | None = None) -> Replayed:
    """Plays every line, each with where it stands; stops at the first difference. Raises `CannotReplay`, whose text
    begins with the place.
    """
    player = Player(resume=resume)
    for where, line in lines:
        player.play(where, line)
        if player.difference is not None:
            break
    return player.found(notes)


def key_of(seed: int, key: tuple[KeyPart, ...]) -> str:
    """By which a line knows a draw."""
    return f"{draw(int(seed), 'draw', *key):016x}"


def _compared(where: str, line: Turn, out: list[Any], told: list[Any]) -> Difference | None:
    if told != line.told:
        at = next((i for i, pair in enumerate(zip(line.told, told, strict=False)) if pair[0] != pair[1]), -1)
        if at < 0:
            at = min(len(told), len(line.told))
        return Difference(where, 0, _nth(line.told, at), _nth(told, at))
    for number in range(max(len(out), len(line.out))):
        recorded, replayed = _nth(line.out, number), _nth(out, number)
        if recorded != replayed:
            return Difference(where, number + 1, recorded, replayed)
    return None


def _nth(listed: list[Any], number: int) -> Any:
    return listed[number] if number < len(listed) else NOTHING
