"""Records that survive the process: after a crash at any single write the same comes to be as without one."""

import sqlite3

import pytest
from support.nexus.stored import end_of, stored, until
from support.nexus.world import sled_id

from nexus_client.stub.config import SagaMode
from nexus_client.stub.contract import AttachIp, Boot, CreateInstance, IpKind, Migrate
from nexus_client.stub.server.store import VERSION, Store, StoreFailed


def a_life(world):
    """Created, given an address, migrated, lost and restarted, stopped; a second one deleted."""

    def row(name):
        return world.nexus.find(name)

    def public(name):
        return None if row(name) is None else world.public(row(name).id)

    def create(name):
        return lambda: world.ask(CreateInstance, name, name) if row(name) is None else world.start(row(name).id)

    until(world, lambda: public("web") == "running", create("web"))
    until(world, lambda: public("old") == "running", create("old"))
    web = row("web").id
    until(
        world,
        lambda: world.nexus.records.external_ips,
        lambda: world.ask(AttachIp, web, IpKind.FLOATING, "203.0.113.9"),
    )
    until(world, lambda: world.active(web).sled_id == sled_id(2), lambda: world.ask(Migrate, web, sled_id(2)))
    lost = world.active(web).id
    world.sleds[sled_id(2)].vmms.pop(lost)
    until(world, lambda: public("web") == "running" and world.active(web).id != lost, lambda: world.wait(60_000_000))
    old = row("old").id
    until(world, lambda: public("old") == "stopped", lambda: world.stop(old))
    until(world, lambda: row("old") is None, lambda: world.delete(old))
    world.rest()
    return end_of(world)


@pytest.mark.parametrize(
    ("mode", "step"),
    [(SagaMode.INLINE, 3), (SagaMode.QUEUED, 11), pytest.param(SagaMode.INLINE, 1, marks=pytest.mark.long)],
)
def test_a_crash_after_any_single_write_changes_nothing_of_the_end(tmp_path, mode, step):
    undisturbed = stored(tmp_path / "undisturbed.db", mode)
    end = a_life(undisturbed)
    assert end["instances"][0][:2] == ("web", "running")
    assert undisturbed.writes > 30
    for dies_after in range(1, undisturbed.writes + 1, step):
        world = stored(tmp_path / f"{dies_after}.db", mode, [dies_after])
        assert a_life(world) == end, f"killed after write {dies_after}"
        assert not world.nexus.broken


def test_what_was_written_is_read_back_row_by_row(tmp_path):
    world = stored(tmp_path / "n.db")
    a_life(world)
    before = world.nexus.records
    world.begin()
    after = world.nexus.records
    tables = ("instances", "vmms", "migrations", "sleds", "reservations", "external_ips", "networks", "provisions")
    for table in tables:
        assert getattr(after, table) == getattr(before, table), table
        assert list(getattr(after, table)) == list(getattr(before, table)), f"{table}: in the same order"
    assert after.counters == before.counters
    assert [row.id for row in after.live_instances()] == [row.id for row in before.live_instances()]
    assert [vmm.id for vmm in after.live_vmms()] == [vmm.id for vmm in before.live_vmms()]
    assert all(after.used(key) == before.used(key) for key in before.sleds)


def test_a_saga_goes_on_where_its_log_says(tmp_path):
    world = stored(tmp_path / "n.db")
    world.ask(CreateInstance, "web", "web")
    (call,) = world.calls
    world.calls.clear()
    world.begin()
    assert [saga.kind.value for saga in world.nexus.sagas] == ["instance-create", "instance-start"]
    world.do(Boot())
    (again,) = world.calls
    assert again.op == call.op, "the same node, the same VMM"
    world.settle()
    assert world.public(world.nexus.find("web").id) == "running"


def test_ids_come_from_the_seed_of_the_file(tmp_path):
    store = Store(tmp_path / "n.db")
    assert store.seed(7) == 7
    store.close()
    assert Store(tmp_path / "n.db").seed(8) == 7


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE instance SET row = json_set(row, '$.state', 'no_vmm')",
        "UPDATE instance SET row = json_set(row, '$.active_propolis_id', null)",
        "UPDATE vmm SET row = json_set(row, '$.state', 'failed')",
        "UPDATE reservation SET row = json_set(row, '$.instance_id', 'x')",
    ],
)
def test_the_schema_holds_its_own_constraints(tmp_path, statement):
    world = stored(tmp_path / "n.db")
    for name in ("web", "other"):
        world.ask(CreateInstance, name, name)
        world.settle()
    world.store.close()
    with pytest.raises(sqlite3.IntegrityError):
        sqlite3.connect(tmp_path / "n.db").execute(statement)


@pytest.mark.parametrize(
    ("old", "new"), [("running", "vmm"), ("stopping", "vmm"), ("migrating", "vmm"), ("repairing", "vmm")]
)
def test_a_file_of_before_5854_is_migrated(tmp_path, old, new):
    path = tmp_path / "n.db"
    world = stored(path)
    world.ask(CreateInstance, "web", "web")
    world.settle()
    world.store.close()
    before_5854(path, old)
    world.store = None
    world.begin()
    assert world.nexus.find("web").state.value == new
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (VERSION,)


def before_5854(path, state):
    """The file as an earlier version would have it: one enum for instances and VMMs, and no check."""
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE plain (place INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, row TEXT NOT NULL)")
    db.execute("INSERT INTO plain SELECT place, id, json_set(row, '$.state', ?) FROM instance", (state,))
    db.execute("DROP TABLE instance")
    db.execute("ALTER TABLE plain RENAME TO instance")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()


def test_a_file_that_is_none_or_of_the_future_is_told(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be looked at as one" * 40)
    with pytest.raises(StoreFailed, match="not a database"):
        Store(tmp_path / "text")
    db = sqlite3.connect(tmp_path / "later")
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    with pytest.raises(StoreFailed, match="version"):
        Store(tmp_path / "later")
    with pytest.raises(StoreFailed):
        Store(tmp_path / "no" / "such" / "folder")


def test_a_broken_row_is_a_sentence(tmp_path):
    world = stored(tmp_path / "n.db")
    world.store.close()
    db = sqlite3.connect(tmp_path / "n.db")
    db.execute("UPDATE sled SET row = '{}'")
    db.commit()
    db.close()
    world.store = None
    with pytest.raises(StoreFailed, match="missing required field"):
        world.begin()
