"""External IPs, subnets and the serial console (NX 6)."""

from ipaddress import IPv4Address, IPv4Network
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from support.nexus.world import BAD, World, report
from support.rows import in_one_test

from nexus_client.stub.config import SagaMode
from nexus_client.stub.contract import (
    AttachIp,
    AttachSubnet,
    CheckConsole,
    DeleteExternalIp,
    DetachIp,
    ErrorAnswered,
    ErrorBody,
    IpKind,
    NoConnection,
    PutExternalIp,
    Reply,
    Start,
)
from nexus_client.stub.networking import Resource, console_refusal, gate, vm_spec, whom_to_tell
from nexus_client.stub.records import ExternalIp, InstanceDbState, IpState, Records, VmmDbState
from nexus_client.stub.refusal import Refused
from nexus_client.stub.rules import RULES, RuleSet
from nexus_client.types import VmmState

S, V, R = VmmState, VmmDbState, InstanceDbState
OFF = {
    "watcher_period_us": None,
    "updater_period_us": None,
    "reaper_period_us": None,
    "reincarnation_period_us": None,
}
FLOATING = "203.0.113.99"


def error(reply):
    assert isinstance(reply, Reply)
    assert isinstance(reply.body, ErrorBody)
    return (reply.status, reply.body.message)


def stopped(**config):
    world = World.make(**{**OFF, **config})
    return world, world.create(start=False)


def states(world):
    return {ip.address: ip.state for ip in world.nexus.records.external_ips.values()}


# ---- step 1: the gate ----------------------------------------------------------------------------------------------


@in_one_test(("state", "label"), [(R.CREATING, "creating"), (R.FAILED, "failed"), (R.DESTROYED, "destroyed")])
@in_one_test("attach", [True, False])
def test_the_gate_looks_at_the_record(state, label, attach):
    world, web = stopped()
    verb = "attach floating IP to" if attach else "detach floating IP from"
    resource = Resource(IpKind.FLOATING) if attach else Resource(IpKind.FLOATING, IpState.ATTACHED, web)
    with pytest.raises(Refused) as refused:
        gate(replace(world.row(web), state=state), resource, attach=attach)
    assert refused.value.refusal.status == 400
    assert refused.value.refusal.message == f"cannot {verb} instance in {label} state"


def test_a_migrating_instance_is_a_503():
    world = World.make(**OFF)
    web = world.running()
    world.migrate(web)
    assert error(world.ask(AttachIp, web, IpKind.FLOATING, FLOATING)) == (503, "Service Unavailable")
    assert world.ask(DetachIp, web, IpKind.FLOATING, FLOATING).status == 204, "the address is judged first"


def test_an_ip_of_another_instance_is_a_400():
    world, web = stopped()
    other = world.create("other", start=False)
    assert world.ask(AttachIp, web, IpKind.FLOATING, FLOATING).status == 202
    assert error(world.ask(AttachIp, other, IpKind.FLOATING, FLOATING))[0] == 400
    assert error(world.ask(DetachIp, other, IpKind.FLOATING, FLOATING)) == (
        400,
        "floating IP is not attached to the target instance",
    )
    assert states(world) == {FLOATING: IpState.ATTACHED}


def test_an_ip_on_its_way_elsewhere_is_a_503():
    world = World.make(**OFF)
    web = world.running()
    other = world.create("other", start=False)
    world.attach(web, IpKind.FLOATING, FLOATING)
    assert states(world) == {FLOATING: IpState.ATTACHING}
    assert error(world.ask(AttachIp, other, IpKind.FLOATING, FLOATING))[0] == 503
    again = world.attach(web, IpKind.FLOATING, FLOATING)
    assert error(world.ask(DetachIp, web, IpKind.FLOATING, FLOATING))[0] == 503
    world.settle()
    assert world.replies[again].status == 202, "attaching to this one: the saga runs once more"


