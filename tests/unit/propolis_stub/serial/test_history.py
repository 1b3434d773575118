"""The console without sockets: the history's two MiB, and what a migration carries along."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.profile import by_profile
from support.rows import in_one_test

from propolis_stub.serial.guest import LINE_MAX, Guest
from propolis_stub.serial.history import KEPT_BYTES, History, HistoryGone, Serial

MIB = KEPT_BYTES
GUEST = '"guest": {"hostname": "", "user": null, "line": "", "boots": 0}'


_CYCLE = bytes(i * 7 % 251 for i in range(251))


def pattern(start: int, length: int) -> bytes:
    """Bytes that tell their own offset."""
    return (_CYCLE * (length // len(_CYCLE) + 2))[start % len(_CYCLE) :][:length]


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


@in_one_test(
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


@pytest.mark.nightly
@given(
    st.lists(st.integers(1, MIB), max_size=6),
    st.integers(0, 4 * MIB),
    st.integers(0, 3 * MIB),
)
@settings(max_examples=by_profile(12, nightly=250))
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
    serial = Serial(filled(2 * MIB + 77), Guest("vm", b"r\xf6ot", b"upti\xc3", 3))
    packed = Serial.unpack(serial.pack())
    assert (packed.history.total, packed.history.beginning, packed.history.rest) == (
        serial.history.total,
        serial.history.beginning,
        serial.history.rest,
    )
    assert (packed.guest.hostname, packed.guest.user, packed.guest.line, packed.guest.boots) == (
        "vm",
        b"r\xf6ot",
        b"upti\xc3",
        3,
    )


def packed_history(*, beginning: int, rest: int, line: str = "") -> str:
    parts = {"beginning": beginning, "rest": rest}
    told = {name: base64.b64encode(bytes(size)).decode() for name, size in parts.items()}
    guest = {"hostname": "", "user": None, "line": line, "boots": 0}
    return json.dumps({"console": {"total": 4 * MIB, **told}, "guest": guest})


def test_a_full_history_is_taken_and_an_unbounded_line_is_cut() -> None:
    assert Serial.unpack(packed_history(beginning=MIB, rest=MIB)).history.total == 4 * MIB
    for size in (LINE_MAX, LINE_MAX + 1, 1 << 20):
        packed = json.loads(Serial(guest=Guest("vm", b"root", b"x" * size)).pack())
        assert len(Serial.unpack(json.dumps(packed)).guest.line) == LINE_MAX
        packed["guest"]["user"] = "u" * size
        assert len(Serial.unpack(json.dumps(packed)).guest.user or b"") == LINE_MAX


@in_one_test(
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


@in_one_test(
    "told",
    [
        {"beginning": MIB + 1, "rest": 0},
        {"beginning": MIB, "rest": MIB + 1},
        {"beginning": MIB + 1, "rest": MIB},
        {"beginning": MIB - 1, "rest": 1},
        {"beginning": 0, "rest": 0, "line": "\u0142"},
    ],
)
def test_a_history_of_other_sizes_than_it_says_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="console history"):
        Serial.unpack(packed_history(**told))
