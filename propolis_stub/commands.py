"""Commands of the Propolis stub."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, NoReturn

import attrs
import typer

from nexus_client.dropshot import telling
from nexus_client.dropshot.command_line import (
    ADDRESS_IN_USE,
    BAD_INPUT,
    CLOSED_ADDRESS,
    App,
    OneOf,
    Version,
    typed,
)
from nexus_client.dropshot.command_line import manual as text_of
from propolis_stub import diagram as drawing
from propolis_stub.pace_option import Pace

app = App(
    name="propolis-stub",
    help="A stub of propolis-server. This is not Propolis: no guest runs here.",
)


@app.callback()
def _root(_version: Version = False) -> None:
    pass


@app.command()
@typed(OneOf(("--write", "--driver"), "do not go together: a page says by its markers which of them it has"))
def diagram(
    write: Annotated[
        Path | None,
        typer.Option(help="refresh the blocks between `states` or `driver` markers of this page"),
    ] = None,
    driver: Annotated[bool, typer.Option("--driver", help="the driver's ways instead of the VM's states")] = False,
) -> None:
    """Print the state diagram as Mermaid, generated from the table."""
    if write is None:
        typer.echo(drawing.driver() if driver else drawing.states(), nl=False)
        return
    try:
        changed = drawing.write(write)
    except (OSError, ValueError) as problem:
        _give_up(f"{write}: {telling.reason(problem)}", BAD_INPUT)
    typer.echo(f"{write}: {'refreshed' if changed else 'already up to date'}")


@app.command()
def manual() -> None:
    """Print every command with all its options, and the exit codes, as Markdown."""
    typer.echo(text_of(app, "propolis-stub"), nl=False)


@app.command()
def serve(
    address: Annotated[str, typer.Argument(help="IP:PORT of the Propolis API, e.g. [::1]:0")],
    *,
    control: Annotated[
        str | None,
        typer.Option(metavar="ADDR", help="IP:PORT of the control API for tests; beyond loopback it needs a token"),
    ] = None,
    port_file: Annotated[Path | None, typer.Option(help="write the bound addresses here as JSON, once ready")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML: paces, hazards, control token")] = None,
    pace: Pace = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the bound addresses as JSON, once ready")] = False,
) -> None:
    """Serve one Propolis until SIGTERM or Ctrl-C: its end in order, with 0 or 130."""
    # Here, because aiohttp takes 0.3 s to import and `diagram` does not need it.
    from nexus_client.dropshot.bearer import require_token  # noqa: PLC0415
    from nexus_client.dropshot.text import SocketAddress  # noqa: PLC0415
    from propolis_stub.server import config_file as configuration  # noqa: PLC0415
    from propolis_stub.server import serve as serving  # noqa: PLC0415

    try:
        settings = configuration.Config() if config is None else configuration.load(config)
        if pace is not None:
            settings = attrs.evolve(settings, preset=pace)
        api = SocketAddress.typed(address)
        control_address = None if control is None else SocketAddress.typed(control)
        if control_address is not None:
            require_token(control_address, settings.token)
    except ValueError as problem:
        _give_up(str(problem), BAD_INPUT)
    except OSError as problem:
        _give_up(f"{config}: {telling.reason(problem)}", BAD_INPUT)
    try:
        raise typer.Exit(
            asyncio.run(serving.serve(api, control_address, settings, port_file, _json if as_json else _plain))
        )
    except OSError as problem:
        if problem.filename is not None:  # only files have names, and the port file's is one that is moved there
            _give_up(f"cannot write {port_file}: {problem.strerror}", BAD_INPUT)
        code = ADDRESS_IN_USE if problem.errno in CLOSED_ADDRESS else BAD_INPUT
        _give_up(f"cannot serve: {problem.strerror or problem}", code)


def _plain(bound: dict[str, str | None]) -> None:
    typer.echo(f"propolis-stub (not Propolis: no guest runs here) serves http://{bound['propolis']}")
    if bound["control"] is not None:
        typer.echo(f"control for tests on http://{bound['control']}/control")


def _json(bound: dict[str, str | None]) -> None:
    typer.echo(json.dumps(bound))


def _give_up(why: str, code: int) -> NoReturn:
    telling.say("propolis-stub", why)
    raise typer.Exit(code)
