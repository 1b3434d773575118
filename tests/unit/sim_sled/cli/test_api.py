"""`sim-sled api`: coverage of the Sled Agent API and shapes of its versions."""

import json

import pytest
from support.command import CliRunner
from support.rack.estate import config, dataset
from support.rows import in_one_test

from sim_sled.cli.api import fitting
from sim_sled.cli.main import app
from sim_sled.http.coverage import How, rows
from sim_sled.http.operations import ROUTER


def run(*arguments, stdin=""):
    return CliRunner().invoke(app, ["api", *arguments], input=stdin)


def test_every_operation_of_the_table_is_covered():
    told = {(row.operation, row.method, row.path) for row in rows()}
    assert told == {(route.op, route.method, route.template) for route in ROUTER.routes if route.op is not None}
    assert len(told) == 90


def test_every_row_says_where_its_rules_stand():
    assert [row for row in rows() if not row.section.startswith(("SA ", "SR "))] == []


def test_what_is_refused_is_what_the_specification_says():
    refused = {(row.operation, row.since, row.until) for row in rows() if row.how is How.REFUSED}
    assert refused == {
        ("write_network_bootstore_config", 1, 24),
        ("local_storage_dataset_ensure", 9, 16),
        ("trust_quorum_upgrade_from_lrtq", 13, 48),
    }


def test_coverage_for_people_is_a_table_with_a_sum_beside_it():
    got = run("--coverage")
    assert got.exit_code == 0
    assert got.stderr == "90 operations in 91 rows: 71 emulated, 17 canned, 3 refused\n"
    head, *lines = (line.split("\t") for line in got.stdout.splitlines())
    assert head == ["operation", "versions", "how", "spec", "request"], "as every table in a pipe"
    assert len(lines) == 91
    assert ["inventory", "1-48", "emulated", "SR 3.6", "GET /inventory"] in lines
    assert run("--coverage", "--api-version", "48").stderr == ("82 operations: 67 emulated, 14 canned, 1 refused\n")


def test_a_narrow_terminal_has_no_room_for_requests():
    lines = [["operation", "request"], ["inventory", "GET /inventory"]]
    assert fitting(lines, 27) == lines
    assert fitting(lines, 26) == [["operation"], ["inventory"]]


def test_coverage_for_programs():
    told = json.loads(run("--coverage", "--json").output)
    assert {"operation": "sled_role_get", "method": "GET", "path": "/sled-role", "since": "1.0.0", "until": "7.0.0",
            "how": "emulated", "section": "SR 4.6"} in told  # fmt: skip


GOOD = json.dumps(config(2, datasets=[dataset(1)]).wire)


@in_one_test(
    ("arguments", "stdin", "code"),
    [
        pytest.param(["omicron_config_put"], GOOD, 0, id="a body that fits"),
        pytest.param(["omicron_config_put"], "{}", 1, id="one that does not"),
        pytest.param(["sled_role_get", "--api-version", "7.0.0"], '"gimlet"', 0, id="an answer"),
        pytest.param(["sled_role_get", "--api-version", "7.0.0"], '"rack"', 1, id="an answer that nobody gives"),
        pytest.param(["sled_role_get"], '"gimlet"', 2, id="an operation that the version does not have"),
        pytest.param(["omicron_config_put", "--part", "answer"], GOOD, 2, id="an answer without JSON"),
        pytest.param(["vmm_put_state", "--part", "answer"], '{"updated_runtime": null}', 0, id="the answer of two"),
        pytest.param(["omicron_config_put"], "{", 2, id="no JSON"),
        pytest.param(["omicron_config_put", "--api-version", "49.0.0"], GOOD, 2, id="no version"),
        pytest.param(["nonsense"], GOOD, 2, id="no operation"),
    ],
)
def test_a_json_is_held_against_the_shape_of_a_version(arguments, stdin, code):
    assert run("--validate", *arguments, stdin=stdin).exit_code == code


def test_faults_are_told_with_their_place():
    spoilt = json.loads(GOOD) | {"generation": -1}
    got = run("--validate", "omicron_config_put", "--json", stdin=json.dumps(spoilt))
    told = json.loads(got.output)
    assert (told["part"], told["api_version"]) == ("request", "48.0.0")
    assert [each.partition(":")[0] for each in told["faults"]] == ["/generation"]


@pytest.mark.parametrize("arguments", [[], ["--coverage", "--validate", "inventory"]])
def test_one_of_the_two_has_to_be_asked_for(arguments):
    assert run(*arguments).exit_code == 2
