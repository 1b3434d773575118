"""Files to log lines: Bunyan JSON, and the forms `looker` prints (LG 1).

One line at a time, so a gigabyte costs no memory. What is no log line (SMF's notes, panics, a cut end) is counted and
told, never fatal.

Read before: incident/archives.py. Read next: incident/eras.py, incident/facts.py, incident/importing.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import IO, Final

import attrs

from nexus_client.dropshot import foreign
from nexus_client.dropshot.text import counted
from sim_sled.incident.archives import READ_ERRORS, Source, log_of, reason

LINE_MAX: Final = 4 * 1024 * 1024
"""Longest line that is looked at: a debug print of a whole blueprint is some hundred KiB."""
NUMBER_MAX: Final = 2**63
"""Rust's programs write none that is larger; a latency of centuries is garbage."""
_TOLD_MAX: Final = 20
"""Odd lines that are quoted; the rest is only counted."""

_NOISE: Final = (b'"msg":"roles"', b'"msg":"authorize ', b'"uri":"/v1/ping"', b'"uri":"/metrics/collect')
"""Most of a Nexus log (LG 2.2 #110): passed over before it is parsed."""
_LOOKER: Final = re.compile(
    r"(?:(?P<date>\d{4}-\d\d-\d\d) )?(?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)Z? (?P<level>FATA|ERRO|WARN|INFO|DEBG|TRAC) "
    r"(?P<name>[^\s(:/]+)(?:/(?P<pid>\d{1,10}))?(?: \((?P<component>(?:[^()]|\([^()]*\))*)\))?"
    r"(?: on (?P<host>[^\s:]+))?: (?P<msg>.*)"
)
_AROUND: Final = re.compile(rb"(?:\xef\xbb\xbf|\0+|[^\s{]{1,300}?:(?:\d+:)?(?=\{\"))")
"""Before a record: the mark of a text file, the zeros of one that was truncated while it was written, and what `grep`
puts before the lines of several files.
"""
OURS: Final = "sim-sled"
"""The name in logs of our own daemons (daemon/saying.py)."""
_LOOKER_KEY: Final = re.compile(r"    ([A-Za-z0-9_.]+) = (.*)")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_LEVELS: Final = {"FATA": 60, "ERRO": 50, "WARN": 40, "INFO": 30, "DEBG": 20, "TRAC": 10}
_SMF: Final = re.compile(r"\[ (?P<month>[A-Z][a-z]{2}) +(?P<day>\d\d?) (?P<clock>\d\d:\d\d:\d\d) (?P<text>.*) \]$")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HALF_A_DAY_US: Final = 43_200_000_000
"""A clock that goes back by more has passed midnight."""
_SOME_DAY: Final = date(2001, 1, 1)
"""Of records whose day nobody knows: none of before a sled found the time (clocks.py)."""
SMF_SAYS: Final = "SMF: "
"""Before what SMF wrote into a log: it is no process's own word."""
_NEAR_US: Final = 86_400_000_000
"""SMF writes no year: that of a record which is at most that far."""
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


