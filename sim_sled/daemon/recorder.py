"""Writes what a daemon's core is asked and what it answers into a folder: `serve|up --record DIR`.

The loop makes each line at once, those of a few requests by one call (`TOGETHER`). A thread of its own brings to
the disk what has gathered, five times a second, so a slow disk keeps nobody waiting and `kill -9` costs the last two
tenths of a second.
A recording is whole or it ends with a sentence: one with a hole could not be replayed from there on. Its oldest parts
may go, since some begin with a checkpoint. When it can have none, or the disk fails, it ends; the rack goes on.

Read before: daemon/checkpoint.py, daemon/daemon.py, daemon/options.py, daemon/part_files.py, play/baggage.py,
recording/scribe.py.
Read next: daemon/recordings.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw

from nexus_client.outbox import Delivered
from nexus_client.types import stamp
from propolis_stub.contract import EnsureTarget, MigrateOut
from propolis_stub.migration.script import NO_BAGGAGE
from sim_sled import logs
from sim_sled.core.config import SledConfig
from sim_sled.core.contract import GetState, PutState
from sim_sled.core.vmm import no_baggage
from sim_sled.daemon.checkpoint import NoCheckpoint, taken
from sim_sled.daemon.graph import program
from sim_sled.daemon.part_files import PART_BYTES, ROOM, CannotRecord, PartFiles
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.play.baggage import Witness
from sim_sled.recording import lines
from sim_sled.recording.forms import NoForm, form
from sim_sled.recording.lines import ASKED, HEARD, SHORT
from sim_sled.recording.scribe import Clerk, Entry, Scribe, Short, block, line

if TYPE_CHECKING:
    from propolis_stub.contract import Input as VmInput
    from propolis_stub.migration.script import Baggage
    from sim_sled.core.vmm import BaggageOf
    from sim_sled.daemon.options import Options
    from sim_sled.engine.cast import Subject
    from sim_sled.http.exchange import Exchange
    from sim_sled.http.routes import Call
    from sim_sled.play.passage import Passage

TOTAL_BYTES: Final = 4 * 1024 * 1024 * 1024
"""Of a recording: a day of a busy small rack. Its oldest parts go then; without a checkpoint it ends there."""
CHECKPOINTS: Final = 2 * ROOM
"""So many in that many bytes: some seconds of pause in hours, and no more than a quarter of the limit is lost."""
BEHIND_BYTES: Final = 64 * 1024 * 1024
"""What may wait for the disk. More is a disk that does not keep up, and memory that others need."""
BLOCK_BYTES: Final = 32 * 1024
"""Handed to the thread together: a hundred lines."""
FLUSH_S: Final = 0.2
TOGETHER: Final = 16
"""Lines of requests that msgspec writes by one call: a third cheaper. With a hundred their objects are no longer in
the processor's cache, and those of the next requests are not either, which costs more.
"""
_WRITE: Final = lines.ENCODER.encode_into
_AT_END: Final = -1
"""Where `_WRITE` writes."""
_SHORT_EFFECTS: Final = frozenset(lines.SHORT_EFFECTS)
_NO_TEXT: Final = "", None
"""No version is empty."""
_PLAIN: Final = frozenset({"vmm_put_state", "vmm_get_state"})


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
        self._scribe = Scribe()
        self._said = self._scribe.said
        self._clerk = Clerk()
        self._behind_max = behind_bytes
        self._lines = bytearray()
        """Those that are no block yet. Of the loop alone."""
        self._asked: tuple[int, PutState | GetState, Sequence[Any]] | None = None
        """The last turn, if that is likely to be a request: when, its input, its effects. It has no line yet."""
        self._requests: list[Short] = []
        """Lines of requests since the last one that is written."""
        self._texts: dict[bytes | None, tuple[str | None, Raw | None]] = {}
        """By body, with the version it came with last: how the line says both."""
        self._blocks: deque[bytearray | lines.Header] = deque()
        """Lines, and where parts begin with a checkpoint."""
        self._bytes = 0
        """In the blocks."""
        self._taking = threading.Lock()
        self._now_us: Callable[[], int] = lambda: 0
        self._timer: asyncio.TimerHandle | None = None
        self._log = logs.get("recorder")
        self._parts = PartFiles(folder, part_bytes, total_bytes)
        self._passage: Passage | None = None
        self._header = lines.Header(recording=lines.FORMAT, of=self._parts.of, part=1)
        self._owners: BaggageOf = no_baggage
        self._since = 0
        """Bytes since the last checkpoint."""
        self._every = total_bytes // CHECKPOINTS
        self._disk = _Disk(self._parts, total_bytes)

    def begin(self, options: Options, passage: Passage, clock: Callable[[], int]) -> None:
        """The first line. Raises `CannotRecord` if something decides in this daemon that no line can hold, or if the
        disk does not take it.
        """
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
                begins=lines.BEGINNING,
                seed=options.seed,
                rules_seed=options.seed if options.engine is None else options.engine.seed,
                sleds=_sleds(passage),
                scenario=None if options.engine is None else form(options.engine.scenario),
                plays=options.plays,
                pacer=form(options.pacer),
                sled_pacer=form(options.sled_pacer),
                silence_us=options.silence_us,
                watched=options.history,
                companions=options.companions is not None,
                propolis="" if options.propolis is PropolisMode.NONE else options.propolis.value,
                files=self._files,
            )
        except NoForm as error:
            raise CannotRecord(f"{error} decides in this daemon, and no file can hold it") from error
        self._now_us = clock
        self._passage, self._header = passage, header
        with self._parts.usable():
            self._disk.start(block([line(header)]), self._take)
        self._tick()

    # ---- what happens

    def turn(self, passage: Passage, item: Any, now_us: int) -> Sequence[Any]:
        """One turn of the core, and its line."""
        if self.ended:
            return passage.run(item, now_us)
        if self._asked is not None:
            self._settle()
        kind = type(item)
        if not (kind is PutState or kind is GetState):
            return self._other(passage, item, now_us)
        try:
            effects = passage.run(item, now_us)
        except Exception as error:
            self._add(self._scribe.failed(now_us, self._scribe.input(item), error))
            raise
        self._asked = now_us, item, effects  # most are a reply alone, a value that nobody changes
        return effects

    def _other(self, passage: Passage, item: Any, now_us: int) -> Sequence[Any]:
        """A turn that is none of a request for a state."""
        name = SHORT.get(type(item))
        if name == HEARD and type(item.outcome) is not Delivered:
            name = None
        told = self._scribe.input(item) if name is None else None
        try:
            effects = passage.run(item, now_us)
        except Exception as error:
            self._add(self._scribe.failed(now_us, self._scribe.input(item) if told is None else told, error))
            raise
        if name is None:
            self._line(self._scribe.turn(now_us, told, effects))
        else:
            self._short(now_us, name, item, effects)
        if len(self._lines) >= BLOCK_BYTES:
            self._full()
        return effects

    def _short(self, now_us: int, name: str, item: Any, effects: Sequence[Any]) -> None:
        """A turn of which most have a short line; whatever an area answers, and what is said, needs a long one."""
        for effect in effects:
            if type(effect) not in _SHORT_EFFECTS:
                break
        else:
            if not self._said:
                if self._requests:
                    self._write_requests()
                written = self._lines
                before = len(written)
                try:
                    _WRITE((now_us, name, item, effects), written, _AT_END)
                except (TypeError, ValueError, RecursionError):
                    del written[before:]
                else:
                    written += b"\n"
                    return
        self._line(self._scribe.turn(now_us, self._scribe.input(item), effects))

    def tell(self, kind: str, who: Subject | None, sled: str, text: str) -> None:
        """What a rule says, during a turn."""
        if not self.ended:
            self._scribe.tell(kind, who, sled, text)

    # ---- what migrating VMs ask their owners (play/baggage.py)

    def owned_by(self, owners: BaggageOf) -> BaggageOf:
        """Who serves the Propolis API of the VMMs; what the rack is to have for that."""
        self._owners = owners
        return self.baggage

    def baggage(self, sled_id: UUID, propolis_id: UUID) -> Witness:
        """As a rack asks for it."""
        return Witness(sled_id, propolis_id, self)

    def witnessed(self, sled_id: UUID, propolis_id: UUID, item: VmInput) -> VmInput:
        """An input of the Propolis API: whoever owns the VM brings itself along in it."""
        if not isinstance(item, MigrateOut | EnsureTarget) or item.baggage is NO_BAGGAGE:
            return item
        return msgspec.structs.replace(item, baggage=Witness(sled_id, propolis_id, self))

    def asked(self, witness: Witness, question: str, ask: Callable[[Baggage], object]) -> object:
        """By a core, during a turn."""
        answer = ask(self._owners(witness.sled_id, witness.propolis_id))
        if not self.ended:
            self._scribe.answered(witness.propolis_id, question, answer)
        return answer

    # ---- what a shell does beside turns

    def listens(self, sled_id: UUID, address: str, now_us: int) -> None:
        self._did(lines.listens(sled_id, address), now_us)

    def joins(self, config: SledConfig, name: str, now_us: int) -> None:
        self._did(lines.joins(config, name), now_us)

    def leaves(self, sled_id: UUID, now_us: int) -> None:
        self._did(lines.leaves(sled_id), now_us)

    def keeps(self, sled_id: UUID, kept: dict[str, Any], now_us: int) -> None:
        self._did(lines.keeps(sled_id, kept), now_us)

    def mark(self, sled_id: UUID, op: str, values: tuple[Any, ...], target: str) -> Raw | None:
        """See `http.app.Tap`, as the next two."""
        if op in _PLAIN and target == lines.state_target(values[0]):
            return lines.asked_of_whom(sled_id, target)
        return None

    def went(self, mark: Raw, call: Call, version: str | None, body: bytes | None, answer: bytes | None) -> bool:
        # The request's own objects are in the turn: so nothing has to be compared but them.
        if self._asked is None or answer is None:
            return False
        at_us, item, effects = self._asked
        if body is None:
            if type(item) is not GetState or call.request is None or call.request.body_exists:
                return False
        elif type(item) is not PutState or item.requested is not call.body.state:
            return False
        if item.propolis_id is not call.path[0] or len(effects) != 1 or self._said:
            return False
        known_version, text = self._texts.get(body, _NO_TEXT)
        if version != known_version:
            text = lines.asked_how(version, body)
            if text is None:
                return False
            self._texts[body] = version, text
        self._asked = None
        requests = self._requests
        requests.append((at_us, ASKED, item.ticket, mark, text, Raw(answer)))
        if len(requests) >= TOGETHER:
            self._write_requests()
            if len(self._lines) >= BLOCK_BYTES:
                self._full()
        return True

    def over(self, exchange: Exchange) -> None:
        if not self.ended:
            self._add(self._clerk.exchanged(self._now_us(), exchange))

    def end(self, why: str) -> None:
        """The recording ends here; the daemon goes on."""
        if not self.ended:
            self.ended = why
            self._line(line(lines.End(end=why)))
            self._log.warning("the recording ends", folder=str(self._folder), why=why)

    def close(self) -> None:
        """Whatever waits is written."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        self._disk.stop()
        self._look()

    # ---- to the disk

    def _did(self, did: dict[str, Any], now_us: int) -> None:
        if not self.ended:
            self._line(line({"at": now_us, "did": did}))  # no checkpoint here: a part of it is still to come

    def _add(self, entry: Entry) -> None:
        self._line(entry)
        if len(self._lines) >= BLOCK_BYTES:
            self._full()

    def _line(self, entry: Entry) -> None:
        self._settle()
        self._lines += block([entry])

    def _settle(self) -> None:
        """Whatever has happened is written; the last turn was no request, or one that says more."""
        if self._requests:
            self._write_requests()
        asked, self._asked = self._asked, None
        if asked is not None:
            at_us, item, effects = asked
            self._short(at_us, SHORT[type(item)], item, effects)

    def _write_requests(self) -> None:
        self._lines += block(self._requests)
        self._requests.clear()

    def _tick(self) -> None:
        """The loop wakes the thread: the other way round, each had to wake the other."""
        self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._tick)
        self._full()
        if self._blocks:
            self._disk.wake()

    def _full(self) -> None:
        """Of the loop, between two turns."""
        self._flush()
        self._look()
        if self._since > self._every and not self.ended and not self._disk.lasts:
            self._checkpoint(lines.IN_BETWEEN)

    def restored(self) -> None:
        """The cores have the state of a snapshot, and no turn has been made since."""
        if not self.ended:
            self._flush()
            if not self._checkpoint(lines.RESTORED):
                self.end(f"a snapshot was restored: what follows does not follow from it ({self._disk.lasts})")

    def _checkpoint(self, begins: str) -> bool:
        assert self._passage is not None, "something was recorded"
        self._since = 0
        try:
            state = taken(self._passage, self, self._scribe.sends, self._scribe.sent)
            self._disk.lasts = "" if len(state) <= self._every // 2 else f"its state alone has {len(state):,} bytes"
        except NoCheckpoint as error:
            self._disk.lasts = str(error)
        if self._disk.lasts:
            self._log.warning("no checkpoint: the recording will end at its limit", why=self._disk.lasts)
            return False
        sleds = _sleds(self._passage)
        self._blocks.append(
            msgspec.structs.replace(self._header, begins=begins, sleds=sleds, state=state, scenario=None)
        )
        return True

    def _look(self) -> None:
        why = self._disk.failed
        if why and not self.ended:
            self.ended = why
            self._log.warning("the recording ends", folder=str(self._folder), why=why)
        if self._bytes > self._behind_max and not self.ended:
            with self._taking:
                self._blocks.clear()
                self._bytes = 0
            self.end(f"the disk does not keep up: {self._behind_max:,} bytes waited for it and are not here")

    def _flush(self) -> None:
        """What waits becomes a block. Of the loop."""
        self._settle()
        if self._lines:
            made, self._lines = self._lines, bytearray()
            self._since += len(made)
            with self._taking:
                self._bytes += len(made)
                self._blocks.append(made)

    def _take(self) -> list[bytearray | lines.Header]:
        """All there is. Of the writing thread."""
        with self._taking:
            taken = list(self._blocks)
            self._blocks.clear()
            self._bytes = 0
        return taken


