"""The pytest plugin, by pytest itself, as in somebody else's project."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import processes

pytest_plugins = "pytester"

ROOT = Path(__file__).parents[4]
# other people's plugins cost a second each time and have nothing to do with ours
OTHERS = ("-p", "no:schemathesis", "-p", "no:hypothesispytest", "-p", "no:cacheprovider")
NAMED = ("--disable-plugin-autoload", "-p", "pytest_asyncio.plugin", "-p", "sim-sled", "-p", "no:cacheprovider")
"""What most tests here need; to find it by itself takes pytest half a second more."""
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"


@pytest.fixture(autouse=True)
def at_a_desk(monkeypatch):
    """The project is tested at somebody's desk: where `CI` is set pytest repeats a whole message in its summary."""
    for name in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS", "PY_COLORS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(pytester):
    """Somebody's project: `run(test text)` runs its tests."""
    pytester.makeini(INI)

    def run(text, *options):
        pytester.makepyfile(text)
        return again(pytester, *options)

    return run


def again(pytester, *options):
    """A pytest of its own, forked."""
    return pytester.run(*processes.forked("pytest", *NAMED, *options))


@pytest.mark.long
def test_the_examples_pass_under_xdist(pytester):
    """Once here; `make examples` runs them fifty times."""
    pytester.makeini(INI)
    options = (*NAMED, "-p", "xdist.plugin", "-n", "2")
    done = pytester.run(*processes.forked("pytest", *options, str(ROOT / "examples/pytest")))
    assert done.ret == 0, done.stdout.str()


def test_a_test_says_when_something_goes_wrong(project):
    """A sled without power in the middle of it, a VM that hangs until the test lets it go."""
    project(
        '''
        import pytest

        RULES = """
        version: 1
        rules:
        - {name: dies, for: {sled: sled-1}, when: {manual: off}, do: {power_off_sled: {lasts: 1h}}}
        """

        @pytest.mark.scenario(RULES)
        async def test_all(sim_rack, nexus_model):
            web = await nexus_model.create_instance("web")
            await sim_rack.expect(web, "running", within=60)
            rule = sim_rack.inject(web, "stall: forever")
            await nexus_model.stop_instance(web)
            assert nexus_model.state(web) == "stopping"
            sim_rack.release(rule)
            await sim_rack.expect(web, "destroyed", within=60)
            for wrong, says in (
                (lambda: sim_rack.fire("of"), "no rule waits for 'of' .did you mean 'off'"),
                (lambda: sim_rack.release(rule), "holds nothing"),
                (lambda: sim_rack.inject(web, "stall: soon"), "is not a duration"),
                (lambda: sim_rack.inject(web, "stall: 1s"), "'stall' had no effect: the VMM was gone by then"),
            ):
                with pytest.raises(ValueError, match=says):
                    wrong()
            sim_rack.assert_fired("dies", times=0)
            sim_rack.fire("off")
            sim_rack.assert_fired("dies")
        '''
    ).assert_outcomes(passed=1)


def test_what_cannot_be_done_is_told_at_the_line_that_wanted_it(project):
    said = project("def test_it(sim_rack):\n    sim_rack.fire('off')\n").stdout
    said.fnmatch_lines([">*sim_rack.fire('off')", "E*RackError: no rule waits for 'off'*"])
    said.no_fnmatch_line("*small_rack.py:*")


def test_a_coroutine_is_run_in_a_project_that_has_configured_nothing(pytester):
    """What the guide's first example is pasted into: pytest-asyncio is strict there, and asks for a mark."""
    pytester.makepyfile(
        """
        import pytest

        async def test_alone(sim_rack, nexus_model):
            await nexus_model.create_instance("web")
            await sim_rack.expect("web", "running", within=60)

        class TestInAClass:
            @pytest.mark.parametrize("name", ["web", "db"])
            @pytest.mark.scenario("stuck-stop", seed=7)
            async def test_each(self, sim_rack, nexus_model, name):
                await nexus_model.create_instance(name)

        async def test_that_is_nothing_of_ours(tmp_path):
            pass
        """
    )
    done = pytester.run(*processes.forked("pytest", *OTHERS))  # which finds plugins by itself, in its own order
    done.assert_outcomes(passed=3, failed=1)
    said = done.stdout.str()
    assert "::test_that_is_nothing_of_ours" in said
    assert "async def functions are not natively supported" in said


