"""Requests of Nexus to sleds in the closed world: over the network, past the rules, into the rack, and back.

Read before: play/virtual.py, engine/requests.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from nexus_client.stub import contract as nx
from nexus_client.types import Asked
from sim_sled.core import contract
from sim_sled.core.errors import SledError
from sim_sled.engine import requests
from sim_sled.engine.cast import Subject
from sim_sled.engine.plans import RequestPlan
from sim_sled.http.answers import refusal
from sim_sled.language.figures import FOREVER
from sim_sled.play.translate import is_plain, translate

if TYPE_CHECKING:
    from sim_sled.play.virtual import World

CONNECT_LOST_US: Final = 60_000_000
"""Nexus's time-out for a call to a sled (NX 3.1)."""
CONNECT_SILENT_US: Final = 15_000_000
"""... and for a connection that nobody answers: a peer without power is given up sooner, as its address is gone."""


@attrs.define(eq=False)
class Calls:
    """All requests that are on their way."""

    world: World

    def call(self, call: nx.CallSled) -> None:
        """Nexus asks a sled: over the network, past the rules, into the rack, and back."""
        op, item = translate(call, self.world.next_ticket())
        open_call = _Call(call, op, item)
        self.world.later(self.world.network(op, call.call_id), lambda: self._arrives(open_call))

    def _arrives(self, call: _Call) -> None:
        if call.over:
            return
        plan, who = requests.on_request(self.world.engine, call.item, call.op, self.world.now_us)
        call.who = who
        if plan.delay_us or plan.hang_us is not None or plan.answer_lost:
            # only what may last gets a time-out: most calls end at once
            self.world.later(CONNECT_LOST_US, lambda: self._call_ends(call, nx.TimedOut(), "no answer within 60 s"))
        if not plan.passes:
            requests.given_up(self.world.engine, call.item, who)
        if plan.silent:
            requests.done(who)
            self.world.later(
                CONNECT_SILENT_US, lambda: self._call_ends(call, nx.NoConnection("connection timed out"), "timed out")
            )
        elif plan.reset:
            requests.done(who)
            self._call_ends(call, nx.NoConnection(), "connection refused")
        elif plan.hang_us is not None:
            self.world.line("request", f"{call.op} hangs", who, self.world.engine.by_id[call.call.sled_id].name)
            if plan.hang_us < FOREVER:
                self.world.later(plan.hang_us, lambda: self._hung(call))
        elif plan.fail is not None:
            self.world.later(plan.delay_us, lambda: self._failed(call, plan))
        else:
            self.world.later(plan.delay_us, lambda: self._carried_out(call, plan))

    def _hung(self, call: _Call) -> None:
        requests.done(call.who)
        self._call_ends(call, nx.NoConnection("connection closed"), "connection closed")

    def _failed(self, call: _Call, plan: RequestPlan) -> None:
        assert plan.fail is not None
        requests.done(call.who)
        if plan.fail.status >= 500:
            self.world.injected_5xx.add(f"{call.op} {plan.fail.status}")
        outcome = nx.ErrorAnswered(plan.fail.status, plan.fail.code, plan.fail.message)
        self._call_ends(call, outcome, f"{plan.fail.status} {plan.fail.code or ''}".strip())

    def _carried_out(self, call: _Call, plan: RequestPlan) -> None:
        sled = self.world.engine.by_id[call.call.sled_id]
        requests.done(call.who)
        if sled.down:  # it went down with the request in its hands
            requests.given_up(self.world.engine, call.item, call.who)
            self._call_ends(call, nx.NoConnection("connection reset"), "connection reset")
            return
        if is_plain(call.item):
            self._call_ends(call, nx.Answered(), "")
            return
        requests.carried(call.item, call.who)
        try:
            effects = self.world.rack.handle(call.item, self.world.now_us)
        except SledError as error:
            answer = refusal(error)
            if answer.status >= 500:
                self.world.nexus_5xx.append(f"{call.op} answered {answer.status}: {error.message}")
            outcome: nx.Outcome = nx.ErrorAnswered(answer.status, answer.error_code, answer.message)
            self._answers(call, plan, outcome, f"{answer.status} {answer.error_code or ''}".strip())
            return
        value: Any = None
        rest = []
        for effect in effects:
            if type(effect) is contract.Reply and effect.ticket == call.item.ticket:
                value = effect.value
            else:
                rest.append(effect)
        self.world.perform(rest)
        later_us = requests.on_response(self.world.engine, call.item, call.op, value, self.world.now_us)
        if call.op == "vmm_register":
            self.world.judge.invariants.registered(call.call.sled_id)
        if call.op != "vmm_get_state":
            self.world.line("request", self.world.for_line(f"{call.op}{_asked(call.item)}: 200"), call.who, sled.name)
        self._answers(call, plan, nx.Answered(value), "", later_us)

    def _answers(self, call: _Call, plan: RequestPlan, outcome: nx.Outcome, text: str, later_us: int = 0) -> None:
        if plan.answer_lost:
            return  # the caller's time-out will notice
        back_us = self.world.network(f"{call.op}/back", call.call.call_id) + later_us
        self.world.later(back_us, lambda: self._call_ends(call, outcome, text))

    def _call_ends(self, call: _Call, outcome: nx.Outcome, text: str) -> None:
        if call.over:
            return
        call.over = True
        if text:
            name = self.world.engine.by_id[call.call.sled_id].name
            self.world.line("request", self.world.for_line(f"{call.op}{_asked(call.item)}: {text}"), call.who, name)
        self.world.tell_nexus(nx.SledAnswered(call.call.call_id, outcome))


@attrs.define(eq=False)
class _Call:
    """One request of Nexus on its way."""

    call: nx.CallSled
    op: str
    item: Any
    who: Subject | None = None
    over: bool = False


def _asked(item: Any) -> str:
    if not isinstance(item, contract.PutState):
        return ""
    return (
        f" {item.requested.type.value}" if item.requested.type is not Asked.MIGRATION_TARGET else " migration_target"
    )
