"""May a failed instance come back by itself (NX 2)? Two questions, as in the original: does it need to, and may it.

Read before: stub/records.py. Read next: stub/behaviour.py.
"""

from __future__ import annotations

import attrs

from nexus_client.stub.records import AutoRestartPolicy, Instance, InstanceDbState, IntendedState, Vmm, VmmDbState


@attrs.frozen
class May:
    """`never`: the policy forbids it. `waits_us`: the rest of the cooldown, at most 0 if it is over."""

    never: bool
    waits_us: int

    @property
    def now(self) -> bool:
        return not self.never and self.waits_us <= 0


def needs_restart(instance: Instance, active: Vmm | None) -> bool:
    """It has failed, and its user wants it to run. A Failed VMM that is still linked must be unlinked first."""
    failed = instance.state is InstanceDbState.FAILED and instance.active_propolis_id is None
    unwound = active is not None and active.state is VmmDbState.SAGA_UNWOUND
    return (failed or unwound) and instance.intended_state is IntendedState.RUNNING


def may_restart(instance: Instance, cooldown_us: int, now_us: int) -> May:
    """What policy and cooldown say; `cooldown_us` is the default, the instance's own wins."""
    ends_us = cooldown_ends_us(instance, cooldown_us)
    waits_us = 0 if ends_us is None else ends_us - now_us
    return May(instance.auto_restart_policy is AutoRestartPolicy.NEVER, waits_us)


def cooldown_ends_us(instance: Instance, cooldown_us: int) -> int | None:
    """When the next restart may come; None: there was none yet."""
    last, own = instance.time_last_auto_restarted, instance.auto_restart_cooldown_us
    return None if last is None else last + (cooldown_us if own is None else own)
