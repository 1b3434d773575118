"""Operations on virtual networks: 5 to 12 and 14 to 22 of SA 3.1, rules of 3.4.

Read before: core/networking/calls.py, http/routes.py. Read next: http/operations.py.
"""

from __future__ import annotations

import msgspec

from nexus_client.dropshot.json import encode, plain
from sim_sled.core import contract
from sim_sled.core.errors import BadRequest
from sim_sled.core.networking import calls
from sim_sled.http.bodies_small import probes_of, route_state_json
from sim_sled.http.routes import Answer, Call
from sim_sled.http.vmms import NO_CONTENT


async def _ask(call: Call, what: contract.AreaCall) -> object:
    host = call.host
    return await host.submit(contract.CallArea(host.ticket(), call.sled_id, calls.FACTS, what))


async def _tell(call: Call, what: contract.AreaCall) -> Answer:
    await _ask(call, what)
    return NO_CONTENT


async def put_external_ip(call: Call) -> Answer:
    return await _tell(call, calls.PutExternalIp(call.propolis_id, call.body.to_edge()))


async def delete_external_ip(call: Call) -> Answer:
    return await _tell(call, calls.DeleteExternalIp(call.propolis_id, call.body.to_edge()))


async def join_multicast_group(call: Call) -> Answer:
    if call.body.join is msgspec.UNSET:
        raise BadRequest("Join endpoint cannot process Leave operations")
    return await _tell(call, calls.JoinMulticastGroup(call.propolis_id, call.body.join.to_edge()))


async def leave_multicast_group(call: Call) -> Answer:
    if call.body.leave is msgspec.UNSET:
        raise BadRequest("Leave endpoint cannot process Join operations")
    return await _tell(call, calls.LeaveMulticastGroup(call.propolis_id, call.body.leave.to_edge()))


async def put_attached_subnets(call: Call) -> Answer:
    subnets = tuple(subnet.to_edge() for subnet in call.body.subnets)
    return await _tell(call, calls.PutAttachedSubnets(call.propolis_id, subnets))


async def post_attached_subnet(call: Call) -> Answer:
    return await _tell(call, calls.PostAttachedSubnet(call.propolis_id, call.body.to_edge()))


async def delete_attached_subnets(call: Call) -> Answer:
    return await _tell(call, calls.DeleteAttachedSubnets(call.propolis_id))


async def delete_attached_subnet(call: Call) -> Answer:
    return await _tell(call, calls.DeleteAttachedSubnet(call.propolis_id, call.path[1]))


async def list_v2p(call: Call) -> Answer:
    return Answer(200, encode(await _ask(call, calls.ListV2p())))


async def set_v2p(call: Call) -> Answer:
    return await _tell(call, calls.SetV2p(call.body.to_edge()))


async def delete_v2p(call: Call) -> Answer:
    return await _tell(call, calls.DeleteV2p(call.body.to_edge()))


async def list_vpc_routes(call: Call) -> Answer:
    states = await _ask(call, calls.ListVpcRoutes())
    assert isinstance(states, list)
    return Answer(200, encode([route_state_json(state) for state in states]))


async def set_vpc_routes(call: Call) -> Answer:
    return await _tell(call, calls.SetVpcRoutes(tuple(routes.to_edge() for routes in call.body)))


async def put_firewall_rules(call: Call) -> Answer:
    call.body.check()
    rules = tuple(plain(rule) for rule in call.body.rules)
    return await _tell(call, calls.PutFirewallRules(call.path[0], call.body.vni, rules))


async def set_eip_gateways(call: Call) -> Answer:
    return await _tell(call, calls.SetEipGateways(call.body.to_facts()))


async def put_probes(call: Call) -> Answer:
    return await _tell(call, calls.PutProbes(probes_of(call.body)))


async def add_sled(call: Call) -> Answer:  # noqa: ARG001 -- a handler like the others
    """Accepted and ignored, as in the original: this sled adds no others to the rack."""
    return NO_CONTENT
