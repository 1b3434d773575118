"""A make-believe operating system at the other end of a VM's serial port (PR 4.4).

It boots with a plausible log, then shows a login prompt that echoes, and knows a few commands; `reboot` and
`poweroff` are the guest events of PR 3.4. It works on bytes, as a serial line does: a letter may come in parts, and
need not be UTF-8.

Read before: contract.py. Read next: serial/history.py.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from propolis_stub.guest_events import GuestEvent

LINE_MAX: Final = 1_024
"""Bytes of typed input: a terminal's canonical mode has a limit too. What is typed beyond it is not echoed."""

_LETTER_MAX: Final = 4
"""Bytes of one letter in UTF-8."""

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
_HELP: Final = b"this is propolis-stub, not a guest: echo help hostname uname [-a] whoami exit reboot poweroff"


_KEYS: Final = re.compile(rb"([^\x00-\x1f\x7f]+)|[\x00-\x1f\x7f]")
"""A run of letters (group 1), or one control character."""


@attrs.define(eq=False)
class Guest:
    """See the module."""

    hostname: str = "stub"
    user: bytes | None = None  # None: at the login prompt
    line: bytes = b""
    boots: int = 0
    _after_return: bool = False

    def boot(self) -> bytes:
        """Output of the vCPUs coming up."""
        self.boots += 1
        self.user = None
        self.line = b""
        lines = _BOOT_LOG + f"\n{self.hostname} (boot {self.boots}) ttyS0\n\n"
        return lines.replace("\n", "\r\n").encode() + self._prompt()

    def _prompt(self) -> bytes:
        host = self.hostname.encode()
        return host + b" login: " if self.user is None else self.user + b"@" + host + b":~$ "

    def typed(self, data: bytes) -> tuple[bytes, list[GuestEvent]]:
        """What the guest answers to these keys, and what it does to its VM. Nothing after a reboot or poweroff."""
        out: list[bytes] = []
        for match in _KEYS.finditer(data):
            key = match[0]
            second_of_crlf = key == b"\n" and self._after_return
            self._after_return = key == b"\r"
            if second_of_crlf:
                continue
            match key:
                case b"\r" | b"\n":
                    said, event = self._entered(self.line.strip())
                    self.line = b""
                    out.append(b"\r\n" + (said.replace(b"\n", b"\r\n") + b"\r\n" if said else b""))
                    if event is not None:
                        return b"".join(out), [event]
                    out.append(self._prompt())
                case b"\x7f" | b"\b":
                    if self.line:
                        self.line = _without_last_letter(self.line)
                        out.append(b"\b \b")
                case b"\x03":
                    self.line = b""
                    out.append(b"^C\r\n" + self._prompt())
                case letters if match[1]:
                    taken = letters[: LINE_MAX - len(self.line)]
                    self.line += taken
                    out.append(taken)
                case _:
                    pass  # other control characters are nothing to this guest
        return b"".join(out), []

    def _entered(self, line: bytes) -> tuple[bytes, GuestEvent | None]:
        if self.user is None:
            self.user = line.split(maxsplit=1)[0] if line else None
            return b"", None
        command, _, rest = line.partition(b" ")
        match command:
            case b"":
                return b"", None
            case b"uname":
                wide = f"Linux {self.hostname} 6.1.0-stub #1 SMP PREEMPT_DYNAMIC x86_64 GNU/Linux"
                return (wide.encode() if rest.strip() == b"-a" else b"Linux"), None
            case b"echo":
                return rest, None
            case b"hostname":
                return self.hostname.encode(), None
            case b"whoami":
                return self.user, None
            case b"help":
                return _HELP, None
            case b"exit" | b"logout":
                self.user = None
                return b"", None
            case b"reboot":
                return b"The system is going down for reboot NOW!", GuestEvent.RESET
            case b"poweroff" | b"halt":
                return b"The system is going down for power-off NOW!", GuestEvent.CHIPSET_HALT
            case _:
                return b"-sh: " + command + b": command not found", None


def _without_last_letter(line: bytes) -> bytes:
    """Without its last letter if that is UTF-8, else without its last byte."""
    for size in range(2, min(_LETTER_MAX, len(line)) + 1):
        try:
            if len(line[-size:].decode()) == 1:
                return line[:-size]
        except UnicodeDecodeError:
            continue
    return line[:-1]
