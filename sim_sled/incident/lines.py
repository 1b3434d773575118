"""Lines of logs: where one stands, what a record of it says, and what came by besides (LG 1).

Read next: incident/rendered.py, incident/reading.py, incident/eras.py, incident/facts.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import attrs

from nexus_client.dropshot.text import counted

NUMBER_MAX: Final = 2**63
"""Rust's programs write none that is larger; a latency of centuries is garbage."""
_TOLD_MAX: Final = 20
"""Odd lines that are quoted; the rest is only counted."""

OURS: Final = "sim-sled"
"""The name in logs of our own daemons (daemon/saying.py)."""
SMF_SAYS: Final = "SMF: "
"""Before what SMF wrote into a log: it is no process's own word."""
BARREN_MAX: Final = 200_000
"""Lines in a row that are no records, after which the rest of a file is left."""
BARREN_BYTES: Final = 64 * 1024 * 1024
"""As `BARREN_MAX`, of bytes: what unpacks to gigabytes of nothing need not be unpacked."""

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]


@attrs.frozen
class Where:
    """A line of a file, as it is quoted."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@attrs.frozen
class LogLine:
    """One record. `time_us`: of the writer's own clock, None if the form has no date and none was given.

    `program`: "sled-agent", "nexus", "propolis" or another's name; `fields`: last one wins where a key repeats.
    """

    where: Where
    program: str
    host: str
    pid: int
    level: int
    time_us: int | None
    msg: str
    fields: dict[str, Value]

    def text(self, key: str) -> str:
        """A field as text; "" if it is not there."""
        value = self.fields.get(key)
        return "" if value is None else str(value)

    def number(self, key: str) -> int | None:
        """A field as an integer; numbers that were written as text count (dropshot before 0.16.1)."""
        value = self.fields.get(key)
        if isinstance(value, bool) or value is None:
            return None
        try:
            number = int(str(value))
        except ValueError:
            return None
        return number if abs(number) <= NUMBER_MAX else None


@attrs.define
class Reading:
    """What came by: counts per file, and the odd lines that were no records."""

    records: Counter[str] = attrs.field(factory=Counter)
    odd: Counter[str] = attrs.field(factory=Counter)
    quoted: list[str] = attrs.field(factory=list)
    unreadable: list[str] = attrs.field(factory=list)
    bytes_read: int = 0
    """Of the lines, unpacked."""
    consumed: Callable[[], int] = lambda: 0
    """How far the file is that is being read, in the measure of its `Source.size`."""
    outside: int = 0
    """Records before or after the time that was asked for."""
    dates_missing: int = 0
    hosts_missing: Counter[str] = attrs.field(factory=Counter)
    """Of each file: lines that do not say which host they are of."""
    _barren: tuple[str, int, int, int] = ("", 0, 0, 0)
    """A file, how many records of it were read, and since when: at which line, and how many bytes ago."""

    def is_barren(self, file: str, number: int, size: int) -> bool:
        """Whether so much of a file came by without a record that the rest need not be looked at; said if so."""
        known, records, since, length = self._barren
        now = self.records[file]
        if (known, records) != (file, now):
            since, length = number, 0
        self._barren = (file, now, since, length + size)
        if number - since < BARREN_MAX and length < BARREN_BYTES:
            return False
        self.unreadable.append(
            f"{file}: {counted(number - since, 'line')} from line {since} on are no records; left there"
        )
        return True

    def strange(self, where: Where, kind: str, text: str) -> None:
        self.odd[kind] += 1
        if len(self.quoted) < _TOLD_MAX:
            self.quoted.append(f"{where}: {kind}: {text[:80]!r}")


def program_of(name: str) -> str:
    """One word per program, whatever its version calls itself."""
    low = name.lower()
    if low in ("sledagent", "sled-agent", "sled_agent", OURS):
        return "sled-agent"
    if low.startswith("propolis"):
        return "propolis"
    return low


_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(?:\.(\d{1,18}))?(?:[Zz]|([+-])(\d\d):?([0-5]\d))?", re.ASCII
)
_YEARS: Final = range(1970, 2100)
"""A clock that was never set believes in 1970 or, of a sled, in 1986; nothing was logged in any other time."""


def parse_time(text: str) -> int:
    """RFC 3339 in microseconds since the epoch; what is finer falls away, and a leap second is the one after it.
    ValueError, also for a time in which nobody has logged anything.
    """
    found = _TIME.fullmatch(text)
    if found is None or int(found[1][:4]) not in _YEARS or int(found[3]) > 60 or int(found[6] or 0) > 23:
        raise ValueError(f"{text[:40]!r} is no time")
    moment = datetime.fromisoformat(f"{found[1]}T{found[2]}:00").replace(tzinfo=UTC)
    seconds = round(moment.timestamp()) + int(found[3])
    if found[5]:
        ahead = int(found[6]) * 3600 + int(found[7]) * 60
        seconds -= ahead if found[5] == "+" else -ahead
    return seconds * 1_000_000 + int((found[4] or "0").ljust(6, "0")[:6])
