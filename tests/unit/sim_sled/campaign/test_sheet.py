"""The file of a campaign: what was written stays, what was torn is played again, another campaign's is refused."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.profile import by_profile
from support.rows import in_one_test

from nexus_client.dropshot.streams import CannotWrite
from sim_sled.campaign import sheet as sheets
from sim_sled.campaign.explore import explore
from sim_sled.campaign.guide import OneByOne
from sim_sled.campaign.job import Job
from sim_sled.campaign.sheet import BadSheet, Sheet, head_of, sealed
from sim_sled.language.check import parse_scenario
from sim_sled.play.run import How

TEXT = """
version: 1
name: x
load: [{at: 0s, create: {hostname: a}}]
rules: [{name: dies, when: {state: starting}, chance: 30%, do: {note: x}}]
expect: [{after: {rule: dies}, within: 1s, that: {vmm: failed}}]
"""


def job(variant=None, text=TEXT):
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    return Job("x.yaml", scenario, How(variant=variant))


def campaign(path, runs, *, resume=False, first=0, stop_after=None, variant=None, version="1", text=TEXT):
    one = job(variant, text)
    sheet = Sheet.open(path, head_of(one, f"from {first}", version), resume=resume)
    try:
        return explore(one, OneByOne(first), runs, sheet=sheet, stop_after=stop_after)
    finally:
        sheet.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The file of ten runs that nobody interrupted."""
    path = tmp_path_factory.mktemp("whole") / "whole"
    campaign(path, 10)
    return path.read_bytes()


def test_a_file_is_one_head_and_a_line_per_run_in_the_order_of_the_seeds(whole):
    lines = whole.decode().splitlines()
    assert '"campaign":2' in lines[0]
    assert [f'{{"seed":{n},' in line for n, line in enumerate(lines[1:])] == [True] * 10


def test_a_campaign_goes_on_after_every_byte_at_which_it_could_have_died(tmp_path):
    campaign(tmp_path / "whole", 5)
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / "torn"
    ends = [0, 1, 40, *(n + at for n, byte in enumerate(whole) if byte == 10 for at in (0, 1, 2, 20))]
    for end in ends:
        path.write_bytes(whole[:end])
        explored = campaign(path, 5, resume=True)
        assert path.read_bytes() == whole, end
        assert explored.runs == 5
        assert explored.resumed == max(0, whole[:end].count(b"\n") - 1), end


def test_resumed_runs_are_counted_as_if_they_had_been_played_now(tmp_path, whole):
    path = tmp_path / "half"
    path.write_bytes(whole[: len(whole) // 2])
    resumed, fresh = campaign(path, 10, resume=True), campaign(tmp_path / "fresh", 10)
    assert (resumed.failed, resumed.virtual_us, resumed.groups) == (fresh.failed, fresh.virtual_us, fresh.groups)


def test_more_runs_may_be_asked_for_and_fewer_are_read_from_the_file(tmp_path, whole):
    path = tmp_path / "more"
    path.write_bytes(whole)
    assert campaign(path, 4, resume=True).runs == 4
    assert path.read_bytes() == whole
    assert campaign(path, 12, resume=True).resumed == 10
    assert path.read_bytes().startswith(whole)


def test_a_failure_in_the_file_ends_a_campaign_that_wants_one(tmp_path, whole):
    path = tmp_path / "more"
    path.write_bytes(whole)
    explored = campaign(path, 1000, resume=True, stop_after=1)
    assert explored.failed == 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param({"first": 5}, r"\(seeds from 0, now from 5\)", id="other seeds"),
        pytest.param({"variant": "no-watcher"}, r"\(variant none, now no-watcher\)", id="a wrong Nexus"),
        pytest.param({"version": "2"}, r"\(sim-sled 1, now 2\)", id="other code"),
        pytest.param(
            {"text": TEXT.replace("30%", "31%")}, r"\(what the scenario's files say has changed\)", id="edited"
        ),
        pytest.param(
            {"text": TEXT.replace("name: x\n", "name: y\n")}, r"\(scenario x, now y\)", id="another scenario"
        ),
    ],
)
def test_the_file_of_another_campaign_is_refused_and_stays_as_it_is(tmp_path, whole, change, why):
    path = tmp_path / "other"
    path.write_bytes(whole)
    with pytest.raises(BadSheet, match=why):
        campaign(path, 10, resume=True, **change)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("there", [b"dear diary\n", b"dear diary", b"{}\n", b"\xff\xfe\n", b"[]\n"])
def test_a_file_that_is_no_campaign_is_refused_and_stays_as_it_is(tmp_path, there):
    path = tmp_path / "other"
    path.write_bytes(there)
    with pytest.raises(BadSheet, match="no file of a campaign"):
        campaign(path, 10, resume=True)
    assert path.read_bytes() == there


