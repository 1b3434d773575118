"""Which transitions Nexus may request: one total table (SA 2.3).

Rule 1: a request is judged by the *resting* state: where the VMM will be once everything accepted is done.
Rule 2: every one of the 4 x 8 cells is written down; `tests/unit/sim_sled/core/test_rules.py` counts them.
Rule 3: what passes here may still be denied by the Propolis queue (`PropolisRefused`, PR 3.9).

Read before: core/contract.py. Read next: core/observe.py, core/vmm.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from nexus_client.types import Asked, VmmState


class Verdict(Enum):
    """What the sled does with a request."""

    START = "start"  # hand Run to a fresh Propolis
    STOP = "stop"  # hand Stop to Propolis; publish `stopping` at once
    REBOOT = "reboot"  # hand Reboot to Propolis; publish `rebooting` at once
    MIGRATE_IN = "migrate in"  # make a Propolis that pulls its state from the source
    DESTROY_NOW = "destroy now"  # no Propolis yet: nothing else would ever report for this VMM
    NO_OP = "no-op"  # already so, or on its way: Nexus's sagas may be replayed and must find the same answer
    REFUSE = "refuse"  # 400 InvalidRequest, nothing changes


_A, _S, _V = Asked, VmmState, Verdict

RULES: Final[Mapping[tuple[Asked, VmmState], Verdict]] = {
    (_A.RUNNING, _S.STARTING): _V.START,
    (_A.RUNNING, _S.RUNNING): _V.NO_OP,
    (_A.RUNNING, _S.REBOOTING): _V.NO_OP,
    (_A.RUNNING, _S.MIGRATING): _V.NO_OP,  # a target starts by itself once its state has arrived
    (_A.RUNNING, _S.STOPPING): _V.REFUSE,  # Propolis cannot leave a stopped state; make a new VMM
    (_A.RUNNING, _S.STOPPED): _V.REFUSE,
    (_A.RUNNING, _S.FAILED): _V.REFUSE,
    (_A.RUNNING, _S.DESTROYED): _V.REFUSE,
    (_A.STOPPED, _S.STARTING): _V.DESTROY_NOW,
    (_A.STOPPED, _S.RUNNING): _V.STOP,
    (_A.STOPPED, _S.REBOOTING): _V.REFUSE,  # never a resting state: a reboot rests in running
    (_A.STOPPED, _S.MIGRATING): _V.REFUSE,  # a target that was never told to migrate has no Propolis to stop
    (_A.STOPPED, _S.STOPPING): _V.NO_OP,
    (_A.STOPPED, _S.STOPPED): _V.NO_OP,
    (_A.STOPPED, _S.FAILED): _V.REFUSE,
    (_A.STOPPED, _S.DESTROYED): _V.NO_OP,
    (_A.REBOOT, _S.STARTING): _V.REFUSE,
    (_A.REBOOT, _S.RUNNING): _V.REBOOT,
    (_A.REBOOT, _S.REBOOTING): _V.REFUSE,
    (_A.REBOOT, _S.MIGRATING): _V.REFUSE,
    (_A.REBOOT, _S.STOPPING): _V.REFUSE,
    (_A.REBOOT, _S.STOPPED): _V.REFUSE,
    (_A.REBOOT, _S.FAILED): _V.REFUSE,
    (_A.REBOOT, _S.DESTROYED): _V.REFUSE,
    (_A.MIGRATION_TARGET, _S.STARTING): _V.REFUSE,  # registered as something else than a target
    (_A.MIGRATION_TARGET, _S.RUNNING): _V.REFUSE,  # also: the queue already holds the migration
    (_A.MIGRATION_TARGET, _S.REBOOTING): _V.REFUSE,
    (_A.MIGRATION_TARGET, _S.MIGRATING): _V.MIGRATE_IN,
    (_A.MIGRATION_TARGET, _S.STOPPING): _V.REFUSE,
    (_A.MIGRATION_TARGET, _S.STOPPED): _V.REFUSE,
    (_A.MIGRATION_TARGET, _S.FAILED): _V.REFUSE,
    (_A.MIGRATION_TARGET, _S.DESTROYED): _V.REFUSE,
}


def refusal(asked: Asked, resting: VmmState, published: VmmState) -> str:
    """The text of a 400: what was asked, where the VMM rests, what it publishes now (SA 2.3).

    In the words of the original, with its line break and its 24 blanks.
    """
    current = f"(current state: {published.value})"
    if asked is Asked.MIGRATION_TARGET and resting is not published:
        return f"can't request migration in with a non-empty state\n{'':24}transition queue {current}"
    if asked is Asked.MIGRATION_TARGET:
        return f"can't request migration in for a vmm that wasn't created in the migrating state {current}"
    what = "Reboot" if asked is Asked.REBOOT else f"state {asked.value.capitalize()}"
    return f"can't request {what} with pending resting state {resting.value.capitalize()} {current}"
