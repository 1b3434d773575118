"""Files to records: whatever stands in a line or around it is a record, or is counted and told (LG 1)."""

import io
import json
import math
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.incident.writing import Log
from support.profile import by_profile
from support.rows import in_one_test

from sim_sled.incident import lines
from sim_sled.incident import reading as reader
from sim_sled.incident.archives import Source
from sim_sled.incident.importing import NothingFound, import_logs
from sim_sled.incident.lines import Reading, parse_time
from sim_sled.incident.reading import read_lines


def read(content):
    reading = Reading()
    return list(read_lines(Source("x", lambda: io.BytesIO(content), len(content)), reading)), reading


def a_log():
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.stops(40, "web")
    return log


def record(**more):
    return json.dumps({"msg": "x", "name": "SledAgent", "time": "2026-08-24T09:00:00Z", "hostname": "h"} | more)


@in_one_test(
    "before",
    [
        pytest.param(b"\xef\xbb\xbf", id="the mark of a text file"),
        pytest.param(b"\0" * 5000, id="zeros of a file that was truncated while it was written"),
        pytest.param(b"/var/svc/log/oxide-sled-agent:default.log:", id="what grep says of several files"),
        pytest.param(b"a b.log:42:", id="grep -n, of a name with a space: not read"),
        pytest.param(b"oxide-sled-agent-default.log:42:", id="grep -n"),
    ],
)
def test_what_stands_before_a_record_does_not_hide_it(before):
    found, reading = read(before + record().encode() + b"\r\n")
    assert len(found) + sum(reading.odd.values()) == 1
    assert bool(found) is (b" " not in before)


@in_one_test(
    ("line", "kind"),
    [
        (b'{"msg":"x"', "cut line"),
        (b'{"msg":}', "no JSON"),
        (b"[" * 100_000, "no log line"),
        (b'{"a":' * 100_000, "cut line"),
        (b'{"a":' * 100_000 + b"}" * 100_000, "no JSON"),
        (b"{}", "JSON that is no log record"),
        (record(msg=7).encode(), "JSON that is no log record"),
        (record(time="yesterday").encode(), "no time"),
        (record(time=None).encode(), "no time"),
        (record(time=1787562000).encode(), "no time"),
        (b"2026-13-45 25:99:99.000Z INFO SledAgent/7 (x) on h: y", "no time"),
        (b"99:99:99.000Z INFO SledAgent (x): y", "no time"),
        (b"\0", "empty line"),
        (b"\xff\xfe{\0", "no log line"),
        (b"{" + b"x" * (reader.LINE_MAX + 1), "too long line"),
        (b'{"msg":"' + b"x" * (reader.LINE_MAX + 1) + b'"}', "too long line"),
    ],
)
def test_what_is_no_record_is_counted_by_its_kind_and_the_next_line_is_read(line, kind):
    found, reading = read(line + b"\n" + record().encode() + b"\n")
    assert dict(reading.odd) == {kind: 1}
    assert len(found) == 1


def test_a_line_without_end_needs_no_memory(monkeypatch):
    monkeypatch.setattr(reader, "LINE_MAX", 1000)
    asked = []

    class Endless(io.BytesIO):
        def readline(self, size=-1):
            asked.append(size)
            return b"x" * size if len(asked) < 50 else b""

    reading = Reading()
    assert list(read_lines(Source("x", Endless, 1), reading)) == []
    assert set(asked) == {1000}
    assert sum(reading.odd.values()) == 1


@in_one_test(
    ("text", "seconds"),
    [
        ("2026-08-24T09:00:60Z", 60),
        ("2026-08-24T09:00:60.5Z", 60.5),
        ("2026-08-24t09:00:00z", 0),
        ("2026-08-24T09:00:00.999999999999Z", 0.999999),
        ("2026-08-24T02:00:00-0700", 0),
        ("2026-08-25T08:59:00+23:59", 0),
    ],
)
def test_leap_seconds_and_zones_of_any_kind_are_times(text, seconds):
    assert parse_time(text) == 1_787_562_000_000_000 + round(seconds * 1e6)


