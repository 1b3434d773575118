"""A daemon's own log makes a scenario that plays the same run: `import --verify` is equal."""

import contextlib
import json
import logging
import random
import re
import sys

import pytest

from nexus_client.types import VmmState
from sim_sled import logs
from sim_sled.core import contract
from sim_sled.daemon.small_rack import RackError, SmallRack
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


async def test_a_sled_that_lost_power_is_no_user_who_stops_and_starts(written, tmp_path):
    """Its log used to become an orderly stop, which nobody had asked for."""
    rule = "{name: dies, for: {sled: sled-1}, when: {manual: dies}, do: {power_off_sled: {lasts: 10s}}}"
    scenario, problems = parse_scenario(f"version: 1\nname: power\nfleet: {{sleds: 2}}\nrules: [{rule}]\n")
    assert scenario is not None, problems.text()
    async with SmallRack(scenario=scenario) as rack:
        pausing = rack.daemon.pausing
        pausing.pause()
        for name in ("web-1", "web-2"):
            await rack.create_instance(name)
        await pausing.until(20_000_000, None)
        assert {rack.meant(name).sled_id for name in ("web-1", "web-2")} == {each.id for each in rack.handles}
        rack.fire("dies")
        await pausing.until(300_000_000, None)
    log = tmp_path / "own.log"
    log.write_text(written())
    found = import_logs([str(log)], "again", None)
    assert not found.differences, "\n".join(map(str, found.differences)) + "\n" + found.text
    rule = r"for: {sled: sled-1}\n  when: {at: \S+s}\n  do: {reboot_sled: {down: (9\.9\d*|10)s}}"
    assert re.search(rule, found.text)
    assert "  stop: " not in found.text


FAULTS = """
version: 1
name: faults
fleet: {sleds: 3}
rules:
  - {name: late, for: {nth_vmm: 2}, when: {publish: running}, do: {delay: 20s}}
  - {name: refused, for: {nth_vmm: 3}, when: {request: vmm_register}, do: {fail: {status: 503, message: "no"}}}
  - {name: dies, for: {nth_vmm: 4}, when: {state: running}, do: [{delay: 30s}, {kill_propolis: {restart: true}}]}
"""


async def drawn_lives(rack, seed):
    """Users do what comes into their minds, and most of it is refused; minutes of the daemon's time."""
    drawn, pausing, names, now_us = random.Random(seed), rack.daemon.pausing, [], 0
    pausing.pause()
    for _ in range(14):
        verb = drawn.choice(["create", "create", "stop", "reboot", "migrate", "delete", "start"])
        with contextlib.suppress(RackError):
            if verb == "create" or not names:
                names.append(f"web-{len(names) + 1}")
                await rack.create_instance(names[-1])
            elif verb == "migrate":
                await rack.migrate_instance(drawn.choice(names), f"sled-{drawn.randint(1, 2)}")
            else:
                await getattr(rack, f"{verb}_instance")(drawn.choice(names))
        now_us += drawn.choice([500_000, 3_000_000, 15_000_000])
        await pausing.until(now_us, None)
    await pausing.until(now_us + 100_000_000, None)


AGAIN = [
    (3, None, "reboot: {hostname: web-2}"),  # asked for when nothing had happened for ten minutes
    (7, RULES, "403: Propolis refused it in the state"),  # ... of one that had ended, which needs no rule
    (71, FAULTS, "skip: 2"),  # the third VMM of an instance that moves to and fro
    (137, RULES, "asked for while it started"),  # a stop, in the very instant in which it began to run
    (2, RULES, "stopped -> destroyed: 0ms"),  # stopped before it ran
    (88, RULES, "stopped -> destroyed: 0ms"),  # ... before it even started
]


@pytest.mark.parametrize(
    ("seed", "text", "said"),
    [
        (4, RULES, "stopping -> destroyed: 0ms"),  # the source of a migration has its own way to the end
        (34, RULES, "rebooting -> running: 3s"),  # twice of one VMM, which is not one of 6 s
        (2, FAULTS, "propolis-dies"),
        (73, FAULTS, "stop was asked for"),  # ... and a reboot that is refused, as the end was not told yet
        *(pytest.param(*row, marks=pytest.mark.long) for row in AGAIN),
    ],
)
async def test_whatever_users_do_our_own_log_plays_it_again(written, tmp_path, seed, text, said):
    scenario = None if text is None else parse_scenario(text)[0]
    async with SmallRack(scenario=scenario, sleds=3, pace="dev", seed=seed) as rack:
        await drawn_lives(rack, seed)
    log = tmp_path / "own.log"
    log.write_text(written())
    found = import_logs([str(log)], "again", None)
    assert not found.differences, "\n".join(map(str, found.differences)) + "\n" + found.text
    assert found.failed == (), found.text
    assert said in found.text


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


def test_what_libraries_say_is_a_line_like_any_other(written):
    """Also a traceback: whoever reads the log by lines has an object per line."""
    logging.getLogger("sim_sled.http").error("PUT %s failed", "/x", exc_info=KeyError("a bug"))
    logging.getLogger("asyncio").warning("slow")
    first, second = map(json.loads, written().splitlines())
    assert (first["msg"], first["component"], first["level"]) == ("PUT /x failed", "sim_sled.http", 50)
    assert "KeyError: 'a bug'" in first["exception"]
    assert (second["msg"], second["component"], second["level"]) == ("slow", "asyncio", 40)


def test_in_somebodys_test_their_libraries_are_theirs(written):
    logging.getLogger().removeHandler(logs._ROUTED)
    logs.configure(logs.LogFormat.BUNYAN, libraries=False)
    logging.getLogger("asyncio").warning("slow")
    assert written() == ""


def test_no_color_is_obeyed(written, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for no_color, coloured in (("1", False), ("", True)):
        monkeypatch.setenv("NO_COLOR", no_color)
        logs.configure(logs.LogFormat.HUMAN, "info")
        logs.get("x").info("hello", who="world")
        assert ("\x1b[" in written()) == coloured
