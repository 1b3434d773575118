"""Copies without personal things: of recordings, of checkpoints, of tapes (`--scrub`)."""

import asyncio
import json
import re
from functools import partial

import pytest
from conformance.sled_under_test import DaemonSled
from conformance.tape_player import play_file, tapes
from support.command import in_process as sim
from support.daemon.recorded import (
    RULES,
    TAPES,
    change,
    everything_in,
    from_part,
    left_of,
    line_at,
    parts_with_a_checkpoint,
    personal_in,
    program,
    scrubbed_and_searched,
)

from sim_sled.daemon import scrubbing
from sim_sled.daemon.checkpoint import resume
from sim_sled.daemon.part_files import PartFiles
from sim_sled.daemon.recorder import Recorder
from sim_sled.daemon.recordings import opened
from sim_sled.daemon.scrubbing import scrub
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.language.check import parse_scenario
from sim_sled.language.pacer import PresetPacer
from sim_sled.recording.open_loop import open_loop
from sim_sled.recording.replaying import replay
from sim_sled.recording.tape import tape_of


@pytest.mark.parametrize(
    "which",
    [pytest.param(slice(-1, None), id="the last"), pytest.param(slice(-1), id="others", marks=pytest.mark.long)],
)
def test_a_copy_can_be_made_from_every_checkpoint_and_has_nothing_personal_in_it(with_checkpoints, tmp_path, which):
    numbers = parts_with_a_checkpoint(with_checkpoints)[which]
    assert numbers
    for number in numbers:
        rest = from_part(with_checkpoints, number, tmp_path / "rest")
        assert len(scrubbed_and_searched(rest, tmp_path / "copy")) > 60
        assert open_loop(opened(tmp_path / "copy").lines, resume).departures == []
        copied, original = (tape_of(opened(tmp_path / each).lines(), each) for each in ("copy", "rest"))
        assert len(copied.rows) == len(original.rows)


def test_draws_by_ids_are_in_a_copy_that_begins_at_a_checkpoint(with_checkpoints, tmp_path):
    rest = from_part(with_checkpoints, parts_with_a_checkpoint(with_checkpoints)[0], tmp_path / "rest")
    scrub(rest, tmp_path / "copy")
    for part in (tmp_path / "copy").iterdir():
        part.write_text(re.sub(r',"drawn":\{[^}]*\}', "", part.read_text()))
    assert replay(opened(tmp_path / "copy").lines(), resume=resume).difference is not None


def test_a_checkpoint_of_another_build_is_not_scrubbed(with_checkpoints, tmp_path):
    rest = from_part(with_checkpoints, parts_with_a_checkpoint(with_checkpoints)[0], tmp_path / "rest")
    path = rest.parts[0]
    path.write_text(re.sub(r'"program":"\w+"', '"program":"0"', path.read_text(), count=1))
    code, _, err = sim("replay", str(rest.folder), "--scrub", str(tmp_path / "copy"))
    assert code == 2
    assert f"{path.name}:1: it goes on from a checkpoint of another build" in err


class Often(Recorder):
    """As if a snapshot were restored, again and again."""

    turns = 0

    def turn(self, *args):
        done = super().turn(*args)
        self.turns += 1
        if self.turns % 12 == 0:
            self.restored()
        return done


@pytest.mark.parametrize(
    "name",
    [TAPES[0], TAPES[4], *(pytest.param(name, marks=pytest.mark.long) for name in (*TAPES[1:4], TAPES[6]))],
)
async def test_a_copy_has_nothing_personal_of_a_checkpoint_whatever_a_sled_was_asked(name, tmp_path):
    [tape] = [each for each in tapes() if each.stem == name]
    sled = DaemonSled(explicit=False, pacer=PresetPacer("instant"), record=Often(tmp_path / "r", {}))
    await play_file(tape, sled)
    recording = opened(tmp_path / "r")
    assert len(scrubbed_and_searched(recording, tmp_path / "copy")) > 3


