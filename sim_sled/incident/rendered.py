"""Records as they are printed for people (LG 1.5): by `looker` and by node's `bunyan`, in a long and a short form.

Read before: incident/archives.py, incident/lines.py. Read next: incident/reading.py.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Final, Self

import attrs

from nexus_client.dropshot import foreign
from sim_sled.incident.archives import log_of
from sim_sled.incident.lines import LogLine, Reading, Value, Where, parse_time, program_of

_LOOKER: Final = re.compile(
    r"(?:(?P<date>\d{4}-\d\d-\d\d) )?(?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)Z? (?P<level>FATA|ERRO|WARN|INFO|DEBG|TRAC) "
    r"(?P<name>[^\s(:/]+)(?:/(?P<pid>\d{1,10}))?(?: \((?P<component>(?:[^()]|\([^()]*\))*)\))?"
    r"(?: on (?P<host>[^\s:]+))?: (?P<msg>.*)"
)
_LOOKER_KEY: Final = re.compile(r"    ([A-Za-z0-9_.]+) = (.*)")
_NODE: Final = re.compile(
    r"(?:\[(?P<date>\d{4}-\d\d-\d\d)T(?P<dated>[^\]\s]+)\]|(?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)Z?) "
    r" ?(?P<level>FATAL|ERROR|WARN|INFO|DEBUG|TRACE):? "
    r"(?P<name>[^\s(:/]+)(?:/(?P<component>(?!\d+(?: on |:))[^:/]+))?(?:/(?P<pid>\d{1,10}))?"
    r"(?: on (?P<host>[^\s:]+))?:(?P<msg>.*)"
)
_NODE_KEY: Final = re.compile(r"    ([A-Za-z0-9_.]+): (.*)")
_NODE_NEXT: Final = "    --"
"""Between two values of a record that stand below it."""
_EXTRA: Final = r'([A-Za-z0-9_.]+)=("(?:[^"\\]|\\.)*"|\S*?)'
"""A short value, in brackets behind the message."""
_EXTRAS: Final = re.compile(rf"{_EXTRA}(?:, |\)$)")
_EXTRAS_BEGIN: Final = re.compile(r" \((?=[A-Za-z0-9_.]+=)")
_EXTRAS_MAX: Final = 64 * 1024
_LEVELS: Final = {"FATA": 60, "ERRO": 50, "WARN": 40, "INFO": 30, "DEBG": 20, "DEBU": 20, "TRAC": 10}
"""By their first four letters."""
_HALF_A_DAY_US: Final = 43_200_000_000
"""A clock that goes back by more has passed midnight."""
_SOME_DAY: Final = date(2001, 1, 1)
"""Of records whose day nobody knows: none of before a sled found the time (clocks.py)."""


@attrs.define
class Days:
    """The day of records of one file that carry none: the one that was given, and the next after each midnight."""

    first: date | None
    _last_us: int = 0
    _midnights: int = 0

    def time(self, clock: str) -> int:
        """Microseconds since the epoch. Raises ValueError."""
        day = self.first or _SOME_DAY  # without a date an order is still an order
        at_us = parse_time(f"{day.isoformat()}T{clock}Z") + self._midnights * 2 * _HALF_A_DAY_US
        if at_us < self._last_us - _HALF_A_DAY_US:
            self._midnights += 1
            at_us += 2 * _HALF_A_DAY_US
        self._last_us = at_us
        return at_us


@attrs.define
class Rendered:
    """A record as it is printed, with the lines that follow it."""

    where: Where
    head: re.Match[str]
    by_node: bool
    msg: list[str]
    fields: dict[str, Value]
    _last: str = ""
    _between: bool = True
    """Of node's: a value may begin here."""

    @classmethod
    def begins(cls, text: str, where: Where) -> Self | None:
        """The record that begins with a line, if one does."""
        head = _LOOKER.match(text)
        if head is not None:
            return cls(where, head, by_node=False, msg=[head["msg"]], fields={})
        head = _NODE.match(text)
        if head is None:
            return None
        msg, fields = _with_extras(head["msg"])
        return cls(where, head, by_node=True, msg=[msg.removeprefix(" ")] if msg else [], fields=fields)

    def goes_on(self, text: str) -> bool:
        """Whether a line is part of it; taken if so."""
        if not text.startswith("    "):
            return False
        if self.by_node and text == _NODE_NEXT:
            self._between = True
            return True
        key = (_NODE_KEY if self.by_node else _LOOKER_KEY).match(text)
        if key is not None and (self._between or not self.by_node):
            self._last = key[1]
            self.fields[key[1]] = key[2]
        elif self._last:
            self.fields[self._last] = f"{self.fields[self._last]}\n{text[4:]}"
        else:
            self.msg.append(text[4:])
        self._between = not self._last
        return True

    def lines(self, reading: Reading, days: Days) -> list[LogLine]:
        """The record; none if it has no time."""
        written, head = self.head["date"], self.head.groupdict()
        clock = head.get("dated") or f"{self.head['time']}Z"
        try:
            time_us = parse_time(f"{written}T{clock}") if written else days.time(self.head["time"])
        except ValueError:
            reading.strange(self.where, "no time", f"{written} {clock}")
            return []
        reading.records[self.where.file] += 1
        reading.dates_missing += written is None and days.first is None
        if self.head["component"]:
            self.fields.setdefault("component", self.head["component"])
        record = LogLine(
            self.where,
            program_of(self._name()),
            self.head["host"] or str(self.fields.get("hostname") or _host_by_file(self.where, reading)),
            int(self.head["pid"] or 0),
            _LEVELS[self.head["level"][:4]],
            time_us,
            "\n".join(self.msg),
            self.fields,
        )
        return [record]

    def _name(self) -> str:
        """What is shown is the last `name`: of Nexus that is its id, so a component has to tell (LG 0 #3)."""
        name, component = self.head["name"], self.head["component"] or ""
        if re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", name) or component.startswith(("ServerContext", "dropshot_")):
            return "nexus"
        return name


def _with_extras(text: str) -> tuple[str, dict[str, Value]]:
    """A message of node's, and the short values behind it."""
    for begins in _EXTRAS_BEGIN.finditer(text) if len(text) <= _EXTRAS_MAX else ():
        at, fields = begins.end(), dict[str, Value]()
        while (extra := _EXTRAS.match(text, at)) is not None:
            fields[extra[1]] = _unquoted(extra[2])
            at = extra.end()
        if at == len(text):
            return text[: begins.start()], fields
    return text, {}


def _unquoted(value: str) -> str:
    try:
        return str(foreign.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


def _host_by_file(where: Where, reading: Reading) -> str:
    """The short forms name no host (LG 1.5): then a file, with those that were rotated, is of one."""
    reading.hosts_missing[where.file] += 1
    return log_of(where.file).rpartition("/")[2].removesuffix(".gz").removesuffix(".log")
