"""`sim-sled serve`: sleds in the foreground, with the arguments of the original `sled-agent-sim`.

Read before: cli/rss.py, cli/sled_options.py. Read next: cli/main.py.
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from nexus_client.dropshot.command_line import BAD_INPUT, SECONDS_MAX, Idle, Needs, taking, typed
from nexus_client.dropshot.telling import fitted
from propolis_stub.pace_option import Pace
from sim_sled.cli import rss
from sim_sled.cli.scenario import in_library
from sim_sled.cli.sled_options import parse_also, read_address, read_hardware, read_peer, read_sled_address
from sim_sled.cli.surface import fail
from sim_sled.files import why_unwritable
from sim_sled.log_words import LogFormat, LogLevel

if TYPE_CHECKING:
    from sim_sled.core.config import SledConfig
    from sim_sled.core.handoff.wishes import Wishes

_STOP_GRACE_S: Final = 600.0
"""The real agent's."""


class Mode(Enum):
    """The words of `core.config.SimMode`: the other commands and `--help` import neither."""

    AUTO = "auto"
    EXPLICIT = "explicit"


class PropolisName(Enum):
    """Those of `daemon.propolis_mode.PropolisMode`."""

    NONE = "none"
    LOOPBACK = "loopback"
    REGISTERED = "registered"


PortFile = Annotated[Path | None, typer.Option(help="write the bound addresses here as JSON, once ready")]
Format = Annotated[LogFormat, typer.Option(help="human on a terminal, Bunyan lines otherwise")]


