"""Small operations over HTTP: identity, switch zone policy, zones, root of trust (SR 4.6).

Read before: http/asking.py. Read next: http/operations.py.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Final

from nexus_client.dropshot.answers import Refused
from nexus_client.dropshot.json import Json
from sim_sled.core.identity.rot import RootOfTrust
from sim_sled.core.identity.small import Identity
from sim_sled.http.asking import NO_CONTENT, ask, ok
from sim_sled.http.bodies_network import Struct
from sim_sled.http.bodies_omicron import Sha256
from sim_sled.http.routes import Answer, Call

_SUBNET_BITS: Final = 64
_SWITCH_ZONE: Final = 2
"""The switch zone has the second address of its sled's subnet (SR 6.3)."""


class Policy(Enum):
    START = "start_if_switch_present"
    STOP = "stop_despite_switch_presence"


class PolicyBody(Struct, kw_only=True):
    policy: Policy


class OrphansBody(Struct, kw_only=True):
    destroy_orphans: bool


POLICY: Final = Json(PolicyBody)
ORPHANS: Final = Json(OrphansBody)
NONCE: Final = Json(Sha256)


async def sled_identifiers(call: Call) -> Answer:
    return ok(await ask(call, Identity, Identity.identifiers))


async def sled_role(call: Call) -> Answer:
    return ok(await ask(call, Identity, Identity.role))


async def get_policy(call: Call) -> Answer:
    return ok({"policy": await ask(call, Identity, Identity.policy)})


async def put_policy(call: Call) -> Answer:
    remote, own = _addresses(call)
    from_switch = remote is not None and own is not None and remote == _subnet(own) + _SWITCH_ZONE
    await ask(call, Identity, Identity.put_policy, call.body.policy.value, from_switch)
    return NO_CONTENT


async def get_destroy_orphans(call: Call) -> Answer:  # noqa: ARG001 -- a handler like the others
    return ok({"destroy_orphans": True})


async def put_destroy_orphans(call: Call) -> Answer:
    await ask(call, Identity, Identity.put_destroy_orphans, call.body.destroy_orphans)
    return NO_CONTENT


async def zones(call: Call) -> Answer:
    return ok(await ask(call, Identity, Identity.zones))


async def measurement_log(call: Call) -> Answer:
    _check_local(call)
    return ok(await ask(call, RootOfTrust, RootOfTrust.measurement_log))


async def certificate_chain(call: Call) -> Answer:
    _check_local(call)
    return ok(await ask(call, RootOfTrust, RootOfTrust.certificate_chain))


async def attest(call: Call) -> Answer:
    _check_local(call)
    return ok(await ask(call, RootOfTrust, RootOfTrust.attest, str(call.body)))


# ---- who asks ------------------------------------------------------------------------------------------------------


def _addresses(call: Call) -> tuple[int | None, int | None]:
    """Of the client and of this sled, if they are IPv6 and not the loopback's."""
    assert call.request is not None, "requests come from the server"
    transport = call.request.transport
    own = transport.get_extra_info("sockname") if transport is not None else None
    return _v6(call.request.remote), _v6(own[0] if own else None)


def _v6(text: str | None) -> int | None:
    if text is None:
        return None
    address = ip_address(text.partition("%")[0])
    return int(address) if isinstance(address, IPv6Address) and not address.is_loopback else None


def _subnet(address: int) -> int:
    return address >> _SUBNET_BITS << _SUBNET_BITS


def _check_local(call: Call) -> None:
    """Only who is on the sled may ask; on the loopback device that is everybody. Raises `Refused`."""
    remote, own = _addresses(call)
    if own is None:
        return
    if remote is None:
        raise Refused(403, "unexpected non-v6 request")
    if _subnet(remote) != _subnet(own):
        raise Refused(403, "non-sled-local request not allowed")
