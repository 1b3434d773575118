"""The tables by which the page shows states and offers faults."""

import re

import pytest

from sim_sled.core.happenings import Kind
from sim_sled.language.words import STATES, TERMINAL_STATES
from sim_sled.page.files import static
from sim_sled.page.looks import FAULTS, LOOKS, words_json

PAPER = re.compile(r"--plate: (#[0-9a-f]{6});")


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    light = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


def contrast(one, other):
    """As WCAG 2.2 counts it."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_state_has_a_look_and_nothing_else_has():
    assert set(LOOKS) == set(STATES)


def test_no_two_states_have_the_same_shape_so_that_colour_is_never_needed():
    assert len({look.shape for look in LOOKS.values()}) == len(LOOKS)


def test_every_shape_is_drawn():
    drawn = re.findall(r"^  (\w+): \{ d:", static()["shapes.js"].decode(), re.MULTILINE)
    assert {look.shape for look in LOOKS.values()} == set(drawn)


@pytest.mark.parametrize(("scheme", "nth"), [("light", 0), ("dark", 1)])
def test_every_colour_stands_out_from_the_page(scheme, nth):
    plate = PAPER.findall(static()["page.css"].decode())[nth]
    for word, look in LOOKS.items():
        assert contrast(getattr(look, scheme), plate) >= 4.5, f"{word} on {plate}"


def test_the_page_has_no_list_of_states_of_its_own():
    for name, text in static().items():
        if name.endswith(".js"):
            named = [state for state in STATES if f'"{state}"' in text.decode()]
            # one state may be asked about; several are a second table
            assert len(named) <= 2, f"{name} names {named}"


def test_words_tell_which_states_end_a_life_and_every_kind():
    words = words_json()
    assert {each["word"] for each in words["states"] if each["ends"]} == set(TERMINAL_STATES)
    assert set(words["kinds"]) == {kind.value.replace(" ", "-") for kind in Kind}
    assert [each["label"] for each in words["faults"]] == [fault.label for fault in FAULTS]
