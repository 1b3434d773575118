"""Writes what a daemon's core is asked and what it answers into a folder: `serve|up --record DIR`.

The loop only makes lines; a thread of its own writes what has come together, some ten times a second, so a slow disk
keeps nobody waiting and `kill -9` costs the last tenth of a second. A recording is whole or it ends with a sentence:
one with a hole could not be replayed from there on. At a limit, or when the disk fails, it ends; the rack goes on.

Read before: daemon/daemon.py, daemon/options.py, daemon/part_files.py, recording/lines.py.
Read next: daemon/recordings.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from nexus_client.types import stamp
from sim_sled import logs
from sim_sled.core.config import SledConfig
from sim_sled.daemon.graph import program
from sim_sled.daemon.part_files import PART_BYTES, CannotRecord, PartFiles
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.recording import lines
from sim_sled.recording.forms import NoForm, form
from sim_sled.recording.lines import Turn, says_all

if TYPE_CHECKING:
    from sim_sled.daemon.options import Options
    from sim_sled.engine.cast import Subject
    from sim_sled.http.exchange import Exchange

TOTAL_BYTES: Final = 4 * 1024 * 1024 * 1024
"""Of a recording: a day of a busy small rack. It ends there; a disk that is full would end more than a recording."""
BEHIND_BYTES: Final = 64 * 1024 * 1024
"""What may wait for the disk. More is a disk that does not keep up, and memory that others need."""
TURN_BYTES: Final = 400
"""Of a turn that is not written down yet, as a rule."""
FLUSH_S: Final = 0.1


class Recorder:
    """The recording of one daemon. `begin`, then what happens in its order, then `close`."""

    def __init__(
        self,
        folder: Path,
        files: dict[str, str],
        *,
        part_bytes: int = PART_BYTES,
        total_bytes: int = TOTAL_BYTES,
        behind_bytes: int = BEHIND_BYTES,
    ) -> None:
        """Raises `CannotRecord` if the folder is not empty or cannot be written."""
        self.ended = ""
        """Why it ended before the daemon did; empty: it has not."""
        self._folder = folder
        self._files = files
        self._scribe = lines.Scribe()
        self._behind_max = behind_bytes
        self._waiting: list[bytes | Turn] = []
        self._bytes = 0
        self._turns = 0
        self._last: Turn | None = None
        """The last turn, if it is still here and as its core made it: its request may go with it."""
        self._taking = threading.Lock()
        self._now_us: Callable[[], int] = lambda: 0
        self._log = logs.get("recorder")
        self._parts = PartFiles(folder, part_bytes)
        self._disk = _Disk(self._parts, total_bytes)

    def begin(self, options: Options, sleds: list[SledConfig], clock: Callable[[], int]) -> None:
        """The first line. Raises `CannotRecord` if something decides in this daemon that no line can hold."""
        if options.propolis is not PropolisMode.NONE:
            raise CannotRecord("--record and --propolis do not go together: consoles and migrations are sockets")
        if options.wrong is not None:
            raise CannotRecord("sleds that are wrong on purpose are not recorded")
        try:
            header = lines.Header(
                recording=lines.FORMAT,
                of=self._parts.of,
                part=1,
                version=version("sim-sled"),
                program=program(),
                began=stamp(clock()),
                begins="from the beginning",
                seed=options.seed,
                rules_seed=options.seed if options.engine is None else options.engine.seed,
                sleds=form(tuple(sleds)),
                scenario=None if options.engine is None else form(options.engine.scenario),
                plays=options.plays,
                pacer=form(options.pacer),
                sled_pacer=form(options.sled_pacer),
                silence_us=options.silence_us,
                watched=options.history,
                companions=options.companions is not None,
                files=self._files,
            )
        except NoForm as error:
            raise CannotRecord(f"{error} decides in this daemon, and no file can hold it") from error
        self._now_us = clock
        with self._parts.usable():
            self._disk.start(self._take)
        self._add(lines.written(header))

    # ---- what happens

    def turn(self, conduct: Callable[[Any, int], Sequence[Any]], item: Any, now_us: int) -> Sequence[Any]:
        """One turn of the core, and its line."""
        if self.ended:
            return conduct(item, now_us)
        told = self._scribe.input(item)
        try:
            effects = conduct(item, now_us)
        except Exception as error:
            self._add(self._scribe.failed(now_us, told, error))
            raise
        line = self._scribe.turn(now_us, told, effects)
        self._turns += 1
        self._last = line if line.__class__ is Turn else None
        self._add(line)
        return effects

    def tell(self, kind: str, who: Subject | None, sled: str, text: str) -> None:
        """What a rule says, during a turn."""
        if not self.ended:
            self._scribe.tell(kind, who, sled, text)

    def listens(self, sled_id: UUID, address: str, now_us: int) -> None:
        self._did(lines.listens(sled_id, address), now_us)

    def joins(self, config: SledConfig, name: str, now_us: int) -> None:
        self._did(lines.joins(config, name), now_us)

    def leaves(self, sled_id: UUID, now_us: int) -> None:
        self._did(lines.leaves(sled_id), now_us)

    def keeps(self, sled_id: UUID, kept: dict[str, Any], now_us: int) -> None:
        self._did(lines.keeps(sled_id, kept), now_us)

    def begins(self) -> int:
        """A request to a sled has come (`http.exchange.Tap`)."""
        return self._turns

    def over(self, sled_id: UUID, exchange: Exchange) -> None:
        """A request to a sled is answered. When there was one turn since it came, that was its own."""
        if self._last is not None and self._turns - exchange.begun == 1:
            with self._taking:
                if self._last is not None and says_all(self._last, exchange):
                    self._last.api = exchange.version
                    self._last = None
                    return
        if not self.ended:
            self._add(lines.exchanged(self._now_us(), sled_id, exchange))

    def end(self, why: str) -> None:
        """The recording ends here; the daemon goes on."""
        if not self.ended:
            self._add(lines.written(lines.End(end=why)))
            self.ended = why
            self._log.warning("the recording ends", folder=str(self._folder), why=why)

    def close(self) -> None:
        """Whatever waits is written."""
        self._disk.stop()
        self._look()

    # ---- to the disk

    def _did(self, did: dict[str, Any], now_us: int) -> None:
        self._add(lines.written({"at": now_us, "did": did}))

    def _add(self, line: bytes | Turn) -> None:
        if self._disk.failed:
            self._look()
        if self.ended:
            return
        self._waiting.append(line)
        self._bytes += TURN_BYTES if line.__class__ is Turn else len(line)  # type: ignore[arg-type]  # else it is bytes
        if self._bytes > self._behind_max:
            self._waiting.clear()  # told by the next part of the sentence
            self.end(f"the disk does not keep up: {self._behind_max:,} bytes waited for it and are not here")

    def _look(self) -> None:
        why = self._disk.failed
        if why and not self.ended:
            self.ended = why
            self._log.warning("the recording ends", folder=str(self._folder), why=why)

    def _take(self) -> list[bytes]:
        """All that waits. Of the writing thread: each step is one to the interpreter, and no turn gets its request
        while it is taken.
        """
        with self._taking:
            self._last = None
            taken, self._waiting = self._waiting, []
        self._bytes = 0
        return [each if each.__class__ is bytes else lines.written(each) for each in taken]


class _Disk:
    """The thread that writes."""

    def __init__(self, files: PartFiles, total_bytes: int) -> None:
        self.failed = ""
        """Why nothing is written any more."""
        self._files = files
        self._left = total_bytes
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, take: Callable[[], list[bytes]]) -> None:
        """OSError if the first part cannot be made."""
        self._files.begin()
        self._thread = threading.Thread(target=self._run, args=(take,), name="recorder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._files.close()

    def _run(self, take: Callable[[], list[bytes]]) -> None:
        last = False
        while not last:
            last = self._stop.wait(FLUSH_S)
            waiting = take()
            if waiting and not self.failed:
                try:
                    self._write(waiting)
                except OSError as error:
                    self.failed = f"cannot write {self._files.folder}: {error.strerror or error}"

    def _write(self, waiting: list[bytes]) -> None:
        size = sum(map(len, waiting)) + len(waiting)
        if size <= self._left:  # nearly always
            self._left -= size
            self._files.write(waiting)
            return
        ready: list[bytes] = []
        for line in waiting:
            self._left -= len(line) + 1
            if self._left < 0:
                self.failed = "the recording has reached its limit of bytes"
                ready.append(lines.written(lines.End(end=self.failed)))
                break
            ready.append(line)
        self._files.write(ready)
