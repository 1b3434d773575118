"""A rack that is recorded while it serves on real sockets, and what its recording is worth afterwards."""

import asyncio
import contextlib
import json
import re
import shutil
import tempfile
from pathlib import Path

import attrs
import pytest
from conformance.sled_under_test import DaemonSled
from conformance.tape_player import How, load, play_file, tapes
from support.command import in_process as sim
from support.daemon.recorded import (
    RULES,
    TAPES,
    change,
    first,
    from_part,
    line_at,
    lived,
    parts_with_a_checkpoint,
    scrubbed_and_searched,
)
from support.rows import in_one_test

from sim_sled.core import contract
from sim_sled.daemon.checkpoint import resume
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.daemon.part_files import CannotRecord
from sim_sled.daemon.recorder import Recorder
from sim_sled.daemon.recordings import BadRecording, opened
from sim_sled.daemon.scrubbing import scrub
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.daemon.snapshot import Refused, Snapshots
from sim_sled.language.check import parse_scenario
from sim_sled.language.pacer import PresetPacer
from sim_sled.recording.lines import RESTORED, Header
from sim_sled.recording.replaying import CannotReplay, replay
from sim_sled.recording.tape import tape_of


async def test_a_recorded_up_under_load_replays_without_a_difference(tmp_path):
    recording = await lived(tmp_path / "r")
    found = replay(recording.lines())
    assert found.difference is None
    text = "".join(part.read_text() for part in recording.parts)
    assert found.turns > 100
    for kind in ("Ended", "Send", "told", "Step", "Answered", "joins", "leaves", "vmm_put_state"):
        assert kind in text, f"the load has no {kind}: this test would not notice much"


def test_an_effect_that_was_another_one_is_told_at_its_line_with_both_sides(folder):
    assert len(list(folder.iterdir())) > 2, "parts are rotated"
    where = change(folder, '"state":"running"', '"state":"stopped"')
    code, out, err = sim("replay", str(folder))
    assert (code, err) == (1, "")
    assert out.startswith(f"{where}: effect ")
    recorded, replayed = re.findall(r"^  (?:recorded|replayed)  (.*)$", out, re.MULTILINE)
    assert '"state": "stopped"' in recorded
    assert '"state": "running"' in replayed
    told = json.loads(sim("replay", str(folder), "--json")[1])
    assert told["difference"]["where"] == where


def test_a_rule_that_was_another_one_is_a_difference_at_the_line_where_it_first_shows(folder):
    change(folder, '"name":"late"', '"name":"tardy"')
    found = replay(opened(folder).lines())
    assert found.difference is not None
    # a rule's chances are drawn by its name: the one no longer fires where it did, or the other does where it did not
    told = line_at(folder, found.difference.where).get("told")
    assert "late" in json.dumps(told) or "tardy" in json.dumps(found.difference.replayed)


def test_an_effect_too_many_or_too_few_is_a_difference(folder):
    rows = first(folder).read_text().split("\n")
    number = next(i for i, row in enumerate(rows) if '"out":[{' in row)
    line = json.loads(rows[number])
    for out, sides in (
        (line["out"][:-1], (None, line["out"][-1])),
        ([*line["out"], {"Send": {}}], ({"Send": {}}, None)),
    ):
        rows[number] = json.dumps(line | {"out": out})
        first(folder).write_text("\n".join(rows))
        found = replay(opened(folder).lines()).difference
        assert (found.where, (found.recorded, found.replayed)) == (f"part-00001.jsonl:{number + 1}", sides)


def test_another_seed_is_told_by_the_first_wait_that_lasts_longer(folder):
    header, rest = first(folder).read_text().split("\n", 1)
    first(folder).write_text(json.dumps(json.loads(header) | {"rules_seed": 7, "seed": 7}) + "\n" + rest)
    assert replay(opened(folder).lines()).difference is not None


def test_a_recording_of_another_program_says_so_and_is_played_all_the_same(folder):
    change(folder, '"program":"', '"program":"0')
    code, out, err = sim("replay", str(folder))
    assert (code, out.startswith("replayed without a difference")) == (0, True)
    assert err.startswith("sim-sled: part-00001.jsonl:1: recorded by another build")


def test_what_a_kill_tears_off_is_left_out_and_said(folder):
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:-20])
    code, out, err = sim("replay", str(folder))
    assert (code, out.startswith("replayed without a difference")) == (0, True)
    assert f"sim-sled: {last.name}:" in err
    assert "torn" in err


