"""Twelve stories of users, each told by commands: `make stories`, or `python -m tests.stories 1 7 12`.

Each runs in an empty folder with racks of its own, prints `pass` or what failed, and leaves nothing running. A story
that rests on something which is not there fails with the name of what is missing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).parents[2]
LIMIT_S = 600
"""Of one command: stories begin on machines that do other things (a load of 25 on two cores took 240 from two)."""


class Failed(AssertionError):
    """What a user would have seen instead."""


def shell(line: str) -> list[str]:
    """What is started for a line that a user types."""
    return ["sh", "-c", line]


@attrs.define
class Teller:
    """A folder, and a user in it. `starts` says what is started for a line."""

    folder: Path
    starts: Callable[[str], list[str]] = shell
    environ: dict[str, str] = attrs.field(factory=dict)
    running: list[subprocess.Popen[str]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        runtime = self.folder / "run"
        runtime.mkdir(mode=0o700)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SIM_SLED")}
        bin_ = self.folder / "bin"
        bin_.mkdir()
        for name, module in (("sim-sled", "sim_sled"), ("propolis-stub", "propolis_stub")):
            (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
            (bin_ / name).chmod(0o755)
        self.environ = kept | {
            "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT), "NO_COLOR": "1",
            "PATH": f"{bin_}{os.pathsep}{kept['PATH']}",
        }  # fmt: skip

    def sh(self, command: str, *, code: int = 0, says: str = "") -> str:
        """A line as a user types it; what it printed. Raises `Failed`."""
        done = subprocess.run(
            self.starts(command), cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False,
            timeout=LIMIT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = done.stdout + done.stderr
        if done.returncode != code:
            raise Failed(f"`{command}` ended with {done.returncode}, not {code}:\n{said[-2000:]}")
        if says and says not in said:
            raise Failed(f"`{command}` does not say {says!r}:\n{said[-2000:]}")
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A program that goes on beside; it ends with the story."""
        process = subprocess.Popen(
            words, cwd=self.folder, env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.running.append(process)
        return process

    def file(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def get(self, address: str, path: str) -> str:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as response:
            return response.read().decode()

    def post(self, address: str, path: str, body: Any = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{address}{path}", data=data, headers={"content-type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"null")

    def port(self, field: str, more: str = "") -> str:
        return self.sh(f"sim-sled port {field} {more}").strip()

    def close(self) -> None:
        for name in json.loads(self.sh("sim-sled racks --json") or "{}"):
            with contextlib.suppress(Failed):
                self.sh(f"sim-sled down {name}")
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def must(what: object, otherwise: str) -> None:
    """Raises `Failed`."""
    if not what:
        raise Failed(otherwise)


STORIES: dict[int, tuple[str, Callable[[Teller], None]]] = {}
SLOW = {1, 3, 8, 9, 10, 11}
"""Minutes, or a browser: only by `make stories`. Their parts have tests of their own."""


def story(number: int, title: str) -> Callable[[Callable[[Teller], None]], Callable[[Teller], None]]:
    def add(tell: Callable[[Teller], None]) -> Callable[[Teller], None]:
        STORIES[number] = (title, tell)
        return tell

    return add


HOLDS = """version: 1
name: held
fleet: {sleds: 1}
rules:
- name: holds-running
  for: {hostname: web}
  when: {state: running}
  do: {hold: {publish: running}}
"""


@story(1, "first five minutes: clone, tour, a rack of one's own, a VM stuck and released")
def first_minutes(t: Teller) -> None:
    t.sh(f"git clone -q {ROOT} clone")
    t.environ["PYTHONPATH"] = str(t.folder / "clone")
    t.sh("sim-sled tour", says="agree")
    t.file("held.yaml", HOLDS)
    t.sh("sim-sled check held.yaml", says="0 errors")
    t.sh("sim-sled up --detach --scenario held.yaml", says="is ready")
    t.post(t.port("model.control"), "/v1/instances", {"name": "web"})
    t.sh("sim-sled expect web running --within 30s")
    users = json.loads(t.get(t.port("model.control"), "/v1/instances/web"))
    must(users["instance"]["run_state"] == "starting", "users see it running though the report is held")
    t.sh("sim-sled why web", says="holds-running")
    t.sh("sim-sled release holds-running")
    _until(
        lambda: json.loads(t.get(t.port("model.control"), "/v1/instances/web"))["instance"]["run_state"], "running"
    )
    t.sh("sim-sled down", says="has ended")


def _until(look: Callable[[], object], wanted: object, within_s: float = 30) -> None:
    until = time.monotonic() + within_s
    while (seen := look()) != wanted:
        must(time.monotonic() < until, f"{seen!r} after {within_s} s, not {wanted!r}")
        time.sleep(0.05)


@story(2, "four sleds beside a Nexus that is not ours: a process of its own")
def beside_nexus(t: Teller) -> None:
    t.start("sim-sled", "nexus", "[::1]:0", "--port-file", "nexus.json")
    nexus = t.port("address", "--port-file nexus.json --wait 30")
    users = t.port("control", "--port-file nexus.json")
    t.sh(f"sim-sled up --detach --name guests --sleds 4 --nexus '{nexus}'", says="is ready")
    must(len(json.loads(t.get(users, "/v1/sleds"))["items"]) == 4, "Nexus does not know four sleds")
    for n in range(4):
        t.post(users, "/v1/instances", {"name": f"web-{n}"})
    for n in range(4):
        t.sh(f"sim-sled expect web-{n} running --within 30s")
    t.sh("sim-sled scale guests --sleds 5")
    must(len(json.loads(t.get(users, "/v1/sleds"))["items"]) == 5, "the fifth sled did not join")
    t.post(users, "/v1/instances/web-0/stop")
    t.sh("sim-sled expect web-0 destroyed --within 30s")
    t.sh("sim-sled down guests", says="has ended")


@story(3, "pytest: the tests of examples/pytest, by the plugin")
def pytest_plugin(t: Teller) -> None:
    shutil.copytree(ROOT / "examples/pytest", t.folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    command = f"{sys.executable} -m pytest -q -p no:schemathesis -p no:cacheprovider tests"
    said = t.sh(command)
    must(re.search(r"\d+ passed", said) and "skipped" not in said, said)


@story(4, "the whole Sled Agent API is served")
def coverage(t: Teller) -> None:
    rows = json.loads(t.sh("sim-sled api --coverage --json"))
    must(len(rows) >= 90, f"{len(rows)} operations: there are 90 over all versions")
    how = Counter(row["how"] for row in rows)
    must(set(how) == {"emulated", "canned", "refused"}, f"how they are served: {dict(how)}")
    refused = sorted(row["operation"] for row in rows if row["how"] == "refused")
    must(len(refused) <= 3, f"refused: {refused}")
    unsaid = [row["operation"] for row in rows if not row["section"].startswith(("SA ", "SR "))]
    must(not unsaid, f"without a section: {unsaid}")


@story(5, "migration outcomes, as JUnit")
def migrations(t: Teller) -> None:
    t.sh("sim-sled run migration-matrix --seed 3 --junit good.xml")
    good = ET.parse(t.folder / "good.xml").getroot()
    must(list(good.iter("testcase")), "no test cases")
    must(not list(good.iter("failure")), "failures in a good run")
    t.sh("sim-sled run migration-matrix --seed 0 --variant source-wins --junit bad.xml", code=1)
    must(list(ET.parse(t.folder / "bad.xml").getroot().iter("failure")), "a Nexus that is wrong fails nothing")


LOST = """version: 1
name: lost
fleet: {sleds: 2}
rules:
- name: lost
  when: {state: running}
  do: {nexus_replies: {status: 503, times: 2}}
"""


@story(6, "updates are lost; metrics tell, and nothing is lost in the end")
def lost_updates(t: Teller) -> None:
    t.sh("sim-sled up --detach --sleds 2", says="is ready")
    users, control = t.port("model.control"), t.port("control")
    t.post(users, "/v1/faults", {"do": "lose", "match": "/vmms/", "times": 3})
    for n in range(6):
        t.post(users, "/v1/instances", {"name": f"web-{n}"})
    for n in range(6):
        t.sh(f"sim-sled expect web-{n} running --within 60s")
        _until(lambda n=n: json.loads(t.get(users, f"/v1/instances/web-{n}"))["instance"]["run_state"], "running", 60)
    _until(lambda: _sum(t.get(control, "/metrics"), "sim_sled_unacknowledged"), 0.0)
    metrics = t.get(control, "/metrics")
    must(_sum(metrics, "sim_sled_happenings_total", 'kind="retrying"') >= 3, "no retry was counted")
    must(_sum(t.get(users, "/metrics"), "sim_nexus_faults_fired_total", 'do="lose"') == 3, "three faults should show")
    must(_sum(metrics, "sim_sled_report_duration_seconds_count") > 0, "no report was timed")


def _sum(text: str, name: str, label: str = "") -> float:
    lines = [line for line in text.splitlines() if re.match(rf"{name}[ {{]", line) and label in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


HANGS = """version: 1
name: hangs
fleet: {sleds: 1}
rules:
- name: hangs
  for: {hostname: web}
  when: {state: stopping}
  do: {stall: forever}
"""


@story(7, "a VM hangs in stopping; the events say so, through jq")
def hang(t: Teller) -> None:
    must(shutil.which("jq"), "missing: jq is not installed here")
    t.file("hangs.yaml", HANGS)
    t.sh("sim-sled check hangs.yaml", says="0 errors")
    t.sh("sim-sled up --detach --scenario hangs.yaml", says="is ready")
    users = t.port("model.control")
    for name in ("web", "db"):
        t.post(users, "/v1/instances", {"name": name})
        t.sh(f"sim-sled expect {name} running --within 30s")
        t.post(users, f"/v1/instances/{name}/stop")
    t.sh("sim-sled expect db destroyed --within 30s")
    t.sh("sim-sled expect web stopping --within 30s")
    t.sh("sim-sled why web", says="hangs")
    lines = t.sh(
        'sim-sled events | jq -r \'select(.to == "destroyed" or .to == "stopping") | .to + " " + .hostname\''
    )
    seen = set(lines.split("\n"))
    must("stopping web" in seen and "destroyed db" in seen, f"jq finds {sorted(seen)}")
    must("destroyed web" not in seen, "web was destroyed though it hangs")


@story(8, "a rack under load keeps its limits")
def load(t: Teller) -> None:
    figures = json.loads(t.sh("sim-sled bench --sleds 32 --vms-per-sled 200 --json"))
    must(figures["vms"] == 6400 and not figures["broken"], str(figures))
    t.sh("sim-sled bench --sleds 1 --vms-per-sled 2 --min-transitions 1000000", code=1, says="beyond its limit")


@story(9, "from a failing seed to a minimal file, and from a log to a scenario")
def minimal(t: Teller) -> None:
    t.sh("sim-sled explore migration-matrix --runs 20 --variant source-wins --out seeds", code=1, says="failed")
    seed = (t.folder / "seeds").read_text().split()[0]
    t.sh(f"sim-sled shrink migration-matrix --seed {seed} --variant source-wins --out small.yaml")
    t.sh("sim-sled check small.yaml", says="0 errors")
    small = len((t.folder / "small.yaml").read_text().splitlines())
    must(
        small < len((ROOT / "scenarios/migration-matrix.yaml").read_text().splitlines()), f"{small} lines are no less"
    )
    t.sh("sim-sled run small.yaml --variant source-wins", code=1, says="FAIL")
    logs = ROOT / "tests/data/logs"
    of = f"{logs}/stop-race-404.nexus.jsonl {logs}/stop-race-404.sled-agent.jsonl"
    t.sh(f"sim-sled import {of} --out i.yaml --verify")
    t.sh("sim-sled check i.yaml", says="0 errors")


@story(10, "the page, in a real browser")
def page(t: Teller) -> None:
    t.sh("sim-sled up --detach", says="is ready")
    address = t.sh("sim-sled page").strip().split()[-1].removeprefix("http://")
    host, _, path = address.partition("/")
    request = urllib.request.Request(f"http://{host}/{path}", headers={"accept": "text/html"})
    with urllib.request.urlopen(request, timeout=60) as response:
        html = response.read().decode()
        must("default-src 'none'" in response.headers.get("content-security-policy", ""), "no strict policy")
    must("<title>" in html, "no title")
    must((ROOT / "tests/page").is_dir(), "missing: tests/page (the page's own tests)")
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    must(browser, "missing: no Chromium here")
    must(importlib.util.find_spec("playwright"), "missing: Playwright is not installed (make test-page brings it)")
    t.sh(f"cd {ROOT} && {sys.executable} -m pytest -q -x -p no:cacheprovider tests/page", says="passed")


@story(11, "the image's steps, the unit, a snapshot that is restored")
def deployed(t: Teller) -> None:
    said = t.sh(f"cd {ROOT} && {sys.executable} -m pytest -q -x -p no:cacheprovider tests/deploy")
    must("skipped" not in said, said)
    must(shutil.which("systemd-analyze"), "missing: systemd-analyze is not installed here")
    with socket.socket(socket.AF_INET6) as free:
        free.bind(("::1", 0))
        listen = f"'[::1]:{free.getsockname()[1]}'"  # the only thing in the file that another process could change
    t.sh(f"sim-sled up --detach --listen {listen}", says="is ready")
    t.post(t.port("model.control"), "/v1/instances", {"name": "web"})
    t.sh("sim-sled expect web running --within 30s")
    t.sh("sim-sled pause")
    before = _seen(t)
    t.sh("sim-sled snapshot one.json")
    t.sh("sim-sled down")
    t.sh(f"sim-sled up --detach --listen {listen}", says="is ready")
    t.sh("sim-sled pause")
    t.sh("sim-sled restore one.json")
    must(_seen(t) == before, f"what was restored is another: {_seen(t)}, not {before}")
    t.sh("sim-sled snapshot two.json")
    t.sh("cmp one.json two.json")
    t.sh("sim-sled resume")
    t.sh("sim-sled expect web running --within 10s")


def _seen(t: Teller) -> Any:
    """All VMMs and instances as people see them."""
    return json.loads(t.sh("sim-sled ps --json")), json.loads(t.get(t.port("model.control"), "/v1/instances"))


@story(12, "an author: check, explain, and rules that are mended under load without a dropped request")
def author(t: Teller) -> None:
    t.file("rules.yaml", HOLDS)
    t.file("bad.yaml", HOLDS.replace("hold:", "hodl:"))
    t.sh("sim-sled check bad.yaml", code=2, says="E1")
    said = t.sh("sim-sled explain stuck-stop stuck-1")
    must(said.strip(), "explain says nothing")
    fired = [
        line.split() for line in t.sh("sim-sled explain stuck-stop --seed 7", says="never-stops").splitlines()[1:]
    ]
    times = [float(words[0]) for words in fired]
    must(
        len(times) > 2 and times == sorted(times), f"the rules are not told in the order in which they fire: {fired}"
    )
    watching = t.start("sim-sled", "up", "--name", "author", "--watch", "--scenario", "rules.yaml")
    _until(lambda: "author" in json.loads(t.sh("sim-sled racks --json")), wanted=True)
    control, dropped, asked, over = t.port("control"), [], [0], threading.Event()

    def load() -> None:
        while not over.wait(0.005):  # some hundreds of requests per second, and time for the rack to answer
            try:
                t.get(control, "/vmms")
                asked[0] += 1
            except OSError as error:
                dropped.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for text, loaded in ((HOLDS.replace("hold:", "hodl:"), "holds-running"),
                             (HOLDS.replace("holds-running", "mended"), "mended")):  # fmt: skip
            t.file("rules.yaml", text)
            time.sleep(1.5)  # time to notice; a broken file changes nothing
            _until(lambda: [row["name"] for row in json.loads(t.get(control, "/rules"))], [loaded])
    finally:
        over.set()
        for thread in threads:
            thread.join()
    must(not dropped, f"{len(dropped)} requests were dropped: {dropped[:3]}")
    must(asked[0] > 100, f"only {asked[0]} requests were made")
    must(watching.poll() is None, "the rack has ended")


@contextlib.contextmanager
def teller(starts: Callable[[str], list[str]]) -> Iterator[Teller]:
    """In an empty folder; nothing is left."""
    with tempfile.TemporaryDirectory(prefix="story-") as folder:
        user = Teller(Path(folder), starts)
        try:
            yield user
        finally:
            user.close()


def play(number: int, starts: Callable[[str], list[str]] = shell) -> str:
    """Empty if the story passes, else what failed."""
    try:
        with teller(starts) as user:
            STORIES[number][1](user)
    except (Failed, OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error)
    return ""


def main(numbers: list[int]) -> int:
    """The number of stories that failed."""
    failed = 0
    for number in numbers or sorted(STORIES):
        began = time.monotonic()
        why = play(number)
        failed += bool(why)
        print(f"{'FAIL' if why else 'pass'}  {number:2}  {STORIES[number][0]}  ({time.monotonic() - began:.0f} s)")
        if why:
            print("      " + why.strip().replace("\n", "\n      "))
    return failed


if __name__ == "__main__":
    sys.exit(min(main([int(each) for each in sys.argv[1:]]), 100))
