"""The pytest plugin: a rack of simulated sleds, a model of Nexus, a Propolis and the virtual world as fixtures.

    @pytest.mark.scenario("stuck-stop", seed=7)
    async def test_a_stop_is_bounded(sim_rack, nexus_model):
        vm = await nexus_model.create_instance("stuck-1")
        await sim_rack.expect(vm, "running", within=5)
        await nexus_model.stop_instance(vm)
        await sim_rack.expect(vm, "destroyed", within=30)
        sim_rack.assert_fired("never-stops")

In a test that is no coroutine, `.wait()` instead of `await`. Everything runs on loopback in a thread of its own, one
per process (so xdist-safe), and is gone when the test is. Scenarios without latencies of their own play at the pace
of `--sim-pace` (default `instant`). See docs/testing-with-pytest.md.

Imported by every pytest of an environment that has sim-sled: nothing heavy is imported before a fixture is used.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import shlex
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import pytest

if TYPE_CHECKING:
    from uuid import UUID

    from nexus_client.stub.records import Instance
    from sim_sled.daemon.sightings import Sighting
    from sim_sled.daemon.small_rack import SledHandle, SmallRack
    from sim_sled.language.schema import Scenario
    from sim_sled.play.run import Result

T = TypeVar("T")

TOLD_MAX: Final = 5
"""VMMs whose lives are told of a test that has failed."""
STOP_S: Final = 30.0
"""How long a rack may take to end; longer is a fault of ours."""


class Pending(Generic[T]):
    """Something under way: `await` it, or `.wait()` for it. One that nobody looks at fails the test at its end."""

    def __init__(self, what: str, future: Future[T], left: set[Pending[Any]]) -> None:
        self.what = what
        self._future = future
        self._left = left
        left.add(self)

    def __await__(self) -> Generator[Any, None, T]:
        self._left.discard(self)
        return self._done().__await__()

    async def _done(self) -> T:
        __tracebackhide__ = True  # what the reader looks for is the line of his own test
        try:
            return await asyncio.wrap_future(self._future)
        except (AssertionError, ValueError) as error:  # not so, or refused: both say it all
            raise error.with_traceback(None) from None

    def wait(self) -> T:
        """As `await`, in a test that is no coroutine."""
        __tracebackhide__ = True  # as above
        self._left.discard(self)
        error = self._future.exception()
        if isinstance(error, AssertionError | ValueError):
            raise error.with_traceback(None)
        return self._future.result()

    def fault(self) -> str | None:
        """What is wrong with having left it alone; None if it is done and went well."""
        if not self._future.done():
            self._future.cancel()
            return f"{self.what}: neither awaited nor waited for"
        try:
            error = self._future.exception()
        except CancelledError:
            return None
        return None if error is None else f"{self.what}: {error}"


class _Loop:
    """An event loop in a thread, for all racks of one process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="sim-sled", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return self.submit(work).result(STOP_S * 2)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def now(self, act: Callable[[], T]) -> T:
        """Reads or does something where nothing can change meanwhile."""
        __tracebackhide__ = True  # what the reader looks for is the line of his own test

        async def read() -> T:
            return act()

        try:
            return self.call(read())
        except ValueError as error:  # refused: it says it all
            raise error.with_traceback(None) from None

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(STOP_S)
        self.loop.close()


class NexusModel:
    """What a user of the control plane does, with the model of Nexus. It is not Nexus. Refusals are `RackError`s."""

    def __init__(self, rack: SmallRack, loop: _Loop, left: set[Pending[Any]]) -> None:
        self._rack = rack
        self._loop = loop
        self._left = left

    @property
    def address(self) -> str:
        """Its internal API, for sleds."""
        assert self._rack.server is not None
        return self._rack.server.internal

    @property
    def control(self) -> str:
        """Its control API (docs/nexus-model.md), for everything that has no method here."""
        assert self._rack.server is not None
        return self._rack.server.control

    def create_instance(self, name: str, **more: Any) -> Pending[Instance]:
        """`ncpus`, `memory` in bytes, `start`, `auto_restart_policy`, … as the control API's create."""
        return self._under_way(f"create_instance({name!r})", self._rack.create_instance(name, **more))

    def start_instance(self, who: str | Instance) -> Pending[None]:
        return self._under_way(f"start_instance({_name(who)})", self._rack.start_instance(who))

    def stop_instance(self, who: str | Instance) -> Pending[None]:
        return self._under_way(f"stop_instance({_name(who)})", self._rack.stop_instance(who))

    def reboot_instance(self, who: str | Instance) -> Pending[None]:
        return self._under_way(f"reboot_instance({_name(who)})", self._rack.reboot_instance(who))

    def delete_instance(self, who: str | Instance) -> Pending[None]:
        return self._under_way(f"delete_instance({_name(who)})", self._rack.delete_instance(who))

    def migrate_instance(self, who: str | Instance, to: UUID | str) -> Pending[None]:
        """`to`: the id of a sled, or its name in the rack (`sled-2`)."""
        return self._under_way(f"migrate_instance({_name(who)})", self._rack.migrate_instance(who, to))

    def state(self, who: str | Instance) -> str:
        """What users of the public API see: `running`, `stopped`, …"""
        return self._loop.now(lambda: self._rack.public_state(who))

    def expect(self, who: str | Instance, state: str, *, within: float) -> Pending[None]:
        """Waits for a public state."""
        work = self._rack.expect_public(who, state, within_s=within)
        return self._under_way(f"nexus_model.expect({_name(who)}, {state!r})", work)

    def restart(self, down_ms: int = 0) -> None:
        """The model dies and comes back with the same records after so many milliseconds."""
        assert self._rack.server is not None
        restart = self._rack.server.restart
        self._loop.now(lambda: restart(down_ms))

    def _under_way(self, what: str, work: Coroutine[Any, Any, T]) -> Pending[T]:
        return Pending(what, self._loop.submit(work), self._left)


