"""The six rule sets of NX: how Nexus behaved right after five pull requests, and at HEAD.

A rule set changes the public states (public_state.py) and, where NX documents it, ingest, actions, the update saga,
sizes, IP and console rules. The wire is HEAD's in all of them: `PUT /vmms/{propolis_id}` did not exist before #6429,
and before #5749 the sled sent the instance record too. So for the two oldest sets this model unlinks a VMM by #5749's
saga.

Read next: stub/sizes.py.
"""

from __future__ import annotations

from typing import Final

import attrs

from nexus_client.dropshot.identity import IdentityEnum


class RuleSet(IdentityEnum):
    R5854 = "5854"
    R5855 = "5855"
    R5749 = "5749"
    R6455 = "6455"
    HEAD = "head"
    R11294 = "11294"
    """HEAD and the one later pull request that lets an unwinding saga overwrite a Failed VMM."""


@attrs.frozen
class Rules:
    """What a rule set does differently; the field names say what is true from which pull request on."""

    name: RuleSet
    unknown_vmm_is_error: bool = True
    """A report for a VMM without record: 500 (else 204: the row is simply not updated)."""
    failed_is_terminal: bool = True
    """A Failed VMM starts an update saga and is unlinked by it (#6455)."""
    has_creating_vmm: bool = True
    """A VMM record begins as Creating, so the first generation on the wire is 2 (#6455)."""
    has_saga_unwound: bool = True
    """(#5855)"""
    start_looks_at_vmm: bool = False
    """The start precheck of before #6278."""
    failed_can_start: bool = True
    """An instance that is Failed without a VMM may start (not at #5749)."""
    names_public_state: bool = True
    """Console and IP messages name the public state; before #6455 the record's or the VMM's."""
    watcher_fails_vmms: bool = True
    """(#6455; for expunged sleds #6519)"""
    failed_can_stop: bool = True
    """(#6652)"""
    reason_needs_failed: bool = True
    """A failure reason stands on a Failed VMM only (`failure_reason_iff_failed`); #11294 keeps it afterwards."""
    vcpus_max: int = 254
    """(#9385)"""
    memory_gib_max: int = 1536
    head: bool = True
    """Everything later: intended state, failure reasons, reincarnation, reservation swap."""

    @property
    def first_gen(self) -> int:
        """Generation in a register body, and so the first one a sled may report."""
        return 2 if self.has_creating_vmm else 1


_HEAD: Final = Rules(RuleSet.HEAD)
_6455: Final = attrs.evolve(
    _HEAD, name=RuleSet.R6455, failed_can_stop=False, vcpus_max=64, memory_gib_max=256, head=False
)
_5749: Final = attrs.evolve(
    _6455,
    name=RuleSet.R5749,
    failed_is_terminal=False,
    has_creating_vmm=False,
    failed_can_start=False,
    names_public_state=False,
    watcher_fails_vmms=False,
)
_5855: Final = attrs.evolve(
    _5749, name=RuleSet.R5855, unknown_vmm_is_error=False, start_looks_at_vmm=True, failed_can_start=True
)
RULES: Final = {
    rules.name: rules
    for rules in (
        attrs.evolve(_5855, name=RuleSet.R5854, has_saga_unwound=False),
        _5855,
        _5749,
        _6455,
        _HEAD,
        attrs.evolve(_HEAD, name=RuleSet.R11294, reason_needs_failed=False),
    )
}
"""Each set is the next later one and its differences."""
