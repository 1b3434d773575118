"""observe.py: Propolis publication -> record, and who may move a generation (SA 2.5, 2.6)."""

from uuid import UUID

import pytest
import support.rack.strategies as our
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict
from support.rows import in_one_test

from nexus_client.types import (
    MIGRATION_TERMINAL,
    TERMINAL,
    MigrationRuntimeState,
    MigrationState,
    SledVmmState,
    VmmRuntimeState,
    VmmState,
    time_of,
)
from propolis_stub.errors import RepairingRejected
from propolis_stub.types import InstanceState, MigrationPhase, MigrationStatus
from sim_sled.core import observe

_P, _S, _M = InstanceState, VmmState, MigrationState
_T0, _T1 = 1_000, 2_000
_ID, _OTHER = UUID(int=1), UUID(int=2)


def _record(state=_S.RUNNING, gen=3, migration_in=None, migration_out=None):
    return SledVmmState(VmmRuntimeState(state, gen, time_of(_T0)), migration_in, migration_out)


def _side(state, gen, migration_id=_ID):
    return MigrationRuntimeState(migration_id, state, gen, time_of(_T0))


@in_one_test(
    ("seen", "published"),
    [
        pytest.param(_P.CREATING, _S.STARTING, id="creating is starting"),
        pytest.param(_P.STARTING, _S.STARTING, id="starting is starting"),
        pytest.param(_P.RUNNING, _S.RUNNING, id="running is running"),
        pytest.param(_P.STOPPING, _S.STOPPING, id="stopping is stopping"),
        pytest.param(_P.STOPPED, _S.STOPPING, id="stopped is still stopping: the VM's objects are there"),
        pytest.param(_P.REBOOTING, _S.REBOOTING, id="rebooting is rebooting"),
        pytest.param(_P.MIGRATING, _S.MIGRATING, id="migrating is migrating"),
        pytest.param(_P.FAILED, _S.FAILED, id="failed is failed"),
        pytest.param(_P.DESTROYED, _S.DESTROYED, id="destroyed is destroyed"),
    ],
)
def test_each_state_of_propolis_is_one_of_the_sled(seen, published):
    after = observe.observe(_record(), seen, None, None, _T1)
    assert after == SledVmmState(VmmRuntimeState(published, 4, time_of(_T1)))


def test_every_state_of_propolis_is_mapped_or_rejected():
    assert set(observe.VMM_STATE) == set(_P) - {_P.REPAIRING}
    assert _S.STOPPED not in observe.VMM_STATE.values(), "property 5: `stopped` is never published"


def test_repairing_is_rejected_and_the_record_stays():
    record = _record()
    before = asdict(record)
    with pytest.raises(RepairingRejected):
        observe.observe(record, _P.REPAIRING, MigrationStatus(_ID, MigrationPhase.SYNC), None, _T1)
    assert asdict(record) == before


@in_one_test(
    ("phase", "state"),
    [(MigrationPhase.ERROR, _M.FAILED), (MigrationPhase.FINISH, _M.COMPLETED)]
    + [(phase, _M.IN_PROGRESS) for phase in MigrationPhase if phase.name not in {"ERROR", "FINISH"}],
)
def test_each_phase_of_a_migration_is_one_of_three(phase, state):
    after = observe.observe(_record(), _P.MIGRATING, MigrationStatus(_ID, phase), None, _T1)
    assert after.migration_in.state is state


@in_one_test(
    ("known", "seen", "after"),
    [
        pytest.param(None, None, None, id="no news of no migration"),
        pytest.param(_side(_M.PENDING, 1), None, _side(_M.PENDING, 1), id="no news does not erase"),
        pytest.param(
            None,
            (_ID, MigrationPhase.SYNC),
            MigrationRuntimeState(_ID, _M.IN_PROGRESS, 2, time_of(_T1)),
            id="first seen at generation 2, because Nexus's own record has 1",
        ),
        pytest.param(
            _side(_M.PENDING, 1),
            (_ID, MigrationPhase.SYNC),
            MigrationRuntimeState(_ID, _M.IN_PROGRESS, 2, time_of(_T1)),
            id="a pending one moves on by one generation",
        ),
        pytest.param(
            _side(_M.IN_PROGRESS, 2),
            (_ID, MigrationPhase.RAM_PUSH),
            _side(_M.IN_PROGRESS, 2),
            id="the same state again is no news, neither generation nor time move",
        ),
        pytest.param(
            _side(_M.IN_PROGRESS, 2),
            (_ID, MigrationPhase.FINISH),
            MigrationRuntimeState(_ID, _M.COMPLETED, 3, time_of(_T1)),
            id="the end is a generation of its own",
        ),
        pytest.param(
            _side(_M.FAILED, 7),
            (_OTHER, MigrationPhase.SYNC),
            MigrationRuntimeState(_OTHER, _M.IN_PROGRESS, 2, time_of(_T1)),
            id="another migration replaces it and starts at 2",
        ),
    ],
)
@in_one_test("side", ["migration_in", "migration_out"])
def test_report_of_one_side(side, known, seen, after):
    status = None if seen is None else MigrationStatus(*seen)
    record = _record(**{side: known})
    reports = {"migration_in": None, "migration_out": None} | {side: status}
    got = observe.observe(record, _P.MIGRATING, reports["migration_in"], reports["migration_out"], _T1)
    assert getattr(got, side) == after
    other = "migration_out" if side == "migration_in" else "migration_in"
    assert getattr(got, other) is None


