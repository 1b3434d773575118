"""Racks that are recorded while the Propolis API of their VMMs is served: consoles, migrations to each other."""

import asyncio
import base64
import itertools
import json
import re
import shutil
import uuid

import aiohttp
import pytest
from support.nexus.fake_nexus import FakeNexus
from support.propolis.side import PROPOLIS_HEADERS, Side, address

from sim_sled.daemon.checkpoint import resume
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.daemon.recorder import Recorder
from sim_sled.daemon.recordings import opened
from sim_sled.daemon.scrubbing import scrub
from sim_sled.recording.lines import Turn
from sim_sled.recording.open_loop import open_loop
from sim_sled.recording.replaying import replay
from sim_sled.recording.tape import tape_of

SECRET = "Tr0ub4dor"


def recorded(nexus, folder, **more):
    return Side(nexus, PropolisMode.REGISTERED, Recorder(folder, {}, **more))


async def typed(addr, text):
    """At the console of a VM, until the guest has echoed it."""
    async with (
        aiohttp.ClientSession(headers=PROPOLIS_HEADERS) as http,
        http.ws_connect(f"ws://{addr}/instance/serial?most_recent=0") as console,
    ):
        await console.send_bytes(text)
        said = b""
        while text.strip() not in said:
            message = await console.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                return
            said += message.data


async def there_and_back(folder, host, **more):
    """Two racks, a VM that goes from one to the other and back, and is typed at and asked to reboot on its way; the
    ids of its VMMs.
    """
    v1, v2, v3 = vmms = [uuid.uuid4() for _ in range(3)]
    async with (
        FakeNexus() as nexus,
        recorded(nexus, folder / "a", **more) as a,
        recorded(nexus, folder / "b", **more) as b,
    ):
        await a.run(nexus, v1, address(host))
        await typed(address(host), f"{SECRET}\n".encode())
        await b.register(v2, address(host + 1), "migrating", uuid.uuid4())
        await b.ask(v2, "migration_target", {"src_propolis_addr": address(host)})
        await nexus.heard(v2, "running")
        await nexus.heard(v1, "destroyed")
        async with aiohttp.ClientSession(headers=PROPOLIS_HEADERS) as http:
            async with http.put(f"http://{address(host + 1)}/instance/state", json="Reboot") as answer:
                assert answer.status == 204
            await nexus.heard(v2, "rebooting")
            await nexus.until(lambda: nexus.states(v2).count("running") == 2)
        await a.register(v3, address(host + 2), "migrating", uuid.uuid4())
        await a.ask(v3, "migration_target", {"src_propolis_addr": address(host + 1)})
        await nexus.heard(v3, "running")
        await nexus.heard(v2, "destroyed")
        for vmm, side in ((v1, "migration_out"), (v2, "migration_in"), (v2, "migration_out"), (v3, "migration_in")):
            last = [told[side] for who, told in nexus.acked if who == str(vmm)][-1]
            assert last["state"] == "completed", (vmm, side)
        await keeps_only(a, v3)
        await keeps_only(b)
    return vmms


async def keeps_only(side, *vmms):
    """Of VMMs that have ended no server is left, whatever a recorded core has asked it, and no report of theirs."""
    there = {vmm.int for vmm in vmms}
    async with asyncio.timeout(60):
        while {vmm for _, vmm in side.daemon.propolis._served} != there or side.daemon.recorder._scribe.sends:
            await asyncio.sleep(0.01)  # until acknowledgements have come back; the daemon has no event for it


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of both racks."""
    made = tmp_path_factory.mktemp("both")
    asyncio.run(there_and_back(made, 20))
    return made


def text_of(folder):
    return "".join(part.read_text() for part in sorted(folder.iterdir()))


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_migration_between_two_recorded_racks_replays_on_both_sides(folder, name):
    found = replay(opened(folder / name).lines())
    assert (found.difference, found.end) == (None, "")
    text = text_of(folder / name)
    for kind in ("PropolisInput", "MigrateOut", "FromPeer", "FromPropolis", "Dial", "pack history", "unpack history"):
        assert kind in text, f"there is no {kind}: this test would not notice much"


def lines_of(folder):
    """Of a recording in one part, to be changed."""
    return (folder / "part-00001.jsonl").read_text().splitlines()


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of one rack's recording in which a text is another one, where it first stands in such a line."""

    def change(within, old, new):
        shutil.copytree(folder / "a", tmp_path / "a")
        rows = lines_of(tmp_path / "a")
        number = next(i for i, row in enumerate(rows) if within in row and old in row)
        rows[number] = rows[number].replace(old, new, 1)
        (tmp_path / "a" / "part-00001.jsonl").write_text("\n".join(rows) + "\n")
        return opened(tmp_path / "a"), number + 1

    return change


