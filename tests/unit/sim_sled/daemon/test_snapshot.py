"""A rack in one file: taken up again it plays on as it would have, and what is not in the file is refused."""

import asyncio
import base64
import json
import zlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.ports import a_port
from support.profile import by_profile

from sim_sled.daemon import snapshot
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.daemon.snapshot import Refused, Snapshots, read
from sim_sled.language.check import parse_scenario

HOUR_US = 3_600_000_000
RULES = """
version: 1
name: stops
fleet: {sleds: 2}
latency: console
rules:
  - {name: slow, for: {hostname: web}, when: {state: stopping}, do: {stall: 40s}}
  - {name: holds, for: {hostname: db}, when: {state: running}, do: {hold: {publish: "*", lasts: 30s}}}
  - {name: every, when: {every: 7s}, do: {note: tick}}
"""


def scenario(text=RULES):
    found, problems = parse_scenario(text)
    assert found is not None, problems.text()
    return found


@pytest.fixture
async def rack():
    """Two VMs in the middle of their boots, held and stalled by rules. Time stands."""
    async with SmallRack(scenario=scenario()) as small:
        small.daemon.pausing.pause()
        for name in ("web", "db"):
            await small.create_instance(name)
        await small.daemon.pausing.until(7_000_000, None)
        yield small


@pytest.fixture
def free_port():
    with a_port() as port:
        yield port


async def life(rack):
    """What happens from here on, all of it."""
    first = rack.daemon.look.number
    await rack.stop_instance("web")
    for _ in range(6):
        await rack.daemon.pausing.until(20_000_000, None)
    events = [event for _, event in rack.daemon.look.after(first, 10_000)]
    states = [rack.public_state(name) for name in ("web", "db")]
    rules = {name: (each.matched, each.fired) for name, each in rack.daemon.engine.counters.items()}
    return [event.plain() for event in events], states, rules, rack.daemon.clock.now_us(), rack.timeline("web")


async def test_restored_it_plays_on_as_undisturbed(rack):
    kept = (await Snapshots(rack.daemon).take()).text
    undisturbed = await life(rack)
    assert undisturbed[1] == ["stopped", "running"]
    for _ in range(2):
        await Snapshots(rack.daemon).restore(kept.encode())
        assert rack.meant("web").state == "running"
        assert await life(rack) == undisturbed


async def test_what_is_restored_is_kept_again_to_the_letter(rack):
    """Snapshot, life, restore, snapshot: the same file. Time stands, else it is another moment."""
    kept = (await Snapshots(rack.daemon).take()).text
    await life(rack)
    await Snapshots(rack.daemon).restore(kept.encode())
    assert (await Snapshots(rack.daemon).take()).text == kept


@pytest.mark.parametrize("counts", [True, False])
async def test_whether_each_attempt_is_counted_is_as_the_restored_rules_have_it(counts):
    """Rules that came by a file counted what the breaker held as attempts."""
    none, some = scenario("version: 1\nname: none"), scenario(RULES.replace("fleet: {sleds: 2}\n", ""))
    async with SmallRack() as rack:
        rack.daemon.pausing.pause()
        rack.load(some if counts else none)
        kept = (await Snapshots(rack.daemon).take()).text
        rack.load(none if counts else some)
        await Snapshots(rack.daemon).restore(kept.encode())
        assert rack.daemon.reporting.senders.breaker is not counts


async def test_in_another_process_that_listens_in_the_same_place_too(free_port):
    """Where it listens elsewhere, addresses are another's, and its sleds tell Nexus so: nothing else differs."""
    files = []
    for _ in range(2):
        async with SmallRack(name="same", address=f"[::1]:{free_port}") as rack:
            rack.daemon.pausing.pause()
            if files:
                await Snapshots(rack.daemon).restore(files[0].encode())
            else:
                await rack.create_instance("web")
                await rack.daemon.pausing.until(1_000_000, None)
            files.append((await Snapshots(rack.daemon).take()).text)
    assert files[0] == files[1]


