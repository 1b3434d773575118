"""Socket addresses as texts: `[::1]:123`, `1.2.3.4:5`."""

from __future__ import annotations

import ipaddress

PORT_MAX = 65_535


def parse(text: str) -> tuple[str, int]:
    """Host without brackets and port of `text`. ValueError if it is no socket address (names are none)."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        address = str(ipaddress.IPv6Address(host[1:-1]))
    else:
        address = str(ipaddress.IPv4Address(host))
    if not colon or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        raise ValueError(f"{text!r} has no port of 0 to {PORT_MAX}")
    return address, int(port)


def show(host: str, port: int) -> str:
    """The text of a socket address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def canonical(text: str) -> str:
    """One text for each socket address; what is none stays as it is."""
    try:
        return show(*parse(text))
    except ValueError:
        return text
