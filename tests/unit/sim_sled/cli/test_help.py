"""What every command has: help that fits and cuts nothing, `--json`, `--version`, a place in `manual`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import processes
from support.command import PROGRAMS, CliRunner, everybody
from support.rows import in_one_test

from nexus_client.dropshot.command_line import EXIT_CODES, exit_codes, manual
from propolis_stub.presets import PRESETS
from sim_sled.language.presets import PRESETS as OF_SCENARIOS

EVERYBODY = everybody()
COMMANDS = [(name, path, each) for name, path, each in EVERYBODY if not hasattr(each, "commands")]


def ids(rows):
    return [" ".join([name, *path]) for name, path, _ in rows]


def run(name, *words):
    return CliRunner().invoke(PROGRAMS[name], list(words))


@in_one_test(("name", "path", "command"), EVERYBODY, ids=ids(EVERYBODY))
def test_help_fits_80_columns_and_cuts_nothing(name, path, command):
    """In a pipe; a terminal is given the same width."""
    result = run(name, *path, "--help")
    assert result.exit_code == 0
    assert "…" not in result.output
    assert not re.search(r"[{}]|\[\[", result.output.partition("\n")[0]), "as a person writes a usage line"
    assert [line for line in result.output.splitlines() if len(line) > 80] == []
    assert [line for line in result.output.splitlines() if re.search(r"\w-$", line)] == [], "a word is broken"
    usage, _, arguments = result.output.partition("\nArguments:\n")
    arguments = arguments.partition("\nOptions:\n")[0]
    assert set(re.findall(r"^  (\S+)", arguments, re.MULTILINE)) <= set(re.findall(r"[^][\s]+", usage)), (
        "one name each"
    )
    assert not re.search(r"<(list|int|float|str|path|UUID)\b", result.output), "no words of Python"
    shown = set(re.findall(r"--[a-z0-9-]+", result.output))
    assert {option for each in command.params for option in each.opts if option.startswith("--")} <= shown
    for each in getattr(command, "commands", {}).values():
        summary = each.help.partition("\n\n")[0].split()
        assert " ".join(summary) in " ".join(result.output.split()), "the whole summary"


@in_one_test("words", [[], ["up"], ["scenario"], ["scenario", "list"]])
def test_help_has_the_short_name_that_most_programs_give_it(words):
    assert run("sim-sled", *words, "-h").output == run("sim-sled", *words, "--help").output


@in_one_test(("name", "path", "command"), COMMANDS, ids=ids(COMMANDS))
def test_every_command_has_json_and_version(name, path, command):
    options = [option for each in command.params for option in each.opts]
    assert options.count("--json") == 1
    result = run(name, *path, "--version")
    assert (result.exit_code, result.output.startswith("sim-sled ")) == (0, True), result.output
    mistyped = run(name, *path, "--jsno", "--json")
    assert json.loads(mistyped.stdout) == {"exit_code": mistyped.exit_code, "lines": []}
    assert (mistyped.exit_code, "--jsno" in mistyped.stderr) == (2, True)


def test_what_has_no_answer_of_its_own_tells_its_lines():
    assert json.loads(run("sim-sled", "version", "--json").output)["lines"][0].startswith("sim-sled ")
    assert json.loads(run("sim-sled", "scenario", "schema", "--json").output)["$schema"], (
        "what is JSON stays what it is"
    )
    result = run("sim-sled", "scenario", "show", "stuck-stop", "--json")
    assert "version: 1" in json.loads(result.output)["lines"]
    failed = run("sim-sled", "down", "nowhere", "--json")
    assert (failed.exit_code, json.loads(failed.stdout)) == (3, {"exit_code": 3, "lines": []})
    assert "nowhere" in failed.stderr


MISTAKES = [
    "until 5s --within 1m",
    "ps --at x --rack y",
    "run nope",
    "run stuck-stop --seed x",
    "nope",
    "scenario nope",
]


@in_one_test("words", ["ps", "why web", "events", "port control", "ready", *MISTAKES])
def test_a_command_prints_json_also_when_it_fails_or_is_mistyped(words, tmp_path, monkeypatch):
    """Whoever pipes it into a parser gets no complaint of the parser on top."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    failed = run("sim-sled", *words.split(), "--json")
    assert failed.exit_code in (2, 3)
    assert json.loads(failed.stdout) == {"exit_code": failed.exit_code, "lines": []}
    assert failed.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_manual_has_every_option_of_every_command(name):
    told = manual(PROGRAMS[name], name)
    assert run(name, "manual").output == told
    for program, path, command in EVERYBODY:
        if program == name:
            assert f"## {' '.join([name, *path])}\n" in told
            for each in command.params:
                assert all(option in told for option in each.opts if option.startswith("--"))


def test_the_page_has_the_table_of_exit_codes():
    page = (Path(__file__).parents[4] / "docs" / "commands.md").read_text()
    told = page.partition("<!-- exit-codes -->\n")[2].partition("<!-- /exit-codes -->")[0]
    assert told == exit_codes()
    assert set(EXIT_CODES) == {0, 1, 2, 3, 4, 5, 130, 141, 143}


