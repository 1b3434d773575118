"""A rack of several processes behind one control API: nobody outside notices that there are several."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest
from support import processes

from nexus_client.dropshot.listen import PortRange
from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.cli.recording import replay_folder
from sim_sled.daemon.control import OPERATIONS
from sim_sled.daemon.front import SPREAD, Front, Spread, sums
from sim_sled.daemon.pulse import HUNG_S, SILENT_S
from sim_sled.daemon.serve import BadScenario
from sim_sled.daemon.small_rack import READY_S, RackError, sled_id_of
from sim_sled.daemon.worker import Spec
from sim_sled.daemon.workers import WorkersRack, parts

RULES = """version: 1
name: stuck
fleet: {sleds: 4}
latency: {preset: instant}
rules:
- {name: seen, for: {hostname: web-1}, when: {edge: starting -> running}, do: {note: seen}}
- {name: halt, for: {hostname: web-2}, when: {manual: stop-it}, do: {set_state: failed}}
"""


class Rack:
    """A rack of workers with its front, and a client for both APIs that a user sees."""

    def __init__(self, rack: WorkersRack, front: Front, control: str, http: aiohttp.ClientSession):
        self.rack, self.front, self.control, self.http = rack, front, control, http

    async def ask(self, path, method="GET", body=None, at=None):
        async with self.http.request(method, f"http://{at or self.control}{path}", json=body) as answer:
            return answer.status, await answer.json()

    async def create(self, *names):
        """Instances that run, each where the model has placed it."""
        for name in names:
            status, answer = await self.ask("/v1/instances", "POST", {"name": name}, self.rack.server.control)
            assert status == 201, answer

    async def expect(self, who, state):
        _, answer = await self.ask(f"/vmms/{who}/expect?state={state}&within_ms=60000")
        assert answer.get("met"), answer

    async def fails(self, name, path, body=None):
        """That request makes the VM fail. It is asked for by its id, and whether it was so: Nexus may have started
        another one in its place before anybody looks.
        """
        _, told = await self.ask(f"/vmms/{name}")
        assert (await self.ask(path, "POST", body))[0] == 200
        query = "state=failed&within_ms=60000&since_ms=600000"
        _, answer = await self.ask(f"/vmms/{told['propolis_id']}/expect?{query}")
        assert answer.get("met"), answer

    async def dies(self, worker):
        """Returns when it is back."""
        back = asyncio.Event()
        self.rack.workers.changed = back.set
        worker.process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(back.wait(), 60)

    async def sled_of(self, name):
        return (await self.ask(f"/vmms/{name}"))[1]["sled_id"]

    async def migrates(self, name):
        """To a sled of another worker; returns which, when nothing is left of it where it was."""
        source = await self.sled_of(name)
        there = next(
            str(each.id) for each in self.rack.handles if self.worker_of(str(each.id)) is not self.worker_of(source)
        )
        path = f"/v1/instances/{name}/migrate"
        status, answer = await self.ask(path, "POST", {"dst_sled_id": there}, self.rack.server.control)
        assert status in (200, 202), answer
        async with asyncio.timeout(60):
            while await self.sled_of(name) != there:
                pass  # each round is a request to both; the newest VMM of an instance is the one that is meant
        await self.expect(name, "running")
        async with asyncio.timeout(60):
            while source in [row["sled_id"] for row in (await self.ask("/vmms"))[1]]:
                pass  # the source is over when Nexus has heard of it
        return there

    def worker_of(self, sled_id):
        handles = [str(each.id) for each in self.rack.handles]
        number = handles.index(sled_id) + 1
        return next(
            each for each in self.rack.workers.all if each.spec.first <= number < each.spec.first + each.spec.count
        )


@pytest.fixture(autouse=True)
def workers_are_forked(monkeypatch):
    """Those that a rack in this process starts."""
    monkeypatch.setattr(sys, "executable", processes.interpreter())


@pytest.fixture
async def start(tmp_path):
    """Starts racks of workers; all of them end with the test."""
    logs.configure(level="critical")
    ends = []

    async def started(scenario=None, *, sleds=4, workers=2, name="shared", record=None):
        file = None
        if scenario is not None:
            file = tmp_path / "scenario.yaml"
            file.write_text(scenario)
        spec = Spec(name, sleds, 1, 1, "", None if file is None else str(file), 0, "instant", "", record=record)
        rack = WorkersRack(spec, workers)
        await rack.start()
        ends.append(rack.stop)
        front = Front(rack.workers)
        control = await front.serve(SocketAddress("127.0.0.1", 0))
        ends.append(front.close)
        http = aiohttp.ClientSession()
        ends.append(http.close)
        return Rack(rack, front, control, http)

    yield started
    for end in reversed(ends):
        await end()


FAILS_HALF_WAY = """
version: 1
rules:
- name: half-way
  when: {migration: ram_push}
  do: {migration: failed}
