"""Command line of the Propolis stub: `python -m propolis_stub`, installed as `propolis-stub`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from propolis_stub import diagram as drawing

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="A stub of propolis-server. This is not Propolis: no guest runs here.",
)


@app.callback()
def _root() -> None:
    pass


@app.command()
def diagram(
    write: Annotated[
        Path | None, typer.Option(help="Refresh the block between the `states` markers of this Markdown file.")
    ] = None,
) -> None:
    """Print the state diagram as Mermaid, generated from the table."""
    if write is None:
        typer.echo(drawing.mermaid(), nl=False)
        return
    try:
        changed = drawing.write(write)
    except (OSError, ValueError) as problem:
        typer.echo(f"{write}: {problem}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{write}: {'refreshed' if changed else 'already up to date'}")


def main() -> None:
    """Entry point of the `propolis-stub` script."""
    app(prog_name="propolis-stub")


if __name__ == "__main__":
    main()