async def test_another_process_of_the_same_name_plays_on_as_well(rack):
    """As after a crash of the machine."""
    kept = (await Snapshots(rack.daemon).take()).text
    undisturbed = await life(rack)
    async with SmallRack(scenario=scenario()) as other:
        await Snapshots(other.daemon).restore(kept.encode())
        other.daemon.pausing.pause()
        again = await life(other)
    assert again[1:3] == undisturbed[1:3]
    assert [event["kind"] for event in again[0]] == [event["kind"] for event in undisturbed[0]]


async def test_time_that_went_goes_on(rack):
    rack.daemon.pausing.resume()
    kept = (await Snapshots(rack.daemon).take()).text
    assert not rack.daemon.clock.stands
    await Snapshots(rack.daemon).restore(kept.encode())
    assert not rack.daemon.clock.stands
    now = rack.daemon.clock.now_us()
    assert read(kept.encode()).now_us <= now < read(kept.encode()).now_us + HOUR_US


async def changes_nothing(rack, text, says):
    before = (rack.daemon.clock.now_us(), rack.timeline("web"), rack.daemon.pausing.next_deadline_us())
    with pytest.raises(Refused, match=says):
        await Snapshots(rack.daemon).restore(text)
    assert (rack.daemon.clock.now_us(), rack.timeline("web"), rack.daemon.pausing.next_deadline_us()) == before


