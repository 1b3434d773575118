"""Compose file, manifests, unit and action: held to their schemas, and their commands run here."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from support import processes
from support.deploying import ROOT, ended, line_with, started
from support.ports import a_port

SLED = "914e42ed-0e74-4719-90d7-21c1b5c132a2"
PROGRAM = [sys.executable, "-m", "sim_sled"]
FORKED = processes.forked("sim_sled")
"""What is tested of most commands is their words. Those of the action and of the service manager start."""
read = partial(yaml.load_all, Loader=yaml.CSafeLoader)
[COMPOSE] = read((ROOT / "compose.yaml").read_text())
MANIFESTS = [
    document
    for name in ("sleds", "campaign")
    for document in read((ROOT / f"deploy/kubernetes/{name}.yaml").read_text())
]
[ACTION] = read((ROOT / "deploy/action/action.yml").read_text())
UNIT = (ROOT / "deploy/systemd/sim-sled@.service").read_text()


@pytest.fixture
def environ(tmp_path):
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIM_SLED")}
    return kept | {"XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}


@cache
def judge(name):
    """By a schema, as check-jsonschema brings it."""
    text = (files("check_jsonschema") / f"builtin_schemas/vendor/{name}.json").read_text()
    return jsonschema_rs.validator_for(json.loads(text))


def faults(name, value):
    return [each.message for each in judge(name).iter_errors(value)]


def test_the_compose_file_and_the_action_are_what_their_schemas_say():
    assert faults("compose-spec", COMPOSE) == []
    assert faults("github-actions", ACTION) == []
    assert faults("compose-spec", COMPOSE | {"services": {"nexus": {"imag": "x"}}}), "the judge sees a typing error"
    assert faults("github-actions", {key: value for key, value in ACTION.items() if key != "runs"})


def test_the_manifests_are_what_the_cluster_takes():
    import kubernetes_validate  # with a validator of its own: a tenth of a second for whoever collects tests

    assert [each["kind"] for each in MANIFESTS] == ["Secret", "Service", "StatefulSet", "Job"]
    for each in MANIFESTS:
        kubernetes_validate.validate(each, "1.33", strict=True)
    wrong = json.loads(json.dumps(MANIFESTS[2]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


def test_nobody_is_root_and_nothing_is_written_to_the_image():
    for each in MANIFESTS[2:]:
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }  # fmt: skip
    for name in ("nexus", "sleds"):
        assert COMPOSE["services"][name]["read_only"] is True
        assert COMPOSE["services"][name]["cap_drop"] == ["ALL"]


def test_probes_and_scrapes_ask_for_what_is_served():
    container = MANIFESTS[2]["spec"]["template"]["spec"]["containers"][0]
    asked = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert asked == {"/healthz", "/readyz"}


def ask(address, path, token):
    request = urllib.request.Request(f"http://{address}{path}", headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.fixture
def ports():
    with ExitStack() as held:
        yield [held.enter_context(a_port()) for _ in range(4)]


def test_the_services_of_the_compose_file_find_each_other(environ, tmp_path, ports):
    """On loopback instead of the network that it makes; addresses are exchanged, and nothing else."""
    internal, lockstep, *controls = ports
    environ["SIM_SLED_TOKEN"] = "secret"

    def command(name, control):
        words = [re.sub(r"\[fd00:[^]]*\]", "[::1]", word) for word in COMPOSE["services"][name]["command"]]
        words = [word.replace(":12221", f":{internal}").replace(":12232", f":{lockstep}") for word in words]
        return FORKED + [word.replace(":12300", f":{control}") for word in words]

    nexus = started(command("nexus", controls[0]), environ, tmp_path)
    try:
        line_with(nexus, "control API")
        sleds = started(command("sleds", controls[1]), environ, tmp_path)
        try:
            assert "the rack is ready" in line_with(sleds, "control")
            known = ask(f"127.0.0.1:{controls[0]}", "/v1/sleds", "secret")
            assert len(known["items"]) == 4
            assert len(ask(f"127.0.0.1:{controls[1]}", "/sleds", "secret")) == 4
            for port in controls:
                check = [sys.executable, "-m", "sim_sled.healthcheck", f"127.0.0.1:{port}"]
                assert subprocess.run(check, env=environ, check=False).returncode == 0
            for name, port in zip(("nexus", "sleds"), controls, strict=True):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/metrics",
                    headers={"authorization": "Bearer secret", "host": f"{name}:12300"},
                )
                with urllib.request.urlopen(request, timeout=60) as response:
                    assert b"target_info" in response.read(), "as Prometheus of the compose file asks"
        finally:
            assert ended(sleds) == 0
    finally:
        assert ended(nexus) == 0


def test_a_pod_of_the_stateful_set_is_the_same_rack_each_time(environ, tmp_path, ports):
    container = MANIFESTS[2]["spec"]["template"]["spec"]["containers"][0]
    nexus = started([*FORKED, "nexus", "[::1]:0", "--port-file", str(tmp_path / "n.json")], environ, tmp_path)
    try:
        line_with(nexus, "control API")
        address = json.loads((tmp_path / "n.json").read_text())["address"]
        seen = []
        for control in ports[:2]:
            values = {"POD_NAME": "sim-sled-3", "POD_IP": "::1", "NEXUS": address}
            assert values.keys() | {"SIM_SLED_TOKEN"} == {each["name"] for each in container["env"]}
            words = [
                re.sub(r"\$\((\w+)\)", lambda found, values=values: values[found[1]], word)
                for word in container["args"]
            ]
            words = [word.replace(":12300", f":{control}") for word in words]
            pod = started([*FORKED, *words], environ | {"SIM_SLED_TOKEN": "secret"}, tmp_path)
            try:
                line_with(pod, "is ready")
                seen.append([row["sled_id"] for row in ask(f"[::1]:{control}", "/sleds", "secret")])
            finally:
                assert ended(pod) == 0
        assert seen[0] == seen[1]
        assert len(seen[0]) == 1
    finally:
        assert ended(nexus) == 0


def test_a_pod_of_the_campaign_plays_its_own_seeds(environ, tmp_path):
    shutil.copy(ROOT / "scenarios/stuck-stop.yaml", tmp_path / "scenario.yaml")
    container = MANIFESTS[3]["spec"]["template"]["spec"]["containers"][0]
    words = [word.replace("$(JOB_COMPLETION_INDEX)", "3") for word in container["args"]]
    assert "--first-seed=3000" in words
    assert "--runs=1000" in words
    words = [word.replace("/campaign", str(tmp_path)).replace("--runs=1000", "--runs=2") for word in words]
    done = subprocess.run(
        FORKED + words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_the_action_starts_a_rack_says_where_it_is_and_has_its_verdict_at_the_end(environ, tmp_path):
    start = next(step for step in ACTION["runs"]["steps"] if step.get("id") == "up")
    inputs = {name: each["default"] for name, each in ACTION["inputs"].items()}
    inputs |= {"scenario": "stuck-stop", "seed": "7", "junit": "verdict.xml"}
    given = {
        name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], value)
        for name, value in start["env"].items()
    }
    assert "$" not in "".join(given.values())
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "sim-sled").write_text(f'#!/bin/sh\nexec {sys.executable} -m sim_sled "$@"\n')
    (bin_ / "sim-sled").chmod(0o755)
    environ |= given | {"PATH": f"{bin_}{os.pathsep}{environ['PATH']}", "GITHUB_OUTPUT": str(tmp_path / "out")}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", start["run"]], env=environ, cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=90,
    )  # fmt: skip
    try:
        assert done.returncode == 0, done.stderr
        outputs = dict(line.split("=", 1) for line in (tmp_path / "out").read_text().splitlines())
        wanted = {re.fullmatch(r"\$\{\{ steps\.up\.outputs\.(\w+) \}\}", each["value"])[1]
                  for each in ACTION["outputs"].values()}  # fmt: skip
        assert outputs.keys() == wanted
        assert all(re.fullmatch(r"\S+:\d+", value) for value in outputs.values())
    finally:
        down = [*PROGRAM, "down", "action"]
        ended = subprocess.run(down, env=environ, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "stuck-stop  seed 7" in ended.stderr) == (1, True), "nobody had an instance: no success"
    assert "<testsuite" in (tmp_path / "verdict.xml").read_text()


# --- the unit


def unit_words(word):
    """The values of a setting of the unit, in order."""
    return re.findall(rf"^{word}=(.*)$", UNIT, re.MULTILINE)


def test_the_unit_is_hardened_and_waits_for_its_word():
    assert unit_words("Type") == ["notify"]
    assert unit_words("DynamicUser") == unit_words("NoNewPrivileges") == ["yes"]
    assert unit_words("ProtectSystem") == ["strict"]
    assert unit_words("CapabilityBoundingSet") == [""]


def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path):
    lines = [line for line in UNIT.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.*", line) for line in lines)
    if shutil.which("systemd-analyze") is None:
        return  # without systemd only the form is judged (docs/running.md)
    unit = tmp_path / "sim-sled@rack.service"
    unit.write_text(UNIT.replace("/opt/sim-sled/bin/sim-sled", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    unit.write_text(UNIT.replace("Type=notify", "Typ=notify"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "Typ" in done.stderr, "the judge sees a typing error"


def test_the_unit_s_command_runs(environ, tmp_path):
    [exec_] = unit_words("ExecStart")
    [args] = [value.removeprefix("ARGS=") for value in unit_words("Environment") if value.startswith("ARGS=")]
    words = exec_.replace("%i", "rack").replace("$ARGS", args).split()[1:]
    [reload] = unit_words("ExecReload")
    heard, said = notified([*FORKED, *words], "is ready", environ, tmp_path, reload)
    assert heard == ["READY=1", "STOPPING=1"]
    assert "sled-4" in said
    assert "there is no scenario to read again" in said, "a rack that is reloaded goes on, whatever there is to read"


def real(program, *words):
    return [sys.executable, "-m", program, *words]


def notified(words, text, environ, tmp_path, reload=None):
    """What a program tells its service manager, from start to SIGTERM, and what it printed; `reload` is run between
    these, as the manager would.
    """
    path = Path(tmp_path) / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(60)
        process = started(words, environ | {"NOTIFY_SOCKET": str(path)}, tmp_path)
        try:
            heard = [sock.recv(4096).decode()]
            assert process.poll() is None
            if reload is not None:
                subprocess.run(reload.replace("$MAINPID", str(process.pid)).split(), check=True, timeout=60)
            process.terminate()
            heard.append(sock.recv(4096).decode())
            said = process.communicate(timeout=60)[0]
        finally:
            ended(process)
    assert text in said
    assert process.returncode == 0
    path.unlink()
    return heard, said


@pytest.mark.parametrize(
    "start", [pytest.param(processes.forked, id="forked"), pytest.param(real, id="real", marks=pytest.mark.long)]
)
def test_every_program_tells_its_service_manager(environ, tmp_path, start):
    """The imports of those that are forked in every run are also those of the `up` that is real (test_up.py)."""
    for words in (
        start("sim_sled", "nexus", "[::1]:0"),
        start("sim_sled", "serve", SLED, "[::1]:0", "[::1]:9", "--shutdown-wait", "0"),
        real("propolis_stub", "serve", "[::1]:0"),
    ):
        heard, _ = notified(words, "", environ, tmp_path)
        assert heard == ["READY=1", "STOPPING=1"], words
