"""One daemon as a process: `sim-sled serve`. Signals, exit codes and the port file.

Read before: companions/handoff.py, daemon/judging.py, daemon/loop.py. Read next: daemon/worker.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp.http_parser
from msgspec import Struct

from nexus_client.dropshot import collector, ending, service
from nexus_client.dropshot.bearer import BadToken
from nexus_client.dropshot.command_line import ADDRESS_IN_USE, BAD_INPUT, CLOSED_ADDRESS, FAILED, GOOD
from nexus_client.dropshot.command_line import UNREACHABLE as NO_NEXUS
from nexus_client.dropshot.streams import CannotWrite
from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs, port_file
from sim_sled.core.config import SledConfig
from sim_sled.daemon import descriptors, loop
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.daemon import Daemon, Played
from sim_sled.daemon.options import Options
from sim_sled.daemon.state_dir import BadStateDir
from sim_sled.machine import assertions, binding

if TYPE_CHECKING:
    from sim_sled.antithesis import Assertions
    from sim_sled.core.handoff.wishes import Wishes
    from sim_sled.daemon.external import External
    from sim_sled.daemon.judging import Judging
    from sim_sled.daemon.recorder import Recorder
    from sim_sled.language.schema import Scenario


class ServeOptions(Struct, frozen=True):
    """What `serve` does besides running sleds. `control` None: no control API."""

    control: str | None = "[::1]:0"
    token: str | None = None
    control_hosts: tuple[str, ...] = ()
    port_file: Path | None = None
    as_json: bool = False
    """Whether the bound addresses are printed, as the port file has them."""
    nexus_wait_s: float | None = None
    scenario: Path | None = None
    watch: bool = False  # the scenario is read again whenever its file changes
    junit: Path | None = None
    """Where the verdict on the scenario's `expect` goes; None: nobody judges."""
    handoff: Wishes | None = None
    recorder: Recorder | None = None
    """Who writes down every turn."""


BACKGROUND_MAX: Final = 1_000
"""The hand-off begins before anything else can be under way."""


def run(sleds: list[SledConfig], options: Options, serving: ServeOptions) -> int:
    """Serve until a signal or a refused registration; returns the exit code."""
    with contextlib.ExitStack() as stack:
        told = assertions()
        if told is not None:
            stack.callback(told.close)
        return loop.run(_serve(sleds, options, serving, told))


async def _serve(sleds: list[SledConfig], options: Options, serving: ServeOptions, told: Assertions | None) -> int:
    log = logs.get("serve")
    if aiohttp.http_parser.HttpRequestParser.__module__ != "aiohttp._http_parser":
        log.warning("aiohttp runs without its C extensions: expect a third of the speed")
    if serving.port_file is not None:
        try:
            port_file.prepare(serving.port_file)
        except OSError as error:
            return _cannot_write(serving.port_file, error)
    try:
        descriptors.allow(len(sleds))
        daemon = Daemon(sleds, options, recorder=serving.recorder)
        external = _external(daemon, serving)
    except ValueError as error:
        print(f"sim-sled: {error}", file=sys.stderr)  # noqa: T201 -- for the person who started it
        return BAD_INPUT
    async with contextlib.AsyncExitStack() as stack:
        stop = ending.asked()
        reload = Reload(serving.scenario if serving.watch else None)
        try:
            control = await _start(stack, daemon, serving)
        except (BadToken, BadStateDir) as error:
            print(f"sim-sled: {error}", file=sys.stderr)  # noqa: T201 -- for the person who started it
            return BAD_INPUT
        except OSError as error:
            print(f"sim-sled: {error.strerror or error}", file=sys.stderr)  # noqa: T201 -- same
            return ADDRESS_IN_USE if error.errno in CLOSED_ADDRESS else BAD_INPUT
        _say_where(daemon, control, as_json=serving.as_json)
        if serving.port_file is not None:
            try:
                stack.enter_context(port_file.told(serving.port_file, _ports(daemon, control)))
            except OSError as error:
                await daemon.stop()
                return _cannot_write(serving.port_file, error)
        judging = _judging(daemon, serving, external, told)
        _reload(reload, stack, daemon, serving)
        for sled_id, beside in daemon.listening.companion_addresses().items():
            log.info("beside this sled", sled=str(sled_id), **beside.flat)
        if serving.handoff is not None:
            from sim_sled.daemon.handing_over import HandoffRunner  # noqa: PLC0415 -- few racks are handed over

            runner = HandoffRunner(daemon, serving.handoff, daemon.options.seed)
            daemon.handed_over = runner.done
            daemon.in_background(runner.run(), at_most=BACKGROUND_MAX)
        collector.started()
        service.tell("READY=1")
        if told is not None:
            daemon.in_background(_set_up(daemon, told), at_most=BACKGROUND_MAX)
        code = await _wait(daemon, stop, serving)
        service.tell("STOPPING=1")
        if judging is not None:
            judging.ending()
        left_over = await daemon.stop()
        for each in left_over:
            log.error(
                "not delivered to Nexus", vmm=str(each.propolis_id), state=each.state, gen=each.gen, why=each.why
            )
        log.info("stopped", undelivered=len(left_over))
        if judging is not None:
            code = max(code, _concluded(judging, serving))
        return BAD_INPUT if logs.dropped() else code


