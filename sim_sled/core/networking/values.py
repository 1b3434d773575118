"""Values of the networking facts (SA 3.4). Addresses are canonical texts: equal means same text.

Free-form parts (rules, routes, probes) are plain JSON values which the edge has validated and made canonical.

Read next: core/networking/facts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from msgspec import Struct


class V2pMapping(Struct, frozen=True):
    """A virtual address lives on a physical host. All four fields are the key (SA 3.4, v2p)."""

    virtual_ip: str
    virtual_mac: str
    physical_host_ip: str
    vni: int


class Router(Struct, frozen=True, gc=False):
    """Names the routes of a VPC: `subnet` None is the system router, else the custom one of that subnet (CIDR)."""

    vni: int
    subnet: str | None = None


class RouterVersion(Struct, frozen=True, gc=False):
    router_id: UUID
    version: int

    def is_replaced_by(self, other: RouterVersion) -> bool:
        """Whether routes of version `other` are newer news: another router, or the same one grown."""
        return self.router_id != other.router_id or self.version < other.version


class RouteSet(Struct, frozen=True):
    """One element of `PUT /vpc-routes`."""

    id: Router
    version: RouterVersion | None
    routes: tuple[Mapping[str, object], ...]


class RouteState(Struct, frozen=True):
    """One element of `GET /vpc-routes`."""

    id: Router
    version: RouterVersion | None
