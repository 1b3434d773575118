"""`sim-sled api`: what of the Sled Agent API is served here, and whether a JSON has the shape that a version wants.

Read before: http/coverage.py, shapes/check.py.
"""

from __future__ import annotations

import json
import re
import sys
from enum import Enum
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from nexus_client.dropshot import foreign
from nexus_client.dropshot.command_line import FAILED, GOOD, Needs, typed
from sim_sled.cli.surface import fail

STDIN_MAX = 16 * 1024 * 1024
"""Bytes: sixteen times what a sled takes."""


class Part(Enum):
    REQUEST = "request"
    ANSWER = "answer"


@typed(Needs(("--part",), ("--validate",)))
def api(
    *,
    coverage: Annotated[bool, typer.Option("--coverage", help="every operation and how far it goes")] = False,
    validate: Annotated[
        str | None, typer.Option(metavar="OPERATION", help="check a JSON from stdin, like omicron_config_put")
    ] = None,
    api_version: Annotated[str, typer.Option(help="for --validate, and which operations --coverage lists")] = "",
    part: Annotated[
        Part | None, typer.Option(help="for --validate; default: the request if the operation has a body")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """What is served of the Sled Agent API; exit 1 if a JSON does not fit."""
    if coverage == (validate is not None):
        fail("one of --coverage and --validate OPERATION is needed")
    if coverage:
        _coverage(api_version, as_json=as_json)
    else:
        assert validate is not None, "looked at above"
        _validate(validate, api_version or "48.0.0", part, as_json=as_json)


def _level(version: str) -> int:
    from sim_sled.http.routes import NEWEST

    match = re.fullmatch(r"([1-9][0-9]?)(\.0\.0)?", version)
    if match is None or int(match[1]) > NEWEST:
        fail(f"{version!r} is no version of the Sled Agent API; they are 1.0.0 to {NEWEST}.0.0")
    return int(match[1])


def _coverage(version: str, *, as_json: bool) -> None:
    from sim_sled.cli.control_client import show, table
    from sim_sled.http.coverage import How, rows

    found = rows()
    if version:
        level = _level(version)
        found = [row for row in found if row.since <= level <= row.until]
    if as_json:
        told = [
            {
                "operation": row.operation,
                "method": row.method,
                "path": row.path,
                "since": f"{row.since}.0.0",
                "until": f"{row.until}.0.0",
                "how": row.how.value,
                "section": row.section,
            }
            for row in found
        ]
        typer.echo(json.dumps(told, indent=2))
        return
    names = ["operation", "versions", "how", "spec", "request"]
    cells = [
        [row.operation, f"{row.since}-{row.until}", row.how.value, row.section, f"{row.method} {row.path}"]
        for row in found
    ]
    if sys.stdout.isatty():
        names, *cells = fitting([names, *cells], get_terminal_size().columns)
    show(names, cells, table(names))
    operations = len({(row.operation, row.method, row.path) for row in found})
    counts = ", ".join(f"{sum(row.how is how for row in found)} {how.value}" for how in How)
    # some are served one way in old versions and another way since, with a row for each
    in_rows = "" if operations == len(found) else f" in {len(found)} rows"
    typer.echo(f"{operations} operations{in_rows}: {counts}", err=not sys.stdout.isatty())  # no row of the table


def fitting(lines: list[list[str]], width: int) -> list[list[str]]:
    """Without the request where a terminal has no room for it: the operation says what it is."""
    wide = sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True))
    return lines if wide <= width else [line[:-1] for line in lines]


def _validate(operation: str, version: str, part: Part | None, *, as_json: bool) -> None:
    from sim_sled.shapes import check

    document = f"sled-agent/{_level(version)}.0.0"
    try:
        request, answer = check.request_schema(document, operation), check.answer_schema(document, operation)
    except KeyError:
        fail(f"there is no operation {operation!r} in {version}; `sim-sled api --coverage` lists them")
    if part is None:
        part = Part.REQUEST if request is not None else Part.ANSWER
    schema = request if part is Part.REQUEST else answer
    if schema is None:
        fail(f"the {part.value} of {operation} has no JSON in {version}")
    value = _stdin()
    try:
        faults = check.faults(document, schema, value)
    except check.NoValidator as missing:
        fail(str(missing))
    if as_json:
        told = {"operation": operation, "api_version": version, "part": part.value, "faults": faults}
        typer.echo(json.dumps(told, indent=2))
    elif faults:
        typer.echo("\n".join(faults))
    else:
        typer.echo(f"fits the {part.value} of {operation} in {version}")
    raise typer.Exit(FAILED if faults else GOOD)


def _stdin() -> Any:
    data = sys.stdin.buffer.read(STDIN_MAX + 1)
    if len(data) > STDIN_MAX:
        fail(f"more than {STDIN_MAX} bytes on stdin")
    try:
        return foreign.loads(data)
    except ValueError as error:
        fail(f"stdin is no JSON: {error}")
