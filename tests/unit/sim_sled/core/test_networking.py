"""The networking facts of a sled (SA 3.4), without HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.profile import by_profile
from support.rows import in_one_test

from nexus_client.types import VmmRuntimeState, VmmState
from sim_sled.core import contract
from sim_sled.core.contract import AttachedSubnet, ExternalIp, MulticastMembership, Nic
from sim_sled.core.errors import Conflict, Internal, InvalidRequest, SledError, TooMany
from sim_sled.core.networking import calls, facts
from sim_sled.core.networking.facts import Networking
from sim_sled.core.networking.values import Router, RouterVersion, RouteSet, RouteState, V2pMapping

A, B, C = (UUID(int=n) for n in (1, 2, 3))
V4, V6 = "172.30.0.0/22", "fd41::/64"
NOW = VmmRuntimeState(VmmState.STARTING, 2, datetime(2026, 8, 21, tzinfo=UTC))


def registration(**changes):
    return contract.Registration(
        **({
            "instance_id": UUID(int=9), "vmm_runtime": NOW, "propolis_addr": "[::1]:1", "ncpus": 1, "memory_mib": 1,
            "hostname": "h", "silo_id": UUID(int=8), "project_id": UUID(int=7), "nics": (Nic(100, (V4,)),),
        } | changes)
    )  # fmt: skip


@pytest.fixture(name="net")
def _net():
    net = Networking()
    net.vmm_registered(A, registration())
    return net


def vmm(net, propolis_id=A):
    return net.snapshot()["vmms"][str(propolis_id)]


def ephemeral(ip):
    return ExternalIp("ephemeral", ip)


# ---- registration and removal --------------------------------------------------------------------------------------


@in_one_test(
    "call",
    [
        calls.PutExternalIp(B, ephemeral("1.2.3.4")),
        calls.DeleteExternalIp(B, ephemeral("1.2.3.4")),
        calls.JoinMulticastGroup(B, MulticastMembership("239.0.0.1", ())),
        calls.LeaveMulticastGroup(B, MulticastMembership("239.0.0.1", ())),
        calls.PutAttachedSubnets(B, ()),
        calls.PostAttachedSubnet(B, AttachedSubnet("10.0.0.0/24", "vpc")),
        calls.DeleteAttachedSubnets(B),
        calls.DeleteAttachedSubnet(B, "10.0.0.0/24"),
    ],
    ids=lambda call: type(call).__name__,
)
def test_calls_on_a_vmm_that_is_not_registered_are_internal_errors_and_change_nothing(net, call):
    before = net.snapshot()
    with pytest.raises(Internal):
        call.apply(net, 0)
    assert net.snapshot() == before
    net.vmm_registered(B, registration())
    net.vmm_removed(B)
    with pytest.raises(Internal):
        call.apply(net, 0)


def test_the_registration_is_visible_and_goes_with_the_vmm():
    """SA 6 #26."""
    net = Networking()
    empty = net.snapshot()
    body = registration(
        nics=(Nic(100, (V4, V6)), Nic(200, (V4,))),
        external_ips=(ephemeral("203.0.113.7"), ExternalIp("floating", "2001:db8::1")),
        multicast_groups=(MulticastMembership("239.0.0.1", ("10.0.0.1",)),),
        attached_subnets=(AttachedSubnet("192.0.2.64/28", "external"),),
    )
    net.vmm_registered(A, body)
    assert vmm(net) == {
        "external_ips": [
            {"type": "ephemeral", "value": "203.0.113.7"}, {"type": "floating", "value": "2001:db8::1"}
        ],
        "multicast_groups": [{"group_ip": "239.0.0.1", "sources": ["10.0.0.1"]}],
        "attached_subnets": [{"kind": "external", "subnet": "192.0.2.64/28"}],
        "routers": [
            {"vni": 100, "subnet": None}, {"vni": 100, "subnet": V4}, {"vni": 100, "subnet": V6},
            {"vni": 200, "subnet": None}, {"vni": 200, "subnet": V4},
        ],
    }  # fmt: skip
    json.dumps(net.snapshot())
    net.put_firewall_rules(C, 100, ({"action": "allow"},))
    net.put_external_ip(A, ephemeral("203.0.113.9"))
    net.vmm_removed(A)
    assert net.snapshot() == empty
    net.vmm_removed(A)  # twice is harmless


