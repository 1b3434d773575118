"""rules.py: which transitions Nexus may request (SA 2.3)."""

import pytest
from support.rows import in_one_test

from nexus_client.types import Asked, VmmState
from sim_sled.core.rules import RULES, Verdict, refusal

_A, _S, _V = Asked, VmmState, Verdict


@in_one_test(
    ("asked", "resting", "verdict"),
    [
        pytest.param(_A.RUNNING, _S.STARTING, _V.START, id="a fresh VMM is started"),
        pytest.param(_A.RUNNING, _S.RUNNING, _V.NO_OP, id="a second start is no news"),
        pytest.param(_A.RUNNING, _S.REBOOTING, _V.NO_OP, id="a rebooting VMM will run anyway"),
        pytest.param(_A.RUNNING, _S.MIGRATING, _V.NO_OP, id="a target starts by itself"),
        pytest.param(_A.RUNNING, _S.STOPPING, _V.REFUSE, id="a stopping VMM is never revived"),
        pytest.param(_A.RUNNING, _S.STOPPED, _V.REFUSE, id="a stopped VMM is never revived"),
        pytest.param(_A.RUNNING, _S.FAILED, _V.REFUSE, id="a failed VMM is never revived"),
        pytest.param(_A.RUNNING, _S.DESTROYED, _V.REFUSE, id="a destroyed VMM is never revived"),
        pytest.param(_A.STOPPED, _S.STARTING, _V.DESTROY_NOW, id="what never ran is destroyed at once"),
        pytest.param(_A.STOPPED, _S.RUNNING, _V.STOP, id="a running VMM is stopped"),
        pytest.param(_A.STOPPED, _S.REBOOTING, _V.REFUSE, id="rebooting is no place to rest, so no stop"),
        pytest.param(_A.STOPPED, _S.MIGRATING, _V.REFUSE, id="a target without a Propolis cannot be stopped"),
        pytest.param(_A.STOPPED, _S.STOPPING, _V.NO_OP, id="a second stop is no news"),
        pytest.param(_A.STOPPED, _S.STOPPED, _V.NO_OP, id="a stopped VMM is stopped"),
        pytest.param(_A.STOPPED, _S.FAILED, _V.REFUSE, id="a failed VMM cannot be stopped"),
        pytest.param(_A.STOPPED, _S.DESTROYED, _V.NO_OP, id="a destroyed VMM is stopped enough"),
        pytest.param(_A.REBOOT, _S.STARTING, _V.REFUSE, id="what has not run cannot reboot"),
        pytest.param(_A.REBOOT, _S.RUNNING, _V.REBOOT, id="a running VMM is rebooted"),
        pytest.param(_A.REBOOT, _S.REBOOTING, _V.REFUSE, id="rebooting is no place to rest, so no reboot"),
        pytest.param(_A.REBOOT, _S.MIGRATING, _V.REFUSE, id="a waiting target cannot reboot"),
        pytest.param(_A.REBOOT, _S.STOPPING, _V.REFUSE, id="no reboot once a stop waits"),
        pytest.param(_A.REBOOT, _S.STOPPED, _V.REFUSE, id="no reboot of a stopped VMM"),
        pytest.param(_A.REBOOT, _S.FAILED, _V.REFUSE, id="no reboot of a failed VMM"),
        pytest.param(_A.REBOOT, _S.DESTROYED, _V.REFUSE, id="no reboot of a destroyed VMM"),
        pytest.param(_A.MIGRATION_TARGET, _S.STARTING, _V.REFUSE, id="registered to start, not to migrate in"),
        pytest.param(_A.MIGRATION_TARGET, _S.RUNNING, _V.REFUSE, id="a migration in is asked for once"),
        pytest.param(_A.MIGRATION_TARGET, _S.REBOOTING, _V.REFUSE, id="a rebooting VMM is no target"),
        pytest.param(_A.MIGRATION_TARGET, _S.MIGRATING, _V.MIGRATE_IN, id="a waiting target migrates in"),
        pytest.param(_A.MIGRATION_TARGET, _S.STOPPING, _V.REFUSE, id="a stopping VMM is no target"),
        pytest.param(_A.MIGRATION_TARGET, _S.STOPPED, _V.REFUSE, id="a stopped VMM is no target"),
        pytest.param(_A.MIGRATION_TARGET, _S.FAILED, _V.REFUSE, id="a failed VMM is no target"),
        pytest.param(_A.MIGRATION_TARGET, _S.DESTROYED, _V.REFUSE, id="a destroyed VMM is no target"),
    ],
)
def test_verdict(asked, resting, verdict):
    assert RULES[asked, resting] is verdict


def test_every_cell_is_written_down():
    assert set(RULES) == {(asked, resting) for asked in Asked for resting in VmmState}
    assert len(RULES) == 32


_TABLE = """
    starting    enqueue  destroyed  400
    running     no-op    enqueue    enqueue
    rebooting   no-op    400        400
    migrating   no-op    400        400
    stopping    400      no-op      400
    stopped     400      no-op      400
    failed      400      400        400
    destroyed   400      no-op      400
"""
"""SA 2.3: resting state, then the answers to running, stopped, reboot. The reboot row's "no-op while
one is queued" is about the published state and the queue, which no rule can see: test_vmm.py has it.
"""

_WORD = {
    Verdict.START: "enqueue",
    Verdict.STOP: "enqueue",
    Verdict.REBOOT: "enqueue",
    Verdict.DESTROY_NOW: "destroyed",
    Verdict.NO_OP: "no-op",
    Verdict.REFUSE: "400",
}


def test_the_table_is_the_one_of_the_specification():
    for row in _TABLE.strip().splitlines():
        resting, *words = row.split()
        ours = [_WORD[RULES[asked, VmmState(resting)]] for asked in (_A.RUNNING, _A.STOPPED, _A.REBOOT)]
        assert ours == words, resting
    # "published state is not `migrating`: 400; queue not empty: 400" (there the resting state is running)
    assert {resting for resting in VmmState if RULES[_A.MIGRATION_TARGET, resting] is not _V.REFUSE} == {_S.MIGRATING}


def test_a_refusal_names_what_was_asked_where_it_rests_and_what_is_published_in_the_originals_words():
    for asked, resting, published, told in (
        (_A.REBOOT, _S.DESTROYED, _S.STOPPING, "can't request Reboot with pending resting state Destroyed"),
        (_A.RUNNING, _S.DESTROYED, _S.STOPPING, "can't request state Running with pending resting state Destroyed"),
        (_A.STOPPED, _S.FAILED, _S.FAILED, "can't request state Stopped with pending resting state Failed"),
        (_A.MIGRATION_TARGET, _S.RUNNING, _S.MIGRATING,
         "can't request migration in with a non-empty state\n                        transition queue"),
        (_A.MIGRATION_TARGET, _S.RUNNING, _S.RUNNING,
         "can't request migration in for a vmm that wasn't created in the migrating state"),
    ):  # fmt: skip
        assert refusal(asked, resting, published) == f"{told} (current state: {published.value})"
