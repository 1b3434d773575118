"""What tests of imports do with logs and with what comes of them."""

from sim_sled.incident.importing import import_logs
from sim_sled.language.check import parse_scenario

S = 1_000_000
"""Microseconds of a second."""


def scenario_of(imported):
    """What was written, read as `run` reads it."""
    scenario, problems = parse_scenario(imported.text)
    assert scenario is not None, problems.text()
    return scenario


def import_(tmp_path, *logs):
    """Logs of a test, saved and imported: what came of it, and its scenario."""
    paths = [log.save(tmp_path, f"{i}-{log.host}.log") for i, log in enumerate(logs)]
    imported = import_logs(paths, "test")
    return imported, scenario_of(imported)


def actions(scenario, kind):
    """Each action of a class, with its rule."""
    return [(rule, action) for rule in scenario.rules for action in rule.do if isinstance(action, kind)]


def only(scenario, kind):
    """The one action of a class, and its rule."""
    [(rule, action)] = actions(scenario, kind)
    return rule, action
