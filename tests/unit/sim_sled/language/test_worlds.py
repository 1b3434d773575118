"""What only one world can do is a list, and whoever checks or runs a scenario that uses it is told."""

import json

import pytest
from support.command import CliRunner
from support.rows import in_one_test

from sim_sled.cli.main import app
from sim_sled.language.check import parse_scenario
from sim_sled.language.worlds import ONLY, notes

HEAD = "version: 1\nname: x\nseed: 1\nload: [{at: 0s, create: {hostname: web}}]\nrules:\n"
RULES = {
    "set_state": "- {name: r, when: {response: vmm_register}, do: {set_state: failed}}\n",
    "restart_nexus": "- {name: r, when: {at: 5s}, do: [{note: x}, {restart_nexus: {down: 1s}}]}\n",
    "expunge_sled": "- {name: r, for: {sled: sled-1}, when: {at: 5s}, do: {expunge_sled: true}}\n",
    "power_off_sled": "- {name: r, for: {sled: sled-1}, when: {at: 5s}, do: {power_off_sled: {lasts: 1s}}}\n",
}
PLAIN = (
    "- {name: r, when: {state: running}, do: {set_state: failed}}\n",  # only under `response` is it a race
    "- {name: r, for: {sled: sled-1}, when: {at: 5s}, do: {reboot_sled: {down: 1s}}}\n",
)


def notes_of(rules):
    scenario, problems = parse_scenario(HEAD + rules, "x.yaml")
    assert scenario is not None, problems.text()
    return notes(scenario)


def test_the_list_is_this_one():
    assert sorted(only.action.key for only in ONLY) == sorted(RULES)


@in_one_test("action", RULES)
def test_what_is_on_the_list_is_told_with_its_place(action):
    [note] = notes_of(RULES[action])
    assert note.startswith(f"x.yaml:6: note: '{action}' ")


@pytest.mark.parametrize("rules", PLAIN)
def test_what_is_not_on_it_is_not(rules):
    assert notes_of(rules) == []


def test_several_of_one_rule_are_told_one_by_one():
    both = "- {name: r, for: {sled: sled-1}, when: {at: 5s}, do: [{restart_nexus: {}}, {power_off_sled: {}}]}\n"
    assert len(notes_of(both)) == 2


def test_check_prints_it_and_run_says_it_beside_the_result(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + RULES["restart_nexus"])
    told = "x.yaml:6: note: 'restart_nexus' beside a Nexus of your own: that one is not restarted; the log says so\n"
    checked = CliRunner().invoke(app, ["check", str(path)])
    assert checked.exit_code == 0
    assert checked.stdout == told + "0 errors, 0 warnings\n"
    played = CliRunner().invoke(app, ["run", str(path)])
    assert played.exit_code == 0
    assert told in played.stderr
    assert "note:" not in played.stdout
    as_json = json.loads(CliRunner().invoke(app, ["check", str(path), "--json"]).stdout)
    assert as_json["files"][0]["notes"] == [told.rstrip()]
