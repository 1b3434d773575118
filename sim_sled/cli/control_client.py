"""What the commands ask a running daemon's control API, and how they print it.

Read next: cli/asking.py.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict, TypeVar, cast

import attrs
import msgspec
from rich.console import Console
from rich.table import Column, Table

from nexus_client.dropshot import foreign
from nexus_client.dropshot.command_line import BAD_INPUT, FAILED, GOOD, INTERRUPTED, UNREACHABLE
from nexus_client.dropshot.routes import segment
from nexus_client.dropshot.streams import CannotWrite
from nexus_client.dropshot.telling import fitted
from nexus_client.dropshot.text import counted, shown, shown_lines
from nexus_client.types import brief
from sim_sled import port_file as port_files
from sim_sled.cli.surface import say
from sim_sled.daemon import racks
from sim_sled.daemon.control_answers import (
    Expected,
    Injected,
    LogLine,
    Moved,
    Played,
    Readiness,
    Restored,
    RuleRow,
    Time,
    VmmRow,
    Why,
)
from sim_sled.files import write_text
from sim_sled.language.files import TooLong, read_bounded, read_stdin

TIMEOUT_S: Final = 10.0
"""The control API answers at once or not at all."""

SCALE_S: Final = 60.0
"""Sleds that join are registered with Nexus before the answer comes."""
MOVE_S: Final = 90.0
"""The daemon stops after 60 s of real time, and says so."""
SNAPSHOT_MAX: Final = 48 * 1024 * 1024
"""Bytes of a snapshot; the daemon makes no larger one."""
PATIENCE_US: Final = 3_600_000_000
"""As long as a daemon waits for a VMM (`WAIT_MAX_MS`)."""
_LOOK_S: Final = 0.1
_WATCH_S: Final = 1.0


T = TypeVar("T")


class Kept(TypedDict):
    """What a person is told of a snapshot; the rest is for whoever restores it."""

    sleds: list[str]
    vmms: int
    model: bool


class AskError(Exception):
    """What went wrong, and the exit code for it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@attrs.frozen
class Found:
    """A daemon that was looked for: where its control API is, and whose token is sent."""

    address: str
    token: str | None = None


def where(at: str | None, port_file: Path | None, rack: str | None = None) -> str:
    """The control API's address, from an option, the environment, a port file, or of a rack that runs: the named one,
    or the only one. Exits with 2 for what is no port file and if several racks run, 3 if none does.
    """
    if at is not None:
        return at
    if port_file is not None:
        try:
            found = foreign.loads(read_bounded(port_file, port_files.BYTES_MAX, regular=True))["control"]
        except (OSError, TooLong, ValueError, KeyError, TypeError) as error:
            say(f"{port_file} is no port file: {getattr(error, 'strerror', None) or error}")
            raise SystemExit(BAD_INPUT) from None
        if not isinstance(found, str):
            say(f"{port_file}: whoever wrote it has no control API")
            raise SystemExit(BAD_INPUT)
        return found
    return str(rack_named(rack)[1]["control"])


def rack_named(rack: str | None) -> tuple[str, dict[str, Any]]:
    """The rack of this name, or the only one; its addresses. Exits as `where`."""
    try:
        return racks.find(rack)
    except racks.NoRack as error:
        hint = "" if error.several or rack is not None else "; a daemon elsewhere: --at ADDR, --port-file FILE"
        say(f"{error}{hint}")
        raise SystemExit(BAD_INPUT if error.several else UNREACHABLE) from None


def page(address: str) -> int:
    """The address of the live page, if it is there."""
    try:
        _open(address, "/page", None, None, TIMEOUT_S).close()
    except AskError as error:
        return _failed(error)
    sys.stdout.write(f"http://{address}/page\n")
    return GOOD


def ps(address: str, token: str | None, as_json: bool) -> int:
    """Print the VMMs; returns the exit code."""
    try:
        rows = _get(address, "/vmms", token, list[VmmRow])
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(rows)
        return GOOD
    show(_PS, _ps_rows(rows), _ps_table)
    if not rows and sys.stdout.isatty():
        sys.stdout.write("no VMMs yet: one is here as soon as Nexus registers it with a sled\n")
    return GOOD


