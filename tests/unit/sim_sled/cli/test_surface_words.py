"""Sentences on a terminal: broken between words, in by as much as they began and a little more."""

import io
import shutil
import sys
from os import terminal_size

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from nexus_client.dropshot.telling import fitted, wrapped
from sim_sled.cli.scenario import check
from sim_sled.cli.surface import fail, say

LONG = "       Propolis waits for starting block backends (backends), due at 31.202 s, and nothing else\nshort\n"


def test_what_is_too_long_goes_on_a_little_further_in():
    assert wrapped(LONG, 60) == (
        "       Propolis waits for starting block backends\n"
        "         (backends), due at 31.202 s, and nothing else\n"
        "short\n"
    )


def test_a_command_to_paste_stays_whole():
    again = "    again: sim-sled run happy --seed 16621072168558932164 --swarm --hazard fails_unregistered\n"
    bare = again.removeprefix("    again: ")
    assert wrapped(again + bare, 60) == again + bare


EXCERPT = """\
bad.yaml:2:70: E102 unknown field 'titel'; known: version, name
    2 | {}{{titel: x, {}}}
      | {}^^^^^
"""


def test_of_an_excerpt_the_part_around_its_mark_is_shown():
    told = wrapped(EXCERPT.format("-" * 60, "+" * 200, " " * 61), 40)
    *said, line, mark = told.splitlines()
    assert said == ["bad.yaml:2:70: E102 unknown field", "  'titel'; known: version, name"]
    assert len(line) == 40
    assert line[mark.index("^") : mark.rindex("^") + 1] == "titel"


def test_an_excerpt_that_fits_stays_as_it_is():
    told = EXCERPT.format("- ", "", " " * 3)
    assert wrapped(told, 80) == told


def test_what_check_finds_fits_a_terminal_and_is_whole_in_a_pipe(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: terminal_size((60, 20)))
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nxyz: 3\n")
    monkeypatch.chdir(tmp_path)

    def told(*, on_terminal):
        monkeypatch.setattr(sys, "stdout", out := io.StringIO())
        out.isatty = lambda: on_terminal
        with pytest.raises(typer.Exit):
            check(["bad.yaml"])
        return out.getvalue()

    assert max(map(len, told(on_terminal=True).splitlines())) <= 60
    assert told(on_terminal=False).splitlines()[0].endswith(", load")


def test_in_a_pipe_nothing_is_broken(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: terminal_size((40, 20)))
    pipe, terminal = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True
    assert fitted(LONG, pipe) == LONG
    assert fitted(LONG, terminal) == wrapped(LONG, 40)


def test_a_complaint_fits_the_terminal_and_cannot_speak_to_it(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: terminal_size((40, 20)))
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    terminal.isatty = lambda: True
    say("\x1b[2Jno rack runs here, and none has run before")
    told = terminal.getvalue()
    assert told.startswith("sim-sled: ")
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= 40


def test_a_command_that_fails_says_why_in_one_sentence(capsys):
    with pytest.raises(typer.Exit) as end:
        fail("no such file")
    assert (end.value.exit_code, capsys.readouterr().err) == (2, "sim-sled: no such file\n")


@given(st.text(st.sampled_from("ab é/-\n"), max_size=300), st.integers(1, 120))
def test_no_word_is_lost_and_no_line_is_added_that_fitted(text, width):
    broken = wrapped(text, width)
    assert broken.split() == text.split()
    assert all(len(line) <= width or len(line.split()) == 1 or line.isspace() for line in broken.splitlines())
    if all(len(line) <= width for line in text.splitlines()):
        assert broken == text
