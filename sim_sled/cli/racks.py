"""Racks by their names: one in the background, `down`, `racks`, `port`. `add_to(app)` mounts the commands.

Read before: cli/asking.py. Read next: cli/up.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from nexus_client.dropshot import foreign
from nexus_client.dropshot.command_line import FAILED, OneOf, typed
from nexus_client.dropshot.command_line import UNREACHABLE as NO_NEXUS
from nexus_client.dropshot.telling import fitted
from sim_sled.cli.asking import Rack, one_name
from sim_sled.cli.surface import fail, say

UNNAMED: Final = "rack"
"""The name of one to which nobody gave one."""
END_S: Final = 60.0
LOG_SHOWN: Final = 20
"""Last lines of a rack that was killed: enough for a traceback."""
_LOOK_S: Final = 0.05

ToldAs = Callable[[dict[str, Any]], str]
"""How a rack's addresses are told."""

Name = Annotated[str | None, typer.Argument(metavar="RACK", help="its name; the only one that runs, if missing")]


def add_to(app: typer.Typer) -> None:
    """Mount the commands on the program's app."""
    for name, command in (("down", down), ("racks", racks), ("port", port)):
        app.command(name)(command)


def _of_the_other(args: list[str]) -> list[str]:
    """The arguments of the process in the background: what is not about there being one."""
    kept, ours = [], iter(args)
    for arg in ours:
        if arg == "--log-file":
            next(ours, None)
        elif arg != "--detach" and not arg.startswith("--log-file="):
            kept.append(arg)
    return kept


