"""Tells whoever supervises this process how it is: systemd's `Type=notify`, and whoever speaks its protocol.

Ten lines of our own: a datagram to the socket named in `NOTIFY_SOCKET` is the whole of sd_notify(3).
"""

from __future__ import annotations

import contextlib
import os
import socket


def tell(state: str) -> None:
    """`READY=1`, `STOPPING=1`. Nothing happens where nobody supervises, or where they have gone."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in {"/", "@"}:  # other kinds of sockets are for virtual machines
        return
    # "@" stands for the byte that begins a name which is no file
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)
