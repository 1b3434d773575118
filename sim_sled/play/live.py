"""A scenario on a live daemon: the same engine as in the closed world, with sockets and a wall clock around it.

    HTTP request --submit--> [rules: delay, fail, hang, reset] --> daemon --> rack
    rack --PutToNexus--> [rules: hold, drop, duplicate, reorder, stale, cut off] --> Nexus

The daemon's sleds play sleds of the scenario's fleet, by name. Users (`load`) and the model of Nexus belong to the
closed world; a live daemon leaves them to the real ones. `reload` keeps the counters of rules that keep their name.

Read before: daemon/daemon.py, engine/engine.py. Read next: play/on_sockets.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import attrs

from nexus_client.backoff import Policy
from nexus_client.outbox import Outbox, Outcome, Transient
from nexus_client.types import SledVmmState
from propolis_stub.contract import Hold, Release
from sim_sled.core import contract
from sim_sled.core.errors import ConnectionDropped, Injected, SledError
from sim_sled.core.happenings import Happening
from sim_sled.daemon import logs
from sim_sled.engine import requests
from sim_sled.engine.engine import Engine
from sim_sled.engine.plans import (
    CLIENT_LOST_US,
    Answer,
    Deliver,
    EngineEffect,
    Force,
    Forget,
    Freeze,
    Kill,
    Publication,
    RequestPlan,
    TakeSnapshot,
    vmm_state,
)
from sim_sled.language.check import sleds_of
from sim_sled.language.figures import FOREVER
from sim_sled.language.schema import Scenario
from sim_sled.language.source import Mark

if TYPE_CHECKING:
    from sim_sled.daemon.daemon import Daemon

SILENCE_S: Final = 65.0
"""How long a connection is kept without an answer where nothing answers: longer than Nexus waits (60 s)."""

DELAYED_MAX: Final = 100_000
"""Requests and reports that wait at a time; more than Nexus has connections for, so a leak shows."""

Carry = Callable[[Any], Awaitable[object]]


@attrs.frozen
class Outgoing:
    """A report on its way to Nexus that the rules of a scenario have taken in hand; `replied` gets its outcome."""

    propolis_id: UUID
    body: SledVmmState
    attempt: int
    replied: Callable[[Outcome], None]


class NotInFleet(ValueError):
    """The daemon has a sled that the scenario's fleet does not have."""


def engine_for(scenario: Scenario, seed: int, sled_ids: list[UUID], first_name: str | None = None) -> Engine:
    """The engine for a daemon with these sleds: they play the fleet's sleds in order, from `first_name` on.

    Raises `NotInFleet`.
    """
    names = [sled.name for sled in sleds_of(scenario.fleet)]
    if first_name is not None:
        if first_name not in names:
            raise NotInFleet(f"the fleet has no sled {first_name!r}; it has {', '.join(names[:8])}")
        names = names[names.index(first_name) :]
    if len(sled_ids) > len(names):
        raise NotInFleet(f"the daemon has {len(sled_ids)} sleds, the scenario's fleet only {len(names)} to play")
    return Engine(scenario, seed, dict(zip(names, sled_ids, strict=False)))


def outbox_of(scenario: Scenario, seed: int) -> Outbox:
    """The outbox that `agent.retry` asks for."""
    retry = scenario.agent.retry
    first = max(1, retry.first)
    return Outbox(policy=Policy(first, max(101, round(retry.factor * 100)), max(first, retry.max)), seed=seed)