def test_a_scrubbed_recording_has_nothing_personal_in_it_replays_and_makes_a_tape(folder, tmp_path):
    copy = tmp_path / "scrubbed"
    code, out, err = sim("replay", str(folder), "--scrub", str(copy))
    assert code == 0, err
    assert out.startswith("replayed without a difference: ")
    assert re.search(r"ids and [\d,]+ words and numbers have stand-ins", err)
    names, new = personal_in(folder), everything_in(copy)
    assert len(names) > 40
    assert left_of(names, new) == []
    assert "vm11" in names
    assert program("replay", str(copy)) == (0, out, ""), "what was played is in the folder, of this build"
    assert program("tape", str(copy)) == sim("tape", str(copy))
    assert sim("tape", str(copy))[0] == 0
    said = sim("tape", str(copy), "--out", str(tmp_path / "t.jsonl"))[2]
    rows = (tmp_path / "t.jsonl").read_text().splitlines()
    assert f"t.jsonl: {len(rows) - 1} requests to sled {json.loads(rows[0])['sled']['id']}\n" in said
    assert sim("replay", str(copy), "--scrub", str(tmp_path / "again"))[0] == 0, "a copy of a copy"


def test_draws_by_ids_are_in_the_copy(folder, tmp_path):
    scrub(opened(folder), tmp_path / "scrubbed")
    parts = sorted((tmp_path / "scrubbed").iterdir())
    for part in parts:
        part.write_text(re.sub(r',"drawn":\{[^}]*\}', "", part.read_text()))
    assert replay(opened(tmp_path / "scrubbed").lines()).difference is not None


def test_a_copy_of_several_parts_is_one_recording(folder, tmp_path, monkeypatch):
    """The name that its first part had was replaced, too, and its second one was of another recording."""
    monkeypatch.setattr(scrubbing, "PartFiles", partial(PartFiles, part_bytes=20_000))
    scrub(opened(folder), tmp_path / "scrubbed")
    copy = opened(tmp_path / "scrubbed")
    assert len(copy.parts) > 1
    assert replay(copy.lines()).difference is None


def test_a_copy_of_a_recording_that_differs_does_so_at_the_same_place(folder, tmp_path):
    change(folder, '"state":"running"', '"state":"stopped"')
    copied = scrub(opened(folder), tmp_path / "scrubbed")
    assert copied.said == ""
    assert copied.copy.difference.where == replay(opened(folder).lines()).difference.where


def test_a_copy_that_is_not_worth_its_original_says_so_at_its_end(tmp_path):
    # part of a word chooses the VMMs, and no stand-in has that part
    rules = RULES.replace(
        "when: {request: vmm_put_state}", "when: {request: vmm_put_state}\n  for: {hostname: 'pros*'}"
    )
    scenario, problems = parse_scenario(rules.replace("chance: 20%", "chance: 100%"))
    assert scenario is not None, problems.text()

    async def lived():
        rack = SmallRack(sleds=3, pace="instant", record=Recorder(tmp_path / "r", {}), scenario=scenario)
        async with rack:
            await rack.create_instance("prosperity")

    asyncio.run(lived())
    code, _, err = sim("replay", str(tmp_path / "r"), "--scrub", str(tmp_path / "scrubbed"))
    assert code == 1
    assert "something in it is decided by a name" in err
    assert opened(tmp_path / "scrubbed").header.scrubbed
    assert "decided by a name" in max((tmp_path / "scrubbed").iterdir()).read_text().splitlines()[-1]


def test_a_tape_can_be_scrubbed_at_once(folder):
    names = personal_in(folder)
    sled = line_at(folder, "part-00001.jsonl:1")["sleds"][1]["sled_id"].split()[1]
    code, out, _ = sim("tape", str(folder), "--scrub", "--sled", sled)
    assert code == 0
    assert len(out.splitlines()) > 10
    assert left_of(names, out) == []
    assert folder.name not in out.splitlines()[0]


def test_a_copy_needs_a_folder_of_its_own(folder):
    assert sim("replay", str(folder), "--scrub", str(folder))[::2] == (
        2,
        f"sim-sled: {folder} is not empty: a recording has a folder of its own\n",
    )
