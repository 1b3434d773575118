"""The console without sockets: the history's two MiB, and the make-believe guest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propolis_stub.contract import GuestEvent
from propolis_stub.serial.history import KEPT_BYTES, Guest, History, HistoryGone, Serial

MIB = KEPT_BYTES
GUEST = '"guest": {"hostname": "", "user": null, "line": "", "boots": 0}'


def pattern(start: int, length: int) -> bytes:
    """Bytes that tell their own offset."""
    return bytes((start + i) * 7 % 251 for i in range(length))


def filled(total: int) -> History:
    history = History()
    done = 0
    while done < total:
        step = min(100_003, total - done)
        history.add(pattern(done, step))
        done += step
    return history


def test_nothing_is_lost_up_to_two_mib() -> None:
    history = filled(2 * MIB)
    for start in (0, MIB - 5, MIB, 2 * MIB - 5):
        assert history.read(start, 10) == pattern(start, min(10, 2 * MIB - start))


def test_beyond_two_mib_the_middle_is_forgotten() -> None:
    history = filled(2 * MIB + 1000)
    assert history.read(MIB - 5, 100) == pattern(MIB - 5, 5), "a read that starts in the first MiB stops at its end"
    assert history.read(MIB + 1000, 10) == pattern(MIB + 1000, 10)
    assert history.read(2 * MIB + 990, 100) == pattern(2 * MIB + 990, 10)
    for start in (MIB, MIB + 999):
        with pytest.raises(HistoryGone) as gone:
            history.read(start, 10)
        assert str(gone.value) == (
            f"Requested byte offset {start} (-{2 * MIB + 1000 - start}) is no longer cached: Only have first {MIB} + "
            f"most recent {MIB} saved out of a total {2 * MIB + 1000} of output"
        )


@pytest.mark.parametrize(
    ("asked", "start"),
    [
        pytest.param({"from_start": 3}, 3, id="from the start"),
        pytest.param({"from_start": 10}, 10, id="from the end"),
        pytest.param({"from_start": 99}, 10, id="from beyond the end"),
        pytest.param({"most_recent": 3}, 7, id="the last three"),
        pytest.param({"most_recent": 10}, 0, id="all of it"),
        pytest.param({"most_recent": 99}, 0, id="more than there is"),
    ],
)
def test_where_a_client_means(asked: dict[str, int], start: int) -> None:
    history = filled(10)
    assert history.start_of(**asked) == start
    assert history.read(start, 99) == pattern(start, 10 - start)


@given(
    st.lists(st.integers(1, MIB), max_size=6),
    st.integers(0, 4 * MIB),
    st.integers(0, 3 * MIB),
)
@settings(max_examples=25)
def test_a_history_reads_like_the_whole_output_where_it_is_kept(sizes: list[int], start: int, length: int) -> None:
    history, everything = History(), b""
    for size in sizes:
        chunk = bytes([size % 256]) * size
        history.add(chunk)
        everything += chunk
    total = len(everything)
    assert history.total == total
    assert len(history.beginning) <= MIB
    assert len(history.rest) <= MIB
    gap = max(total - 2 * MIB, 0)
    if gap and MIB <= start < MIB + gap:
        with pytest.raises(HistoryGone):
            history.read(start, length)
        return
    end = min(start + length, MIB) if gap and start < MIB else start + length
    assert history.read(start, length) == everything[start:end]


def test_a_console_survives_its_journey() -> None:
    serial = Serial(filled(2 * MIB + 77), Guest("vm", "root", "upti", 3))
    packed = Serial.unpack(serial.pack())
    assert (packed.history.total, packed.history.beginning, packed.history.rest) == (
        serial.history.total,
        serial.history.beginning,
        serial.history.rest,
    )
    assert (packed.guest.hostname, packed.guest.user, packed.guest.line, packed.guest.boots) == (
        "vm",
        "root",
        "upti",
        3,
    )


@pytest.mark.parametrize(
    "text",
    [
        "(history)",
        "{}",
        "[]",
        f'{{"console": {{"total": 1, "beginning": "AAAA", "rest": ""}}, {GUEST}}}',
        f'{{"console": {{"total": 9, "beginning": "AA==", "rest": "AA=="}}, {GUEST}}}',
        f'{{"console": {{"total": 9, "beginning": "%", "rest": ""}}, {GUEST}}}',
    ],
)
def test_a_history_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="console history"):
        Serial.unpack(text)


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
    guest = Guest("vm", "root")
    assert talk(guest, "unamee\x7f\r").startswith("unamee\b \b\r\nLinux\r\n")
    assert talk(guest, "\x7f") == ""
    assert talk(guest, "poweroff\x03").endswith("^C\r\nroot@vm:~$ ")
    assert len(talk(guest, "x" * 5000)) == 1024
    assert talk(guest, "\x1b\x00") == ""


def test_an_empty_line_is_no_login() -> None:
    guest = Guest("vm")
    assert talk(guest, "\r") == "\r\nvm login: "
    assert guest.user is None
