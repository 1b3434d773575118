"""`sim-sled up` and what finds racks by name: a person's first five minutes, and what goes wrong in them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from support import processes
from support.command import in_process
from support.ports import a_port
from support.rows import in_one_test

LONG_S = 60


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A place of its own for the state of racks; what is left running in it at the end is a fault, and is ended."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    left = json.loads(in_process("racks", "--json")[1])
    for each in left.values():
        os.kill(each["pid"], signal.SIGKILL)
    assert not left, "a rack was left running"


def sim(*args):
    """Exit code, stdout, stderr. What starts a rack is a program; what asks one is called here."""
    if args[0] != "up":
        return in_process(*args)
    done = subprocess.run(
        processes.forked("sim_sled", *args), capture_output=True, text=True, timeout=LONG_S, check=False
    )
    return done.returncode, done.stdout, done.stderr


def ask(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=LONG_S) as answer:
        return json.load(answer)


def test_a_whole_small_rack_is_one_command(home):
    start = ("up", "--name", "demo", "--sleds", "2", "--pace", "instant", "--detach", "--port-file", "ports.json")
    code, out, err = sim(*start)
    assert code == 0, err
    assert "rack demo is ready" in out
    assert "this is not Nexus" in out
    assert "\n  end      sim-sled down demo\n" in out
    try:
        users = sim("port", "model.control")[1].strip()
        assert ask(users, "/v1/instances", {"name": "web"})["run_state"] in ("starting", "running")
        assert sim("expect", "web", "running", "--within", "20s")[:2] == (0, "web is running\n")
        assert "web" in sim("ps")[1], "the only rack that runs needs no name"
        assert sim("scale", "--sleds", "4")[0] == 0
        assert len(ask(sim("port", "control")[1].strip(), "/sleds")) == 4
        assert len(ask(users, "/v1/sleds")["items"]) == 4, "those that joined are registered with Nexus"
        racks = json.loads(sim("racks", "--json")[1])
        assert len(racks["demo"]["sleds"]) == 4
        head, demo = sim("racks")[1].splitlines()
        assert head.split("\t") == ["rack", "sleds", "control", "process"], "as every table in a pipe"
        assert demo.split("\t") == ["demo", "4", racks["demo"]["control"], str(racks["demo"]["pid"])]
        assert sim("port", "nexsu") == (2, "", "sim-sled: there is no 'nexsu' (did you mean 'nexus'?)\n")
        assert sim("port", "sleds.9.address")[2].endswith("(did you mean 'sleds.3.address'?)\n")
        assert sim("port", "q")[2] == "sim-sled: there is no 'q' (sim-sled port lists what there is)\n"
        assert json.loads((home / "ports.json").read_text()) == racks["demo"], "the port file follows"
        assert sim("scale", "demo", "--sleds", "1")[0] == 0
        assert len(ask(sim("port", "control")[1].strip(), "/sleds")) == 1
        code, _, err = sim("up", "--name", "demo")
        assert (code, "runs already" in err) == (2, True)
    finally:
        code, out, _ = sim("down", "demo")
    assert (code, out) == (0, "rack demo has ended\n")
    assert not (home / "ports.json").exists()
    assert list((home / "sim-sled").iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), id="alone"),
        pytest.param(("--workers", "2", "--sleds", "2"), id="with workers", marks=pytest.mark.long),
    ],
)
def test_a_rack_with_a_scenario_ends_in_order_with_the_terminal_it_was_started_on(home, more):
    """It used to read its rules again, and to go on where nobody saw it."""
    ours, theirs = os.openpty()
    here = "import fcntl, runpy, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    start = f"{here}; runpy.run_module('sim_sled', run_name='__main__', alter_sys=True)"
    rack = subprocess.Popen(
        [sys.executable, "-c", start, "up", "--scenario", "stuck-stop", *more],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    while b"is ready" not in said:
        said += os.read(ours, 65_536)
    rack.send_signal(signal.SIGHUP)  # by a person, who wants the rules to be read again
    assert sim("rules")[0] == 0
    os.close(ours)
    assert rack.wait(LONG_S) == 0


def test_time_of_a_rack_stands_flies_and_goes_on(home):
    """A boot of five seconds, and a stop that nobody waits for."""
    assert sim("up", "--name", "timed", "--pace", "console", "--detach")[0] == 0
    try:
        code, out, _ = sim("pause")
        assert (code, "paused at" in out) == (0, True)
        ask(sim("port", "model.control")[1].strip(), "/v1/instances", {"name": "web"})
        code, out, err = sim("until", "web", "running", "--json")
        assert code == 0, out + err
        at_us = json.loads(out)["now_us"]
        code, out, _ = sim("until", "web", "destroyed", "--within", "2m")
        assert code == 1
        assert "was not 'destroyed' within 120 s" in out
        assert "timeline:" in out
        code, out, _ = sim("until", "1h", "--json")
        assert (code, json.loads(out)["now_us"]) == (0, at_us + 3_720_000_000)
        assert sim("step", "2")[0] == 0
        code, _, err = sim("snapshot", "rack.json")
        assert (code, "1 sled, 1 VMM, the Nexus model" in err) == (0, True)
        assert sim("inject", "web", '{"state": "failed"}')[0] == 0
        assert sim("expect", "web", "failed")[0] == 0
        code, out, _ = sim("restore", "rack.json")
        assert (code, out.startswith("restored 1 sled, 1 VMM, the Nexus model, as of ")) == (0, True)
        assert sim("expect", "web", "running")[0] == 0
        assert sim("restore", "nowhere.json")[0] == 2
        assert sim("until", "web", "runing")[0] == 2
        assert sim("until", "soon")[0] == 2
        code, out, _ = sim("resume")
        assert (code, "running," in out) == (0, True)
    finally:
        assert sim("down")[0] == 0


def test_a_rack_judges_its_scenario(home):
    """Exit 1 and a JUnit file at the end, if something that was expected was not so; what is left out is said."""
    (home / "boots.yaml").write_text(
        'version: 1\nname: boots\nseed: 5\nfleet: {sleds: 1, name: "gimlet-{n}"}\n'
        "load: [{at: 0s, create: {hostname: x}}]\n"
        "expect: [{name: up, after: {state: starting}, that: {vmm: running}, within: 20s}]\n"
        "rules: [{name: stuck, for: {hostname: stuck}, when: {state: starting}, do: {stall: forever}}]\n"
    )
    for name, wanted in (("web", 0), ("stuck", 1)):
        words = ("up", "--scenario", "boots.yaml", "--junit", "out.xml", "--pace", "instant")
        judged = subprocess.Popen(
            processes.forked("sim_sled", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert judged.stdout.readline().startswith("the rack is ready")
        ask(sim("port", "model.control")[1].strip(), "/v1/instances", {"name": name})
        assert sim("port", "sleds.0.name")[1] == "gimlet-1\n", "its name for the sled"
        assert sim("until", "1m")[0] == 0
        judged.send_signal(signal.SIGTERM)
        _, err = judged.communicate(timeout=LONG_S)
        assert judged.returncode == wanted, err
        assert "'load' is not played" in err
        assert f'failures="{wanted}"' in (home / "out.xml").read_text()
        assert 'value="5"' in (home / "out.xml").read_text(), "the scenario's seed"
    assert sim("up", "--junit", "x.xml")[0] == 2


def test_a_second_rack_of_a_name_leaves_the_first_ones_log_alone(home):
    """It used to be emptied, and then taken away."""
    assert sim("up", "--name", "mine", "--detach")[0] == 0
    [log] = home.rglob("mine.log")
    before = log.read_bytes()
    code, out, err = sim("up", "--name", "mine", "--detach")
    assert (code, out) == (2, "")
    assert "a rack called 'mine' runs already" in err
    assert log.read_bytes() == before
    assert b"rack mine is ready" in before
    assert [each.name for each in log.parent.glob("*.log")] == ["mine.log"]
    assert sim("down", "mine")[0] == 0
    assert not list(log.parent.glob("*.log"))


def test_the_log_of_a_detached_rack_is_told_and_stays_where_somebody_wants_it(home):
    start = ("up", "--name", "kept", "--log-level", "info", "--pace", "instant", "--detach", "--log-file=night.log")
    code, out, err = sim(*start, "--json")
    assert (code, json.loads(out)["log"]) == (0, "night.log"), err
    assert sim("down")[:2] == (0, "rack kept has ended\n")
    assert "registered with Nexus" in (home / "night.log").read_text()
    assert list((home / "sim-sled").glob("*.log")) == []
    code, out, err = sim("up", "--name", "gone", "--detach")
    assert f"  log      {home}/sim-sled/gone.log\n" in out, err
    assert sim("down")[0] == 0
    assert sim("up", "--name", "killed", "--detach", "--log-file", "night.log")[0] == 0
    os.kill(json.loads(sim("racks", "--json")[1])["killed"]["pid"], signal.SIGKILL)
    until = time.monotonic() + LONG_S
    while json.loads(sim("racks", "--json")[1]):
        assert time.monotonic() < until
    assert "that was the end of its log, which stays" in sim("down", "killed")[2]
    assert (home / "night.log").exists()


def test_a_log_that_cannot_be_kept_is_refused_before_anything_starts(home):
    os.mkfifo(home / "pipe")  # whoever opens it waits for a reader; a device may have no end
    for bad in ("none/night.log", ".", "pipe", "/dev/null"):
        code, _, err = in_process("up", "--detach", "--log-file", bad)
        assert (code, err.startswith(f"sim-sled: cannot write {bad}: ")) == (2, True), err
    code, _, err = sim("up", "--log-file", "night.log")
    assert (code, "--detach" in err) == (2, True), err


def test_down_has_the_verdict_of_a_detached_rack(home):
    """Its log goes with it: whoever judges a rack in CI would never hear that something was not so."""
    (home / "judged.yaml").write_text(
        "version: 1\nname: judged\n"
        "expect: [{name: never-armed, after: {state: running}, within: 1m, that: {vmm: stopped}}]\n"
    )
    assert sim("up", "--name", "judged", "--scenario", "judged.yaml", "--junit", "out.xml", "--detach")[0] == 0
    ended, out, err = sim("down")
    assert (ended, out) == (1, "rack judged has ended\n"), err
    assert "FAIL judged" in err
    assert "'never-armed' (judged.yaml:3) was not judged" in err
    assert '{"v"' not in err, "what is for programs went with the log"
    assert "<testsuites" in (home / "out.xml").read_text()
    assert list((home / "sim-sled").iterdir()) == []


JUDGED = """
import signal
from sim_sled.daemon import racks
with racks.claimed("judged") as file:
    racks.ends_with("judged", None)
    racks.publish(file, {"pid": __import__("os").getpid()})
    signal.pause()
