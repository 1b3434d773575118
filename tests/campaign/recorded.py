"""An `up` that is recorded under load for minutes, and what its replay says of it.

    python -m tests.campaign.recorded [--seconds 180] [--sleds 4] [--workers 1] [--seed N] [--keep DIR]

A rack as users have it, by commands: `up --record` with rough rules, a crowd of users at the model of Nexus, `inject`
of every kind now and then, rules that are read anew by SIGHUP, a model that dies and comes back. Then `replay` of the
recording, which must find no difference, and `replay --open`, which says where the model would have done otherwise:
there is no difference but what follows from a Nexus that died at another moment. Ends with 1 if there is.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parents[2]
SIM = (sys.executable, "-m", "sim_sled")
USERS = 12
WAIT_S = 120
"""For an answer: on a host that has other things to do."""
_RULES = """
version: 1
name: recorded
nexus: {{hazards: none}}
fleet: {{sleds: {sleds}}}
latency: {{starting -> running: 1ms..200ms, stopping -> stopped: 1ms..100ms, request vmm_register: 0ms..50ms,
           migration ram_push: 10ms..500ms}}
rules:
- name: late
  when: {{publish: "*"}}
  chance: {chance}%
  do: {{delay: 1ms..2s}}
- name: twice
  when: {{publish: destroyed}}
  chance: 30%
  do: {{duplicate: {{copies: 1}}}}
- name: busy
  when: {{request: vmm_put_state}}
  chance: 10%
  do: {{fail: {{status: 503}}}}
- name: guests-die
  for: {{percent: 30%}}
  when: {{state: running}}
  do: [{{delay: 1s..5s}}, {{kill_propolis: {{restart: true}}}}]
- name: migrations-fail
  for: {{role: source}}
  when: {{migration: ram_push}}
  chance: 20%
  do: {{migration: {{result: failed, source: resumes, target: failed}}}}
- name: nexus-dies
  when: {{every: 20s..30s}}
  do: {{restart_nexus: {{down: 1s}}}}
"""
_FAULTS = (("stall", "300ms"), ("halt",), ("kill_propolis",), ("failed",), ("hold",))


class Users:
    """They ask for whatever comes to their minds; what is refused is counted."""

    def __init__(self, http, seed):
        self.http, self.chance, self.answers = http, random.Random(seed), collections.Counter()
        self.names = []

    async def ask(self, method, path, body=None):
        try:
            async with self.http.request(method, path, json=body) as answer:
                verb = path.split("/")[4:] or [path.split("/")[2]]
                self.answers[f"{method} {verb[0]} {answer.status}"] += 1
                return await answer.json() if answer.content_type == "application/json" else None
        except (aiohttp.ClientError, TimeoutError):
            self.answers["the model was down"] += 1
            return None

    async def act(self, number, until, sleds):
        made = 0
        while time.monotonic() < until:
            name = f"u{number}-{made}"
            made += 1
            self.names.append(name)
            await self.ask("POST", "/v1/instances", {"name": name})
            for _ in range(self.chance.randint(2, 8)):
                verb = self.chance.choice(("reboot", "stop", "start", "migrate"))
                body = {"dst_sled_id": self.chance.choice(sleds)} if verb == "migrate" else None
                await self.ask("POST", f"/v1/instances/{name}/{verb}", body)
                await asyncio.sleep(self.chance.uniform(0, 0.3))
            await self.ask("POST", f"/v1/instances/{name}/stop")
            await asyncio.sleep(0.2)
            await self.ask("DELETE", f"/v1/instances/{name}")


async def command(*words):
    process = await asyncio.create_subprocess_exec(
        *SIM, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def _inject(users, ports, until, chance):
    """By command, as people do; what it answers is counted."""
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(1, 3))
        if users.names:
            code, said = await command(
                "inject", chance.choice(users.names[-USERS:]), *chance.choice(_FAULTS), "--port-file", str(ports)
            )
            users.answers[f"inject: exit {code}"] += 1
            if code not in (0, 2):  # 2: its VM has none just now
                users.answers[f"inject: {said}"] += 1


async def _read_rules_anew(process, file, until, sleds):
    chance = 20
    while time.monotonic() < until:
        await asyncio.sleep(5)
        chance = 60 - chance
        file.write_text(_RULES.format(sleds=sleds, chance=chance))
        process.send_signal(signal.SIGHUP)


async def _load(process, control, folder, args):
    until = time.monotonic() + args.seconds
    timeout = aiohttp.ClientTimeout(WAIT_S)
    async with aiohttp.ClientSession(f"http://{control}", timeout=timeout) as http:
        users = Users(http, args.seed)
        while (told := await users.ask("GET", "/v1/sleds")) is None:  # `nexus-dies` may do so before anybody has come
            await asyncio.sleep(0.2)
        sleds = [each["id"] for each in told["items"]]
        tasks = [users.act(number, until, sleds) for number in range(USERS)]
        tasks += [_inject(users, folder / "ports.json", until, random.Random(args.seed))]
        tasks += [_read_rules_anew(process, folder / "rules.yaml", until, args.sleds)]
        await asyncio.gather(*tasks)
    return users


async def live(folder, args):
    """The rack and its users, for so long."""
    ports, rules = folder / "ports.json", folder / "rules.yaml"
    rules.write_text(_RULES.format(sleds=args.sleds, chance=20))
    words = ["up", "--name", f"recorded-{os.getpid()}", "--sleds", str(args.sleds), "--scenario", str(rules)]
    words += ["--record", str(folder / "r")]
    words += ["--port-file", str(ports), "--workers", str(args.workers), "--seed", str(args.seed)]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*SIM, *words, stdout=log, stderr=log, cwd=ROOT)
        try:
            while not ports.exists():
                await asyncio.sleep(0.05)
                if process.returncode is not None:
                    sys.exit(f"up ended with {process.returncode}: {(folder / 'log').read_text()[-2000:]}")
            users = await _load(process, json.loads(ports.read_text())["model"]["control"], folder, args)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
    return users.answers, process.returncode


def replayed(folder, *options):
    """Exit code and what `replay` found, of each recording in the folder."""
    parts = sorted(each for each in folder.iterdir() if each.is_dir()) or [folder]
    for each in parts:
        code, said = asyncio.run(command("replay", str(each), "--json", *options))
        yield each.name, code, said


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--sleds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        answers, code = asyncio.run(live(folder, args))
        for what, count in sorted(answers.items()):
            print(f"{count:8,} {what}")
        print(f"up: exit {code}, {sum(each.stat().st_size for each in folder.rglob('part-*')):,} bytes recorded")
        bad = False
        for name, code, said in replayed(folder / "r"):
            print(f"replay {name}: exit {code}\n{said[:3000]}")
            bad |= code != 0
        for name, code, said in replayed(folder / "r", "--open"):
            print(f"replay --open {name}: exit {code}\n{said[:3000]}")
    return int(bad)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
