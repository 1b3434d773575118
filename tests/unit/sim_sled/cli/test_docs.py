"""`sim-sled docs`: which pages there are, what a person may call them, and how they look on a terminal."""

import ast
import json
import pydoc
from pathlib import Path

import pytest
from support.command import CliRunner
from support.rows import in_one_test

from sim_sled.cli import docs
from sim_sled.cli.main import app

ROOT = Path(__file__).parents[4]


def run(*words):
    return CliRunner().invoke(app, ["docs", *words])


def test_the_list_has_every_page_with_its_title_and_begins_with_readme():
    lines = run().output.splitlines()
    assert lines[0] == "README\tsim-sled: a simulated Oxide sled agent with a Propolis emulator"
    assert "recording\tRecordings: --record, replay, --scrub, tape" in lines
    assert len(lines) == 1 + len(list((ROOT / "docs").glob("**/*.md")))
    assert all(line.partition("\t")[2] for line in lines), "each says what it is"


@in_one_test(
    ("typed", "file"),
    [
        ("daemon", "docs/daemon.md"),
        ("daemon.md", "docs/daemon.md"),
        ("docs/daemon.md", "docs/daemon.md"),
        ("readme", "README.md"),
        ("spec", "docs/spec/README.md"),
        ("spec/nexus", "docs/spec/nexus.md"),
    ],
)
def test_a_page_is_found_by_its_name_and_as_links_write_it(typed, file):
    assert run(typed).output == (ROOT / file).read_text()


def test_who_misspells_a_page_is_told_the_nearest_names():
    wrong = run("nexus")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == "sim-sled: there is no page 'nexus' (did you mean 'spec/nexus' or 'nexus-side'?)\n"
    assert run("xyzzy").stderr == "sim-sled: there is no page 'xyzzy' (the list: sim-sled docs)\n"


def test_json_has_the_list_and_a_page():
    assert {"page", "about", "file"} == json.loads(run("--json").output)[0].keys()
    page = json.loads(run("scale", "--json").output)
    assert page["text"] == (ROOT / "docs/scale.md").read_text()
    assert (page["page"], page["file"]) == ("scale", str(ROOT / "docs/scale.md"))


def test_on_a_terminal_prose_fits_and_what_can_be_pasted_stays_whole(monkeypatch, capsys):
    command = "sim-sled import a.log '.[fast]' " + "--x " * 30
    text = f"# A `b`\n\n{'word ' * 60}[c](daemon.md), [scale.md](scale.md)\n\n```sh\n{command}\n```\n"
    monkeypatch.setenv("COLUMNS", "80")
    docs._page_through(text)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert f"    {command}".rstrip() in lines
    assert max(len(line) for line in lines if "--x" not in line) <= 80
    assert "c (daemon.md), scale.md" in " ".join(lines)


@pytest.mark.parametrize(
    ("pager", "named"),
    [
        ("no-such-pager -R", "no-such-pager"),
        ("LESSCHARSET=utf-8 no-such-pager", "no-such-pager"),
        (" ", " "),
        ("A=1", "A=1"),
        ("cat |", "cat |"),
    ],
)
def test_a_pager_that_is_not_there_does_not_lose_the_page(pager, named, monkeypatch, capsys):
    monkeypatch.delenv("MANPAGER", raising=False)
    monkeypatch.setenv("PAGER", pager)
    monkeypatch.setattr(pydoc, "pager", lambda _: None)  # what a shell makes of it
    docs._page_through("# A page\n\nwith words\n")
    said = capsys.readouterr()
    assert "with words" in said.out
    assert said.err == f"sim-sled: there is no pager '{named}'\n"


def test_texts_of_the_program_name_a_page_by_the_command_that_shows_it():
    """`docs/daemon.md` is nowhere for whoever has installed a wheel."""
    named = []
    for package in ("sim_sled", "propolis_stub", "nexus_client"):
        for path in (ROOT / package).glob("**/*.py"):
            text = path.read_text()
            if "docs/" not in text:
                continue
            nodes = [*ast.walk(ast.parse(text))]
            prose = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            named += [
                f"{path.name}:{node.lineno}"
                for node in nodes
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
                if "docs/" in node.value and path != ROOT / "sim_sled/cli/docs.py"
            ]
    assert named == []
