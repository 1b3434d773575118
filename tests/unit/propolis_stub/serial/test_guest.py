"""The make-believe guest: it boots, asks for a login, echoes what is typed byte for byte, and knows some commands."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from propolis_stub.guest_events import GuestEvent
from propolis_stub.serial.guest import LINE_MAX, Guest


def talk(guest: Guest, *typed: str) -> str:
    return "".join(guest.typed(text.encode())[0].decode() for text in typed)


def test_a_guest_boots_asks_for_a_login_and_answers() -> None:
    guest = Guest("vm")
    boot = guest.boot().decode()
    assert "Linux version" in boot
    assert boot.endswith("vm login: ")
    assert talk(guest, "root\r") == "root\r\nroot@vm:~$ "
    assert talk(guest, "uname\r") == "uname\r\nLinux\r\nroot@vm:~$ "
    assert "x86_64" in talk(guest, "uname -a\n")
    assert "command not found" in talk(guest, "frobnicate\r\n")
    assert "reboot" in talk(guest, "help\r")
    assert talk(guest, "echo a b\r", "whoami\r", "hostname\r").count("\r\n") == 6
    assert talk(guest, "exit\r").endswith("vm login: ")


@pytest.mark.parametrize(
    ("command", "event"),
    [("reboot", GuestEvent.RESET), ("poweroff", GuestEvent.CHIPSET_HALT), ("halt", GuestEvent.CHIPSET_HALT)],
)
def test_some_commands_are_guest_events(command: str, event: GuestEvent) -> None:
    guest = Guest("vm")
    guest.typed(b"root\r")
    output, events = guest.typed(f"{command}\rmore".encode())
    assert events == [event]
    assert b"going down" in output
    assert b"more" not in output, "nobody reads what was typed after that"


def test_a_line_can_be_corrected_and_given_up_and_is_bounded() -> None:
    guest = Guest("vm", b"root")
    assert talk(guest, "unamee\x7f\r").startswith("unamee\b \b\r\nLinux\r\n")
    assert talk(guest, "\x7f") == ""
    assert talk(guest, "poweroff\x03").endswith("^C\r\nroot@vm:~$ ")
    assert len(talk(guest, "x" * 5000)) == 1024
    assert talk(guest, "\x1b\x00") == ""


def test_an_empty_line_is_no_login() -> None:
    guest = Guest("vm")
    assert talk(guest, "\r") == "\r\nvm login: "
    assert guest.user is None


# --- a serial line carries bytes ----------------------------------------------------------------------------------


def logged_in() -> Guest:
    return Guest("vm", b"root")


@in_one_test(
    "letters",
    [
        pytest.param("\u00f1".encode(), id="of two bytes"),
        pytest.param("\u20ac".encode(), id="of three bytes"),
        pytest.param("\U0001f600".encode(), id="of four bytes"),
        pytest.param("e\u0301".encode(), id="with an accent of its own"),
        pytest.param("\u00f1".encode("latin-1"), id="of Latin-1"),
        pytest.param(b"\xff\xfe\x80\xc0", id="bytes that are no letter in UTF-8"),
        pytest.param("\u0416\u4e2d".encode(), id="two letters"),
    ],
)
def test_letters_come_back_as_they_were_typed_however_they_were_cut(letters: bytes) -> None:
    for size in range(1, len(letters) + 1):
        guest = logged_in()
        pieces = [letters[at : at + size] for at in range(0, len(letters), size)]
        assert b"".join(guest.typed(piece)[0] for piece in pieces) == letters
        assert guest.typed(b"\x03")[0].startswith(b"^C")
        for piece in (b"echo ", *pieces):
            guest.typed(piece)
        assert guest.typed(b"\r")[0] == b"\r\n" + letters + b"\r\nroot@vm:~$ "


@given(typed=st.lists(st.integers(32, 255).filter(lambda key: key != 127), max_size=300).map(bytes), cuts=st.data())
def test_whatever_is_typed_is_echoed_byte_for_byte_in_pieces_of_any_size(typed: bytes, cuts: st.DataObject) -> None:
    guest, echoed, at = logged_in(), b"", 0
    while at < len(typed):
        size = cuts.draw(st.integers(1, len(typed) - at))
        echoed += guest.typed(typed[at : at + size])[0]
        at += size
    assert echoed == typed


@in_one_test("letter", ["x", "\u00f1", "\u20ac", "\U0001f600"])
def test_a_backspace_takes_one_letter_of_utf_8_or_one_byte(letter: str) -> None:
    guest = logged_in()
    guest.typed(b"a\xf1" + letter.encode())
    assert guest.typed(b"\x7f")[0] == b"\b \b"
    assert guest.line == b"a\xf1"
    guest.typed(b"\b")
    assert guest.line == b"a"


def test_a_return_and_a_line_feed_together_are_one_return() -> None:
    for typed in ([b"echo x\r\n"], [b"echo x\r", b"\n"], [b"echo x", b"\r", b"\n"]):
        guest = logged_in()
        answer = b"".join(guest.typed(piece)[0] for piece in typed)
        assert answer == b"echo x\r\nx\r\nroot@vm:~$ ", "the command runs once, and there is one prompt"
    assert logged_in().typed(b"\r\r")[0].count(b"~$ ") == 2
    assert logged_in().typed(b"\n\n")[0].count(b"~$ ") == 2
    assert logged_in().typed(b"\n\r")[0].count(b"~$ ") == 2


@pytest.mark.parametrize("typed", [b"power", b"power\xc3", b"x" * 9_999])
def test_what_is_half_typed_does_not_survive_a_reboot(typed: bytes) -> None:
    guest = logged_in()
    guest.typed(typed)
    guest.boot()
    assert guest.typed(b"root\r")[0] == b"root\r\nroot@vm:~$ ", "a name, and nothing before it"
    assert guest.typed(b"off\r")[0].startswith(b"off\r\n-sh: off:")


def test_a_long_line_is_cut_at_its_limit_and_costs_no_more_than_its_length() -> None:
    guest = logged_in()
    began = time.process_time()
    assert guest.typed(b"x" * (4 << 20))[0] == b"x" * LINE_MAX
    assert guest.typed(b"\xf1y")[0] == b""
    assert time.process_time() - began < 1
