"""What is done with recordings of racks: `serve|up --record`, `sim-sled replay DIR`, `--scrub`, `sim-sled tape DIR`.

Read before: daemon/recordings.py, daemon/scrubbing.py, recording/open_loop.py, recording/tape.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from nexus_client.dropshot.command_line import BAD_INPUT, FAILED, GOOD
from nexus_client.dropshot.text import counted
from sim_sled.cli.surface import fail, say

if TYPE_CHECKING:
    from sim_sled.daemon.recorder import Recorder
    from sim_sled.daemon.scrubbing import Scrubbed
    from sim_sled.recording.open_loop import Opened
    from sim_sled.recording.replaying import Difference, Replayed

_SIDE_MAX: Final = 4_000
"""Characters of one side of a difference for people; `--json` has all of it."""

_DEPARTURES_TOLD: Final = 5
"""To people: the first is what counts, the next ones show what follows from it."""


def recorder_of(folder: Path | None, scenario: str | None) -> Recorder | None:
    """Of `--record`; None without. `scenario`: the file, or its name in the library. Exits with 2."""
    if folder is None:
        return None
    from sim_sled.daemon.part_files import CannotRecord
    from sim_sled.daemon.recorder import Recorder
    from sim_sled.play import library

    try:
        files = [] if scenario is None else [Path(each) for each in library.find(scenario)]
        return Recorder(folder, {each.name: each.read_text(encoding="utf-8") for each in files})
    except (CannotRecord, OSError, ValueError) as bad:
        fail(f"--record: {bad}")


def folder_of_workers(folder: Path | None) -> str | None:
    """Of `--record` with `--workers`: each worker makes a folder of its own in it. Exits with 2."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            fail(f"--record: {folder} is not empty: a recording has a folder of its own")
    except OSError as error:
        fail(f"--record: cannot write {folder}: {error.strerror or error}")
    return str(folder.absolute())


def replay_folder(folder: Path, *, as_json: bool) -> int:
    """Plays it into the core again, in virtual time; returns the exit code, 1 at the first effect that is another.
    Of the recordings of a rack's workers: each of them, and the worst code.
    """
    from sim_sled.daemon.recordings import of_workers

    within = of_workers(folder)
    if not within:
        return _replay(folder, as_json=as_json)
    codes = []
    for number, each in enumerate(within):
        if as_json:
            sys.stdout.write(",\n" if number else "[\n")
        codes.append(_replay(each, as_json=as_json, beside=True))
    if as_json:
        sys.stdout.write("]\n")
    return max(codes)


def _replay(folder: Path, *, as_json: bool, beside: bool = False) -> int:
    """`beside`: others are played, whether this one can be or not."""
    from sim_sled.daemon.checkpoint import resume
    from sim_sled.daemon.recordings import BadRecording, opened
    from sim_sled.recording.replaying import CannotReplay
    from sim_sled.recording.replaying import replay as play

    try:
        recording = opened(folder)
        found = play(recording.lines(), resume=resume)
    except (BadRecording, CannotReplay) as error:
        if not beside:
            fail(str(error))
        say(f"{folder.name}: {error}")
        if as_json:
            sys.stdout.write(json.dumps({"recording": folder.name, "error": str(error)}, indent=2) + "\n")
        return BAD_INPUT
    _say_replayed(folder, found, recording.notes, as_json=as_json)
    return GOOD if found.difference is None else FAILED


def scrub_folder(folder: Path, out: Path, *, as_json: bool) -> int:
    """Writes a copy without personal things, and plays both; returns the exit code, 1 if they do not replay alike."""
    made = _scrubbed(folder, out)
    say(f"{out}: {made.ids:,} ids and {made.words:,} words and numbers have stand-ins")
    _say_replayed(out, made.copy, made.notes, as_json=as_json)
    if made.said:
        say(made.said)
    return FAILED if made.said or made.copy.difference is not None else GOOD


def open_folder(folder: Path, *, as_json: bool) -> int:
    """Plays it against the model of Nexus; returns the exit code, 1 if the run leaves the record."""
    from sim_sled.daemon.checkpoint import resume
    from sim_sled.daemon.recordings import BadRecording, opened
    from sim_sled.recording.open_loop import open_loop
    from sim_sled.recording.replaying import CannotReplay

    try:
        recording = opened(folder)
        found = open_loop(recording.lines, resume)
    except (BadRecording, CannotReplay) as error:
        fail(str(error))
    notes = list(dict.fromkeys(recording.notes))  # it was read twice
    if as_json:
        sys.stdout.write(json.dumps(_open_as_json(found, notes), indent=2) + "\n")
    else:
        for note in notes:
            say(note)
        sys.stdout.write(_open_told(found))
    return FAILED if found.departures else GOOD


def _open_as_json(found: Opened, notes: list[str]) -> dict[str, Any]:
    return {
        "inputs": found.inputs,
        "reports": found.reports,
        "lasted_us": found.ended_us - found.began_us,
        "notes": notes,
        "departures": [
            {
                "where": each.where,
                "at_us": each.at_us - found.began_us,
                "what": each.what,
                "recorded": each.recorded,
                "here": each.here,
            }
            for each in found.departures
        ],
        "more_departures": found.more,
        "ends": {str(vmm): {"recorded": old, "here": new} for vmm, (old, new) in found.ends.items()},
        "requests_of_the_model": found.wished,
    }