def remove_second(folder):
    (folder / "part-00002.jsonl").unlink()


def exchange_parts(folder):
    second, third = folder / "part-00002.jsonl", folder / "part-00003.jsonl"
    kept = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(kept)


def tear_the_middle(folder):
    first(folder).write_bytes(first(folder).read_bytes()[:-20])


def put(text):
    return lambda folder: first(folder).write_text(text)


def other_recording(folder):
    second = folder / "part-00002.jsonl"
    second.write_text(second.read_text().replace('"of":"', '"of":"0', 1))


def break_a_letter(folder):
    rows = first(folder).read_bytes().split(b"\n")
    rows[5] = rows[5].replace(b'"', b'"\xc3', 1)
    first(folder).write_bytes(b"\n".join(rows))


def forged_input(folder):
    change(folder, '"~":"sim_sled.play.calls:Step"', '"~":"os:system"')


def forged_sleds(folder):
    change(folder, "sim_sled.core.config:SledConfig", "sim_sled.core.config:Nothing")


def not_json(folder):
    rows = first(folder).read_text().split("\n")
    first(folder).write_text("\n".join([*rows[:5], "{", *rows[5:]]))


BROKEN = [
    (remove_second, "part 2 of "),
    (exchange_parts, "part-00002.jsonl:1: this says that it is part 3"),
    (tear_the_middle, ": the line has no end"),
    (other_recording, "part-00002.jsonl:1: this part is of another recording"),
    (put(""), "part-00001.jsonl is empty"),
    (put("[]\n"), "part-00001.jsonl:1: this is no line of a recording"),
    (put('{"recording": 99, "of": "x", "part": 1}\n'), "part-00001.jsonl:1: the recording has format 99"),
    (put('{"recording": 1, "of": "x", "part": 1}\n'), "part-00001.jsonl:1: the first line names no sleds"),
    (put('{"at": 1, "in": {}, "out": []}\n'), "part-00001.jsonl:1: the first line does not say how the rack began"),
    (put("\x00\xff\n"), "part-00001.jsonl:1: this is no JSON"),
    (not_json, "part-00001.jsonl:6: this is no JSON"),
    (break_a_letter, "part-00001.jsonl:6: this is no JSON"),
    (forged_input, "'os' is no room of ours"),
    (forged_sleds, "is no class of ours"),
]


@in_one_test(("spoil", "sentence"), BROKEN, ids=lambda each: getattr(each, "__name__", None))
def test_what_is_no_recording_is_told_in_a_sentence(folder, tmp_path, spoil, sentence):
    spoilt = Path(shutil.copytree(folder, Path(tempfile.mkdtemp(dir=tmp_path)) / "spoilt"))
    spoil(spoilt)
    with pytest.raises((BadRecording, CannotReplay)) as refused:
        replay(opened(spoilt).lines())
    assert sentence in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_of_the_recordings_of_workers_each_is_played_also_behind_one_that_cannot_be(folder, tmp_path):
    """As that of a worker that was killed before its first line was written."""
    within = tmp_path / "rack"
    for name in ("sleds-1-1", "sleds-2-2-again-1"):
        shutil.copytree(folder, within / name)
    (within / "sleds-2-2").mkdir()
    (within / "sleds-2-2" / "part-00001.jsonl").touch()
    code, out, err = sim("replay", str(within))
    assert (code, out.count("replayed without a difference")) == (2, 2)
    assert err.startswith("sim-sled: sleds-2-2: part-00001.jsonl is empty")
    code, out, _ = sim("replay", str(within), "--json")
    first, second, third = json.loads(out)
    assert (code, first["difference"], third["difference"]) == (2, None, None)
    assert (second["recording"], second["error"][:26]) == ("sleds-2-2", "part-00001.jsonl is empty:")


def test_a_folder_without_a_recording_is_told_by_what_is_in_it(tmp_path):
    assert sim("replay", str(tmp_path))[::2] == (2, f"sim-sled: {tmp_path} has no recording in it, it is empty\n")
    (tmp_path / "notes.txt").touch()
    assert "there is: notes.txt" in sim("replay", str(tmp_path))[2]
    with pytest.raises(CannotRecord, match="not empty"):
        Recorder(tmp_path, {})


def test_at_its_limit_a_recording_ends_with_a_sentence_and_replays_until_there(tmp_path):
    recording = asyncio.run(lived(tmp_path / "r", total_bytes=60_000))
    found = replay(recording.lines())
    assert found.difference is None
    assert found.end.startswith("the recording has reached its limit of bytes")
    assert sum(part.stat().st_size for part in recording.parts) < 61_000