def test_a_repeated_registration_changes_nothing(net):
    net.put_external_ip(A, ephemeral("1.2.3.4"))
    before = net.snapshot()
    net.vmm_registered(A, registration(external_ips=(ephemeral("5.6.7.8"),)))
    assert net.snapshot() == before


def test_a_repeated_registration_may_bring_further_routers(net):
    net.vmm_registered(A, registration(nics=(Nic(300, (V6,)),)))
    assert [state.id for state in net.list_vpc_routes()] == [
        Router(100), Router(100, V4), Router(300), Router(300, V6)
    ]  # fmt: skip
    net.vmm_removed(A)
    assert net.list_vpc_routes() == []


# ---- external addresses --------------------------------------------------------------------------------------------


def test_one_ephemeral_address_at_a_time(net):
    net.put_external_ip(A, ephemeral("203.0.113.77"))
    net.put_external_ip(A, ephemeral("203.0.113.77"))  # the same again is a no-op
    before = net.snapshot()
    with pytest.raises(InvalidRequest, match="cannot replace existing ephemeral IP without explicit removal"):
        net.put_external_ip(A, ephemeral("203.0.113.78"))
    assert net.snapshot() == before
    net.delete_external_ip(A, ephemeral("203.0.113.99"))  # never attached: removes nothing
    with pytest.raises(InvalidRequest):
        net.put_external_ip(A, ephemeral("203.0.113.78"))
    net.delete_external_ip(A, ephemeral("203.0.113.77"))
    net.put_external_ip(A, ephemeral("203.0.113.78"))
    assert vmm(net)["external_ips"] == [{"type": "ephemeral", "value": "203.0.113.78"}]


def test_one_ephemeral_address_per_ip_family():
    """SA 6 #27."""
    net = Networking()
    net.vmm_registered(A, registration())
    net.put_external_ip(A, ephemeral("203.0.113.77"))
    net.put_external_ip(A, ephemeral("2001:db8::1"))
    with pytest.raises(InvalidRequest):
        net.put_external_ip(A, ephemeral("2001:db8::2"))


def test_floating_addresses_never_conflict(net):
    for last in range(3):
        net.put_external_ip(A, ExternalIp("floating", f"203.0.113.{last}"))
    net.put_external_ip(A, ephemeral("203.0.113.0"))
    assert len(vmm(net)["external_ips"]) == 4


def test_addresses_of_the_registration_do_not_conflict_but_can_be_detached():
    """The original's set starts empty (3.4); what is in effect starts with the registration (6 #26)."""
    net = Networking()
    net.vmm_registered(A, registration(external_ips=(ephemeral("203.0.113.7"),)))
    net.put_external_ip(A, ephemeral("203.0.113.8"))
    net.delete_external_ip(A, ephemeral("203.0.113.7"))
    assert vmm(net)["external_ips"] == [{"type": "ephemeral", "value": "203.0.113.8"}]


def test_vmms_do_not_share_addresses(net):
    net.vmm_registered(B, registration())
    net.put_external_ip(A, ephemeral("203.0.113.7"))
    net.put_external_ip(B, ephemeral("203.0.113.8"))
    assert vmm(net, B)["external_ips"] == [{"type": "ephemeral", "value": "203.0.113.8"}]


# ---- multicast, subnets --------------------------------------------------------------------------------------------


def test_a_membership_is_its_group_and_its_sources_in_order(net):
    ab, ba = MulticastMembership("232.0.0.1", ("10.0.0.1", "10.0.0.2")), MulticastMembership(
        "232.0.0.1", ("10.0.0.2", "10.0.0.1")
    )  # fmt: skip
    net.join_multicast_group(A, ab)
    net.join_multicast_group(A, ab)
    net.join_multicast_group(A, ba)
    assert len(vmm(net)["multicast_groups"]) == 2
    net.leave_multicast_group(A, ab)
    net.leave_multicast_group(A, ab)  # absent: no error
    assert vmm(net)["multicast_groups"] == [{"group_ip": "232.0.0.1", "sources": ["10.0.0.2", "10.0.0.1"]}]


def test_a_subnet_that_came_with_the_registration_may_be_attached_once_more():
    """SA 3.4: only those that were asked for conflict."""
    net = Networking()
    again = AttachedSubnet("192.0.2.64/28", "external")
    net.vmm_registered(A, registration(attached_subnets=(again,)))
    net.post_attached_subnet(A, again)
    assert vmm(net)["attached_subnets"] == [{"kind": "external", "subnet": "192.0.2.64/28"}]
    with pytest.raises(Conflict):
        net.post_attached_subnet(A, again)