class _Disk:
    """The thread that writes."""

    def __init__(self, files: PartFiles, total_bytes: int) -> None:
        self.failed = ""
        """Why nothing is written any more."""
        self.lasts = ""
        """Why nothing may be thrown away to make room; empty: something may."""
        self._files = files
        self._total = total_bytes
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, first: bytes | bytearray, take: Callable[[], list[bytearray | lines.Header]]) -> None:
        """OSError if the first part cannot be made, or its first line not be written."""
        self._files.begin()
        try:
            self._files.write(first)
        except OSError:
            self._files.give_up()
            raise
        self._thread = threading.Thread(target=self._run, args=(take,), name="recorder", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to write."""
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._files.close()

    def _run(self, take: Callable[[], list[bytearray | lines.Header]]) -> None:
        last = False
        while not last:
            self._wake.wait()
            self._wake.clear()
            last = self._stopping
            waiting = take()
            if waiting and not self.failed:
                try:
                    self._write(waiting)
                except OSError as error:
                    self.failed = f"cannot write {self._files.folder}: {error.strerror or error}"
                    with suppress(OSError):  # a torn line says as much
                        self._files.end(block([line(lines.End(end=self.failed))]))

    def _write(self, waiting: list[bytearray | lines.Header]) -> None:
        blocks: list[bytearray] = []
        for each in waiting:
            if not isinstance(each, lines.Header):
                blocks.append(each)
                continue
            self._write_lines(blocks)
            if self.failed:
                return
            blocks = []
            self._files.checkpoint(each)
        self._write_lines(blocks)

    def _write_lines(self, blocks: list[bytearray]) -> None:
        left = self._total - self._files.bytes
        if not blocks or sum(map(len, blocks)) <= left:
            self._files.write_all(blocks)
            return
        why = f" ({self.lasts})" if self.lasts else ""
        self.failed = f"the recording has reached its limit of bytes{why}"
        self._files.write(_whole_lines(b"".join(blocks), left) + block([line(lines.End(end=self.failed))]))


def _sleds(passage: Passage) -> Any:
    return form(tuple(sled.config for sled in passage.rack.sleds.values()))


def _whole_lines(text: bytes, size: int) -> bytes:
    """As many of the first as fit."""
    return text[: text.rfind(b"\n", 0, size) + 1]