@taking("asked", rss.Options)
@typed(
    Needs(("--plays", "--junit", "--watch"), ("--scenario",)),
    Needs(("--propolis-net",), ("--propolis",)),
    Idle(("--propolis-net",), "--propolis none"),
)
def serve(
    sled_id: Annotated[UUID, typer.Argument(metavar="SLED_UUID")],
    sled_addr: Annotated[
        str, typer.Argument(metavar="SLED_ADDR", callback=read_sled_address, help="[::1]:0 picks a port")
    ],
    nexus_addr: Annotated[
        str,
        typer.Argument(
            metavar="NEXUS_ADDR", callback=read_peer, help="Nexus internal API: address, name:port or URL"
        ),
    ],
    nexus_lockstep_port: Annotated[
        int | None,
        typer.Argument(
            metavar="NEXUS_LOCKSTEP_PORT", min=0, max=65535, help="with --rss-* options the rack is handed over there"
        ),
    ] = None,
    *,
    sim_mode: Annotated[Mode, typer.Option(help="auto: timers carry out requests; explicit: pokes do")] = Mode.AUTO,
    also: Annotated[
        list[str] | None, typer.Option(metavar="UUID=ADDR", help="one more sled in this process (repeatable)")
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="NAME|FILE", help="rules; SIGHUP reads them again", autocompletion=in_library),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="read the scenario again whenever its file changes")] = False,
    junit: Annotated[
        Path | None, typer.Option(help="judge the scenario's expect: JUnit XML at the end, exit 1 if one failed")
    ] = None,
    plays: Annotated[str | None, typer.Option(help="which sled of the scenario's fleet this one is")] = None,
    pace: Pace = None,
    seed: Annotated[int | None, typer.Option(help="decides every draw; wins over the scenario's")] = None,
    hardware: Annotated[Path | None, typer.Option(help="TOML or JSON file with the sled's hardware")] = None,
    hardware_threads: Annotated[int | None, typer.Option(min=1, help="hyperthreads of its CPUs")] = None,
    physical_ram: Annotated[str | None, typer.Option(metavar="SIZE", help="like 64GiB")] = None,
    reservoir_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="like 32GiB; smaller than the RAM")
    ] = None,
    zpools: Annotated[int | None, typer.Option(min=0, help="how many, a U.2 disk each")] = None,
    zpool_size: Annotated[str | None, typer.Option(metavar="SIZE", help="like 1TiB")] = None,
    cpu_family: Annotated[str | None, typer.Option(help="amd_milan, amd_turin, amd_turin_dense, unknown")] = None,
    role: Annotated[str | None, typer.Option(help="gimlet or scrimlet")] = None,
    baseboard_model: Annotated[str | None, typer.Option(help="as its inventory names it")] = None,
    baseboard_serial: Annotated[str | None, typer.Option(help="by which Nexus knows the hardware")] = None,
    baseboard_revision: Annotated[int | None, typer.Option(min=0, help="of the board")] = None,
    repo_depot_port: Annotated[
        int, typer.Option(min=0, max=65535, help="where the depot listens; 0: 12348, or any port on loopback")
    ] = 0,
    companions: Annotated[
        bool | None,
        typer.Option(
            help="Crucible agents, a pantry, a depot, a DNS server beside each sled; default: up to 32 sleds"
        ),
    ] = None,
    max_vcpus: Annotated[
        int | None, typer.Option(min=1, help="refuse larger VMMs; the original's limit is 16")
    ] = None,
    enforce_capacity: Annotated[bool, typer.Option(help="refuse what exceeds threads or reservoir")] = False,
    refuse_repeated_target: Annotated[
        bool, typer.Option(help="400 for a second migration_target of a VMM, as sled-agent-sim; the agent: 200")
    ] = False,
    propolis: Annotated[
        PropolisName, typer.Option(help="serve each VMM's Propolis API: not at all, on port 0, or where Nexus says")
    ] = PropolisName.NONE,
    propolis_net: Annotated[
        list[str] | None,
        typer.Option(metavar="NET", help="where Nexus may let one listen, beside loopback and the sled's prefix"),
    ] = None,
    stop_grace: Annotated[
        float | None,
        typer.Option(min=0, max=SECONDS_MAX, help="seconds until the agent ends a stop; else the scenario's, or 600"),
    ] = None,
    poke_timeout: Annotated[
        float, typer.Option(min=0, max=SECONDS_MAX, help="seconds a poke waits for Nexus")
    ] = 15.0,
    strict: Annotated[
        bool, typer.Option(help="refuse what a real sled refuses and the existing simulator does not")
    ] = False,
    state_dir: Annotated[
        Path | None, typer.Option(help="keep configurations, artifacts and bundles here over restarts")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="write every request, decision, report and timer here; `replay` plays it"),
    ] = None,
    accept_newer_api: Annotated[bool, typer.Option(help="take a newer api-version for the newest known")] = False,
    control: Annotated[str, typer.Option(metavar="ADDR", callback=read_address, help="control API")] = "[::1]:0",
    control_token: Annotated[str | None, typer.Option(envvar="SIM_SLED_TOKEN", help="needed beyond loopback")] = None,
    control_token_file: Annotated[Path | None, typer.Option(help="its first line is the token")] = None,
    control_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="a name that leads to the control API, beside localhost"),
    ] = None,
    nexus_wait: Annotated[
        float | None, typer.Option(min=0, max=SECONDS_MAX, help="exit 3 if not registered after so many seconds")
    ] = None,
    shutdown_wait: Annotated[
        float, typer.Option(min=0, max=SECONDS_MAX, help="seconds to deliver what waits on SIGTERM")
    ] = 5.0,
    port_file: PortFile = None,
    log_format: Format = LogFormat.AUTO,
    log_level: Annotated[LogLevel, typer.Option(help="debug: a line per transition")] = LogLevel.INFO,
    as_json: Annotated[bool, typer.Option("--json", help="print the bound addresses as JSON, once ready")] = False,
    asked: rss.Options,
) -> None:
    """Serve one sled (or more, with --also) until SIGTERM."""
    import attrs

    from sim_sled import logs
    from sim_sled.cli.recording import recorder_of
    from sim_sled.core.config import RECHECK_US, SECOND_US, SimMode, SledConfig
    from sim_sled.daemon import serve as serving
    from sim_sled.daemon.options import Options
    from sim_sled.daemon.propolis_mode import PropolisMode
    from sim_sled.language.pacer import PresetPacer

    wishes = asked.wishes(nexus_addr, nexus_lockstep_port or 0)
    logs.configure(log_format, log_level.value)
    flags = {
        "hardware_threads": hardware_threads,
        "physical_ram": physical_ram,
        "reservoir_size": reservoir_size,
        "zpools": zpools,
        "zpool_size": zpool_size,
        "cpu_family": cpu_family,
        "role": role,
        "baseboard_model": baseboard_model,
        "baseboard_serial": baseboard_serial,
        "baseboard_revision": baseboard_revision,
    }
    made = read_hardware(hardware, flags, sled_id, sled_addr)
    sleds = [
        SledConfig(
            sled_id=each,
            address=address,
            mode=SimMode(sim_mode.value),
            hardware=made,
            repo_depot_port=repo_depot_port,
            stop_grace_us=int((_STOP_GRACE_S if stop_grace is None else stop_grace) * SECOND_US),
            recheck_us=RECHECK_US,
            poke_timeout_us=int(poke_timeout * SECOND_US),
            max_vcpus=max_vcpus,
            enforce_capacity=enforce_capacity,
            refuse_repeated_target=refuse_repeated_target,
            strict=strict,
        )
        for each, address in [(sled_id, sled_addr), *map(parse_also, also or [])]
    ]
    if len({sled.sled_id for sled in sleds}) != len(sleds):
        fail("two sleds have the same id")
    beside = len(sleds) <= rss.SLEDS_BESIDE_MAX if companions is None else companions
    engine = None
    if scenario is not None:
        engine = _engine(scenario, seed, plays, pace, sleds)
        if hardware is None:
            sleds = shaped(sleds, engine, flags)
        if stop_grace is None:
            sleds = [attrs.evolve(sled, stop_grace_us=engine.scenario.agent.stop_grace) for sled in sleds]
    if (why := why_unwritable(junit)) is not None:
        fail(why)
    if pace == "dev" and scenario is None:
        logs.get("serve").info("--pace dev is `latency: dev` now; a real rack's times, its old ones, are --pace rack")
    pacer = PresetPacer(pace or "sim", seed or 0)
    options = Options(
        engine=engine,
        nexus=nexus_addr,
        pacer=pacer,
        sled_pacer=pacer,
        pace=pace,
        state_dir=state_dir,
        seed=engine.seed if engine is not None else seed or 0,
        accept_newer_api=accept_newer_api,
        shutdown_wait_s=shutdown_wait,
        propolis=PropolisMode(propolis.value),
        propolis_nets=tuple(map(_net, propolis_net or ())),
        companions=rss.ports(wishes, sleds) if beside else None,
    )
    if wishes is not None:
        sleds = _handing_over(wishes, sleds, beside=beside, role_given=role is not None)
    how = serving.ServeOptions(
        control=control,
        token=_token(control_token, control_token_file),
        control_hosts=tuple(control_host or ()),
        port_file=port_file,
        as_json=as_json,
        nexus_wait_s=nexus_wait,
        scenario=scenario,
        watch=watch,
        junit=junit,
        handoff=wishes if wishes is not None and wishes.lockstep_port else None,
        recorder=recorder_of(record, None if scenario is None else str(scenario)),
    )
    raise typer.Exit(serving.run(sleds, options, how))


