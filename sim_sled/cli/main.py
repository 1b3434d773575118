"""The `sim-sled` command. Heavy modules are imported by the command that needs them: `--help` stays quick.

Read before: cli/serve.py.
"""

from __future__ import annotations

from typing import Final

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
    "This program": ("docs", "version"),
}  # fmt: skip

app = App(
    headings=_HEADINGS,
    name="sim-sled",
    help="A simulated Oxide sled agent with a Propolis emulator. It is not a sled, and its Nexus is not Nexus.",
    no_args_is_help=True,
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


@app.command()
def docs() -> None:
    """Print every command with all its options, and the exit codes, as Markdown."""
    from nexus_client.dropshot.command_line import manual

    typer.echo(manual(app, "sim-sled"), nl=False)