def test_attach_and_detach_are_idempotent():
    world, web = stopped()
    for _ in range(2):
        assert world.ask(AttachIp, web, IpKind.EPHEMERAL).status == 202
    assert len(states(world)) == 1
    assert world.ask(DetachIp, web, IpKind.EPHEMERAL).status == 204
    assert not states(world)
    message = "instance does not have an ephemeral IP attached"
    assert error(world.ask(DetachIp, web, IpKind.EPHEMERAL)) == (400, message)


def test_an_instance_has_two_ephemeral_addresses_one_per_family():
    world, web = stopped()
    assert world.ask(AttachIp, web, IpKind.EPHEMERAL).status == 202
    assert world.ask(AttachIp, web, IpKind.EPHEMERAL, "2001:db8::7").status == 202
    assert error(world.ask(AttachIp, web, IpKind.EPHEMERAL, "2001:db8::8"))[0] == 400
    assert world.ask(DetachIp, web, IpKind.EPHEMERAL, "2001:db8::7").status == 204
    assert len(states(world)) == 1


def test_limits_and_nonsense_are_400():
    world, web = stopped()
    assert error(world.ask(AttachIp, web, IpKind.FLOATING))[0] == 400
    assert error(world.ask(AttachIp, web, IpKind.FLOATING, "203.0.113.999"))[0] == 400
    assert error(world.ask(AttachIp, web, IpKind.SUBNET, "192.0.2.65/28"))[0] == 400
    assert world.ask(AttachIp, web, IpKind.EPHEMERAL).status == 202
    assert error(world.ask(AttachIp, web, IpKind.EPHEMERAL, "198.51.100.250"))[0] == 400
    for number in range(31):
        assert world.ask(AttachIp, web, IpKind.FLOATING, f"203.0.113.{number + 1}").status == 202
    assert error(world.ask(AttachIp, web, IpKind.FLOATING, "203.0.113.200"))[0] == 400


# ---- step 2: whom to tell ------------------------------------------------------------------------------------------

LATER = {V.STARTING, V.CREATING, V.STOPPING, V.STOPPED, V.MIGRATING}
TELL = {V.RUNNING, V.REBOOTING}


@in_one_test("rules", RuleSet)
@in_one_test("vmm", [None, *V])
@in_one_test("attach", [True, False])
def test_dispatch_of_an_instance_with_a_vmm(rules, vmm, attach):
    world, web = stopped()
    row = replace(world.row(web), state=R.VMM, active_propolis_id=web)
    try:
        answer = whom_to_tell(RULES[rules], row, vmm, attach=attach).name
    except Refused as refused:
        answer = (refused.refusal.status, refused.refusal.message, refused.refusal.detail)
    things = "IPs or subnets" if RULES[rules].head else "IPs"
    if vmm in TELL:
        assert answer == "SLED"
    elif vmm is V.SAGA_UNWOUND:
        assert answer == "NOBODY"
    elif vmm in LATER:
        verb = "attach" if attach else "detach"
        assert answer == (503, "Service Unavailable", f"can't {verb} in transient state {vmm.value}")
    elif vmm is V.FAILED:
        assert answer[:2] == (400, f"cannot modify instance {things}, instance is in unhealthy state")
    elif vmm is V.DESTROYED:
        assert answer == (500, "Internal Server Error", f"instance {web} points to destroyed VMM")
    else:
        assert answer == (500, "Internal Server Error", f"instance {web} is in the 'VMM' state but has no VMM ID")


def test_dispatch_of_an_instance_without_a_vmm():
    world, web = stopped()
    row = world.row(web)
    assert whom_to_tell(RULES[RuleSet.HEAD], row, None, attach=True).name == "NOBODY"
    expected = [
        (R.CREATING, 400, "still being created"),
        (R.FAILED, 400, "unhealthy state"),
        (R.DESTROYED, 404, "not found"),
    ]
    for state, status, words in expected:
        with pytest.raises(Refused) as refused:
            whom_to_tell(RULES[RuleSet.HEAD], replace(row, state=state), None, attach=True)
        assert refused.value.refusal.status == status
        assert words in refused.value.refusal.message