def read_lines(source: Source, reading: Reading, day: date | None = None) -> Iterator[LogLine]:
    """The records of one file, in its order. `day`: for forms that carry no date."""
    rendered: _Rendered | None = None
    smf, days = _Smf(), _Days(day)
    try:
        with source.open() as file:
            packed = getattr(file, "myfileobj", None)
            reading.consumed = (packed or file).tell if source.size else lambda: 0
            for number, whole in enumerate(_bounded(file), 1):
                reading.bytes_read += len(whole)
                raw = whole if whole.startswith(b"{") else _AROUND.sub(b"", whole, count=1)
                if any(noise in raw for noise in _NOISE) and raw.rstrip().endswith(b"}"):
                    reading.records[source.shown] += 1
                    continue
                if reading.is_barren(source.shown, number, len(whole)):
                    break
                where = Where(source.shown, number)
                if raw.startswith(b"{"):
                    if rendered is not None:
                        yield from smf.before(*rendered.lines(reading, days))
                        rendered = None
                    line = _bunyan(raw, where, reading)
                    if line is not None:
                        reading.records[source.shown] += 1
                        yield from smf.before(line)
                    continue
                text = _COLOUR.sub("", raw.decode("utf-8", "replace")).rstrip("\r\n")
                key = _LOOKER_KEY.match(text)
                if rendered is not None and (key is not None or text.startswith("    ")):
                    rendered.more(key, text)
                    continue
                if rendered is not None:
                    yield from smf.before(*rendered.lines(reading, days))
                    rendered = None
                head = _LOOKER.match(text)
                if head is not None:
                    rendered = _Rendered(where, head)
                else:
                    smf.said += _other(text, where, reading)
            if rendered is not None:
                yield from smf.before(*rendered.lines(reading, days))
    except OSError as error:
        # what was read so far stands: half a log is better than none
        lines = reading.records[source.shown]
        so_far = f"; {counted(lines, 'record')} of it were read, the rest is missing" if lines else ""
        reading.unreadable.append(f"{source.shown}: {reason(error)}{so_far}")
    yield from smf.rest()


@attrs.define
class _Smf:
    """SMF's lines of a file. They have no year and name nobody; the record after them does, if there is one host."""

    said: list[tuple[Where, re.Match[str]]] = attrs.field(factory=list)
    _hosts: set[str] = attrs.field(factory=set)
    _last: LogLine | None = None

    def before(self, *lines: LogLine) -> Iterator[LogLine]:
        """Records, after what SMF said since the last one."""
        for line in lines:
            self._hosts.add(line.host)
            yield from self._told_near(line)
            self._last = line
            yield line

    def rest(self) -> Iterator[LogLine]:
        """What SMF said after the last record."""
        if self._last is not None:
            yield from self._told_near(self._last)

    def _told_near(self, line: LogLine) -> Iterator[LogLine]:
        if len(self._hosts) == 1:
            for at, said in self.said:
                msg = f"{SMF_SAYS}{said['text']}"
                yield attrs.evolve(line, where=at, msg=msg, pid=0, time_us=_smf_time(said, line.time_us), fields={})
        self.said.clear()


def _smf_time(said: re.Match[str], near_us: int | None) -> int | None:
    """When SMF said something: it writes UTC without a year. The time of a record beside it if that cannot be."""
    if near_us is None or said["month"] not in _MONTHS:
        return near_us
    year = datetime.fromtimestamp(near_us / 1e6, UTC).year
    month = _MONTHS.index(said["month"]) + 1
    for each in (year, year - 1, year + 1):
        try:
            told = parse_time(f"{each}-{month:02}-{int(said['day']):02}T{said['clock']}Z")
        except ValueError:
            continue
        if abs(told - near_us) <= _NEAR_US:
            return told
    return near_us


def _bounded(file: IO[bytes]) -> Iterator[bytes]:
    """Lines of at most `LINE_MAX` bytes; of a longer one the rest is thrown away. OSError for whatever is wrong."""
    try:
        while raw := file.readline(LINE_MAX):
            if len(raw) == LINE_MAX and not raw.endswith(b"\n"):
                length = len(raw)
                while (rest := file.readline(LINE_MAX)) and not rest.endswith(b"\n"):
                    length += len(rest)
                    if length >= BARREN_BYTES:
                        raise OSError(None, f"a line of more than {BARREN_BYTES // 1024**2} MiB")
            yield raw
    except READ_ERRORS as error:
        raise OSError(None, reason(error)) from error


