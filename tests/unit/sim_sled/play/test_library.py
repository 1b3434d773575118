"""What a person means by a scenario: a file, a folder, a name of the library, standard input."""

import io
import sys
from pathlib import Path

import pytest
from support.command import CliRunner
from support.rows import in_one_test

from sim_sled.cli.main import app
from sim_sled.play import library

ROOT = Path(__file__).parents[4]
LONELY = "version: 1\nname: lonely\nload: [{create: {hostname: web, count: 1}}]\n"


def run(*args, stdin=None):
    return CliRunner().invoke(app, list(args), input=stdin)


def test_the_library_is_the_folder_of_the_checkout():
    assert library.folder() == ROOT / "scenarios"
    assert set(library.names()) == {path.stem for path in (ROOT / "scenarios").glob("*.yaml")}


@in_one_test("name", library.names())
def test_every_scenario_of_the_library_is_found_by_its_name_wherever_one_stands(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert library.find(name) == [str(ROOT / "scenarios" / f"{name}.yaml")]


def test_a_file_that_exists_wins_over_a_name_of_the_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "happy").write_text(LONELY)
    assert library.find("happy") == ["happy"]


def test_a_folder_is_its_scenario_files_in_order(tmp_path):
    for name in ("b.yaml", "a.yml", "notes.txt"):
        (tmp_path / name).write_text(LONELY)
    assert library.find(str(tmp_path)) == [str(tmp_path / "a.yml"), str(tmp_path / "b.yaml")]


@pytest.mark.parametrize("given", ["happy.yaml", "./happy", "no-such-thing", "happy/"])
def test_what_is_written_like_a_file_is_no_name_of_the_library(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert library.find(given) == [given]
    assert run("check", given).exit_code == 2


def test_a_name_runs_as_its_file_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = run("run", "happy", "--seed", "1", "--json")
    assert by_name.exit_code == 0
    assert '"scenario": "happy"' in by_name.stdout or '"name": "happy"' in by_name.stdout


def test_a_scenario_comes_on_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"version: 1\nfleet: {sledz: 1}\n")))
    assert library.find("-") == ["-"]
    bad = run("check", "-", stdin="version: 1\nfleet: {sledz: 1}\n")
    assert bad.exit_code == 2
    assert "-:2:9: E102" in bad.stdout


def test_show_prints_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("scenario", "show", "stuck-stop").stdout == (ROOT / "scenarios/stuck-stop.yaml").read_text()


def test_copy_never_overwrites_what_somebody_has_edited(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("scenario", "copy", "stuck-stop").stdout == "stuck-stop.yaml\n"
    (tmp_path / "stuck-stop.yaml").write_text("mine")
    refused = run("scenario", "copy", "stuck-stop")
    assert (refused.exit_code, (tmp_path / "stuck-stop.yaml").read_text()) == (2, "mine")
    assert run("scenario", "copy", "stuck-stop", "--force").exit_code == 0
    assert (tmp_path / "stuck-stop.yaml").read_text() == (ROOT / "scenarios/stuck-stop.yaml").read_text()


@pytest.mark.parametrize("target", ["no/such/folder/x.yaml", "/proc/nowhere.yaml"])
def test_copy_says_where_it_cannot_write(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run("scenario", "copy", "happy", target)
    assert said.exit_code == 2
    assert "cannot write" in said.stderr


def test_a_typo_in_a_name_gets_the_nearest_one():
    said = run("scenario", "show", "stuk-stop")
    assert said.exit_code == 2
    assert "did you mean 'stuck-stop'?" in said.stderr


@pytest.mark.parametrize(
    "command",
    [("run", "stuck-stp"), ("check", "stuck-stp"), ("explore", "stuck-stp"), ("up", "--scenario", "stuck-stp")],
    ids=" ".join,
)
def test_who_misspells_a_name_is_told_the_nearest_one(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*command)
    assert result.exit_code == 2
    assert "stuck-stp: E120 cannot be read: did you mean 'stuck-stop'?" in result.output


def test_a_name_that_is_like_none_is_sent_to_the_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        "there is no such file, and none in the library (sim-sled scenario list)\n"
        in run("check", "qqqqqqqqqq").output
    )


@pytest.mark.parametrize("given", ["stuck-stp.yaml", "./stuck-stp"])
def test_what_is_written_like_a_file_is_compared_with_no_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "cannot be read: No such file or directory\n" in run("check", given).output


def test_a_folder_without_a_scenario_is_told_so(tmp_path):
    (tmp_path / "notes.txt").touch()
    result = run("check", str(tmp_path))
    assert result.exit_code == 2
    assert f"{tmp_path}: E120 cannot be read: there is no scenario in this folder (*.yaml, *.yml)\n" in result.output
