"""A scenario's expectations on a daemon: judged as in a run, also when time is moved, and never green for nothing."""

import xml.etree.ElementTree as ET

from support.rows import in_one_test

from sim_sled.daemon.judging import Judging, cannot, verdict
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.daemon.snapshot import Snapshots
from sim_sled.language.check import parse_scenario

BOOTS = """
version: 1
name: boots
expect:
  - {name: comes-up, after: {state: starting}, that: {vmm: running}, within: 20s}
  - {name: users-see-it, after: {state: running}, that: {instance: running}, within: 5s}
"""
STUCK = BOOTS + "rules: [{name: stuck, for: {hostname: web}, when: {state: starting}, do: {stall: forever}}]\n"
NEVER = """
version: 1
name: never
expect: [{name: no-stop, after: {state: running}, never: {state: stopping}, for: {}, lasts: 30s}]
"""


def scenario(text):
    found, problems = parse_scenario(text)
    assert found is not None, problems.text()
    return found


class Judged:
    """A rack whose scenario is judged; time stands at first."""

    def __init__(self, text, *, pace="console"):
        self.rack = SmallRack(scenario=scenario(text), pace=pace)

    async def __aenter__(self):
        await self.rack.start()
        self.judging = Judging(self.rack.daemon, self.rack.daemon.engine.scenario, 0, self.rack.server.host)
        self.rack.daemon.pausing.pause()
        return self

    async def __aexit__(self, *_):
        if self.rack.server is not None:
            await self.rack.stop()

    async def goes_by(self, seconds):
        await self.rack.daemon.pausing.until(seconds * 1_000_000, None)

    async def told(self, out):
        self.judging.ending()
        await self.rack.stop()
        return verdict(self.judging, "boots.yaml", out, 1.0)


async def test_what_is_so_in_time_is_good(tmp_path):
    async with Judged(BOOTS) as judged:
        await judged.rack.create_instance("web")
        await judged.goes_by(60)
        text, good = await judged.told(tmp_path / "out.xml")
    assert good, text
    assert "2/2 expectations met" in text
    suites = ET.parse(tmp_path / "out.xml").getroot()
    assert (len(suites), suites.get("failures"), suites.get("skipped")) == (1, "0", "0")
    assert {"comes-up", "users-see-it", "the run"} <= {case.get("name") for case in suites.iter("testcase")}


async def test_what_is_not_so_in_time_fails_with_its_why(tmp_path):
    async with Judged(STUCK) as judged:
        await judged.rack.create_instance("web")
        await judged.goes_by(60)
        assert next(each.at_us for each in judged.judging.judge.failures) < 25_000_000, "in time, not at the end"
        text, good = await judged.told(tmp_path / "out.xml")
    assert not good
    assert "comes-up" in text
    assert "not within 20s: vmm is starting, not running" in text
    assert "rule stuck" in text, "its why"
    assert "again: sim-sled run" not in text
    failed = [
        case for case in ET.parse(tmp_path / "out.xml").getroot().iter("testcase") if case.find("failure") is not None
    ]
    assert [case.get("name") for case in failed] == ["comes-up", "users-see-it"], "the second waits for the first"


async def test_a_state_that_passed_in_time_counts_although_time_flew_by(tmp_path):
    """One `until` goes over the boot, the deadline and what follows; each is judged at its own moment."""
    async with Judged(BOOTS) as judged:
        await judged.rack.create_instance("web")
        await judged.goes_by(3_600)
        text, good = await judged.told(tmp_path / "out.xml")
    assert good, text


async def test_what_is_undecided_at_the_end_is_not_green(tmp_path):
    async with Judged(BOOTS) as judged:
        await judged.rack.create_instance("web")
        await judged.goes_by(2)
        text, good = await judged.told(tmp_path / "out.xml")
    assert not good
    assert "not yet so when the run ended, with 19" in text or "not yet so when the run ended, with 18" in text, text


async def test_other_rules_are_judged_from_then_on(tmp_path):
    async with Judged(BOOTS) as judged:
        judged.rack.load(scenario(STUCK.replace("comes-up", "second")))
        await judged.rack.create_instance("web")
        await judged.goes_by(60)
        text, good = await judged.told(tmp_path / "out.xml")
    assert not good
    assert "expectation 'second'" in text


