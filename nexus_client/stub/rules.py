"""The five rule sets of NX: how Nexus behaved right after four pull requests, and at HEAD.

A rule set changes the public states (public_state.py) and, where NX documents it, ingest, actions, the update
saga, IP and console rules. The wire is HEAD's in all of them: `PUT /vmms/{propolis_id}` did not exist before #6429,
and
before #5749 the sled sent the instance record too. So for the two oldest sets this model unlinks a VMM by #5749's
saga.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs


class RuleSet(Enum):
    R5854 = "5854"
    R5855 = "5855"
    R5749 = "5749"
    R6455 = "6455"
    HEAD = "head"


@attrs.frozen
class Rules:
    """What a rule set does differently; the field names say what is true from which pull request on."""

    name: RuleSet
    unknown_vmm_is_error: bool
    """A report for a VMM without record: 500 (else 204: the row is simply not updated)."""
    failed_is_terminal: bool
    """A Failed VMM starts an update saga and is unlinked by it (#6455)."""
    has_creating_vmm: bool
    """A VMM record begins as Creating, so the first generation on the wire is 2 (#6455)."""
    has_saga_unwound: bool
    """(#5855)"""
    start_looks_at_vmm: bool
    """The start precheck of before #6278."""
    watcher_fails_vmms: bool
    """(#6455; for expunged sleds #6519)"""
    failed_can_stop: bool
    """(#6652)"""
    head: bool
    """Everything later: intended state, failure reasons, reincarnation, reservation swap."""

    @property
    def first_gen(self) -> int:
        """Generation in a register body, and so the first one a sled may report."""
        return 2 if self.has_creating_vmm else 1


RULES: Final = {
    RuleSet.R5854: Rules(
        RuleSet.R5854,
        unknown_vmm_is_error=False,
        failed_is_terminal=False,
        has_creating_vmm=False,
        has_saga_unwound=False,
        start_looks_at_vmm=True,
        watcher_fails_vmms=False,
        failed_can_stop=False,
        head=False,
    ),
    RuleSet.R5855: Rules(
        RuleSet.R5855,
        unknown_vmm_is_error=False,
        failed_is_terminal=False,
        has_creating_vmm=False,
        has_saga_unwound=True,
        start_looks_at_vmm=True,
        watcher_fails_vmms=False,
        failed_can_stop=False,
        head=False,
    ),
    RuleSet.R5749: Rules(
        RuleSet.R5749,
        unknown_vmm_is_error=True,
        failed_is_terminal=False,
        has_creating_vmm=False,
        has_saga_unwound=True,
        start_looks_at_vmm=False,
        watcher_fails_vmms=False,
        failed_can_stop=False,
        head=False,
    ),
    RuleSet.R6455: Rules(
        RuleSet.R6455,
        unknown_vmm_is_error=True,
        failed_is_terminal=True,
        has_creating_vmm=True,
        has_saga_unwound=True,
        start_looks_at_vmm=False,
        watcher_fails_vmms=True,
        failed_can_stop=False,
        head=False,
    ),
    RuleSet.HEAD: Rules(
        RuleSet.HEAD,
        unknown_vmm_is_error=True,
        failed_is_terminal=True,
        has_creating_vmm=True,
        has_saga_unwound=True,
        start_looks_at_vmm=False,
        watcher_fails_vmms=True,
        failed_can_stop=True,
        head=True,
    ),
}
