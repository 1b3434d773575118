"""What the live page is told: whole, then what changes; resumable, bounded, and nothing missed."""

import asyncio
import json
from contextlib import aclosing

import pytest
from support.rows import in_one_test

from sim_sled import logs
from sim_sled.daemon import page
from sim_sled.daemon.looking import Looking
from sim_sled.daemon.page import Feed, VmRow
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.language.check import parse_scenario

HOLDS = """
version: 1
name: holds
rules:
- name: keep
  for: {hostname: late-*}
  when: {publish: running}
  do: {hold: {until: enough}}
- name: enough-of-it
  when: {manual: enough}
  do: {note: enough}
"""
FIELDS = VmRow.__struct_fields__


@pytest.fixture
async def rack(monkeypatch):
    """A rack with a rule that holds back reports of `late-*`, and a feed that is not slow."""
    logs.configure(level="error")
    monkeypatch.setattr(page, "FRAME_S", 0.005)
    monkeypatch.setattr(page, "LOOK_S", 0.02)
    scenario, _ = parse_scenario(HOLDS, "holds.yaml")
    async with SmallRack(sleds=2, scenario=scenario) as small:
        yield small


class Reader:
    """A page: what it knows after the messages it has read."""

    def __init__(self, feed, last_id=""):
        self.stream = feed.messages(last_id)
        self.vms, self.sleds, self.others, self.events = {}, {}, {}, []
        self.counts = {}
        self.last_id = last_id

    async def read(self):
        text = (await asyncio.wait_for(anext(self.stream), 60)).decode()
        lines = dict(line.split(": ", 1) for line in text.strip().splitlines() if not line.startswith(":"))
        if not lines:
            return
        event, data = lines["event"], json.loads(lines["data"])
        self.events.append(event)
        if event == "whole":
            self.vms, self.counts = {}, {}
            assert data["fields"] == list(FIELDS)
        rows = data if event == "rows" else data.get("rows", ())
        for row in rows:
            vm = dict(zip(FIELDS, row, strict=True))
            self.vms[vm["id"]] = vm
        if event != "rows":
            for _, counts in data.get("counts", ()):
                for kind, n in counts.items():
                    self.counts[kind] = self.counts.get(kind, 0) + n
        if event == "frame":
            for gone in data.get("gone", ()):
                self.vms.pop(gone, None)
            self.sleds |= {row[0]: row for row in data.get("sleds", ())}
            for gone in data.get("sleds_gone", ()):
                del self.sleds[gone]
            self.others |= data
        self.last_id = lines.get("id", self.last_id)

    async def until(self, so):
        async with asyncio.timeout(60):
            while not so(self):
                await self.read()

    def named(self, name):
        return next((vm for vm in self.vms.values() if vm["name"] == name), None)

    async def close(self):
        await self.stream.aclose()


async def test_a_page_is_told_everything_and_then_what_changes(rack):
    await rack.create_instance("web-1")
    await rack.expect("web-1", "running", within_s=60)
    reader = Reader(Feed(rack.daemon))
    await reader.until(lambda it: "frame" in it.events)
    assert reader.events[:2] == ["whole", "rows"]
    assert reader.named("web-1")["state"] == "running"
    assert len(reader.sleds) == 2
    await rack.stop_instance("web-1")
    await reader.until(lambda it: it.named("web-1") is None)
    assert reader.events.count("whole") == 1
    await reader.close()


async def test_what_is_held_and_its_release_are_told_and_so_is_the_vm(rack):
    await rack.create_instance("late-1")
    reader = Reader(Feed(rack.daemon))
    await reader.until(lambda it: it.others.get("held_total") == 1)
    [held] = reader.others["held"]
    assert (held["rule"], held["name"], held["state"]) == ("keep", "late-1", "running")
    await reader.until(lambda it: it.named("late-1")["held"] == 1)
    assert rack.daemon.release("keep")
    await reader.until(lambda it: it.others["held_total"] == 0 and it.named("late-1")["held"] == 0)
    await reader.until(lambda it: it.named("late-1")["acked"] == "running")
    await reader.close()


@pytest.mark.parametrize("way", ["release", "fire"])
async def test_a_release_reaches_a_page_in_one_message_that_nothing_has_to_look_for(rack, monkeypatch, way):
    await rack.create_instance("late-1")
    reader = Reader(Feed(rack.daemon))
    await reader.until(lambda it: it.others.get("held_total") == 1 and it.named("late-1")["held"] == 1)
    monkeypatch.setattr(page, "LOOK_S", 3600)
    assert rack.daemon.release("keep") if way == "release" else rack.daemon.fire("enough")
    await reader.read()
    assert reader.others["held_total"] == 0
    assert reader.named("late-1")["held"] == 0
    await reader.close()


