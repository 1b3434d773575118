"""A rack in this process: sleds on sockets and, unless a Nexus is given, the model of Nexus beside them.

    async with SmallRack(sleds=2) as rack:
        web = await rack.create_instance("web")
        await rack.expect(web, "running", within_s=5)

What `sim-sled up` serves and what the pytest plugin hands to tests. Ids, serials and addresses of Propolis follow
from the rack's name: the same rack is the same rack again.

Read before: daemon/daemon.py, daemon/looking.py, daemon/on_model.py, daemon/racks.py, daemon/sightings.py.
Read next: cli/load.py, daemon/worker.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from uuid import UUID, uuid5

import attrs

from nexus_client.stub import contract as nx
from nexus_client.stub.config import Config, UnknownVmm
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import Instance
from nexus_client.stub.server.serve import NexusServer
from sim_sled.core.config import RECHECK_US, Hardware, SledConfig
from sim_sled.daemon.clock import Clock
from sim_sled.daemon.daemon import Daemon, Futile, Undelivered
from sim_sled.daemon.doing import no_trigger, nothing_held
from sim_sled.daemon.looking import Unmet
from sim_sled.daemon.on_model import do_to_model
from sim_sled.daemon.options import Options
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.daemon.sightings import Sighting
from sim_sled.engine.plans import Expunge, Power, RestartNexus
from sim_sled.language.check import Sled, parse_scenario, sleds_of
from sim_sled.language.schema import FLEET_MAX, Fleet, Scenario, paced
from sim_sled.language.words import STATES, hint
from sim_sled.play.fleet import engine_for, hardware_of, is_shaped

if TYPE_CHECKING:
    from sim_sled.daemon.recorder import Recorder

NAMESPACE: Final = UUID("3f0f6f0e-4b55-5d5a-8f0b-0c6f5a3d1b77")
READY_S: Final = 30.0
"""How long registration may stand still: a Nexus that is just starting answers 503 for some seconds."""
MODEL_SHUTDOWN_S: Final = 0.2
"""With the model in the same process nothing is worth waiting for at the end."""

BEYOND_MAX: Final = 1_000
"""Wishes of rules to the model that are on their way at a time; each takes a turn of the loop."""


@attrs.frozen
class SledHandle:
    """One sled of a rack. `name` as the scenario's fleet calls it."""

    id: UUID
    name: str
    serial: str
    address: str


@attrs.frozen
class Part:
    """The sleds of a rack that one process has: `count` of them from number `first` (from 1) on."""

    first: int
    count: int
    addresses: Sequence[str] = ()
    """Where these sleds have been before, in order: there they are again. Empty: the rack's address is for each."""

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)


class RackError(ValueError):
    """What was asked of the rack cannot be: nobody or several are meant, or Nexus refuses. The text says it."""


class NotSoMany(RackError):
    """No rack has as many sleds."""


Who = str | UUID | Instance | Sighting
"""Whom somebody means: see `Sightings.named`."""


def _key(who: Who) -> str:
    if isinstance(who, Sighting):
        return str(who.propolis_id)
    return str(who.id) if isinstance(who, Instance) else str(who)


def sled_id_of(rack: str, number: int) -> UUID:
    """The id that sled `number` (from 1) of a rack always has."""
    return uuid5(NAMESPACE, f"{rack}/sled/{number}")


def handle_of(rack: str, number: int, address: str, name: str) -> SledHandle:
    """Sled `number` (from 1) of a rack, where it listens; `name`: as rules know it."""
    return SledHandle(sled_id_of(rack, number), name, f"{rack}-{number}", address)


def loopback_of(rack: str) -> tuple[int, int]:
    """The piece of 127/8 and the port of a rack's Propolis servers: the same for a name, different for most."""
    digest = hashlib.blake2b(rack.encode(), digest_size=4).digest()
    return 1 + digest[0] % 254, 10_000 + int.from_bytes(digest[1:3], "big") % 20_000


def model_of_rack(rack: str) -> Config:
    """The model beside a rack of this name."""
    net, port = loopback_of(rack)
    return Config(unknown_vmm=UnknownVmm.ADOPT, loopback_net=net, loopback_port=port)


