"""The shell: owns the rack, performs its effects on sockets, and keeps the one timer.

    HTTP handlers --submit--> rack.handle --effects--> Nexus client, waiting handlers
    timer --------Tick------>                                    |
    Nexus's answers <--------------------------------------------+

There is no task per VMM and no thread. `submit` does not await before the rack has answered, so a request is one
turn of the core whatever else is going on.

Over 500 lines: whatever goes into the rack or comes out of it meets the world here, in one turn. What can stand apart
does: listening, reporting, saying, looking, pausing.

Read before: companions/servers.py, companions/telling.py, core/rack.py, daemon/descriptors.py, daemon/doing.py,
daemon/listening.py, daemon/options.py, daemon/pausing.py, daemon/reporting.py, daemon/saying.py, daemon/snapshot.py,
daemon/state_dir.py, daemon/taking_up.py, http/blobs.py, play/passage.py.
Read next: daemon/control.py, daemon/looking.py, daemon/on_sockets.py, daemon/propolis_api.py, daemon/recorder.py,
daemon/small_rack.py, http/app.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from msgspec import Struct

from propolis_stub.contract import Effect as VmEffect
from propolis_stub.contract import Input as VmInput
from sim_sled import logs
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.core.contract import Input
from sim_sled.core.crucible.agents import equip
from sim_sled.core.errors import ConnectionDropped, Injected, Internal
from sim_sled.core.estate import ESTATE, ask
from sim_sled.core.happenings import Happening
from sim_sled.core.sled import Sled
from sim_sled.daemon.clock import Clock
from sim_sled.daemon.history import History, text_of
from sim_sled.daemon.listening import Listening
from sim_sled.daemon.looking import Looking
from sim_sled.daemon.options import Options
from sim_sled.daemon.pausing import Pausing
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.daemon.reporting import Reporting, counts_attempts
from sim_sled.daemon.saying import Saying
from sim_sled.daemon.state_dir import BadStateDir, StateDir
from sim_sled.http.blobs import Blobs
from sim_sled.http.spoiling import SPOIL
from sim_sled.play.calls import (
    STEP,
    Answered,
    Begin,
    Call,
    Carried,
    Due,
    Effect,
    Ended,
    Ending,
    Failed,
    Fire,
    LetGo,
    Load,
    Lost,
    Refused,
    Send,
    Spoilt,
)
from sim_sled.play.passage import Passage

if TYPE_CHECKING:
    from nexus_client.stub.server.host import Host as ModelHost
    from sim_sled.daemon.propolis_api import PropolisApis
    from sim_sled.daemon.recorder import Recorder
    from sim_sled.engine.cast import Subject
    from sim_sled.engine.engine import Engine
    from sim_sled.engine.plans import Expunge, Power, RestartNexus
    from sim_sled.language.schema import Scenario
    from sim_sled.play.conductor import Conductor
    from sim_sled.play.judge.expect import Judge

_TIMER_MIN_S: Final = 0.001
"""Some loops round timers to a millisecond: a shorter one would spin."""

TELLING_MAX: Final = 1_000
"""Messages of upstairs to Nexus under way: more are dropped, as an upstairs drops what it cannot send."""

SERVING_MAX: Final = 1_000
"""Configurations whose zones are being listened for at a time: it takes no longer than binding a few addresses."""


class Played(Struct):
    """Which scenario is in effect. `file` None: it came over the control API, or there is none."""

    revision: int = 1
    file: str | None = None
    last_error: str | None = None


class Undelivered(Struct, frozen=True):
    """What a daemon could not tell Nexus before it ended."""

    sled_id: UUID
    propolis_id: UUID
    state: str
    gen: int
    why: str


class Futile(Exception):
    """What somebody wanted done to a VMM could not be: the text says what, and why not."""


class Judges(Protocol):
    """Who judges a scenario on a daemon, as the daemon sees it."""

    judge: Judge

    def load(self, scenario: Scenario) -> None:
        """Judge by this one from now on."""
        ...


class Daemon:
    """Sleds on sockets. `start`, then `stop`."""

    judging: Judges | None = None
    """Whoever judges a scenario on this daemon sets it."""
    model: ModelHost | None = None
    """The Nexus model that lives by the same clock, if there is one; whoever brings it sets it."""
    handed_over: asyncio.Event | None = None
    """None: nobody wants the rack handed over."""
    stopping = False

    def __init__(
        self,
        sleds: list[SledConfig],
        options: Options,
        clock: Clock | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.options = options
        self.played = Played()
        self.clock = clock or Clock()
        self.history = History()
        self.passage = Passage(
            options.engine,
            options.seed,
            self,
            options.pacer,
            silence_us=options.silence_us,
            first_name=options.plays,
            watched=options.history,
            sled_pacer=options.sled_pacer,
            wrong=options.wrong,
        )
        self.rack = self.passage.rack
        self.propolis: PropolisApis | None = None
        if options.propolis is not PropolisMode.NONE:
            from sim_sled.daemon.propolis_api import PropolisApis  # noqa: PLC0415 -- most daemons have none

            self.propolis = PropolisApis(self, options.propolis)
            # the address that Nexus hands to a target only leads somewhere if we listen where Nexus believes
            remote = options.propolis is PropolisMode.REGISTERED
            owners = self.propolis.baggage if recorder is None else recorder.owned_by(self.propolis.baggage)
            self.rack.serve_propolis(owners, remote_peers=remote)
        self.look = Looking(self.passage, self.history, self.clock, self.propolis)
        self.pausing = Pausing(self.clock, [self], self.look.touch)
        self.saying = Saying(self.passage, self.look.sightings, self.clock, everything=logs.says("debug"))
        self.watchers: list[Callable[[Happening], None]] = [
            self.history.add, self.look.watch, *self.saying.watchers
        ]  # fmt: skip
        self.recorder = recorder
        """Who writes down every turn."""
        self._take_in(sleds)
        self.carriers: list[Callable[[Call, Carried | Refused], None]] = []
        self.tellers: list[Callable[[str, Subject | None, str, str], None]] = [self._say, self.look.told]
        self.listening = Listening(self, options, self.saying.request if self.saying.everything else None, recorder)
        self._agents = None if options.companions is None else equip(self.rack.sleds.values())
        if options.engine is not None:
            for sled in self.rack.sleds.values():
                self._retries_as_ruled(sled)
        self.reporting = Reporting(options, [config.sled_id for config in sleds], self.handle, self.sled_name)
        self._log = logs.get("daemon")
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._tickets = 0
        self._timer: asyncio.TimerHandle | None = None
        self._armed_us: int | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._blobs: dict[UUID, Blobs] = {}
        self._state_dir: StateDir | None = None
        self.beyond: Callable[[Power | Expunge | RestartNexus], None] = self._beyond
        """What rules want of Nexus: whoever has a model beside the daemon does it."""
        self._open: dict[int, asyncio.Future[Ending]] = {}  # requests that a rule may hold up, by ticket

    def _take_in(self, sleds: list[SledConfig]) -> None:
        """The rack's first sleds, and whoever writes down what becomes of them. Raises `CannotRecord`."""
        for config in sleds:
            self.rack.add_sled(config)
        if self.recorder is not None:
            self.recorder.begin(self.options, self.passage, self.clock.now_us)

    # --- life -------------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> dict[UUID, str]:
        """Where the sleds are listened for, by id."""
        return self.listening.addresses

    async def start(self) -> None:
        """Bind every sled's address, then make the sleds known to Nexus. OSError if an address is in use."""
        self.reporting.open()
        try:
            if self.options.state_dir is not None:
                self._take_up(self.options.state_dir)
            for sled in self.rack.sleds.values():
                await self._listen(sled)
                await self.listening.start_companions(sled)
        except BaseException:
            await self._close()
            raise
        if self.options.register:
            for sled in self.rack.sleds.values():
                self.announce(sled)

    def announce(self, sled: Sled) -> None:
        """Nexus is told where this sled is and what it has; once more, if that has changed."""
        address = self.addresses[sled.config.sled_id]
        self.handle(contract.Announce(sled.config.sled_id, sled.info(address, self.listening.depot_port(sled))))

    async def join(self, config: SledConfig, name: str = "") -> None:
        """One more sled, while the others run. Raises ValueError if its id is taken, OSError if its address is."""
        sled = self.rack.add_sled(config)
        if self.recorder is not None:
            self.recorder.joins(config, name, self.clock.now_us())
        try:
            if self._agents is not None:
                equip([sled], self._agents)
            if self.passage.has_rules:
                self._retries_as_ruled(sled)
                self.engine.cast.join(name or str(config.sled_id), config.sled_id)
            await self._listen(sled)
        except BaseException:
            self._gone(config.sled_id)
            raise
        self.reporting.join(config.sled_id)
        await self.listening.start_companions(sled)
        if self.options.register:
            self.announce(sled)

    async def leave(self, sled_id: UUID) -> None:
        """A sled goes, and its VMMs with it; Nexus finds nobody there. Raises ValueError if there is no such sled."""
        self._gone(sled_id)
        self.reporting.leave(sled_id)
        await self.listening.leave(sled_id)

    def _gone(self, sled_id: UUID) -> None:
        """The cores know the sled no more. Raises ValueError if there is no such sled."""
        sled = self.rack.sleds.get(sled_id)
        for propolis_id in [] if sled is None else list(sled.vmms):
            # each in a turn of its own: the other side of its migration and whoever talks to its Propolis find out
            ticket = self.ticket()
            self._turn(contract.ForgetVmm(ticket, sled_id, propolis_id), ticket)
        now_us = self.clock.now_us()
        self.rack.remove_sled(sled_id, now_us)
        if self.recorder is not None:
            self.recorder.leaves(sled_id, now_us)
        if self._agents is not None and sled is not None:
            datasets = sled.config.hardware.crucible_datasets_of(sled_id)
            self._agents.remove(each.dataset_id for each in datasets)
        self.passage.leave(sled_id)

    async def stop(self) -> list[Undelivered]:
        """Stop accepting, try for a while to deliver what waits, close. Returns what could not be delivered."""
        self.stopping = True
        self.listening.accept_no_more()
        self.pausing.resume()  # what Nexus refuses is tried again, which takes time
        deadline = asyncio.get_running_loop().time() + self.options.shutdown_wait_s
        self.reporting.senders.trust()
        for sled in self.rack.sleds.values():
            self.handle(contract.HurryOutbox(sled.config.sled_id))
        while any(len(sled.outbox) for sled in self.rack.sleds.values()):
            self.reporting.changed.clear()
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.reporting.changed.wait(), left)
        left_over = [
            Undelivered(
                sled.config.sled_id,
                pending.propolis_id,
                pending.body.vmm_state.state.value,
                pending.body.vmm_state.gen,
                pending.why or "no answer yet",
            )
            for sled in self.rack.sleds.values()
            for pending in sled.outbox.pending()
        ]
        await self._close()
        return left_over

    def _take_up(self, folder: Path) -> None:
        """Go on from where an earlier daemon stopped. Raises `BadStateDir`."""
        from sim_sled.core.companions import Companions as Area  # noqa: PLC0415 -- only who keeps state needs it here
        from sim_sled.core.inventory import Inventory  # noqa: PLC0415 -- same
        from sim_sled.daemon.taking_up import take_up  # noqa: PLC0415 -- same

        self._state_dir = StateDir(folder)
        for sled_id, sled in self.rack.sleds.items():
            self._blobs[sled_id] = self._state_dir.take(sled.estate)
            if sled.estate.kept:
                if self.recorder is not None:
                    self.recorder.keeps(sled_id, sled.estate.kept, self.clock.now_us())
                try:
                    if sled.regions is not None:
                        sled.estate.of(Area)  # a snapshot of a VM's disk asks the agents of all sleds
                    # a sled reconciles what it has ledgered as soon as it is up, not when somebody looks
                    look = contract.CallArea(self.ticket(), sled_id, ESTATE, ask(Inventory, Inventory.read))
                    self._turn(look, look.ticket)
                    take_up(sled.estate)  # the rest has no timers, so a replay may read it when it is asked for
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise BadStateDir(
                        f"{self._state_dir.sled_folder(sled_id)}: not of this program: {error!r}"
                    ) from error

    async def _listen(self, sled: Sled) -> None:
        address = await self.listening.listen(sled, len(self.rack.sleds))
        if self.recorder is not None:
            self.recorder.listens(sled.config.sled_id, address, self.clock.now_us())

    def _retries_as_ruled(self, sled: Sled) -> None:
        from sim_sled.play.fleet import outbox_of  # noqa: PLC0415 -- most daemons have no rules

        sled.outbox = outbox_of(self.engine.scenario, self.options.seed)

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self.listening.close()
        for work in self._background:
            work.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for blobs in self._blobs.values():
            blobs.close()
        if self._state_dir is not None:
            self._state_dir.close()
        if self.propolis is not None:
            await self.propolis.close()
        await self.reporting.close()
        for waiting in self._waiting.values():
            waiting.cancel()
        if self.recorder is not None:
            self.recorder.close()

    # --- the core's door --------------------------------------------------------------------------------------------

    def ticket(self) -> int:
        """A number no waiting request has."""
        self._tickets += 1
        return self._tickets

    async def submit(self, item: Any) -> object:
        """The `value` of the `Reply` to `item.ticket`; raises its refusal. See `http.host.Host`."""
        op = contract.operation(item) if self.passage.has_rules else ""
        if not op:
            answer = self._turn(item, item.ticket)
            return await self._later(item.ticket) if answer is _LATER else answer
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._open[item.ticket] = future
        try:
            self._turn(Call(item.ticket, op, item), None)
            ending = await future
        finally:
            self._open.pop(item.ticket, None)
        match ending:
            case Carried(value):
                return value
            case Spoilt(spoil, value):
                SPOIL.set(spoil)
                return value
            case Refused(error):
                raise error
            case Failed(fail):
                raise Injected(fail.status, fail.code, fail.message, dict(fail.headers))
            case Lost():
                raise ConnectionDropped(ending.value)

    async def _later(self, ticket: int) -> object:
        """The answer to `ticket`, which was not given in the turn that asked."""
        waiting = self._waiting.get(ticket)
        if waiting is None:
            waiting = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        try:
            # shielded: the one who asked may go away, the poke goes on and is answered to nobody
            return await asyncio.shield(waiting)
        finally:
            if waiting.done():
                self._waiting.pop(ticket, None)

    def handle(self, item: Input | Answered) -> None:
        """An input to which nobody waits for an answer."""
        self._turn(item, None)

    def propolis_input(self, sled_id: UUID, propolis_id: UUID, item: VmInput) -> list[VmEffect]:
        """An input of a VMM's Propolis API; returns the VM's own effects. Raises `SledError` for a refusal."""
        ticket = self.ticket()
        if self.recorder is not None:
            item = self.recorder.witnessed(sled_id, propolis_id, item)
        done = self._turn(contract.PropolisInput(ticket, sled_id, propolis_id, item), ticket)
        assert isinstance(done, list), "answered at once"
        return done

    def _turn(self, item: Any, ticket: int | None) -> object:
        """One input and all its effects; the answer to `ticket`, `_LATER` if it is still to come."""
        now_us = self.clock.now_us()
        answer: object = _LATER
        try:
            if self.recorder is None:
                effects = self.passage.run(item, now_us)
            else:
                effects = self.recorder.turn(self.passage, item, now_us)
            if self._state_dir is not None and not self._save(self._state_dir):
                effects = [_not_kept(effect, item) for effect in effects]
            for effect in effects:
                if type(effect) is contract.Reply and effect.ticket == ticket:
                    answer = effect.value
                else:
                    self._perform(effect)
        finally:
            # also after a bug: one VMM's must not stop the clock of all
            self._rearm(now_us)
        return answer

    def _save(self, state_dir: StateDir) -> bool:
        """False: what this turn has changed is not on the disk."""
        kept = True
        for sled in self.rack.sleds.values():
            if sled.has_estate and state_dir.is_behind(sled.estate):
                kept = state_dir.save(sled.estate) and kept  # each is tried, also after one that could not be
        return kept

    def _perform(self, effect: Effect) -> None:
        if type(effect) is contract.PutToNexus or type(effect) is Send:
            self.reporting.senders.send(effect)
        elif type(effect) is contract.FromPropolis:
            assert self.propolis is not None, "only a rack that serves Propolis has such effects"
            try:
                self.propolis.perform(effect)
            except Exception:  # noqa: BLE001 -- a fault of one VMM's listener must not cost others their effects
                self._log.error("a fault while serving Propolis", vmm=str(effect.propolis_id), exc_info=True)
        elif type(effect) is Ended:
            future = self._open.get(effect.call.key)
            if future is not None and not future.done():
                future.set_result(effect.ending)
        elif isinstance(effect, contract.Reply):
            self._answer(effect.ticket).set_result(effect.value)
        elif isinstance(effect, contract.ReplyError):
            self._answer(effect.ticket).set_exception(effect.error)
        elif isinstance(effect, contract.AskNexus):
            self.reporting.ask(effect)
        elif isinstance(effect, contract.RegistrationNews):
            self.reporting.news(effect)
            if not self.passage.begun and not self.reporting.unregistered:
                self._turn(Begin(), None)  # scenario time counts from here
        elif isinstance(effect, contract.TellNexus):
            self.in_background(self.reporting.tell(effect), TELLING_MAX)
        elif isinstance(effect, contract.ServeZones):
            beside = self.listening.companions.get(effect.sled_id)
            if beside is not None:
                self.in_background(beside.serve_zones(effect.servers), SERVING_MAX)
        elif isinstance(effect, contract.DropFiles):
            blobs = self._blobs.get(effect.sled_id)
            for key in effect.keys if blobs is not None else ():
                assert blobs is not None, "asked just now"
                blobs.drop(key)
        else:
            assert not isinstance(effect, Ended | Send | Due | contract.PutToNexus | contract.FromPropolis), (
                "done above"
            )
            self.beyond(effect)

    def _answer(self, ticket: int) -> asyncio.Future[object]:
        waiting = self._waiting.get(ticket)
        if waiting is None:
            waiting = self._waiting[ticket] = asyncio.get_running_loop().create_future()
            waiting.add_done_callback(_retrieved)
        return waiting

    # --- files and work beside requests -----------------------------------------------------------------------------

    def blobs(self, sled_id: UUID) -> Blobs:
        """See `http.host.Host`; made when somebody stores something."""
        found = self._blobs.get(sled_id)
        if found is None:
            found = self._blobs[sled_id] = Blobs()
        return found

    def in_background(self, work: Coroutine[Any, Any, None], at_most: int) -> bool:
        """See `http.host.Host`."""
        if len(self._background) >= at_most:
            work.close()
            return False
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return True

    def log_lines(self, sled_id: UUID, propolis_id: UUID | None) -> list[tuple[str, str]]:
        """See `http.host.Host`."""
        estate = self.rack.sleds[sled_id].estate
        if propolis_id is None:
            return [(estate.time(at_us), text) for at_us, text in estate.log]
        return [(estate.time(each.at_us), text_of(each)) for each in self.history.of(propolis_id)]

    # --- time -------------------------------------------------------------------------------------------------------

    def _rearm(self, now_us: int) -> None:
        # a clock that stands never gets there: whoever moves it comes by `catch_up`
        due_us = None if self.clock.stands else self.passage.next_deadline_us()
        if due_us == self._armed_us and (due_us is None or self._timer is not None):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_us = due_us
        if due_us is not None:
            delay_s = max((due_us - now_us) / 1e6, _TIMER_MIN_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._turn(STEP, None)

    def next_deadline_us(self) -> int | None:
        """When something is due next."""
        return self.passage.next_deadline_us()

    def catch_up(self) -> None:
        """The clock was stopped, moved or started: what is due by now happens, and the timer is set anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._armed_us = None
        while True:
            self._turn(STEP, None)
            due_us = self.next_deadline_us()
            if due_us is None or due_us > self.clock.now_us():
                return

    @property
    def held(self) -> int:
        """Requests that are not answered yet, since a rule or a latency has them wait."""
        return len(self._open)

    def sled_name(self, sled_id: UUID) -> str:
        """As the scenario's fleet calls it; its id if none does."""
        return self.passage.known_as(sled_id)

    @property
    def tickets(self) -> int:
        """The last one given out."""
        return self._tickets

    def only_here(self) -> list[str]:
        """What of this daemon no file can hold: whoever waits for an answer, stored bytes, what other files hold."""
        found = [
            (self.held, "requests wait, held up by a rule or a latency: `step` until they are answered"),
            (len(self._waiting), "pokes wait for Nexus"),
            (self.on_the_network, "answers of Nexus are waited for"),
            (len(self.rack.sleds) - len(self.addresses), "sleds are about to listen"),
            (len(self._background), "pieces of work are under way beside requests (a hand-off, a bundle)"),
            (sum(blobs.stored for blobs in self._blobs.values()), "artifacts or support bundles are stored"),
        ]
        said = [f"{count} {what}" for count, what in found if count]
        if self._state_dir is not None:
            said.append("--state-dir keeps facts of its sleds")
        if self.options.propolis is not PropolisMode.NONE:
            said.append("the Propolis API of its VMMs is served, with their consoles")
        if self.reporting.unregistered:
            said.append(f"{len(self.reporting.unregistered)} sleds are not registered with Nexus yet")
        return said

    def taken_up(self, tickets: int) -> None:
        """The state of all cores is another: tickets go on from there. Nobody waits for an answer to one of before
        (`only_here`), so none means two things.
        """
        if self.recorder is not None:
            self.recorder.restored()
        self._tickets = tickets
        self._counts(self.engine.scenario)

    @property
    def on_the_network(self) -> int:
        """Answers of Nexus that are waited for."""
        return self.reporting.waiting

    # --- the scenario -------------------------------------------------------------------------------------------

    @property
    def conductor(self) -> Conductor:
        """Made when somebody asks for it: a daemon without a scenario needs none."""
        return self.passage.conductor

    @property
    def engine(self) -> Engine:
        """The rules; none of a daemon without a scenario. See `conductor`."""
        return self.conductor.engine

    def load(self, scenario: Scenario) -> None:
        """Other rules from now on; counters of rules that keep their name stay. Raises `NotInFleet`."""
        self._load(scenario)
        self.played.revision += 1
        self.played.file = self.played.last_error = None
        if self.judging is not None:
            self.judging.load(scenario)

    def _load(self, scenario: Scenario) -> None:
        from sim_sled.language.schema import paced  # noqa: PLC0415 -- whoever has a scenario has it

        scenario = paced(scenario, self.options.pace)
        if self.passage.has_rules:
            self._turn(Load(scenario), None)
        else:  # who is here was counted without rules, and keeps its number
            self._turn(Load(scenario, self.look.sightings.ordinals(), self.look.sightings.counted), None)
        self._counts(scenario)

    def _counts(self, scenario: Scenario) -> None:
        self.reporting.senders.breaker = not counts_attempts(scenario)

    def fire(self, name: str) -> bool:
        """A person fires a manual trigger. False if no rule has it."""
        known = any(rule.when.manual == name for rule in self.engine.scenario.rules)
        self._turn(Fire(name), None)
        return known

    def do_once(self, propolis_id: UUID, action: str) -> str:
        """Does an action of the scenario language to one VMM, now: by a rule of its own, which is fired once; so
        `why` names it, and what it holds can be released. Returns the rule's name. ValueError with every problem
        of the action, or if the rules do not know the VMM; `Futile` if there was nothing that it could be done to:
        then the rule has not been, unless it did something else.
        """
        from sim_sled.daemon.doing import with_one_more  # noqa: PLC0415 -- few people do

        who = self.engine.cast.subjects.get(propolis_id)
        if who is None:
            raise ValueError("no rule ever sees this VMM")
        before = self.engine.scenario
        scenario, name = with_one_more(self.engine, who.hostname, action, self.clock.now_us())
        self._load(scenario)
        self._turn(Fire(name, propolis_id), None)
        futile = self.engine.counters[name].futile
        if futile:
            if len(futile) == len(scenario.rules[-1].do):
                self._load(before)
            action, (_, why_not) = next(iter(futile.items()))
            raise Futile(f"'{action}' had no effect: {why_not}")
        return name

    def release(self, rule: str) -> bool:
        """Let go what a rule holds. False if it holds nothing."""
        holds = self.engine.holds(rule)
        self._turn(LetGo(rule), None)
        return holds

    # --- what the conductor tells (`Watcher`)

    def happened(self, happening: Happening, _who: Subject | None, /) -> None:
        for watcher in self.watchers:
            watcher(happening)

    def tell(self, kind: str, who: Subject | None, sled: str, text: str, /) -> None:
        if self.recorder is not None:
            self.recorder.tell(kind, who, sled, text)
        for teller in self.tellers:
            teller(kind, who, sled, text)

    def _beyond(self, effect: Power | Expunge | RestartNexus) -> None:
        self._log.warning("only a model of Nexus can do this", action=type(effect).__name__)

    def _say(self, kind: str, who: Subject | None, sled: str, text: str) -> None:
        whom = {}
        if who is not None:
            whom = {"vmm": who.short, "vm": who.hostname, "propolis_id": str(who.propolis_id)}
        self._log.info(text, kind=kind, sled=sled, at_us=self.clock.now_us(), **whom)

    def carried(self, call: Call, ending: Carried | Refused, _who: Subject | None, /) -> None:
        """For whom it matters; else the answer says it all."""
        for carrier in self.carriers:
            carrier(call, ending)

    def lost(self, _who: Subject, /) -> None:
        """`tell` has said so."""


_LATER: Final = object()


def _not_kept(effect: Effect, item: object) -> Effect:
    """What the turn of `item` has changed could not be written: who asked for that is not told that it is done (SR
    3.1). Everything else, and every report to Nexus, goes its way.
    """
    match effect:
        case contract.Reply(ticket) if isinstance(item, contract.CallArea) and item.ticket == ticket:
            return contract.ReplyError(ticket, Internal("what this changes could not be written"))
        case Ended(Call(item=contract.CallArea()) as call, Carried() | Spoilt(), who):
            return Ended(call, Refused(Internal("what this changes could not be written")), who)
    return effect


def _retrieved(future: asyncio.Future[object]) -> None:
    """An answer that nobody waits for any more is no error."""
    if not future.cancelled():
        future.exception()
