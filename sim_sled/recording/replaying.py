"""A recording played again: its inputs go into a core of today, and every effect is compared, in order.

Closed loop: what Nexus answered is one of the inputs, so nothing but the core decides. Time is what the lines say.
A bug of a live rack is thereby a deterministic test: the same inputs, the same turn, as often as somebody likes.

Read before: play/fleet.py, play/passage.py, recording/lines.py. Read next: daemon/recordings.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import UUID

import attrs

from nexus_client.outbox import Outcome
from sim_sled.core.companions import Companions
from sim_sled.core.config import SledConfig
from sim_sled.core.crucible.agents import Agents, equip
from sim_sled.core.happenings import Happening
from sim_sled.core.sled import Sled
from sim_sled.engine.cast import Subject
from sim_sled.engine.plans import Overrun
from sim_sled.language.schema import Scenario
from sim_sled.play.calls import Answered, Call, Carried, Input, Refused, Send
from sim_sled.play.fleet import NotInFleet, engine_for, outbox_of
from sim_sled.play.passage import Passage
from sim_sled.recording.forms import BadForm, value_of
from sim_sled.recording.lines import Did, End, Header, Http, Line, Turn, effects_as_written, raised, simple

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
class Rack:
    """The rack of a recording, in this process and without sockets."""

    passage: Passage
    told: _Told
    agents: Agents | None
    seed: int
    _sends: dict[int, Send] = attrs.field(factory=dict)
    _sent: int = 0

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
        return item

    def _answered(self, told: dict[str, Any]) -> Answered:
        send = self._sends.pop(told.get("send", -1), None)
        if send is None:
            raise CannotReplay(f"Nexus answers report {told.get('send')}, which was not sent")
        outcome: Outcome = value_of(told.get("outcome"))
        return Answered(send, outcome)

    def turn(self, item: Input, now_us: int) -> list[Any]:
        """What comes of it, as a line has it."""
        try:
            effects = self.passage.run(item, now_us)
        except Overrun:
            raise
        except Exception as error:  # noqa: BLE001 -- a refusal or a bug: what was recorded may be the very same
            return [raised(error)]
        for effect in effects:
            if type(effect) is Send:
                self._sends[self._sent] = effect
                self._sent += 1
        return effects_as_written(effects)

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


def rack_of(header: Header) -> Rack:
    """The rack as it was at the first line. Raises `CannotReplay`."""
    try:
        configs = value_of(header.sleds)
        scenario = value_of(header.scenario)
        pacer, sled_pacer = value_of(header.pacer), value_of(header.sled_pacer)
        if not isinstance(configs, tuple) or not all(isinstance(each, SledConfig) for each in configs):
            raise CannotReplay("the first line names no sleds")
        if scenario is not None and not isinstance(scenario, Scenario):
            raise CannotReplay("what the first line has for a scenario is none")
        ids = [each.sled_id for each in configs]
        engine = None if scenario is None else engine_for(scenario, header.rules_seed, ids, header.plays)
        told = _Told()
        passage = Passage(
            engine,
            header.seed,
            told,
            pacer,
            silence_us=header.silence_us,
            first_name=header.plays,
            watched=header.watched,
            sled_pacer=sled_pacer,
        )
        for config in configs:
            passage.rack.add_sled(config)
        sleds = list(passage.rack.sleds.values())
        agents = equip(sleds) if header.companions else None
        if scenario is not None:
            for sled in sleds:
                sled.outbox = outbox_of(scenario, header.seed)
    except (BadForm, NotInFleet, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, CannotReplay):
            raise
        raise CannotReplay(f"the rack of the first line cannot be made: {error}") from error
    return Rack(passage, told, agents, header.seed)


def replay(lines: Iterator[tuple[str, Line]], notes: Iterable[str] = ()) -> Replayed:
    """Plays every line, each with where it stands; stops at the first difference. Raises `CannotReplay`, whose text
    begins with the place.
    """
    rack: Rack | None = None
    turns = effects = began_us = at_us = 0
    end = ""
    difference = None
    for where, line in lines:
        try:
            if isinstance(line, End):
                end = line.end
            elif isinstance(line, Header):
                rack = rack or rack_of(line)
            elif not isinstance(line, Http):  # whose turns are lines of their own
                rack = _there(rack)
                at_us = line.at
                if isinstance(line, Did):
                    rack.do(line.did, at_us)
                else:
                    began_us = began_us or at_us
                    difference = _compared(where, line, rack)
                    turns += 1
                    effects += len(line.out)
        except CannotReplay as error:
            raise CannotReplay(f"{where}: {error}") from error
        if difference is not None:
            break
    return Replayed(turns, effects, began_us, at_us, difference, end, tuple(notes))


def _there(rack: Rack | None) -> Rack:
    if rack is None:
        raise CannotReplay("nothing says how the rack began")
    return rack


def _compared(where: str, line: Turn, rack: Rack) -> Difference | None:
    out = rack.turn(rack.input(line.item), line.at)
    told, rack.told.lines = rack.told.lines, []
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
