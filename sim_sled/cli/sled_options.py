"""What several commands read about sleds from their command line.

Read before: cli/surface.py. Read next: cli/handoff.py, cli/serve.py, cli/up.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import typer

from nexus_client.dropshot.text import SocketAddress, peer_address, shown
from sim_sled.cli.surface import fail


def read_address(text: str) -> str:
    """Canonical text of a socket address. Raises `typer.BadParameter`."""
    try:
        return str(SocketAddress.parse(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a socket address like [::1]:12345") from None


def read_peer(text: str | None) -> str | None:
    """Of whoever is connected to: an address, a name with a port, or a URL. Raises `typer.BadParameter`."""
    try:
        return None if text is None else peer_address(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def read_sled_address(text: str) -> str:
    """Canonical text of the address of a sled. Raises `typer.BadParameter`."""
    shown = read_address(text)
    if not shown.startswith("["):
        # a Nexus takes nothing else for a sled (NX 3.3), and would only say so at the registration
        raise typer.BadParameter(f"{text!r} is no IPv6 socket address, which a sled's has to be")
    return shown


def parse_also(text: str) -> tuple[UUID, str]:
    """Of `--also`. Exits with 2."""
    sled_id, _, address = text.partition("=")
    try:
        return UUID(sled_id), read_sled_address(address)
    except ValueError:
        fail(f"--also takes UUID=ADDR, not {text!r}")
    except typer.BadParameter as error:
        fail(f"--also {text!r}: {error.message}")


def read_hardware(path: Path | None, flags: dict[str, Any], sled_id: UUID, address: str) -> Any:
    """Of `--hardware` and the options that win over it. Exits with 2 and every problem."""
    from sim_sled.daemon import hardware_file

    try:
        fields = hardware_file.load(path) if path is not None else {}
        hardware_file.take_identity(fields, sled_id, address, str(path))
        at = hardware_file.places(path) if path is not None else {}
        given = {name: value for name, value in flags.items() if value is not None}
        at |= {name: f"--{name.replace('_', '-')}" for name in given}
        return hardware_file.hardware(fields | given, str(path or "hardware"), at)
    except hardware_file.ConfigError as error:
        for problem in error.problems:
            fail(shown(problem))
