"""`sim-sled nexus`: the model of Nexus as a server. It is not Nexus, and says so wherever it shows itself."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nexus_client.dropshot import ending
from nexus_client.dropshot.command_line import ADDRESS_IN_USE, BAD_INPUT, FAILED, GOOD, SECONDS_MAX, Alone, typed
from sim_sled import port_file as port_files
from sim_sled.cli.surface import fail, say
from sim_sled.language.files import TooLong, read_bounded, read_stdin
from sim_sled.machine import assertions, cannot_bind

if TYPE_CHECKING:
    from nexus_client.stub.server.host import Host

ROWS_MAX = 512 * 2**20
"""Bytes of records to migrate."""

MIGRATE_RECORDS = "migrate-records"


class Rules(Enum):
    R5854 = "5854"
    R5855 = "5855"
    R5749 = "5749"
    R6455 = "6455"
    HEAD = "head"
    R11294 = "11294"


class HazardName(Enum):
    PANIC_WITHOUT_TARGET = "panic_without_target"
    LATE_HALF_STOPS_FAILED = "late_half_stops_failed"
    START_OVERRULES_STOP = "start_overrules_stop"
    RESERVATION_LAGS = "reservation_lags"
    STOP_LOST_IN_MIGRATION = "stop_lost_in_migration"
    CHECKS_WHAT_IS_OVER = "checks_what_is_over"
    FAILS_UNREGISTERED = "fails_unregistered"
    NONE = "none"


class SagaModeName(Enum):
    INLINE = "inline"
    QUEUED = "queued"
    BACKGROUND = "background"


class UnknownVmmName(Enum):
    RULES = "rules"
    IGNORE = "ignore"
    ADOPT = "adopt"


@typed(Alone("ADDR|migrate-records", MIGRATE_RECORDS, ("ROWS", "--json")))
def nexus(
    address: Annotated[
        str, typer.Argument(metavar="ADDR|migrate-records", help="internal API, for sleds; [::1]:0 picks a port")
    ],
    rows: Annotated[
        Path | None,
        typer.Argument(metavar="ROWS", help="for migrate-records: JSON rows; default stdin"),
    ] = None,
    *,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="ADDR", help="control API: instances, sleds, faults; loopback of ADDR's kind if missing"
        ),
    ] = None,
    control_token: Annotated[str | None, typer.Option(envvar="SIM_SLED_TOKEN", help="needed beyond loopback")] = None,
    control_token_file: Annotated[Path | None, typer.Option(help="its first line is the token")] = None,
    control_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="a name that leads to the control API, beside localhost"),
    ] = None,
    lockstep: Annotated[
        str | None, typer.Option(metavar="ADDR", help="lockstep API; at ADDR's host if missing")
    ] = None,
    rules: Annotated[Rules, typer.Option(help="which Nexus's rules")] = Rules.HEAD,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="a Nexus that is wrong on purpose (sim-sled docs nexus-model)")
    ] = None,
    hazard: Annotated[
        list[HazardName] | None,
        typer.Option(
            metavar="NAME",
            help=f"a known wrong to play; given once, only those named: {', '.join(h.value for h in HazardName)}",
        ),
    ] = None,
    db: Annotated[Path | None, typer.Option(help="keep records and sagas in this SQLite file")] = None,
    saga_mode: Annotated[SagaModeName, typer.Option(help="when sagas run")] = SagaModeName.INLINE,
    unknown_vmm: Annotated[
        UnknownVmmName,
        typer.Option(help="a report about a VMM without record: rules (500 at head), ignore, or make a record of it"),
    ] = UnknownVmmName.ADOPT,
    sled_api_version: Annotated[str, typer.Option(help="api-version sent to sleds")] = "48.0.0",
    sled_timeout: Annotated[
        float, typer.Option(min=0.1, max=SECONDS_MAX, help="seconds for each call to a sled")
    ] = 60.0,
    watcher_period: Annotated[
        float, typer.Option(min=0.1, max=SECONDS_MAX, help="seconds between two looks at the VMMs on sleds")
    ] = 30.0,
    updater_period: Annotated[
        float, typer.Option(min=0.1, max=SECONDS_MAX, help="seconds between two looks for instances to update")
    ] = 30.0,
    reaper_period: Annotated[
        float, typer.Option(min=0.1, max=SECONDS_MAX, help="seconds between two looks for VMMs that are over")
    ] = 60.0,
    reincarnation_period: Annotated[
        float, typer.Option(min=0.1, max=SECONDS_MAX, help="seconds between two looks for instances to restart")
    ] = 60.0,
    cooldown: Annotated[
        float, typer.Option(min=0, max=SECONDS_MAX, help="seconds between two automatic restarts")
    ] = 300.0,
    seed: Annotated[int, typer.Option(help="decides every id")] = 0,
    port_file: Annotated[Path | None, typer.Option(help="write the bound addresses here as JSON, once ready")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the bound addresses as JSON, once ready")] = False,
) -> None:
    """Serve a model of Nexus for sleds to talk to. This is not Nexus.

    `sim-sled nexus migrate-records [ROWS]` prints instance and VMM rows of before omicron#5854 as they are after it.
    """
    if address == MIGRATE_RECORDS:
        raise typer.Exit(_migrate_records(rows))
    if rows is not None:
        fail(f"{rows} is given, but rows go with {MIGRATE_RECORDS}")
    from nexus_client.dropshot.bearer import token_from
    from nexus_client.stub.config import SECOND_US, Config, SagaMode, UnknownVmm
    from nexus_client.stub.hazards import DEFAULT, Hazard
    from nexus_client.stub.rules import RuleSet
    from nexus_client.stub.server.serve import NexusServer

    cannot_be: tuple[type[Exception], ...] = (ValueError, KeyError)
    if db is not None:
        from nexus_client.stub.server.store import StoreFailed

        cannot_be += (StoreFailed,)

    def us(seconds: float) -> int:
        return int(seconds * SECOND_US)

    config = Config(
        rules=RuleSet(rules.value),
        variant=variant,
        hazards=DEFAULT if not hazard else frozenset(Hazard(h.value) for h in hazard if h is not HazardName.NONE),
        saga_mode=SagaMode(saga_mode.value),
        unknown_vmm=UnknownVmm(unknown_vmm.value),
        watcher_period_us=us(watcher_period),
        updater_period_us=us(updater_period),
        reaper_period_us=us(reaper_period),
        reincarnation_period_us=us(reincarnation_period),
        cooldown_us=us(cooldown),
    )
    try:
        server = NexusServer(
            address,
            lockstep=lockstep if lockstep is not None else beside(address, port=0),
            control=control if control is not None else loopback_beside(address),
            config=config,
            seed=seed,
            sled_api_version=sled_api_version,
            sled_timeout_s=sled_timeout,
            control_token=token_from(control_token, control_token_file),
            control_hosts=tuple(control_host or ()),
            db=db,
        )
    except cannot_be as error:
        fail(str(error.args[0]))
    if port_file is not None:
        try:
            port_files.prepare(port_file)
        except OSError as error:
            fail(f"cannot write {port_file}: {error.strerror or error}")
    import asyncio

    from nexus_client.dropshot.descriptors import raise_open_files

    raise_open_files()
    with contextlib.ExitStack() as stack:
        tell_antithesis(server.host, stack)
        raise typer.Exit(asyncio.run(_serve(server, port_file, as_json=as_json)))


def tell_antithesis(host: Host, stack: contextlib.ExitStack) -> None:
    """An Antithesis environment hears what becomes of this model, until the stack ends."""
    told = assertions()
    if told is not None:
        from sim_sled.antithesis import declare_model, tell_model

        stack.callback(told.close)
        declare_model(told)
        host.on_happened = partial(tell_model, told)


def beside(address: str, *, port: int) -> str:
    """Another port of the same host; an address that is none is told of by whoever binds it."""
    return f"{address.rpartition(':')[0]}:{port}"


def loopback_beside(address: str) -> str:
    """Any port of this machine alone, of the kind of `address`: some machines have no IPv6."""
    return "[::1]:0" if address.startswith("[") else "127.0.0.1:0"


def _migrate_records(rows: Path | None) -> int:
    from nexus_client.stub.migrate_records import MigrationError, migrate

    try:
        raw = read_stdin(ROWS_MAX) if rows is None else read_bounded(rows, ROWS_MAX)
        sys.stdout.write(migrate(raw).decode() + "\n")
    except TooLong:
        say(f"{rows or 'standard input'}: more than {ROWS_MAX // 2**20} MiB")
        return BAD_INPUT
    except OSError as error:
        say(f"{rows}: {error.strerror}")
        return BAD_INPUT
    except MigrationError as error:
        for problem in error.problems:
            say(f"{rows or 'standard input'}: {problem}")
        return BAD_INPUT
    return GOOD


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print_json(addresses: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()


async def _serve(server: object, port_file: Path | None, *, as_json: bool) -> int:

    from nexus_client.stub.server.serve import NexusServer, serve

    assert isinstance(server, NexusServer)
    stop = ending.asked()
    try:
        await serve(server, port_file=port_file, say=_say, stop=stop, ready=_print_json if as_json else None)
    except OSError as error:
        if error.filename is not None:  # only files have names
            say(f"cannot write {port_file}: {error.strerror}")
            return BAD_INPUT
        say(f"{cannot_bind(error)} (ADDR, --control or --lockstep)")
        return ADDRESS_IN_USE if error.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL} else BAD_INPUT
    except AssertionError as error:
        from nexus_client.stub.server.store import StoreFailed

        if not isinstance(error, StoreFailed):
            raise
        # what cannot be kept must not be told either: a full disk ends a model as it ends a database
        say(str(error))
        return FAILED
    return stop.result()
