"""Time of a rack stands, is stepped and flies: the sleds' and the model's alike."""

import asyncio

import pytest
from support.rows import in_one_test

from sim_sled.daemon.clock import Clock
from sim_sled.daemon.pausing import Moved, Moving, Pausing
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.language.check import parse_scenario

HOUR_US = 3_600_000_000


@pytest.fixture
async def slow():
    """A rack on which a boot takes five seconds. Time stands."""
    async with SmallRack(sleds=2, pace="console") as rack:
        rack.daemon.pausing.pause()
        yield rack


async def test_nothing_that_takes_time_goes_on_while_time_stands(slow):
    await slow.create_instance("web")
    seen = await slow.expect("web", "starting", within_s=20)
    before = slow.daemon.clock.now_us()
    due = slow.daemon.pausing.next_deadline_us()
    assert due is not None
    assert due > before, "the boot waits"
    loop = asyncio.get_running_loop()
    for _ in range(50):  # every timer that was armed has come by then
        await asyncio.sleep((due - before) / 1e6 / 1e5)
    assert loop.time() > 0
    assert (slow.daemon.clock.now_us(), slow.daemon.pausing.next_deadline_us()) == (before, due)
    assert seen.state in ("starting", "creating")


async def test_a_step_is_the_next_thing_that_is_due_and_no_more(slow):
    await slow.create_instance("web")
    await slow.expect("web", "starting", within_s=20)
    times = []
    while slow.meant("web").state != "running":
        due = slow.daemon.pausing.next_deadline_us()
        moved = await slow.daemon.pausing.step(1)
        assert moved == Moved(1, met=True)
        assert slow.daemon.clock.now_us() == due
        times.append(due)
    assert times == sorted(times)
    assert slow.daemon.clock.stands


async def test_until_flies_to_a_state_and_time_stands_there(slow):
    await slow.create_instance("web")
    began = slow.daemon.clock.now_us()
    moved = await slow.daemon.pausing.until(HOUR_US, lambda: slow.daemon.look.is_in("web", "running"))
    assert moved.met
    now = slow.daemon.clock.now_us()
    assert now - began > 1_000_000, "what takes seconds on a rack has taken them, by this clock"
    running_since = slow.meant("web").states[-1]
    assert running_since == (now, "running"), "it stands in the very moment"
    assert slow.public_state("web") == "running", "the model has heard of it"


async def test_the_model_lives_by_the_same_clock(slow):
    """A quarter of an hour of its background tasks goes by in no time."""
    await slow.create_instance("web")
    assert (await slow.daemon.pausing.until(HOUR_US // 4, None)).met
    due = slow.server.host.next_deadline_us()
    assert due is not None
    assert slow.daemon.clock.now_us() < due < slow.daemon.clock.now_us() + HOUR_US // 4, "no turn is late"
    assert slow.public_state("web") == "running"


async def test_a_request_that_takes_time_waits_for_it():
    """As on a real rack, to register a VMM takes some 40 ms in this preset."""
    async with SmallRack(pace="rack") as rack:
        rack.daemon.pausing.pause()
        asking = asyncio.ensure_future(rack.create_instance("web"))
        assert (await rack.daemon.pausing.until(HOUR_US, lambda: rack.daemon.look.is_in("web", "running"))).met
        await asyncio.wait_for(asking, 20)


async def test_until_ends_when_time_is_up(slow):
    await slow.create_instance("web")
    began = slow.daemon.clock.now_us()
    moved = await slow.daemon.pausing.until(5_000_000, lambda: slow.daemon.look.is_in("web", "destroyed"))
    assert not moved.met
    assert slow.daemon.clock.now_us() == began + 5_000_000
    assert any("was not 'destroyed'" in line for line in slow.daemon.look.not_in("web", "destroyed", 5))
    assert any("no VMM is called" in line for line in slow.daemon.look.not_in("nobody", "destroyed", 5))


async def test_time_goes_on_from_where_it_stood():
    async with SmallRack(pace="dev") as rack:
        rack.daemon.pausing.pause()
        await rack.create_instance("web")
        await rack.daemon.pausing.until(HOUR_US, None)
        stood = rack.daemon.clock.now_us()
        rack.daemon.pausing.resume()
        await rack.stop_instance("web")
        await rack.expect("web", "destroyed", within_s=30)
        assert stood < rack.daemon.clock.now_us() < stood + 40_000_000


async def test_a_request_that_hangs_does_not_hold_up_time():
    """Each moment would otherwise wait for it in real time."""
    text = "version: 1\nname: hangs\nrules: [{name: h, when: {request: vmm_put_state}, do: {hang: forever}}]\n"
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    async with SmallRack(scenario=scenario) as rack:
        rack.daemon.pausing.pause()
        asking = asyncio.ensure_future(rack.create_instance("web"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await rack.daemon.pausing.until(600_000_000, None)
        assert loop.time() - began < 60, "ten minutes of its own time, which each moment would add to"
        asking.cancel()


class Hangs:
    """Somebody who waits for an answer that does not come."""

    def next_deadline_us(self):
        return None

    def catch_up(self):
        pass

    on_the_network = 1


async def test_only_one_moves_the_clock():
    pausing = Pausing(Clock(), [Hangs()])
    first = asyncio.ensure_future(pausing.step(1))
    await asyncio.sleep(0)
    with pytest.raises(Moving):
        await pausing.step(1)
    assert await first == Moved(0, met=False, why_not="nothing is due")


@in_one_test("stood", [True, False])
@in_one_test("says", ["pause", "resume"])
async def test_who_pauses_or_resumes_while_a_snapshot_is_made_has_the_last_word(stood, says):
    pausing = Pausing(Clock(), [])
    if stood:
        pausing.pause()
    async with pausing.standing():
        getattr(pausing, says)()
    assert pausing.clock.stands == (says == "pause")


@pytest.mark.parametrize("stood", [True, False])
async def test_a_snapshot_alone_changes_nothing_about_whether_time_goes(stood):
    pausing = Pausing(Clock(), [])
    if stood:
        pausing.pause()
    async with pausing.standing():
        assert pausing.clock.stands
    assert pausing.clock.stands == stood


@pytest.mark.parametrize("says", ["pause", "resume"])
async def test_who_pauses_or_resumes_ends_what_moves_the_clock(says):
    class Endless(Hangs):
        """Always something is due, a second from now."""

        on_the_network = 0

        def next_deadline_us(self):
            return pausing.clock.now_us() + 1_000_000

    pausing = Pausing(Clock(), [])
    pausing.all.append(Endless())
    flying = asyncio.ensure_future(pausing.until(10**15, None))
    await asyncio.sleep(0)
    getattr(pausing, says)()
    moved = await flying
    assert (moved.met, moved.why_not) == (False, "somebody has paused or resumed time meanwhile")
    assert pausing.clock.stands == (says == "pause")
    assert (await pausing.step(1)).met, "and the next one may move it"