def test_a_replay_can_begin_at_every_checkpoint_of_a_rack_under_load(with_checkpoints, tmp_path):
    whole = replay(with_checkpoints.lines())
    numbers = parts_with_a_checkpoint(with_checkpoints)
    assert numbers, "this load is too small to show anything"
    for number in numbers:
        found = replay(from_part(with_checkpoints, number, tmp_path / "rest").lines(), resume=resume)
        assert found.difference is None
        assert 0 < found.turns < whole.turns


def test_what_is_changed_after_a_checkpoint_is_a_difference_from_there_on_too(with_checkpoints, tmp_path):
    rest = from_part(with_checkpoints, parts_with_a_checkpoint(with_checkpoints)[0], tmp_path / "rest")
    change(rest.folder, '{"Send":{', '{"Sent":{')
    assert replay(opened(rest.folder).lines(), resume=resume).difference is not None


def test_between_two_checkpoints_no_replay_begins(with_checkpoints, tmp_path):
    number = next(
        n for n in range(2, len(with_checkpoints.parts)) if n not in parts_with_a_checkpoint(with_checkpoints)
    )
    with pytest.raises(BadRecording, match=f"part {number - 1} of .* is missing"):
        from_part(with_checkpoints, number, tmp_path / "rest")


def test_a_checkpoint_of_another_build_is_refused_with_a_sentence(with_checkpoints, tmp_path):
    rest = from_part(with_checkpoints, parts_with_a_checkpoint(with_checkpoints)[0], tmp_path / "rest")
    path = rest.parts[0]
    path.write_text(re.sub(r'"program":"\w+"', '"program":"0"', path.read_text(), count=1))
    code, out, err = sim("replay", str(rest.folder))
    assert (code, out) == (2, "")
    assert "goes on from a checkpoint of another build" in err


async def test_a_recording_that_grows_throws_its_oldest_parts_away_and_the_rest_replays(tmp_path):
    limit = 400_000
    rack = SmallRack(sleds=1, pace="instant", record=Recorder(tmp_path / "r", {}, total_bytes=limit))
    async with rack:
        await rack.create_instance("web")
        await rack.expect("web", "running", within_s=60)
        vmm = rack.meant("web").propolis_id
        [sled_id] = rack.daemon.rack.sleds
        most = 0
        while (tmp_path / "r" / "part-00001.jsonl").exists():
            for _ in range(20):
                await rack.daemon.submit(contract.GetState(rack.daemon.ticket(), sled_id, vmm))
            await asyncio.sleep(0)
            most = max(most, bytes_in(tmp_path / "r"))
        await rack.stop_instance("web")
    recording = opened(tmp_path / "r")
    assert recording.header.part > 1
    found = replay(recording.lines(), resume=resume)
    assert (found.difference, found.end) == (None, "")
    assert most <= limit


def bytes_in(folder):
    size = 0
    for each in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just gone
            size += each.stat().st_size
    return size


async def test_a_snapshot_that_is_restored_under_load_is_played_from_there_on(tmp_path):
    rack = SmallRack(sleds=2, pace="fast", record=Recorder(tmp_path / "r", {}))
    async with rack:
        for number in range(6):
            await rack.create_instance(f"vm{number}")
        await rack.daemon.pausing.until(300_000, None)
        kept = await taken(rack)
        rack.daemon.pausing.resume()
        await rack.expect("vm0", "running", within_s=60)
        await rack.stop_instance("vm0")
        await rack.daemon.pausing.until(2_000_000, None)
        await Snapshots(rack.daemon).restore(kept)
        rack.daemon.pausing.resume()
        for number in range(6):
            await rack.expect(f"vm{number}", "running", within_s=60)
        await rack.reboot_instance("vm1")
    recording = opened(tmp_path / "r")
    assert [line.begins for _, line in recording.lines() if isinstance(line, Header)][-1] == RESTORED
    found = replay(recording.lines(), resume=resume)
    assert (found.difference, found.end) == (None, "")
    rest = from_part(recording, len(recording.parts), tmp_path / "rest")
    assert replay(rest.lines(), resume=resume).difference is None
    for each in (recording, rest):
        scrubbed_and_searched(each, tmp_path / "copy")


async def taken(rack):
    """A snapshot's text. While it is in the way of something that only a moment can hold, that moment passes."""
    for _ in range(200):
        try:
            return (await Snapshots(rack.daemon).take()).text.encode()
        except Refused:
            await rack.daemon.pausing.until(50_000, None)
    raise AssertionError("the rack never comes to rest")