@in_one_test("end", [_S.FAILED, _S.DESTROYED])
@in_one_test(
    ("state", "after"),
    [
        (_M.PENDING, (_M.FAILED, 6)),
        (_M.IN_PROGRESS, (_M.FAILED, 6)),
        (_M.FAILED, (_M.FAILED, 5)),
        (_M.COMPLETED, (_M.COMPLETED, 5)),
    ],
)
def test_a_dead_vmm_has_no_unfinished_migration(end, state, after):
    record = _record(migration_in=_side(state, 5), migration_out=_side(state, 5, _OTHER))
    got = observe.transition(record, end, _T1)
    assert (got.vmm_state.state, got.vmm_state.gen) == (end, 4)
    for side in (got.migration_in, got.migration_out):
        assert (side.state, side.gen) == after
        assert side.time_updated == time_of(_T1 if after[1] == 6 else _T0)


def test_the_last_report_and_the_end_in_one_observation_count_one_after_the_other():
    """A destroyed VMM whose last phase was never seen before: reported, then failed with it."""
    record = _record(migration_out=_side(_M.IN_PROGRESS, 2))
    got = observe.observe(record, _P.DESTROYED, None, MigrationStatus(_OTHER, MigrationPhase.SYNC), _T1)
    assert (got.migration_out.migration_id, got.migration_out.state, got.migration_out.gen) == (_OTHER, _M.FAILED, 3)


@in_one_test("state", [each for each in _S if each not in TERMINAL])
def test_a_transition_of_the_sled_itself_leaves_migrations_alone(state):
    record = _record(migration_in=_side(_M.IN_PROGRESS, 2))
    got = observe.transition(record, state, _T1)
    assert got == SledVmmState(VmmRuntimeState(state, 4, time_of(_T1)), record.migration_in)


def test_registered_keeps_the_callers_runtime_and_makes_the_migration_pending():
    runtime = VmmRuntimeState(_S.MIGRATING, 17, time_of(_T0))
    assert observe.registered(runtime, None, _T1) == SledVmmState(runtime)
    record = observe.registered(runtime, _ID, _T1)
    assert record == SledVmmState(runtime, MigrationRuntimeState(_ID, _M.PENDING, 1, time_of(_T1)))


@given(
    seen=st.lists(
        st.tuples(
            st.sampled_from([state for state in _P if state is not _P.REPAIRING]),
            our.migration_reports,
            our.migration_reports,
        ),
        max_size=20,
    )
)
def test_any_sequence_of_observations_counts_one_by_one(seen):
    """The VMM generation by exactly 1 each; a migration's by at most 2 (reported, then failed with its VMM), and it
    never changes its state without a new generation.
    """
    record = observe.registered(VmmRuntimeState(_S.STARTING, 2, time_of(_T0)), None, _T0)
    for number, (state, seen_in, seen_out) in enumerate(seen, 1):
        before, record = record, observe.observe(record, state, seen_in, seen_out, _T0 + number)
        assert record.vmm_state.gen == 2 + number
        assert record.vmm_state.time_updated == time_of(_T0 + number)
        for was, now in (
            (before.migration_in, record.migration_in),
            (before.migration_out, record.migration_out),
        ):
            if now is None or was is None or now.migration_id != was.migration_id:
                continue
            assert was.gen <= now.gen <= was.gen + 2
            if now.gen == was.gen:
                assert now == was
            if record.vmm_state.state in TERMINAL:
                assert now.state in MIGRATION_TERMINAL
