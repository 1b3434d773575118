"""The open loop: a recording against the model of Nexus (`replay --open`)."""

import json
import re

from conformance.sled_under_test import DaemonSled
from conformance.tape_player import play_file, tapes
from support.command import in_process as sim
from support.daemon.recorded import change, first, from_part, parts_with_a_checkpoint

from sim_sled.daemon.checkpoint import resume
from sim_sled.daemon.recorder import Recorder
from sim_sled.daemon.recordings import opened
from sim_sled.language.pacer import PresetPacer
from sim_sled.recording.lines import read, written
from sim_sled.recording.open_loop import open_loop
from sim_sled.recording.replaying import replay


def test_the_open_loop_can_begin_at_a_checkpoint_of_a_rack_under_load(with_checkpoints, tmp_path):
    whole = open_loop(with_checkpoints.lines)
    assert whole.departures == []
    for number in parts_with_a_checkpoint(with_checkpoints)[-2:]:  # from all: tests/e2e/recording/test_replays.py
        found = open_loop(from_part(with_checkpoints, number, tmp_path / "rest").lines, resume)
        assert found.departures == []
        assert 0 < found.inputs < whole.inputs


def test_where_nexus_answered_otherwise_after_a_checkpoint_the_open_loop_says_how(with_checkpoints, tmp_path):
    rest = from_part(with_checkpoints, parts_with_a_checkpoint(with_checkpoints)[0], tmp_path / "rest")
    lost = '{"~":"nexus_client.outbox:Permanent","status":400,"why":"answered 400"}'
    change(rest.folder, '"outcome":{"~":"nexus_client.outbox:Delivered"},"send"', f'"outcome":{lost},"send"')
    code, out, _ = sim("replay", str(rest.folder), "--open")
    assert code == 1
    assert "\n  recorded  permanent\n  here      delivered\n" in out


def test_against_the_model_of_nexus_a_rack_does_as_it_did(folder):
    code, out, err = sim("replay", str(folder), "--open")
    assert (code, err) == (0, "")
    found = re.search(r"^(\d+) VMMs?, 0 of which end otherwise\nas recorded: \d+ inputs, \d+ reports", out)
    assert found, out
    assert int(found[1]) >= 13, "one per instance, and one more for each that was started again"


def test_where_nexus_answered_otherwise_the_open_loop_leaves_the_record_and_says_how(folder, tmp_path):
    # of a report that came through: the real Nexus had refused it for good
    lost = '{"~":"nexus_client.outbox:Permanent","status":400,"why":"answered 400"}'
    where = change(folder, '"outcome":{"~":"nexus_client.outbox:Delivered"},"send"', f'"outcome":{lost},"send"')
    code, out, _ = sim("replay", str(folder), "--open")
    assert code == 1
    first_of_all = re.match(r"(part-\d+.jsonl:\d+), at [\d.]+ s: first, Nexus answers VMM (\S+), gen (\d+)\n", out)
    assert first_of_all, out
    assert "\n  recorded  permanent\n  here      delivered\n" in out
    assert first_of_all[1].partition(":")[0] == where.partition(":")[0]
    told = json.loads(sim("replay", str(folder), "--open", "--json")[1])
    assert told["departures"][0]["where"] == first_of_all[1]
    assert all(ends["recorded"] == ends["here"] for ends in told["ends"].values())


def test_a_sled_that_reported_otherwise_is_told_by_its_vmm_and_its_end(folder):
    change(folder, '"state":"destroyed","gen":9', '"state":"failed","gen":9')
    found = open_loop(opened(folder).lines)
    assert {each.where.partition(":")[0] for each in found.departures} <= {each.name for each in folder.iterdir()}
    [departure] = found.departures
    assert re.fullmatch("VMM .* reports|request .* is answered", departure.what)
    assert "failed" in departure.recorded
    assert "destroyed" in departure.here


async def test_in_a_daemon_without_rules_too_an_answer_that_was_another_one_is_told(tmp_path):
    [tape] = [each for each in tapes() if each.stem == "vm-reboot"]
    await play_file(
        tape, DaemonSled(explicit=False, pacer=PresetPacer("instant"), record=Recorder(tmp_path / "r", {}))
    )
    assert open_loop(opened(tmp_path / "r").lines).departures == []
    rows = first(tmp_path / "r").read_text().split("\n")
    number = next(i for i, row in enumerate(rows) if '"Heard"' in row)
    line = json.loads(written(read(rows[number].encode())))  # as a long one
    sled, vmm, serial = line["in"]["is"]
    lost = {"~": "nexus_client.outbox:Transient", "why": "answered 503"}
    line["in"] = {
        "~": "sim_sled.core.contract:NexusReplied",
        "sled_id": f"~uuid {sled}",
        "propolis_id": f"~uuid {vmm}",
        "serial": serial,
        "outcome": lost,
    }
    rows[number] = json.dumps(line)
    first(tmp_path / "r").write_text("\n".join(rows))
    assert replay(opened(tmp_path / "r").lines()).difference is not None, "the sled would have tried again"
    found = open_loop(opened(tmp_path / "r").lines)
    assert [(each.recorded, each.here) for each in found.departures] == [("transient", "delivered")]
