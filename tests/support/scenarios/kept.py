"""Scenarios of the library, each read and checked once in a process that has many tests of it."""

from functools import cache

from sim_sled.language.schema import Scenario
from sim_sled.play import library


@cache
def of_library(name: str) -> Scenario:
    """AssertionError with what is wrong, if there is none or it is not valid."""
    [loaded], problems = library.load([name])
    assert loaded.scenario is not None, problems.text()
    return loaded.scenario