@attrs.define(eq=False)
class Live:
    """The hooks of one daemon. `engine` is also the rack's pacer, from the start."""

    daemon: Daemon
    engine: Engine
    _log: Any = attrs.field(factory=lambda: logs.get("scenario"))
    _waiting: set[asyncio.TimerHandle] = attrs.field(factory=set)
    _pumping: bool = False

    def __attrs_post_init__(self) -> None:
        self.engine.tell = self._tell
        for sled in self.daemon.rack.sleds.values():
            sled.outbox = outbox_of(self.engine.scenario, self.daemon.options.seed)

    # --- life ---

    def begin(self) -> None:
        """The fleet is registered: scenario time starts."""
        self.engine.begin(self.daemon.clock.now_us())
        self._pump()

    def reload(self, scenario: Scenario) -> None:
        """Other rules from now on; what is on its way stays on its way."""
        self.engine.reload(scenario, self.daemon.clock.now_us())
        self._pump()

    def fire(self, name: str) -> bool:
        """A person fires a manual trigger. False if no rule has it."""
        self.engine.now_us = self.daemon.clock.now_us()
        fired = self.engine.fire(name)
        self._pump()
        return fired

    def release(self, rule: str) -> bool:
        """Let go what a rule holds. False if it holds nothing."""
        self.engine.now_us = self.daemon.clock.now_us()
        released = self.engine.post.release(rule)
        self._pump()
        return released

    def close(self) -> None:
        """Whatever waits is given up."""
        for handle in self._waiting:
            handle.cancel()
        self._waiting.clear()

    # --- what the daemon calls ---

    def next_deadline_us(self) -> int | None:
        """When `tick` has something to do."""
        return self.engine.next_deadline_us()

    def tick(self, now_us: int) -> None:
        """Whatever of the rules is due by now."""
        self.engine.tick(now_us)
        self._pump()

    def watch(self, happening: Happening) -> None:
        """The rack's happenings; what rules make of them is done after the turn."""
        self.engine.watch(happening)

    def publish(self, effect: contract.PutToNexus) -> None:
        """One report of the rack, on its way past the rules."""
        self.engine.now_us = self.daemon.clock.now_us()
        self.engine.post.publish(
            Publication(effect.sled_id, effect.propolis_id, effect.body, effect.attempt, effect.serial)
        )

    def after_turn(self) -> None:
        """The rack has handled an input: what the rules want is done now."""
        self._pump()

    async def submit(self, item: Any, carry: Carry) -> object:
        """One request of Nexus, past the rules. Raises `SledError` or `ConnectionDropped`."""
        op = requests.operation(item)
        if not op:
            return await carry(item)
        plan, who = requests.on_request(self.engine, item, op, self.daemon.clock.now_us())
        self._pump()
        try:
            await self._obstruct(plan)
        except BaseException:
            requests.done(who)
            requests.given_up(self.engine, item, who)
            raise
        requests.done(who)
        if self.engine.by_id[item.sled_id].down:  # it went down with the request in its hands
            requests.given_up(self.engine, item, who)
            raise ConnectionDropped("the sled went down")
        requests.carried(item, who)
        value = await carry(item)
        later_us = requests.on_response(self.engine, item, op, value, self.daemon.clock.now_us())
        self._pump()
        if later_us:
            await asyncio.sleep(later_us / 1e6)
        if plan.answer_lost:
            await asyncio.sleep(SILENCE_S)
            raise ConnectionDropped("the answer is lost on its way")
        return value

    async def _obstruct(self, plan: RequestPlan) -> None:
        if plan.silent:
            await asyncio.sleep(SILENCE_S)
            raise ConnectionDropped("nothing answers")
        if plan.reset:
            raise ConnectionDropped("connection reset")
        if plan.delay_us:
            await asyncio.sleep(plan.delay_us / 1e6)
        if plan.hang_us is not None:
            await asyncio.sleep(SILENCE_S if plan.hang_us >= FOREVER else plan.hang_us / 1e6)
            raise ConnectionDropped("the request hung")
        if plan.fail is not None:
            raise Injected(plan.fail.status, plan.fail.code, plan.fail.message, dict(plan.fail.headers))

    # --- what the rules want ---

    def _pump(self) -> None:
        """Perform the engine's effects until there are none. Not re-entered: effects cause turns, which call here."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while effects := self.engine.take():
                for effect in effects:
                    self._perform(effect)
        finally:
            self._pumping = False

    def _perform(self, effect: EngineEffect) -> None:
        match effect:
            case Deliver():
                self._later(effect.after_us, lambda: self._deliver(effect))
            case Answer(publication, outcome, after_us):
                self._later(after_us, lambda: self._answer(publication, outcome))
            case Force() | Kill() | Forget() | Freeze():
                self._inject(effect)
            case TakeSnapshot(name):
                self._log.info("snapshot", name=name, vmms=sum(len(s.vmms) for s in self.daemon.rack.sleds.values()))
            case _:
                self._log.warning("only the closed world can do this", action=type(effect).__name__)

    def _deliver(self, deliver: Deliver) -> None:
        publication = deliver.publication

        def replied(outcome: Outcome) -> None:
            if not deliver.answered:
                return
            if deliver.answer_lost:
                self._later(CLIENT_LOST_US, lambda: self._answer(publication, Transient("timed out")))
            else:
                self._answer(publication, outcome)

        self.daemon.send(Outgoing(publication.propolis_id, deliver.body, publication.attempt, replied))

    def _answer(self, publication: Publication, outcome: Outcome) -> None:
        self.daemon.handle(
            contract.NexusReplied(publication.sled_id, publication.propolis_id, publication.serial, outcome)
        )

    def _inject(self, effect: Force | Kill | Forget | Freeze) -> None:
        ticket, sled_id, propolis_id = self.daemon.ticket(), effect.sled_id, effect.propolis_id
        item: contract.Input
        match effect:
            case Force(_, _, state, illegal):
                item = contract.InjectState(ticket, sled_id, propolis_id, vmm_state(state), illegal)
            case Kill(_, _, restart):
                item = contract.KillPropolis(ticket, sled_id, propolis_id, restart)
            case Forget():
                item = contract.ForgetVmm(ticket, sled_id, propolis_id)
            case Freeze(_, _, frozen):
                item = contract.PropolisInput(ticket, sled_id, propolis_id, Hold() if frozen else Release())
        try:
            self.daemon.handle(item)
        except SledError as error:
            self._log.info("a rule could not do this", action=type(effect).__name__, why=error.message)
            return
        who = self.engine.subjects.get(propolis_id)
        if isinstance(effect, Forget) and who is not None:
            self.engine.lost(who)

    def _later(self, after_us: int, act: Callable[[], None]) -> None:
        if len(self._waiting) >= DELAYED_MAX:
            raise RuntimeError(f"more than {DELAYED_MAX} reports wait for rules")

        def run() -> None:
            self._waiting.discard(handle)
            act()

        handle = asyncio.get_running_loop().call_later(after_us / 1e6, run)
        self._waiting.add(handle)

    def _tell(self, kind: str, who: object, sled: str, text: str, mark: Mark | None, /) -> None:
        self._log.info(
            text, kind=kind, sled=sled, vmm=getattr(who, "short", None), rule=None if mark is None else str(mark)
        )
