"""What somebody may have meant."""

from difflib import get_close_matches

from hypothesis import given
from hypothesis import strategies as st

from sim_sled.language.words import nearest

names = st.text("abew-12", max_size=8)


@given(names, st.lists(names, max_size=8))
def test_the_nearest_name_is_the_one_that_difflib_finds(word, known):
    found = get_close_matches(word, sorted(filter(None, known)), n=1, cutoff=0.55)
    assert nearest(word, known) == (found[0] if found else None)


def test_of_names_that_are_equally_near_the_last_one_is_told():
    assert nearest("web", [f"web-{n}" for n in range(1, 10)]) == "web-9"
    assert nearest("web-x", ["web-2", "web-1", "db"]) == "web-2"


def test_nothing_is_near_to_nothing_and_a_missing_name_to_nobody():
    assert nearest("", ["web"]) is None
    assert nearest("web", [None, ""]) is None