async def test_a_snapshot_keeps_what_is_waited_for(tmp_path):
    async with Judged(STUCK) as judged:
        await judged.rack.create_instance("web")
        await judged.goes_by(5)
        kept = (await Snapshots(judged.rack.daemon).take()).text.encode()
        await judged.goes_by(60)
        assert len(judged.judging.judge.failures) == 1
        await Snapshots(judged.rack.daemon).restore(kept)
        assert judged.judging.judge.failures == []
        assert judged.judging.judge.pending == 1
        await judged.goes_by(60)
        text, good = await judged.told(tmp_path / "out.xml")
    assert not good
    assert text.count("comes-up") == 1, text


async def test_what_was_never_armed_is_not_green(tmp_path):
    """Nobody asked for a VM: nothing was judged, and 0/0 must not look like success."""
    async with Judged(BOOTS) as judged:
        await judged.goes_by(60)
        text, good = await judged.told(tmp_path / "out.xml")
    assert not good
    for name in ("comes-up", "users-see-it"):
        assert f"expectation '{name}' (-:" in text, text
    assert text.count("was not judged: what arms it did not happen before the run ended") == 2
    assert "W310" not in text, "said once"
    cases = {case.get("name"): case for case in ET.parse(tmp_path / "out.xml").getroot().iter("testcase")}
    assert "comes-up" in cases["comes-up"].find("failure").get("message")


async def test_one_expectation_that_was_met_does_not_speak_for_another(tmp_path):
    stops = "  - {name: goes-down, after: {state: stopping}, that: {vmm: destroyed}, within: 20s}\n"
    async with Judged(BOOTS + stops) as judged:
        await judged.rack.create_instance("web")
        await judged.goes_by(60)
        text, good = await judged.told(tmp_path / "out.xml")
    assert not good
    assert "2/2 expectations met" in text
    assert "expectation 'goes-down' (-:7) was not judged" in text, text


async def test_the_same_rules_read_again_forget_no_verdict(tmp_path):
    async with Judged(BOOTS) as judged:
        await judged.rack.create_instance("web")
        await judged.goes_by(60)
        judged.rack.load(scenario(BOOTS))
        text, good = await judged.told(tmp_path / "out.xml")
    assert good, text
    assert "2/2 expectations met" in text


async def test_what_needs_a_model_is_not_green_beside_another_nexus(tmp_path):
    """The model runs in another process here: nobody can look into its records."""
    async with SmallRack() as other:
        rack = SmallRack(name="beside", nexus=other.server.internal, scenario=scenario(BOOTS), pace="instant")
        await rack.start()
        try:
            judging = Judging(rack.daemon, rack.daemon.engine.scenario, 0, None)
            rack.daemon.pausing.pause()
            judging.ending()
        finally:
            await rack.stop()
        text, good = verdict(judging, "boots.yaml", tmp_path / "out.xml", 1.0)
    assert not good
    assert "was not judged: without the Nexus model nobody can" in text


@in_one_test(
    ("text", "how", "says"),
    [
        (BOOTS, {"model": True, "judged": True}, []),
        (
            BOOTS,
            {"model": False, "judged": True},
            ["without the Nexus model nobody judges users-see-it: exit 1 at the end"],
        ),
        (
            BOOTS + "  - {always: [no_leaks, gen_monotonic]}\n",
            {"model": False, "judged": True},
            ["without the Nexus model nobody judges users-see-it, no_leaks: exit 1 at the end"],
        ),
        (BOOTS, {"model": True, "judged": False}, ["'expect' is not judged; --junit FILE does that"]),
        (
            "version: 1\nname: x\nfleet: {sleds: 3}\n",
            {"model": True, "judged": True},
            ["1 of the fleet's 3 sleds is here"],
        ),
        (
            "version: 1\nname: x\nload: [{at: 0s, create: {hostname: web}}]\n",
            {"model": True, "judged": True},
            ["'load' is not played: on a daemon nobody plays users; ask the control plane for instances"],
        ),
        (
            (
                "version: 1\nname: x\nnexus: {external: 'http://[::1]:1'}\n"
                "load: [{at: 0s, create: {hostname: web, silo: s}}, {at: 1s, migrate: {}}]\n"
            ),
            {"model": False, "judged": True},
            [
                "'migrate' of 'load' is refused: the public API has no migration, an operator's has",
                "'silo' of 'create' means nothing: the silo is that of the token's user",
            ],
        ),
        (BOOTS + "nexus: {external: 'http://[::1]:1'}\n", {"model": False, "judged": True}, []),
    ],
)
def test_what_a_daemon_does_not_do_of_a_file_is_said(text, how, says):
    assert cannot(scenario(text), 1, **how) == says