NO_RESULTS = [
    b"{}\n",
    b"nonsense\n",
    b"7\n",
    b"null\n",
    b"\n",
    b"\x00\x00\x00\n",
    b"\xff\xfe\n",
    b'{"seed":"x","virtual_us":1,"steps":1}\n',
    b'{"seed":2,"virtual_us":1e999,"steps":1}\n',
    b'{"seed":2,"virtual_us":1,"steps":1,"new":[1e999]}\n',
    b'{"seed":2,"virtual_us":1,"steps":1,"failures":[7]}\n',
    b'{"seed":' + b"[" * 200_000 + b"\n",
    b"x" * 2_000_000 + b"\n",  # longer than any of ours: no line that a loss of power has torn
]


@in_one_test("line", NO_RESULTS, ids=[str(n) for n in range(len(NO_RESULTS))])
def test_a_line_that_is_no_result_is_named_and_nothing_is_cut_off(tmp_path, whole, line):
    path = tmp_path / "bad"
    head = whole.splitlines(keepends=True)[:3]
    path.write_bytes(b"".join([*head, line, *head[1:]]))
    before = path.read_bytes()
    with pytest.raises(BadSheet, match="line 4 is no result"):
        campaign(path, 10, resume=True)
    assert path.read_bytes() == before


def test_a_line_with_a_seed_that_does_not_come_there_is_named(tmp_path, whole):
    path = tmp_path / "bad"
    lines = whole.splitlines(keepends=True)
    other, _ = sealed(re.sub(',"sum":"[0-9a-f]{8}"', "", lines[5].decode()), sum_of(lines[2]))
    path.write_bytes(b"".join([*lines[:3], other.encode()]))
    with pytest.raises(BadSheet, match="line 4 of the file has seed 4; this campaign has 2 there"):
        campaign(path, 10, resume=True)


def sum_of(line):
    return int(json.loads(line)["sum"], 16)


KINDS = ("flip", "cut in a line", "a line lost", "a line twice", "two lines swapped", "a byte more", "a byte less")


def damaged(whole, kind, at, bit):
    """The file with one damage, and the number of the first line that is not as it was."""
    lines = whole.splitlines(keepends=True)
    where = at % len(whole)
    number = whole[:where].count(b"\n") + 1
    nth = 1 + at % (len(lines) - 2)
    match kind:
        case "flip":
            return whole[:where] + bytes([whole[where] ^ 1 << bit]) + whole[where + 1 :], number
        case "cut in a line":  # something is missing in the middle
            return whole[:where] + whole[where + 1 + bit :], number
        case "a line lost":
            return b"".join(lines[:nth] + lines[nth + 1 :]), nth + 1
        case "a line twice":
            return b"".join([*lines[: nth + 1], *lines[nth:]]), nth + 2
        case "two lines swapped":
            return b"".join([*lines[:nth], lines[nth + 1], lines[nth], *lines[nth + 2 :]]), nth + 1
        case "a byte more":
            return whole[:where] + bytes([33 + bit]) + whole[where:], number
        case _:
            return whole[:where] + whole[where + 1 :], number


@pytest.mark.nightly
@settings(max_examples=by_profile(40, nightly=800), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(0, 7))
def test_whatever_is_damaged_is_told_by_its_line_or_played_again(tmp_path, whole, kind, at, bit):
    """What lost its end is as if it had not been written (and only the last line can): it is played again."""
    text, number = damaged(whole, kind, at, bit)
    path = tmp_path / "damaged"
    path.write_bytes(text)
    if text.endswith(b"\n") or text.count(b"\n") < len(whole.splitlines()) - 1:
        with pytest.raises(BadSheet, match=rf"\b(line {number}\b|no file of a campaign)"):
            campaign(path, 10, resume=True)
        assert path.read_bytes() == text
    else:
        assert campaign(path, 10, resume=True).resumed == 9
        assert path.read_bytes() == whole


def test_without_resume_a_file_that_is_there_is_not_touched(tmp_path, whole):
    path = tmp_path / "there"
    path.write_bytes(whole)
    with pytest.raises(BadSheet, match="--resume goes on with it"):
        campaign(path, 10)
    assert path.read_bytes() == whole


def test_two_campaigns_do_not_write_one_file(tmp_path):
    path = tmp_path / "one"
    sheet = Sheet.open(path, head_of(job(), "from 0", "1"), resume=False)
    with pytest.raises(BadSheet, match="another campaign is writing it"):
        campaign(path, 10, resume=True)
    sheet.close()


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sheets.os, "write", full)
    with pytest.raises(CannotWrite, match="x: No space left on device"):
        campaign(tmp_path / "x", 1)


@pytest.mark.parametrize("resume", [True, False])
def test_a_pipe_is_no_file_of_a_campaign_and_nobody_waits_for_it(tmp_path, resume):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(BadSheet, match="not a regular file"):
            Sheet.open(path, "head\n", resume=resume)


def test_a_file_that_cannot_be_made_is_a_sentence(tmp_path):
    with pytest.raises(CannotWrite, match="No such file or directory"):
        campaign(tmp_path / "none" / "x", 1)
    assert list(tmp_path.iterdir()) == []