def test_a_failed_expectation_tells_timeline_why_seed_and_how_to_see_it_again(project, pytester):
    done = project(
        """
        import pytest

        RULE = "{name: stuck, when: {edge: starting -> running}, do: {stall: forever}}"

        @pytest.mark.scenario(f"version: 1\\nname: x\\nrules: [{RULE}]", seed=7)
        async def test_it(sim_rack, nexus_model):
            vm = await nexus_model.create_instance("web")
            await sim_rack.expect(vm, "running", within=0.2)
        """
    )
    done.assert_outcomes(failed=1)
    said = done.stdout.str()
    for wanted in (
        "was not 'running' within 0.2 s: it is",
        "timeline:",
        "registered starting",
        "why:",
        "will rest in running",
        "rule stuck",
        "seed=7",
        "again: pytest test_a_failed",
        "--sim-seed 7",
    ):
        assert wanted in said, wanted
    assert "Captured" not in said, "what it says is not said twice"
    assert "- sim-sled -" not in said, "nor in a section of its own"
    [same] = re.findall(r"again: pytest (.*)", said)
    once_more = again(pytester, *shlex.split(same))
    once_more.assert_outcomes(failed=1)
    assert "was not 'running' within 0.2 s: it is" in once_more.stdout.str()


@pytest.mark.early
def test_whatever_a_test_fails_of_its_rack_is_told(project):
    """Once, under the test's own failure; of a green test nothing is."""
    done = project(
        """
        import pytest

        def test_of_its_own(sim_rack, nexus_model):
            nexus_model.create_instance("web").wait()
            sim_rack.expect("web", "running", within=60).wait()
            assert "web" == "db"

        def test_of_the_model(sim_rack, nexus_model):
            nexus_model.create_instance("db", start=False).wait()
            nexus_model.expect("db", "running", within=0.1).wait()

        @pytest.mark.scenario("stuck-stop", seed=7)
        def test_of_a_rule(sim_rack):
            sim_rack.assert_fired("never-stops")

        def test_of_a_virtual_world(virtual_world):
            virtual_world(
                "version: 1\\nname: x\\nload: [{at: 0s, create: {hostname: web}}]\\n"
                "expect: [{name: up, after: {state: starting}, that: {vmm: destroyed}, within: 1ms}]\\n",
                seed=3,
            )

        def test_of_what_a_world_came_to(virtual_world):
            for seed in (7, 8):
                assert virtual_world("stuck-stop", seed=seed).fired["never-stops"] == 9 - seed

        def test_of_no_state(sim_rack, nexus_model):
            vm = nexus_model.create_instance("web").wait()
            sim_rack.expect(vm, "runing", within=600).wait()

        def test_green(sim_rack, nexus_model):
            nexus_model.create_instance("green-1").wait()
        """,
        "--sim-pace", "console",
    )  # fmt: skip
    done.assert_outcomes(passed=1, failed=6)
    said = done.stdout.str()
    assert said.count("- sim-sled -") == 4, "of those that do not say it themselves"
    assert said.count("again: pytest ") == 5
    for wanted in (
        "web (v1, ",
        "is running\n  timeline:",
        "will rest in running.",
        "::test_of_its_own --sim-seed 0 --sim-pace console",
        "users see db 'stopped', not 'running'",
        "rules fired: never-stops 0, ",
        "expectation 'up'",
        "Users see web as starting",
        "again: sim-sled run - --seed 3",
        "timeline of web:",
        "user      - - create web: 201",
        "or: pytest ",
        "ok   stuck-stop  seed 8",
        "timeline of stuck-1:",
        "seed=8\nagain: pytest test_whatever_a_test_fails_of_its_rack_is_told.py::test_of_what_a_world_came_to",
        "not 'runing' (did you mean 'running'?)",
    ):
        assert wanted in said, wanted
    assert "green-1" not in said
    assert "stuck-stop  seed 7 " not in said, "of several worlds the last"
    assert "concurrent/futures" not in said, "of how a test waits nothing is shown"


