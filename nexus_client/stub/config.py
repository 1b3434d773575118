"""How the Nexus model is set up. All times in microseconds.

Read next: stub/hazards.py.
"""

from __future__ import annotations

from typing import Final

import attrs

from nexus_client.dropshot.identity import IdentityEnum
from nexus_client.stub.hazards import DEFAULT as DEFAULT_HAZARDS
from nexus_client.stub.hazards import Hazard
from nexus_client.stub.rules import RuleSet

SECOND_US: Final = 1_000_000
TIMELINE_MAX: Final = 2_000
"""Lines kept per instance: a week of daily start and stop; the oldest go first and are counted."""


class SagaMode(IdentityEnum):
    """When sagas run: the intermediate public states show in the last two."""

    INLINE = "inline"
    """Every node at once; a report's update saga has ended when `handle` returns (but the answer never waits for
    it).
    """
    QUEUED = "queued"
    """One node per `saga_node_us`, so that reports and actions can come between any two nodes."""
    BACKGROUND = "background"
    """As inline, but reports start no update saga: only the `instance_updater` task does."""


class UnknownVmm(IdentityEnum):
    """What a report for a VMM without record does."""

    RULES = "rules"
    """As the rule set says: 500 (which a sled repeats for ever), 204 at #5854 and #5855."""
    IGNORE = "ignore"
    """204, nothing written."""
    ADOPT = "adopt"
    """Make an instance and a VMM record of it, for VMMs which somebody registered by hand. Not in the original."""


@attrs.frozen
class Config:
    """`None` as a period: this task runs only when woken.

    loopback_net, loopback_port: a sled on a loopback address gets its Propolis addresses as 127.NET.x.y:PORT, counted
    up, because all of 127/8 can be bound on one host; other sleds get addresses of their own /64 and port 12400.
    """

    rules: RuleSet = RuleSet.HEAD
    variant: str | None = None
    hazards: frozenset[Hazard] = DEFAULT_HAZARDS
    """Which of the original's known wrongs are played (hazards.py)."""
    saga_mode: SagaMode = SagaMode.INLINE
    saga_node_us: int = 10_000
    wake_us: int = 10_000
    """From the wake-up of a background task to its run: the time in which `failed` shows before an auto-restart."""
    nodes_twice: bool = False
    """Run each saga node twice, as a crash after any of them would: a proof of idempotence."""
    unknown_vmm: UnknownVmm = UnknownVmm.RULES
    collect_inventory: bool = False
    """Ask a sled for its inventory when it registers anew or changes."""
    watcher_period_us: int | None = 30 * SECOND_US
    updater_period_us: int | None = 30 * SECOND_US
    reaper_period_us: int | None = 60 * SECOND_US
    reincarnation_period_us: int | None = 60 * SECOND_US
    watcher_checks_max: int = 16
    reincarnation_max: int = 16
    cooldown_us: int = 300 * SECOND_US
    """Default auto-restart cooldown: 5 minutes since #9097, 1 hour before."""
    loopback_net: int = 64
    loopback_port: int = 12400
    internal_dns: tuple[str, ...] = ("1.1.1.1", "9.9.9.9")