@pytest.mark.nightly
@settings(max_examples=by_profile(15, nightly=300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_character_is_a_sentence(kept, data):
    at = data.draw(st.integers(0, len(kept) - 1))
    new = data.draw(st.sampled_from("0aZ{}\"'\\ \n\x00é").filter(lambda c: c != kept[at]))
    changed = kept[:at] + new + kept[at + 1 :]
    try:
        same = json.loads(changed) == json.loads(kept)
    except ValueError:
        same = False
    if not same:  # a blank more between two fields is no other file
        with pytest.raises(Refused) as refused:
            read(changed.encode())
        assert str(refused.value).startswith(("this is no snapshot", "the snapshot "))


@pytest.fixture(scope="module")
def kept():
    async def made():
        async with SmallRack() as small:
            await small.create_instance("web")
            return (await Snapshots(small.daemon).take()).text

    return asyncio.run(made())


async def test_what_is_no_snapshot_of_this_rack_changes_nothing(rack, kept, monkeypatch):
    await changes_nothing(rack, b"", "no snapshot of sim-sled")
    await changes_nothing(rack, b"[]", "no snapshot of sim-sled")
    await changes_nothing(rack, b"[" * 100_000, "no snapshot of sim-sled, or a part of one")
    await changes_nothing(rack, b'{"snapshot": 2}', "has format 2, and this sim-sled knows 1")
    await changes_nothing(rack, kept.encode()[:-100], "no snapshot of sim-sled")
    await changes_nothing(rack, kept.encode(), "of another rack: 1 sleds, and this one has 2")
    mine = (await Snapshots(rack.daemon).take()).text
    lied = msgspec.structs.replace(read(mine.encode()), now_us=1)
    await changes_nothing(rack, msgspec.json.encode(lied), "not as it was written")
    forged = msgspec.structs.replace(lied, table="".join(reversed(lied.table)))
    forged.digest = forged.sealed()
    await changes_nothing(rack, msgspec.json.encode(forged), "cannot be read")
    deep = base64.b85encode(zlib.compress(b"[" * 100_000)).decode()
    forged = msgspec.structs.replace(lied, table=deep)
    forged.digest = forged.sealed()
    await changes_nothing(rack, msgspec.json.encode(forged), "cannot be read")
    monkeypatch.setattr(snapshot, "program", lambda: "another")
    await changes_nothing(rack, mine.encode(), "made by another sim-sled")


def rows_of(table, kind, name):
    return [row for row in table if row[0] == kind and row[1].endswith(name)]


def _field(kind, name, field, value):
    def edit(table):
        rows_of(table, kind, name)[0][-1][field] = value

    return edit


def _without(kind, name, field):
    def edit(table):
        del rows_of(table, kind, name)[0][-1][field]

    return edit


def _endless_deque(table):
    next(row for row in table if row[0] == "deque")[1] = 10**30


def _appended(kind, name, field, value):
    """To the list, deque or dict that is in a field."""

    def edit(table):
        (row,) = rows_of(table, kind, name)[0][-1][field]
        table[row].append(value)

    return edit


def _other_class(name):
    def edit(table):
        rows_of(table, "obj", ":Vmm")[0][1] = name

    return edit


EDITS = {
    "a reference to no row": _field("obj", ":Vmm", "record", [10**9]),
    "a row that is missing": list.pop,
    "a field that is missing": _without("struct", "stub.records:Sled", "info"),
    "a field of an anchor that is missing": _without("anchor", "conductor", "engine"),
    "a field that there is not": _field("obj", ":Vmm", "nothing", 1),
    "a wrong type in an anchor": _field("anchor", "conductor", "_acts", "x"),
    "a wrong type deep inside": _field("obj", ":Outbox", "_entries", None),
    "a number that no machine has": _endless_deque,
    "what is only met when all instances are asked for": _appended("obj", ":Records", "_live", [7, None]),
    "what is only met when a rule looks back": _appended("obj", ":Subject", "published", 7),
    "what is only met when it is due": _appended("obj", ":Timers", "_heap", "x"),
    "a class of a room that does I/O": _other_class("sim_sled.daemon.daemon:Daemon"),
    "a class of somebody else's": _other_class("subprocess:Popen"),
    "tickets that are none": lambda table: table[0].__setitem__(
        slice(1, None), [pair if pair[0] != "tickets" else ["tickets", "x"] for pair in table[0][1:]]
    ),
}


async def test_a_file_that_is_edited_and_sealed_again_changes_nothing(rack):
    good = await Snapshots(rack.daemon).take()
    for what, edit in EDITS.items():
        table = json.loads(zlib.decompress(base64.b85decode(good.table)))
        edit(table)
        packed = base64.b85encode(zlib.compress(json.dumps(table).encode())).decode()
        edited = msgspec.structs.replace(good, table=packed)
        edited.digest = edited.sealed()
        try:
            await changes_nothing(rack, edited.text.encode(), "cannot be read")
        except BaseException as error:
            error.add_note(what)
            raise
    await Snapshots(rack.daemon).restore(good.text.encode())
    assert (await Snapshots(rack.daemon).take()).table == good.table


async def test_a_file_of_a_time_that_no_clock_shows_changes_nothing(rack):
    good = await Snapshots(rack.daemon).take()
    for now_us in (-1, 10**20, 10**40):
        other = msgspec.structs.replace(good, now_us=now_us)
        other.digest = other.sealed() if now_us < 2**63 else good.digest
        await changes_nothing(rack, json.dumps(msgspec.to_builtins(other)).encode(), "snapshot")


async def test_what_cannot_be_in_the_file_is_refused_and_named():
    hangs = "version: 1\nname: h\nrules: [{name: h, when: {request: vmm_put_state}, do: {hang: forever}}]\n"
    async with SmallRack(scenario=scenario(hangs)) as small:
        asking = asyncio.ensure_future(small.create_instance("web"))
        await small.expect("web", "starting", within_s=20)
        with pytest.raises(Refused, match="1 requests wait, held up by a rule or a latency"):
            await Snapshots(small.daemon).take()
        asking.cancel()
    async with SmallRack(propolis=PropolisMode.LOOPBACK) as small:
        with pytest.raises(Refused, match="Propolis API of its VMMs is served"):
            await Snapshots(small.daemon).take()
    async with SmallRack() as small:
        assert small.daemon.blobs(small.handles[0].id).keep_small("artifact", b"x")
        with pytest.raises(Refused, match="1 artifacts or support bundles are stored"):
            await Snapshots(small.daemon).take()
