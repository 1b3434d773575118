"""A daemon's own log makes a scenario that plays the same run: `import --verify` is equal."""

import json
import sys

import pytest

from nexus_client.types import VmmState
from sim_sled.core import contract
from sim_sled.daemon import logs
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.incident.importing import import_logs
from sim_sled.language.check import parse_scenario

RULES = """
version: 1
name: small
fleet: {sleds: 2}
latency: console
rules:
  - {name: slow-stop, for: {hostname: slow}, when: {state: stopping}, do: {stall: 90s}}
  - {name: fails, for: {hostname: fails}, when: {edge: starting -> running}, do: {set_state: failed}, times: 1}
"""


@pytest.fixture
def written(capsys):
    """What the daemon's log has since it was asked last, as a service manager gets it."""
    logs.configure(logs.LogFormat.BUNYAN, "debug")
    yield lambda: capsys.readouterr().err
    logs.configure(level="info")


async def a_run(rack):
    """Boots, a reboot, a slow stop, a start that fails, a migration: ten minutes of the daemon's time."""
    pausing = rack.daemon.pausing
    pausing.pause()
    for name in ("web", "slow", "fails", "moves"):
        await rack.create_instance(name)
        await pausing.until(20_000_000, None)
    await rack.reboot_instance("web")
    await pausing.until(30_000_000, None)
    await rack.stop_instance("slow")
    await rack.stop_instance("web")
    await pausing.until(300_000_000, None)


async def test_our_own_log_imports_into_a_scenario_that_plays_the_same_run(written, tmp_path):
    scenario, problems = parse_scenario(RULES)
    assert scenario is not None, problems.text()
    async with SmallRack(scenario=scenario) as rack:
        await a_run(rack)
        seen = {name: [state for _, state in rack.meant(name).states] for name in ("web", "slow", "fails")}
    log = tmp_path / "own.log"
    text = written()
    log.write_text(text)
    found = import_logs([str(log)], "again", None)
    assert not found.differences, "\n".join(map(str, found.differences)) + "\n" + found.text
    assert 'hostname: "web"' in found.text
    assert 'hostname: "slow"' in found.text
    assert "slow-stop-takes-93s" in found.text, "the slow stop is a rule again"
    assert "fails-cannot-start" in found.text
    assert seen["web"][-1] == "destroyed"
    assert seen["fails"][-1] == "running", "the model has started it again"
    # it could not be equal if the log said something else: a reboot that nobody asked for
    lied = [line.replace('"to": "stopping"', '"to": "rebooting"') for line in text.splitlines()]
    log.write_text("\n".join(lied) + "\n")
    assert import_logs([str(log)], "again", None).differences


async def test_each_line_is_bunyan_and_says_who_where_and_what(written):
    async with SmallRack(pace="instant") as rack:
        await rack.create_instance("web")
        await rack.expect("web", "running", within_s=20)
    records = [json.loads(line) for line in written().splitlines()]
    for record in records:
        assert {"v", "name", "hostname", "pid", "level", "time", "msg"} <= record.keys()
        assert record["v"] == 0
    states = [each for each in records if each["msg"] == "observed new Propolis state"]
    assert states
    for each in states:
        assert {"propolis_id", "instance_id", "vm", "sled", "to", "gen"} <= each.keys()
        assert (each["vm"], each["sled"], each["level"]) == ("web", "sled-1", 20)
    assert [each["to"] for each in states][-1] == "running"
    requests = [each for each in records if each["msg"] == "request completed"]
    assert {(each["method"], each["response_code"]) for each in requests} >= {("PUT", 200)}


@pytest.mark.parametrize(("level", "lines"), [("info", {"fault injected"}), ("warning", set())])
async def test_at_info_only_the_rare_is_said(written, level, lines):
    logs.configure(logs.LogFormat.BUNYAN, level)
    async with SmallRack(pace="instant") as rack:
        await rack.create_instance("web")
        seen = await rack.expect("web", "running", within_s=20)
        await rack.daemon.submit(
            contract.InjectState(rack.daemon.ticket(), seen.sled_id, seen.propolis_id, VmmState.FAILED, illegal=False)
        )
    said = {json.loads(line)["msg"] for line in written().splitlines()}
    assert lines <= said
    assert "observed new Propolis state" not in said
    assert ("registered with Nexus" in said) == (level == "info")


def test_no_color_is_obeyed(written, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for no_color, coloured in (("1", False), ("", True)):
        monkeypatch.setenv("NO_COLOR", no_color)
        logs.configure(logs.LogFormat.HUMAN, "info")
        logs.get("x").info("hello", who="world")
        assert ("\x1b[" in written()) == coloured
