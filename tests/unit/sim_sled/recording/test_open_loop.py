"""A Nexus that a rule restarts is away in the open loop as it was in the record."""

from types import SimpleNamespace
from uuid import UUID

import pytest

from nexus_client.stub.config import Config, UnknownVmm
from nexus_client.stub.nexus import Nexus
from nexus_client.types import MigrationRuntimeState, MigrationState, SledVmmState, VmmRuntimeState, VmmState, time_of
from sim_sled.core.contract import PutToNexus
from sim_sled.engine.plans import RestartNexus
from sim_sled.recording.open_loop import _Record, _Run

SLED, VMM = UUID(int=1), UUID(int=2)
MS = 1_000


class Rack:
    """Of which only the time is asked, and what it hears of Nexus."""

    def __init__(self):
        self.heard = []
        self.told = SimpleNamespace(lines=[])
        self.passage = SimpleNamespace(next_deadline_us=lambda: None)

    def run(self, item, now_us):
        self.heard.append((now_us, type(item.outcome).__name__))
        return [], []


@pytest.fixture(name="run")
def _run():
    return _Run(_Record(), Rack(), Nexus(Config(unknown_vmm=UnknownVmm.ADOPT), seed=1))


def report(gen):
    return PutToNexus(SLED, VMM, SledVmmState(VmmRuntimeState(VmmState.RUNNING, gen, time_of(0))), 0, gen)


@pytest.mark.parametrize(
    ("at_ms", "recorded", "away"),
    [
        pytest.param(500, "Transient", True, id="while it is away"),
        pytest.param(500, "", True, id="while it is away, of a report that the record does not have"),
        pytest.param(100, "Delivered", False, id="it died a little later"),
        pytest.param(800, "Delivered", False, id="it came back a little sooner"),
        pytest.param(1_200, "Transient", True, id="it came back a little later"),
        pytest.param(1_200, "Delivered", False, id="it is back"),
        pytest.param(1_300, "Transient", False, id="it would be back by now"),
    ],
)
def test_it_is_away_for_as_long_as_the_rule_says_and_a_little_is_the_hosts_matter(run, at_ms, recorded, away):
    run._do(RestartNexus("now", 1_000 * MS))
    run.until(at_ms * MS)
    assert run._is_away(recorded) is away


def test_one_that_died_later_in_the_record_comes_back_as_much_later(run):
    run._do(RestartNexus("now", 1_000 * MS))
    run.until(900 * MS)
    assert not run._is_away("Delivered")
    run.until(1_000 * MS)
    assert run._is_away("Transient")
    run.until(2_200 * MS)
    assert run._is_away("Transient")
    run.until(2_300 * MS)
    assert not run._is_away("Transient")


def test_one_that_dies_at_a_point_of_its_work_lives_until_then_and_comes_back(run):
    run._do(RestartNexus("after_commit", 1_000 * MS))
    assert not run._is_away("Delivered")
    run._do(report(3))
    run.until(10 * MS)
    run._do(report(4))
    ended = SledVmmState(VmmRuntimeState(VmmState.DESTROYED, 5, time_of(0)))
    run._do(PutToNexus(SLED, VMM, ended, 0, 5))  # it commits an end, and dies before it answers
    assert run._is_away("Transient")
    run.until(3_000 * MS)
    assert not run._is_away("Transient")
    assert [outcome for _, outcome in run.rack.heard] == ["Delivered", "Transient", "Transient"]


def test_an_answer_that_is_on_its_way_when_it_dies_is_lost(run):
    run._do(report(3))
    run._do(RestartNexus("now", 1_000 * MS))
    run.until(10 * MS)
    assert [outcome for _, outcome in run.rack.heard] == ["Transient"]


def test_of_migrations_it_is_not_told_since_it_knows_none(run):
    side = MigrationRuntimeState(UUID(int=9), MigrationState.IN_PROGRESS, 2, time_of(0))
    moving = SledVmmState(VmmRuntimeState(VmmState.MIGRATING, 3, time_of(0)), migration_out=side)
    run._do(PutToNexus(SLED, VMM, moving, 0, 3))
    run.until(10 * MS)
    assert [outcome for _, outcome in run.rack.heard] == ["Delivered"]
