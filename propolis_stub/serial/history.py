"""What a VM has written to its serial console: the first and the last MiB of all output are kept (PR 4.4).

Offsets count every byte ever output. Together with the guest this is what a migration carries along.

Read before: contract.py, serial/guest.py. Read next: serial/console.py.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import attrs

from nexus_client.dropshot import foreign
from propolis_stub.errors import PropolisError
from propolis_stub.serial.guest import LINE_MAX, Guest

KEPT_BYTES: Final = 1 << 20
"""Of the beginning, and again of the end."""
DEFAULT_MAX_BYTES: Final = 16_384


class HistoryGone(PropolisError):
    """The bytes asked for have been forgotten."""

    def __init__(self, start: int, history: History) -> None:
        super().__init__(
            f"Requested byte offset {start} (-{history.total - start}) is no longer cached: "
            f"Only have first {len(history.beginning)} + most recent {len(history.rest)} "
            f"saved out of a total {history.total} of output"
        )


@attrs.define(eq=False)
class History:
    """All output, as far as it is kept."""

    total: int = 0
    beginning: bytearray = attrs.Factory(bytearray)
    rest: bytearray = attrs.Factory(bytearray)

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = KEPT_BYTES - len(self.beginning)
        if room > 0:
            self.beginning += data[:room]
            data = data[room:]
        if data:
            self.rest += data
            if len(self.rest) > KEPT_BYTES:
                del self.rest[: len(self.rest) - KEPT_BYTES]

    def start_of(self, *, from_start: int | None = None, most_recent: int | None = None) -> int:
        """The absolute offset that a client means; exactly one of the two is given."""
        if from_start is not None:
            return min(from_start, self.total)
        assert most_recent is not None
        return max(self.total - most_recent, 0)

    def read(self, start: int, max_bytes: int) -> bytes:
        """Up to `max_bytes` from the absolute offset `start`; it may be fewer at the end of the first MiB. Raises
        `HistoryGone` inside the gap.
        """
        rest_start = self.total - len(self.rest)
        if start >= self.total:
            return b""
        if start < len(self.beginning):
            data = bytes(self.beginning[start : start + max_bytes])
            if rest_start > len(self.beginning):  # a gap follows
                return data
            return data + bytes(self.rest[: max_bytes - len(data)])
        if start < rest_start:
            raise HistoryGone(start, self)
        return bytes(self.rest[start - rest_start : start - rest_start + max_bytes])

    def pack(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "beginning": base64.b64encode(self.beginning).decode(),
            "rest": base64.b64encode(self.rest).decode(),
        }

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> History:
        """Raises `ValueError`, `KeyError` or `TypeError` if it is not one."""
        history = cls(
            int(packed["total"]),
            bytearray(base64.b64decode(packed["beginning"], validate=True)),
            bytearray(base64.b64decode(packed["rest"], validate=True)),
        )
        kept = len(history.beginning) + len(history.rest)
        too_long = max(len(history.beginning), len(history.rest)) > KEPT_BYTES
        if too_long or kept > history.total or (history.rest and len(history.beginning) != KEPT_BYTES):
            raise ValueError("a history that does not add up")
        return history


@attrs.define(eq=False)
class Serial:
    """History and guest of one VM: what a migration carries along."""

    history: History = attrs.Factory(History)
    guest: Guest = attrs.Factory(Guest)

    def take_over(self, other: Serial) -> None:
        """Becomes what `other` is. In place: consoles hold on to the history."""
        self.history.total = other.history.total
        self.history.beginning = other.history.beginning
        self.history.rest = other.history.rest
        self.guest = other.guest

    def pack(self) -> str:
        guest = self.guest
        # bytes as the text that has the same numbers: JSON knows no bytes, and what is typed need not be UTF-8
        user = None if guest.user is None else guest.user.decode("latin-1")
        state = {
            "hostname": guest.hostname,
            "user": user,
            "line": guest.line.decode("latin-1"),
            "boots": guest.boots,
        }
        return json.dumps({"console": self.history.pack(), "guest": state}, separators=(",", ":"), sort_keys=True)

    @classmethod
    def unpack(cls, text: str) -> Serial:
        """Raises `ValueError` if this is not what `pack` makes."""
        try:
            packed = foreign.loads(text)
            guest = packed["guest"]
            user = guest["user"]
            return cls(
                History.unpack(packed["console"]),
                Guest(
                    str(guest["hostname"]),
                    None if user is None else str(user).encode("latin-1")[:LINE_MAX],
                    str(guest["line"]).encode("latin-1")[:LINE_MAX],
                    int(guest["boots"]),
                ),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise ValueError(f"cannot read the console history: {problem}") from None
