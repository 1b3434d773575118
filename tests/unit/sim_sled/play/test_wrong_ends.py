"""Two wrongs that only the records show: an instance whose VMM failed and that ends as stopped, and one that is
deleted while its guest runs.
"""

from sim_sled.language.check import parse_scenario
from sim_sled.play.run import How, play

FAILS = """
version: 1
fleet: {sleds: 1}
load: [{at: 0s, create: {hostname: web}}]
rules: [{name: dies, when: {at: 30s}, for: {hostname: web}, do: {kill_propolis: {restart: true}}}]
"""
DELETED = """
version: 1
fleet: {sleds: 1}
load: [{at: 0s, create: {hostname: web}}, {at: 30s, delete: {hostname: web}}]
expect: [{always: no_leaks}]
"""


def failures(text, variant=None):
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    return {failure.key: failure.text for failure in play(scenario, 1, How(variant=variant)).failures}


def test_a_failed_vmm_leaves_a_failed_instance():
    assert failures(FAILS) == {}
    found = failures(FAILS, "failed-is-stopped")
    assert "web: its VMM is failed, but the instance no_vmm, not failed" in found["nexus_properties/37"]


def test_nobody_runs_whose_instance_is_deleted():
    assert failures(DELETED) == {}
    assert "web runs on sled-1, but the instance is deleted" in failures(DELETED, "deletes-running")["no_leaks"]
