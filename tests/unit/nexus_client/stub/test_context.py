"""context.py: ids that are derived, and when somebody in the model is due."""

from uuid import uuid5

from hypothesis import given
from hypothesis import strategies as st

from nexus_client.stub.context import NAMESPACE, derived_id


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_derived_id_is_that_of_rfc_4122(name):
    assert derived_id(name) == uuid5(NAMESPACE, name)
    assert derived_id(name).version == 5
