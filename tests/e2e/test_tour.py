"""`sim-sled tour`: it ends well, and it would say so if it did not."""

import asyncio
import sys

import pytest
from rich.console import Console

from sim_sled.cli import tour
from sim_sled.cli.tour import Tour, TourError


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
