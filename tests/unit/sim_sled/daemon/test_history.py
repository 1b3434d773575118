"""history.py: one line per happening, bounded in VMMs and lines."""

from uuid import UUID

import pytest
from support.rack.driving import DOWN, GONE, M1, RUNNING, SECOND, SLED_A, STOPPED, T0, V1, VMMS, RackDriver, refused

from nexus_client.types import (
    Asked,
    MigrationRuntimeState,
    MigrationState,
    SledVmmState,
    VmmRuntimeState,
    VmmState,
    time_of,
)
from sim_sled.core.happenings import Happening, Kind
from sim_sled.core.rules import refusal
from sim_sled.core.why import told
from sim_sled.daemon import history
from sim_sled.daemon.history import History, text_of


def _record(state=VmmState.RUNNING, gen=3, **sides):
    return SledVmmState(VmmRuntimeState(state, gen, time_of(T0)), **sides)


def _side(state, gen):
    return MigrationRuntimeState(M1, state, gen, time_of(T0))


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (_record(), "running gen 3"),
        (_record(migration_in=_side(MigrationState.COMPLETED, 3)), "running gen 3 in=completed/3"),
        (
            _record(
                VmmState.DESTROYED,
                9,
                migration_in=_side(MigrationState.COMPLETED, 3),
                migration_out=_side(MigrationState.FAILED, 4),
            ),
            "destroyed gen 9 in=completed/3 out=failed/4",
        ),
    ],
)
def test_told(record, text):
    assert told(record) == text


def test_a_life_reads_like_a_diary():
    driver = RackDriver(acks=False)
    driver.register()
    driver.put(RUNNING)
    driver.wait(SECOND)
    driver.nexus_answers(DOWN)
    driver.wait(SECOND)
    driver.nexus_answers()
    driver.put(STOPPED)
    refused(driver.put, RUNNING)
    driver.wait(SECOND)
    driver.nexus_answers(GONE)
    driver.nexus_answers()
    kept = History()
    for each in driver.happened:
        kept.add(each)
    assert [text_of(each) for each in kept.of(V1)] == [
        "registered starting gen 2",
        "asked running: start",
        "propolis[Creating] -> [Starting] gen 2",
        "starting -> starting gen 3",
        "sent starting gen 3",
        "propolis[Starting] -> [Running] gen 3",
        "starting -> running gen 4",
        "retrying: connection refused",
        "sent running gen 4, attempt 1",
        "acked running gen 4",
        "asked stopped: stop",
        "running -> stopping gen 5",
        "asked running: refused, " + refusal(Asked.RUNNING, VmmState.DESTROYED, VmmState.STOPPING),
        "propolis[Running] -> [Stopping] gen 4",
        "stopping -> stopping gen 6",
        "sent stopping gen 6",
        "propolis[Stopping] -> [Stopped] gen 5",
        "stopping -> stopping gen 7",
        "propolis[Stopped] -> [Destroyed] gen 6",
        "stopping -> destroyed gen 8",
        "given up: 410: Gone",
        "sent destroyed gen 8",
        "acked destroyed gen 8",
        "forgotten destroyed gen 8",
    ]


def test_the_phases_of_a_migration_are_told():
    driver = RackDriver()
    driver.running()
    driver.migrate_out()
    driver.wait(SECOND)
    lines = [text_of(each) for each in driver.happened if each.kind is Kind.PROPOLIS]
    assert any(line.startswith("propolis[Migrating] -> [Migrating] out=RamPush gen") for line in lines)


def _happening(number, propolis_id):
    return Happening(T0 + number, SLED_A, propolis_id, Kind.POKED, data=True)


def test_of_each_vmm_only_the_latest_lines_are_kept():
    kept = History()
    for number in range(history.LINES_PER_VMM + 10):
        kept.add(_happening(number, V1))
    lines = kept.of(V1)
    assert len(lines) == history.LINES_PER_VMM
    assert lines[0].at_us == T0 + 10


def test_of_the_vmms_only_the_latest_changed_are_kept(monkeypatch):
    monkeypatch.setattr(history, "VMMS_KEPT", 3)
    kept = History()
    for propolis_id in (VMMS[0], VMMS[1], VMMS[2], VMMS[0], VMMS[3]):
        kept.add(_happening(0, propolis_id))
    assert kept.of(VMMS[1]) == [], "the one that was quiet for longest made room"
    assert [len(kept.of(each)) for each in (VMMS[0], VMMS[2], VMMS[3])] == [2, 1, 1]


def test_what_concerns_no_vmm_is_not_kept():
    kept = History()
    kept.add(Happening(T0, SLED_A, None, Kind.SLED, "registered"))
    assert kept.of(UUID(int=0)) == []
