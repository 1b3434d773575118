"""`sim-sled import`: several incidents in one folder, months apart, and a part of the time."""

from datetime import timedelta

import pytest
from support.command import CliRunner
from support.incident.importing import S, import_
from support.incident.writing import START, Log, stamp

from sim_sled.cli.main import app
from sim_sled.incident import silences
from sim_sled.incident.silences import Shortened, Silence

DAY = 86_400
HOUR = 3_600


def two_incidents(days=90):
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    log.stops(30, "db")
    log.start = START + timedelta(days=days)
    log.register(0, "web")
    log.starts(1, "web")
    log.stops(40, "web")
    return log


def test_months_between_two_incidents_are_played_as_two_hours_and_told(tmp_path):
    imported, scenario = import_(tmp_path, two_incidents())
    assert [load.action() for load in scenario.load] == ["create", "stop", "create", "stop"]
    assert scenario.load[2].at == pytest.approx(2 * HOUR * S + 37.5 * S, abs=S)
    assert "nothing is told: several incidents? It is played as 2 h" in imported.summary
    assert "to 2026-11-22T09:00:00Z" in imported.text
    assert imported.differences == ()


def test_a_silence_in_which_a_vmm_is_on_its_way_is_a_day_at_most(tmp_path, monkeypatch):
    assert silences.PENDING_US == DAY * S
    monkeypatch.setattr(silences, "PENDING_US", 8 * HOUR * S)  # a day takes too long here
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    log.observes(30, "db", "Stopping", gen=4)
    log.register(7 * HOUR, "web")
    log.register(40 * DAY, "etl")
    imported, scenario = import_(tmp_path, log)
    assert [round(load.at / HOUR / S) for load in scenario.load if load.create] == [0, 7, 15]
    assert "It is played as 8 h" in imported.summary


def test_a_time_within_a_silence_is_not_later_than_what_is_left_of_it():
    short = Shortened((Silence(10, 100, 5), Silence(200, 300, 20)))
    assert [short.of(at) for at in (9, 12, 60, 100, 200, 299, 300)] == [9, 12, 15, 15, 115, 135, 135]


@pytest.mark.parametrize(
    ("options", "created"),
    [
        (["--since", stamp(60)], "web"),
        (["--since", "2026-11-01"], "web"),
        (["--until", stamp(60)], "db"),
    ],
)
def test_a_part_of_the_time_is_one_of_the_incidents(tmp_path, options, created):
    path = two_incidents().save(tmp_path)
    done = CliRunner().invoke(app, ["import", path, "--verify", *options])
    assert done.exit_code == 0, done.output
    assert f'create: {{hostname: "{created}"' in done.stdout
    assert done.stdout.count("create:") == 1
    assert "before --since or after --until" in done.stderr


def test_a_time_in_which_nothing_was_written_and_one_that_is_none_are_told(tmp_path):
    path = two_incidents().save(tmp_path)
    empty = CliRunner().invoke(app, ["import", path, "--since", "2027-01-01"])
    assert empty.exit_code == 2
    assert "before --since or after --until" in empty.stderr
    wrong = CliRunner().invoke(app, ["import", path, "--since", "yesterday"])
    assert wrong.exit_code == 2
    assert "--since is a time like" in wrong.stderr
