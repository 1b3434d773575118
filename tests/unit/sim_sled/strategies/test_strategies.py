"""The public strategies: their names, that sleds and Nexus take what they make, and what they shrink to."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis.stateful import run_state_machine_as_test
from support.profile import by_profile

import sim_sled.strategies as ours
from nexus_client.dropshot.json import Json
from nexus_client.stub import contract as nx
from nexus_client.stub.config import Config
from nexus_client.stub.nexus import Nexus
from nexus_client.types import SledVmmState, VmmPutStateBody
from propolis_stub.spec.build import fault_of
from sim_sled.http.bodies_register import BODIES, to_registration
from sim_sled.http.routes import NEWEST
from sim_sled.language.check import parse_scenario
from sim_sled.shapes.check import faults, request_schema

ROOT = Path(__file__).parents[4]
NAMES = {
    "Request", "lives", "register_bodies", "reports", "requests", "scenario_texts", "scenarios", "state_requests",
    "vmm_specs",
}  # fmt: skip
DOCUMENT = f"sled-agent/{NEWEST}.0.0"
ANYTHING = settings(max_examples=by_profile(25, nightly=600), deadline=None)


def test_the_public_names_stay():
    assert set(ours.__all__) == NAMES
    for name in ours.__all__:
        assert getattr(ours, name).__doc__, f"{name} says what it makes"


def test_without_hypothesis_it_is_said_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None\nimport sim_sled.strategies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "ImportError: sim_sled.strategies needs Hypothesis: pip install 'sim-sled[strategies]'" in done.stderr


@pytest.mark.nightly
@ANYTHING
@given(ours.register_bodies())
def test_a_sled_takes_every_registration_and_can_make_the_vm(body):
    read = BODIES[max(BODIES)].decode(json.dumps(body).encode())
    assert fault_of(read.vmm_spec) == ""
    assert to_registration(read).ncpus == body["vmm_spec"]["board"]["cpus"]


@pytest.mark.nightly
@settings(max_examples=by_profile(20, nightly=500), deadline=None)
@given(ours.requests())
def test_every_request_is_one_of_the_api(request_):
    pytest.importorskip("jsonschema_rs")
    schema = request_schema(DOCUMENT, request_.operation)
    assert (schema is None) == (request_.body is None)
    if schema is not None:
        assert faults(DOCUMENT, schema, request_.body) == []


@pytest.mark.nightly
@ANYTHING
@given(ours.state_requests())
def test_a_sled_reads_every_state_that_is_asked_for(body):
    assert Json(VmmPutStateBody).decode(json.dumps(body).encode()).state.type.value == body["state"]["type"]


@pytest.mark.nightly
@ANYTHING
@given(ours.lives())
def test_a_life_grows_and_nexus_reads_every_report_of_it(life):
    read = [Json(SledVmmState).decode(json.dumps(report).encode()).vmm_state for report in life]
    assert read[0].state.value == "starting"
    for before, after in itertools.pairwise(read):
        assert after.gen > before.gen
        assert after.time_updated > before.time_updated
        assert before.state.value not in ("destroyed", "failed"), "nothing is told after the end"


@pytest.mark.nightly
@ANYTHING
@given(ours.reports())
def test_the_model_of_nexus_takes_a_report_of_anybody(report):
    nexus = Nexus(Config(), seed=0)
    nexus.handle(nx.Boot(), 0)
    state = Json(SledVmmState).decode(json.dumps(report).encode())
    effects = nexus.handle(nx.VmmReported(1, UUID(int=7), state), 1)
    assert [each.status for each in effects if isinstance(each, nx.Reply)] != []


@pytest.mark.nightly
@settings(max_examples=by_profile(20, nightly=500), deadline=None)
@given(ours.scenario_texts())
def test_every_text_is_a_scenario_without_an_error(text):
    assert parse_scenario(text)[1].errors == 0


def plainest(strategy, such=lambda _: True):
    return find(strategy, such, settings=settings(max_examples=300, deadline=None, database=None))


@pytest.mark.long
def test_a_spec_shrinks_to_a_board_without_devices():
    assert plainest(ours.vmm_specs()) == {
        "board": {
            "chipset": {"type": "i440_fx", "value": {"enable_pcie": False}}, "cpus": 1, "memory_mb": 1
        },
        "components": {},
    }  # fmt: skip


def test_a_spec_with_a_disk_shrinks_to_that_disk_alone():
    found = plainest(ours.vmm_specs(), lambda spec: any("disk" in key for key in spec["components"]))
    assert set(found["components"]) == {"backend-0", "disk-0"}


@pytest.mark.long
def test_a_life_shrinks_to_its_first_report_and_one_that_ends_to_the_shortest_way_there():
    assert [each["vmm_state"]["state"] for each in plainest(ours.lives())] == ["starting"]
    ended = plainest(ours.lives(), lambda life: life[-1]["vmm_state"]["state"] == "destroyed")
    states = [each["vmm_state"]["state"] for each in ended]
    assert states == ["starting", "running", "stopping", "destroyed"], "Propolis has no shorter way"
    assert [each["vmm_state"]["gen"] for each in ended] == [3, 4, 5, 6]


def test_the_plainest_scenario_has_no_rules_users_and_expectations():
    plain = []

    @settings(max_examples=1, deadline=None, database=None)  # the first one tried is what everything shrinks to
    @given(ours.scenarios())
    def first(scenario):
        plain.append(scenario)

    first()
    assert (plain[0].rules, plain[0].load, plain[0].expect) == ((), (), ())


def example_of_the_page():
    """The Python of docs/properties.md, executed."""
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "properties.md").read_text(), re.DOTALL)
    names = {"__name__": "example"}
    exec(compile(block, "docs/properties.md", "exec"), names)
    return names


def test_the_stateful_example_of_the_page_is_green():
    example_of_the_page()["test_the_newest_report_wins"]()


def test_the_stateful_example_finds_a_nexus_that_keeps_the_last_report_instead_of_the_newest():
    names = example_of_the_page()

    def put_anything(self):
        self.vmms[self.path] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(204)
        self.end_headers()

    names["MyNexus"].do_PUT = put_anything
    only_found = settings(max_examples=100, stateful_step_count=8, deadline=None, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(names["Reports"], settings=only_found)
