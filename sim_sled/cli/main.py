"""The `sim-sled` command. Heavy modules are imported by the command that needs them: `--help` stays quick.

Read before: cli/serve.py.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from nexus_client.dropshot.command_line import App, Version
from sim_sled.cli import asking, racks, scenario
from sim_sled.cli.api import api
from sim_sled.cli.bench import bench
from sim_sled.cli.handoff import handoff
from sim_sled.cli.nexus import nexus
from sim_sled.cli.serve import serve
from sim_sled.cli.up import up

_HEADINGS: Final = {
    "A rack": (
        "tour", "up", "ps", "why", "log", "expect", "wait", "events", "page", "inject", "release", "rules", "fire",
        "scale", "pause", "step", "until", "resume", "snapshot", "restore", "racks", "port", "ready", "down",
    ),
    "Scenarios": ("scenario", "check", "run", "explain", "explore", "shrink", "replay", "tape", "import"),
    "Servers, and what they serve": ("serve", "nexus", "handoff", "api", "bench"),
    "This program": ("docs", "manual", "version"),
}  # fmt: skip

app = App(
    headings=_HEADINGS,
    name="sim-sled",
    help="A simulated Oxide sled agent with a Propolis emulator. It is not a sled, and its Nexus is not Nexus.",
    pretty_exceptions_enable=False,
)


@app.callback()
def _program(_version: Version = False) -> None:
    pass


app.command()(serve)
app.command()(nexus)
app.command()(api)
app.command()(handoff)
asking.add_to(app)
scenario.add_to(app)
app.command()(up)
racks.add_to(app)
app.command()(bench)


@app.command()
def tour() -> None:
    """Watch two sleds and the model of Nexus at work, on loopback sockets."""
    import asyncio

    from sim_sled.cli import tour as guided

    raise typer.Exit(asyncio.run(guided.run()))


@app.command()
def version() -> None:
    """Print the version."""
    from nexus_client.dropshot.command_line import installed

    typer.echo(installed())


def in_docs(incomplete: str) -> list[str]:
    """Names of pages for the shell's completion."""
    from sim_sled.cli.docs import files

    return [page for page in files() if page.startswith(incomplete)]


@app.command()
def docs(
    page: Annotated[
        str | None, typer.Argument(help="as the list has it, e.g. daemon", autocompletion=in_docs)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the pages of the documentation, or read one of them; README is where to begin."""
    from sim_sled.cli.docs import print_docs

    print_docs(page, as_json=json)


@app.command()
def manual() -> None:
    """Print every command with all its options, and the exit codes, as Markdown."""
    from nexus_client.dropshot.command_line import manual as text_of

    typer.echo(text_of(app, "sim-sled"), nl=False)