def _handing_over(wishes: Wishes, sleds: list[SledConfig], *, beside: bool, role_given: bool) -> list[SledConfig]:
    """The sleds of a rack that is handed over, which was tried out; exits with 2 if that cannot be. `beside`: there
    are servers beside the sleds.
    """
    if not wishes.lockstep_port:
        # the original takes them whatever it is told of the port, and its how-to gives none
        from sim_sled import logs

        logs.get("serve").info("no NEXUS_LOCKSTEP_PORT: nothing is handed over, --rss-* only say what is where")
        return sleds
    if not wishes.nexus_internal.startswith("[") and not wishes.nexus_internal[0].isdigit():
        fail(f"NEXUS_ADDR {wishes.nexus_internal!r}: a rack that is handed over is told of addresses, not of names")
    if not beside:
        fail("--no-companions, but a rack that is handed over has Crucible agents and a pantry")
    sleds = rss.two_scrimlets(sleds, given=role_given)
    rss.try_out(wishes, sleds)
    return sleds


def _net(text: str) -> Any:
    from nexus_client.dropshot.text import IpNet

    try:
        return IpNet.parse(text)
    except ValueError as bad:
        fail(f"--propolis-net {text!r}: {bad}")


def _token(text: str | None, file: Path | None) -> str | None:
    from nexus_client.dropshot.bearer import BadToken, token_from

    try:
        return token_from(text, file)
    except BadToken as bad:
        fail(str(bad))


def shaped(sleds: list[Any], engine: Any, flags: dict[str, Any]) -> list[Any]:
    """Sleds made as the scenario's fleet says, if it does; options win over it."""
    import attrs

    from sim_sled.language.check import sleds_of
    from sim_sled.play.fleet import hardware_of, is_shaped

    fleet = engine.scenario.fleet
    if not is_shaped(fleet):
        return sleds
    shapes = {each.name: hardware_of(each.shape) for each in sleds_of(fleet)}
    found = []
    for sled in sleds:
        made = shapes[engine.cast.by_id[sled.sled_id].name]
        of_fleet = {name: getattr(made, name) for name in OF_A_SHAPE if flags[name] is None}
        found.append(attrs.evolve(sled, hardware=attrs.evolve(sled.hardware, **of_fleet)))
    return found


OF_A_SHAPE: Final = (
    "hardware_threads", "physical_ram", "reservoir_size", "zpools", "cpu_family", "role", "baseboard_model"
)  # fmt: skip
"""Options of the hardware that `fleet.shape` has, too."""


def _engine(path: Path, seed: int | None, plays: str | None, pace: str | None, sleds: list[Any]) -> Any:
    """The rules of a scenario, for these sleds. Exits with 2 and every problem of the file."""
    from sim_sled.daemon.serve import BadScenario, load_one
    from sim_sled.language.schema import paced
    from sim_sled.play.fleet import NotInFleet, engine_for

    try:
        loaded = paced(load_one(path), pace)
        chosen = seed if seed is not None else loaded.seed or 0
        return engine_for(loaded, chosen, [sled.sled_id for sled in sleds], plays)
    except NotInFleet as bad:
        fail(str(bad))
    except BadScenario as bad:
        sys.stderr.write(fitted(f"{str(bad).rstrip()}\n", sys.stderr))
        raise typer.Exit(BAD_INPUT) from None
