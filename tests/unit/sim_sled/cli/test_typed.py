"""Options that would be ignored beside others: refused before anything begins, by the rules that a command has."""

import itertools
import json
from enum import Enum
from typing import get_args
from uuid import UUID

import pytest
from support.command import PROGRAMS, CliRunner, everybody
from support.rows import in_one_test

from nexus_client.dropshot.command_line import Alone, Idle, Needs, OneOf

RULES = [
    (program, path, command, rule)
    for program, path, command in everybody()
    for rule in getattr(command.callback, "together", ())
]
AN_ADDRESS = {"SLED_ADDR", "NEXUS_ADDR", "ADDR|migrate-records", "--at", "--nexus", "--users"}


def called(parameter):
    if parameter.param_type_name == "option":
        return parameter.opts[0]
    return (parameter.metavar or "").strip("[]")


def words(parameter, value=None):
    """As a person types it, with some value that is right by itself."""
    name = called(parameter)
    if parameter.param_type_name == "option" and parameter.is_flag:
        return [name]
    kind = parameter.type_descriptor.annotation
    kind = next(iter(get_args(kind)), kind)  # of several
    if value is None and name in AN_ADDRESS:
        value = "[::1]:1"
    elif value is None and name == "--pace":
        value = "fast"
    elif value is None and kind is UUID:
        value = "914e42ed-0e74-4719-90d7-21c1b5c132a2"
    elif value is None and isinstance(kind, type) and issubclass(kind, Enum):
        value = next(iter(kind)).value
    elif value is None:
        value = "1"  # a number, a name, a file, a duration
    return [name, value] if parameter.param_type_name == "option" else [value]


def breaking(command, rule):
    """What is to be typed for each way to break the rule: names with their values."""
    if isinstance(rule, OneOf):
        return [{one: None, other: None} for one, other in itertools.combinations(rule.names, 2)]
    if isinstance(rule, Needs):
        return [{name: None} for name in rule.names]
    if isinstance(rule, Idle):
        option, _, value = rule.beside.partition(" ")
        return [{name: None, option: value or None} for name in rule.names]
    apart = {rule.argument, *rule.but, "--help", "--version"}
    others = [called(each) for each in command.params if called(each) not in apart]
    return [{rule.argument: rule.value, other: None} for other in others]


def rows():
    for program, path, command, rule in RULES:
        for given in breaking(command, rule):
            yield pytest.param(program, path, command, given, id=f"{' '.join([program, *path])}: {' '.join(given)}")


def typed(command, given):
    """The arguments that have to be there come before those of the rule, in the order of the command."""
    said = []
    for each in command.params:
        if called(each) in given:
            said += words(each, given[called(each)])
        elif each.param_type_name == "argument" and each.required:
            said += words(each)
    return said


@in_one_test(("program", "path", "command", "given"), list(rows()))
def test_what_would_be_ignored_is_refused_and_named(program, path, command, given, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(typed(command, given), prog_name=program)
    said = capsys.readouterr()
    assert end.value.code == 2
    told = {"exit_code": 2, "lines": []}  # also to whoever reads JSON
    assert said.out == (json.dumps(told, indent=2) + "\n" if "--json" in given else ""), said
    wrong, *more = said.err.splitlines()
    assert wrong.startswith(f"{program}: ")
    assert more == [f"  help: {program} --help"]
    assert any(name in wrong for name in given), said.err


def test_every_name_of_a_rule_is_one_of_its_command():
    for program, path, command, rule in RULES:
        names = {called(each) for each in command.params}
        of = (rule.argument, *rule.but) if isinstance(rule, Alone) else rule.names
        of += rule.of if isinstance(rule, Needs) else ()
        of += (rule.beside.partition(" ")[0], *rule.unless) if isinstance(rule, Idle) else ()
        assert set(of) <= names, (program, path, rule)


def test_every_command_that_takes_a_daemon_takes_it_in_one_way():
    """All commands with `--at` beside `--rack`: one of them was ignored once."""
    for program, path, command in everybody():
        names = {called(each) for each in command.params}
        if {"--at", "--rack"} <= names:
            rules = [rule for name, where, _, rule in RULES if (name, where) == (program, path)]
            assert any(isinstance(r, OneOf) and {"--at", "--rack", "--port-file"} <= set(r.names) for r in rules), (
                path
            )


@pytest.mark.parametrize("words", [["--rack", "nowhere"], ["--port-file", "nowhere.json"]])
def test_what_is_typed_wins_over_the_environment(words):
    """An address in SIM_SLED_CONTROL is there for all commands; a rack or a file is meant by this one."""
    result = CliRunner().invoke(PROGRAMS["sim-sled"], ["ps", *words], env={"SIM_SLED_CONTROL": "[::1]:1"})
    assert "nowhere" in result.stderr


def test_what_has_work_beside_another_option_is_taken():
    """`--jobs` reduces here what a cluster has found; a net is for a Propolis that is served."""
    idle = Idle(("--jobs",), "--on", ("--shrink",))
    assert idle.broken({"--jobs": 4, "--on": "tcp://a:1"}) == "--jobs means nothing beside --on without --shrink"
    assert idle.broken({"--jobs": 4, "--on": "tcp://a:1", "--shrink": True}) is None
    assert idle.broken({"--jobs": 4}) is None
    net = Idle(("--propolis-net",), "--propolis none")
    assert (
        net.broken({"--propolis": "none", "--propolis-net": ()})
        == "--propolis-net means nothing beside --propolis none"
    )
    assert net.broken({"--propolis": "loopback", "--propolis-net": ()}) is None


def test_what_switches_an_option_off_is_named_as_it_was_typed(capsys):
    [explore] = [command for _, path, command, _ in RULES if path == ["explore"]][:1]
    with pytest.raises(SystemExit):
        explore.main(["happy", "--no-guide"], prog_name="sim-sled")
    assert capsys.readouterr().err.splitlines()[0] == "sim-sled: --no-guide needs --swarm"
