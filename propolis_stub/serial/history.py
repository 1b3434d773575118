"""The serial console of one VM without sockets: what was output, and a make-believe guest (PR 4.4).

The history keeps the first and the last MiB of all output; offsets count every byte ever output. The guest boots with
a plausible log, then shows a login prompt that echoes, and knows a few commands; `reboot` and `poweroff` are the
guest events of PR 3.4.

Read before: contract.py. Read next: serial/console.py.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import attrs

from propolis_stub.contract import GuestEvent
from propolis_stub.errors import PropolisError

KEPT_BYTES: Final = 1 << 20
"""Of the beginning, and again of the end."""
DEFAULT_MAX_BYTES: Final = 16_384
_LINE_MAX: Final = 1_024
"""Of typed input: a terminal's canonical mode has a limit too. What is typed beyond it is not echoed."""


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


_BOOT_LOG: Final = """\
UEFI firmware (version 2.70) starting
BdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x10,0x0)
BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x10,0x0)
[    0.000000] Linux version 6.1.0-stub (propolis-stub) #1 SMP PREEMPT_DYNAMIC
[    0.000000] Command line: root=/dev/vda1 console=ttyS0
[    0.000000] DMI: Oxide OxVM, BIOS v0.8 The Aftermark
[    0.004211] Hypervisor detected: KVM
[    0.321944] pci 0000:00:10.0: [1af4:1001] type 00 class 0x010802
[    0.518273] printk: console [ttyS0] enabled
[    0.702665] virtio_blk virtio0: [vda] 8388608 512-byte logical blocks
[    0.911008] EXT4-fs (vda1): mounted filesystem with ordered data mode
[    1.250417] systemd[1]: Detected virtualization bhyve.
[    1.904436] systemd[1]: Reached target Multi-User System.
"""
_HELP: Final = "this is propolis-stub, not a guest: echo help hostname uname [-a] whoami exit reboot poweroff"


@attrs.define(eq=False)
class Guest:
    """A make-believe operating system at the other end of the serial port."""

    hostname: str = "stub"
    user: str | None = None  # None: at the login prompt
    line: str = ""
    boots: int = 0
    _after_return: bool = False

    def boot(self) -> bytes:
        """Output of the vCPUs coming up."""
        self.boots += 1
        self.user = None
        self.line = ""
        lines = _BOOT_LOG + f"\n{self.hostname} (boot {self.boots}) ttyS0\n\n"
        return (lines + self._prompt()).replace("\n", "\r\n").encode()

    def _prompt(self) -> str:
        return f"{self.hostname} login: " if self.user is None else f"{self.user}@{self.hostname}:~$ "

    def typed(self, data: bytes) -> tuple[bytes, list[GuestEvent]]:
        """What the guest answers to these keys, and what it does to its VM. Nothing after a reboot or poweroff."""
        out: list[str] = []
        for character in data.decode("utf-8", "replace"):
            newline_of_crlf = character == "\n" and self._after_return
            self._after_return = character == "\r"
            if newline_of_crlf:
                continue
            if character in "\r\n":
                out.append("\r\n")
                said, event = self._entered(self.line.strip())
                self.line = ""
                out.append("".join(f"{line}\r\n" for line in said.split("\n") if said))
                if event is not None:
                    return "".join(out).encode(), [event]
                out.append(self._prompt())
            elif character in "\x7f\b":
                if self.line:
                    self.line = self.line[:-1]
                    out.append("\b \b")
            elif character == "\x03":
                self.line = ""
                out.append("^C\r\n" + self._prompt())
            elif character.isprintable() and len(self.line) < _LINE_MAX:
                self.line += character
                out.append(character)
        return "".join(out).encode(), []

    def _entered(self, line: str) -> tuple[str, GuestEvent | None]:
        if self.user is None:
            self.user = line.split(maxsplit=1)[0] if line else None
            return "", None
        command, _, rest = line.partition(" ")
        match command:
            case "":
                return "", None
            case "uname":
                wide = f"Linux {self.hostname} 6.1.0-stub #1 SMP PREEMPT_DYNAMIC x86_64 GNU/Linux"
                return (wide if rest.strip() == "-a" else "Linux"), None
            case "echo":
                return rest, None
            case "hostname":
                return self.hostname, None
            case "whoami":
                return self.user, None
            case "help":
                return _HELP, None
            case "exit" | "logout":
                self.user = None
                return "", None
            case "reboot":
                return "The system is going down for reboot NOW!", GuestEvent.RESET
            case "poweroff" | "halt":
                return "The system is going down for power-off NOW!", GuestEvent.CHIPSET_HALT
            case _:
                return f"-sh: {command}: command not found", None


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
        state = {"hostname": guest.hostname, "user": guest.user, "line": guest.line, "boots": guest.boots}
        return json.dumps({"console": self.history.pack(), "guest": state}, separators=(",", ":"), sort_keys=True)

    @classmethod
    def unpack(cls, text: str) -> Serial:
        """Raises `ValueError` if this is not what `pack` makes."""
        try:
            packed = json.loads(text)
            guest = packed["guest"]
            user = guest["user"]
            return cls(
                History.unpack(packed["console"]),
                Guest(
                    str(guest["hostname"]),
                    None if user is None else str(user),
                    str(guest["line"])[:_LINE_MAX],
                    int(guest["boots"]),
                ),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise ValueError(f"cannot read the console history: {problem}") from None