class SimRack:
    """A rack of simulated sleds, registered and ready. `nexus` is the address they tell their states to."""

    def __init__(self, rack: SmallRack, loop: _Loop, again: str) -> None:
        self.rack = rack
        self.left: set[Pending[Any]] = set()
        self.model = NexusModel(rack, loop, self.left)
        self._loop = loop
        self.again = again

    @property
    def sleds(self) -> list[SledHandle]:
        """Id, name, serial and address of each."""
        return list(self.rack.handles)

    @property
    def nexus(self) -> str:
        return self.rack.nexus or ""

    @property
    def seed(self) -> int:
        return self.rack.seed

    def load(self, scenario: str | Path) -> None:
        """Other rules from now on: a name of the library, a file, or the text of a scenario."""
        found = _scenario(scenario)
        self._loop.now(lambda: self.rack.load(found))

    def fire(self, name: str) -> None:
        """Fires the rules that wait for it: `when: {manual: NAME}`."""
        __tracebackhide__ = True  # as above
        self._loop.now(lambda: self.rack.fire(name))

    def release(self, rule: str) -> None:
        """Lets go what a rule holds: reports, or a stalled VM."""
        __tracebackhide__ = True  # as above
        self._loop.now(lambda: self.rack.release(rule))

    def inject(self, who: str | UUID | Instance | Sighting, action: str) -> str:
        """Does an action of the scenario language to a VMM, now: `stall: 30s`, `set_state: failed`. Returns the name
        of its rule, for `release`.
        """
        __tracebackhide__ = True  # as above
        return self._loop.now(lambda: self.rack.inject(who, action))

    def expect(
        self, who: str | UUID | Instance | Sighting, state: str, *, within: float, since: float | None = None
    ) -> Pending[Sighting]:
        """A VMM (of an instance the newest that is there) is in a state within so many seconds. Level-triggered: it
        counts if it is so now; with `since`, a time of `time.time()`, also if it was so in between. Fails with its
        timeline and why.
        """
        since_us = None if since is None else int(since * 1_000_000)
        work = self._expect(who, state, within, since_us)
        return Pending(f"sim_rack.expect({_name(who)}, {state!r})", self._loop.submit(work), self.left)

    async def _expect(self, who: Any, state: str, within_s: float, since_us: int | None) -> Sighting:
        from sim_sled.daemon.looking import Unmet

        __tracebackhide__ = True  # what the reader looks for is the line of his own test
        try:
            return await self.rack.expect(who, state, within_s=within_s, since_us=since_us)
        except Unmet as unmet:
            raise Unmet(f"{unmet}\n{self.once_more}") from None

    def assert_fired(self, rule: str, times: int | None = None) -> None:
        """The rule of the scenario has fired (so often)."""
        __tracebackhide__ = True  # as above
        fired = self._loop.now(lambda: self.rack.fired(rule))
        if not fired if times is None else fired != times:
            wanted = "at least once" if times is None else f"{times} times"
            raise AssertionError(f"rule {rule!r} has fired {fired} times, not {wanted}\n{self.told()}")

    def told(self) -> str:
        """For whoever reads that a test has failed: what became of each VMM (the newest, if there are many), which
        rules fired, the seed, and the command that plays the test again.
        """
        return self._loop.now(self._told)

    def _told(self) -> str:
        seen = self.rack.daemon.look.sightings.all()
        lines = [f"... and {len(seen) - TOLD_MAX} older VMMs"] if len(seen) > TOLD_MAX else []
        for each in seen[-TOLD_MAX:]:
            lines.append(f"{each.hostname} ({each.short}, {each.propolis_id}) is {each.state}")
            lines += ["  timeline:", *(f"    {line}" for line in self.rack.timeline(each))]
            lines += ["  why:", *(f"    {line}" for line in self.rack.why(each))]
        counts = self.rack.daemon.passage.fired()
        if counts:
            lines.append(f"rules fired: {', '.join(f'{name} {times}' for name, times in counts.items())}")
        return "\n".join([*lines, self.once_more])

    @property
    def once_more(self) -> str:
        """The seed, and the command that plays the test again."""
        return f"seed={self.seed}\nagain: {self.again}"

    def timeline(self, who: str | UUID | Instance | Sighting) -> list[str]:
        """What happened to a VMM, a line each."""
        return self._loop.now(lambda: self.rack.timeline(who))

    def why(self, who: str | UUID | Instance | Sighting) -> list[str]:
        """Why a VMM is where it is."""
        return self._loop.now(lambda: self.rack.why(who))