# ---- step 3: telling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "op"), [(IpKind.FLOATING, PutExternalIp), (IpKind.SUBNET, AttachSubnet)])
def test_the_sled_of_a_running_instance_is_told(kind, op):
    world = World.make(**OFF)
    web = world.running()
    address = "192.0.2.64/28" if kind is IpKind.SUBNET else FLOATING
    ticket = world.attach(web, kind, address)
    (call,) = world.calls
    assert isinstance(call.op, op)
    assert call.sled_id == world.active(web).sled_id
    if kind is IpKind.SUBNET:
        world.answer(call, ErrorAnswered(409, "SUBNET_ALREADY_ATTACHED", ""))  # as good as 204
    else:
        world.answer(call)
    assert world.replies[ticket].status == 202
    assert states(world) == {address: IpState.ATTACHED}


def test_nobody_is_told_of_a_stopped_instance_and_the_next_start_carries_it():
    world, web = stopped()
    assert world.ask(AttachIp, web, IpKind.FLOATING, FLOATING).status == 202
    assert not world.calls
    world.start(web)
    assert world.calls[0].op.spec.floating_ips == (FLOATING,)


@pytest.mark.parametrize(("outcome", "status"), [(NoConnection(), 503), (ErrorAnswered(500), 500), (BAD, 500)])
def test_a_sled_that_fails_undoes_the_attach(outcome, status):
    world = World.make(**OFF)
    web = world.running()
    ticket = world.attach(web, IpKind.FLOATING, FLOATING)
    world.answer(world.calls[0], outcome)
    assert world.replies[ticket].status == status
    assert not states(world)
    world.attach(web, IpKind.FLOATING, FLOATING)
    world.settle()
    ticket = world.detach(web, IpKind.FLOATING, FLOATING)
    assert isinstance(world.calls[0].op, DeleteExternalIp)
    world.answer(world.calls[0], outcome)
    assert world.replies[ticket].status == status
    assert states(world) == {FLOATING: IpState.ATTACHED}


def test_a_start_that_finds_an_ip_not_attached_is_a_503():
    world, web = stopped(saga_mode=SagaMode.QUEUED)
    world.settle()
    world.attach(web, IpKind.FLOATING, FLOATING)
    world.wait(10_000)
    assert states(world) == {FLOATING: IpState.ATTACHING}
    # the attach stands still, as behind a slow database, while the start comes to its register node
    (saga,) = world.nexus.sagas
    saga.due_us = None
    ticket = world.open(Start, web)
    world.settle()
    assert world.replies[ticket].status == 503
    assert world.public(web) == "stopped"


@pytest.mark.parametrize("state", [S.STOPPING, S.STARTING])
def test_a_vmm_in_a_transient_state_is_a_503_and_nothing_stays_marked(state):
    world = World.make(**OFF)
    web = world.running()
    world.report(world.active(web).id, report(state, 50))
    assert error(world.ask(AttachIp, web, IpKind.FLOATING, FLOATING)) == (503, "Service Unavailable")
    assert not states(world)


# ---- the serial console --------------------------------------------------------------------------------------------

STOPPED_WORD = 'cannot connect to serial console of instance in state "Stopped"'


@in_one_test("rules", RuleSet)
@in_one_test("vmm", V)
def test_console_of_an_instance_with_a_vmm(rules, vmm):
    world, web = stopped()
    row = replace(world.row(web), state=R.VMM, active_propolis_id=web)
    refused = console_refusal(RULES[rules], row, vmm, "shown")
    if vmm in (V.RUNNING, V.REBOOTING, V.MIGRATING):
        assert refused is None
        return
    assert refused.refusal.status == 400
    message = refused.refusal.message
    if vmm is V.DESTROYED and rules is RuleSet.R5854:
        assert message == "cannot connect to serial console of destroyed instance"
    elif vmm in (V.DESTROYED, V.SAGA_UNWOUND):
        assert message == STOPPED_WORD
    else:
        word = "shown" if rules in (RuleSet.R6455, RuleSet.HEAD, RuleSet.R11294) else vmm.value
        assert message == f'cannot connect to serial console of instance in state "{word}"'