def _reload(reload: Reload, stack: contextlib.AsyncExitStack, daemon: Daemon, serving: ServeOptions) -> None:
    if serving.scenario is None:
        reload.follow(stack, nothing_to_read)
    else:
        reload.follow(stack, partial(reload_from, daemon.load, serving.scenario, daemon.played))


def _external(daemon: Daemon, serving: ServeOptions) -> External | None:
    """The Nexus whose public API the scenario names. Raises `TokenUnreadable`, a ValueError."""
    if serving.scenario is None or daemon.engine.scenario.nexus.external is None:
        return None
    from sim_sled.daemon.external import external_of  # noqa: PLC0415 -- few scenarios have users of a real Nexus

    return external_of(daemon, daemon.engine.scenario, serving.scenario.parent)


def _judging(
    daemon: Daemon, serving: ServeOptions, external: External | None, told: Assertions | None
) -> Judging | None:
    """Says what is not done of the scenario; the judge, if there is to be one, or if users are played. An Antithesis
    environment is told of the invariants of a daemon without a scenario, too.
    """
    if serving.scenario is None and told is None:
        return None
    from sim_sled.daemon.judging import Judging  # noqa: PLC0415 -- most daemons judge nothing

    judged = serving.junit is not None or told is not None
    if serving.scenario is not None:
        daemon.played.file = str(serving.scenario)
        say_what_is_left_out(daemon, model=False, judged=judged)
    if not judged and external is None:
        return None
    scenario, seed = daemon.engine.scenario, daemon.options.seed
    judging = Judging(daemon, scenario, seed, external=external, assertions=told)
    if external is not None:
        daemon.in_background(external.run(), at_most=BACKGROUND_MAX)
        daemon.in_background(judging.play_users(), at_most=BACKGROUND_MAX)
    return judging


def say_what_is_left_out(daemon: Daemon, *, model: bool, judged: bool) -> None:
    """What of its scenario this daemon does not do, a line each."""
    from sim_sled.daemon.judging import cannot  # noqa: PLC0415 -- most daemons have no scenario

    for sentence in cannot(daemon.engine.scenario, len(daemon.rack.sleds), model=model, judged=judged):
        logs.get("scenario").warning(sentence)


def _concluded(judging: Judging, serving: ServeOptions) -> int:
    """The verdict; one that nobody wants in a file is still told to an Antithesis environment."""
    if serving.junit is not None:
        return conclude(judging, str(serving.scenario), serving.junit)
    judging.result()
    return GOOD


def conclude(judging: Judging, shown: str, out: Path) -> int:
    """Writes the verdict, and says it; returns the exit code: 1 if something that was expected was not so."""
    from sim_sled.daemon.judging import verdict  # noqa: PLC0415 -- most daemons judge nothing

    try:
        told, good = verdict(judging, shown, out, judging.elapsed_us / 1e6)
    except CannotWrite as error:
        print(f"sim-sled: {error}", file=sys.stderr)  # noqa: T201 -- for the person who started it
        return BAD_INPUT
    print(told, end="", file=sys.stderr)  # noqa: T201 -- same
    return GOOD if good else FAILED


def _say_where(daemon: Daemon, control: str | None, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_ports(daemon, control)), flush=True)  # noqa: T201 -- for the program that started it
    log = logs.get("serve")
    for sled_id, address in daemon.addresses.items():
        nexus = daemon.options.nexus
        log.info("this is a simulated sled agent", sled=daemon.sled_name(sled_id), address=address, nexus=nexus)
    if control is not None:
        log.info("the control API listens", address=control)


async def _start(stack: contextlib.AsyncExitStack, daemon: Daemon, serving: ServeOptions) -> str | None:
    bound: str | None = None
    control = Control(daemon, serving.token, serving.control_hosts)
    if serving.control is not None:
        # before the sleds: nothing is told to Nexus when this fails
        with binding("--control"):
            listener = await serve_control(control, SocketAddress.parse(serving.control))
        stack.push_async_callback(listener.close)
        bound = listener.address
    with binding("SLED_ADDR, --also or a port option"):
        await daemon.start()
    return bound