def _name(who: object) -> str:
    return str(getattr(who, "name", who))


def _scenario(given: str | Path) -> Scenario:
    """A scenario by name, file or text. `pytest.UsageError` with every problem of it."""
    __tracebackhide__ = True  # what the reader looks for is the line of his own test
    from sim_sled.language.check import parse_scenario
    from sim_sled.play import library

    if isinstance(given, str) and "\n" in given:
        scenario, problems = parse_scenario(given)
    else:
        [loaded, *_], problems = library.load([str(given)])
        scenario = loaded.scenario
    if scenario is None:
        raise pytest.UsageError(problems.text())
    return scenario


# ---- pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sim-sled", "simulated sleds")
    group.addoption(
        "--sim-nexus", metavar="ADDR", help="the Nexus that sim_rack tells its states to; default: the model"
    )
    group.addoption(
        "--sim-pace",
        default="instant",
        metavar="PRESET",
        type=_preset,
        help="latency preset of sim_rack (default: instant)",
    )
    group.addoption("--sim-seed", type=int, default=0, help="seed of sim_rack, where its marker says none")


def _preset(name: str) -> str:
    from propolis_stub.presets import NoPreset, preset_named

    try:
        return preset_named(name)
    except NoPreset as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "scenario(name, seed=None, sleds=1): sim_rack plays this scenario (a name of the library, a file, or a text)",
    )


_FIXTURES: Final = frozenset({"sim_rack", "nexus_model", "sim_nexus", "propolis", "virtual_world"})


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class) -> Generator[None, object, object]:
    """A coroutine that uses a fixture of ours is one for pytest-asyncio, also in its strict mode, where a project
    without a configuration is. The innermost wrapper (`trylast`): pytest-asyncio's looks for the mark behind it.
    """
    made = yield
    if collector.config.pluginmanager.hasplugin("asyncio"):
        for item in made if isinstance(made, list) else [made]:
            if (
                isinstance(item, pytest.Function)
                and inspect.iscoroutinefunction(item.function)
                and not _FIXTURES.isdisjoint(item.fixturenames)
                and item.get_closest_marker("asyncio") is None
                and item.get_closest_marker("anyio") is None  # somebody has said that another runs it
            ):
                item.add_marker(pytest.mark.asyncio)
    return made


@pytest.fixture(scope="session")
def _sim_loop() -> Iterator[_Loop]:
    loop = _Loop()
    yield loop
    loop.close()


@pytest.fixture
def sim_nexus(request: pytest.FixtureRequest) -> str | None:
    """The address of the Nexus that `sim_rack` tells its states to; None: the model. Override it for your own."""
    found: str | None = request.config.getoption("--sim-nexus")
    return found


@pytest.fixture
def sim_rack(request: pytest.FixtureRequest, _sim_loop: _Loop, sim_nexus: str | None) -> Iterator[SimRack]:
    """A rack of simulated sleds, registered with `sim_nexus` or with a model of Nexus that comes along."""
    from sim_sled import logs
    from sim_sled.daemon.small_rack import RackError, SmallRack

    logs.configure(level="error", libraries=False)
    unwell: str | None = None
    try:
        rack = SmallRack(
            name=request.node.name[:40],
            nexus=_peer(sim_nexus),
            pace=request.config.getoption("--sim-pace"),
            **_marked(request),
        )
    except pytest.UsageError as error:
        unwell = str(error)
    if unwell is not None:
        pytest.fail(f"sim_rack: {unwell}", pytrace=False)  # how a fixture comes to be is nothing to its reader
    try:
        _sim_loop.call(rack.start())
    except RackError as error:
        unwell = str(error)
    except OSError as error:
        from sim_sled.machine import cannot_bind

        unwell = cannot_bind(error)
    if unwell is not None:
        pytest.fail(f"sim_rack: {unwell}", pytrace=False)
    told = SimRack(rack, _sim_loop, _again(request, rack.seed))
    faults: list[str] = []
    try:
        yield told
        faults = [fault for pending in list(told.left) if (fault := pending.fault()) is not None]
    finally:
        _sim_loop.call(rack.stop())
    if faults:
        pytest.fail("left alone by the test:\n" + "\n".join(faults), pytrace=False)