def _bunyan(raw: bytes, where: Where, reading: Reading) -> LogLine | None:
    names: list[str] = []

    def pairs(found: list[tuple[str, Value]]) -> dict[str, Value]:
        fields = dict(found)
        if "msg" in fields and "time" in fields:  # the record itself, not an object inside it
            names[:] = [str(value) for key, value in found if key == "name"]
        return fields

    try:
        record = foreign.loads(raw, pairs)
    except ValueError:
        kind = "no JSON" if raw.rstrip().endswith(b"}") else "cut line" if len(raw) < LINE_MAX else "too long line"
        reading.strange(where, kind, raw[:80].decode("utf-8", "replace"))
        return None
    if not isinstance(record, dict) or not isinstance(record.get("msg"), str) or not names:
        reading.strange(where, "JSON that is no log record", raw[:80].decode("utf-8", "replace"))
        return None
    try:
        time_us = parse_time(str(record.get("time")))
    except ValueError:
        reading.strange(where, "no time", str(record.get("time")))
        return None
    level, pid = record.get("level"), record.get("pid")
    host = str(record.get("hostname", ""))
    if names[0] == OURS:  # one process has many sleds, and says in each line which one it is about
        host = str(record.get("sled") or "")
    return LogLine(
        where,
        program_of(names[0]) if host or names[0] != OURS else OURS,  # the first: Nexus has a second one (LG 0 #3)
        host,
        pid if isinstance(pid, int) else 0,
        level if isinstance(level, int) else 30,
        time_us,
        record["msg"],
        record,
    )


@attrs.define
class _Days:
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
class _Rendered:
    """A line as `looker` prints it, with the keys that follow it."""

    where: Where
    head: re.Match[str]
    fields: dict[str, Value] = attrs.field(factory=dict)
    last: str = ""
    more_msg: list[str] = attrs.field(factory=list)

    def more(self, key: re.Match[str] | None, text: str) -> None:
        if key is not None:
            self.last = key[1]
            self.fields[key[1]] = key[2]
        elif self.last:
            self.fields[self.last] = f"{self.fields[self.last]}\n{text[4:]}"
        else:
            self.more_msg.append(text[4:])

    def lines(self, reading: Reading, days: _Days) -> list[LogLine]:
        """The record; none if it has no time."""
        written = self.head["date"]
        try:
            time_us = parse_time(f"{written}T{self.head['time']}Z") if written else days.time(self.head["time"])
        except ValueError:
            reading.strange(self.where, "no time", f"{self.head['date']} {self.head['time']}")
            return []
        reading.records[self.where.file] += 1
        reading.dates_missing += written is None and days.first is None
        if self.head["component"]:
            self.fields.setdefault("component", self.head["component"])
        record = LogLine(
            self.where,
            program_of(self.fields_name()),
            self.head["host"] or str(self.fields.get("hostname") or _host_by_file(self.where, reading)),
            int(self.head["pid"] or 0),
            _LEVELS[self.head["level"]],
            time_us,
            "\n".join([self.head["msg"], *self.more_msg]),
            self.fields,
        )
        return [record]

    def fields_name(self) -> str:
        """Looker shows the last `name`: of Nexus that is its id, so a component has to tell (LG 0 #3)."""
        name, component = self.head["name"], self.head["component"] or ""
        if re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", name) or component.startswith(("ServerContext", "dropshot_")):
            return "nexus"
        return name


def _host_by_file(where: Where, reading: Reading) -> str:
    """The short form of `looker` names no host (LG 1.5): then a file, with those that were rotated, is of one."""
    reading.hosts_missing[where.file] += 1
    return log_of(where.file).rpartition("/")[2].removesuffix(".gz").removesuffix(".log")


def _other(text: str, where: Where, reading: Reading) -> list[tuple[Where, re.Match[str]]]:
    """Lines that are no records are counted. SMF's, which say that a process began or ended, come back (LG 1.1)."""
    smf = _SMF.match(text)
    if smf is not None:
        reading.strange(where, "SMF line", text)
        return [(where, smf)]
    if not text.strip():
        reading.strange(where, "empty line", text)
    elif text.startswith("thread '") or "run with `RUST_BACKTRACE" in text:
        reading.strange(where, "panic text", text)
    else:
        reading.strange(where, "no log line", text)
    return []


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