@attrs.define(eq=False)
class SmallRack:
    """`nexus` None: the model comes with it. `scenario`: rules and fleet; there are as many sleds as that has, or
    `sleds` if that is more. `pace`: a latency preset, for a scenario that has no latencies of its own. `part`: only
    these sleds of it are here; others are in other processes (daemon/workers.py). `record`: who writes down every
    turn of its sleds.
    """

    name: str = "rack"
    sleds: int = 1
    nexus: str | None = None
    scenario: Scenario | None = None
    seed: int = 0
    pace: str = "instant"
    hardware: Hardware = attrs.field(factory=Hardware)
    propolis: PropolisMode = PropolisMode.NONE
    address: str = "[::1]:0"
    model: Config | None = None
    shutdown_wait_s: float | None = None
    part: Part | None = None
    record: Recorder | None = None
    shared_out: ClassVar = False
    """Whether its sleds are in other processes (`workers.WorkersRack`)."""
    clock: Clock = attrs.field(factory=Clock, init=False)
    server: NexusServer | None = attrs.field(default=None, init=False)
    daemon: Daemon = attrs.field(init=False)
    handles: list[SledHandle] = attrs.field(factory=list, init=False)
    left_over: list[Undelivered] = attrs.field(factory=list, init=False)
    _fleet: list[Sled] = attrs.field(factory=list, init=False)
    _scaling: asyncio.Lock = attrs.field(factory=asyncio.Lock, init=False)

    # ---- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Everything listens and every sled is registered. Raises OSError for an address that is taken, `RackError`
        if Nexus refuses or does not take the sleds within `READY_S`.
        """
        if self.nexus is None:
            beside = f"{self.address.rpartition(':')[0]}:0"  # a port that is given is the sled's
            self.server = NexusServer(beside, config=self._model(), seed=self.seed, clock=self.clock.now_us)
            await self.server.__aenter__()
            self.nexus = self.server.internal
        try:
            self.daemon = self._daemon()
            if self.server is not None:
                self.daemon.pausing.all.append(self.server.host)
                self.daemon.pausing.held = lambda: self.daemon.held
                self.server.nexus.watch_public(self.daemon.look.touch)
                self.daemon.model = self.server.host
                self.daemon.beyond = self._beyond
            await self.daemon.start()
        except BaseException:
            await self._stop_model()
            raise
        try:
            await self._registered()
        except BaseException:
            await self.stop()
            raise
        self.handles = [self._handle(i) for i in self._numbers]

    def _handle(self, number: int) -> SledHandle:
        address = self.daemon.addresses[sled_id_of(self.name, number)]
        return handle_of(self.name, number, address, self._sled(number).name)

    async def scale(self, sleds: int) -> None:
        """Sleds join, or the newest leave with their VMMs, until there are so many. Raises `RackError` for less than
        one or more than `FLEET_MAX`, or if Nexus does not take them.
        """
        _may_be(sleds)
        async with self._scaling:  # a number that is given twice, or left out, would bar all that come later
            while len(self.handles) > sleds:
                await self.daemon.leave(self.handles.pop().id)
            for number in range(len(self.handles) + 1, sleds + 1):
                await self.daemon.join(self._config(number), self._sled(number).name)
                self.handles.append(self._handle(number))
            await self._registered()

    async def stop(self) -> None:
        """Tries to deliver what Nexus has not acknowledged, then closes everything."""
        self.left_over = await self.daemon.stop()
        await self._stop_model()

    async def _stop_model(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.__aexit__()

    def _beyond(self, effect: Power | Expunge | RestartNexus) -> None:
        """What rules want of Nexus."""
        if self.server is not None:
            self.daemon.in_background(do_to_model(self.server, effect), BEYOND_MAX)

    def _model(self) -> Config:
        return model_of_rack(self.name) if self.model is None else self.model

    @property
    def sleds_wanted(self) -> int:
        """How many there are at the start: those asked for, or those of the scenario's fleet if that has more. Raises
        `RackError` for more than `FLEET_MAX` or less than one.
        """
        scenario = self.scenario
        fleet = scenario.fleet.sleds if scenario is not None and scenario.has("fleet") else 1
        for asked in (self.sleds, fleet):
            _may_be(asked)
        return max(self.sleds, fleet)

    @property
    def _numbers(self) -> range:
        return range(1, self.sleds_wanted + 1) if self.part is None else self.part.numbers

    def _hardware(self, number: int) -> Hardware:
        """As the scenario's fleet has it, where it says so."""
        if self.scenario is None or not is_shaped(self.scenario.fleet):
            return self.hardware
        return hardware_of(self._sled(number).shape)

    def _sled(self, number: int) -> Sled:
        """Name and shape of a sled as the scenario's fleet has it; sleds beyond the fleet are like its others."""
        if number > len(self._fleet):  # twice as many as are there: who scales one by one makes few lists
            fleet = Fleet() if self.scenario is None else self.scenario.fleet
            sleds = min(FLEET_MAX, max(self.sleds_wanted, 2 * number))
            self._fleet = sleds_of(attrs.evolve(fleet, sleds=sleds))
        return self._fleet[number - 1]

    @property
    def names(self) -> list[str]:
        """Of the sleds that there are at the start, in order."""
        return [self._sled(number).name for number in range(1, self.sleds_wanted + 1)]

    def _config(self, number: int) -> SledConfig:
        hardware = attrs.evolve(self._hardware(number), baseboard_serial=f"{self.name}-{number}")
        part = self.part
        address = part.addresses[number - part.first] if part is not None and part.addresses else self.address
        config = SledConfig(sled_id_of(self.name, number), address, hardware=hardware, recheck_us=RECHECK_US)
        if self.scenario is not None:
            config = attrs.evolve(config, stop_grace_us=self.scenario.agent.stop_grace)
        return config

    def _daemon(self) -> Daemon:
        assert self.nexus is not None
        configs = [self._config(i) for i in self._numbers]
        scenario = paced(self._sized(self.scenario, self.sleds_wanted), self.pace)
        plays = None if self.part is None else sleds_of(scenario.fleet)[self.part.first - 1].name
        engine = engine_for(scenario, self.seed, [each.sled_id for each in configs], plays)
        quick = MODEL_SHUTDOWN_S if self.server is not None else 5.0
        options = Options(
            nexus=self.nexus,
            seed=self.seed,
            engine=engine,
            pace=self.pace,
            plays=plays,
            own_ports=self.part is not None,
            propolis=self.propolis,
            shutdown_wait_s=quick if self.shutdown_wait_s is None else self.shutdown_wait_s,
        )
        return Daemon(configs, options, self.clock, self.record)

    def _sized(self, scenario: Scenario | None, sleds: int) -> Scenario:
        """The scenario with the rack's size; an empty one if there is none: rules can come later."""
        if scenario is None:
            scenario, _ = parse_scenario(f'version: 1\nname: "{_slug(self.name)}"\n')
            assert scenario is not None
        fleet = attrs.evolve(scenario.fleet, sleds=max(scenario.fleet.sleds, sleds))
        return attrs.evolve(scenario, fleet=fleet)

    async def _registered(self) -> None:
        refused, registered = self.daemon.reporting.refused, self.daemon.reporting.registered
        assert refused is not None
        everybody = asyncio.ensure_future(self._everybody())
        waiting: set[asyncio.Future[Any]] = {everybody, refused}
        try:
            done, before = set[asyncio.Future[Any]](), -1
            while not done and (known := sum(map(asyncio.Event.is_set, registered.values()))) > before:
                # ten thousand of them on a busy machine take their time: it is standing still that is given up
                before = known
                done, _ = await asyncio.wait(waiting, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            everybody.cancel()
        if everybody not in done:
            why_not = refused.result().message if refused in done else f"not within {READY_S:g} s"
            if refused not in done and (last := self.daemon.reporting.why_not_ready()):
                why_not += f": {last}"
            raise RackError(f"Nexus at {self.nexus} does not take the sleds: {why_not}")

    async def _everybody(self) -> None:
        for event in self.daemon.reporting.registered.values():
            await event.wait()

    # ---- what a user of the control plane does (the model's; of another Nexus use its own API)

    async def ask(self, make: Callable[[int], Any]) -> Any:
        """An input for the model; its answer's body. `RackError` with Nexus's text if it refuses."""
        if self.server is None:
            raise RackError("this rack tells a Nexus that is not ours: use that one's API")
        reply = await self.server.host.submit(make)
        if isinstance(reply, nx.Dropped):
            raise RackError("the Nexus model went away before it answered")
        if isinstance(reply.body, nx.ErrorBody):
            raise RackError(f"{reply.status}: {reply.body.message}")
        return reply.body

    async def create_instance(
        self, name: str, *, ncpus: int = 2, memory: int = 4 * 1024**3, start: bool = True, **more: Any
    ) -> Instance:
        """A new instance, as `POST /v1/instances` makes it."""
        await self.ask(lambda ticket: nx.CreateInstance(ticket, name, name, ncpus, memory, start, **more))
        return self.instance(name)

    async def start_instance(self, name: str | Instance) -> None:
        await self.ask(lambda ticket: nx.Start(ticket, self.instance(name).id))

    async def stop_instance(self, name: str | Instance) -> None:
        await self.ask(lambda ticket: nx.Stop(ticket, self.instance(name).id))

    async def reboot_instance(self, name: str | Instance) -> None:
        await self.ask(lambda ticket: nx.Reboot(ticket, self.instance(name).id))

    async def delete_instance(self, name: str | Instance) -> None:
        await self.ask(lambda ticket: nx.Delete(ticket, self.instance(name).id))

    async def migrate_instance(self, name: str | Instance, to: UUID | str) -> None:
        """`to`: a sled's id or its name in this rack."""
        target = next((each.id for each in self.handles if to in (each.id, each.name, str(each.id))), None)
        if target is None:
            raise RackError(f"no sled {to!r}; there are: {', '.join(each.name for each in self.handles)}")
        await self.ask(lambda ticket: nx.Migrate(ticket, self.instance(name).id, target))

    def instance(self, name: str | Instance) -> Instance:
        """The model's row of an instance, as it is now. `RackError` if there is none."""
        if self.server is None:
            raise RackError("this rack tells a Nexus that is not ours: use that one's API")
        nexus = self.server.nexus
        row = nexus.records.instances.get(name.id) if isinstance(name, Instance) else nexus.find(name)
        if row is None:
            known = ", ".join(sorted(each.name for each in nexus.records.instances.values())) or "none"
            raise RackError(f"the model has no instance {name!r}; it has: {known}")
        return row

    def public_state(self, name: str | Instance) -> str:
        """What users of the public API see."""
        assert self.server is not None
        return self.server.nexus.public_state(self.instance(name).id).value

    async def expect_public(self, name: str | Instance, state: str, *, within_s: float) -> None:
        """Waits for what users see. Raises `Unmet`; `RackError` for no state at all."""
        assert self.server is not None
        _may_be_in(state, tuple(each.value for each in PublicState))
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while (seen := self.public_state(name)) != state:
            left = until - loop.time()
            if left <= 0:
                raise Unmet(f"users see {self.instance(name).name} {seen!r}, not {state!r}, after {within_s:g} s")
            await self.daemon.look.change(left)

    # ---- looking

    def meant(self, who: Who) -> Sighting:
        """The VMM that is meant (`Sightings.named`). Raises `NobodyMeant`."""
        return who if isinstance(who, Sighting) else self.daemon.look.meant(_key(who))

    async def expect(self, who: Who, state: str, *, within_s: float, since_us: int | None = None) -> Sighting:
        """See `Looking.expect`. `RackError` for no state at all."""
        _may_be_in(state, STATES)
        return await self.daemon.look.expect(_key(who), state, within_s=within_s, since_us=since_us)

    def timeline(self, who: Who) -> list[str]:
        """What happened to a VMM, oldest first, with milliseconds since the first line."""
        return self.daemon.look.timeline(self.meant(who))

    def why(self, who: Who) -> list[str]:
        """Why a VMM is where it is, in sentences."""
        said: list[str] = self.daemon.look.why(self.meant(who))["says"]
        return said

    def fired(self, rule: str) -> int:
        """How often a rule of the scenario has fired. `RackError` if there is no such rule."""
        engine = self.daemon.engine
        counter = engine.counters.get(rule)
        if counter is None:
            rules = [each.name for each in engine.scenario.rules]
            raise RackError(f"no rule {rule!r}; there are: {', '.join(rules) or 'none'}")
        return counter.fired

    def fire(self, name: str) -> None:
        """Fires a manual trigger, `when: {manual: NAME}`. `RackError` if no rule has it."""
        if not self.daemon.fire(name):
            raise RackError(no_trigger(self.daemon.engine, name))

    def release(self, rule: str) -> None:
        """Lets go what a rule holds: reports, or a stalled VM. `RackError` if it holds nothing."""
        if not self.daemon.release(rule):
            raise RackError(nothing_held(self.daemon.engine, rule, self.daemon.clock.now_us()))

    def inject(self, who: Who, action: str) -> str:
        """Does an action of the scenario language to a VMM, now: `stall: 30s`, `hold: {publish: '*'}`, `set_state:
        failed`. Returns the name of its rule, for `release`. `RackError` with the reason if it cannot be done.
        """
        try:
            return self.daemon.do_once(self.meant(who).propolis_id, action)
        except (Futile, ValueError) as error:
            raise RackError(str(error)) from None

    def load(self, scenario: Scenario) -> None:
        """Other rules from now on; counters of rules that keep their name stay."""
        self.daemon.load(self._sized(scenario, max(self.sleds_wanted, len(self.handles))))


def _may_be_in(state: str, states: Sequence[str]) -> None:
    if state not in states:
        raise RackError(f"state is one of {', '.join(states)}, not {state!r}{hint(state, states)}")


def _may_be(sleds: int) -> None:
    if not 1 <= sleds <= FLEET_MAX:
        raise NotSoMany(f"a rack has 1 to {FLEET_MAX:,} sleds, not {sleds:,}")


def _slug(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).strip("-")[:63] or "rack"