def _marked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the test's marker says of its rack: scenario, seed, sleds."""
    marker = request.node.get_closest_marker("scenario")
    options: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    named = options.pop("name", None) or (marker.args[0] if marker is not None and marker.args else None)
    seed, sleds = options.pop("seed", None), options.pop("sleds", 1)
    if options:
        raise pytest.UsageError(f"the marker scenario takes name, seed and sleds, not {', '.join(sorted(options))}")
    return {
        "scenario": None if named is None else _scenario(named),
        "seed": request.config.getoption("--sim-seed") if seed is None else seed,
        "sleds": sleds,
    }


def _peer(nexus: str | None) -> str | None:
    """An address, a name with a port, or a URL."""
    from nexus_client.dropshot.text import peer_address

    try:
        return None if nexus is None else peer_address(nexus)
    except ValueError as error:
        raise pytest.UsageError(f"sim_nexus: {error}") from None


def _again(request: pytest.FixtureRequest, seed: int) -> str:
    """The command that runs this test again, with the options of ours that it had."""
    words = ["pytest", request.node.nodeid, "--sim-seed", str(seed)]
    for option, usual in (("--sim-pace", "instant"), ("--sim-nexus", None)):
        given = request.config.getoption(option)
        if given != usual:
            words += [option, str(given)]
    return shlex.join(words)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails for whatever reason tells what became of its rack, or of the virtual world that it played
    last, if its own failure does not.
    """
    report = yield
    rack = getattr(item, "funcargs", {}).get("sim_rack")
    world = item.stash.get(_LAST_WORLD, None)
    if report.failed and call.when == "call":
        if isinstance(rack, SimRack) and f"again: {rack.again}" not in report.longreprtext:
            report.sections.append(("sim-sled", rack.told()))
        if world is not None and "\nor: pytest " not in report.longreprtext:
            report.sections.append(("sim-sled", _told_of(*world, item.nodeid)))
    return report


@pytest.fixture
def nexus_model(sim_rack: SimRack) -> NexusModel:
    """The model of Nexus beside `sim_rack`: create, start, stop, reboot, migrate, delete. It is not Nexus."""
    if sim_rack.rack.server is None:
        raise pytest.UsageError("sim_rack tells a Nexus that is not ours: there is no model")
    return sim_rack.model


@pytest.fixture
def propolis(_sim_loop: _Loop) -> Iterator[str]:
    """The address of one Propolis (`propolis-stub`) with nothing in it yet; everything takes no time."""
    from nexus_client.dropshot.text import SocketAddress
    from propolis_stub.server.serve import start

    running = _sim_loop.call(start(SocketAddress("127.0.0.1", 0), base_paces=False))
    try:
        yield running.api.address
    finally:
        _sim_loop.call(_closed(running.close()))


_LAST_WORLD: Final = pytest.StashKey[tuple[str, "Result"]]()
"""Of a test: how its last virtual world is called, and how it went. Of many no more: each has all its lines."""


def _told_of(shown: str, result: Result, test: str) -> str:
    """How a virtual world went, the lives of whoever failed, the seed, and the command that plays the test again."""
    from sim_sled.play.report import Run, lives_of, text_of

    lines = [text_of(Run(shown, result, 0.0), require_fired=False).rstrip()]
    for hostname, life in lives_of(result).items():
        lines += [f"timeline of {hostname}:", *(f"  {line}" for line in life)]
    also = "again" if result.good else "or"
    return "\n".join([*lines, f"seed={result.seed}", f"{also}: pytest {shlex.quote(test)}"])


async def _closed(work: Awaitable[None]) -> None:
    await work


@pytest.fixture
def virtual_world(request: pytest.FixtureRequest) -> Callable[..., Result]:
    """`virtual_world("stuck-stop", seed=7)` plays a scenario in virtual time and returns how it went; it fails the
    test if an expectation or invariant of the scenario failed, unless `check=False`.
    """

    def play_it(scenario: str | Path, seed: int | None = None, *, check: bool = True) -> Result:
        from sim_sled.play.run import play

        __tracebackhide__ = True  # what the reader looks for is the line of his own test
        found = _scenario(scenario)
        chosen = seed if seed is not None else found.seed or 0
        result = play(found, chosen)
        # of a text it is the test that plays it again: `-` is what a shell would give on stdin
        shown = "-" if isinstance(scenario, str) and "\n" in scenario else str(scenario)
        if check and not result.good:
            raise AssertionError(_told_of(shown, result, request.node.nodeid))
        request.node.stash[_LAST_WORLD] = shown, result
        return result

    return play_it