"""


async def test_after_a_migration_that_failed_a_host_name_means_the_source_again(start):
    shared = await start(FAILS_HALF_WAY)
    await shared.create("web")
    await shared.expect("web", "running")
    _, source = await shared.ask("/vmms/web")
    there = next(
        str(each.id)
        for each in shared.rack.handles
        if shared.worker_of(str(each.id)) is not shared.worker_of(source["sled_id"])
    )
    await shared.ask("/v1/instances/web/migrate", "POST", {"dst_sled_id": there}, shared.rack.server.control)
    async with asyncio.timeout(60):
        while "failed" not in str([row["migration_out"] for row in (await shared.ask("/vmms"))[1]]):
            pass  # until the source has heard of it
        while (await shared.ask("/vmms/web"))[1]["propolis_id"] != source["propolis_id"]:
            pass  # until its target is gone
    await shared.expect("web", "running")


def test_the_front_knows_every_operation_of_a_daemon():
    assert set(SPREAD) == {(row.method, row.path) for row in OPERATIONS}


@pytest.mark.parametrize(("sleds", "workers"), [(1, 1), (4, 2), (10, 3), (10_000, 7), (5, 5)])
def test_every_sled_has_exactly_one_worker_and_all_have_about_as_many(sleds, workers):
    shared = parts(sleds, workers)
    assert [number for first, count in shared for number in range(first, first + count)] == list(range(1, sleds + 1))
    assert max(count for _, count in shared) - min(count for _, count in shared) <= 1


def test_open_files_are_wanted_for_the_sleds_of_one_worker():
    assert WorkersRack(Spec("few", 10, 1, 1, "", None, 0, "instant", ""), 3).sleds_wanted == 4


@pytest.mark.parametrize("workers", [0, 5, 1_000])
def test_more_workers_than_sleds_are_refused(workers):
    with pytest.raises(RackError, match="4 sleds has 1 to 4 workers"):
        WorkersRack(Spec("few", 4, 1, 1, "", None, 0, "instant", ""), workers)


async def test_sleds_have_the_ids_they_have_in_one_process(start):
    shared = await start()
    status, sleds = await shared.ask("/sleds")
    assert status == 200
    assert [each["sled_id"] for each in sleds] != []
    assert {each["sled_id"] for each in sleds} == {str(sled_id_of("shared", number)) for number in range(1, 5)}
    assert {each["address"] for each in sleds} == {each.address for each in shared.rack.handles}
    assert (await shared.ask("/ready"))[1]["ready"] is True


REFUSES = """
version: 1
rules:
- name: refuses
  for: {hostname: web}
  when: {request: vmm_register}
  do: {fail: 503}
