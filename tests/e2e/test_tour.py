"""`sim-sled tour`: it ends well, and it would say so if it did not."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console
from support import processes

from sim_sled.cli import tour
from sim_sled.cli.tour import Tour, TourError


@pytest.fixture(autouse=True)
def its_programs_are_forked(monkeypatch):
    monkeypatch.setattr(sys, "executable", processes.interpreter())


@pytest.mark.early
async def test_the_tour_ends_with_the_model_and_the_sleds_agreeing(capsys):
    assert await tour.run() == 0
    said = capsys.readouterr().out
    assert "the model and the sleds agree" in said
    [web] = [line for line in said.splitlines() if line.startswith("web ")]
    assert "running > rebooting > running" in web
    assert web.endswith("stopped")
    [db] = [line for line in said.splitlines() if line.startswith("db ")]
    assert "running > migrating > running" in db
    assert "Nexus: away" in said


def test_what_to_do_next_fits_a_terminal():
    assert max(map(len, tour._NEXT.splitlines())) <= 80


class Killed(Tour):
    """The tour with a Nexus that keeps its records in a file, and is killed where users have just been answered."""

    kills = 0
    lost = ()

    async def start(self, stack):
        self.stack = stack
        self.db = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "nexus.db"
        self.nexus_words = ("[::1]:0", "--unknown-vmm", "rules", "--db", str(self.db))
        await super().start(stack)

    async def kill(self, away_s):
        before = {each["name"]: each for each in (await super().ask("nexus", "GET", "/v1/instances"))["items"]}
        ports = json.loads((self.folder / "nexus.json").read_text())
        self.processes["nexus"].kill()
        await self.processes["nexus"].wait()
        (self.folder / "nexus.json").unlink()
        await asyncio.sleep(away_s)
        again = (ports["address"], *self.nexus_words[1:], "--control", ports["control"])
        await self.spawn(self.stack, "nexus", "nexus", *again)
        after = {each["name"]: each for each in (await super().ask("nexus", "GET", "/v1/instances"))["items"]}
        sleds = (await super().ask("nexus", "GET", "/v1/sleds"))["items"]
        self.kills += 1
        if set(before) != set(after) or {n: e["id"] for n, e in before.items()} != {
            n: e["id"] for n, e in after.items()
        }:
            self.lost += ((set(before), set(after)),)
        assert len(sleds) == len(self.sled_ids), "sleds are records, too"

    async def ask(self, who, method, path, body=None):
        if path == "/v1/restart":
            return await self.kill(tour.NEXUS_AWAY_MS / 1000)
        answer = await super().ask(who, method, path, body)
        if method == "POST" and path.endswith(("/cache/stop", "/db/migrate")):
            await self.kill(0)
        return answer


@pytest.mark.early
@pytest.mark.long
async def test_a_nexus_that_is_killed_in_the_tour_loses_nothing(capsys, monkeypatch):
    made = []
    monkeypatch.setattr(tour, "Tour", lambda console: made.append(Killed(console)) or made[0])
    # what users have seen is not kept over a kill: the states themselves are looked at
    monkeypatch.setattr(Killed, "see_pass", lambda self, name, state, before: asyncio.sleep(0))
    assert await tour.run() == 0, capsys.readouterr().out
    assert "the model and the sleds agree" in capsys.readouterr().out
    assert (made[0].kills, made[0].lost) == (3, ())


class Told(Tour):
    """A tour whose three processes say what a test wants."""

    def __init__(self, answers):
        super().__init__(Console(width=160))
        self.answers = answers
        self.sled_ids = {"sled-a": "a"}

    async def ask(self, who, method, path, body=None):
        answer = self.answers[path]
        if isinstance(answer, Exception):
            raise answer
        return answer


def ended(**changes):
    """What is said when all is well."""
    vmm = {"id": "v", "state": changes.pop("vmm", "destroyed")}
    known = {"instance": {"run_state": changes.pop("run_state", "stopped")}, "vmms": [vmm]}
    log = changes.pop("log", [{"text": "forgotten destroyed gen 7"}])
    state = {"breaches": [], "broken": []} | changes
    names = {f"/v1/instances/{name}": known for name in ("web", "db", "cache")}
    return Told({"/v1/state": state, "/vmms/v/log": log, **names})


async def test_nothing_is_wrong_when_everybody_agrees():
    assert await tour.check(ended()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"breaches": ["30: web"]}, "Nexus model: 30: web"),
        ({"broken": ["44: db"]}, "Nexus model: 44: db"),
        ({"run_state": "running"}, "web is running, not stopped"),
        ({"vmm": "stopping"}, "Nexus believes that VMM v of web is stopping"),
        ({"log": [{"text": "acked running"}]}, "the sled did not see VMM v of web to its end"),
        ({"log": []}, "the sled did not see VMM v of web to its end"),
        ({"log": TourError("404")}, "the sled did not see VMM v of web to its end"),
    ],
)
async def test_each_disagreement_is_told(changes, said):
    assert said in await tour.check(ended(**changes))


async def test_a_wish_that_is_never_fulfilled_ends_the_tour(monkeypatch):
    monkeypatch.setattr(tour, "STEP_S", 0.01)

    async def never():
        return False

    with pytest.raises(TourError, match="it never happened that pigs fly"):
        await ended().until("pigs fly", never)


async def test_a_process_that_ends_at_once_fails_the_tour_with_its_log(monkeypatch, capsys):
    async def broken(*_arguments, stdout, **_options):
        stdout.write(b"no such option\n")
        stdout.flush()
        return await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(3)")

    real = asyncio.create_subprocess_exec

    async def first_fails(*arguments, **options):
        monkeypatch.setattr(asyncio, "create_subprocess_exec", real)
        return await broken(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", first_fails)
    assert await tour.run() == 1
    said = capsys.readouterr().out
    assert "the tour failed" in said
    assert "nexus ended with 3" in said
    assert "no such option" in said


def test_no_word_is_cut_on_a_terminal_of_80_columns():
    tour = Told({})
    tour.instances = {"cache": {"run_state": "rebooting"}, "web": {"run_state": "migrating"}}
    tour.vmms = {
        name: {
            "hostname": name, "propolis_id": "92eb7d61-0000", "sled": "sled-a", "state": "migrating", "gen": 12,
            "migration_in": {"state": "in_progress"}, "migration_out": None, "propolis": "Rebooting",
            "acked": "destroyed",
        }
        for name in tour.instances
    }  # fmt: skip
    with (console := Console(width=80)).capture() as shown:
        console.print(tour)
    assert "…" not in shown.get()
    words = shown.get().split()
    assert words.count("Rebooting") == words.count("destroyed") == words.count("in_progress") == 2
