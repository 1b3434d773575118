"""`sim-sled import`: logs of an incident to a scenario that plays it (LG)."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nexus_client.dropshot.command_line import FAILED, GOOD
from nexus_client.dropshot.telling import fitted
from sim_sled.cli.surface import fail

if TYPE_CHECKING:
    from sim_sled.incident.importing import Imported

_BAR_FROM: Final = 20_000_000
"""Bytes below which nobody needs a bar."""


def import_command(
    logs: Annotated[
        list[str],
        typer.Argument(
            metavar="LOG...",
            help="Bunyan logs, as written or as printed (looker, bunyan), gzip, zip, tar (bundles), folders, or -",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="write the scenario here instead of stdout")] = None,
    name: Annotated[str | None, typer.Option(help="name of the scenario; the first file's if missing")] = None,
    day: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="for log forms that carry no date")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="only records from then on, e.g. 2026-08-24T09:00:00Z")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="only records until then")] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="exit 1 if the replay takes a VMM through other states than the logs"),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="print the summary, the differences and the scenario as JSON")
    ] = False,
) -> None:
    """Turn logs of sled agents, Propolis and Nexus into a scenario that plays the incident."""
    from sim_sled.incident.importing import ALWAYS, NothingFound, Window, import_logs

    on = _date(day)
    window = Window(
        ALWAYS.since_us if since is None else _time("--since", since),
        ALWAYS.until_us if until is None else _time("--until", until),
    )
    chosen = _name(name or Path(logs[0]).name.partition(".")[0])
    try:
        with _bar() as progress:
            found = import_logs(logs, chosen, on, progress, window)
    except NothingFound as nothing:
        fail(str(nothing))
    if out is not None:
        try:
            out.write_text(found.text, encoding="utf-8")
        except OSError as error:
            fail(f"cannot write {out}: {error.strerror}")
    code = FAILED if verify and found.differences else GOOD
    if json:
        sys.stdout.write(_as_json(found, out, verify=verify))
        raise typer.Exit(code)
    if out is None:
        sys.stdout.write(found.text)
    sys.stderr.write(fitted(found.summary, sys.stderr))
    for difference in found.differences:
        sys.stderr.write(fitted(f"  the replay differs: {difference}\n", sys.stderr))
    if verify and not found.differences:
        told = "verified: the replay takes every VMM through the states of the logs, in their order\n"
        sys.stderr.write(fitted(told, sys.stderr))
    if out is not None:
        sys.stderr.write(f"wrote {out}; to play it: sim-sled run {shlex.quote(str(out))}\n")
    raise typer.Exit(code)


def _as_json(found: Imported, out: Path | None, *, verify: bool) -> str:
    """`scenario`: its text, if it is in no file; `verified`: null, if nobody asked."""
    told = {
        "file": None if out is None else str(out),
        "summary": [line.strip() for line in found.summary.splitlines()],
        "differences": [str(each) for each in found.differences],
        "verified": not found.differences if verify else None,
        "scenario": found.text if out is None else None,
    }
    return dumps(told, indent=2) + "\n"


def _date(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        fail(f"--date is YYYY-MM-DD, not '{text}'")


def _time(option: str, text: str) -> int:
    """Microseconds since the epoch; a day alone is its beginning."""
    from sim_sled.incident.lines import parse_time

    try:
        return parse_time(text if len(text) > len("2026-08-24") else f"{text}T00:00:00Z")
    except ValueError:
        fail(f"{option} is a time like 2026-08-24T09:00:00Z, or a day, not '{text}'")


def _name(text: str) -> str:
    """A name of the language (E110), whatever the file is called."""
    return re.sub("[^a-z0-9-]+", "-", text.lower()).strip("-")[:63] or "imported"


@contextmanager
def _bar() -> Iterator[Callable[[Any, int, int], None] | None]:
    """A bar over the bytes of all files, on a terminal and for whatever is large."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None, visible=False)

        def told(source: Any, done: int, total: int) -> None:
            shown = source.shown.rpartition("/")[2][-30:]
            bar.update(task, completed=done, total=total, description=shown, visible=total >= _BAR_FROM)

        yield told
