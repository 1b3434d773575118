"""sled.py: the registry, its limits and its accounting (SA 2.2)."""

import msgspec
import pytest
from support.rack.driving import DOWN, M1, SLED_A, T0, V1, V2, V3, registration, snapshot
from support.rows import in_one_test

from nexus_client.outbox import Forget, Replied, Submit, Tick
from nexus_client.registration import GetReplied, Registration
from nexus_client.types import GENERATION_MAX, MigrationState, SledCpuFamily, SledRole, VmmState
from sim_sled.core import observe
from sim_sled.core import sled as sled_module
from sim_sled.core.config import GENERATIONS_LEFT, Hardware, SimMode, SledConfig
from sim_sled.core.contract import Nic
from sim_sled.core.errors import Internal, InvalidRequest, NoSuchVmm
from sim_sled.core.sled import Sled
from sim_sled.language.pacer import PresetPacer


def _sled(**config):
    return Sled(SledConfig(SLED_A, **config), PresetPacer("instant"), 0)


def _refused(sled, kind, propolis_id=V1, body=None, **fields):
    before = snapshot(sled)
    with pytest.raises(kind) as refusal:
        sled.register(propolis_id, body or registration(propolis_id, **fields), T0)
    assert snapshot(sled) == before
    return refusal.value.message


@pytest.mark.parametrize("state", [VmmState.STARTING, VmmState.MIGRATING])
def test_a_new_vmm_has_the_callers_runtime(state):
    sled = _sled()
    body = registration(V1, state, gen=17)
    vmm, new = sled.register(V1, body, T0)
    assert new
    assert vmm.record.vmm_state == body.vmm_runtime
    assert vmm.record.migration_in is None
    assert vmm.vm is None, "no Propolis before it is asked to run"


@pytest.mark.parametrize("state", [VmmState.STARTING, VmmState.MIGRATING])
def test_a_migration_id_makes_a_pending_migration_of_generation_1(state):
    vmm, _ = _sled().register(V1, registration(V1, state, migration_id=M1), T0)
    side = vmm.record.migration_in
    assert (side.migration_id, side.state, side.gen) == (M1, MigrationState.PENDING, 1)


@in_one_test("state", [each for each in VmmState if each.value not in {"starting", "migrating"}])
def test_property_13_no_other_first_state(state):
    message = _refused(_sled(), InvalidRequest, state=state)
    assert message == f"a VMM cannot be registered in state {state.value}"


def test_property_14_registering_again_returns_what_is_stored():
    sled = _sled()
    first, _ = sled.register(V1, registration(V1), T0)
    again, new = sled.register(V1, registration(V1, VmmState.MIGRATING, gen=9, migration_id=M1, ncpus=7), T0 + 1)
    assert not new
    assert again is first
    assert again.record.vmm_state.gen == 2
    assert again.record.migration_in is None
    assert sled.threads_used == 2


def test_registering_again_in_an_impossible_state_is_still_only_a_repetition():
    """The state is looked at for new VMMs only (SA 2.2 step 3)."""
    sled = _sled()
    sled.register(V1, registration(V1), T0)
    assert sled.register(V1, registration(V1, VmmState.STOPPED), T0)[1] is False


def test_another_instance_cannot_take_the_id():
    sled = _sled()
    sled.register(V1, registration(V1), T0)
    _refused(sled, Internal, body=registration(V1, instance_id=V3))


def test_registering_again_may_bring_further_routers():
    """SA 2.2: step 6 is repeated."""
    sled = _sled()
    sled.register(V1, registration(V1, nics=(Nic(7, ("172.30.0.0/22",)),)), T0)
    sled.register(V1, registration(V1, nics=(Nic(7, ("172.30.8.0/22",)),)), T0)
    assert [each["subnet"] for each in sled.networking.snapshot()["vpc_routes"]] == [
        None,
        "172.30.0.0/22",
        "172.30.8.0/22",
    ]
    sled.remove(sled.get(V1))
    assert sled.networking.snapshot()["vpc_routes"] == []


def test_max_vcpus_holds_for_new_ones_and_repetitions():
    """SA 2.2 step 1: checked on every call."""
    sled = _sled(max_vcpus=16)
    sled.register(V1, registration(V1, ncpus=16), T0)
    assert "ran out of CPUs" in _refused(sled, Internal, V2, ncpus=17)
    assert "ran out of CPUs" in _refused(sled, Internal, V1, ncpus=17)


def test_without_the_option_any_size_goes():
    sled = _sled()
    sled.register(V1, registration(V1, ncpus=1_000, memory_mib=2**30), T0)
    assert sled.threads_used == 1_000


