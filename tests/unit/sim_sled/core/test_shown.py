"""shown.py: foreign text reaches a terminal or a file as one legible line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_sled.core.shown import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
        ("\x1b[2J\x1b]0;owned\x07red", r"\x1b[2J\x1b]0;owned\x07red"),
        ("first\nsecond\r\nthird", r"first\nsecond\r\nthird"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\x00\x08\x7f", r"\x00\x08\x7f"),
        ("\ud800", r"\ud800"),
        ("a\tb", r"a\tb"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    assert one_line(text) == shown


@given(st.text())
def test_whatever_comes_one_printable_line_is_shown(text):
    assert one_line(text).isprintable()
