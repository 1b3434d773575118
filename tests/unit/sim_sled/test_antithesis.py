"""What an Antithesis environment is told, line by line, and that nobody else is told anything."""

import json
import os
import subprocess

import pytest
from support import processes

from nexus_client.dropshot.streams import CannotWrite
from sim_sled.antithesis import Assertions, Kind, Property
from sim_sled.cli.exploring import ExploreOptions, explore_file
from sim_sled.cli.scenario_commands import RunOptions, run_files

FIELDS = {
    "hit",
    "must_hit",
    "assert_type",
    "display_type",
    "message",
    "condition",
    "id",
    "location",
    "details",
}
SCENARIO = """
version: 1
name: told
fleet: {sleds: 1}
latency: instant
load:
- {at: 0s, create: {hostname: "web-{n}", count: 2}}
- {at: 5s, stop: {hostname: web-1}}
rules:
- {name: late, when: {publish: running}, do: {delay: 1s}}
- {name: never, for: {hostname: nobody}, when: {publish: running}, do: {delay: 1s}}
- {name: switched-off, enabled: false, when: {publish: running}, do: {delay: 1s}}
expect:
- {always: [gen_monotonic, no_leaks]}
- {name: boots, after: {request: vmm_put_state, to: running}, within: 5s, that: {instance: running}}
- {name: moves, after: {request: vmm_put_state, to: migration_target}, within: 5s, that: {instance: running}}
"""


MOVING = (
    SCENARIO.replace("sleds: 1", "sleds: 2")
    .replace("latency: instant", "")
    .replace("- {at: 5s", "- {at: 3s, migrate: {hostname: web-2}}\n- {at: 5s")
)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Plays a scenario's text in an Antithesis environment; what its file says then."""
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setenv("ANTITHESIS_OUTPUT_DIR", str(folder))

    def play(text=SCENARIO, **options):
        file = tmp_path / "told.yaml"
        file.write_text(text)
        run_files([str(file)], RunOptions(seed=1, **options))
        return [json.loads(line) for line in (folder / "sdk.jsonl").read_text().splitlines()]

    return play


def assertions(lines, *, hit=None):
    found = [line["antithesis_assert"] for line in lines if "antithesis_assert" in line]
    return [each for each in found if hit is None or each["hit"] is hit]


def ends_with(lines, text):
    """(condition) of each time it was told, in order."""
    return [each["condition"] for each in assertions(lines, hit=True) if each["message"].endswith(text)]


def test_every_line_is_one_message_of_the_documented_format(told):
    for line in told():
        [(kind, body)] = line.items()
        if kind == "antithesis_assert":
            assert set(body) == FIELDS
            assert body["id"] == body["message"]
            assert set(body["location"]) == {"class", "function", "file", "begin_line", "begin_column"}
            assert isinstance(body["details"], dict) is body["hit"], "a declaration has no details"
            assert not (body["condition"] and not body["hit"]), "what has not been reached is not true"
        else:
            assert kind in ("antithesis_setup", "sim_sled_counts")


def test_the_catalogue_comes_first_then_the_set_up_then_what_happened(told):
    lines = told()
    [at] = [i for i, line in enumerate(lines) if "antithesis_setup" in line]
    assert lines[at]["antithesis_setup"]["status"] == "complete"
    declared = {each["message"] for each in assertions(lines[:at])}
    assert not assertions(lines[:at], hit=True)
    assert {each["message"] for each in assertions(lines[at:])} <= declared
    assert len(declared) == len(assertions(lines[:at])), "each is declared once"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("invariant gen_monotonic holds", ("always", "Always", True)),
        ("invariant nexus_properties holds", ("always", "Always", True)),
        ("invariant no_leaks holds", ("always", "AlwaysOrUnreachable", False)),
        ("told: expectation boots is met", ("sometimes", "Sometimes", True)),
        ("told: expectation boots is kept", ("always", "AlwaysOrUnreachable", False)),
        ("told: rule late fires", ("reachability", "Reachable", True)),
    ],
)
def test_each_thing_has_its_kind(told, message, kind):
    [declared] = [each for each in assertions(told(), hit=False) if each["message"] == message]
    assert (declared["assert_type"], declared["display_type"], declared["must_hit"]) == kind


def test_a_rule_and_an_expectation_say_where_they_stand(told):
    lines = assertions(told(), hit=False)
    for message, begins in (("rule late fires", "- {name: late"), ("expectation moves is met", "- {name: moves")):
        [one] = [each for each in lines if each["message"].endswith(message)]
        assert one["location"]["file"].endswith("told.yaml")
        assert SCENARIO.splitlines()[one["location"]["begin_line"] - 1].startswith(begins)


