"""`up`: starts a rack, in the foreground or behind.

Read before: cli/racks.py, cli/sled_options.py, daemon/front.py, daemon/workers.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TextIO

import typer
from msgspec import Struct

from nexus_client.dropshot.command_line import ADDRESS_IN_USE, BAD_INPUT, CLOSED_ADDRESS, Needs, typed
from nexus_client.dropshot.command_line import UNREACHABLE as NO_NEXUS
from nexus_client.dropshot.telling import fitted
from nexus_client.dropshot.text import peer_address
from propolis_stub.pace_option import Pace
from propolis_stub.presets import DEFAULT
from sim_sled import port_file as port_files
from sim_sled.cli.racks import UNNAMED, ToldAs, called, detached
from sim_sled.cli.scenario import in_library
from sim_sled.cli.sled_options import read_address, read_sled_address
from sim_sled.cli.surface import fail, say
from sim_sled.files import why_unwritable
from sim_sled.log_words import LogLevel
from sim_sled.machine import binding

if TYPE_CHECKING:
    import asyncio

    from sim_sled.antithesis import Assertions


class Guarded(NamedTuple):
    """Where the control API is, and who may use it."""

    address: str
    token: str | None
    hosts: tuple[str, ...]


@typed(
    Needs(("--junit", "--watch"), ("--scenario",)),
    Needs(("--log-file",), ("--detach",)),
    Needs(("--hung-after",), ("--workers",)),
)
def up(
    nexus: Annotated[
        str | None,
        typer.Option(metavar="ADDR", help="a Nexus's internal API (nexus:12221, or a URL); the model, if missing"),
    ] = None,
    sleds: Annotated[int, typer.Option(min=1, help="how many; more if the scenario's fleet has more")] = 1,
    scenario: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="rules, and the fleet's size", autocompletion=in_library),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="read the scenario again whenever its file changes")] = False,
    name: Annotated[str, typer.Option(metavar="RACK", help="ids and serials follow from it")] = UNNAMED,
    pace: Pace = "dev",
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**64 - 1, help="decides every draw; wins over the scenario's")
    ] = None,
    listen: Annotated[
        str,
        typer.Option(metavar="ADDR", callback=read_sled_address, help="where the sleds listen; several need port 0"),
    ] = "[::1]:0",
    control: Annotated[str, typer.Option(metavar="ADDR", callback=read_address, help="control API")] = "127.0.0.1:0",
    control_token: Annotated[str | None, typer.Option(envvar="SIM_SLED_TOKEN", help="needed beyond loopback")] = None,
    control_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a name that leads to the control API, beside localhost")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes that share the sleds")] = 1,
    hung_after: Annotated[
        str,
        typer.Option(metavar="DURATION|never", help="kill a worker that is silent for so long, and start it again"),
    ] = "2m",
    detach: Annotated[bool, typer.Option("--detach", help="return once it is ready; `down` ends it")] = False,
    port_file: Annotated[Path | None, typer.Option(help="write every address here as JSON as well")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print every address as JSON, not for people")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="info: the rare; debug: everything")] = LogLevel.WARNING,
    log_file: Annotated[
        Path | None, typer.Option(help="of --detach: its log goes here and stays; else `down` removes it")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="write every request, decision, report and timer here; `replay` plays it"),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="judge the scenario's expect: JUnit XML at the end, exit 1 if one failed")
    ] = None,
) -> None:
    """Start a rack of simulated sleds; alone it is a whole small rack with a model of Nexus to play with."""
    from sim_sled.daemon import racks as known

    if known.NAME.fullmatch(name) is None:
        fail(f"a rack's name is of a-z, 0-9 and '-', not {name!r}")
    if nexus is not None:
        try:
            nexus = peer_address(nexus)
        except ValueError as error:
            fail(f"--nexus: {error}")
    guarded = _guarded(control, control_token, control_host or ())
    hung_s = _hung_s(hung_after)
    if as_json and junit == Path("-"):
        fail("--json and --junit - both write to stdout; give --junit a file")
    if junit is not None and workers > 1:
        fail("--junit and --workers do not go together: no single process sees the whole rack")
    for each in (junit, port_file, log_file):  # at the end of a long run is too late
        if (why := why_unwritable(each)) is not None:
            fail(why)
    if log_file is not None and log_file.exists() and not log_file.is_file():
        fail(f"cannot write {log_file}: it is a device or a pipe, and a log is read again")
    if port_file is not None:
        try:
            port_files.prepare(port_file)
        except OSError as error:
            fail(f"cannot write {port_file}: {error.strerror or error}")
    told_as = _as_json if as_json else _banner
    if detach:
        raise typer.Exit(detached(name, sys.argv[1:], told_as, log_file))
    from sim_sled import logs
    from sim_sled.cli.recording import recorder_of
    from sim_sled.daemon import loop
    from sim_sled.daemon.small_rack import SmallRack
    from sim_sled.machine import assertions

    played = _scenario(scenario)
    small = SmallRack(
        name=name,
        sleds=sleds,
        nexus=nexus,
        scenario=played,
        seed=seed if seed is not None else (played and played.seed) or 0,
        pace=pace or DEFAULT,
        address=listen,
        record=recorder_of(record, scenario) if workers == 1 else None,
    )
    rack = small if workers == 1 else _shared_out(small, scenario, workers, log_level, record, hung_s)
    logs.configure(level=log_level.value)
    told = None if scenario is None else Told(scenario, junit, watch)
    with contextlib.ExitStack() as stack:
        antithesis = assertions()
        if antithesis is not None:
            stack.callback(antithesis.close)
        raise typer.Exit(loop.run(_serve(rack, guarded, port_file, told, told_as, antithesis)))


class Told(Struct, frozen=True):
    """The scenario as the person named it, where the verdict goes, and whether its file is watched."""

    scenario: str
    junit: Path | None
    watch: bool

    @property
    def path(self) -> Path:
        from sim_sled.play import library

        return Path(library.find(self.scenario)[0])


def _guarded(address: str, token: str | None, hosts: Sequence[str]) -> Guarded:
    """What is wrong with it is told before anything starts. Exits with 2."""
    from nexus_client.dropshot.bearer import BadToken, require_token, token_from
    from nexus_client.dropshot.text import SocketAddress

    try:
        require_token(SocketAddress.parse(address), token_from(token, None))
    except BadToken as bad:
        fail(str(bad))
    return Guarded(address, token, tuple(hosts))


def _hung_s(text: str) -> int | None:
    """Seconds of `--hung-after`."""
    from nexus_client.dropshot.durations import microseconds
    from sim_sled.daemon.pulse import HUNG_LEAST_S

    if text == "never":
        return None
    us = microseconds(text)
    if us is None or us < HUNG_LEAST_S * 1_000_000:
        fail(f"--hung-after is a duration from {HUNG_LEAST_S}s on, or never, not {text!r}")
    return int(us // 1_000_000)


def _shared_out(
    rack: Any, scenario: str | None, workers: int, log_level: LogLevel, record: Path | None, hung_s: int | None
) -> Any:
    """The same rack in several processes."""
    from sim_sled.cli.recording import folder_of_workers
    from sim_sled.daemon.small_rack import RackError
    from sim_sled.daemon.worker import Spec
    from sim_sled.daemon.workers import WorkersRack
    from sim_sled.play import library

    file = None if scenario is None else str(Path(library.find(scenario)[0]).absolute())
    try:
        spec = Spec(
            rack.name, rack.sleds_wanted, 1, 1, "", file, rack.seed, rack.pace, "", rack.address, log_level.value,
            record=folder_of_workers(record),
        )  # fmt: skip
        return WorkersRack(spec, workers, rack.nexus, hung_s, rack.names)
    except RackError as error:
        fail(str(error))


async def _control(rack: Any, control: Guarded, scaled: Any) -> Any:
    """Serves the control API of either kind of rack: it has an `address`, and `close()` ends it."""
    from nexus_client.dropshot.text import SocketAddress
    from sim_sled.daemon.control import Control, serve_control

    address = SocketAddress.parse(control.address)
    if not rack.shared_out:
        with binding("--control"):
            return await serve_control(Control(rack.daemon, control.token, control.hosts, scaled), address)
    from sim_sled.daemon.front import Front

    front = Front(rack.workers, control.token, control.hosts)
    with binding("--control"):
        await front.serve(address)
    return front


def _scenario(given: str | None) -> Any:
    from sim_sled.play import library

    if given is None:
        return None
    [found, *_], problems = library.load([given])
    if found.scenario is None:
        sys.stderr.write(fitted(problems.text(), sys.stderr))
        raise typer.Exit(BAD_INPUT)
    return found.scenario


async def _serve(
    rack: Any,
    control: Guarded,
    port_file: Path | None,
    told: Told | None,
    told_as: ToldAs,
    antithesis: Assertions | None,
) -> int:
    """Until SIGTERM (0) or SIGINT (130); 1 if something that was to be judged was not so."""
    from nexus_client.dropshot import ending
    from sim_sled.daemon import descriptors
    from sim_sled.daemon import racks as known
    from sim_sled.daemon.serve import Reload, conclude
    from sim_sled.daemon.small_rack import NotSoMany, RackError

    stop = ending.asked()
    reload = Reload(told.path if told is not None and told.watch else None)
    try:
        with known.claimed(rack.name) as file:
            try:
                descriptors.allow(rack.sleds_wanted)
                with binding("--listen"):
                    if not await ending.unless(stop, rack.start()):
                        return stop.result()
            except RackError as error:
                say(str(error))
                return BAD_INPUT if isinstance(error, NotSoMany) else NO_NEXUS
            judging = _judging(rack, told, antithesis)
            if judging is not None and told is not None and told.junit is not None:
                known.ends_with(rack.name, None)
            try:
                async with contextlib.AsyncExitStack() as stack:
                    reload.follow(stack, _reading(rack, told))
                    if antithesis is not None:  # every sled is registered
                        antithesis.set_up(program="up", sleds=len(rack.handles))
                    # stdout is for whatever reads the verdict there
                    beside = sys.stderr if told is not None and told.junit == Path("-") else sys.stdout
                    code = await _ready(rack, control, file, port_file, stop, told_as, beside)
            finally:
                if judging is not None:
                    judging.ending()
                await rack.stop()
                for each in rack.left_over:
                    say(f"not told to Nexus: {each.propolis_id} {each.state}: {each.why}")
            if judging is not None and told is not None and told.junit is not None:
                code = max(code, conclude(judging, told.scenario, told.junit))
                known.ends_with(rack.name, code)
            elif judging is not None:
                judging.result()
            return code
    except known.NameTaken as error:
        fail(f"{error}; give another --name, or sim-sled down {rack.name}")
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        if error.filename is not None:  # only files have names
            say(f"cannot write {error.filename}: {error.strerror}")
            return BAD_INPUT
        say(error.strerror or str(error))
        return ADDRESS_IN_USE if error.errno in CLOSED_ADDRESS else BAD_INPUT


def _reading(rack: Any, told: Told | None) -> Callable[[], None]:
    """What reads the rules of a rack again."""
    from functools import partial

    from sim_sled.daemon.serve import nothing_to_read, reload_from

    if told is None:
        return nothing_to_read
    if rack.shared_out:
        return partial(rack.workers.read_again, told.path)
    return partial(reload_from, rack.load, told.path, rack.daemon.played)


async def _ready(
    rack: Any,
    control: Guarded,
    file: Path,
    port_file: Path | None,
    stop: asyncio.Future[int],
    told_as: ToldAs,
    beside: TextIO,
) -> int:
    """Serves the control API and says where everything is, until it is to end. `file` and `port_file` follow
    whatever joins or leaves.
    """
    from nexus_client.dropshot import collector, service
    from nexus_client.dropshot.port_file import told_in
    from sim_sled.daemon import racks as known

    tellers: list[Callable[[], None]] = []

    async def scaled(sleds: int) -> None:
        try:
            await rack.scale(sleds)
        finally:  # some may have come, or gone, all the same
            for tell in tellers:
                _tell_again(tell)

    listener = await _control(rack, control, scaled)
    try:
        addresses = addresses_of(rack, listener.address)
        known.publish(file, addresses)
        with told_in(port_file, _as_json(addresses)) as tell_file:
            tellers += [
                lambda: known.publish(file, addresses_of(rack, listener.address)),
                lambda: tell_file(_as_json(addresses_of(rack, listener.address))),
            ]
            beside.write(told_as(addresses))
            beside.flush()
            collector.started()
            service.tell("READY=1")
            code = await stop
            service.tell("STOPPING=1")
            return code
    finally:
        await listener.close()


def _tell_again(tell: Callable[[], None]) -> None:
    """Where everything is by now; who has asked for sleds has them, whether that can be written or not."""
    from sim_sled import logs

    try:
        tell()
    except OSError as error:
        why = error.strerror
        logs.get("up").warning("cannot write where the sleds are by now", file=error.filename, why=why)


def _judging(rack: Any, told: Told | None, antithesis: Assertions | None) -> Any:
    """Says what is not done of the scenario; the judge, if there is to be one. Each worker has its own."""
    if rack.shared_out:
        return None
    judged = antithesis is not None or (told is not None and told.junit is not None)
    if told is not None:
        from sim_sled.daemon.serve import say_what_is_left_out

        rack.daemon.played.file = told.scenario
        say_what_is_left_out(rack.daemon, model=rack.server is not None, judged=judged)
    if not judged:
        return None
    from sim_sled.daemon.judging import Judging

    host = None if rack.server is None else rack.server.host
    return Judging(rack.daemon, rack.daemon.engine.scenario, rack.seed, host, assertions=antithesis)


def addresses_of(rack: Any, control: str) -> dict[str, Any]:
    """What the port file says: every address of the rack."""
    sleds = [
        {"sled_id": str(each.id), "name": each.name, "serial": each.serial, "address": each.address}
        for each in rack.handles
    ]
    found = {"name": rack.name, "pid": os.getpid(), "control": control, "nexus": rack.nexus, "sleds": sleds}
    if rack.server is not None:
        found |= {"model": {"internal": rack.server.internal, "lockstep": rack.server.lockstep}}
        found["model"]["control"] = rack.server.control
    return found


def _as_json(addresses: dict[str, Any]) -> str:
    return json.dumps(addresses, indent=2) + "\n"


def _banner(addresses: dict[str, Any]) -> str:
    lines = [f"{called(addresses['name'])} is ready (simulated sleds; nothing runs here)"]
    model = addresses.get("model")
    if model is None:
        lines.append(f"  nexus    {addresses['nexus']}")
    else:
        lines.append(f"  nexus    http://{model['internal']}  (a model: this is not Nexus)")
        lines.append(f"  users    http://{model['control']}")
        lines.append(f'  try      curl -g http://{model["control"]}/v1/instances --json \'{{"name": "web"}}\'')
    lines.append(f"  control  http://{addresses['control']}")
    lines.append(f"  page     http://{addresses['control']}/page")
    if "log" in addresses:
        lines.append(f"  log      {addresses['log']}")
        lines.append(f"  end      sim-sled down {shlex.quote(addresses['name'])}")
    lines += [f"  {each['name']:8} http://{each['address']}  {each['sled_id']}" for each in addresses["sleds"][:16]]
    if len(addresses["sleds"]) > 16:
        lines.append(f"  ... and {len(addresses['sleds']) - 16} more (sim-sled racks --json)")
    return "\n".join(lines) + "\n"
