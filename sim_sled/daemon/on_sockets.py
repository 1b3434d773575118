"""`run --clock wall`: a scenario against real sockets on this machine. A daemon with all sleds of the fleet and the
Nexus model's server talk over HTTP; users and expectations are those of the closed world, on the wall clock.

What cannot be had there: byte-equal traces, and what `language/worlds.py` names.

Read before: daemon/daemon.py, daemon/judging.py, daemon/on_model.py, play/stage.py.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final
from uuid import UUID

import aiohttp
import attrs

from nexus_client.dropshot import foreign
from nexus_client.stub import contract as nx
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.server.serve import NexusServer
from nexus_client.stub.server.sled_client import TIMEOUT_S
from sim_sled.companions.servers import Ports
from sim_sled.core.event import Event
from sim_sled.core.happenings import Happening
from sim_sled.core.rack import Rack
from sim_sled.daemon.clock import Clock
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.judging import look_at_call
from sim_sled.daemon.on_model import do_to_model
from sim_sled.daemon.options import Options
from sim_sled.engine.cast import Subject
from sim_sled.engine.engine import Engine
from sim_sled.engine.plans import Expunge, Power, RestartNexus
from sim_sled.language.schema import Scenario
from sim_sled.play.asks import GONE, Answer, Ask
from sim_sled.play.calls import Call, Carried, Refused
from sim_sled.play.events import event_in_run, told_event
from sim_sled.play.fleet import configs_of, engine_for, model_of, needs_servers
from sim_sled.play.judge.expect import Judge
from sim_sled.play.many import Played, Task
from sim_sled.play.run import How, Result, horizon_us, result_of
from sim_sled.play.stage import TasksSeen
from sim_sled.play.trace import Line
from sim_sled.play.translate import UNTOLD, told
from sim_sled.play.users import Users
from sim_sled.play.wrong_sleds import wrong_sled

POLL_S: Final = 0.02
"""How often users and expectations are looked after."""
SETTLE_S: float = 2.0
"""A run ends when nothing was said for that long and nothing is planned."""
SOON_S: float = 10.0
"""... and a VMM that will go on by itself within that long, or a rule that has begun, is waited for: a phase of a
migration or a boot takes seconds. What comes later (a forced stop) is not."""
CALL_TIMEOUT_S: float = TIMEOUT_S
"""How long the model waits for a sled's answer: as long as Nexus."""
SLED_VERSION: Final = "48.0.0"
CRUCIBLE_VERSION: Final = "1.0.0"
OVERTIME_S: float = 120.0
"""A run that is never quiet ends so long after the last planned event: nobody waits for what Nexus tries for ever."""
REGISTER_S: Final = 30.0
LINES_MAX: Final = 1_000_000
"""The oldest are forgotten: memory is bounded however long people let it run."""
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@attrs.define(eq=False)
class WallWorld:
    """A stage (`play/stage.py`) on real sockets."""

    scenario: Scenario
    seed: int
    server: NexusServer
    daemon: Daemon
    say: Callable[[str], None]
    variant: str | None = None
    sled_variant: str | None = None
    steps: int = 0
    lines: deque[Line] = attrs.field(factory=lambda: deque(maxlen=LINES_MAX))
    start_us: int = 0
    active_us: int = 0
    events: deque[Event] | None = None
    """What happened, for programs; None: nobody wants it."""
    nexus_5xx: list[str] = attrs.field(factory=list)
    judge: Judge = attrs.field(init=False)
    users: Users = attrs.field(init=False)
    _clock: Clock = attrs.field(factory=Clock)
    _asking: set[asyncio.Task[None]] = attrs.field(factory=set)
    _session: aiohttp.ClientSession | None = None

    def __attrs_post_init__(self) -> None:
        self.judge = Judge(self.scenario, self)
        self.users = Users(self)
        self.engine.listener = self.judge
        self.daemon.tellers[:] = [self.tell]
        self.daemon.carriers.append(self._carried)
        self.daemon.beyond = self.beyond
        # before the engine: what happened is told, then what rules make of it
        self.daemon.watchers.insert(0, self._watch)

    @property
    def tasks(self) -> TasksSeen:
        """Of the users; see `Stage`."""
        return self.users.tasks

    @property
    def engine(self) -> Engine:
        return self.daemon.engine

    @property
    def rack(self) -> Rack:
        return self.daemon.rack

    @property
    def nexus(self) -> Nexus:
        return self.server.nexus

    @property
    def now_us(self) -> int:
        return self._clock.now_us()

    @property
    def elapsed_us(self) -> int:
        return max(0, self.now_us - self.start_us)

    def ask(self, make: Callable[[int], Any], answered: Callable[[nx.Reply | nx.Dropped], None]) -> None:
        """As users of the stub's control API do, without the HTTP between."""

        async def submit() -> None:
            answered(await self.server.host.submit(make))

        self._in_background(submit())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """A run does not end before it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def request(self, wish: Ask, answered: Callable[[Answer], None]) -> None:
        """See `Stage`; over HTTP, as Nexus."""

        async def send() -> None:
            answer = await self._send(wish)
            if not answer.good:
                told = f"{answer.status}" if answer.status else str(answer.body)
                self.line(
                    "request",
                    f"{wish.op}: {told}",
                    None,
                    self.engine.cast.by_id[wish.sled_id].name,
                    status=answer.status,
                )
            answered(answer)

        task = asyncio.get_running_loop().create_task(send())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _send(self, wish: Ask) -> Answer:
        address, version = self.daemon.addresses[wish.sled_id], SLED_VERSION
        if wish.dataset is not None:
            beside = self.daemon.listening.companions[wish.sled_id].addresses
            address, version = beside.crucible[wish.dataset], CRUCIBLE_VERSION
        body = wish.body
        if wish.depot is not None:
            body = {"depot_base_url": f"http://{self.daemon.listening.companions[wish.depot].addresses.repo_depot}"}
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(CALL_TIMEOUT_S))
        headers = {"api-version": version}
        url = f"http://{address}{wish.path}"
        try:
            async with self._session.request(wish.method, url, headers=headers, json=body, data=wish.data) as answer:
                raw, status = await answer.read(), answer.status
        except TimeoutError:
            return Answer(GONE, f"no answer within {CALL_TIMEOUT_S:.0f} s")
        except aiohttp.ClientError as error:
            return Answer(GONE, str(error) or type(error).__name__)
        try:
            told = foreign.loads(raw) if raw else None
        except ValueError:
            return Answer(GONE, "an answer that nobody can read")
        return Answer(status, told["message"] if status >= 400 and isinstance(told, dict) else told)

    def line(
        self,
        kind: str,
        text: str,
        who: Subject | None = None,
        sled: str = "-",
        *,
        status: int = 0,
        happening: Happening | None = None,
    ) -> None:
        """Each line is told as it happens. `happening`: it has an event of its own."""
        self.active_us = self.now_us
        vmm, hostname = ("-", "-") if who is None else (who.short, who.hostname)
        where = who.sled.name if who is not None and sled == "-" else sled
        one = Line(self.elapsed_us, kind, where, vmm, hostname, text)
        self.steps += 1
        self.lines.append(one)
        self.say(str(one))
        if self.events is not None and happening is None:
            place = self.engine.cast.sleds.get(where)
            at = None if place is None else place.id
            place_name = "" if where == "-" else where
            self.events.append(told_event(one.at_us, kind, who, text, sled=place_name, sled_id=at, status=status))

    def readable(self, text: str) -> str:
        return _UUID.sub(lambda m: self._name(m[0]), text)

    def _name(self, key: str) -> str:
        who = self.engine.cast.subjects.get(UUID(key))
        if who is not None:
            return who.short
        row = self.nexus.records.instances.get(UUID(key))
        return row.hostname if row is not None else key[:8]

    def beyond(self, effect: Power | Expunge | RestartNexus) -> None:
        """What rules want of Nexus, done to the model."""
        if isinstance(effect, RestartNexus) and effect.point == "now":
            self.line("nexus", "down")
        self._in_background(do_to_model(self.server, effect))

    def tell(self, kind: str, who: Subject | None, sled: str, text: str) -> None:
        self.line(kind, text, who, sled)

    def _watch(self, happening: Happening) -> None:
        who = self.engine.cast.subjects.get(happening.propolis_id) if happening.propolis_id is not None else None
        self.judge.happened(happening, who)
        if who is None:
            return
        if self.events is not None:
            self.events.append(event_in_run(self.elapsed_us, happening, who, told(happening)))
        if happening.kind in UNTOLD:
            return
        text = told(happening)
        if text:
            self.line(happening.kind.value.replace(" ", "-"), text, who, happening=happening)

    def _carried(self, call: Call, ending: Carried | Refused) -> None:
        look_at_call(self.judge, self.nexus_5xx, call, ending)

    def _judge(self) -> None:
        self.judge.look()
        self.judge.settle(self.now_us)
        self.judge.nexus_moved()
        for broken in self.nexus.broken:
            self.judge.invariants.fail("nexus_properties", f"{broken.prop}: {self.readable(str(broken))}")

    async def play(self, until_us: int | None) -> bool:
        """Until users, expectations and rules are through; whether it came to rest."""
        self.start_us = self.active_us = self.engine.start_us  # its rules began when the fleet was registered
        self.users.begin()
        end_us = horizon_us(self.scenario, self.users)
        while True:
            self.users.act(self.now_us)
            self._judge()
            elapsed = self.elapsed_us
            if until_us is not None and elapsed >= until_us:
                self.judge.undecided()
                return False
            waiting = self._asking or any(len(sled.outbox) for sled in self.rack.sleds.values())
            through = elapsed >= end_us and not self.judge.pending and not waiting
            quiet_s = (self.now_us - self.active_us) / 1e6
            if through and quiet_s >= SETTLE_S and self.users.is_through and not self._goes_on():
                return True
            if elapsed > end_us + OVERTIME_S * 1e6 and not self.judge.pending:
                return False
            await asyncio.sleep(POLL_S)

    def _goes_on(self) -> bool:
        """Whether somebody has something to do soon, although all is quiet."""
        until_us = self.now_us + int(SOON_S * 1e6)
        vmms = (vmm for sled in self.rack.sleds.values() for vmm in sled.vmms.values())
        return self.engine.timers.has_planned(until_us) or any(
            vmm.due_us is not None and vmm.due_us <= until_us for vmm in vmms
        )

    async def close(self) -> None:
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


async def play_on_sockets(
    scenario: Scenario, seed: int, say: Callable[[str], None], how: How | None = None
) -> Result:
    """One run; each line is said as it happens. TimeoutError if the fleet cannot be registered, ValueError if there
    is no such variant.
    """
    how = how or How()
    async with NexusServer(
        seed=seed, config=model_of(scenario, how.variant), sled_timeout_s=CALL_TIMEOUT_S
    ) as server:
        configs = configs_of(scenario, "[::1]:0")
        wrong = wrong_sled(how.sled_variant)
        engine = engine_for(scenario, seed, [config.sled_id for config in configs])
        daemon = Daemon(
            configs,
            Options(
                nexus=server.internal,
                seed=seed,
                engine=engine,
                shutdown_wait_s=0.2,
                wrong=wrong,
                silence_us=int(CALL_TIMEOUT_S * 1.1e6),
                companions=Ports() if needs_servers(scenario) else None,
            ),
        )
        await daemon.start()
        world = WallWorld(scenario, seed, server, daemon, say, how.variant, how.sled_variant)
        if how.events:
            world.events = deque(maxlen=LINES_MAX)
        try:
            async with asyncio.timeout(REGISTER_S):
                await asyncio.gather(*(event.wait() for event in daemon.reporting.registered.values()))
            settled = await world.play(how.until_us)
            if settled:
                world.judge.invariants.finish(settled=False, leaks=True)
            end = f"{world.elapsed_us / 1e6:.3f} s, on real sockets" + ("" if settled else ", not at rest")
            result = result_of(world, end, world.lines, "wall")
            return attrs.evolve(result, events=tuple(world.events or ()))
        finally:
            await world.close()
            await daemon.stop()


def play_tasks(tasks: Iterable[Task], say: Callable[[str], None]) -> Iterator[Played]:
    """As `many.play_all`, one after the other on real sockets."""
    for task in tasks:
        started = time.perf_counter()
        result = asyncio.run(play_on_sockets(task.scenario, task.seed, say, task.how))
        yield Played(task, result, time.perf_counter() - started)
