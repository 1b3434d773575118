"""What the judge holds the Nexus model to (NX 7 #34 to #44): each promise is broken here, and it says which."""

from types import SimpleNamespace
from uuid import UUID

import pytest
from support.rows import in_one_test

from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import InstanceDbState, IntendedState, ReservationKind, VmmDbState
from sim_sled.language.check import parse_scenario
from sim_sled.play.judge.invariants import Invariants
from sim_sled.play.run import How, play

WEB, VMM, SLED = UUID(int=1), UUID(int=2), UUID(int=3)


class Records:
    """A database with one instance, which promises nothing."""

    def __init__(self, instance, vmm=None, reservations=()):
        self.instances = {WEB: instance}
        self.vmms = {} if vmm is None else {VMM: vmm}
        self._reservations = list(reservations)
        self.reservations = {}

    def live_instances(self):
        return [row for row in self.instances.values() if row.time_deleted is None]

    def active_vmm(self, row):
        return self.vmms.get(row.active_propolis_id)

    def reservations_of(self, _instance_id):
        return self._reservations


def an_instance(**changes):
    row = {
        "id": WEB, "ordinal": 1,
        "hostname": "web", "state": InstanceDbState.NO_VMM, "time_deleted": None, "updater_id": None,
        "active_propolis_id": None, "target_propolis_id": None, "migration_id": None, "state_generation": 4,
    }  # fmt: skip
    return SimpleNamespace(**row | changes)


def a_vmm(state, **changes):
    return SimpleNamespace(**{"id": VMM, "instance_id": WEB, "state": state, "time_deleted": None} | changes)


def judge(records, *, starts=True, public="stopped"):
    nexus = SimpleNamespace(
        up=True,
        records=records,
        would_start=lambda _: starts,
        public_state=lambda _: SimpleNamespace(value=public),
    )
    world = SimpleNamespace(
        engine=SimpleNamespace(cast=SimpleNamespace(subjects={}, by_id={})),
        nexus=nexus,
        judge=SimpleNamespace(world_why=lambda _: ""),
        elapsed_us=0,
        line=lambda *_: None,
        nexus_5xx=[],
        readable=str,
    )
    return Invariants(world, (), [])


def numbers(found):
    return [failure.text.split(":")[1].strip() for failure in found.failures]


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_who_is_shown_stopped_or_failed_can_be_started(state):
    found = judge(Records(an_instance()), starts=False)
    found.public(WEB, state)
    assert numbers(found) == ["38"]
    fine = judge(Records(an_instance()), starts=True)
    fine.public(WEB, state)
    assert fine.failures == []


def test_nobody_promises_that_the_others_or_the_deleted_can_be_started():
    found = judge(Records(an_instance()), starts=False)
    found.public(WEB, "running")
    gone = judge(Records(an_instance(time_deleted=9)), starts=False)
    gone.public(WEB, "stopped")
    down = judge(Records(an_instance()), starts=False)
    down.world.nexus.up = False
    down.public(WEB, "failed")
    assert found.failures == gone.failures == down.failures == []


@pytest.mark.parametrize("state", [InstanceDbState.NO_VMM, InstanceDbState.FAILED, InstanceDbState.CREATING])
def test_who_has_no_vmm_holds_no_room(state):
    room = SimpleNamespace(kind=ReservationKind.ACTIVE, vmm_id=VMM)
    found = judge(Records(an_instance(state=state), reservations=[room]))
    found.finish(settled=True)
    assert numbers(found) == ["44"]


def test_who_has_a_vmm_may_hold_room_and_what_is_kept_for_a_local_disk_is_no_room_of_a_vmm():
    room = SimpleNamespace(kind=ReservationKind.ACTIVE, vmm_id=VMM)
    linked = an_instance(state=InstanceDbState.VMM, active_propolis_id=VMM)
    held = judge(Records(linked, a_vmm(VmmDbState.RUNNING), [room]))
    held.finish(settled=True)
    kinds = [SimpleNamespace(kind=kind) for kind in ReservationKind if kind is not ReservationKind.ACTIVE]
    other = judge(Records(an_instance(), reservations=kinds))
    other.finish(settled=True)
    assert held.failures == other.failures == []


def test_at_rest_nobody_points_to_a_vmm_that_is_over_nor_is_locked():
    over = an_instance(state=InstanceDbState.VMM, active_propolis_id=VMM, updater_id=UUID(int=8))
    found = judge(Records(over, a_vmm(VmmDbState.FAILED)))
    found.finish(settled=True)
    assert numbers(found) == ["36", "34"]


