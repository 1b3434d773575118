"""Each command as a program of its own: most tests fork theirs, which would find what it forgets to import."""

import inspect
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support import processes
from support.command import in_process
from support.profile import by_profile

from sim_sled.cli.main import app
from tests.e2e.test_readme import examples
from tests.stories.__main__ import SLOW, STORIES

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"bench": "bench_command", **dict.fromkeys(("docs", "manual", "scenario", "version"), "surface")}
"""Commands, and which file of this folder starts them."""
RULES = """version: 1
fleet: {sleds: 2}
rules:
- {name: now, when: {manual: now}, do: {note: seen}}
- {name: held, for: {hostname: web}, when: {publish: running}, do: {hold: {lasts: 1h}}}
"""
SAID = """
rules                                  held
log web                                registered starting
fire now                               fired now
release held                           released what held held
wait web running                       web is running
page                                   /page
pause                                  paused at
step                                   paused at
until 1s                               paused at
snapshot rack.json                     2 sleds, 1 VMM, the Nexus model
restore rack.json                      restored 2 sleds
resume                                 running,
down                                   has ended
replay record                          replayed without a difference
tape record --out tape.json
import busy-teardown.jsonl --out mine  1 sled, 1 instance
handoff --help                         handoff
tour --help                            tour
"""
"""What is said to a rack, one after the other, and some of the answer; and of what it has recorded."""
ASKING = {"rules", "fire", "release", "wait", "page", "pause", "step", "until", "resume", "handoff", "tour"}
"""Of these it takes `log` to know: a request and its answer, or words that are described. Every run forks them."""
LIMIT_S = 60


def test_every_command_is_started_as_a_program_somewhere():
    stories = [inspect.getsource(tell) for number, (_, tell) in STORIES.items() if number not in SLOW]
    typed = "\n".join([*(block for _, block in examples()), *stories])
    here = [line.split()[0] for line in SAID.split("\n") if line]
    names = {*app._commands, *(group.name for group in app.registered_groups)}
    assert names - {*re.findall(r"\bsim-sled ([a-z]+)", typed), *here, *ELSEWHERE} == set()
    for command, file in ELSEWHERE.items():
        assert re.search(rf"\b{command}\b", (ROOT / f"tests/e2e/test_{file}.py").read_text()), command


@pytest.mark.early
@pytest.mark.long
@pytest.mark.nightly
def test_what_examples_and_stories_leave_out_is_said_to_a_rack(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "busy-teardown.jsonl").symlink_to(ROOT / "tests/data/logs/busy-teardown.jsonl")

    def program(line):
        first, *others = line.split()
        forked = by_profile(first in ASKING, nightly=False)
        command = processes.forked("sim_sled") if forked else [Path(sys.executable).with_name("sim-sled")]
        command += [first, *others]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    program("up --detach --scenario rules.yaml --record record --pace instant")
    try:
        users = in_process("port", "model.control")[1].strip()
        body, kind = json.dumps({"name": "web"}).encode(), {"content-type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"http://{users}/v1/instances", body, kind)).close()
        assert in_process("expect", "web", "running", "--within", "30s")[0] == 0
        for line in SAID.strip().splitlines():
            words, _, wanted = line.partition("  ")
            assert wanted.strip() in program(words), words
    finally:
        in_process("down")
