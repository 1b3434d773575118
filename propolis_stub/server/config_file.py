"""The configuration file of `propolis-stub serve`: TOML, checked as a whole before anything starts.

    hazards = ["migrate_in_start"]
    token = "..."                  # for a control listener beyond loopback; or token_file = "PATH"
    control_hosts = ["propolis"]   # names by which the control listener is reached, beside addresses and localhost

    [pace.backends]                # any waiting point, see `GET /control`
    after_us = 2_000_000           # or "for ever"
    fail = false
    times = 1                      # leave out: always

Read next: server/serve.py.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import msgspec

from nexus_client.dropshot.bearer import BadToken, token_from
from propolis_stub.server.control import HAZARDS, POINTS, AfterUs, Times, hazards_of, points_of
from propolis_stub.vm import Hazard
from propolis_stub.waiting import Pace, Point

FILE_BYTES_MAX: Final = 1024 * 1024
"""A dozen fields and a table per waiting point; anything larger is the wrong file."""
_SETTINGS: Final = frozenset({"hazards", "token", "token_file", "control_hosts", "pace"})


class BadConfig(ValueError):
    """Everything that is wrong with a file, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _PaceTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    after_us: AfterUs | Literal["for ever"] = 0
    fail: bool = False
    times: Times | None = None


@attrs.frozen
class Config:
    hazards: Hazard = Hazard.NONE
    token: str | None = None
    paces: Mapping[Point, tuple[Pace, int | None]] = attrs.Factory(dict)
    control_hosts: tuple[str, ...] = ()
    preset: str = "stub"
    """How long a point takes without a pace of its own (presets.py); `--pace`, not of the file."""


def load(path: Path) -> Config:
    """Raises `BadConfig` naming every problem, or `OSError`."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)  # what is read is counted: a device has no size
        if len(text) > FILE_BYTES_MAX:
            raise BadConfig([f"larger than {FILE_BYTES_MAX} bytes"])
        document = tomllib.loads(text.decode())
    except RecursionError:
        raise BadConfig(["nested too deeply"]) from None
    except ValueError as problem:  # no TOML, no UTF-8, or a number with more digits than Python reads
        raise BadConfig([str(problem)]) from None
    return read(document)


def read(document: Mapping[str, Any]) -> Config:
    """Raises `BadConfig`."""
    problems = [f"{key}: no such setting" for key in sorted(set(document) - _SETTINGS)]
    hazards = document.get("hazards", [])
    if not isinstance(hazards, list) or not all(isinstance(name, str) and name in HAZARDS for name in hazards):
        problems.append(f"hazards: expected a list out of {', '.join(HAZARDS)}")
        hazards = []
    token, file = document.get("token"), document.get("token_file")
    if not isinstance(token, str | None) or not isinstance(file, str | None):
        problems.append("token: expected a text, or token_file")
        token = None
    else:
        try:
            token = token_from(token, None if file is None else Path(file))
        except BadToken as problem:
            problems.append(f"token: {problem}")
    hosts = document.get("control_hosts", [])
    if not isinstance(hosts, list) or not all(isinstance(name, str) for name in hosts):
        problems.append("control_hosts: expected a list of names")
        hosts = []
    tables = document.get("pace", {})
    paces: dict[Point, tuple[Pace, int | None]] = {}
    if not isinstance(tables, dict):
        problems.append("pace: expected tables [pace.POINT]")
        tables = {}
    problems += [f"pace.{name}: no such waiting point; there are {', '.join(POINTS)}" for name in points_of(tables)]
    for name, table in tables.items():
        if name not in POINTS:
            continue
        try:
            pace = msgspec.convert(table, _PaceTable)
        except msgspec.ValidationError as problem:
            problems.append(f"pace.{name}: {problem}")
            continue
        after_us = None if pace.after_us == "for ever" else pace.after_us
        paces[POINTS[name]] = (Pace(after_us, pace.fail), pace.times)
    if problems:
        raise BadConfig(problems)
    return Config(hazards_of(hazards), token, paces, tuple(hosts))
