"""The configuration file of `propolis-stub serve`: TOML, checked as a whole before anything starts.

    hazards = ["migrate_in_start"]
    token = "..."                  # for a control listener beyond loopback

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
from typing import Any, Literal

import attrs
import msgspec

from propolis_stub.server.control import HAZARDS, POINTS, AfterUs, Times, hazards_of, points_of
from propolis_stub.vm import Hazard
from propolis_stub.waiting import Pace, Point


class BadConfig(ValueError):
    """Everything that is wrong with a file, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _PaceTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    after_us: AfterUs | Literal["for ever"] = 0
    fail: bool = False
    times: Times | None = None


FILE_BYTES_MAX = 1024 * 1024
"""A dozen paces; anything larger is the wrong file, or has no end."""


@attrs.frozen
class Config:
    hazards: Hazard = Hazard.NONE
    token: str | None = None
    paces: Mapping[Point, tuple[Pace, int | None]] = attrs.Factory(dict)


def load(path: Path) -> Config:
    """Raises `BadConfig` naming every problem, or `OSError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise BadConfig([f"more than {FILE_BYTES_MAX} bytes"])
        document = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        # ValueError: no UTF-8, no TOML, or a number of more digits than Python reads
        raise BadConfig([str(problem).partition("\n")[0]]) from None
    return read(document)


def read(document: Mapping[str, Any]) -> Config:
    """Raises `BadConfig`."""
    problems = [f"{key}: no such setting" for key in sorted(set(document) - {"hazards", "token", "pace"})]
    hazards = document.get("hazards", [])
    if not isinstance(hazards, list) or not all(isinstance(name, str) and name in HAZARDS for name in hazards):
        problems.append(f"hazards: expected a list out of {', '.join(HAZARDS)}")
        hazards = []
    token = document.get("token")
    if token is not None and (not isinstance(token, str) or not token):
        problems.append("token: expected a text")
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
    return Config(hazards_of(hazards), token, paces)