def test_a_pacer_of_ones_own_cannot_be_recorded(tmp_path):
    class Own:
        def pace(self, *_):
            raise AssertionError

    with pytest.raises(CannotRecord, match="decides in this daemon, and no file can hold it"):
        Daemon([], Options(nexus="[::1]:9", pacer=Own()), recorder=Recorder(tmp_path, {}))


@pytest.mark.parametrize(
    "names",
    [pytest.param(TAPES[::2], id="half of it"), pytest.param(TAPES[1::2], id="the rest", marks=pytest.mark.long)],
)
async def test_whatever_a_sled_is_asked_replays_without_a_difference(names, tmp_path):
    async def played(name):
        [tape] = [each for each in tapes() if each.stem == name]
        sled = DaemonSled(explicit=False, pacer=PresetPacer("sim"), record=Recorder(tmp_path / name, {}))
        results = await play_file(tape, sled)
        assert not [each for each in results if each.how is How.FAILED]
        found = replay(opened(tmp_path / name).lines())
        assert found.difference is None, name
        copied = scrub(opened(tmp_path / name), tmp_path / f"{name}-scrubbed")
        assert (copied.said, copied.copy.difference) == ("", None), name
        return found.turns

    turns = await asyncio.gather(*map(played, names))
    assert sum(turns) > 90


async def test_a_tape_of_a_recording_is_played_by_a_fresh_sled(tmp_path):
    [tape] = [each for each in tapes() if each.stem == "vm-reboot"]
    pacer = PresetPacer("instant")
    await play_file(tape, DaemonSled(explicit=False, pacer=pacer, record=Recorder(tmp_path / "r", {})))
    code, _, err = sim("tape", str(tmp_path / "r"), "--out", str(tmp_path / "again.jsonl"))
    assert code == 0
    wrote, _, rest = err.partition("\n")
    assert re.fullmatch(r"sim-sled: wrote .*again.jsonl: \d+ requests to sled [\w-]+", wrote)
    assert re.fullmatch(r"(sim-sled: left out: looks at a VMM that was on its way: \d+\n)?", rest)
    made = load(tmp_path / "again.jsonl")
    given = {
        json.dumps([each.get(key) for key in ("op", "method", "path", "query", "body")])
        for _, each in load(tape).exchanges
        if each["op"] != "vmm_get_state"
    }
    kept = [
        each
        for _, each in made.exchanges
        if json.dumps([each.get(key) for key in ("op", "method", "path", "query", "body")]) in given
    ]
    assert len(kept) >= len(given), "every request of the first tape is on the second"
    assert {each["wait"]["until"]["state"] for each in kept if "wait" in each} >= {"running", "gone"}
    results = await play_file(tmp_path / "again.jsonl", DaemonSled(explicit=False, pacer=pacer))
    assert {each.how for each in results} == {How.PASSED}, [each for each in results if each.how is not How.PASSED]


async def test_rules_that_are_loaded_while_it_runs_are_replayed(tmp_path):
    """As `inject` loads them: the rules that stay go on, and are other objects when they are read."""
    scenario, problems = parse_scenario(RULES + "- name: again\n  when: {every: 20ms}\n  do: {note: again}\n")
    assert scenario is not None, problems.text()
    rack = SmallRack(sleds=3, pace="instant", record=Recorder(tmp_path / "r", {}), scenario=scenario)
    async with rack:
        await rack.create_instance("a")
        rack.load(attrs.evolve(scenario, rules=scenario.rules[1:]))
        await rack.create_instance("b")
        rack.load(scenario)
        await rack.create_instance("c")
    found = replay(opened(tmp_path / "r").lines())
    assert found.difference is None
    assert "again" in first(tmp_path / "r").read_text()


def test_two_runs_at_once_are_refused(folder, tmp_path):
    code, _, err = sim("replay", str(folder), "--open", "--scrub", str(tmp_path / "x"))
    assert (code, err) == (2, "sim-sled: --scrub and --open are two runs: first one, then the other\n")


def test_a_recording_without_requests_makes_no_tape(folder):
    assert sim("tape", str(folder), "--sled", "00000000-0000-4000-8000-000000000000")[0] == 2


async def test_a_tape_of_a_rack_says_what_is_not_on_it(folder):
    made = tape_of(opened(folder).lines(), "one-of-three")
    assert len(made.rows) > 10
    assert [each for each in made.left_out if each.startswith("requests to other sleds")]
