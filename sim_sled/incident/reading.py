"""Files to log lines: Bunyan JSON, and the forms that are printed for people (LG 1).

One line at a time, so a gigabyte costs no memory. What is no log line (SMF's notes, panics, a cut end) is counted and
told, never fatal.

Read before: incident/archives.py, incident/lines.py, incident/rendered.py. Read next: incident/importing.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import IO, Final

import attrs

from nexus_client.dropshot import foreign
from nexus_client.dropshot.text import counted
from sim_sled.incident.archives import READ_ERRORS, Source, reason
from sim_sled.incident.lines import (
    BARREN_BYTES,
    OURS,
    SMF_SAYS,
    LogLine,
    Reading,
    Value,
    Where,
    parse_time,
    program_of,
)
from sim_sled.incident.rendered import Days, Rendered

LINE_MAX: Final = 4 * 1024 * 1024
"""Longest line that is looked at: a debug print of a whole blueprint is some hundred KiB."""
_NOISE: Final = (b'"msg":"roles"', b'"msg":"authorize ', b'"uri":"/v1/ping"', b'"uri":"/metrics/collect')
"""Most of a Nexus log (LG 2.2 #110): passed over before it is parsed."""
_AROUND: Final = re.compile(rb"(?:\xef\xbb\xbf|\0+|[^\s{]{1,300}?:(?:\d+:)?(?=\{\"))")
"""Before a record: the mark of a text file, the zeros of one that was truncated while it was written, and what `grep`
puts before the lines of several files.
"""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_SMF: Final = re.compile(r"\[ (?P<month>[A-Z][a-z]{2}) +(?P<day>\d\d?) (?P<clock>\d\d:\d\d:\d\d) (?P<text>.*) \]$")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NEAR_US: Final = 86_400_000_000
"""SMF writes no year: that of a record which is at most that far."""


def read_lines(source: Source, reading: Reading, day: date | None = None) -> Iterator[LogLine]:
    """The records of one file, in its order. `day`: for forms that carry no date."""
    rendered: Rendered | None = None
    smf, days = _Smf(), Days(day)
    try:
        with source.open() as file:
            packed = getattr(file, "myfileobj", None)
            reading.consumed = (packed or file).tell if source.size else lambda: 0
            for number, whole in enumerate(_bounded(file), 1):
                reading.bytes_read += len(whole)
                around = None if whole.startswith(b"{") else _AROUND.match(whole)
                raw = whole[around.end() :] if around else whole
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
                if rendered is not None and rendered.goes_on(text):
                    continue
                if rendered is not None:
                    yield from smf.before(*rendered.lines(reading, days))
                rendered = Rendered.begins(text, where)
                if rendered is None:
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