def test_capacity_is_accounted_and_given_back():
    sled = _sled(
        enforce_capacity=True, hardware=Hardware(hardware_threads=8, reservoir_size=4 * 2**30, physical_ram=2**33)
    )
    sled.register(V1, registration(V1, ncpus=6, memory_mib=1024), T0)
    assert "no room for 3 more CPUs: 6 are in use" in _refused(sled, Internal, V2, ncpus=3)
    assert "no room for 4096 MiB more: 1024 MiB are in use" in _refused(sled, Internal, V2, memory_mib=4096)
    sled.register(V2, registration(V2, ncpus=2, memory_mib=3072), T0)  # exactly full
    sled.remove(sled.get(V1))
    assert (sled.threads_used, sled.memory_mib_used) == (2, 3072)
    sled.register(V3, registration(V3, ncpus=6, memory_mib=1024), T0)


def test_a_full_sled_refuses(monkeypatch):
    monkeypatch.setattr(sled_module, "VMMS_MAX", 2)
    sled = _sled()
    sled.register(V1, registration(V1), T0)
    sled.register(V2, registration(V2), T0)
    _refused(sled, Internal, V3)
    assert sled.register(V1, registration(V1), T0)[1] is False, "a repetition needs no room"


def test_an_unknown_vmm_is_named_in_the_refusal():
    with pytest.raises(NoSuchVmm) as refusal:
        _sled().get(V1)
    assert refusal.value.propolis_id == V1


def test_removing_gives_everything_back():
    sled = _sled()
    before = snapshot(sled)
    vmm, _ = sled.register(V1, registration(V1, nics=(Nic(7, ("172.30.0.0/22",)),)), T0)
    sled.remove(vmm)
    assert [propolis_id for propolis_id, _ in sled.ended] == [V1]  # remembered on purpose: its zone bundle
    sled.ended.clear()
    assert snapshot(sled) == before


def test_info_tells_the_hardware():
    hardware = Hardware(
        hardware_threads=128,
        physical_ram=2**40,
        reservoir_size=2**39,
        cpu_family=SledCpuFamily.AMD_TURIN,
        role=SledRole.GIMLET,
        baseboard_model="model",
        baseboard_revision=6,
        baseboard_serial="BRM42220031",
    )
    info = _sled(hardware=hardware).info("[::1]:12345", 7)
    assert (info.sa_address, info.repo_depot_port) == ("[::1]:12345", 7)
    assert (info.usable_hardware_threads, info.usable_physical_ram, info.reservoir_size) == (128, 2**40, 2**39)
    assert (info.role, info.cpu_family) == (SledRole.GIMLET, SledCpuFamily.AMD_TURIN)
    assert msgspec.structs.astuple(info.baseboard) == ("BRM42220031", "model", 6)


def test_the_serial_number_comes_from_the_id():
    assert _sled().info("[::1]:1", 1).baseboard.serial == f"sim-{SLED_A}"


def test_describe_lists_in_the_order_of_the_ids():
    sled = _sled()
    for propolis_id in (V3, V1, V2):
        sled.register(propolis_id, registration(propolis_id), T0)
    assert sled.describe(lambda vmm: {"id": vmm.propolis_id}) == [{"id": each} for each in (V1, V2, V3)]


@pytest.mark.parametrize(("mode", "stepped"), [(SimMode.AUTO, False), (SimMode.EXPLICIT, True)])
def test_the_mode_decides_whether_vmms_are_stepped(mode, stepped):
    how = _sled(mode=mode, stop_grace_us=5).how
    assert (how.stepped, how.stop_grace_us) == (stepped, 5)


def test_the_deadline_is_the_earlier_of_outbox_and_registration():
    sled = _sled()
    assert sled.deadline_us() is None
    sled.registration = Registration(SLED_A, sled.info("[::1]:1", 1))
    assert sled.deadline_us() == 0, "a registration that has not begun is overdue"
    sled.registration.handle(Tick(), T0)
    assert sled.deadline_us() is None, "the answer is awaited"
    [send] = sled.outbox.handle(Submit(V1, observe.registered(registration(V1).vmm_runtime, None, T0)), T0)
    sled.outbox.handle(Replied(V1, send.serial, DOWN), T0)
    assert sled.deadline_us() == sled.outbox.next_deadline_us() > T0
    sled.registration.handle(GetReplied(DOWN), T0)
    # the registration's base is 100 ms, the outbox's 250 ms; both are jittered by half
    deadlines = sled.outbox.next_deadline_us(), sled.registration.next_deadline_us()
    assert sled.deadline_us() == min(deadlines)
    sled.outbox.handle(Forget(V1), T0)
    assert sled.deadline_us() == deadlines[1]


@pytest.mark.parametrize("state", [VmmState.STARTING, VmmState.MIGRATING])
def test_a_generation_must_leave_room_for_a_life(state):
    """The wire has 63 bits: the next step of a VMM registered at their end could not be told."""
    highest = GENERATION_MAX - GENERATIONS_LEFT
    sled = _sled()
    for gen in (highest + 1, GENERATION_MAX - 1, GENERATION_MAX):
        with pytest.raises(InvalidRequest, match="leaves no room"):
            sled.register(V1, registration(V1, state, gen=gen), T0)
        assert sled.vmms == {}
    assert sled.register(V1, registration(V1, state, gen=highest), T0)[0].record.vmm_state.gen == highest
