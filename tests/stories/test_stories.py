"""The stories that are fast enough for `make test-long`; `make stories` plays all twelve."""

import shlex
import shutil

import pytest
from support import processes

from tests.stories.__main__ import SLOW, STORIES, Failed, Teller, must, play, shell

_typed = set()


def shell_or_fork(line):
    """The first line of each command is typed; another one that needs nothing of a shell is forked: all that it would
    tell besides is how it starts.
    """
    words = shlex.split(line)
    if words[0] != "sim-sled" or set(line) & set("|&;<>()$`*?[#~"):
        return shell(line)
    if words[1] in _typed:
        return processes.forked("sim_sled", *words[1:])
    _typed.add(words[1])
    return shell(line)


@pytest.mark.parametrize("number", [pytest.param(n, id=f"{n} {STORIES[n][0]}") for n in STORIES if n not in SLOW])
@pytest.mark.early
@pytest.mark.long
def test_the_story_passes(number):
    if number == 7 and shutil.which("jq") is None:
        assert "missing: jq" in play(number), "what is missing is said, and the story does not pass"
        return
    assert play(number, shell_or_fork) == ""


def test_there_are_twelve():
    assert sorted(STORIES) == list(range(1, 13))


def test_a_story_in_which_something_is_wrong_says_what(monkeypatch):
    def wrong(user: Teller) -> None:
        user.sh("sim-sled port control", says="never")

    def missing(_: Teller) -> None:
        must(False, "missing: a thing")

    monkeypatch.setattr(f"{__name__}._typed", {"port", "racks"})
    for tell, said in ((wrong, "ended with 3"), (missing, "missing: a thing")):
        monkeypatch.setitem(STORIES, 99, ("wrong", tell))
        assert said in play(99, shell_or_fork)


def test_a_command_that_says_something_else_fails(tmp_path):
    user = Teller(tmp_path)
    with pytest.raises(Failed, match="does not say"):
        user.sh("echo one", says="two")


def test_the_first_of_each_command_is_typed_and_whatever_needs_a_shell(monkeypatch):
    monkeypatch.setattr(f"{__name__}._typed", set())
    again = processes.forked("sim_sled", "port", "model.control")
    assert [shell_or_fork(f"sim-sled port {field}") for field in ("control", "model.control")] == [
        shell("sim-sled port control"), again
    ]  # fmt: skip
    for line in ("sim-sled port control | cat", "sim-sled port '[x]'", "echo one", "cmp a b"):
        assert shell_or_fork(line) == shell(line)
