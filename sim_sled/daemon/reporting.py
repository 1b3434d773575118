"""What a daemon says to Nexus, and what it hears from it: states of VMMs, its sleds, messages of upstairs. Shell.

Nothing is decided here: what is to be said comes from the core as effects, and each answer goes back to it.

Read before: companions/telling.py, core/contract.py, daemon/descriptors.py, daemon/options.py, play/calls.py.
Read next: daemon/daemon.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final
from uuid import UUID

from nexus_client.client import NexusClient
from nexus_client.dropshot.json import encode
from nexus_client.outbox import Outcome, Permanent, Transient, Trouble
from nexus_client.registration import (
    GetReplied,
    GetSledAgent,
    PostReplied,
    Registered,
    RegistrationRefused,
)
from nexus_client.senders import Senders
from sim_sled import logs
from sim_sled.core import contract
from sim_sled.daemon.descriptors import connections_allowed
from sim_sled.daemon.options import Options
from sim_sled.play.calls import Answered, Send

if TYPE_CHECKING:
    from sim_sled.language.schema import Scenario

INTERNAL_API: Final = {"api-version": "1.0.0"}


def counts_attempts(scenario: Scenario) -> bool:
    """Whether somebody looks at each attempt to tell Nexus something: a rule, or an expectation."""
    return bool(scenario.rules or scenario.expect)


class Reporting:
    """One Nexus, as the sleds of a daemon reach it. `open`, then `close`."""

    def __init__(
        self,
        options: Options,
        sled_ids: Iterable[UUID],
        hear: Callable[[contract.Input | Answered], None],
        name_of: Callable[[UUID], str],
    ) -> None:
        """`hear` takes each answer; `name_of` says what the scenario calls a sled."""
        self.registered: dict[UUID, asyncio.Event] = {sled_id: asyncio.Event() for sled_id in sled_ids}
        self.unregistered = set(self.registered)
        self.refused: asyncio.Future[RegistrationRefused] | None = None
        """Set when Nexus refuses a registration for good, as long as that sled is here. None before `open`."""
        self._refusals: set[UUID] = set()
        self.changed = asyncio.Event()
        """Set by each answer to a state."""
        self._hear, self._name_of = hear, name_of
        self._address = options.nexus
        self.client = NexusClient(options.nexus)
        self.senders: Senders[contract.PutToNexus | Send] = Senders(
            self.client,
            self._replied,
            in_flight_max=connections_allowed(len(self.registered)),
            breaker=options.engine is None or not counts_attempts(options.engine.scenario),
            on_outage=self._outage,
        )
        self._calls: set[asyncio.Task[None]] = set()
        self._not_ready: dict[UUID, str] = {}  # by sled: what was logged last
        self._telling = asyncio.Lock()
        self._log = logs.get("daemon")

    def open(self) -> None:
        """From now on there is a loop."""
        self.refused = asyncio.get_running_loop().create_future()
        self.client.open()

    async def close(self) -> None:
        """Nothing is said any more, and nobody waits for an answer."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self.senders.stop()
        await self.client.close()
        if self.refused is not None and not self.refused.done():
            self.refused.cancel()

    def join(self, sled_id: UUID) -> None:
        """One more sled, which Nexus is told of."""
        self.registered[sled_id] = asyncio.Event()
        self.unregistered.add(sled_id)

    def leave(self, sled_id: UUID) -> None:
        """Nobody waits for this one's registration any more."""
        self.registered.pop(sled_id, None)
        self.unregistered.discard(sled_id)
        self._is_refused_no_more(sled_id)

    def _is_refused_no_more(self, sled_id: UUID) -> None:
        if sled_id in self._refusals:
            self._refusals.discard(sled_id)
            if not self._refusals:  # whoever joins later is told of its own refusal only
                self.refused = asyncio.get_running_loop().create_future()

    @property
    def waiting(self) -> int:
        """Answers that are waited for."""
        return self.senders.waiting + len(self._calls)

    # --- states of VMMs

    def _replied(self, put: contract.PutToNexus | Send, outcome: Outcome) -> None:
        if isinstance(outcome, Transient) and put.attempt == 0 and outcome.trouble is not Trouble.HELD:
            self._log.warning("Nexus does not acknowledge", vmm=str(put.propolis_id), why=outcome.why)
        elif isinstance(outcome, Permanent):
            self._log.error(
                "Nexus refuses a state for good",
                vmm=str(put.propolis_id),
                state=put.body.vmm_state.state.value,
                gen=put.body.vmm_state.gen,
                why=outcome.why,
            )
        if isinstance(put, Send):
            self._hear(Answered(put, outcome))
        else:
            self._hear(contract.NexusReplied(put.sled_id, put.propolis_id, put.serial, outcome))
        self.changed.set()

    def _outage(self, begins: bool) -> None:
        if begins:
            self._log.warning("nothing takes connections at Nexus's address: one probe a second asks")
        else:
            self._log.info("Nexus takes connections again")

    # --- sleds

    def ask(self, effect: contract.AskNexus) -> None:
        """A step of a sled's registration; its answer is heard."""
        call = asyncio.get_running_loop().create_task(self._ask(effect))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _ask(self, effect: contract.AskNexus) -> None:
        answer: GetReplied | PostReplied
        if isinstance(effect.call, GetSledAgent):
            answer = GetReplied(await self.client.get_sled_agent(effect.call.sled_id))
        else:
            answer = PostReplied(await self.client.post_sled_agent(effect.call.sled_id, effect.call.info))
        if isinstance(answer.outcome, Transient) and self._not_ready.get(effect.sled_id) != answer.outcome.why:
            # once per reason: it is asked every 2 s, for ever
            self._not_ready[effect.sled_id] = answer.outcome.why
            self._log.warning(
                "Nexus is not ready for registration", sled=self._name_of(effect.sled_id), why=answer.outcome.why
            )
        self._hear(contract.RegistrationReplied(effect.sled_id, answer))

    def why_not_ready(self) -> str:
        """Why Nexus does not answer the registration of a sled, as it was last; "" where it has."""
        return next(reversed(self._not_ready.values()), "")

    def news(self, effect: contract.RegistrationNews) -> None:
        """How a registration ended: said, and told to whoever waits."""
        news, sled = effect.news, self._name_of(effect.sled_id)
        if isinstance(news, Registered):
            self._log.info(
                "registered with Nexus", sled=sled, sled_id=str(effect.sled_id), generation=news.generation
            )
            self.registered[effect.sled_id].set()
            self.unregistered.discard(effect.sled_id)
            self._not_ready.pop(effect.sled_id, None)
            self._is_refused_no_more(effect.sled_id)
        elif isinstance(news, RegistrationRefused):
            self._refusals.add(effect.sled_id)
            self._log.error("Nexus refuses the registration", sled=sled, why=news.message)
            if self.refused is not None and not self.refused.done():
                self.refused.set_result(news)
        else:
            self._log.error("Nexus has decommissioned this sled: it stays silent", sled=sled)

    # --- upstairs

    async def tell(self, effect: contract.TellNexus) -> None:
        """One after the other: Nexus refuses the progress of a repair of whose start it does not know."""
        from sim_sled.companions.telling import post  # noqa: PLC0415 -- only when a scenario breaks something

        async with self._telling:
            answer = await post(f"http://{self._address}{effect.path}", encode(effect.body), INTERNAL_API)
        if answer.status != 204:
            self._log.warning("Nexus does not take it", path=effect.path, status=answer.status, why=answer.message)
