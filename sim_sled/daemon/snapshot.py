"""A whole rack to one file and back: `sim-sled snapshot`, `sim-sled restore`.

In the file are the sleds with their VMMs, networks and estates, what they have not told Nexus yet, rules with their
counters and timers, what is on its way, names and logs of VMMs; of a rack that has it, the Nexus model too. Not in
it, and refused where there is any: `Daemon.only_here`. Not in it, and left as it is: addresses, the event feed, and a
Nexus that is not ours.

Restored, everything goes on as it would have from that moment, at that moment: the daemon's clock is set to it.
A file is of one version of this program, to the letter, and of one rack: ids and number of its sleds. In another
process, whose sleds listen elsewhere, they tell Nexus so.

Read before: daemon/graph.py, daemon/pausing.py. Read next: daemon/control.py, daemon/daemon.py.
"""

from __future__ import annotations

import base64
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from nexus_client.types import stamp
from sim_sled.daemon.control_answers import SNAPSHOT_TEXT_MAX
from sim_sled.daemon.graph import DOORS, BadTable, CannotKeep, pack, program, unpack

if TYPE_CHECKING:
    from sim_sled.daemon.daemon import Daemon

FORMAT: Final = 1
TABLE_TEXT_MAX: Final = SNAPSHOT_TEXT_MAX - 2 * 1024 * 1024
"""The rest is the ids of 20,000 sleds."""
TABLE_MAX: Final = 2 * 1024 * 1024 * 1024
"""Bytes of what is compressed in it: a small file must not become more than a machine has."""
NOW_MAX_US: Final = 4_102_444_800_000_000
"""The year 2100, in microseconds since 1970: a clock can be let fly that far, and times can still be written."""


class Refused(ValueError):
    """It cannot be kept, or cannot be taken up; nothing has changed. The text says why."""