def _open_told(found: Opened) -> str:
    said: list[str] = []
    for nth, each in enumerate(found.departures[:_DEPARTURES_TOLD]):
        at = f"{(each.at_us - found.began_us) / 1e6:.3f} s"
        said.append(f"{each.where}, at {at}: {'first, ' if nth == 0 else ''}{each.what}")
        said += [f"  recorded  {_clipped(each.recorded)}", f"  here      {_clipped(each.here)}"]
    untold = len(found.departures) - _DEPARTURES_TOLD + found.more
    if untold > 0:
        said.append(f"and {untold:,} departures more (--json has them)")
    other = {vmm: ends for vmm, ends in found.ends.items() if ends[0] != ends[1]}
    said.append(f"{counted(len(found.ends), 'VMM')}, {len(other):,} of which end otherwise")
    for vmm, (old, new) in list(other.items())[:_DEPARTURES_TOLD]:
        said.append(f"  {vmm}  recorded {old}, here {new}")
    if found.wished:
        wished = ", ".join(f"{op} {count:,}" for op, count in sorted(found.wished.items()))
        said.append(f"requests of the model, for which the recorded ones stand: {wished}")
    lasted = f"{(found.ended_us - found.began_us) / 1e6:.3f} s"
    how = "as recorded" if not found.departures else "left the record"
    return "\n".join((*said, f"{how}: {found.inputs:,} inputs, {found.reports:,} reports, {lasted}", ""))


def _clipped(text: str) -> str:
    return text if len(text) <= _SIDE_MAX else f"{text[:_SIDE_MAX]} ... ({len(text):,} characters)"


def _scrubbed(folder: Path, out: Path) -> Scrubbed:
    from sim_sled.daemon.part_files import CannotRecord
    from sim_sled.daemon.recordings import BadRecording, opened
    from sim_sled.daemon.scrubbing import scrub
    from sim_sled.recording.forms import BadForm
    from sim_sled.recording.replaying import CannotReplay

    try:
        return scrub(opened(folder), out)
    except (BadRecording, CannotRecord, CannotReplay, BadForm) as error:
        fail(str(error))


def _say_replayed(folder: Path, found: Replayed, notes: list[str], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(_as_json(folder, found, notes), indent=2) + "\n")
        return
    for note in notes:
        say(note)
    sys.stdout.write(_told(folder, found))


def tape(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="what `serve|up --record DIR` has written")],
    sled: Annotated[UUID | None, typer.Option(help="whose requests; the first that was asked, if missing")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="NAME.jsonl; stdout, if missing")] = None,
    scrub: Annotated[bool, typer.Option("--scrub", help="with stand-ins for ids, names, keys, addresses")] = False,
) -> None:
    """Turn the requests of a recording into a request tape: what was asked, its status, what to wait for."""
    from sim_sled.daemon.recordings import BadRecording, opened
    from sim_sled.recording.tape import NoTape, tape_of

    name = out.stem if out is not None else "recorded" if scrub else folder.resolve().name or "recorded"
    try:
        with TemporaryDirectory() as scratch:
            if scrub:
                copied = _scrubbed(folder, Path(scratch) / "copy")
                folder, sled = copied.folder, copied.id_of(sled)
            recording = opened(folder)
            made = tape_of(recording.lines(), name, None if sled is None else str(sled))
    except (BadRecording, NoTape) as error:
        fail(str(error))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made.rows)
    if out is None:
        sys.stdout.write(text)
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            fail(f"cannot write {out}: {error.strerror}")
        say(f"wrote {out}: {counted(len(made.rows) - 1, 'request')} to sled {made.rows[0]['sled']['id']}")
    for said in (*recording.notes, *(f"left out: {each}" for each in made.left_out)):
        say(said)


def _as_json(folder: Path, found: Replayed, notes: list[str]) -> dict[str, Any]:
    different = found.difference
    return {
        "recording": folder.name,
        "turns": found.turns,
        "effects": found.effects,
        "lasted_us": found.ended_us - found.began_us,
        "end": found.end or None,
        "notes": notes,
        "difference": None
        if different is None
        else {
            "where": different.where,
            "effect": different.number,
            "recorded": different.recorded,
            "replayed": different.replayed,
        },
    }


def _told(folder: Path, found: Replayed) -> str:
    lasted = f"{(found.ended_us - found.began_us) / 1e6:.3f} s of {folder}"
    said = f"{found.turns:,} inputs, {found.effects:,} effects, {lasted}"
    if found.end:
        said += f"\nthe recording ends before its rack: {found.end}"
    if found.difference is None:
        return f"replayed without a difference: {said}\n"
    return f"{_difference(found.difference)}\nreplayed until there: {said}\n"


def _difference(different: Difference) -> str:
    which = f"effect {different.number}" if different.number else "what rules told"
    return "\n".join(
        (
            f"{different.where}: {which} is another one",
            f"  recorded  {_side(different.recorded)}",
            f"  replayed  {_side(different.replayed)}",
        )
    )


def _side(told: Any) -> str:
    if told is None:
        return "nothing"
    return _clipped(json.dumps(told, ensure_ascii=False))