def test_an_expectation_that_nobody_waits_for_fails_the_test(project):
    """The silent trap of awaitables: without this the test would be green."""
    done = project(
        """
        def test_forgotten(sim_rack, nexus_model):
            nexus_model.create_instance("web").wait()
            sim_rack.expect("web", "failed", within=60)

        def test_refused_and_never_looked_at(sim_rack, nexus_model):
            nexus_model.stop_instance("nobody")
            nexus_model.create_instance("web").wait()
        """
    )
    said = done.stdout.str()
    assert done.ret == 1
    assert "sim_rack.expect(web, 'failed'): neither awaited nor waited for" in said
    assert "stop_instance(nobody): the model has no instance 'nobody'" in said


def test_what_is_so_now_counts_and_since_counts_what_was_so(project):
    done = project(
        """
        import time
        import pytest

        def test_it(sim_rack, nexus_model):
            began = time.time()
            vm = nexus_model.create_instance("web").wait()
            sim_rack.expect(vm, "running", within=60).wait()
            sim_rack.expect(vm, "running", within=0).wait()
            nexus_model.stop_instance(vm).wait()
            sim_rack.expect(vm, "destroyed", within=60).wait()
            sim_rack.expect(vm, "running", within=0, since=began).wait()
            with pytest.raises(AssertionError, match="was not 'running'"):
                sim_rack.expect(vm, "running", within=0).wait()
            with pytest.raises(AssertionError, match="was not 'rebooting'"):
                sim_rack.expect(vm, "rebooting", within=0, since=began).wait()
        """
    )
    done.assert_outcomes(passed=1)


def test_a_vm_is_named_as_people_name_it(project):
    done = project(
        """
        import pytest
        from sim_sled.daemon.small_rack import RackError

        def test_it(sim_rack, nexus_model):
            vm = nexus_model.create_instance("web-1").wait()
            seen = sim_rack.expect("web-1", "running", within=60).wait()
            for who in (vm, vm.id, str(vm.id), seen, "v1", seen.propolis_id, str(seen.propolis_id)[:8], "WEB-1"):
                assert sim_rack.expect(who, "running", within=0).wait().propolis_id == seen.propolis_id
            with pytest.raises(AssertionError, match="no VMM is called 'web-2': v1 web-1"):
                sim_rack.expect("web-2", "running", within=0).wait()
        """
    )
    done.assert_outcomes(passed=1)


def test_of_a_state_that_is_none_the_line_of_the_test_is_shown_and_nothing_of_ours(project):
    done = project(
        """
        async def test_awaited(sim_rack):
            await sim_rack.expect("web", "runing", within=0)

        def test_waited_for(sim_rack):
            sim_rack.expect("web", "runing", within=0).wait()
        """
    )
    done.assert_outcomes(failed=2)
    said = done.stdout.str()
    assert said.count("(did you mean 'running'?)") >= 2
    assert not [name for name in ("small_rack.py", "testing.py") if name in said]


def test_rules_are_loaded_and_asserted(project):
    done = project(
        """
        import pytest

        RULES = "version: 1\\nname: x\\nrules: [{name: told, when: {publish: running}, do: {note: seen}}]\\n"

        def test_it(sim_rack, nexus_model):
            sim_rack.load(RULES)
            nexus_model.create_instance("web").wait()
            nexus_model.expect("web", "running", within=60).wait()
            sim_rack.assert_fired("told")
            sim_rack.assert_fired("told", times=1)
            for times in (0, 2):
                with pytest.raises(AssertionError, match=f"has fired 1 times, not {times} times"):
                    sim_rack.assert_fired("told", times=times)
            with pytest.raises(Exception, match="no rule 'tolt'; there are: told"):
                sim_rack.assert_fired("tolt")
        """
    )
    done.assert_outcomes(passed=1)