def test_attached_subnets_one_by_one_and_as_a_set(net):
    one, other = AttachedSubnet("198.51.100.0/27", "external"), AttachedSubnet("2001:db8:40::/56", "external")
    net.post_attached_subnet(A, one)
    net.post_attached_subnet(A, other)
    with pytest.raises(Conflict, match="Subnet already attached"):
        net.post_attached_subnet(A, AttachedSubnet(one.subnet, "vpc"))
    net.delete_attached_subnet(A, one.subnet)
    net.delete_attached_subnet(A, one.subnet)  # not there: no error
    net.post_attached_subnet(A, one)
    net.put_attached_subnets(A, (one,))
    net.post_attached_subnet(A, other)  # the replacement took it away
    with pytest.raises(Conflict):
        net.post_attached_subnet(A, one)
    net.delete_attached_subnets(A)
    assert vmm(net)["attached_subnets"] == []
    net.post_attached_subnet(A, one)
    assert vmm(net)["attached_subnets"] == [{"kind": "external", "subnet": one.subnet}]


# ---- per sled ------------------------------------------------------------------------------------------------------


def test_all_four_fields_of_a_mapping_are_its_key():
    net = Networking()
    one = V2pMapping("10.0.0.1", "A8:40:25:00:00:01", "fd00::1", 100)
    moved = V2pMapping("10.0.0.1", "A8:40:25:00:00:01", "fd00::2", 100)
    for mapping in (moved, one, one):
        net.set_v2p(mapping)
    assert net.list_v2p() == [one, moved]
    net.delete_v2p(one)
    net.delete_v2p(one)
    assert net.list_v2p() == [moved]


R, S = UUID(int=50), UUID(int=51)


@pytest.mark.parametrize(
    ("stored", "new", "taken"),
    [
        pytest.param(None, None, True, id="nothing known on either side"),
        pytest.param(None, (R, 1), True, id="first version"),
        pytest.param((R, 1), (R, 2), True, id="grown"),
        pytest.param((R, 2), (R, 2), False, id="the same again"),
        pytest.param((R, 2), (R, 1), False, id="older"),
        pytest.param((R, 9), (S, 1), True, id="another router"),
        pytest.param((R, 2), None, True, id="a null version erases the stored one"),
    ],
)
def test_which_routes_are_news(net, stored, new, taken):
    def routes(version, text):
        return RouteSet(Router(100), version and RouterVersion(*version), ({"dest": text},))

    net.set_vpc_routes([routes(stored, "old")])
    net.set_vpc_routes([routes(new, "new")])
    (state, _) = net.list_vpc_routes()
    expected = new if taken else stored
    assert state == RouteState(Router(100), expected and RouterVersion(*expected))
    assert net.snapshot()["vpc_routes"][0]["routes"] == [{"dest": "new" if taken else "old"}]


def test_routes_nobody_here_uses_are_ignored(net):
    before = net.snapshot()
    net.set_vpc_routes([RouteSet(Router(999), RouterVersion(R, 1), ())])
    assert net.snapshot() == before


def test_routes_stay_as_long_as_one_vmm_uses_them(net):
    """SA 6 #28: users are counted."""
    net.vmm_registered(B, registration(nics=(Nic(100, (V6,)), Nic(100, (V6,)))))
    net.set_vpc_routes([RouteSet(Router(100), RouterVersion(R, 1), ())])
    assert [row["users"] for row in net.snapshot()["vpc_routes"]] == [2, 1, 1]
    net.vmm_removed(A)
    assert net.list_vpc_routes() == [RouteState(Router(100), RouterVersion(R, 1)), RouteState(Router(100, V6), None)]
    net.vmm_removed(B)
    net.vmm_registered(A, registration())
    assert net.list_vpc_routes()[0] == RouteState(Router(100), None), "a new life starts without version"


def test_routes_are_listed_system_first_then_by_family_and_text():
    net = Networking()
    net.vmm_registered(A, registration(nics=(Nic(200, ()), Nic(100, ("fd41::/64", "9.0.0.0/8", "10.0.0.0/8")))))
    assert [(s.id.vni, s.id.subnet) for s in net.list_vpc_routes()] == [
        (100, None), (100, "10.0.0.0/8"), (100, "9.0.0.0/8"), (100, "fd41::/64"), (200, None)
    ]  # fmt: skip


