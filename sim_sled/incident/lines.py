"""Files to log lines: Bunyan JSON, the forms `looker` prints, gzip, support-bundle zips, standard input (LG 1).

One line at a time, so a gigabyte costs no memory. What is no log line (SMF's notes, panics, a cut end) is counted and
told, never fatal.

Read next: incident/facts.py, incident/importing.py.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Final, cast

import attrs

from nexus_client.dropshot import foreign
from sim_sled.language.files import is_file, is_folder

LINE_MAX: Final = 4 * 1024 * 1024
"""Longest line that is looked at: a debug print of a whole blueprint is some hundred KiB."""
MEMBERS_MAX: Final = 100_000
"""Files of one zip: a support bundle of a full rack has some thousand."""
_TOLD_MAX: Final = 20
"""Odd lines that are quoted; the rest is only counted."""

_BUNDLED: Final = re.compile(
    r"logs/(global/sled-agent|oxz_nexus_[^/]*/nexus|oxz_propolis-server_[^/]*/propolis-server)/"
)
_NOISE: Final = (b'"msg":"roles"', b'"msg":"authorize ', b'"uri":"/v1/ping"', b'"uri":"/metrics/collect')
"""Most of a Nexus log (LG 2.2 #110): passed over before it is parsed."""
_LOOKER: Final = re.compile(
    r"(?:(?P<date>\d{4}-\d\d-\d\d) )?(?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)Z? (?P<level>FATA|ERRO|WARN|INFO|DEBG|TRAC) "
    r"(?P<name>[^\s(:/]+)(?:/(?P<pid>\d+))?(?: \((?P<component>(?:[^()]|\([^()]*\))*)\))?(?: on (?P<host>[^\s:]+))?: "
    r"(?P<msg>.*)"
)
OURS: Final = "sim-sled"
"""The name in logs of our own daemons (daemon/saying.py)."""
_LOOKER_KEY: Final = re.compile(r"    ([A-Za-z0-9_.]+) = (.*)")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_LEVELS: Final = {"FATA": 60, "ERRO": 50, "WARN": 40, "INFO": 30, "DEBG": 20, "TRAC": 10}
_SMF: Final = re.compile(r"\[ (?P<when>[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d) (?P<text>.*) \]$")

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
            return int(str(value))
        except ValueError:
            return None


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
    dates_missing: int = 0
    hosts_missing: Counter[str] = attrs.field(factory=Counter)
    """Of each file: lines that do not say which host they are of."""

    def strange(self, where: Where, kind: str, text: str) -> None:
        self.odd[kind] += 1
        if len(self.quoted) < _TOLD_MAX:
            self.quoted.append(f"{where}: {kind}: {text[:80]!r}")


@attrs.frozen
class Source:
    """One file to be read: what it is called in quotes, and how to open it."""

    shown: str
    open: Callable[[], IO[bytes]]
    size: int


def sources(paths: Iterable[str], reading: Reading) -> list[Source]:
    """The log files behind what a person gave: files, gzip, zips (support bundles), folders, `-`. Of one log the
    rotated files come oldest first. They are quoted by their names, with the folders that tell them apart.
    """
    found = list(_sources(paths, reading))
    first = {_without_age(each.shown): i for i, each in reversed(list(enumerate(found)))}
    found.sort(key=lambda each: (first[_without_age(each.shown)], _age(each.shown)))
    endings = Counter(ending for each in found for ending in _endings(each.shown))
    return [
        attrs.evolve(each, shown=next((end for end in _endings(each.shown) if endings[end] == 1), each.shown))
        for each in found
    ]


def _endings(shown: str) -> Iterator[str]:
    """The name alone, then with one folder more each time."""
    parts = shown.split("/")
    return ("/".join(parts[i:]) for i in reversed(range(len(parts))))


_ROTATED: Final = re.compile(r"(?:(?:current|archive|extra)/)?([^/]*\.log)(?:\.(\d+))?(\.gz)?$")
_ARCHIVED_FROM: Final = 1_000
"""A larger number behind `.log` is the time of an archive, a smaller one how often the file was rotated since."""


def _without_age(shown: str) -> str:
    """What rotated and archived files of one log have in common."""
    return _ROTATED.sub(r"\1", shown)


def _age(shown: str) -> tuple[int, int]:
    """Oldest first: archives by their time, `.log.7` to `.log.0`, then the file that is written (LG 1.3)."""
    found = _ROTATED.search(shown)
    if found is None or found[2] is None:
        return (2, 0)
    number = int(found[2])
    return (0, number) if number >= _ARCHIVED_FROM else (1, -number)


def _sources(paths: Iterable[str], reading: Reading) -> Iterator[Source]:
    for given in paths:
        if given == "-":
            yield Source("stdin", _stdin, 0)
            continue
        path = Path(given)
        if is_folder(path):
            yield from _sources(sorted(str(each) for each in path.rglob("*") if is_file(each)), reading)
            continue
        try:
            yield from _of_file(path, given, reading)
        except (OSError, zipfile.BadZipFile) as error:
            reading.unreadable.append(f"{given}: {getattr(error, 'strerror', None) or error}")


def _stdin() -> IO[bytes]:
    file = sys.stdin.buffer
    packed = isinstance(file, io.BufferedReader) and file.peek(2)[:2] == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="rb")) if packed else file  # not closed with it


