"""Addresses that are given to commands.

Read next: cli/main.py, cli/up.py.
"""

from __future__ import annotations

import typer

from nexus_client.dropshot.text import SocketAddress


def read_address(text: str) -> str:
    """Canonical text of a socket address. Raises `typer.BadParameter`."""
    try:
        return str(SocketAddress.parse(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a socket address like [::1]:12345") from None


def read_sled_address(text: str) -> str:
    """Canonical text of the address of a sled. Raises `typer.BadParameter`."""
    shown = read_address(text)
    if not shown.startswith("["):
        # a Nexus takes nothing else for a sled (NX 3.3), and would only say so at the registration
        raise typer.BadParameter(f"{text!r} is no IPv6 socket address, which a sled's has to be")
    return shown
