"""The `--rss-*` options of the original, and what goes with them, as one value (SR 6; SA 1.6).

Read before: core/handoff/wishes.py. Read next: cli/handoff.py, cli/serve.py.
"""

from __future__ import annotations

from ipaddress import IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple
from uuid import UUID

import typer

from sim_sled.cli.surface import fail

if TYPE_CHECKING:
    from sim_sled.companions.servers import Ports
    from sim_sled.core.config import SledConfig
    from sim_sled.core.handoff.wishes import Wishes

SLEDS_BESIDE_MAX: Final = 32
"""Sleds of a process that get servers beside them without being asked for: each has fourteen sockets by default, and
the ports of regions on one address suffice for 64."""

PEM_BYTES_MAX: Final = 1024 * 1024
"""A certificate chain has some KiB; the hand-off's body has to take it."""


class Options(NamedTuple):
    """What was typed: the options, for `taking`."""

    rss_nexus_external_addr: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Nexus external API: its zone")
    ] = None
    rss_nexus_id: Annotated[
        UUID | None, typer.Option(help="deployment.id of Nexus's configuration; default: the usual one")
    ] = None
    rss_internal_dns_dns_addr: Annotated[
        str | None, typer.Option(metavar="ADDR", help="where internal DNS answers (UDP, TCP)")
    ] = None
    rss_internal_dns_http_addr: Annotated[
        str | None, typer.Option(metavar="ADDR", help="configuration API of an internal DNS server")
    ] = None
    rss_external_dns_internal_addr: Annotated[
        str | None, typer.Option(metavar="ADDR", help="external DNS's own API: its zone")
    ] = None
    cockroach_addr: Annotated[
        list[str] | None, typer.Option(metavar="ADDR", help="CockroachDB: its zone (repeatable)")
    ] = None
    rack_subnet: Annotated[str | None, typer.Option(metavar="NET", help="default: the /56 around SLED_ADDR")] = None
    rss_tls_cert: Annotated[Path | None, typer.Option(help="PEM file, with --rss-tls-key")] = None
    rss_tls_key: Annotated[Path | None, typer.Option(help="PEM file, with --rss-tls-cert")] = None
    rss_recovery_silo_name: Annotated[str, typer.Option(help="name of the recovery silo")] = "demo-silo"
    rss_recovery_user_name: Annotated[str, typer.Option(help="name of its user")] = "demo-privileged"
    rss_recovery_user_password: Annotated[str, typer.Option(help="that user's password")] = "oxide"  # noqa: S105 -- for all to read
    rss_switch_port: Annotated[str, typer.Option(help="uplink port of switch0")] = "qsfp0"
    rack_id: Annotated[UUID | None, typer.Option(help="Nexus's rack id; default: the usual one")] = None

    def wishes(self, nexus_internal: str, lockstep_port: int) -> Wishes | None:
        """None if none of the options was given: then nobody wants a hand-off. Exits with 2 for what is no address
        and no file.
        """
        asked = (
            self.rss_nexus_external_addr,
            self.rss_nexus_id,
            self.rss_internal_dns_dns_addr,
            self.rss_internal_dns_http_addr,
            self.rss_external_dns_internal_addr,
            self.cockroach_addr,
            self.rack_subnet,
            self.rss_tls_cert,
            self.rss_tls_key,
        )
        if not any(asked):
            return None
        from sim_sled.core.estate import RACK_ID
        from sim_sled.core.handoff.wishes import NEXUS_ID, Wishes

        dns, dns_http = self.rss_internal_dns_dns_addr, self.rss_internal_dns_http_addr
        if dns_http is not None and dns is None:
            fail("--rss-internal-dns-http-addr needs --rss-internal-dns-dns-addr: Nexus is told where DNS answers")
        return Wishes(
            nexus_internal=nexus_internal,
            lockstep_port=lockstep_port,
            nexus_external=_address("--rss-nexus-external-addr", self.rss_nexus_external_addr),
            nexus_id=self.rss_nexus_id or NEXUS_ID,
            dns=_address("--rss-internal-dns-dns-addr", dns),
            dns_http=_address("--rss-internal-dns-http-addr", dns_http),
            external_dns_http=_address("--rss-external-dns-internal-addr", self.rss_external_dns_internal_addr),
            cockroach=tuple(filter(None, (_address("--cockroach-addr", each) for each in self.cockroach_addr or ()))),
            rack_subnet=_subnet(self.rack_subnet),
            certificate=_certificate(self.rss_tls_cert, self.rss_tls_key),
            silo=self.rss_recovery_silo_name,
            user=self.rss_recovery_user_name,
            password=self.rss_recovery_user_password,
            switch_port=self.rss_switch_port,
            rack_id=self.rack_id or RACK_ID,
        )


def _address(option: str, text: str | None) -> str | None:
    from nexus_client.dropshot.text import SocketAddress

    if text is None:
        return None
    try:
        return str(SocketAddress.typed(text))
    except ValueError:
        fail(f"{option}: {text!r} is not a socket address like [::1]:5353")


def _subnet(text: str | None) -> IPv6Network | None:
    try:
        return None if text is None else IPv6Network(text)
    except ValueError as error:
        fail(f"--rack-subnet: {error}")


def _certificate(cert: Path | None, key: Path | None) -> tuple[str, str] | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        fail("--rss-tls-cert and --rss-tls-key go together")
    return _pem(cert), _pem(key)


def _pem(path: Path) -> str:
    from sim_sled.language.files import TooLong, read_bounded

    try:
        return read_bounded(path, PEM_BYTES_MAX).decode()
    except TooLong:
        fail(f"{path}: larger than {PEM_BYTES_MAX} bytes")
    except (OSError, ValueError) as error:
        fail(f"{path}: {getattr(error, 'strerror', None) or error}")


def ports(wishes: Wishes | None, sleds: list[SledConfig]) -> Ports:
    """Where the servers beside the sleds shall be: DNS at the given address, if it is ours."""
    from sim_sled.companions.servers import Ports

    if wishes is None:
        return Ports()
    from sim_sled.companions.handoff import dns_is_elsewhere

    if dns_is_elsewhere(wishes, sleds):
        return Ports()
    return Ports(dns=wishes.dns, dns_http=wishes.dns_http)


def two_scrimlets(sleds: list[SledConfig], *, given: bool) -> list[SledConfig]:
    """The same sleds, of which only two are scrimlets: a rack has no more, and Nexus talks to switches of each. Roles
    that were `given` stay.
    """
    import attrs

    from nexus_client.types import SledRole
    from sim_sled.core.handoff.wishes import SCRIMLETS_MAX

    if given:
        return sleds
    gimlet = [attrs.evolve(sled, hardware=attrs.evolve(sled.hardware, role=SledRole.GIMLET)) for sled in sleds]
    return sleds[:SCRIMLETS_MAX] + gimlet[SCRIMLETS_MAX:]


def try_out(wishes: Wishes, sleds: list[SledConfig]) -> None:
    """Exits with 2 if no hand-off can be made of this, before anything has started."""
    from sim_sled.companions.handoff import facts_of
    from sim_sled.companions.servers import foreseen
    from sim_sled.core.handoff.body import make
    from sim_sled.core.handoff.wishes import HandoffImpossible

    try:
        make(wishes, facts_of(wishes, sleds, foreseen(sleds, ports(wishes, sleds)), 0, ""))
    except HandoffImpossible as why:
        fail(f"no hand-off can be made of this: {why}")