def _of_file(path: Path, shown: str, reading: Reading) -> Iterator[Source]:
    if not is_file(path):  # a device or a pipe may never end; standard input is asked for by name
        raise OSError(None, "no such file" if not path.exists() else "not a regular file")
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b":
        yield Source(shown, lambda: _unpacked(path.open("rb")), path.stat().st_size)
    elif head == b"PK\x03\x04":
        yield from _of_zip(path, shown, reading)
    else:
        yield Source(shown, lambda: path.open("rb"), path.stat().st_size)


def _of_zip(path: Path, shown: str, reading: Reading) -> Iterator[Source]:
    with zipfile.ZipFile(path) as bundle:
        members = [each for each in bundle.infolist() if not each.is_dir()]
    logs = [each for each in members if _BUNDLED.search(each.filename)]
    if not logs:  # no support bundle: then all that looks like a log
        logs = [each for each in members if re.search(r"\.(log(\.\d+)?|jsonl?)$", each.filename)]
    if len(logs) > MEMBERS_MAX:
        reading.unreadable.append(f"{shown}: {len(logs)} files, of which {MEMBERS_MAX} are read")
    for member in sorted(logs[:MEMBERS_MAX], key=lambda each: each.filename):
        yield Source(f"{shown}!{member.filename}", _opener(path, member.filename), member.file_size)


def _opener(path: Path, name: str) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        bundle = zipfile.ZipFile(path)
        file = bundle.open(name)
        packed = file.read(2)
        file.seek(0)
        return _unpacked(file) if packed == b"\x1f\x8b" else file

    return opened


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    packed = gzip.GzipFile(fileobj=file, mode="rb")
    packed.myfileobj = file  # type: ignore[assignment]  # so `close` closes what it reads from, as for a path
    return cast("IO[bytes]", packed)


def read_lines(source: Source, reading: Reading, day: date | None = None) -> Iterator[LogLine]:
    """The records of one file, in its order. `day`: for forms that carry no date."""
    rendered: _Rendered | None = None
    smf = _Smf()
    try:
        with _buffered(source) as file:
            packed = getattr(file, "myfileobj", None)
            reading.consumed = (packed or file).tell if source.size else lambda: 0
            for number, raw in enumerate(_bounded(file), 1):
                reading.bytes_read += len(raw)
                if any(noise in raw for noise in _NOISE) and raw.rstrip().endswith(b"}"):
                    reading.records[source.shown] += 1
                    continue
                where = Where(source.shown, number)
                if raw.startswith(b"{"):
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
                    yield from smf.before(rendered.line(reading, day))
                    rendered = None
                head = _LOOKER.match(text)
                if head is not None:
                    reading.records[source.shown] += 1
                    rendered = _Rendered(where, head)
                else:
                    smf.said += _other(text, where, reading)
            if rendered is not None:
                yield from smf.before(rendered.line(reading, day))
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        # what was read so far stands: half a log is better than none
        reading.unreadable.append(f"{source.shown}: {getattr(error, 'strerror', None) or error}")


