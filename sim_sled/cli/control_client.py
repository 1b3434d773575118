"""What the commands ask a running daemon's control API, and how they print it."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from rich.console import Console
from rich.table import Column, Table

TIMEOUT_S: Final = 10.0
"""The control API answers at once or not at all."""

_LOOK_S: Final = 0.1
_PIPE_WIDTH: Final = 200

GOOD, FAILED, BAD_INPUT, UNREACHABLE = 0, 1, 2, 3


class AskError(Exception):
    """What went wrong, and the exit code for it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def where(at: str | None, port_file: Path | None) -> str:
    """The control API's address, from an option, the environment or a port file. Exits with 2 if there is none."""
    if at is not None:
        return at
    if port_file is not None:
        try:
            found = json.loads(port_file.read_text())["control"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            _say(f"{port_file} is no port file: {error}")
            raise SystemExit(BAD_INPUT) from None
        if isinstance(found, str):
            return found
    _say("which daemon? give --at ADDR, --port-file FILE or SIM_SLED_CONTROL")
    raise SystemExit(BAD_INPUT)


def ps(address: str, token: str | None, as_json: bool) -> int:
    """Print the VMMs; returns the exit code."""
    try:
        rows = _get(address, "/vmms", token)
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(rows)
        return GOOD
    table = Table(
        Column("VMM", no_wrap=True), "host name", "state", "gen", "rests in", "propolis", "acked", "at", box=None
    )
    for each in rows:
        table.add_row(
            each["propolis_id"],
            each["hostname"],
            each["state"],
            str(each["gen"]),
            each["resting"],
            each["propolis"] or "-",
            each["acked"] or "-",
            each["propolis_listens"] or "-",
        )
    # piped, nothing may be cut off to fit a terminal that is not there
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
    return GOOD


def ready(address: str, token: str | None, wait_s: float) -> int:
    """0 once every sled of the daemon is registered with Nexus, 1 if that does not happen within `wait_s`."""
    deadline = time.monotonic() + wait_s  # noqa: TID251 -- a person waits
    while True:
        try:
            _get(address, "/ready", token)
        except AskError as error:
            if time.monotonic() >= deadline:  # noqa: TID251 -- same
                return _failed(error)
            time.sleep(_LOOK_S)
        else:
            sys.stdout.write("ready\n")
            return GOOD


def why(address: str, token: str | None, vmm: UUID, as_json: bool) -> int:
    """Print the explanation of one VMM; returns the exit code."""
    try:
        answer = _get(address, f"/vmms/{vmm}", token)
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(answer)
    else:
        sys.stdout.write("\n".join(answer["says"]) + "\n")
    return GOOD


def log(address: str, token: str | None, vmm: UUID, as_json: bool) -> int:
    """Print what happened to one VMM; returns the exit code."""
    try:
        lines = _get(address, f"/vmms/{vmm}/log", token)
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(lines)
    else:
        sys.stdout.write("".join(f"{each['at']} {each['text']}\n" for each in lines))
    return GOOD


def inject(address: str, token: str | None, vmm: UUID, fault: str) -> int:
    """Send a fault; returns the exit code."""
    try:
        _print(_get(address, f"/vmms/{vmm}/inject", token, fault.encode()))
    except AskError as error:
        return _failed(error)
    return GOOD


def rules(address: str, token: str | None, as_json: bool) -> int:
    """Print the scenario's rules and how often they fired; returns the exit code."""
    try:
        rows = _get(address, "/rules", token)
    except AskError as error:
        return _failed(error)
    if as_json:
        _print(rows)
        return GOOD
    table = Table(Column("rule", no_wrap=True), "at", "matched", "fired", box=None)
    for each in rows:
        table.add_row(each["name"], each["at"], str(each["matched"]), str(each["fired"]))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)
    return GOOD


def post(address: str, token: str | None, path: str) -> int:
    """A control call without a body; returns the exit code."""
    try:
        _print(_get(address, path, token, b""))
    except AskError as error:
        return _failed(error)
    return GOOD


def _get(address: str, path: str, token: str | None, body: bytes | None = None) -> Any:
    headers = {"content-type": "application/json"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"http://{address}{path}", data=body, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            try:
                message = json.load(error)["message"]
            except (ValueError, KeyError, TypeError):
                message = error.reason
        # 503 is "not yet", which `ready` waits for; what the daemon refuses is what the person asked for
        raise AskError(str(message), BAD_INPUT if 400 <= error.code < 500 else FAILED) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise AskError(f"no control API at {address}: {getattr(why, 'strerror', None) or why}", UNREACHABLE) from None


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _say(message: str) -> None:
    sys.stderr.write(f"sim-sled: {message}\n")


def _failed(error: AskError) -> int:
    _say(str(error))
    return error.code
