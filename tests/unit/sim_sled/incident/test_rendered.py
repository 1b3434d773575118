"""Records as they are printed for people say what they said (LG 1.5)."""

import json
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from support.incident.importing import scenario_of
from support.incident.printing import looker, node
from support.incident.writing import Log, uid
from support.rows import in_one_test

from sim_sled.incident.archives import Source
from sim_sled.incident.importing import import_logs
from sim_sled.incident.lines import Reading
from sim_sled.incident.reading import read_lines

LOGS = sorted((Path(__file__).parents[3] / "data" / "logs").glob("*.jsonl"))


def departures(imported):
    """The rules and what is expected, without their quotes: lines have other numbers."""
    rules = imported.text.partition("\nrules:")[2]
    return [line for line in rules.splitlines() if not line.lstrip().startswith("#")]


def printed(folder, path, form):
    lines = path.read_text().splitlines()
    target = folder / path.name
    target.write_text("\n".join(form(lines)))
    return str(target)


@pytest.mark.parametrize("incident", sorted({path.name.split(".")[0] for path in LOGS}))
def test_an_incident_is_the_same_incident_as_it_is_printed(tmp_path, incident):
    files = [path for path in LOGS if path.name.startswith(incident)]
    as_written = import_logs([str(path) for path in files], "x")
    for form in (looker, node):
        imported = import_logs([printed(tmp_path, path, form) for path in files], "x")
        assert (imported.differences, imported.failed) == ((), ()), form
        names, expected = ([rule.name for rule in scenario_of(each).rules] for each in (imported, as_written))
        assert names == expected, form
        if form is node:  # looker cuts times to milliseconds
            assert departures(imported) == departures(as_written)


def test_the_short_form_of_node_has_the_day_that_was_given_and_each_file_is_of_one_host(tmp_path):
    path = next(path for path in LOGS if "busy" in path.name)
    log = printed(tmp_path, path, lambda lines: node(lines, short=True))
    imported = import_logs([log], "x", date(2026, 8, 24))
    assert [rule.name for rule in scenario_of(imported).rules][:1] == ["jump-host-teardown-takes-63-91s"]
    assert "a form that names no hosts" in imported.summary


@in_one_test("short", [False, True])
@in_one_test(
    "fields",
    [
        {"key": "a b"},
        {"key": ""},
        {"a": "x=1, y=2)", "b": "(z)"},
        {"long": "x" * 60, "other": "y" * 60 + "\n    key: no key\nz"},
        {"nine": 9, "none": None, "yes": True, "state": "Some(MigrationRuntimeState { migration_id: x })"},
        {"quote": 'he said "no (a=b)" twice'},
        {"body": 'sent:{"a":1}', "below": 'sent:{"b":"' + "x" * 60 + '"}'},
    ],
)
@in_one_test("msg", ["plain", "with (brackets, a = b)", "two\nlines", "calls f(x) (y=z"])
def test_values_behind_and_below_a_message_are_its_fields(msg, fields, short):
    log = Log()
    log.line(1, msg, component="dropshot (SledAgent)", **fields)
    log.line(2, "next", component="InstanceManager", vmm=uid("vmm"))
    content = "\n".join(node(log.lines, short=short)).encode()
    first, second = read_lines(Source("x", lambda: BytesIO(content), 0), Reading(), date(2026, 8, 24))
    wanted = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
    assert (first.msg, first.program) == (msg, "sled-agent")
    assert {key: first.text(key) for key in fields} == wanted
    assert first.text("component") == "dropshot (SledAgent)"
    assert (second.msg, second.text("vmm"), second.host) == ("next", uid("vmm"), "x" if short else "BRM1")