"""


def test_a_rack_that_is_killed_before_its_verdict_is_no_success_of_down(home):
    (home / "judged.py").write_text(JUDGED)
    rack = subprocess.Popen(processes.forked("judged"))
    until = time.monotonic() + LONG_S
    while not json.loads(sim("racks", "--json")[1]):
        assert time.monotonic() < until
    assert sim("down") == (1, "", "sim-sled: rack judged has ended without its verdict: it was killed\n")
    assert rack.wait(LONG_S) == -signal.SIGTERM


def test_where_racks_cannot_be_written_down_is_bad_input_and_no_address(home):
    (home / "sim-sled").write_text("")
    code, _, err = sim("up")
    assert (code, err) == (2, f"sim-sled: cannot write {home / 'sim-sled'}: File exists\n")
    (home / "sim-sled").unlink()


def test_a_rack_that_was_killed_counts_for_nothing_and_the_same_name_is_the_same_rack_again(home):
    def started():
        assert sim("up", "--name", "dead", "--sleds", "2", "--detach")[0] == 0
        found = json.loads(sim("racks", "--json")[1])["dead"]
        return found["pid"], {(each["sled_id"], each["serial"]) for each in found["sleds"]}

    pid, sleds = started()
    assert len(sleds) == 2
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + LONG_S
    while json.loads(sim("racks", "--json")[1]):
        assert time.monotonic() < until
    log = home / "sim-sled" / "dead.log"
    assert str(log) in sim("ps", "--rack", "dead")[2], "what it said last is there to be read"
    code, _, err = sim("down", "dead")
    assert (code, "rack dead is ready" in err, "was killed before" in err) == (3, True, True)
    assert list((home / "sim-sled").iterdir()) == [], "and is gone when somebody has cleaned up"
    assert sim("down", "dead")[0] == 3, "nobody is called so"
    assert started()[1] == sleds, "its name is free again"
    assert sim("down", "dead")[0] == 0


def test_a_scenario_comes_along_by_name_and_rules_change_over_http(home):
    code, _, err = sim("up", "--scenario", "stuck-stop", "--pace", "instant", "--detach")
    assert code == 0
    assert err.splitlines()[0].startswith("sim-sled: 'load' is not played: on a daemon nobody plays users")
    try:
        control = sim("port", "control")[1].strip()
        assert any(rule["name"] == "never-stops" for rule in ask(control, "/rules"))
        other = "version: 1\nname: other\nrules: [{name: seen, when: {state: running}, do: {note: hi}}]\n"
        request = urllib.request.Request(
            f"http://{control}/rules",
            json.dumps({"scenario": other}).encode(),
            {"content-type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=LONG_S) as answer:
            assert json.load(answer) == {"rules": 1}
        assert [rule["name"] for rule in ask(control, "/rules")] == ["seen"]
        bad = urllib.request.Request(
            f"http://{control}/rules", b'{"scenario": "rulez: 1"}', {"content-type": "application/json"}, method="PUT"
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(bad, timeout=LONG_S)
        assert "E102" in json.load(refused.value)["problems"]
        assert [rule["name"] for rule in ask(control, "/rules")] == ["seen"], "a bad one changes nothing"
    finally:
        assert sim("down")[0] == 0


@in_one_test(
    ("args", "code", "said"),
    [
        (["up", "--name", "No Such"], 2, "a rack's name is of a-z"),
        (["up", "--pace", "warp"], 2, "there is no 'warp'; it is one of dev, instant"),
        (["up", "--scenario", "no-such"], 2, "cannot be read"),
        (["up", "--sleds", "0"], 2, "--sleds"),
        (["up", "--sleds", "20001"], 2, "20,001"),
        (["up", "--control", "0.0.0.0:0"], 2, "token"),
        (["down"], 3, "no rack runs"),
        (["down", "nobody"], 3, "no rack called 'nobody' runs; there are none (sim-sled up starts one)"),
        (["down", "a", "--rack", "b"], 2, "which rack, a or --rack b?"),
        (["scale", "--sleds", "2"], 3, "no rack runs"),
        (["scale"], 2, "scale --sleds COUNT"),
        (["ps"], 3, "no rack runs"),
        (["ps", "--rack", "nobody"], 3, "no rack called 'nobody' runs"),
        (["port", "control"], 3, "no rack runs"),
        (["port", "x", "--port-file", "missing.json"], 2, "is no port file"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(home, args, code, said):
    got = in_process(*args)
    assert got[0] == code
    assert said in got[2]


def test_of_a_program_too(home):
    for words in (["ps"], ["down", "nobody"]):
        done = subprocess.run(processes.forked("sim_sled", *words), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == in_process(*words)


IMPATIENT = """
import sim_sled.daemon.small_rack as rack
from sim_sled.__main__ import main
rack.READY_S = 0.5
main()
"""


def test_a_nexus_that_is_not_there_ends_the_start_with_3(home):
    (home / "impatient.py").write_text(IMPATIENT)
    impatient = processes.forked("impatient", "up", "--nexus", "127.0.0.1:1")
    done = subprocess.run(impatient, capture_output=True, text=True, timeout=LONG_S, check=False)
    assert done.returncode == 3
    assert "does not take the sleds" in done.stderr


def test_port_reads_any_field_of_a_port_file(home):
    (home / "p.json").write_text('{"address": "[::1]:5", "sleds": [{"address": "a"}], "n": 3}')
    file = ("--port-file", "p.json")
    assert sim("port", "address", *file)[1] == "[::1]:5\n"
    assert sim("port", "sleds.0.address", *file)[1] == "a\n"
    assert sim("port", "n", *file)[1] == "3\n"
    assert sim("port", *file)[1].split() == ["address", "sleds.0.address", "n"]
    code, _, err = sim("port", "sleds.1.address", *file)
    assert (code, "there is no 'sleds.1.address' (did you mean 'sleds.0.address'?)" in err) == (2, True)


def test_of_two_racks_one_is_named_by_each_command(home):
    for name, more in (("one", ("--listen", "[::1]:0")), ("two", ())):
        assert sim("up", "--name", name, "--pace", "instant", "--detach", *more)[0] == 0
    try:
        code, _, err = sim("ps")
        assert (code, err) == (2, "sim-sled: 2 racks run: one, two; say which with --rack NAME\n")
        taken = sim("port", "control", "--rack", "one")[1].strip()
        ask(sim("port", "model.control", "--rack", "two")[1].strip(), "/v1/instances", {"name": "web"})
        assert sim("expect", "--rack", "two", "web", "running")[:2] == (0, "web is running\n")
        names, row = sim("ps", "--rack", "two")[1].splitlines()
        told = dict(zip(names.split("\t"), row.split("\t"), strict=True))
        assert (told["VMM"], told["host name"], told["state"]) == ("v1", "web", "running")
        assert sim("ps", "--rack", "one")[1].count("\n") == 1
        assert sim("why", "web", "--rack", "one")[0] == 2
        assert sim("scale", "--rack", "one", "--sleds", "2")[1] == "the rack has 2 sleds now\n"
        code, _, err = sim("up", "--name", "three", "--control", taken)
        assert (code, "address already in use; --control says where" in err) == (5, True), err
        sled = json.loads(sim("racks", "--json")[1])["one"]["sleds"][0]["address"]
        code, _, err = sim("up", "--name", "three", "--listen", sled)
        assert (code, "--listen says where" in err) == (5, True), err
    finally:
        assert [sim("down", "--rack", name)[0] for name in ("one", "two")] == [0, 0]


def test_a_port_that_is_given_is_the_sleds(home):
    """The model beside it took it first."""
    with a_port() as port:
        code, out, err = sim("up", "--listen", f"[::1]:{port}", "--pace", "instant", "--detach")
        assert code == 0, err
        assert f"http://[::1]:{port}" in out
        assert sim("down")[0] == 0