@attrs.define
class _Smf:
    """SMF's lines of a file. They have no year and name nobody; the record after them does, if there is one host."""

    said: list[tuple[Where, str]] = attrs.field(factory=list)
    _hosts: set[str] = attrs.field(factory=set)

    def before(self, line: LogLine) -> Iterator[LogLine]:
        """A record, after what SMF said since the last one."""
        self._hosts.add(line.host)
        if len(self._hosts) == 1:
            for at, said in self.said:
                yield attrs.evolve(line, where=at, msg=said, fields={})
        self.said.clear()
        yield line


@contextmanager
def _buffered(source: Source) -> Iterator[IO[bytes]]:
    file = source.open()
    try:
        yield file
    finally:
        if file is not sys.stdin.buffer:
            file.close()


def _bounded(file: IO[bytes]) -> Iterator[bytes]:
    """Lines of at most `LINE_MAX` bytes; of a longer one the rest is thrown away."""
    while raw := file.readline(LINE_MAX):
        if len(raw) == LINE_MAX and not raw.endswith(b"\n"):
            while (rest := file.readline(LINE_MAX)) and not rest.endswith(b"\n"):
                pass
        yield raw


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
        kind = "cut line" if not raw.rstrip().endswith(b"}") else "no JSON"
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

    def line(self, reading: Reading, day: date | None) -> LogLine:
        written = self.head["date"]
        on = date.fromisoformat(written) if written else day
        time_us = None if on is None else parse_time(f"{on.isoformat()}T{self.head['time']}Z")
        if time_us is None:
            reading.dates_missing += 1
            time_us = parse_time(f"1970-01-01T{self.head['time']}Z")  # an order is still an order
        if self.head["component"]:
            self.fields.setdefault("component", self.head["component"])
        return LogLine(
            self.where,
            program_of(self.fields_name()),
            self.head["host"] or str(self.fields.get("hostname") or _host_by_file(self.where, reading)),
            int(self.head["pid"] or 0),
            _LEVELS[self.head["level"]],
            time_us,
            "\n".join([self.head["msg"], *self.more_msg]),
            self.fields,
        )

    def fields_name(self) -> str:
        """Looker shows the last `name`: of Nexus that is its id, so a component has to tell (LG 0 #3)."""
        name, component = self.head["name"], self.head["component"] or ""
        if re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", name) or component.startswith(("ServerContext", "dropshot_")):
            return "nexus"
        return name


def _host_by_file(where: Where, reading: Reading) -> str:
    """The short form of `looker` names no host (LG 1.5): then a file, with those that were rotated, is of one."""
    reading.hosts_missing[where.file] += 1
    return _ROTATED.sub(r"\1", where.file).rpartition("/")[2].removesuffix(".gz").removesuffix(".log")


def _other(text: str, where: Where, reading: Reading) -> list[tuple[Where, str]]:
    """Lines that are no records are counted. SMF's, which say that a process began or ended, come back (LG 1.1)."""
    smf = _SMF.match(text)
    if smf is not None:
        reading.strange(where, "SMF line", text)
        return [(where, f"SMF: {smf['text']}")]
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


def parse_time(text: str) -> int:
    """RFC 3339 with up to nine digits (the last three fall away) in microseconds since the epoch. ValueError."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?", text)
    if found is None:
        raise ValueError(f"{text!r} is no time")
    moment = datetime.fromisoformat(f"{found[1]}T{found[2]}").replace(tzinfo=UTC)
    zone = found[4]
    if zone not in (None, "Z"):
        hours, minutes = int(zone[1:3]), int(zone[4:6])
        moment -= timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    micros = int((found[3] or "0").ljust(6, "0")[:6])
    return round(moment.timestamp()) * 1_000_000 + micros
