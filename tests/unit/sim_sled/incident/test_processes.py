"""`sim-sled import`: processes that end and begin, as SMF, their successors and their clocks tell."""

from datetime import UTC, datetime

import pytest
from support.incident.importing import S, actions, import_, only
from support.incident.writing import START, Log, nexus, uid

from sim_sled.incident.lines import Reading
from sim_sled.incident.reading import read_lines
from sim_sled.language.actions import KillPropolis, RebootSled, RestartAgent, RestartNexus


def test_an_agent_whose_end_smf_tells_was_away_from_then_and_its_host_did_not_boot(tmp_path):
    log = Log()
    log.register(1, "db")
    log.starts(2, "db")
    log.request(30, "db", "get")
    log.raw("[ Aug 24 09:00:50 Stopping because process dumped core. ]")
    log.raw("[ Aug 24 09:00:51 Executing stop method (:kill). ]")
    log.raw('[ Aug 24 09:00:52 Executing start method ("/opt/oxide/sled-agent/start"). ]')
    log.pid = 700
    log.agent_starts(53, 56)
    log.request(70, "db", "get", status=404)
    imported, scenario = import_(tmp_path, log)
    rule, restart = only(scenario, RestartAgent)
    assert rule.when.at == pytest.approx(49 * S, abs=0.2 * S), "its log begins at 1 s"
    assert restart.down.at(0) == pytest.approx(6 * S, abs=0.2 * S)
    dead = 1 + next(n for n, line in enumerate(log.lines) if "dumped core" in line)
    begins = 1 + next(n for n, line in enumerate(log.lines) if "new(..) starting" in line)
    told = imported.text.partition("- name: brm1-restarts")[0].rpartition("rules:")[2]
    assert f":{dead}  its process ends" in told
    assert f":{begins}  the agent starts" in told
    assert "uncertain" not in told


def test_a_boot_is_proven_by_a_clock_that_believes_in_1986_and_that_is_said(tmp_path):
    log = Log()
    log.register(1, "db")
    log.starts(2, "db")
    log.request(60, "db", "get")
    log.pid, log.start = 650, datetime(1986, 12, 28, tzinfo=UTC)
    log.agent_starts(64, 66)
    log.start = START
    log.request(180, "db", "get", status=404)
    imported, scenario = import_(tmp_path, log)
    only(scenario, RebootSled)
    assert "in 1986, by its clock" in imported.text
    assert "taken for a boot" not in imported.text
    assert "believed in 1986" in imported.summary


def test_a_nexus_was_away_from_its_end_until_it_starts(tmp_path):
    log, far = Log(), nexus()
    log.register(1, "db")
    log.starts(2, "db")
    far.line(1, "authorize nothing")
    far.line(40, "authorize nothing")
    far.raw("[ Aug 24 09:00:41 Stopping because process dumped core. ]")
    far.pid = 9
    far.line(49, "setting up nexus server")
    far.line(80, "something")
    imported, scenario = import_(tmp_path, log, far)
    rule, restart = only(scenario, RestartNexus)
    assert (rule.when.at, restart.down.at(0)) == (40 * S, 8 * S), "its log begins at 1 s"
    assert "invented" not in imported.text.partition("rules:")[2]


def test_of_several_nexuses_one_that_begins_anew_is_told_and_stops_nobody(tmp_path):
    log, one, other = Log(), nexus(), nexus()
    other.host = f"oxz_nexus_{uid('other')}"
    log.register(1, "db")
    log.starts(2, "db")
    log.stops(63, "db")
    one.line(60, "something")
    one.pid = 9
    one.line(66, "setting up nexus server")
    one.line(90, "something")
    other.user(63, "db", "stop")
    imported, scenario = import_(tmp_path, log, one, other)
    assert actions(scenario, RestartNexus) == []
    assert "one of several Nexuses, was away for 6s" in imported.summary
    assert imported.differences == ()


def test_a_propolis_that_comes_back_empty_is_not_one_that_is_silent_for_ever(tmp_path):
    """Its agent first meets no answer; then the new process says that it has no VM."""
    log, zone = Log(), Log(f"oxz_propolis-server_{uid('vmm db')}", "propolis-server")
    log.register(0, "db")
    log.starts(1, "db")
    zone.line(7, "publishing new instance state", gen=3, state="Running")
    zone.raw("thread 'vcpu-3' panicked at lib/propolis/src/vcpu.rs:220:18:")
    zone.raw("[ Aug 24 09:00:45 Stopping because process dumped core. ]")
    zone.pid = 700
    zone.line(46.1, "Starting server...")
    silent = "communication error checking up on Propolis, but the zone is still running..."
    log.line(45.4, silent, "W", **log.ids("db"), error="Communication Error")
    log.line(47, "Propolis monitor unexpectedly reported no instance, marking as failed", "W", **log.ids("db"))
    log.publishes(47.1, "db", "Failed", 4)
    log.line(80, "instance runner exited main loop", **log.ids("db"))
    imported, scenario = import_(tmp_path, log, zone)
    rule, kill = only(scenario, KillPropolis)
    assert kill.restart
    assert rule.do[0].base.at(0) == pytest.approx(38 * S, abs=0.1 * S), "from running until its process died"
    assert "died or hung" not in imported.text
    assert imported.differences == ()