def test_firewall_rules_are_replaced_and_leave_with_the_last_vmm_of_their_vpc(net):
    net.vmm_registered(B, registration())
    net.put_firewall_rules(C, 100, ({"action": "allow"},))
    net.put_firewall_rules(C, 100, ({"action": "deny"},))
    net.put_firewall_rules(R, 200, ())
    net.vmm_removed(A)
    assert net.snapshot()["firewall"] == {
        str(C): {"vni": 100, "rules": [{"action": "deny"}]}, str(R): {"vni": 200, "rules": []}
    }  # fmt: skip
    net.vmm_removed(B)
    assert list(net.snapshot()["firewall"]) == [str(R)]


def test_a_vpc_that_changes_its_vni_keeps_one_set_of_rules(net):
    net.put_firewall_rules(C, 200, ())
    net.put_firewall_rules(C, 100, ())
    net.vmm_removed(A)
    assert net.snapshot()["firewall"] == {}


def test_rules_stay_when_a_subnet_of_their_vpc_is_left_or_the_number_that_the_vpc_had(net):
    net.vmm_registered(B, registration(nics=(Nic(100, ("10.0.0.0/24",)),)))
    net.vmm_registered(C, registration(nics=(Nic(200, (V4,)),)))
    net.put_firewall_rules(R, 100, ())
    net.vmm_removed(B)
    assert list(net.snapshot()["firewall"]) == [str(R)], "somebody is left in another subnet"
    net.put_firewall_rules(R, 200, ())
    net.vmm_removed(A)
    assert list(net.snapshot()["firewall"]) == [str(R)], "100 is another VPC's by now"
    net.vmm_removed(C)
    assert net.snapshot()["firewall"] == {}


def test_gateways_and_probes_are_replaced_as_a_whole():
    net = Networking()
    net.set_eip_gateways({A: {"203.0.113.1": (R, S)}, B: {}})
    assert net.snapshot()["eip_gateways"] == {str(A): {"203.0.113.1": [str(R), str(S)]}, str(B): {}}
    net.set_eip_gateways({})
    net.put_probes(({"id": "1"}, {"id": "2"}))
    net.put_probes(({"id": "2"},))
    assert (net.snapshot()["eip_gateways"], net.snapshot()["probes"]) == ({}, [{"id": "2"}])


# ---- limits --------------------------------------------------------------------------------------------------------


def test_limits_refuse_and_change_nothing(net, monkeypatch):
    monkeypatch.setattr(facts, "PER_VMM_MAX", 1)
    monkeypatch.setattr(facts, "V2P_MAX", 1)
    monkeypatch.setattr(facts, "FIREWALL_VPCS_MAX", 1)
    mapping = V2pMapping("10.0.0.1", "A8:40:25:00:00:01", "fd00::1", 100)
    net.put_external_ip(A, ephemeral("1.2.3.4"))
    net.join_multicast_group(A, MulticastMembership("239.0.0.1", ()))
    net.post_attached_subnet(A, AttachedSubnet("10.0.0.0/24", "vpc"))
    net.set_v2p(mapping)
    net.put_firewall_rules(C, 100, ())
    before = net.snapshot()
    for call in [
        calls.PutExternalIp(A, ExternalIp("floating", "1.2.3.5")),
        calls.JoinMulticastGroup(A, MulticastMembership("239.0.0.2", ())),
        calls.PostAttachedSubnet(A, AttachedSubnet("10.0.1.0/24", "vpc")),
        calls.PutAttachedSubnets(A, (AttachedSubnet("10.0.1.0/24", "vpc"), AttachedSubnet("10.0.2.0/24", "vpc"))),
        calls.SetV2p(V2pMapping("10.0.0.2", "A8:40:25:00:00:01", "fd00::1", 100)),
        calls.PutFirewallRules(R, 100, ()),
    ]:
        with pytest.raises(TooMany):
            call.apply(net, 0)
    assert net.snapshot() == before
    net.set_v2p(mapping)  # what is there already may be said again
    net.put_firewall_rules(C, 100, ())


# ---- against a naive oracle ----------------------------------------------------------------------------------------