def test_a_vmm_that_nobody_points_to_is_reaped():
    found = judge(Records(an_instance(), a_vmm(VmmDbState.DESTROYED)))
    found.finish(settled=True)
    assert numbers(found) == ["43"]
    reaped = judge(Records(an_instance(), a_vmm(VmmDbState.DESTROYED, time_deleted=3)))
    reaped.finish(settled=True)
    assert reaped.failures == []


def test_what_holds_only_at_rest_is_not_asked_before():
    found = judge(Records(an_instance(updater_id=UUID(int=8))))
    found.finish(settled=False)
    assert found.failures == []


def test_a_generation_is_written_once():
    row = an_instance()
    found = judge(Records(row))
    found.changed[WEB] = None
    found.nexus_moved()
    row.active_propolis_id = VMM
    found.changed[WEB] = None
    found.nexus_moved()
    assert numbers(found) == ["35"]
    for text in ("committed 5", "committed 5"):
        found.commit(WEB, text)
    assert numbers(found) == ["35", "35"]


def test_who_migrates_is_shown_migrating():
    moving = an_instance(state=InstanceDbState.VMM, migration_id=UUID(int=7), active_propolis_id=VMM)
    found = judge(Records(moving, a_vmm(VmmDbState.RUNNING)), public="running")
    found.changed[WEB] = None
    found.nexus_moved()
    assert numbers(found) == ["40"]


ZONE_GONE = """version: 1
nexus: {hazards: none}
fleet: {sleds: 1}
load:
- {at: 0s, create: {hostname: web}}
- {at: 40s, stop: {hostname: web}}
rules:
- {name: vanishes, for: {hostname: web}, when: {at: 20s}, do: {kill_propolis: {restart: false}}}
expect:
- always: [wishes_kept]
"""


def test_a_stop_that_is_refused_is_no_wish_that_was_broken():
    """Nobody notices that the zone is gone: the stop is answered 500, and its user knows (omicron#7563; NX 4.2)."""
    scenario, _ = parse_scenario(ZONE_GONE)
    result = play(scenario, 1)
    assert any("stop web: 500" in str(line) for line in result.lines)
    assert result.failures == ()


@in_one_test(
    ("story", "blamed"),
    [
        ([True], True),
        ([False], False),
        ([True, False], True),  # the second one was not needed
        ([True, "start", False], False),
        ([], True),  # it was made to be stopped
    ],
)
def test_what_runs_at_the_end_is_blamed_if_a_stop_was_accepted_since_its_user_wanted_it_to_run(story, blamed):
    row = an_instance(state=InstanceDbState.VMM, active_propolis_id=VMM, intended_state=IntendedState.STOPPED)
    one = judge(Records(row, a_vmm(VmmDbState.RUNNING, sled_id=SLED)), public=PublicState.RUNNING)
    one.world.nexus.public_state = lambda _: PublicState.RUNNING
    one.world.nexus.instances = lambda: [row]
    one.world.engine = SimpleNamespace(cast=SimpleNamespace(by_id={}))
    for each in story:
        if isinstance(each, bool):
            one.stop_answered(WEB, accepted=each)
        else:
            one.wished(WEB, each)
    one._wishes()
    assert bool(one.failures) is blamed


FORGOTTEN = """
version: 1
name: forgotten
fleet: {sleds: 2}
load: [{at: 0s, create: {hostname: web}}]
rules: [{name: agent-forgets, for: {sled: sled-1}, when: {at: 30s}, do: {restart_agent: {down: 1s, keep_vmms: 0%}}}]
expect: [{always: [no_leaks]}]
"""


def test_nexus_does_not_believe_for_ever_in_a_vmm_that_its_sled_has_forgotten():
    scenario, problems = parse_scenario(FORGOTTEN)
    assert scenario is not None, problems.text()
    assert play(scenario, 1).failures == ()
    [failure] = play(scenario, 1, How(variant="no-watcher")).failures
    assert failure.key == "no_leaks"
    assert "web runs on sled-1, as Nexus has it, but that knows no such VMM" in failure.text


@pytest.mark.parametrize(("hazards", "key"), [("none", None), ("[reservation_lags]", "nexus_properties/38")])
def test_whose_room_is_not_given_back_yet_is_not_shown_as_stopped(hazards, key):
    text = f"""
version: 1
name: lags
nexus: {{hazards: {hazards}}}
load: [{{at: 0s, create: {{hostname: web}}}}, {{at: 30s, stop: {{}}}}]
"""
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    assert [failure.key for failure in play(scenario, 1).failures][:1] == ([] if key is None else [key])