@in_one_test(
    "text",
    [
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "2026-08-24T09:00:61Z",
        "2026-08-24T09:00:00+24:00",
        "2026-08-24T09:00:00+01:99",
        "٢٠٢٦-08-24T09:00:00Z",
        "2026-02-30T09:00:00Z",
        "x" * 1_000_000,
    ],
)
def test_a_time_in_which_nobody_logged_is_none(text):
    with pytest.raises(ValueError, match=r"no time|out of range"):
        parse_time(text)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 10**30, -(10**30), 2**63, 1.5, 1e308, math.nan, math.inf, "1e400", "9" * 5000]),
    st.sampled_from(["", "\ud800", "\0\x1b[2J", "x" * 5000, "2026-08-24T09:00:60Z", "2016-08-24T09:00:00Z"]),
    st.sampled_from(["2027-08-24T09:00:00+23:59", "1986-12-28T00:00:10Z", "Some(None)", "/vmms/x/state", "DELETE"]),
    st.lists(st.integers(), max_size=2),
    st.just({"msg": 1, "time": 2, "name": {}}),
)


@pytest.mark.nightly
@settings(deadline=None, max_examples=by_profile(20, nightly=600))
@given(st.data())
def test_whatever_type_a_field_has_the_rest_of_the_log_is_read(tmp_path_factory, data):
    records = [json.loads(line) for line in a_log().lines]
    for _ in range(data.draw(st.integers(1, 6))):
        each = data.draw(st.sampled_from(records))
        each[data.draw(st.sampled_from(sorted(each)))] = data.draw(VALUES)
    path = tmp_path_factory.mktemp("odd") / "x.log"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in records))
    try:
        imported = import_logs([str(path)], "x")
    except NothingFound:
        return
    assert imported.text.encode()
    assert imported.summary.replace("\n", "").isprintable()


def test_a_file_that_goes_on_without_records_is_left_and_that_is_said(monkeypatch):
    monkeypatch.setattr(lines, "BARREN_MAX", 100)
    one = record().encode() + b"\n"
    found, reading = read(one + b"\n" * 99 + one + b"\n" * 1000 + one)
    assert len(found) == 2
    assert any("100 lines from line 102 on are no records" in each for each in reading.unreadable), reading.unreadable


def test_a_line_without_end_is_left_and_that_is_said(monkeypatch):
    monkeypatch.setattr(reader, "BARREN_BYTES", 3 * reader.LINE_MAX)
    found, reading = read(record().encode() + b"\n" + b"x" * (4 * reader.LINE_MAX))
    assert len(found) == 1
    assert any("a line of more than 12 MiB; 1 record of it" in each for each in reading.unreadable)


def test_a_clock_without_dates_passes_midnight_and_is_no_clock_of_1986(tmp_path):
    """`looker` prints no date: what comes after midnight is later, and nobody has booted."""
    log = Log(start=datetime(2026, 8, 24, 23, 59, 20, tzinfo=UTC))
    log.register(1, "web")
    log.starts(2, "web")
    log.stops(60, "web", teardown=70)
    out = []
    for text in log.lines:
        fields = json.loads(text)
        out.append(f"{fields['time'][11:23].rstrip('Z')}Z INFO SledAgent (InstanceManager): {fields['msg']}")
        out += [f"    {key} = {value}" for key, value in fields.items() if key not in ("msg", "time", "name", "v")]
    path = tmp_path / "paste.txt"
    path.write_text("\n".join(out))
    imported = import_logs([str(path)], "x")
    assert imported.differences == ()
    assert "teardown-takes-70" in imported.text
    assert "1986" not in imported.summary
    assert "several versions" not in imported.summary
    assert "several incidents" not in imported.summary
    dated = list(read_lines(Source("x", lambda: path.open("rb"), 0), Reading(), date(2026, 8, 24)))
    assert [line.time_us for line in dated] == [
        parse_time(json.loads(text)["time"][:23].rstrip("Z") + "Z") for text in log.lines
    ]