async def test_time_that_stands_and_goes_on_wakes_a_page_that_waits(rack, monkeypatch):
    """Nothing happens then: no event of a VM would bring it along."""
    monkeypatch.setattr(page, "LOOK_S", 3600)
    waits = asyncio.Event()
    change = Looking.change

    async def watched(self, seconds):
        waits.set()
        await change(self, seconds)

    monkeypatch.setattr(Looking, "change", watched)
    reader = Reader(Feed(rack.daemon))
    await reader.until(lambda it: "pace" in it.others)
    for move, paused in ((rack.daemon.pausing.pause, True), (rack.daemon.pausing.resume, False)):
        waits.clear()
        told = asyncio.create_task(reader.until(lambda it, paused=paused: it.others["pace"]["paused"] is paused))
        await waits.wait()
        move()
        await told
    await reader.close()


async def test_a_vm_that_a_rule_froze_at_rest_is_told_as_stuck_until_its_release(rack):
    await rack.create_instance("web-1")
    await rack.expect("web-1", "running", within_s=60)
    reader = Reader(Feed(rack.daemon))
    await reader.until(lambda it: it.named("web-1")["acked"] == "running" if it.named("web-1") else False)
    rule = rack.daemon.do_once(rack.meant("web-1").propolis_id, "stall: true")
    await reader.until(lambda it: it.named("web-1")["stuck"])
    assert rack.daemon.release(rule)
    await reader.until(lambda it: not it.named("web-1")["stuck"])
    await reader.close()


@pytest.mark.parametrize("longest_last", [True, False])
async def test_of_several_stalls_the_longest_is_the_one_to_release(rack, longest_last):
    await rack.create_instance("web-1")
    await rack.expect("web-1", "running", within_s=60)
    order = ["stall: 50s", "stall: true"] if longest_last else ["stall: true", "stall: 50s"]
    named = {how: rack.daemon.do_once(rack.meant("web-1").propolis_id, how) for how in order}
    assert not rack.daemon.release(named["stall: 50s"])
    assert rack.daemon.release(named["stall: true"])
    assert not any(rack.daemon.engine.stalled(rule, rack.daemon.clock.now_us()) for rule in named.values())


async def test_a_stall_that_is_over_leaves_nothing_to_release(rack):
    await rack.create_instance("web-1")
    await rack.expect("web-1", "running", within_s=60)
    rule = rack.daemon.do_once(rack.meant("web-1").propolis_id, "stall: 1ms")
    async with asyncio.timeout(60):
        while rack.daemon.engine.holds(rule):
            await asyncio.sleep(0)
    assert not rack.daemon.release(rule)


async def test_a_rule_is_told_with_its_counters_and_what_fires_it(rack):
    reader = Reader(Feed(rack.daemon))
    await reader.until(lambda it: "rules" in it.others)
    keep, enough = reader.others["rules"]
    assert keep["words"]["do"] == "hold: {until: enough}"
    assert (enough["manual"], enough["fired"]) == ("enough", 0)
    rack.daemon.fire("enough")
    await reader.until(lambda it: it.others["rules"][1]["fired"] == 1)
    await reader.close()


async def test_a_page_that_comes_back_is_told_only_what_it_has_missed(rack):
    feed = Feed(rack.daemon)
    for name in ("web-1", "web-2"):
        await rack.create_instance(name)
        await rack.expect(name, "running", within_s=60)
    first = Reader(feed)
    await first.until(lambda it: it.last_id)
    await first.close()
    await rack.stop_instance("web-1")
    await rack.expect("web-1", "destroyed", within_s=60)
    again = Reader(feed, first.last_id)
    again.vms = dict(first.vms)
    await again.until(lambda it: it.named("web-1") is None)
    assert "whole" not in again.events
    assert again.named("web-2") is not None
    assert again.counts["propolis"] < 8, "what was counted before is not counted again"
    await again.close()


@in_one_test("last_id", ["", "0-0", "x", "-", "ffff-12", "-5", "1-" + "9" * 50, "\u0660-\u0661"])
async def test_an_id_of_another_daemon_or_of_nobody_gets_everything(rack, last_id):
    reader = Reader(Feed(rack.daemon), last_id)
    await reader.read()
    assert reader.events == ["whole"]
    await reader.close()


async def test_an_id_from_the_future_gets_everything(rack):
    feed = Feed(rack.daemon)
    reader = Reader(feed)
    await reader.until(lambda it: it.last_id)
    await reader.close()
    boot, _ = reader.last_id.split("-")
    again = Reader(feed, f"{boot}-999999")
    await again.read()
    assert again.events == ["whole"]
    await again.close()


