"""What a daemon keeps over a restart: the facts of its sleds' estates and their stored bytes (`--state-dir`).

    DIR/SLED_ID/lock            held while a daemon runs
    DIR/SLED_ID/facts/NAME.json one per area that keeps anything
    DIR/SLED_ID/blobs/...       artifacts and bundles

What is acknowledged was written before. VMMs are not kept: they end with the process, as on a sled that reboots.

Read before: core/estate.py. Read next: daemon/daemon.py, daemon/taking_up.py.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID

from nexus_client.dropshot import foreign
from sim_sled import logs
from sim_sled.core.estate import Area, Estate
from sim_sled.http.blobs import Blobs
from sim_sled.language.files import TooLong, read_bounded

FACTS_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of one file; a sled with all that its limits allow has a tenth of it."""


class BadStateDir(ValueError):
    """The directory cannot be used; the text says why."""


class StateDir:
    """The directory of one daemon."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks: list[IO[bytes]] = []
        self._behind: dict[UUID, set[type[Area]]] = {}
        """What a sled has changed and the disk does not have, for want of room or worse."""
        self._log = logs.get("state-dir")

    def take(self, estate: Estate) -> Blobs:
        """Lock the folder of a sled, give its estate what is kept there, and return its stored bytes.

        Raises `BadStateDir`: another daemon has it, or it holds what nobody can read.
        """
        folder = self._root / str(estate.sled_id)
        try:
            (folder / "facts").mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("wb")
        except OSError as error:
            raise BadStateDir(f"{folder}: {error.strerror}") from None
        self._locks.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadStateDir(f"{folder}: another daemon uses it") from None
        for path in sorted((folder / "facts").glob("*.json")):
            estate.kept[path.stem] = _read(path)
        return Blobs(folder / "blobs")

    def is_behind(self, estate: Estate) -> bool:
        """Whether there is something to be written, of now or of earlier."""
        return bool(estate.unsaved) or estate.sled_id in self._behind

    def save(self, estate: Estate) -> bool:
        """Write what has changed. False: something that has changed since the last time is not written, so nobody may
        be told that it is done. It is tried again each time that we are asked; the disk may have room by then.
        """
        wanted = self._behind.get(estate.sled_id, set()) | estate.unsaved
        new, estate.unsaved = estate.unsaved, set()
        folder = self._root / str(estate.sled_id) / "facts"
        try:
            for kind in sorted(wanted, key=lambda each: each.__name__):
                if kind.kept_as is not None:
                    _write(folder / f"{kind.kept_as}.json", estate.of(kind).dump())
                wanted.discard(kind)
        except OSError as error:
            if estate.sled_id not in self._behind:
                self._log.error(
                    "cannot keep what has changed; such requests fail", folder=str(folder), why=str(error)
                )
            self._behind[estate.sled_id] = wanted
            return not new & wanted
        if self._behind.pop(estate.sled_id, None):
            self._log.warning("all that has changed is kept again", folder=str(folder))
        return True

    def close(self) -> None:
        """Others may use it now."""
        for lock in self._locks:
            lock.close()
        self._locks.clear()

    def sled_folder(self, sled_id: UUID) -> Path:
        """Where the things of a sled are."""
        return self._root / str(sled_id)


def _read(path: Path) -> Any:
    try:
        return foreign.loads(read_bounded(path, FACTS_BYTES_MAX, regular=True))
    except TooLong:
        raise BadStateDir(f"{path}: larger than {FACTS_BYTES_MAX} bytes") from None
    except OSError as error:
        raise BadStateDir(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise BadStateDir(f"{path}: {error}") from None


def _write(path: Path, value: Any) -> None:
    """All or nothing, also when the machine stops half way."""
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
