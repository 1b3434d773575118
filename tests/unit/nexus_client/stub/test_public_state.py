"""The table of NX 2, every cell."""

import pytest
from support.rows import in_one_test

from nexus_client.stub.public_state import ImpossibleRecord, PublicState, public_state
from nexus_client.stub.records import InstanceDbState, VmmDbState
from nexus_client.stub.rules import RuleSet

COLUMNS = [RuleSet.R5854, RuleSet.R5855, RuleSet.R5749, RuleSet.R6455, RuleSet.HEAD]

# rows 2 to 11: the active VMM of an instance in state Vmm without migration
BY_VMM = """
creating      -         -         -         starting  starting
starting      starting  starting  starting  starting  starting
running       running   running   running   running   running
stopping      stopping  stopping  stopping  stopping  stopping
stopped       stopped   stopped   stopping  stopping  stopping
rebooting     rebooting rebooting rebooting rebooting rebooting
migrating     migrating migrating migrating migrating migrating
destroyed     destroyed destroyed stopping  stopping  stopping
failed        failed    failed    failed    stopping  stopping
saga_unwound  -         stopped   stopped   stopped   failed
"""
# rows 13 to 16: the same in every rule set, whatever hangs behind the record
BY_RECORD = {"no_vmm": "stopped", "creating": "creating", "failed": "failed", "destroyed": "destroyed"}


def cells():
    for line in BY_VMM.strip().splitlines():
        vmm, *shown = line.split()
        for rules, public in zip(COLUMNS, shown, strict=True):
            yield pytest.param(rules, vmm, public, id=f"{rules.value}: a VMM {vmm} shows as {public}")


@in_one_test(("rules", "vmm", "public"), list(cells()))
def test_state_of_an_instance_with_a_vmm(rules, vmm, public):
    def show(*, migrating):
        return public_state(rules, InstanceDbState.VMM, VmmDbState(vmm), migrating=migrating).value

    if public == "-":
        with pytest.raises(ImpossibleRecord):
            show(migrating=False)
    else:
        assert show(migrating=False) == public
    # row 1: a migration hides the VMM from #5749 on; before, the VMM's own name shows
    if rules in (RuleSet.R5749, RuleSet.R6455, RuleSet.HEAD):
        assert show(migrating=True) == "migrating"
    elif public != "-":
        assert show(migrating=True) == public


@in_one_test("rules", COLUMNS)
@in_one_test("migrating", [False, True])
def test_state_of_an_instance_whose_vmm_is_missing(rules, migrating):
    shown = public_state(rules, InstanceDbState.VMM, None, migrating=migrating).value
    assert shown == ("stopped" if rules is RuleSet.HEAD else "running")


@in_one_test("rules", COLUMNS)
@in_one_test(("record", "public"), list(BY_RECORD.items()))
def test_state_of_an_instance_without_a_vmm(rules, record, public):
    for vmm in (None, *VmmDbState):
        for migrating in (False, True):
            assert public_state(rules, InstanceDbState(record), vmm, migrating=migrating).value == public


def test_repairing_is_never_shown():
    shown = set()
    for rules in RuleSet:
        for record in InstanceDbState:
            for vmm in (None, *VmmDbState):
                for migrating in (False, True):
                    try:
                        shown.add(public_state(rules, record, vmm, migrating=migrating))
                    except ImpossibleRecord:
                        continue
    assert shown == set(PublicState) - {PublicState.REPAIRING}