def test_what_the_owner_of_a_vm_answered_decides_in_a_replay_too(changed):
    recording, number = changed('"unpack preamble",null', '"unpack preamble",null', '"unpack preamble","too old"')
    assert replay(recording.lines()).difference.where == f"part-00001.jsonl:{number}"


def test_what_a_peer_says_is_an_input(changed):
    recording, number = changed("contract:FromPeer", "messages:Okay", "messages:MemDone")
    found = replay(recording.lines()).difference
    assert int(found.where.rpartition(":")[2]) >= number
    assert "Error" in json.dumps(found.replayed)


def test_a_recording_without_an_answer_of_an_owner_is_a_difference(changed):
    recording, number = changed('"pack history"', '"pack history"', '"pack nothing"')
    assert replay(recording.lines()).difference.where == f"part-00001.jsonl:{number}"


def test_the_guest_at_its_console_is_in_the_recording_as_far_as_it_moves_its_vm(tmp_path):
    vmm = uuid.uuid4()

    async def lived():
        async with FakeNexus() as nexus, recorded(nexus, tmp_path / "r") as side:
            await side.run(nexus, vmm, address(30))
            await typed(address(30), b"root\n")
            await typed(address(30), b"reboot\n")
            await nexus.until(lambda: nexus.states(vmm).count("running") == 2)

    asyncio.run(lived())
    recording = opened(tmp_path / "r")
    assert replay(recording.lines()).difference is None
    given = [line.item["item"] for _, line in recording.lines() if isinstance(line, Turn) and "item" in line.item]
    assert [each["event"].rpartition(" ")[2] for each in given] == ["RESET"]


def test_a_copy_without_personal_things_has_none_of_what_migrated(folder, tmp_path):
    before = text_of(folder / "a")
    copied = scrub(opened(folder / "a"), tmp_path / "copy")
    assert (copied.said, copied.copy.difference) == ("", None)
    text = text_of(tmp_path / "copy")
    assert replay(opened(tmp_path / "copy").lines()).difference is None
    found = re.findall(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", before)
    ids = {each for each in found if not each.startswith("00000000")}  # the others stand in the test's own bodies
    assert len(ids) == 5, "a sled, two VMMs, two migrations"
    assert SECRET in said(before), "the history of the console is what went along"
    assert not [each for each in ids if each in text]
    assert SECRET not in said(text)


def said(text):
    """What is in the base64 of a recording."""
    found = re.findall(r"[0-9A-Za-z+/]{40,}={0,2}", text)
    return b"".join(base64.b64decode(each) for each in found if len(each) % 4 == 0).decode(errors="replace")


def test_a_tape_can_be_made_of_it(folder):
    assert len(tape_of(opened(folder / "a").lines(), "one").rows) > 4


def test_the_open_loop_plays_it_too(folder):
    assert open_loop(opened(folder / "a").lines).inputs > 10


@pytest.mark.parametrize("nth", [pytest.param(1, id="each", marks=pytest.mark.long), pytest.param(10, id="some")])
def test_a_rack_whose_vms_migrate_can_have_a_checkpoint_at_any_moment(tmp_path, monkeypatch, nth):
    """After whatever a Propolis API was asked or a peer said, each time or each tenth, there is one, as after a
    snapshot that was restored.
    """
    ask, count = Daemon.propolis_input, itertools.count(1)

    def asked(daemon, *args):
        done = ask(daemon, *args)
        if not next(count) % nth:
            daemon.recorder.restored()
        return done

    monkeypatch.setattr(Daemon, "propolis_input", asked)
    asyncio.run(there_and_back(tmp_path, 40))
    for name in "ab":
        recording = opened(tmp_path / name)
        assert len(recording.parts) > 20 / nth
        assert replay(recording.lines(), resume=resume).difference is None
        copied = scrub(opened(tmp_path / name), tmp_path / f"{name}-copy")
        assert (copied.said, copied.copy.difference) == ("", None)
