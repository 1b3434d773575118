"""The weaknesses of the existing simulator that concern VMMs, each closed (SA 6, by number).

Each test is at the layer where the weakness is closed: the core on a virtual clock, or a daemon with real sockets on
both sides and a Nexus that can be down, refuse, or be slow.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.daemon.driving import body_of, running_daemon
from support.nexus.fake_nexus import FakeNexus
from support.rack.driving import (
    ACK,
    DOWN,
    GONE,
    M1,
    RUNNING,
    SECOND,
    SLED_A,
    SLED_B,
    STOPPED,
    V1,
    V2,
    V3,
    VMMS,
    RackDriver,
    ScriptedPacer,
    address_of,
    instance_of,
    refused,
    target,
)
from support.rows import in_one_test

from nexus_client.dropshot.text import SocketAddress
from nexus_client.types import SledCpuFamily, SledRole, VmmState
from propolis_stub.guest_events import GuestEvent
from propolis_stub.waiting import Pace, Point
from sim_sled.core import errors
from sim_sled.core.config import Hardware, SimMode, SledConfig
from sim_sled.core.contract import Nic, Tick
from sim_sled.core.why import told
from sim_sled.daemon.control import Control, serve_control
from sim_sled.language.pacer import PresetPacer

# --- 1 to 4 ---------------------------------------------------------------------------------------------------------


async def test_weakness_01_a_sled_can_be_bound_to_a_fixed_port_and_the_depot_has_its_own():
    async with FakeNexus() as nexus:
        async with running_daemon(nexus) as client:
            address = client.daemon.addresses[SLED_A]
            await nexus.until(lambda: nexus.posted)
            depot = nexus.posted[-1]["repo_depot_port"]
            assert depot == SocketAddress.parse(address).port, "without one of its own it is told the sled's"
        async with running_daemon(nexus, SledConfig(SLED_A, address, repo_depot_port=4711)) as client:
            assert client.daemon.addresses[SLED_A] == address
            await nexus.until(lambda: nexus.posted and nexus.posted[-1]["repo_depot_port"] == 4711)
            assert nexus.posted[-1]["sa_address"] == address


async def test_weakness_03_bodies_of_a_mebibyte_are_taken():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        body = json.dumps(body_of(V1)).encode()
        assert len(body) > 1024, "what every registration has"
        full = body + b" " * (2**20 - len(body))
        assert (await client.ask("PUT", f"/vmms/{V1}", full))[0] == 200
        status, error = await client.ask("PUT", f"/vmms/{V2}", full + b" ")
        assert (status, error["message"]) == (400, "request body exceeded maximum size of 1048576 bytes")
        assert (await client.ask("GET", f"/vmms/{V2}/state"))[0] == 404


def test_weakness_04_auto_mode_carries_out_a_start():
    driver = RackDriver(pacer=PresetPacer("sim"))
    driver.register()
    driver.put(RUNNING)
    driver.wait(2 * SECOND)
    assert driver.published() == ["running gen 3"]


def test_weakness_04_auto_mode_carries_out_a_migration_in():
    driver = RackDriver(pacer=PresetPacer("sim"))
    driver.register(V1, VmmState.MIGRATING, migration_id=M1)
    driver.put(target("[fd00::99]:12400"))
    driver.wait(3 * SECOND)
    assert driver.published()[-1].startswith("running")
    assert driver.published()[-1].endswith("in=completed/3")


# --- 5 to 8: telling Nexus, and timers ------------------------------------------------------------------------------


async def test_weakness_05_nexus_errors_and_absence_lose_nothing_and_delay_nobody():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        await client.register(V1)
        nexus.status = 503
        await client.put_state("running", V1)
        await nexus.until(lambda: any(status == 503 for *_, status in nexus.seen))
        nexus.status = 204
        await client.register(V2)
        await client.put_state("running", V2)
        await nexus.until(lambda: "running" in nexus.states(V2))
        await nexus.until(lambda: "running" in nexus.states(V1))
        assert (await client.ask("GET", f"/vmms/{V1}/state"))[1]["vmm_state"]["state"] == "running"


def test_weakness_05_a_4xx_is_given_up_and_the_vmm_lives_on():
    driver = RackDriver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.wait(SECOND)
    driver.nexus_answers(GONE)
    driver.acks = True
    driver.nexus_answers(ACK)
    assert told(driver.vmm().acked) == "running gen 4"


@pytest.mark.parametrize("outcome", [DOWN, GONE])
def test_weakness_05_a_failed_notification_costs_an_explicit_poke_nothing(outcome):
    driver = RackDriver(SimMode.EXPLICIT, acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.poke()
    ticket = driver.ticket
    driver.nexus_answers(outcome)
    while ticket not in driver.answers:
        if driver.flying:
            driver.nexus_answers(ACK)
        else:
            driver.now_us = driver.rack.next_deadline_us()
            driver.do(Tick())
    assert driver.answer(ticket) is None
    assert driver.vmm().state is VmmState.RUNNING


def test_weakness_06_the_end_is_acknowledged_before_the_vmm_is_lost():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    driver.nexus_answers(ACK)
    driver.put(STOPPED)
    assert driver.published()[-1] == "destroyed gen 5"
    assert told(driver.get()) == "destroyed gen 5", "Nexus asks while its acknowledgement is under way: omicron#7282"
    driver.nexus_answers(DOWN)
    assert told(driver.get()) == "destroyed gen 5"
    driver.run_until_idle()
    driver.nexus_answers(ACK)
    assert isinstance(refused(driver.get), errors.NoSuchVmm)


async def test_weakness_07_a_poke_of_an_unknown_vmm_is_a_404():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        for verb in ("poke", "poke-single-step"):
            status, error = await client.ask("POST", f"/vmms/{V1}/{verb}")
            assert (status, error["error_code"]) == (404, "NO_SUCH_INSTANCE")


@pytest.mark.parametrize("again", [False, True])
def test_weakness_07_the_timer_of_a_deleted_vmm_is_stale(again):
    driver = RackDriver(pacer=PresetPacer("sim"))
    driver.register()
    driver.put(RUNNING)
    driver.wait(SECOND)
    driver.unregister()
    if again:
        driver.register()
    driver.wait(10 * SECOND)
    assert driver.posts == []


def test_weakness_08_start_reboot_and_stop_within_the_delay():
    driver = RackDriver(pacer=PresetPacer("sim"))
    driver.register()
    driver.put(RUNNING)
    driver.wait(SECOND // 2)
    refused(driver.put, target("[::1]:1"))
    driver.put(STOPPED)
    driver.wait(10 * SECOND)
    assert driver.published()[-1].startswith("destroyed")
    assert V1 not in driver.sled().vmms
    assert driver.rack.next_deadline_us() is None


# --- 9 to 15: registration ------------------------------------------------------------------------------------------


async def test_weakness_09_register_answers_with_what_is_stored():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        await client.register(V1)
        await client.put_state("running", V1)
        await nexus.until(lambda: "running" in nexus.states(V1))
        status, answer = await client.register(V1, migration_id=str(M1))
        assert (status, answer["vmm_state"]["state"]) == (200, "running")
        assert answer.get("migration_in") is None


@in_one_test("state", ["running", "stopping", "stopped", "rebooting", "failed", "destroyed"])
async def test_weakness_10_another_initial_state_is_a_400(state):
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        status, error = await client.register(V1, vmm_runtime__state=state)
        assert (status, error["error_code"]) == (400, "InvalidRequest")
        assert (await client.register(V1))[0] == 200


async def test_weakness_11_two_instances_cannot_share_a_vmm():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        await client.register(V1)
        status, error = await client.register(V1, instance_id=str(instance_of(V2)))
        assert (status, error["error_code"]) == (500, "Internal")


def _crucible(key: str, request_json: str) -> dict[str, Any]:
    component = {"request_json": request_json, "readonly": False}
    return {key: {"type": "crucible_storage_backend", "component": component}}


async def test_weakness_12_a_bad_volume_leaves_no_vmm_behind():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        status, error = await client.register(V1, vmm_spec__components=_crucible(str(V3), "{not json"))
        assert (status, error["error_code"]) == (400, "InvalidRequest")
        assert (await client.ask("GET", f"/vmms/{V1}/state"))[0] == 404
        assert (await client.register(V1))[0] == 200


async def test_weakness_14_a_volume_that_is_keyed_by_a_name_is_a_400():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        status, _ = await client.register(V1, vmm_spec__components=_crucible("boot-disk", "{}"))
        assert status == 400
        assert (await client.ask("GET", f"/vmms/{V1}/state"))[0] == 404


async def test_weakness_15_a_stop_before_the_start_is_told_and_the_vmm_removed():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        await client.register(V1)
        status, answer = await client.put_state("stopped", V1)
        assert (status, answer["updated_runtime"]["vmm_state"]["state"]) == (200, "destroyed")
        await nexus.until(lambda: nexus.states(V1) == ["destroyed"])
        async with asyncio.timeout(20.0):
            while V1 in client.daemon.rack.sleds[SLED_A].vmms:
                await asyncio.sleep(0)
        assert (await client.ask("GET", f"/vmms/{V1}/state"))[0] == 404


# --- 16 to 18: faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", SimMode)
def test_weakness_16_a_migration_out_can_fail(mode):
    driver = RackDriver(mode)
    driver.running()
    driver.migrate_out(M1, succeeds=False)
    if mode is SimMode.EXPLICIT:
        driver.poke()
    driver.run_until_idle()
    assert driver.published()[-1].startswith("running")
    assert driver.published()[-1].endswith("out=failed/3")


@pytest.mark.parametrize("mode", SimMode)
def test_weakness_16_a_migration_in_can_fail(mode):
    driver = RackDriver(mode, pacer=ScriptedPacer(0, {Point.M_RAM_PUSH: Pace(0, fail=True)}))
    driver.register(V1, VmmState.MIGRATING, migration_id=M1)
    driver.put(target("[fd00::99]:12400"))
    if mode is SimMode.EXPLICIT:
        driver.poke()
    driver.run_until_idle()
    assert driver.published()[-1].startswith("failed")
    assert " in=failed/" in driver.published()[-1]


def test_weakness_17_a_migration_out_is_said_as_it_goes_checked_and_automatic():
    driver = RackDriver()
    driver.register()
    assert isinstance(refused(driver.migrate_out), errors.InvalidRequest)
    driver.put(RUNNING)
    driver.wait(SECOND)
    driver.posts.clear()
    driver.migrate_out()
    assert told(driver.get()) == "running gen 4", "`stopping` is for later"
    driver.run_until_idle()
    states = [text.split(" ")[0] for text in driver.published()]
    assert list(dict.fromkeys(states)) == ["migrating", "stopping", "destroyed"]


async def test_weakness_18_faults_come_over_http():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        control = Control(client.daemon)
        listener = await serve_control(control, SocketAddress("::1", 0))

        async def inject(propolis_id, fault):
            url = f"http://{listener.address}/vmms/{propolis_id}/inject"
            async with client.session.post(url, json=fault) as answer:
                return answer.status

        try:
            for propolis_id in VMMS[:4]:
                await client.register(propolis_id)
                await client.put_state("running", propolis_id)
                await nexus.until(lambda who=propolis_id: "running" in nexus.states(who))
            assert await inject(V1, {"state": "failed"}) == 200
            assert await inject(V2, {"kill_propolis": {"restart": True}}) == 200
            assert await inject(VMMS[2], {"guest": "halt"}) == 200
            assert await inject(VMMS[3], {"forget_vmm": True}) == 200
            await nexus.until(lambda: nexus.states(V1)[-1] == nexus.states(V2)[-1] == "failed")
            await nexus.until(lambda: nexus.states(VMMS[2])[-1] == "destroyed")
            assert (await client.ask("GET", f"/vmms/{VMMS[3]}/state"))[0] == 404
            assert await inject(VMMS[3], {"state": "failed"}) == 404
            await client.register(VMMS[4])
            assert await inject(VMMS[4], {"state": "no such state"}) == 400
            assert await inject(VMMS[4], {"guest": "reset"}) == 409, "refused, not a 500: nothing runs"
        finally:
            await listener.close()


def test_weakness_18_a_guest_and_a_slow_start_can_be_had():
    driver = RackDriver(pacer=ScriptedPacer(0, {Point.BACKENDS: Pace(3_600 * SECOND)}))
    driver.register()
    driver.put(RUNNING)
    driver.wait(3_599 * SECOND)
    assert driver.published() == ["starting gen 3"]
    driver.wait(2 * SECOND)
    driver.guest(GuestEvent.TRIPLE_FAULT)
    # without a duration the reboot is over before the monitor looks: one more publication, running again
    assert driver.published()[1:] == ["running gen 4", "running gen 5"]


# --- 25, 26: capacity and networks ----------------------------------------------------------------------------------


async def test_weakness_25_capacity_can_be_enforced():
    hardware = Hardware(hardware_threads=4, physical_ram=2**34, reservoir_size=2**33)
    config = SledConfig(SLED_A, hardware=hardware, enforce_capacity=True)
    async with FakeNexus() as nexus, running_daemon(nexus, config) as client:
        assert (await client.register(V1))[0] == 200
        assert (await client.register(V2))[0] == 200
        status, error = await client.register(V3)
        assert (status, error["error_code"]) == (500, "Internal")
        await client.ask("DELETE", f"/vmms/{V1}")
        assert (await client.register(V3))[0] == 200


async def test_weakness_26_network_data_of_a_vmm_can_be_read_and_goes_with_it():
    async with FakeNexus() as nexus, running_daemon(nexus) as client:
        listener = await serve_control(Control(client.daemon), SocketAddress("::1", 0))

        async def networking():
            async with client.session.get(f"http://{listener.address}/sleds/{SLED_A}/networking") as answer:
                return await answer.json()

        try:
            empty = await networking()
            await client.register(V1)
            ip = {"type": "ephemeral", "value": "203.0.113.9"}
            assert (await client.ask("PUT", f"/vmms/{V1}/external-ip", ip))[0] == 204
            shown = await networking()
            values = {each["value"] for each in shown["vmms"][str(V1)]["external_ips"]}
            assert values == {"203.0.113.7", "203.0.113.8", "203.0.113.9"}, "the registration's own are included"
            assert shown["vpc_routes"]
            await client.put_state("stopped", V1)
            await nexus.until(lambda: nexus.states(V1) == ["destroyed"])
            async with asyncio.timeout(20.0):
                while await networking() != empty:
                    await asyncio.sleep(0)
        finally:
            await listener.close()


def test_weakness_26_every_way_to_lose_a_vmm_cleans_up():
    for lose in ("unregister", "forget", "inject", "stop"):
        driver = RackDriver()
        driver.running(V1, nics=(Nic(7, ("172.30.0.0/22",)),))
        assert driver.sled().networking.snapshot()["vpc_routes"]
        if lose == "inject":
            driver.inject(VmmState.FAILED)
        elif lose == "stop":
            driver.put(STOPPED)
        else:
            getattr(driver, lose)()
        driver.run_until_idle()
        assert driver.sled().networking.snapshot()["vpc_routes"] == []


# --- 33 to 37: sleds ------------------------------------------------------------------------------------------------


async def test_weakness_33_a_restarted_sled_is_the_same_sled():
    posted = []
    async with FakeNexus() as nexus:
        for _ in range(2):
            nexus.posted.clear()
            nexus.sleds.clear()
            async with running_daemon(nexus, SledConfig(SLED_A), SledConfig(SLED_B)) as client:
                await nexus.until(lambda: len(nexus.posted) == 2)
                for propolis_id in (V3, V1, V2):
                    await client.register(propolis_id)
                vmms = client.daemon.rack.sleds[SLED_A].describe(lambda vmm: {"id": str(vmm.propolis_id)})
            stable = [
                {key: value for key, value in each.items() if key not in {"sa_address", "repo_depot_port"}}
                for each in nexus.posted
            ]
            posted.append((sorted(stable, key=lambda each: each["baseboard"]["serial"]), vmms))
    assert posted[0] == posted[1]
    assert [each["id"] for each in posted[0][1]] == [str(V1), str(V2), str(V3)]


def test_weakness_33_the_same_seed_tries_again_at_the_same_times():
    def retries(seed):
        driver = RackDriver(acks=False, pacer=ScriptedPacer(0), seed=seed)
        driver.register()
        driver.put(RUNNING)
        times = []
        for _ in range(5):
            driver.nexus_answers(DOWN)
            driver.run_until_idle()
            times.append(driver.now_us)
        return times

    assert retries(1) == retries(1)
    assert retries(1) != retries(2)


async def test_weakness_34_a_refused_registration_ends_with_a_clear_message():
    async with FakeNexus() as nexus:
        nexus.post_status = 400
        async with running_daemon(nexus) as client:
            async with asyncio.timeout(20.0):
                refusal = await asyncio.shield(client.daemon.reporting.refused)
            assert refusal.status == 400
            assert f"Nexus refuses to register sled {SLED_A}: 400: no such rack" in refusal.message
            assert len(nexus.posted) == 1, "asked once, not for ever"


async def test_weakness_35_many_sleds_in_one_process_and_instances_move_between_them():
    async with FakeNexus() as nexus, running_daemon(nexus, SledConfig(SLED_A), SledConfig(SLED_B)) as client:
        assert len(set(client.daemon.addresses.values())) == 2
        await client.register(V1)
        await client.put_state("running", V1)
        await nexus.until(lambda: "running" in nexus.states(V1))
        await client.register(V2, sled=SLED_B, vmm_runtime__state="migrating", migration_id=str(M1))
        asked = {"type": "migration_target", "value": {"src_propolis_addr": address_of(V1)}}
        assert (await client.put_state(asked, V2, sled=SLED_B))[0] == 200
        await nexus.until(lambda: nexus.states(V2)[-1:] == ["running"] and nexus.states(V1)[-1:] == ["destroyed"])
        assert (await client.ask("GET", f"/vmms/{V2}/state"))[0] == 404, "it is on the other sled"
        assert (await client.ask("GET", f"/vmms/{V2}/state", sled=SLED_B))[0] == 200


async def test_weakness_37_the_hardware_is_configurable():
    hardware = Hardware(
        hardware_threads=256,
        physical_ram=2**40,
        reservoir_size=2**39,
        cpu_family=SledCpuFamily.AMD_TURIN_DENSE,
        role=SledRole.GIMLET,
        baseboard_model="913-0000019",
        baseboard_revision=13,
        baseboard_serial="BRM42220031",
    )
    async with FakeNexus() as nexus, running_daemon(nexus, SledConfig(SLED_A, hardware=hardware)):
        await nexus.until(lambda: nexus.posted)
        posted = nexus.posted[0]
        assert (posted["usable_hardware_threads"], posted["usable_physical_ram"]) == (256, 2**40)
        assert (posted["reservoir_size"], posted["role"]) == (2**39, "gimlet")
        assert posted["cpu_family"] == "amd_turin_dense"
        assert posted["baseboard"] == {"serial": "BRM42220031", "part": "913-0000019", "revision": 13}


def test_every_weakness_that_concerns_vmms_has_its_test():
    closed = {1, *range(3, 13), *range(14, 19), 25, 26, 33, 34, 35, 37}
    tested = {int(name.split("_")[2]) for name in globals() if name.startswith("test_weakness_")}
    assert tested == closed
