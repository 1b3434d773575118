"""The stories that are fast enough for every day; `make stories` plays all twelve."""

import shutil

import pytest

from tests.stories.__main__ import SLOW, STORIES, Failed, Teller, must, play


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [pytest.param(n, id=f"{n} {STORIES[n][0]}") for n in STORIES if n not in SLOW])
@pytest.mark.long
def test_the_story_passes(number):
    if number == 7 and shutil.which("jq") is None:
        assert "missing: jq" in play(number), "what is missing is said, and the story does not pass"
        return
    assert play(number) == ""


def test_there_are_twelve():
    assert sorted(STORIES) == list(range(1, 13))


def test_a_story_in_which_something_is_wrong_says_what(monkeypatch):
    def wrong(user: Teller) -> None:
        user.sh("sim-sled port control", says="never")

    def missing(_: Teller) -> None:
        must(False, "missing: a thing")

    for tell, said in ((wrong, "ended with 3"), (missing, "missing: a thing")):
        monkeypatch.setitem(STORIES, 99, ("wrong", tell))
        assert said in play(99)


def test_a_command_that_says_something_else_fails(tmp_path):
    user = Teller(tmp_path)
    with pytest.raises(Failed, match="does not say"):
        user.sh("echo one", says="two")