def detached(name: str, args: list[str], told_as: ToldAs, log_file: Path | None) -> int:
    """Starts this command (`args`) again in the background; returns when the rack is ready, or has ended. `log_file`:
    where its log stays; a link to it is then where else the log is.
    """
    from sim_sled.daemon import racks as known

    where = known.folder()
    try:
        where.mkdir(parents=True, exist_ok=True, mode=0o700)
        # the name's own log is somebody else's as long as a rack of that name runs
        handle, written = tempfile.mkstemp(prefix=f"{name}.", suffix=".log", dir=where)
        if log_file is not None:
            os.close(handle)
            handle = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            Path(written).unlink()
            Path(written).symlink_to(log_file.absolute())
    except OSError as error:
        fail(f"cannot write {where}: {error.strerror}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # of `nohup`
            signal.signal(number, lambda asked, _: sys.exit(128 + asked))
    with open(handle, "wb") as log:  # noqa: PTH123 -- it is open already
        process = subprocess.Popen(  # noqa: S603 -- our own command, as it was given
            [sys.executable, "-m", "sim_sled", *_of_the_other(args)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while process.poll() is None:  # it gives up by itself when nothing goes on any more (small_rack.READY_S)
            found = known.running().get(name)
            if found is not None and found["pid"] == process.pid:
                for told in left_out(Path(written).read_text(encoding="utf-8", errors="replace")):
                    say(told)
                Path(written).replace(known.log_of(name))
                sys.stdout.write(told_as(found | {"log": str(log_file or known.log_of(name))}))
                return 0
            time.sleep(_LOOK_S)
    except (KeyboardInterrupt, SystemExit):  # who does not want to wait does not want the rack
        process.terminate()
        process.wait()
        Path(written).unlink()
        raise
    code = process.wait()
    sys.stderr.write(fitted(_for_people(Path(written).read_text(encoding="utf-8", errors="replace")), sys.stderr))
    Path(written).unlink()
    return code


def _for_people(said: str) -> str:
    """Of what a detached rack wrote, its sentences; all of it, if there are none: it did not end by itself."""
    return "".join(line for line in said.splitlines(keepends=True) if not _is_logged(line)) or said


def left_out(said: str) -> list[str]:
    """Of what a detached rack logged until it was ready: what of its scenario a rack does not do."""
    told = []
    for line in filter(_is_logged, said.splitlines()):
        with contextlib.suppress(ValueError):  # the last one may be under way
            logged = foreign.loads(line)
            told += [str(logged["msg"])] if logged.get("component") == "scenario" else []
    return told


def _is_logged(line: str) -> bool:
    """Whether it is a line for programs (Bunyan)."""
    return line.startswith('{"v":')


def called(name: str) -> str:
    """A rack in a sentence."""
    return "the rack" if name == UNNAMED else f"rack {name}"


def down(name: Name = None, rack: Rack = None) -> None:
    """End a rack; returns when it is gone. Exit 1 if its scenario was judged (--junit) and was not so."""
    from sim_sled.cli.control_client import rack_named
    from sim_sled.daemon import racks as known

    asked = one_name(name, rack)
    if asked is not None and known.NAME.fullmatch(asked) and asked not in known.running():
        with contextlib.suppress(FileNotFoundError):
            log = known.log_of(asked)
            said, stays = log.read_text(encoding="utf-8", errors="replace").splitlines(), log.is_symlink()
            log.unlink()
            sys.stderr.write("".join(f"  {line}\n" for line in said[-LOG_SHOWN:]))
            gone = "which stays" if stays else "now removed"
            say(f"{called(asked)} was killed before; that was the end of its log, {gone}")
            raise typer.Exit(NO_NEXUS)
    name, found = rack_named(asked)
    with known.ending(name) as ended, _last_words(name):
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(found["pid"], signal.SIGTERM)
        until = time.monotonic() + END_S  # noqa: TID251 -- a person waits
        while name in known.running():
            if time.monotonic() > until:  # noqa: TID251 -- same
                fail(f"{called(name)} (process {found['pid']}) does not end")
            time.sleep(_LOOK_S)
        code = ended()
    if code is None:
        say(f"{called(name)} has ended without its verdict: it was killed")
        raise typer.Exit(FAILED)
    sys.stdout.write(f"{called(name)} has ended\n")
    if code:
        raise typer.Exit(code)


@contextlib.contextmanager
def _last_words(name: str) -> Iterator[None]:
    """What a rack that is detached says while it ends (its verdict, what it could not tell Nexus) is said here: its
    log goes.
    """
    from sim_sled.daemon import racks as known

    with contextlib.ExitStack() as stack:
        log = None
        with contextlib.suppress(FileNotFoundError):  # one that is not detached has a terminal of its own
            log = stack.enter_context(known.log_of(name).open(encoding="utf-8", errors="replace"))
            log.seek(0, os.SEEK_END)
        yield
        if log is not None:
            said = log.read()
            told = "".join(line for line in said.splitlines(keepends=True) if not _is_logged(line))
            sys.stderr.write(fitted(told, sys.stderr))
    known.log_of(name).unlink(missing_ok=True)


def racks(json_: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """List the racks that run."""
    from sim_sled.daemon import racks as known

    found = known.running()
    if json_:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    if not found and sys.stdout.isatty():
        sys.stdout.write("no rack runs (sim-sled up starts one)\n")
        return
    from sim_sled.cli.control_client import show, table

    names = ("rack", "sleds", "control", "process")
    rows = [[name, str(len(each["sleds"])), each["control"], str(each["pid"])] for name, each in found.items()]
    show(names, rows, table(names))


@typed(OneOf(("--port-file", "--rack"), "are two ways to say which daemon; give one"))
def port(
    field: Annotated[
        str | None,
        typer.Argument(metavar="FIELD", help="like control, address, sleds.0.address, model.control; none: a list"),
    ] = None,
    file: Annotated[Path | None, typer.Option("--port-file", help="a port file; else a rack that runs")] = None,
    rack: Rack = None,
    wait: Annotated[float, typer.Option(min=0, help="seconds to wait until the file, or the rack, is there")] = 0.0,
) -> None:
    """Print one address out of a port file, for scripts; without FIELD say what there is."""
    from sim_sled.daemon import racks as known

    def has_come() -> bool:
        if file is not None:
            return file.exists()
        return bool(known.running()) if rack is None else rack in known.running()

    until = time.monotonic() + wait  # noqa: TID251 -- a person waits
    while not has_come() and time.monotonic() < until:  # noqa: TID251 -- same
        time.sleep(_LOOK_S)
    if file is None:
        from sim_sled.cli.control_client import rack_named

        value: Any = rack_named(rack)[1]
    else:
        try:
            value = foreign.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            fail(f"{file} is no port file: {getattr(error, 'strerror', None) or error}")
    if field is None:
        sys.stdout.write("".join(f"{name}\n" for name in _fields(value)))
        return
    told = value
    for part in field.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, ValueError, IndexError, TypeError):
            from sim_sled.language.words import hint

            fail(f"there is no {field!r}{hint(field, _fields(told)) or ' (sim-sled port lists what there is)'}")
    sys.stdout.write((value if isinstance(value, str) else json.dumps(value)) + "\n")


def _fields(value: Any, before: str = "") -> Iterator[str]:
    """What `port` can be asked for, as it is written there."""
    if isinstance(value, dict | list):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _fields(each, f"{before}.{name}" if before else str(name))
    else:
        yield before