class File(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", kw_only=True):
    """What is in a file. `program`: the sources that understand it; `digest`: of everything else."""

    snapshot: int
    version: str
    program: str
    taken: str
    now_us: int
    sleds: list[str]
    vmms: int
    model: bool
    judged: bool
    table: str
    digest: str = ""

    @property
    def text(self) -> str:
        """What is written."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"

    def sealed(self) -> str:
        """The digest that it is to have."""
        told = msgspec.json.encode(msgspec.structs.replace(self, digest=""))
        return blake2b(told, digest_size=16).hexdigest()


@attrs.define(eq=False)
class Snapshots:
    """Of one daemon, with the Nexus model that lives by the same clock."""

    daemon: Daemon

    async def take(self) -> File:
        """All of it. Time stands while it is made. Raises `Refused`."""
        async with self.daemon.pausing.standing():
            return self._take()

    async def restore(self, text: bytes) -> File:
        """Take up what a file holds. Raises `Refused`."""
        file = read(text)
        async with self.daemon.pausing.standing():
            self._restore(file)
            await self.daemon.pausing.settle()
            return file

    def _take(self) -> File:
        self._quiet("be kept")
        daemon = self.daemon
        try:
            table = pack(self._root(), self._anchors())
        except CannotKeep as error:
            raise Refused(str(error)) from error
        packed = base64.b85encode(zlib.compress(msgspec.json.encode(table))).decode()
        now_us = daemon.clock.now_us()
        file = File(
            snapshot=FORMAT,
            version=_version(),
            program=program(),
            taken=stamp(now_us),
            now_us=now_us,
            sleds=sorted(map(str, daemon.rack.sleds)),
            vmms=sum(len(sled.vmms) for sled in daemon.rack.sleds.values()),
            model=self.daemon.model is not None,
            judged=daemon.judging is not None,
            table=packed,
        )
        file.digest = file.sealed()
        if len(packed) > TABLE_TEXT_MAX:
            raise Refused(
                f"the table of a file may have {TABLE_TEXT_MAX:,} bytes, and this one would have {len(packed):,}"
            )
        return file

    def _restore(self, file: File) -> None:
        self._quiet("be replaced")
        here = sorted(map(str, self.daemon.rack.sleds))
        if file.sleds != here:
            other = f"{len(file.sleds)} sleds, and this one has {len(here)}"
            same = "as many, but others: start a rack with the name of that one"
            raise Refused(f"the snapshot is of another rack: {other if len(file.sleds) != len(here) else same}")
        if file.model != (self.daemon.model is not None):
            raise Refused(f"the snapshot is of a rack with{'' if file.model else 'out'} the Nexus model in it")
        if file.judged != (self.daemon.judging is not None):
            raise Refused(f"the snapshot is of a daemon {'with' if file.judged else 'without'} --junit")
        try:
            # by whom it was made is known by now: what follows is only wrong if somebody wants it to be
            unzipped = zlib.decompressobj()
            table = msgspec.json.decode(unzipped.decompress(base64.b85decode(file.table), TABLE_MAX))
            root = unpack(table, self._anchors(), DOORS, self._holds)
        except (BadTable, ValueError, zlib.error, RecursionError) as error:
            raise Refused(f"the snapshot cannot be read: {error}") from error
        self.daemon.taken_up(root["tickets"])
        self.daemon.clock.put(file.now_us)
        for sled_id, sled in self.daemon.rack.sleds.items():
            here_now = self.daemon.addresses[sled_id]
            if sled.address != here_now:  # it was another process's, which listened elsewhere
                sled.address = here_now
                if self.daemon.recorder is not None:
                    self.daemon.recorder.listens(sled_id, here_now, file.now_us)
                self.daemon.announce(sled)

    def _holds(self, root: dict[str, Any]) -> None:
        """All of it can be looked at, and be kept again: what is of a wrong type is noticed while the rack that was
        here before can still be put back. Raises whatever that raises.
        """
        daemon = self.daemon
        if not isinstance(root["tickets"], int):
            raise BadTable("tickets are counted")
        daemon.look.rows()
        for each in daemon.look.sightings.all():
            daemon.look.why(each)
        due_us = daemon.pausing.next_deadline_us()
        if due_us is not None:
            stamp(due_us)
        pack(self._root(), self._anchors())

    def _quiet(self, what: str) -> None:
        only_here = self.daemon.only_here()
        if self.daemon.model is not None and self.daemon.model.on_the_network:
            only_here.append(f"{self.daemon.model.on_the_network} answers of sleds are waited for by the model")
        if only_here:
            raise Refused(f"what is here cannot {what}: {'; '.join(only_here)}")

    def _root(self) -> dict[str, Any]:
        """Everything that is kept."""
        return {**self._cores(), "tickets": self.daemon.tickets}

    def _cores(self) -> dict[str, object]:
        daemon = self.daemon
        found: dict[str, object] = {
            "passage": daemon.passage,
            "conductor": daemon.conductor,
            "rack": daemon.rack,
            "sightings": daemon.look.sightings,
            "history": daemon.history,
        }
        found |= {f"sled {sled_id}": sled for sled_id, sled in daemon.rack.sleds.items()}
        if (model := daemon.model) is not None:
            found |= {"nexus": model.nexus, "handoff": model.rack, "upstairs": model.upstairs}
        if daemon.judging is not None:
            found["judge"] = daemon.judging.judge
        return found

    def _anchors(self) -> dict[str, object]:
        """The cores, and the shells that they call."""
        shells = {"daemon": self.daemon, "looking": self.daemon.look, "stage": self.daemon.judging}
        return {**self._cores(), **{name: shell for name, shell in shells.items() if shell is not None}}


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 -- it reads e-mail, and few daemons are kept

    return version("sim-sled")


def read(text: bytes) -> File:
    """Of a file's text. Raises `Refused`: it is none, of another version, or not as it was written."""
    try:
        known = msgspec.json.decode(text)
        if not isinstance(known, dict) or "snapshot" not in known:
            raise Refused("this is no snapshot of sim-sled")
        if known["snapshot"] != FORMAT:
            raise Refused(f"the snapshot has format {known['snapshot']!r:.40}, and this sim-sled knows {FORMAT}")
        file = msgspec.convert(known, File)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise Refused(f"this is no snapshot of sim-sled, or a part of one: {error}") from None
    if not 0 <= file.now_us <= NOW_MAX_US:
        raise Refused(f"the snapshot is of no time that a clock could show: {file.now_us:,}")
    if file.digest != file.sealed():
        raise Refused("the snapshot is not as it was written: its digest does not fit")
    if file.program != program():
        other = "with other code" if file.version == _version() else f"this is {_version()}"
        both = f"{file.version}; {other}"
        raise Refused(f"the snapshot was made by another sim-sled ({both}): only the very same understands it")
    return file
