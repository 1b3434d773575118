"""A rack's whole state as one field of a recording's line, and back: where a replay can begin in the middle.

As in a snapshot, in which there is more: here it is what inputs act upon, and what answers of Nexus are answers to.

Read before: daemon/graph.py, recording/replaying.py. Read next: daemon/recorder.py, daemon/recordings.py.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from sim_sled.daemon.graph import DOORS, BadTable, CannotKeep, Table, pack, program, unpack
from sim_sled.play.calls import Send
from sim_sled.play.passage import Passage
from sim_sled.recording.lines import Header
from sim_sled.recording.replaying import CannotReplay, Rack, seed_of

VMMS_MAX: Final = 2_000
"""Of a rack that has checkpoints. Time stands while one is made, for about a millisecond for each VMM."""
TABLE_MAX: Final = 512 * 1024 * 1024
"""Bytes of a state that is read: a small file must not become more than a machine has."""


class NoCheckpoint(ValueError):
    """The state cannot be kept; the text says why."""


def taken(passage: Passage, desk: object, sends: Mapping[int, Send], sent: int) -> str:
    """The state; `desk`: where its migrating VMs ask (play/baggage.py); `sends`: reports to which Nexus may answer,
    by their numbers, of `sent` so far. Raises `NoCheckpoint`.
    """
    vmms = sum(len(sled.vmms) for sled in passage.rack.sleds.values())
    if vmms > VMMS_MAX:
        raise NoCheckpoint(
            f"the rack has {vmms:,} VMMs, and would stand for long: checkpoints are of up to {VMMS_MAX:,}"
        )
    try:
        return text_of(_packed(passage, desk, sends, sent))
    except CannotKeep as error:
        raise NoCheckpoint(str(error)) from error


def text_of(table: Table) -> str:
    """A state as a line has it."""
    return base64.b85encode(zlib.compress(msgspec.json.encode(table), 1)).decode()


def table_of(rack: Rack) -> Table:
    """The state of a rack that was taken up."""
    return _packed(rack.passage, rack.desk, rack.sends, rack.sent)


def _packed(passage: Passage, desk: object, sends: Mapping[int, Send], sent: int) -> Table:
    return pack({"passage": passage, "sends": dict(sends), "sent": sent}, _anchors(passage, desk))


def resume(rack: Rack, header: Header) -> None:
    """The state of a part's first line into a rack that is made of it. Raises `CannotReplay`."""
    if header.program != program():
        raise CannotReplay(
            "it goes on from a checkpoint of another build of sim-sled, and only the very same understands one"
        )
    try:
        unzipped = zlib.decompressobj()
        table = msgspec.json.decode(unzipped.decompress(base64.b85decode(header.state), TABLE_MAX))
        _give_seeds(table, rack)
        root: Any = unpack(table, _anchors(rack.passage, rack.desk), DOORS)
        rack.resumes(root["sends"], root["sent"])
    except (BadTable, ValueError, KeyError, TypeError, zlib.error, RecursionError) as error:
        raise CannotReplay(f"its checkpoint cannot be read: {error}") from error


def _give_seeds(table: Table, rack: Rack) -> None:
    """Whoever draws by a seed asks the draws of this rack."""
    for kind, *rest in table:
        fields = rest[-1] if kind in ("obj", "struct", "anchor") else {}
        if type(fields.get("seed")) is int:
            fields["seed"] = seed_of(fields["seed"], rack.draws)


def _anchors(passage: Passage, desk: object) -> dict[str, object]:
    """The one core that is there already, and the shells that it calls."""
    return {"passage": passage, "shell": passage.watcher, "desk": desk}
