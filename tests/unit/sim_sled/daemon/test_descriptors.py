"""How many open files a fleet needs, and what is said when the system allows fewer."""

import resource

import pytest

from nexus_client.senders import IN_FLIGHT_MAX
from sim_sled.daemon import descriptors


@pytest.fixture
def limits(monkeypatch):
    """A process with limits of our own: `limits["now"]` is (soft, hard)."""
    kept = {"now": (1_024, 4_096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _which: kept["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, new: kept.update(now=new))
    return kept


def test_the_soft_limit_is_raised_to_the_hard_one(limits):
    descriptors.allow(1)
    assert limits["now"] == (4_096, 4_096)


def test_a_fleet_that_just_fits_is_allowed(limits):
    descriptors.allow(4_096 - descriptors.RESERVED)


def test_a_fleet_that_does_not_fit_is_refused_with_both_figures(limits):
    with pytest.raises(descriptors.TooFewFiles, match=r"3,841 sleds need 4,097 open files.*may have 4,096"):
        descriptors.allow(4_097 - descriptors.RESERVED)


def test_without_a_limit_everything_is_allowed(limits):
    limits["now"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    descriptors.allow(1_000_000)
    assert limits["now"] == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert descriptors.connections_allowed(20_000) == IN_FLIGHT_MAX


def test_reports_in_flight_have_half_of_what_the_listeners_leave(limits):
    limits["now"] = (140, 140)
    assert descriptors.connections_allowed(100) == 20
    assert descriptors.connections_allowed(140) == 2  # even then something is told
    limits["now"] = (1_000_000, 1_000_000)
    assert descriptors.connections_allowed(10_000) == IN_FLIGHT_MAX
