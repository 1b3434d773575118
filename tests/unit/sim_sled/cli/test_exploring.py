"""What `explore` tells of a campaign that does not come to its end, or whose findings cannot be kept."""

from concurrent.futures import Future
from pathlib import Path

import pytest
from support.command import CliRunner

from nexus_client.dropshot.streams import CannotWrite
from sim_sled.campaign.places import Here, NobodyPlays
from sim_sled.campaign.sheet import Sheet
from sim_sled.cli import exploring
from sim_sled.cli.main import app

ALWAYS_FAILS = """
version: 1
name: x
load: [{at: 0s, create: {hostname: web-1}}]
expect: [{name: impossible, after: {at: 1s}, lasts: 60s, never: {state: running}}]
"""
FOUND = "seed 0, and 2 more: expect/impossible"


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_scenario(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(ALWAYS_FAILS)


def explore(*words):
    return CliRunner().invoke(app, ["explore", "x.yaml", "--jobs", "1", *words])


class EndsEarly(Here):
    """Something happens instead of the fourth run."""

    happens: BaseException

    def submit(self, seeds):
        if 3 in seeds:
            ended = Future()
            ended.set_exception(self.happens)
            return ended
        return super().submit(seeds)


@pytest.mark.parametrize(
    ("happens", "code", "says"),
    [
        pytest.param(NobodyPlays("all have gone"), 3, "all have gone; until then 3 runs", id="nobody plays any more"),
        pytest.param(KeyboardInterrupt(), 130, "interrupted after 3 runs", id="Ctrl-C"),
    ],
)
def test_what_a_campaign_has_found_is_told_also_if_it_does_not_come_to_its_end(monkeypatch, happens, code, says):
    monkeypatch.setattr(EndsEarly, "happens", happens, raising=False)
    monkeypatch.setattr(exploring, "place_of", lambda job, _jobs: EndsEarly(job))
    done = explore("--runs", "9")
    assert done.exit_code == code
    assert says in done.stderr
    assert FOUND in done.stderr


def test_what_a_campaign_has_found_is_told_also_if_its_file_is_on_a_disk_that_is_full(monkeypatch):
    append = Sheet.append

    def full(sheet, ran):
        if ran.seed == 3:
            raise CannotWrite("cannot write results: No space left on device")
        append(sheet, ran)

    monkeypatch.setattr(Sheet, "append", full)
    done = explore("--runs", "9", "--results", "results")
    assert done.exit_code == 2
    assert "No space left on device; until then 3 runs" in done.stderr
    assert FOUND in done.stderr


@pytest.mark.parametrize("words", [["--found", "found"], ["--junit", "j.xml"], ["--out", "seeds"]])
def test_what_a_campaign_has_found_is_told_also_if_it_cannot_be_kept(monkeypatch, words):
    def full(*_):
        raise CannotWrite("cannot write it: No space left on device")

    monkeypatch.setattr(exploring, "write_text", full)
    monkeypatch.setattr("sim_sled.campaign.groups.write_text", full)
    done = explore("--runs", "3", *words)
    assert done.exit_code == 2
    assert FOUND in done.stdout
    assert done.stderr.endswith("sim-sled: cannot write it: No space left on device\n")


def test_a_folder_for_what_is_found_that_cannot_be_is_told_before_anything_is_played():
    done = explore("--found", "x.yaml/found")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "sim-sled: cannot write x.yaml/found: x.yaml is no folder\n"