def test_a_propolis_that_answers_again_was_not_killed(tmp_path):
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    silent = "communication error checking up on Propolis, but the zone is still running..."
    log.line(45.4, silent, "W", **log.ids("db"), error="Communication Error")
    log.stops(60, "db")
    imported, scenario = import_(tmp_path, log)
    assert actions(scenario, KillPropolis) == []
    assert "did not answer for a while" in imported.text
    assert imported.differences == ()


def test_the_end_of_a_zone_is_no_death_of_its_propolis(tmp_path):
    log, zone = Log(), Log(f"oxz_propolis-server_{uid('vmm db')}", "propolis-server")
    log.register(0, "db")
    log.starts(1, "db")
    zone.line(7, "publishing new instance state", gen=3, state="Running")
    log.stops(60, "db")
    zone.line(60.7, "publishing new instance state", gen=6, state="Destroyed")
    zone.raw("[ Aug 24 09:01:03 Stopping because all processes in service exited. ]")
    imported, scenario = import_(tmp_path, log, zone)
    assert actions(scenario, KillPropolis) == []
    assert imported.differences == ()


@pytest.mark.parametrize(
    ("said", "near", "seconds"),
    [
        ("[ Aug 24 09:00:10 Enabled. ]", START, 10),
        ("[ Dec 31 23:59:59 Enabled. ]", datetime(2026, 1, 1, tzinfo=UTC), -1),
        ("[ Feb 30 09:00:10 Enabled. ]", START, 30),
        ("[ Foo 24 09:00:10 Enabled. ]", START, 30),
        ("[ Mar 24 09:00:10 Enabled. ]", START, 30),
    ],
    ids=["of that day", "of the year before", "no day", "no month", "months away"],
)
def test_smf_has_the_year_of_the_record_beside_it_or_its_time(tmp_path, said, near, seconds):
    from sim_sled.incident.archives import Source

    log = Log(start=near)
    log.raw(said)
    log.line(30, "something")
    path = tmp_path / "a.log"
    path.write_text(log.text())
    smf, record = read_lines(Source("a.log", lambda: path.open("rb"), 0), Reading())
    assert (smf.time_us - record.time_us) / S == seconds - 30


def test_what_nexus_heard_of_a_sled_in_1986_says_when_that_was(tmp_path):
    """It finds the time much later, and its clock says nothing of Nexus's before that."""
    log, far = Log(), nexus(0.4)
    log.register(1, "web")
    log.starts(2, "web")
    log.request(40, "web", "get", latency=2)
    log.start = datetime(1986, 12, 28, tzinfo=UTC)
    log.agent_starts(64, 66)
    log.request(67, "web", "get", 404, req_id=uid("asked"))
    log.start = START
    log.line(170, "Successfully put SledAgentInfo to nexus", component="SledAgent")
    error = f'Error Response: status: 404 Not Found; headers: {{"x-request-id": "{uid("asked")}"}}'
    gone = "sled-agent error indicates that this instance's VMM has failed!"
    far.line(90, gone, error=error, vmm_id=uid("vmm web"), instance_id=uid("instance web"))
    far.received(8.02, "web", "Running", 3)
    imported, scenario = import_(tmp_path, log, far)
    _, boot = only(scenario, RebootSled)
    assert boot.down.at(0) == pytest.approx((89 - 40) * S, abs=0.2 * S)
    assert "is 0.419 s ahead" in imported.summary


def test_a_propolis_that_dies_while_it_stops_fails_and_does_not_end_first(tmp_path):
    log = Log()
    log.register(0, "web")
    log.starts(1, "web")
    log.request(60, "web", "put")
    log.observes(60.1, "web", "Stopping", gen=4)
    log.line(70.1, "Propolis monitor unexpectedly reported no instance, marking as failed", "W", **log.ids("web"))
    log.publishes(71, "web", "Failed", 5)
    imported, scenario = import_(tmp_path, log)
    rule, _ = only(scenario, KillPropolis)
    assert (rule.when.state, rule.do[1].base.at(0)) == (("stopping",), 10 * S)
    assert (imported.differences, imported.failed) == ((), ())
