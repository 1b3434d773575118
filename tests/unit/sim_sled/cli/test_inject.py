"""`inject VMM FAULT [VALUE]`: names for what can go wrong, told as the control API takes it."""

import shlex

import pytest
import typer
from support.rows import in_one_test

from sim_sled.cli.asking import _fault
from sim_sled.daemon.doing import command_of, one_rule


@in_one_test(
    ("words", "body"),
    [
        (("failed",), {"state": "failed"}),
        (("chipset-halt",), {"guest": "chipset-halt"}),
        (("stall",), {"do": "stall: {}"}),
        (("stall", "30s"), {"do": "stall: 30s"}),
        (("hold",), {"do": "hold: {publish: '*'}"}),
        (("hold", "publish: running, lasts: 2s"), {"do": "hold: {publish: running, lasts: 2s}"}),
        (("migration",), {"do": "migration: failed"}),
        (('{"state": "failed", "illegal": true}',), {"state": "failed", "illegal": True}),
    ],
)
def test_a_fault_has_a_name(words, body):
    assert _fault(words[0], *(words[1:] or ("",))) == body


@pytest.mark.parametrize(
    "words", [("stal", ""), ("failed", "30s"), ("{", ""), ('{"state": "failed"}', "now"), ("drop", "")]
)
def test_what_is_none_is_bad_input(words, capsys):
    with pytest.raises(typer.Exit) as ended:
        _fault(*words)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err.startswith("sim-sled: ")


def test_the_nearest_name_is_told(capsys):
    with pytest.raises(typer.Exit):
        _fault("stal", "")
    assert "there is no 'stal' to inject (did you mean 'stall'?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("power_off_sled", "is done to a sled, not to a VMM: write a rule with `when: {manual: NAME}`"),
        ("drop", "is done to a request or a report, or to Nexus, not to a VMM: write a rule"),
    ],
)
def test_of_an_action_that_is_not_done_to_a_vmm_it_is_told_how_it_is_done(action, said, capsys):
    """The language has it, so it used to be no answer that there is none."""
    with pytest.raises(typer.Exit):
        _fault(action, "")
    assert f"'{action}' {said}" in capsys.readouterr().err


@in_one_test(
    "action", ["stall: forever", "hold: {publish: '*'}", "kill_propolis: {}", "forget_vmm: {}", "guest: halt"]
)
def test_an_action_is_a_rule_that_is_fired_by_hand(action):
    rule = one_rule("injected-1", "web", action)
    assert (rule.name, rule.when.manual, rule.for_.hostname) == ("injected-1", "injected-1", ("web",))
    assert [each.key for each in rule.do] == [action.partition(":")[0]]


@in_one_test(
    "action",
    ["stall: soon", "stal: 1s", "", "stall: 1s}\n- {name: more", "x" * 70_000, "note: \x00"],
    ids=["a bad value", "no action", "nothing", "more rules", "too long", "no text"],
)
def test_a_bad_action_is_refused_with_its_problem(action):
    with pytest.raises(ValueError, match=r"\w"):
        one_rule("injected-1", "web", action)


@pytest.mark.parametrize(
    ("action", "command"),
    [
        ("stall: 10s", "sim-sled inject web stall 10s"),
        ("kill_propolis: {}", "sim-sled inject web kill_propolis"),
        ("hold: {publish: '*'}", """sim-sled inject web hold "{publish: '*'}" """.strip()),
    ],
)
def test_the_command_that_did_it_is_one_that_does_it_again(action, command):
    """What `why` says of it can be pasted."""
    assert command_of("web", action) == command
    [_, _, who, *words] = shlex.split(command)
    again = _fault(words[0], words[1] if len(words) > 1 else "")["do"]
    assert one_rule("injected-1", who, again).do == one_rule("injected-1", "web", action).do


def test_several_actions_at_once_are_said_as_they_were_sent():
    action = "stall: 1s, note: 'a b'"
    [_, _, who, body] = shlex.split(command_of("web-1", "{" + action + "}"))
    assert (who, _fault(body, "")) == ("web-1", {"do": "{" + action + "}"})