def test_console_without_a_vmm():
    world, web = stopped()
    row = world.row(web)
    for rules, word in ((RuleSet.HEAD, "stopped"), (RuleSet.R5854, "no VMM"), (RuleSet.R5749, "no VMM")):
        refused = console_refusal(RULES[rules], row, None, "stopped")
        assert refused.refusal.message == f"instance is {word} and has no active serial console server"


def test_console_prints_the_public_state_at_head():
    world = World.make(saga_mode=SagaMode.BACKGROUND, **OFF)
    web = world.running()
    vmm = world.active(web)
    assert world.ask(CheckConsole, web).body == {"propolis_id": vmm.id, "propolis_addr": vmm.address}
    for state, word in (
        (S.STARTING, "starting"),
        (S.STOPPING, "stopping"),
        (S.STOPPED, "stopping"),
        (S.FAILED, "stopping"),
    ):
        world.report(vmm.id, report(state, world.active(web).state_generation + 1))
        message = f'cannot connect to serial console of instance in state "{word}"'
        assert error(world.ask(CheckConsole, web)) == (400, message)


def test_console_of_the_source_during_a_migration():
    world = World.make(**OFF)
    web = world.running()
    source = world.active(web).id
    world.migrate(web)
    assert world.ask(CheckConsole, web).body["propolis_id"] == source
    world.report(source, report(S.STOPPING, 50))
    assert error(world.ask(CheckConsole, web))[1].endswith('in state "migrating"')


# ---- what a VMM is told ----


def specs(ordinals):
    world = World.make(**OFF)
    row = world.nexus.records.instances[world.create(start=False)]
    return [vm_spec(world.nexus._ctx, replace(row, id=UUID(int=n), ordinal=n)) for n in ordinals]


def test_four_instances_share_a_source_nat_address_each_with_a_block_of_its_ports():
    """SA 4.2: 16,384 ports, aligned; what two instances had in common would reach either."""
    nats = [spec.source_nat for spec in specs(range(1, 9))]
    blocks = [(nat.ip, nat.first_port, nat.last_port) for nat in nats]
    quarters = [(0, 16383), (16384, 32767), (32768, 49151), (49152, 65535)]
    addresses = ["203.0.113.1"] * 4 + ["203.0.113.2"] * 4
    assert blocks == [(ip, *ports) for ip, ports in zip(addresses, quarters * 2, strict=True)]


def test_an_interface_lies_in_its_subnet_and_has_an_address_of_its_own():
    nics = [spec.nic for spec in specs(range(1, 900))]
    assert all(IPv4Address(nic.ip) in IPv4Network(nic.subnet) for nic in nics)
    assert all(IPv4Address(nic.ip) >= IPv4Address("172.30.0.5") for nic in nics), "the first five are reserved"
    assert len({nic.ip for nic in nics}) == len({nic.mac for nic in nics}) == len(nics)
    assert {nic.mac[:10] for nic in nics} == {"A8:40:25:F"}


@in_one_test(("project", "vni"), [(0, 1024), (1, 1025), (0xFF_0000, 1024), (0xFE_FFFF, 0xFF_03FF)])
def test_a_project_has_a_network_number_of_those_that_guests_may_have(project, vni):
    """24 bits, the first 1,024 for the system's own."""
    world = World.make(**OFF)
    row = world.nexus.records.instances[world.create(start=False)]
    assert vm_spec(world.nexus._ctx, replace(row, project_id=UUID(int=project))).nic.vni == vni


# ---- whose they are ------------------------------------------------------------------------------------------------


@given(
    writes=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([UUID(int=1), UUID(int=2), None])), min_size=1, max_size=12
    )
)
@settings(deadline=None)
def test_the_addresses_of_an_instance_are_those_that_say_so(writes):
    """Found without a look at those of all others, whatever was written, moved and dropped before."""
    records = Records()
    for address, owner in writes:
        if owner is None:
            records.drop_external_ip(address)
        else:
            records.put_external_ip(ExternalIp(address, IpKind.FLOATING, owner, IpState.ATTACHED))
        for one in (UUID(int=1), UUID(int=2)):
            said = {ip.address for ip in records.external_ips.values() if ip.instance_id == one}
            assert {ip.address for ip in records.external_ips_of(one)} == said