async def test_a_page_that_slept_for_longer_than_the_daemon_remembers_gets_everything(rack, monkeypatch):
    feed = Feed(rack.daemon)
    reader = Reader(feed)
    await reader.until(lambda it: it.last_id)
    look = rack.daemon.look
    look.happenings = type(look.happenings)(look.happenings, maxlen=5)
    await rack.create_instance("web-1")
    await rack.expect("web-1", "running", within_s=60)
    await reader.until(lambda it: it.events.count("whole") == 2)
    await reader.until(lambda it: it.named("web-1"))
    await reader.close()


async def test_messages_are_pieces_however_many_vms_there_are(rack, monkeypatch):
    monkeypatch.setattr(page, "ROWS_MAX", 2)
    for i in range(5):
        await rack.create_instance(f"web-{i}")
        await rack.expect(f"web-{i}", "running", within_s=60)
    reader = Reader(Feed(rack.daemon))
    await reader.until(lambda it: "frame" in it.events)
    assert reader.events == ["whole", "rows", "rows", "rows", "frame"]
    assert len(reader.vms) == 5
    await reader.close()


async def test_a_sled_that_joins_and_one_that_leaves_are_told(rack):
    reader = Reader(Feed(rack.daemon))
    await reader.until(lambda it: len(it.sleds) == 2)
    await rack.scale(3)
    await reader.until(lambda it: len(it.sleds) == 3)
    await rack.scale(1)
    await reader.until(lambda it: len(it.sleds) == 1)
    await reader.close()


async def test_a_quiet_stream_says_that_it_is_there(rack, monkeypatch):
    monkeypatch.setattr(page, "KEEP_ALIVE_S", 0.05)
    async with aclosing(Feed(rack.daemon).messages("")) as stream, asyncio.timeout(60):
        async for message in stream:
            if message.startswith(b":"):
                return
    pytest.fail("the stream has ended")


async def test_a_story_has_the_why_and_every_event_of_the_vm(rack):
    await rack.create_instance("web-1")
    seen = await rack.expect("web-1", "running", within_s=60)
    story = Feed(rack.daemon).story(seen)
    [life] = story["lives"]
    kinds = [event["kind"] for event in life["events"]]
    assert {"registered", "asked", "propolis", "observed", "sent"} <= set(kinds)
    assert "will rest in running" in story["why"]["says"][0]


async def test_a_story_of_a_migration_has_both_sides(rack):
    await rack.create_instance("web-1")
    source = await rack.expect("web-1", "running", within_s=60)
    target = next(handle for handle in rack.handles if handle.id != source.sled_id)
    await rack.migrate_instance("web-1", target.id)
    await rack.expect(source, "destroyed", within_s=60)
    arrived = await rack.expect("v2", "running", within_s=60)
    for seen in (source, arrived):
        lives = Feed(rack.daemon).story(seen)["lives"]
        assert [life["n"] for life in lives] == [1, 2]
        assert any(" out=" in event.get("text", "") for event in lives[0]["events"])
        assert any(" in=" in event.get("text", "") for event in lives[1]["events"])


async def test_an_earlier_life_of_an_instance_is_named_and_not_taken_for_a_migration(rack):
    await rack.create_instance("web-1")
    await rack.expect("web-1", "running", within_s=60)
    await rack.stop_instance("web-1")
    await rack.expect_public("web-1", "stopped", within_s=60)
    await rack.start_instance("web-1")
    seen = await rack.expect("v2", "running", within_s=60)
    story = Feed(rack.daemon).story(seen)
    assert [life["n"] for life in story["lives"]] == [2]
    assert [other["n"] for other in story["others"]] == [1]


async def test_a_story_of_a_vm_that_rules_have_touched_says_when_and_which(rack):
    await rack.create_instance("late-1")
    seen = await rack.expect("late-1", "running", within_s=60)
    async with asyncio.timeout(60):
        while not rack.daemon.engine.post.held:
            await rack.daemon.look.change(0.05)
    [life] = Feed(rack.daemon).story(seen)["lives"]
    assert [event["text"] for event in life["events"] if event["kind"] == "rule"]


async def test_a_story_can_still_be_told_of_a_vm_that_is_gone(rack):
    await rack.create_instance("web-1")
    await rack.expect("web-1", "running", within_s=60)
    await rack.stop_instance("web-1")
    await rack.expect_public("web-1", "stopped", within_s=60)
    async with asyncio.timeout(60):
        while not rack.daemon.look.sightings.gone(rack.meant("web-1")):
            await rack.daemon.look.change(0.05)
    story = Feed(rack.daemon).story(rack.meant("web-1"))
    assert story["lives"][0]["gone"]
    assert "is gone" in story["why"]["says"][0]
