"""A rack under load that is recorded, and what tests do with its recording."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import zlib
from uuid import UUID

from support import processes

from sim_sled.daemon import scrubbing
from sim_sled.daemon.checkpoint import resume
from sim_sled.daemon.recorder import Recorder
from sim_sled.daemon.recordings import opened
from sim_sled.daemon.scrubbing import scrub
from sim_sled.daemon.small_rack import RackError, SmallRack
from sim_sled.language.check import parse_scenario
from sim_sled.recording.lines import Header, read, written
from sim_sled.recording.replaying import replay

RULES = """
version: 1
name: rough
fleet: {sleds: 3}
latency:
  preset: instant
  starting -> running: 1ms..40ms
  stopping -> stopped: 1ms..20ms
  request vmm_register: 0ms..10ms
rules:
- name: late
  when: {publish: running}
  chance: 50%
  do: [{delay: 1ms..30ms}]
- name: twice
  when: {publish: destroyed}
  chance: 30%
  do: [{duplicate: {copies: 1}}]
- name: busy
  when: {request: vmm_put_state}
  chance: 20%
  do: [{fail: {status: 503}}]
"""


def rough():
    scenario, problems = parse_scenario(RULES)
    assert scenario is not None, problems.text()
    return scenario


async def lived(folder, **more):
    """A rack under a churn of users; its recording."""
    rack = SmallRack(sleds=3, pace="instant", record=Recorder(folder, {}, **more), scenario=rough())
    async with rack:

        async def life(number):
            name = f"vm{number}"
            await rack.create_instance(name)
            for verb in (rack.reboot_instance, rack.stop_instance, rack.start_instance, rack.stop_instance):
                try:
                    await verb(name)
                except RackError:  # its state does not allow it just now, or a rule failed it
                    continue

        await asyncio.gather(*map(life, range(12)))
        await rack.scale(4)
        await rack.create_instance("last")
        await rack.scale(3)
    return opened(folder)


def first(folder):
    return folder / "part-00001.jsonl"


def change(folder, old, new):
    """Where the first line stands that had `old`."""
    for part in sorted(folder.iterdir()):
        rows = part.read_text().split("\n")
        for number, row in enumerate(rows):
            if old in row:
                rows[number] = row.replace(old, new, 1)
                part.write_text("\n".join(rows))
                return f"{part.name}:{number + 1}"
    raise AssertionError(f"no line has {old}")


def line_at(folder, where):
    name, _, number = where.rpartition(":")
    return json.loads((folder / name).read_text().split("\n")[int(number) - 1])


def program(*args):
    """Exit code, stdout, stderr of a program of its own; `sim`: of the same command in this process."""
    done = subprocess.run(processes.forked("sim_sled", *args), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def parts_with_a_checkpoint(recording):
    """Their numbers, but for the first part's."""
    headers = [line for _, line in recording.lines() if isinstance(line, Header)]
    return [header.part for header in headers if header.state]


def from_part(recording, number, folder):
    """The recording without the parts before this one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for part in recording.parts[number - recording.header.part :]:
        shutil.copy(part, folder)
    return opened(folder)


TAPES = (
    "rest-identity", "rest-trust-quorum", "rest-pantry", "rest-crucible-agent", "own-config-order", "v2p-move",
    "rest-support-bundle-v1", "own-artifact-order", "rest-disk-snapshot-refusals", "vpc-routes", "rest-rot",
)  # fmt: skip


def everything_in(folder):
    """All that its files say, with the states of checkpoints and the bytes in them in clear."""
    said = []
    for part in sorted(folder.iterdir()):
        for row in part.read_bytes().splitlines():
            line = read(row)
            if isinstance(line, Header) and line.state:
                table = json.loads(zlib.decompress(base64.b85decode(line.state)))
                said += [str(base64.b64decode(told[0])) for kind, *told in table if kind == "bytes"]
                said.append(json.dumps(table))
                line.state = ""
            said.append(written(line).decode())
    return "\n".join(said)


def personal_in(folder):
    """Ids, in every way in which they can be written, and names of hosts."""
    text = everything_in(folder)
    found = set(re.findall(r'"hostname": ?"(vm\d+|web|last|running)"', text))
    for each in set(re.findall(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", text)):
        one = UUID(each)
        if one.int >> 64 and each not in scrubbing.words():  # else it is a small number of a test, or the program's
            found |= {each, one.hex, str(one.int)}
    return found


def left_of(names, text):
    """Those that a text has; short ones as words, since three letters may come about in a drawn digest."""
    low = text.lower()
    return [each for each in names if (each in low if len(each) > 8 else re.search(rf"(?i)\b{each}\b", text))]


def scrubbed_and_searched(recording, copy):
    """A copy that has nothing personal of the original, and replays as that does."""
    shutil.rmtree(copy, ignore_errors=True)
    made = scrub(opened(recording.folder), copy)
    assert (made.said, made.copy.difference) == ("", None)
    names, text = personal_in(recording.folder), everything_in(copy)
    assert left_of(names, text) == []
    assert replay(opened(copy).lines(), resume=resume) == replay(recording.lines(), resume=resume)
    return names
