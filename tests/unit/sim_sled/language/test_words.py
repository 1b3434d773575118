"""What somebody may have meant."""

import re
from difflib import get_close_matches

from hypothesis import given
from hypothesis import strategies as st

from sim_sled.language.check import parse_scenario
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


def test_of_very_many_names_the_first_are_looked_at_whatever_order_a_set_has():
    scenario, problems = parse_scenario(
        "version: 1\nload: [{at: 0s, create: {hostname: 'web-{n}', count: 6000}}]\n"
        "rules: [{name: x, for: {hostname: web-599x}, when: {state: running}, do: {note: x}}]\n"
    )
    assert scenario is not None, problems.text()
    [named] = re.findall("W300 .*did you mean '(web-[0-9]+)'", problems.text())
    assert named in sorted(f"web-{n}" for n in range(1, 6001))[:5000]