def test_what_is_so_is_told_once_and_counted(told):
    lines = told()
    assert ends_with(lines, "rule late fires") == [True]
    assert ends_with(lines, "expectation boots is met") == [True]
    counts = lines[-1]["sim_sled_counts"]
    assert counts["told: rule late fires"] == {"passed": 2, "failed": 0}
    assert counts["told: expectation boots is kept"] == {"passed": 2, "failed": 0}


def test_what_nothing_reached_is_declared_and_never_hit(told):
    lines = told()
    for message in ("rule never fires", "expectation moves is met", "expectation moves is kept"):
        assert not ends_with(lines, message)
        assert any(each["message"].endswith(message) for each in assertions(lines, hit=False))
    assert "switched-off" not in json.dumps(lines)


def test_an_expectation_that_fails_is_false_with_its_reason(told):
    lines = told(SCENARIO.replace("within: 5s, that: {instance: running}", "within: 5ms, that: {instance: running}"))
    assert ends_with(lines, "expectation boots is kept") == [False], "the second one is counted"
    assert not ends_with(lines, "expectation boots is met")
    [false] = [each for each in assertions(lines, hit=True) if not each["condition"]]
    assert "not within 5ms" in false["details"]["text"]
    assert false["details"]["seed"] == 1
    assert false["details"]["why"], "the explanation comes with it"
    assert lines[-1]["sim_sled_counts"]["told: expectation boots is kept"] == {"passed": 0, "failed": 2}


def test_an_invariant_that_is_broken_is_false_and_not_true_besides(told):
    lines = told(sled_variant="generation-goes-back")
    assert ends_with(lines, "gen_monotonic holds") == [False]
    assert ends_with(lines, "nexus_properties holds") == [True]


def test_a_broken_property_of_the_model_is_told_by_its_number_too(told):
    lines = told(MOVING, variant="forgets-migration")
    assert ends_with(lines, "invariant nexus_properties/40 holds") == [False]
    assert ends_with(lines, "invariant nexus_properties holds") == [False]


def test_a_second_program_adds_to_the_file(told):
    once = len(told())
    assert len(told()) == 2 * once


def test_an_output_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(CannotWrite, match=r"sdk\.jsonl.*No such file"):
        Assertions(tmp_path / "none" / "sdk.jsonl")


def test_a_pipe_that_nobody_reads_is_said_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "sdk.jsonl")
    with pytest.raises(CannotWrite, match="ANTITHESIS_OUTPUT_DIR"):
        Assertions(tmp_path / "sdk.jsonl")


def test_a_full_disk_ends_the_telling_and_not_the_program(capfd):
    out = Assertions("/dev/full")
    out.tell(Property(Kind.ALWAYS, "it holds"), True, {})
    out.tell(Property(Kind.ALWAYS, "it holds"), False, {})
    out.close()
    said = capfd.readouterr().err
    assert said.count("nothing more is told to Antithesis") == 1


@pytest.mark.parametrize(("variant", "holds"), [(None, [True]), ("forgets-migration", [False])])
def test_a_campaign_tells_what_held_in_all_of_its_runs_and_what_did_not(told, tmp_path, variant, holds):
    told(MOVING)
    out = tmp_path / "out" / "sdk.jsonl"
    out.unlink()
    explore_file(str(tmp_path / "told.yaml"), ExploreOptions(runs=2, variant=variant))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["antithesis_setup"]["status"] for line in lines if "antithesis_setup" in line] == ["complete"]
    assert ends_with(lines, "invariant gen_monotonic holds") == [True]
    assert ends_with(lines, "invariant nexus_properties holds") == holds
    assert not [each for each in assertions(lines) if each["message"].endswith("rule late fires")], "nobody keeps it"
    assert lines[-1]["sim_sled_counts"]["invariant gen_monotonic holds"] == {"passed": 2, "failed": 0}


def test_elsewhere_nothing_is_written_and_nothing_imported(tmp_path):
    """Where the variable is empty, and where there is none."""
    program, home = tmp_path / "program", tmp_path / "home"
    program.mkdir()
    home.mkdir()
    (program / "look.py").write_text(
        "import os, sys; from sim_sled.cli.scenario_commands import RunOptions, run_files;"
        "import sim_sled.cli.nexus, sim_sled.cli.up, sim_sled.daemon.serve, sim_sled.daemon.worker;"
        "assert run_files(['happy'], RunOptions(seed=1)).code == 0;"
        "os.environ.pop('ANTITHESIS_OUTPUT_DIR');"
        "assert run_files(['happy'], RunOptions(seed=1)).code == 0;"
        "print('sim_sled.antithesis' in sys.modules)"
    )
    env = os.environ | {"HOME": str(home), "ANTITHESIS_OUTPUT_DIR": "", "PYTHONPATH": str(program)}
    done = subprocess.run(
        processes.forked("look"), env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "False\n", done.stderr
    assert not list(home.iterdir())