@pytest.mark.parametrize(
    ("shell", "begins"), [("bash", "_sim_sled_completion()"), ("zsh", "#compdef sim-sled"), ("fish", "complete ")]
)
def test_a_shell_completes_commands(shell, begins):
    # not the shell that started these tests, if there was one
    told = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    program = [Path(sys.executable).with_name("sim-sled")]
    if shell != "bash":  # one is the program that was installed
        program = processes.forked("sim_sled")
    done = subprocess.run(
        [*program, "--show-completion", shell], capture_output=True, text=True, check=False, env=told
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(begins)
    assert f"=complete_{shell}" in done.stdout


COMPLETE_ALL = """
import json, os, sys
from sim_sled.__main__ import main

sys.argv[1:], asked = [], json.loads(sys.argv[1])
sys.argv[0] = "sim-sled"
for typed in asked:
    os.environ |= {"COMP_WORDS": " ".join(typed), "COMP_CWORD": str(len(typed) - 1)}
    try:
        main()
    except SystemExit:
        print("END", flush=True)
"""


def test_a_shell_completes_what_has_a_name(tmp_path):
    (tmp_path / "complete_all.py").write_text(COMPLETE_ALL)
    offered = {
        ("sim-sled", "scenario", "show", "stuck-"): {"stuck-starting", "stuck-stop"},
        ("sim-sled", "up", "--scenario", "stuck-"): {"stuck-starting", "stuck-stop"},
        ("sim-sled", "up", "--pace", ""): set(PRESETS),
        ("sim-sled", "exp"): {"expect", "explain", "explore"},
    }
    done = subprocess.run(
        processes.forked("complete_all", json.dumps([*offered])), cwd=tmp_path,
        env=os.environ | {"_SIM_SLED_COMPLETE": "complete_bash"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    answers = [set(each.split()) for each in done.stdout.split("END")[:-1]]
    assert dict(zip(offered, answers, strict=True)) == offered, done.stderr


def test_paces_have_the_same_names_wherever_there_is_one():
    """One vocabulary: `--pace` of every program, and `latency:` of a scenario."""
    asked = [(name, path, each) for name, path, each in COMMANDS if any("--pace" in p.opts for p in each.params)]
    assert {path[-1] for _, path, _ in asked} >= {"serve", "up", "run"}
    assert {name for name, _, _ in asked} == set(PROGRAMS)
    for name, path, _ in asked:
        told = " ".join(run(name, *path, "--help").output.split())
        assert all(re.search(rf"how long things take: [^;]*\b{preset}\b", told) for preset in PRESETS), path
    assert set(PRESETS) == set(OF_SCENARIOS)
    assert run("propolis-stub", "serve", "[::1]:0", "--pace", "consol").exit_code == 2


def test_every_command_of_sim_sled_is_under_a_heading_once():
    said = run("sim-sled", "--help").output.partition("A rack:")[2]
    names = re.findall(r"^  ([a-z]+) ", said, re.MULTILINE)
    assert "Commands:" not in said
    assert sorted(names) == sorted(path[0] for name, path, _ in EVERYBODY if name == "sim-sled" and len(path) == 1)
    assert names[:2] == ["tour", "up"], "what a newcomer begins with"


ASKING = {
    "ps", "why", "log", "expect", "wait", "events", "pause", "resume", "step", "until", "snapshot", "restore",
    "ready", "inject", "rules", "fire", "release", "scale",
}  # fmt: skip


def test_whoever_asks_a_daemon_says_which_in_the_same_way():
    for name, path, command in COMMANDS:
        options = {option for each in command.params for option in each.opts}
        if name == "sim-sled" and path[0] in ASKING:
            assert options >= {"--at", "--rack", "--port-file", "--token", "--json"}, path


def test_every_option_says_what_it_is():
    silent = [
        f"{name} {' '.join(path)} {each.opts[-1]}"
        for name, path, command in COMMANDS
        for each in command.params
        if each.param_type_name == "option" and not each.help
    ]
    assert silent == []


def test_a_number_means_the_same_wherever_a_program_exits():
    """The numbers stand in one module: nothing else in our programs has one for `exit`."""
    root = Path(__file__).parents[4]
    said = re.compile(
        r"(?:\bExit\(|\bsys\.exit\(|\bSystemExit\(|^[A-Z_]+(?:: Final)? = )(?:[1-5]|130)\)?$", re.MULTILINE
    )
    table = root / "nexus_client/dropshot/command_line.py"
    for path in [*root.glob("sim_sled/cli/*.py"), *root.glob("*/__main__.py"), root / "sim_sled/daemon/serve.py"]:
        codes = [line for line in path.read_text().splitlines() if said.search(line) and "exit" in line.lower()]
        assert codes == [], f"{path}: {codes}; take them of {table.name}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_follows_an_option_is_named_where_it_is_more_than_a_text(name):
    """`--control ADDR`, as everywhere, and not `--control TEXT`."""
    an_address_a_size_a_time = r"  --\S+ TEXT .*(\bAPI\b|like \d|e\.g\. \d|by name|=FILE)"
    assert re.findall(rf"^{an_address_a_size_a_time}.*$", run(name, "manual").output, re.MULTILINE) == []


@in_one_test("value", ["inf", "1e300", "nan"])
@in_one_test(
    "words",
    [("nexus", "[::1]:0"), ("serve", "00000000-0000-4000-8000-000000000001", "[::1]:0", "[::1]:1")],
    ids=lambda words: words[0],
)
def test_no_option_that_is_seconds_is_endless(words, value):
    """They become integer microseconds."""
    options = re.findall(r"^  (--[a-z-]+) SECONDS", run("sim-sled", words[0], "--help").output, re.MULTILINE)
    assert options
    for option in options:
        result = run("sim-sled", *words, option, value)
        assert (result.exit_code, result.exception.__class__) == (2, SystemExit), option
        assert f"invalid value for '{option}'" in result.stderr
