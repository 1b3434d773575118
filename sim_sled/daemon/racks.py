"""Where running racks are found by name: a file each, with its addresses, held by a lock while the process lives.

Below `$XDG_RUNTIME_DIR/sim-sled`, or `$XDG_STATE_HOME` (`~/.local/state`) where there is none. A process that was
killed leaves a file that nobody holds: it counts for nothing and is taken away by whoever comes next. The log of one
that was detached stays for whoever looks for it, until `down` or another rack of that name.

Read next: daemon/small_rack.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nexus_client.dropshot import foreign
from nexus_client.dropshot.port_file import put
from sim_sled.port_file import BYTES_MAX

NAME: Final = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Names of racks: they are files, and begin host names."""
_NO_VERDICT: Final = "-"


class NameTaken(Exception):
    """A rack of this name runs already."""


class NoRack(LookupError):
    """No rack of this name runs. `several`: none was named, and there are several; the text lists them."""

    def __init__(self, text: str, *, several: bool = False) -> None:
        super().__init__(text)
        self.several = several


def folder() -> Path:
    """Where the files are. Not made until something is written."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "sim-sled"
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "sim-sled"


def log_of(name: str) -> Path:
    """What a rack says that is detached."""
    return folder() / f"{name}.log"


def _lock_of(name: str) -> Path:
    return folder() / f"{name}.lock"


@contextmanager
def claimed(name: str) -> Iterator[Path]:
    """The rack's name is ours while this lasts; yields the file that `publish` writes. Nothing is left behind. Raises
    `NameTaken`, or OSError if the folder cannot be written.
    """
    where = folder()
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock, file = _lock_of(name), where / f"{name}.json"
    with contextlib.ExitStack() as stack:
        with _alone(where):
            held = stack.enter_context(lock.open("a+", encoding="utf-8"))
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise NameTaken(f"a rack called {name!r} runs already") from None
            file.unlink(missing_ok=True)
            log_of(name).unlink(missing_ok=True)
        try:
            yield file
        finally:
            # a session that is over takes the folder along: a rack that outlives it ends as well as any
            with contextlib.suppress(OSError), _alone(where):
                file.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)


@contextmanager
def _alone(where: Path) -> Iterator[None]:
    """Nobody else claims, gives back or looks meanwhile: who looks must take a lock for a moment to see whether it is
    free, which is no rack, and takes away the lock of a dead one, which somebody may be about to take. As long as a
    few calls about files take, so nobody waits for long.
    """
    itself = os.open(where, os.O_RDONLY)
    try:
        fcntl.flock(itself, fcntl.LOCK_EX)
        yield
    finally:
        os.close(itself)


def ends_with(name: str, code: int | None) -> None:
    """What whoever waits for the end of the rack (`ending`) is told: our exit code. It goes with the claim. None, as
    long as there is no verdict yet, and is to be one.
    """
    with contextlib.suppress(OSError):  # nobody finds the rack there, and so nobody waits
        _lock_of(name).write_text(_NO_VERDICT if code is None else str(code), encoding="ascii")


@contextmanager
def ending(name: str) -> Iterator[Callable[[], int | None]]:
    """Begun while the rack runs, it tells with what exit code it has ended; 0 if it did not say, None if there was to
    be a verdict and it has ended without: it was killed.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(_lock_of(name).open(encoding="ascii"))
        except FileNotFoundError:
            yield lambda: 0  # it has ended meanwhile
        else:
            yield lambda: None if (said := lock.read()) == _NO_VERDICT else int(said or "0")


def publish(file: Path, addresses: dict[str, Any]) -> None:
    """Writes the file so that nobody ever reads half of it. OSError."""
    put(file, json.dumps(addresses, indent=2) + "\n")


def running() -> dict[str, dict[str, Any]]:
    """Name -> addresses of every rack that runs and is ready, sorted. Files of dead ones are removed."""
    found: dict[str, dict[str, Any]] = {}
    where = folder()
    if not where.is_dir():
        return found
    with _alone(where):
        for lock in sorted(where.glob("*.lock")):
            file = lock.with_suffix(".json")
            if _is_free(lock):
                file.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
                continue
            try:
                found[lock.stem] = foreign.loads(file.read_bytes()[:BYTES_MAX])
            except (OSError, ValueError):
                continue  # it is starting, or ends
    return found


def _is_free(lock: Path) -> bool:
    try:
        with lock.open("r+", encoding="utf-8") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def find(name: str | None = None) -> tuple[str, dict[str, Any]]:
    """The rack of this name; without one the only rack that runs. Raises `NoRack`."""
    racks = running()
    if name is not None:
        if name in racks:
            return name, racks[name]
        there = f"there are: {', '.join(racks)}" if racks else "there are none (sim-sled up starts one)"
        told = f"no rack called {name!r} runs; {there}"
        if NAME.fullmatch(name) and log_of(name).is_file():
            told += f"; it was killed, its log is {log_of(name)}"
        raise NoRack(told)
    if len(racks) == 1:
        return next(iter(racks.items()))
    if not racks:
        raise NoRack("no rack runs (sim-sled up starts one)")
    raise NoRack(f"{len(racks)} racks run: {', '.join(racks)}; say which with --rack NAME", several=True)