def watch_ps(address: str, token: str | None) -> int:
    """The table of `ps`, drawn again every second until Ctrl-C; returns the exit code."""
    from rich.live import Live

    try:
        with Live(console=Console(), auto_refresh=False, screen=False) as live:
            while True:
                live.update(_ps_table(_ps_rows(_get(address, "/vmms", token, list[VmmRow]))), refresh=True)
                time.sleep(_WATCH_S)
    except AskError as error:
        return _failed(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def show(names: Sequence[str], rows: list[list[str]], table: Callable[[list[list[str]]], Table]) -> None:
    """A table for people on a terminal. In a pipe nothing may be cut off to fit a window that is not there: a line of
    names, then a line per row, with tabs between.
    """
    if sys.stdout.isatty():
        Console().print(table(rows))
    else:
        sys.stdout.write("".join("\t".join(cells) + "\n" for cells in [list(names), *rows]))


def table(names: Sequence[str]) -> Callable[[list[list[str]]], Table]:
    """For `show`: columns as far apart as those of `ps`, the first one whole."""

    def drawn(rows: list[list[str]]) -> Table:
        made = Table(Column(names[0], no_wrap=True), *names[1:], box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
        for row in rows:
            made.add_row(*row)
        return made

    return drawn


_PS: Final = ("VMM", "host name", "state", "sled", "since", "asked", "rule", "acked", "unacked", "starts", "id")
_PS_SPARED: Final = ("id", "acked", "starts")
"""What a narrow terminal has no column of, the first of these first: the others say who it is and why it waits."""
_PS_CUT: Final = ("host name", "rule")
"""Names that people give, of any length: the longer of these is cut if it is still too narrow."""
_CUT_MIN: Final = 9
_GAP: Final = 2


def _ps_rows(rows: list[VmmRow]) -> list[list[str]]:
    return [
        [
            each["ordinal"],
            shown(each["hostname"]),
            each["in"],
            _sled(each),
            (each["since"] or "-")[11:19],
            each["asked"] or "-",
            shown(each["rule"] or "-"),
            each["acked"] or "-",
            str(each["unacknowledged"] or "-"),
            str(each["restarts"] + 1),
            each["propolis_id"],
        ]
        for each in sorted(rows, key=lambda row: (len(row["ordinal"]), row["ordinal"]))
    ]


def _sled(row: VmmRow) -> str:
    """Its name; of an id the beginning, as everywhere."""
    return row["sled_id"][:8] if row["sled"] == row["sled_id"] else shown(row["sled"])


def _ps_table(rows: list[list[str]]) -> Table:
    return ps_table(rows, Console().width)


def ps_table(rows: list[list[str]], width: int) -> Table:
    """For a terminal so wide: a column is there as a whole, or not at all while something else can go, or cut."""
    widths = {name: max(map(len, (name, *cells))) for name, cells in zip(_PS, _columns(rows), strict=True)}

    def too_wide() -> int:
        return max(0, sum(widths.values()) + _GAP * (len(widths) - 1) - width)

    for spared in _PS_SPARED:
        if too_wide():
            del widths[spared]
    longest = max(_PS_CUT, key=widths.__getitem__)
    while too_wide() and widths[longest] > _CUT_MIN:
        widths[longest] -= 1
        longest = max(_PS_CUT, key=widths.__getitem__)
    table = Table(
        *(
            Column(name, no_wrap=True, width=room, justify="right" if name in {"unacked", "starts"} else "left")
            for name, room in widths.items()
        ),
        box=None,
        padding=(0, _GAP, 0, 0),
        pad_edge=False,
    )
    for cells in rows:
        table.add_row(*(cell for name, cell in zip(_PS, cells, strict=True) if name in widths))
    return table


def _columns(rows: list[list[str]]) -> list[list[str]]:
    return [[cells[i] for cells in rows] for i in range(len(_PS))]


@attrs.frozen
class Asked:
    """What `expect` waits for. Durations in microseconds; `since_us`: how far back a passed state counts."""

    vmm: str
    state: str
    within_us: int
    since_us: int | None


def expect(address: str, token: str | None, asked: Asked, *, as_json: bool) -> int:
    """Waits; 0 if it was so in time, 1 with timeline and why if not."""
    query = {"state": asked.state, "within_ms": str(asked.within_us // 1000)}
    if asked.since_us is not None:
        query["since_ms"] = str(asked.since_us // 1000)
    path = f"/vmms/{segment(asked.vmm)}/expect?{urllib.parse.urlencode(query)}"
    try:
        answer = _get(address, path, token, Expected, timeout_s=asked.within_us / 1e6 + TIMEOUT_S)
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(answer)
    elif not answer["met"]:
        sys.stdout.write(fitted("\n".join(map(shown, answer["says"])) + "\n"))
    else:
        sys.stdout.write(f"{shown(answer['hostname'])} is {asked.state}\n")
    return GOOD if answer["met"] else FAILED


def events(address: str, token: str | None, after: int, *, follow: bool) -> int:
    """Copies the lines as they come; returns the exit code."""
    path = f"/events?after={after}&follow={int(follow)}"
    try:
        with _open(address, path, token, None, None if follow else TIMEOUT_S) as stream:
            for line in stream:
                sys.stdout.write(shown_lines(line.decode(errors="replace")))
                sys.stdout.flush()
    except AskError as error:
        return _failed(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError:
        say("the daemon has gone away")
        return UNREACHABLE
    return GOOD


def ready(address: str, token: str | None, wait_s: float) -> int:
    """0 once every sled of the daemon is registered with Nexus, 1 if that does not happen within `wait_s`."""
    deadline = time.monotonic() + wait_s  # noqa: TID251 -- a person waits
    while True:
        try:
            _get(address, "/ready", token, Readiness)
        except AskError as error:
            if time.monotonic() >= deadline:  # noqa: TID251 -- same
                return _failed(error)
            time.sleep(_LOOK_S)
        else:
            sys.stdout.write("ready\n")
            return GOOD


def why(address: str, token: str | None, vmm: str, as_json: bool) -> int:
    """Print the explanation of one VMM; returns the exit code."""
    try:
        answer = _get(address, f"/vmms/{segment(vmm)}", token, Why)
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(answer)
    else:
        sys.stdout.write(fitted("\n".join(map(shown, answer["says"])) + "\n"))
    return GOOD


def log(address: str, token: str | None, vmm: str, as_json: bool) -> int:
    """Print what happened to one VMM; returns the exit code."""
    try:
        lines = _get(address, f"/vmms/{segment(vmm)}/log", token, list[LogLine])
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(lines)
    else:
        sys.stdout.write("".join(f"{each['at']} {shown(each['text'])}\n" for each in lines))
    return GOOD


def inject(address: str, token: str | None, vmm: str, fault: dict[str, Any], *, as_json: bool) -> int:
    """Send a fault; returns the exit code."""
    try:
        answer = _get(address, f"/vmms/{segment(vmm)}/inject", token, Injected, json.dumps(fault).encode())
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(answer)
        return GOOD
    [(kind, what)] = [(kind, what) for kind, what in fault.items() if kind != "illegal"]
    told = {"state": f"goes to {what}", "guest": f"its guest does: {what}", "forget_vmm": "its agent forgets it",
            "kill_propolis": "its Propolis dies", "do": str(what).removesuffix(": {}")}.get(kind, kind)  # fmt: skip
    rule = answer.get("rule")
    lasts = str(what).startswith(("hold", "stall"))
    by = "" if rule is None else f" (rule {shown(rule)}{'; sim-sled release ' + rule if lasts else ''})"
    sys.stdout.write(f"{shown(vmm)}: {shown(told)}{by}\n")
    return GOOD


def rules(address: str, token: str | None, as_json: bool) -> int:
    """Print the scenario's rules and how often they fired; returns the exit code."""
    try:
        played = _get(address, "/scenario", token, Played)
        rows = _get(address, "/rules", token, list[RuleRow])
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(played | {"rules": rows})
        return GOOD
    if played["last_error"] is not None:
        say(f"not in effect, the rules before it are: {played['last_error']}")
    names = ("rule", "at", "matched", "fired")
    cells = [[shown(each["name"]), shown(each["at"]), str(each["matched"]), str(each["fired"])] for each in rows]

    if not rows and sys.stdout.isatty():
        sys.stdout.write("no rules (sim-sled inject VMM FAULT makes one; up --scenario NAME brings some)\n")
        return GOOD
    show(names, cells, table(names))
    return GOOD


def snapshot(address: str, token: str | None, out: Path | None) -> int:
    """Writes the whole rack to a file, or to stdout; returns the exit code."""
    try:
        head = _get(address, "/snapshot", token, Kept, None, MOVE_S)
    except AskError as error:
        return _failed(error)
    text = json.dumps(head, indent=1) + "\n"
    if out is None:
        sys.stdout.write(text)
        return GOOD
    try:
        write_text(out, text)
    except CannotWrite as error:
        say(str(error))
        return BAD_INPUT
    say(f"wrote {out}: {_held(len(head['sleds']), head['vmms'], head['model'])}")
    return GOOD


def restore(address: str, token: str | None, file: Path, as_json: bool) -> int:
    """Lets a daemon take up what a file holds; returns the exit code."""
    try:
        raw = read_stdin(SNAPSHOT_MAX) if str(file) == "-" else read_bounded(file, SNAPSHOT_MAX)
        body = json.dumps({"snapshot": raw.decode()}).encode()
        answer = _get(address, "/restore", token, Restored, body, MOVE_S)
    except TooLong:
        say(f"{file}: larger than any snapshot")
        return BAD_INPUT
    except UnicodeDecodeError:
        say(f"{file} is no snapshot of sim-sled")
        return BAD_INPUT
    except OSError as error:
        say(f"{file}: {error.strerror or error}")
        return BAD_INPUT
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(answer)
    else:
        held = _held(answer["sleds"], answer["vmms"], answer["model"])
        sys.stdout.write(f"restored {held}, as of {answer['taken']}\n")
    return GOOD


def _held(sleds: int, vmms: int, model: bool) -> str:
    return f"{counted(sleds, 'sled')}, {counted(vmms, 'VMM')}{', the Nexus model' if model else ''}"


def moment(address: str, token: str | None, path: str, as_json: bool) -> int:
    """`pause`, `resume`: what time it is then; returns the exit code."""
    try:
        answer = _get(address, path, token, Time, b"")
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(answer)
    else:
        sys.stdout.write(_time_told(answer))
    return GOOD


def move(address: str, token: str | None, path: str, wanted: dict[str, Any], as_json: bool) -> int:
    """`step`, `until`: 0 if what was asked for came about, 1 if not, with why."""
    try:
        answer = _get(address, path, token, Moved, json.dumps(wanted).encode(), MOVE_S)
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(answer)
    else:
        sys.stdout.write(fitted("".join(f"{shown(line)}\n" for line in answer["says"])) + _time_told(answer))
    return GOOD if answer["met"] else FAILED


def _time_told(answer: Time) -> str:
    due = answer["next_in_ms"]
    following = "nothing is due" if due is None else f"next in {brief(round(due * 1000))}"
    return f"{'paused at' if answer['paused'] else 'running,'} {answer['now']}, {following}\n"


def post(to: Found, path: str, kind: type[T], told: Callable[[T], str], *, as_json: bool, body: bytes = b"") -> int:
    """A control call with a body of JSON, or none; `told` puts its answer as a sentence. Returns the exit code."""
    try:
        answer = _get(to.address, path, to.token, kind, body, SCALE_S if body else TIMEOUT_S)
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(answer)
    else:
        sys.stdout.write(shown(told(answer)) + "\n")
    return GOOD


def _get(
    address: str,
    path: str,
    token: str | None,
    kind: type[T],
    body: bytes | None = None,
    timeout_s: float = TIMEOUT_S,
) -> T:
    """The answer, as it came: fields of a newer daemon are kept. `kind`: what the table of operations says it is; a
    server that answers otherwise is no control API.
    """
    with _open(address, path, token, body, timeout_s) as response:
        try:
            answer = foreign.load(response)
            msgspec.convert(answer, kind)
        except ValueError as error:
            raise AskError(f"no control API at {address}: {error}", UNREACHABLE) from None
    return cast(T, answer)


_OF_OTHERS: Final = ("Not Found", 'missing expected header "api-version"')
"""What a model of Nexus says of our paths, and what a sled does: they listen beside a control API."""


def _open(address: str, path: str, token: str | None, body: bytes | None, timeout_s: float | None) -> Any:
    headers = {"content-type": "application/json"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"http://{address}{path}", data=body, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            try:
                message = foreign.load(error)["message"]
            except (ValueError, KeyError, TypeError):
                message = ""
        if not message or message in _OF_OTHERS:
            other = f"{error.code} {message or error.reason}"
            told = f"no control API at {address}, but somebody else: {other} (a rack's: sim-sled port control)"
            raise AskError(told, UNREACHABLE) from None
        # 503 is "not yet", which `ready` waits for; what the daemon refuses is what the person asked for
        raise AskError(str(message), BAD_INPUT if 400 <= error.code < 500 else FAILED) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise AskError(f"no control API at {address}: {getattr(why, 'strerror', None) or why}", UNREACHABLE) from None


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _failed(error: AskError) -> int:
    say(str(error))
    return error.code