async def _wait(daemon: Daemon, stop: asyncio.Future[int], serving: ServeOptions) -> int:
    """Until a signal, a refusal, or Nexus stays away for longer than somebody wants to wait."""
    refused = daemon.reporting.refused
    assert refused is not None
    waiting: set[asyncio.Future[Any]] = {stop, refused}
    ready: asyncio.Future[Any] | None = None
    if serving.nexus_wait_s is not None:
        ready = asyncio.ensure_future(asyncio.wait_for(_registered(daemon), serving.nexus_wait_s))
        waiting.add(ready)
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if refused in done:
            return NO_NEXUS
        if stop in done:
            if ready is not None:
                ready.cancel()
            return stop.result()
        if ready is not None and ready.exception() is not None:
            logs.get("serve").error("Nexus cannot be reached", waited_s=serving.nexus_wait_s)
            return NO_NEXUS


async def _set_up(daemon: Daemon, told: Assertions) -> None:
    """An Antithesis environment begins to disturb us once Nexus knows every sled."""
    await _registered(daemon)
    told.set_up(program="serve", sleds=len(daemon.reporting.registered))


async def _registered(daemon: Daemon) -> None:
    for event in daemon.reporting.registered.values():
        await event.wait()


WATCH_S: Final = 0.5
"""Between two looks at a scenario file: an author sees no delay, and a look costs microseconds."""


class Reload:
    """Who wants rules to be read again: SIGHUP, and a `watched` file that is another. Heard from when there is one of
    these, in the running loop, on: whoever sends SIGHUP to a daemon that is starting, or ending, does not want it
    dead at once, with reports that nobody was told. Nor does who sends it to one without a scenario, as `systemctl
    reload` does. A terminal that is closed sends it, too, and wants an end: a rack would go on that nobody sees.
    """

    def __init__(self, watched: Path | None) -> None:
        self._watched = watched
        self._seen = None if watched is None else _mark(watched)
        self._early = False
        self._terminals = [stream for stream in range(3) if os.isatty(stream)]
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._too_early)

    def _too_early(self) -> None:
        self._hung_up(self._remember)

    def _remember(self) -> None:
        self._early = True

    def _hung_up(self, again: Callable[[], None]) -> None:
        if self._terminals and not any(map(os.isatty, self._terminals)):
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            again()

    def follow(self, stack: contextlib.AsyncExitStack, again: Callable[[], None]) -> None:
        """There is somebody to play them: `again` is called for each, and now for those that came before. Until the
        stack ends.
        """
        running = asyncio.get_running_loop()
        running.add_signal_handler(signal.SIGHUP, self._hung_up, again)
        stack.callback(ending.heard_no_more, signal.SIGHUP)
        if self._early:
            again()
        if self._watched is not None:
            stack.callback(running.create_task(self._watch(again, self._watched)).cancel)

    async def _watch(self, again: Callable[[], None], path: Path) -> None:
        while True:
            now = _mark(path)
            if now not in (self._seen, None):  # editors take a file away for a moment before the new one is there
                self._seen = now
                again()
            await asyncio.sleep(WATCH_S)


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What is another when a file was written or replaced; None: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def nothing_to_read() -> None:
    """SIGHUP to a daemon that was started without a scenario: it goes on as it is, and says so."""
    logs.get("serve").warning("there is no scenario to read again: SIGHUP changes nothing")


def reload_from(load: Callable[[Scenario], None], path: Path, played: Played) -> None:
    """SIGHUP: the file is validated first; the old rules stay if it is bad."""
    log = logs.get("serve")
    try:
        scenario = load_again(path)
    except BadScenario as bad:
        played.last_error = str(bad)
        log.error("the scenario is bad, the old rules stay", problems=str(bad))  # noqa: TRY400 -- no trace wanted
        return
    load(scenario)
    played.file = str(path)
    log.info("scenario reloaded", file=str(path), rules=len(scenario.rules))


class BadScenario(ValueError):
    """The problems of a scenario file, as `check` prints them."""


def load_one(path: Path) -> Scenario:
    """The scenario of a file, or of the library. `BadScenario` with every problem of it."""
    from sim_sled.play import library  # noqa: PLC0415 -- most daemons play none

    loaded, problems = library.load([str(path)])
    if problems.errors or loaded[0].scenario is None:
        raise BadScenario(problems.text())
    return loaded[0].scenario


def load_again(path: Path) -> Scenario:
    """The same while a daemon runs. What is a pipe or a device by now is no file: waiting for it, all would stand."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise BadScenario(f"{path}: not a regular file")
    return load_one(path)


def _ports(daemon: Daemon, control: str | None) -> dict[str, Any]:
    beside = {sled_id: addresses.json for sled_id, addresses in daemon.listening.companion_addresses().items()}
    listed: list[dict[str, Any]] = [
        {"sled_id": str(sled_id), "address": address, **beside.get(sled_id, {})}
        for sled_id, address in daemon.addresses.items()
    ]
    first = {name: value for name, value in listed[0].items() if name != "sled_id"}
    return {"sleds": listed, **first, "control": control}


def _cannot_write(path: Path, error: OSError) -> int:
    print(f"sim-sled: cannot write {path}: {error.strerror}", file=sys.stderr)  # noqa: T201 -- see above
    return BAD_INPUT