def test_a_marker_with_a_mistake_says_what_is_wrong(project):
    wrong = {
        '"no-such-scenario"': "cannot be read",
        '"version: 1\\nflet: {}\\n"': "E102",
        '"happy", sleed=3': "takes name, seed and sleds, not sleed",
        "sleds=0": "sim_rack: a rack has 1 to 20,000 sleds, not 0",
    }
    tests = (f"@pytest.mark.scenario({marker})\ndef test_{n}(sim_rack): pass" for n, marker in enumerate(wrong))
    done = project("\n\n".join(["import pytest", *tests]))
    done.assert_outcomes(errors=len(wrong))
    for n, said in enumerate(wrong.values()):
        told = done.stdout.str().partition(f"ERROR at setup of test_{n} ")[2].partition("ERROR at setup")[0]
        assert said in told, told
    assert "testing.py" not in done.stdout.str(), "of how a fixture comes to be nothing is shown"


def test_another_nexus_is_told_by_overriding_one_fixture(project):
    done = project(
        """
        import pytest

        @pytest.fixture
        def model_elsewhere(_sim_loop):
            from nexus_client.stub.server.serve import NexusServer
            server = NexusServer()
            _sim_loop.call(server.__aenter__())
            yield server
            _sim_loop.call(server.__aexit__())

        @pytest.fixture
        def sim_nexus(model_elsewhere):
            return f"http://{model_elsewhere.internal}/"  # a URL does as well

        def test_it(sim_rack, model_elsewhere):
            assert sim_rack.nexus == model_elsewhere.internal
            assert len(model_elsewhere.nexus.records.sleds) == 1

        def test_no_model(request, sim_rack):
            with pytest.raises(pytest.UsageError, match="not ours"):
                request.getfixturevalue("nexus_model")
        """
    )
    done.assert_outcomes(passed=2)


def test_a_nexus_that_is_not_there_is_said_and_nothing_is_left(project):
    done = project(
        """
        import sim_sled.daemon.small_rack as rack
        rack.READY_S = 0.3

        def test_it(sim_rack):
            pass
        """,
        "--sim-nexus",
        "127.0.0.1:1",
    )
    done.assert_outcomes(errors=1)
    assert "Nexus at 127.0.0.1:1 does not take the sleds" in done.stdout.str()


def test_a_propolis_and_the_virtual_world(project):
    done = project(
        """
        import json, urllib.request, urllib.error
        import pytest

        def test_propolis(propolis):
            request = urllib.request.Request(f"http://{propolis}/instance", headers={"api-version": "5.0.0"})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=60)
            assert json.load(refused.value)["error_code"] == "NoInstance"

        FAILS = '''
        version: 1
        name: fails
        load: [{at: 0s, create: {hostname: web}}]
        expect: [{name: never-runs, after: {request: vmm_register}, lasts: 1m, never: {state: running}}]
        '''.replace("\\n        ", "\\n")

        def test_world(virtual_world):
            assert virtual_world("happy", seed=3).good
            with pytest.raises(AssertionError, match="never-runs"):
                virtual_world(FAILS)
            assert not virtual_world(FAILS, check=False).good
        """
    )
    done.assert_outcomes(passed=2)


def test_a_rack_starts_quickly_in_process(project):
    """No figure is asserted here, only that ten racks are nothing that anybody would notice."""
    done = project(
        """
        import pytest

        @pytest.mark.parametrize("n", range(10))
        def test_it(sim_rack, n):
            assert sim_rack.sleds
        """
    )
    done.assert_outcomes(passed=10)


def test_the_plugin_costs_nothing_where_it_is_not_used():
    """It is imported by every pytest of the environment: nothing heavy may come with it."""
    heavy = "aiohttp yaml rich msgspec typer sim_sled.core nexus_client"
    code = f"import sys, sim_sled.testing; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_the_entry_point_is_in_the_metadata():
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(r"\[project\.entry-points\.pytest11\]\nsim-sled = \"sim_sled\.testing\"", text)
