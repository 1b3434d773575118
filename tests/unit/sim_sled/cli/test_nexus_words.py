"""The command has its own words for rule sets, saga modes and hazards, to start quickly; they are the model's."""

from nexus_client.stub.config import SagaMode, UnknownVmm
from nexus_client.stub.hazards import Hazard
from nexus_client.stub.rules import RuleSet
from sim_sled.cli.nexus import HazardName, Rules, SagaModeName, UnknownVmmName


def values(words):
    return [word.value for word in words]


def test_the_command_knows_every_word_of_the_model():
    assert values(Rules) == values(RuleSet)
    assert values(SagaModeName) == values(SagaMode)
    assert values(UnknownVmmName) == values(UnknownVmm)
    assert values(HazardName) == [*values(Hazard), "none"]