VMMS = st.sampled_from([A, B, C])
IPS = st.builds(
    ExternalIp,
    st.sampled_from(["ephemeral", "floating"]),
    st.sampled_from(["1.1.1.1", "1.1.1.2", "fd00::1", "fd00::2"]),
)
SUBNETS = st.builds(
    AttachedSubnet, st.sampled_from(["10.0.0.0/24", "fd00::/64"]), st.sampled_from(["vpc", "external"])
)
NICS = st.lists(st.builds(Nic, st.sampled_from([100, 200]), st.sampled_from([(V4,), (V6,), (V4, V6)])), max_size=3)


class NetworkingMachine(RuleBasedStateMachine):
    """Registration, attach and detach in any order: the same answers as a dict of sets, and nothing left behind."""

    def __init__(self):
        super().__init__()
        self.net = Networking()
        self.vmms = {}  # id -> [nics, ips asked for, subnets asked for]

    def same(self, act, expected):
        """`act` must fail with `expected`, or pass if that is None; a failure changes nothing."""
        if expected is None:
            act()
            return
        before = self.net.snapshot()
        with pytest.raises(SledError) as caught:
            act()
        assert type(caught.value) is expected
        assert self.net.snapshot() == before

    @rule(vmm=VMMS, nics=NICS)
    def register(self, vmm, nics):
        self.net.vmm_registered(vmm, registration(nics=tuple(nics)))
        self.vmms.setdefault(vmm, [[], set(), {}])[0].extend(nics)

    @rule(vmm=VMMS)
    def remove(self, vmm):
        self.net.vmm_removed(vmm)
        self.vmms.pop(vmm, None)

    @rule(vmm=VMMS, ip=IPS)
    def put_ip(self, vmm, ip):
        expected = Internal if vmm not in self.vmms else None
        if expected is None:
            family = [i for i in self.vmms[vmm][1] if i.kind == "ephemeral" and (":" in i.ip) == (":" in ip.ip)]
            expected = InvalidRequest if ip.kind == "ephemeral" and family and family != [ip] else None
        self.same(lambda: self.net.put_external_ip(vmm, ip), expected)
        if expected is None:
            self.vmms[vmm][1].add(ip)

    @rule(vmm=VMMS, ip=IPS)
    def delete_ip(self, vmm, ip):
        self.same(lambda: self.net.delete_external_ip(vmm, ip), None if vmm in self.vmms else Internal)
        if vmm in self.vmms:
            self.vmms[vmm][1].discard(ip)

    @rule(vmm=VMMS, subnet=SUBNETS)
    def post_subnet(self, vmm, subnet):
        expected = Internal if vmm not in self.vmms else Conflict if subnet.subnet in self.vmms[vmm][2] else None
        self.same(lambda: self.net.post_attached_subnet(vmm, subnet), expected)
        if expected is None:
            self.vmms[vmm][2][subnet.subnet] = subnet.kind

    @precondition(lambda self: self.vmms)
    @rule(data=st.data(), subnets=st.lists(SUBNETS, max_size=2, unique_by=lambda subnet: subnet.subnet))
    def put_subnets(self, data, subnets):
        vmm = data.draw(st.sampled_from(sorted(self.vmms)))
        self.net.put_attached_subnets(vmm, subnets)
        self.vmms[vmm][2] = {subnet.subnet: subnet.kind for subnet in subnets}

    @invariant()
    def what_is_shown_is_what_was_asked_for(self):
        shown = self.net.snapshot()
        assert set(shown["vmms"]) == {str(vmm) for vmm in self.vmms}
        for vmm, (_, ips, subnets) in self.vmms.items():
            own = shown["vmms"][str(vmm)]
            assert {(ip["type"], ip["value"]) for ip in own["external_ips"]} == {(ip.kind, ip.ip) for ip in ips}
            assert {row["subnet"]: row["kind"] for row in own["attached_subnets"]} == subnets

    @invariant()
    def routers_are_those_in_use(self):
        users = {}
        for nics, _, _ in self.vmms.values():
            for router in {(nic.vni, subnet) for nic in nics for subnet in (None, *nic.subnets)}:
                users[router] = users.get(router, 0) + 1
        shown = {(row["vni"], row["subnet"]): row["users"] for row in self.net.snapshot()["vpc_routes"]}
        assert shown == users


TestNetworkingMachine = pytest.mark.nightly(NetworkingMachine.TestCase)
TestNetworkingMachine.settings = settings(max_examples=by_profile(25, nightly=5_000))
