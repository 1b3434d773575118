"""The data migration from the shared enum (NX 1.4)."""

import json

import pytest
from support.rows import in_one_test

from nexus_client.stub.migrate_records import OLD_STATES, MigrationError, migrate, new_instance_state

VMM = "5d8e25f4-6a0e-4d52-9c0c-0b1c2e1a9b01"


def instance(state, vmm=None):
    return {"id": "i", "name": "kept", "state": state, "active_propolis_id": vmm}


def run(*instances, vmms=()):
    return json.loads(migrate(json.dumps({"instances": instances, "vmms": list(vmms)}).encode()))


# the upstream test's rows come first
CASES = [
    ("stopped", None, "no_vmm"),
    ("running", VMM, "vmm"),
    ("failed", None, "failed"),
    ("creating", None, "creating"),
    ("destroyed", None, "destroyed"),
    *[(state, VMM, "vmm") for state in ("starting", "stopping", "stopped", "rebooting", "migrating", "repairing")],
    *[
        (state, None, "no_vmm")
        for state in ("starting", "running", "stopping", "rebooting", "migrating", "repairing")
    ],
]


@in_one_test(("old", "vmm", "new"), CASES)
def test_instances(old, vmm, new):
    out = run(instance(old, vmm))
    assert out["instances"] == [instance(new, vmm)]
    assert run(*out["instances"]) == out, "idempotent"


def test_every_old_state_has_a_new_one():
    for old in OLD_STATES:
        for has_vmm in (True, False):
            new_instance_state(old, has_vmm=has_vmm)


def test_vmms_keep_their_text():
    vmms = [{"id": VMM, "state": state} for state in sorted(OLD_STATES - {"creating", "repairing"})]
    assert run(vmms=vmms)["vmms"] == vmms


def test_all_problems_are_told_at_once_and_nothing_is_written():
    with pytest.raises(MigrationError) as error:
        run(
            instance("failed", VMM),
            instance("stopped"),
            instance("nonsense"),
            instance("creating", VMM),
            vmms=[{"id": VMM, "state": "repairing"}, {"id": VMM, "state": "creating"}, {"id": VMM}],
        )
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 6
    assert "instances[0] i: state failed breaks vmm_iff_active_propolis" in text
    assert "instances[2] i: 'nonsense' is no state of an instance" in text
    assert "vmms[0]" in text
    assert "'repairing' cannot be cast" in text


@in_one_test("raw", [b"", b"[]", b'{"instances": 1}', b'{"instances": [1]}'])
def test_no_rows_is_a_problem_too(raw):
    with pytest.raises(MigrationError):
        migrate(raw)
