"""Properties 29 to 50 hold after every step of the right model, and each wrong variant breaks some of them."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from support.nexus.machine import machine
from support.profile import by_profile

from nexus_client.stub.properties import NAMES, PropertyBroken
from nexus_client.stub.records import InvariantBroken
from nexus_client.stub.variants import VARIANTS

TestNexus = machine().TestCase
TestNexus.settings = settings(
    max_examples=by_profile(30, nightly=settings.default.max_examples), stateful_step_count=40
)


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_wrong_variant_breaks_a_property_in_a_bounded_search(variant):
    """Generation only: the shrunk programs are kept in test_nexus_variants.py."""
    bounded = settings(
        # the rarest needs some hundred programs now and then; a search that finds ends at once, so the room is free
        max_examples=10_000,
        stateful_step_count=40,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
        report_multiple_bugs=False,
    )
    with pytest.raises((PropertyBroken, InvariantBroken)) as broken:
        run_state_machine_as_test(machine(variant), settings=bounded)
    # which one falls first depends on the program; that each variant breaks its own is shown by the kept programs
    assert broken.value.prop in NAMES