"""


async def test_of_who_is_nobody_the_worker_tells_that_knows_most(start):
    shared = await start(REFUSES)
    await shared.create("here")
    await shared.expect("here", "running")
    assert "v1 here " in (await shared.ask("/vmms/nobody"))[1]["message"], "whichever worker has it"
    await shared.create("web")
    status, answer = await shared.ask("/vmms/web")
    assert status == 404
    assert answer["message"].startswith("web has no VMM: sled-"), answer
    assert " rule refuses (" in answer["message"]


async def test_vms_of_all_workers_are_seen_named_and_disturbed_at_one_address(start):
    shared = await start()
    await shared.create("a", "b", "c", "d")
    for name in "abcd":
        await shared.expect(name, "running")
    _, rows = await shared.ask("/vmms")
    assert sorted(row["hostname"] for row in rows) == ["a", "b", "c", "d"]
    assert len({(await shared.sled_of(name)) for name in "abcd"}) == 4
    status, answer = await shared.ask("/vmms/nobody")
    assert (status, "nobody" in answer["message"]) == (404, True)
    status, answer = await shared.ask("/vmms/v1")  # each worker counts for itself
    assert (status, "several" in answer["message"]) == (409, True)
    # a fault reaches the worker that has the VM, and nobody else
    await shared.fails("c", "/vmms/c/inject", {"state": "failed"})
    _, rows = await shared.ask("/vmms")
    assert {row["hostname"] for row in rows if row["in"] == "running"} >= {"a", "b", "d"}


async def test_waiting_for_a_vm_that_nobody_has_yet_sees_it_wherever_it_comes_up(start):
    shared = await start()
    waiting = asyncio.create_task(shared.expect("late", "running"))
    await shared.create("late")
    await asyncio.wait_for(waiting, 60)
    status, answer = await shared.ask("/vmms/never/expect?state=running&within_ms=50")
    assert (status, answer.get("met")) in ((200, False), (404, None))


async def test_other_rules_reach_every_worker_and_bad_ones_change_nothing(start, tmp_path):
    shared = await start(RULES)
    status, answer = await shared.ask("/rules", "PUT", {"scenario": "version: 1\nrules: nonsense\n"})
    assert (status, "problems" in answer) == (400, True)
    other = RULES.replace("name: halt", "name: halt-it")
    assert (await shared.ask("/rules", "PUT", {"scenario": other}))[0] == 200
    for worker in shared.rack.workers.all:
        headers = {"authorization": f"Bearer {worker.spec.token}"}
        async with shared.http.get(f"http://{worker.ready.control}/rules", headers=headers) as answer:
            assert [rule["name"] for rule in await answer.json()] == ["seen", "halt-it"]
    # the file is read again by all of them, if they are told to
    (tmp_path / "scenario.yaml").write_text(RULES.replace("name: halt", "name: reread"))
    shared.rack.workers.signal(signal.SIGHUP)
    async with asyncio.timeout(60):
        while [rule["name"] for rule in (await shared.ask("/rules"))[1]] != ["seen", "reread"]:
            pass  # each round is a request to both


async def rules_of(shared, worker):
    """(names, revision, whether they came from the file) as one worker has them."""
    found = []
    for path in ("/rules", "/scenario"):
        headers = {"authorization": f"Bearer {worker.spec.token}"}
        async with shared.http.get(f"http://{worker.ready.control}{path}", headers=headers) as answer:
            found.append(await answer.json())
    return [rule["name"] for rule in found[0]], found[1]["revision"], found[1]["file"] is not None


async def test_a_worker_that_starts_again_has_the_rules_in_effect_and_not_the_old_file_s(start, tmp_path):
    shared = await start(RULES, sleds=2)
    dies, lives = shared.rack.workers.all
    back = asyncio.Event()
    shared.rack.workers.changed = back.set

    async def dies_and_comes_back(meanwhile=None):
        back.clear()
        before = dies.process
        before.send_signal(signal.SIGKILL)
        if meanwhile is not None:
            while dies.process is before:
                await shared.ask("/version")  # until it is on its way up, and has been told the rules of before
            assert (await shared.ask("/rules", "PUT", {"scenario": meanwhile}))[0] == 200
        await asyncio.wait_for(back.wait(), 60)
        assert await rules_of(shared, dies) == await rules_of(shared, lives)
        return await rules_of(shared, dies)

    assert await dies_and_comes_back() == (["seen", "halt"], 1, True)
    assert (await shared.ask("/rules", "PUT", {"scenario": RULES.replace("name: halt", "name: first")}))[0] == 200
    assert await dies_and_comes_back() == (["seen", "first"], 2, False)
    assert await dies_and_comes_back(RULES.replace("name: halt", "name: second")) == (["seen", "second"], 3, False)
    file = tmp_path / "scenario.yaml"
    shared.rack.workers.read_again(file)
    assert await dies_and_comes_back() == (["seen", "halt"], 4, True)
    file.write_text(RULES.replace("name: halt", "name: edited"))  # nobody has been told to read that
    assert await dies_and_comes_back() == (["seen", "halt"], 4, True)


async def test_each_worker_records_its_own_sleds_and_one_replay_plays_them_all(start, tmp_path, capsys):
    rack = await start(sleds=2, record=str(tmp_path))
    await rack.create("web")
    await rack.expect("web", "running")
    await rack.migrates("web")
    await rack.rack.stop()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["sleds-1-1", "sleds-2-2"]
    assert replay_folder(tmp_path, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["recording"] for each in told] == ["sleds-1-1", "sleds-2-2"]
    assert all(each["turns"] > 1 and each["difference"] is None for each in told)
    for name in ("sleds-1-1", "sleds-2-2"):
        assert "FromPeer" in (tmp_path / name / "part-00001.jsonl").read_text(), "it went over their sockets"


async def test_a_worker_whose_recording_cannot_begin_again_comes_back_without_one(start, tmp_path):
    folder = tmp_path / "records"
    rack = await start(sleds=2, record=str(folder))
    folder.rename(tmp_path / "moved")
    folder.write_text("the disk takes no more")
    await rack.dies(rack.rack.workers.all[1])
    await rack.create("web-1", "web-2")
    await rack.expect("web-2", "running")


async def test_sighup_does_not_kill_a_worker_that_is_on_its_way_up_and_that_has_the_new_rules_then(start, tmp_path):
    shared = await start(RULES, sleds=2)
    back, starts = shared.rack.workers.all[0], []
    shared.rack.workers.changed = lambda: starts.append(back.process)
    back.process.kill()
    async with asyncio.timeout(60):
        while back.ready is not None or back.process.returncode is not None:
            await asyncio.sleep(0)  # until it is a process, and no more than that
        on_its_way = back.process
        (tmp_path / "scenario.yaml").write_text(RULES.replace("name: halt", "name: reread"))
        shared.rack.workers.read_again(tmp_path / "scenario.yaml")
        await on_its_way.wait()
        while not starts:
            await asyncio.sleep(0.02)
    assert on_its_way.returncode == -signal.SIGKILL, "it was ready, and had other rules"
    assert (await rules_of(shared, back))[0] == ["seen", "reread"]


async def test_the_event_feed_has_one_count_and_can_be_resumed(start):
    shared = await start()
    await shared.create("a", "b", "c", "d")
    for name in "abcd":
        await shared.expect(name, "running")

    async def lines(path, **headers):
        async with shared.http.get(f"http://{shared.control}{path}", headers=headers) as answer:
            return [json.loads(line) for line in (await answer.text()).splitlines()]

    found = await lines("/events")
    assert [each["number"] for each in found] == list(range(1, len(found) + 1))
    assert {each["hostname"] for each in found if each["hostname"]} == set("abcd")
    assert await lines("/events?after=7") == found[7:]
    assert await lines("/events", **{"last-event-id": "9"}) == found[9:]
    await shared.create("e")
    await shared.expect("e", "running")
    async with shared.http.get(f"http://{shared.control}/events?follow=1&after={len(found)}") as answer:
        async for line in answer.content:
            event = json.loads(line)
            if event["hostname"] == "e" and event["to"] == "running":
                break


async def test_a_worker_that_dies_comes_back_at_its_addresses_and_the_others_notice_nothing(start):
    shared = await start()
    await shared.create("a", "b", "c", "d")
    for name in "abcd":
        await shared.expect(name, "running")
    before = [each.address for each in shared.rack.handles]
    dies, lives = shared.rack.workers.all
    kept = {str(each.id) for each in shared.rack.handles if shared.worker_of(str(each.id)) is lives}
    _, rows = await shared.ask("/vmms")
    alive = [row for row in rows if row["sled_id"] in kept]
    await shared.dies(dies)
    assert [each.address for each in shared.rack.handles] == before
    _, rows = await shared.ask("/vmms")
    assert [row for row in rows if row["sled_id"] in kept] == alive
    assert (await shared.ask("/ready"))[1]["ready"] is True
    for each in shared.rack.handles:  # it is the agent that is new, not the sled: Nexus has every one of them
        assert shared.rack.server.nexus.records.sleds[each.id].info.sa_address == each.address


async def crowded(start):
    """A rack of two whose first sled has found its first port taken, which is free now."""
    name = f"crowded-{os.getpid()}"
    wanted = PortRange.FIRST + sled_id_of(name, 1).int % (PortRange.END - PortRange.FIRST)
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(OSError):  # somebody else has it, which is as good
            taken.enter_context(socket.create_server(("::1", wanted), family=socket.AF_INET6))
        shared = await start(name=name, sleds=2)
    assert shared.rack.handles[0].address != f"[::1]:{wanted}"
    return shared


async def test_sleds_that_found_their_first_ports_taken_come_back_where_they_were_though_these_are_free_now(start):
    shared = await crowded(start)
    before = [each.address for each in shared.rack.handles]
    await shared.dies(shared.rack.workers.all[0])
    assert [each.address for each in shared.rack.handles] == before


async def test_sleds_whose_ports_have_been_taken_meanwhile_come_back_at_others_and_nexus_is_told(start):
    shared = await start(sleds=2)
    dead, other = shared.rack.workers.all
    kept = other.addresses
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as somebody:
        taken = str(SocketAddress("::1", somebody.getsockname()[1]))
        dead.addresses = [taken]  # as if it had been there
        await shared.dies(dead)
    assert dead.addresses != [taken]
    assert other.addresses == kept
    assert shared.rack.server.nexus.records.sleds[sled_id_of("shared", 1)].info.sa_address == dead.addresses[0]


async def test_a_worker_that_no_process_can_be_made_for_comes_back_at_its_addresses_when_one_can(start, monkeypatch):
    shared = await crowded(start)
    before = [each.address for each in shared.rack.handles]
    make, refused = asyncio.create_subprocess_exec, []

    async def too_many_files(*words, **more):
        if not refused:
            refused.append(words)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await make(*words, **more)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", too_many_files)
    await shared.dies(shared.rack.workers.all[0])
    assert refused
    assert [each.address for each in shared.rack.handles] == before


async def test_while_a_part_is_away_a_list_is_not_shortened_and_nobody_says_that_there_is_no_such_vmm(start):
    shared = await start()
    shared.rack.workers.all[1].ready = None
    status, answer = await shared.ask("/vmms")
    assert status == 503
    assert answer["message"].startswith("sled-3 to sled-4 cannot be asked: a worker that has ended is started again")
    status, answer = await shared.ask("/vmms/web")
    assert (status, answer["message"].split(":")[0]) == (503, "sled-3 to sled-4 cannot be asked")


async def test_what_any_worker_knows_is_told_also_while_one_of_them_hangs(start):
    shared = await start(sleds=2)
    hangs, _ = shared.rack.workers.all
    hangs.process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            assert (await shared.ask("/healthz"))[0] == 200
            assert (await shared.ask("/version"))[0] == 200
    finally:
        hangs.process.send_signal(signal.SIGCONT)


def a_second_goes_by(shared, hangs, silent_s):
    """After which it has said nothing for so long; the others have just been heard."""
    for each in shared.rack.workers.all:
        each.pulse.heard()
    hangs.pulse.silent_s = silent_s - 1
    shared.rack.workers.second()


async def events(shared):
    async with shared.http.get(f"http://{shared.control}/events") as answer:
        return [json.loads(line) for line in (await answer.text()).splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at a process's state")
async def test_a_worker_that_hangs_is_named_and_not_waited_for_and_then_killed_and_started_again(start):
    shared = await start(sleds=2)
    hangs, lives = shared.rack.workers.all
    process, others = hangs.process, lives.process
    process.send_signal(signal.SIGSTOP)
    while " T " not in Path(f"/proc/{process.pid}/stat").read_text():
        await asyncio.sleep(0)
    first = asyncio.create_task(events(shared))  # it has asked both, unless it is told beforehand
    waiting = asyncio.create_task(shared.ask("/vmms"))
    await shared.ask("/version")
    a_second_goes_by(shared, hangs, SILENT_S)
    why = f"sled-1 cannot be asked: the worker (process {process.pid}) has not answered for 5 s"
    async with asyncio.timeout(20):
        status, answer = await waiting
        assert (status, answer["message"].startswith(why)) == (503, True), answer
        told = await first
        assert {each["sled"] for each in told} == {"sled-2", ""}
        assert [each["text"].startswith(why) for each in told if each["kind"] == "worker"] == [True]
        for path in ("/readyz", "/ready", "/sleds", "/vmms/nobody", "/page/feed"):  # the page asks again
            status, answer = await shared.ask(path)
            assert (status, answer["message"].startswith("sled-1 cannot be asked")) == (503, True), path
        status, answer = await shared.ask("/healthz")
        assert (status, answer["message"].startswith("sled-1 cannot be asked")) == (200, True)
    back = asyncio.Event()
    shared.rack.workers.changed = back.set
    a_second_goes_by(shared, hangs, HUNG_S - 1)
    assert " T " in Path(f"/proc/{process.pid}/stat").read_text(), "it may come back yet"
    a_second_goes_by(shared, hangs, HUNG_S)
    await asyncio.wait_for(back.wait(), 60)
    assert process.returncode == -signal.SIGKILL
    assert lives.process is others
    assert (await shared.ask("/healthz"))[1] == {"status": "ok"}
    assert (await shared.ask("/ready"))[0] == 200
    assert "the worker of sled-1 is back" in [each["text"] for each in await events(shared)]


async def test_a_worker_that_turns_is_heard_also_after_it_was_silent(start):
    shared = await start(sleds=2)
    turns, _ = shared.rack.workers.all
    turns.pulse.silent_s = SILENT_S
    async with asyncio.timeout(60):
        while turns.pulse.is_silent:
            await asyncio.sleep(0.02)


async def test_a_foreign_page_cannot_use_the_front(start):
    shared = await start()
    async with shared.http.get(f"http://{shared.control}/vmms", headers={"host": "evil.example"}) as answer:
        assert answer.status == 403
    async with shared.http.get(f"http://{shared.rack.workers.all[0].ready.control}/vmms") as answer:
        assert answer.status == 401  # a worker's own API is for the front alone


async def test_a_rack_that_cannot_come_up_says_why_and_leaves_nobody_behind(capfd):
    rack = WorkersRack(Spec("lost", 2, 1, 1, "", None, 0, "instant", "", listen="nowhere"), 2)
    with pytest.raises(RackError, match="has ended with 3 before it was ready"):
        await rack.start()
    assert "invalid socket address syntax" in capfd.readouterr().err
    assert all(each.process.returncode is not None for each in rack.workers.all)


async def test_a_scenario_that_cannot_be_read_starts_no_worker():
    rack = WorkersRack(Spec("lost", 2, 1, 1, "", "/no/such/file.yaml", 0, "instant", ""), 2)
    with pytest.raises(BadScenario, match=r"/no/such/file\.yaml"):
        await rack.start()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes of others, which Linux can")
async def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path):
    process = await processes.start(
        *processes.forked("sim_sled", "up", "--sleds", "2", "--workers", "2", "--name", "orphans"),
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    try:
        await asyncio.wait_for(process.stdout.readline(), 60)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [os.pidfd_open(int(pid)) for pid in children]
        assert len(workers) >= 2  # and who has forked them
    finally:
        process.kill()
        await process.wait()
    for worker in workers:
        ended, _, _ = await asyncio.to_thread(select.select, [worker], [], [], 60)
        assert ended
        os.close(worker)


async def test_a_worker_whose_parent_is_gone_does_not_wait_for_a_nexus():
    worker = await processes.start(*processes.forked("sim_sled.daemon.worker"), stdin=asyncio.subprocess.PIPE)
    spec = Spec("orphan", 1, 1, 1, "[::1]:1", None, 0, "instant", "token")
    async with asyncio.timeout(READY_S - 5):  # by itself it gives up then
        out, err = await worker.communicate(msgspec.json.encode(spec) + b"\n")
    assert (worker.returncode, out.strip()) == (0, b""), err


def test_figures_of_one_series_are_added_up_and_comments_said_once():
    one = '# TYPE a counter\na{kind="x"} 1\na{kind="y"} 2\n# TYPE b gauge\nb 3\n'
    two = '# TYPE a counter\na{kind="x"} 10\n# TYPE b gauge\nb 0.5\nc 1\n'
    assert sums([one, two]) == '# TYPE a counter\na{kind="x"} 11\na{kind="y"} 2\n# TYPE b gauge\nb 3.5\nc 1\n'


def test_what_says_who_a_program_is_counts_once_whatever_its_labels():
    """Queries multiply by it, to have its labels."""
    one = 'target_info{service_name="sim-sled"} 1.0\nprocess_max_fds 20000.0\n'
    assert sums([one, one]) == 'target_info{service_name="sim-sled"} 1\nprocess_max_fds 20000\n'


def test_what_a_rack_of_workers_cannot_do_has_a_sentence():
    clocks = [("POST", f"/{word}") for word in ("pause", "resume", "step", "until")]
    whole = [("GET", "/snapshot"), ("POST", "/restore")]
    refused = {key for key, spread in SPREAD.items() if spread is Spread.NOBODY}
    assert refused == {("POST", "/scale"), *clocks, *whole}


async def frames(rack):
    """What the page is told once: (names of VMs, sleds, rules by part)."""
    async with rack.http.get(f"http://{rack.control}/page/feed?once=1") as answer:
        text = await answer.text()
    told = [dict(line.split(": ", 1) for line in each.splitlines()) for each in text.split("\n\n") if each]
    whole = json.loads(told[0]["data"])
    rows = [row for each in told if each["event"] == "rows" for row in json.loads(each["data"])]
    vms = [dict(zip(whole["fields"], row, strict=True)) for row in rows]
    parts = [json.loads(each["data"]) for each in told if each["event"] == "frame"]
    return whole, vms, parts


async def test_the_page_shows_all_workers_as_one_rack_and_rules_count_and_fire_in_all_of_them(start):
    rack = await start(RULES)
    await rack.create("web-1", "web-2", "web-3", "web-4")
    for name in ("web-1", "web-2", "web-3", "web-4"):
        await rack.expect(name, "running")
    whole, vms, parts = await frames(rack)
    assert {vm["name"] for vm in vms} == {"web-1", "web-2", "web-3", "web-4"}
    assert {part["part"] for part in parts} == {0, 1}
    assert sum(len(part["sleds"]) for part in parts) == 4
    assert sum(rule["fired"] for part in parts for rule in part["rules"] if rule["name"] == "seen") == 1
    assert sum(counts.get("registered", 0) for _, counts in whole["counts"]) == 4
    assert all("pace" not in part for part in parts), "nobody stops the time of several processes"
    async with rack.http.get(f"http://{rack.control}/page/main.js") as answer:
        assert answer.status == 200
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    _, rules = await rack.ask("/rules")
    assert [(rule["name"], rule["fired"]) for rule in rules] == [("seen", 1), ("halt", 0)]
    await rack.fails("web-2", "/fire/stop-it")  # by hand, where it can
    assert (await rack.ask("/fire/nothing", "POST"))[0] == 404


async def test_the_page_is_told_everything_again_when_a_worker_has_died(start):
    rack = await start()
    await rack.create("web-1")
    await rack.expect("web-1", "running")
    async with asyncio.timeout(60):
        async with rack.http.get(f"http://{rack.control}/page/feed") as answer:
            while not (await answer.content.readline()).startswith(b"event: frame"):
                pass
            rack.rack.workers.all[0].process.kill()
            while await answer.content.readline():
                pass  # it ends
        while True:
            try:
                whole, _, parts = await frames(rack)
            except (KeyError, IndexError):
                await asyncio.sleep(0.05)  # not all are there yet
                continue
            break
    assert whole["fields"]
    assert sum(len(part["sleds"]) for part in parts) == 4


async def test_a_vm_migrates_from_one_process_to_another_and_both_sides_are_one_story(start):
    rack = await start()
    await rack.create("web-1")
    await rack.expect("web-1", "running")
    source = await rack.sled_of("web-1")
    target = await rack.migrates("web-1")
    [row] = (await rack.ask("/vmms"))[1]
    assert row["sled_id"] == target
    _, story = await rack.ask("/vmms/web-1/story")
    assert [life["sled"] for life in story["lives"]] == [source, target]
    assert set(story["lives"][0]["migrations"]) & set(story["lives"][1]["migrations"])
