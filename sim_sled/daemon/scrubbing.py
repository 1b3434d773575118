"""Writes a copy of a recording without personal things into another folder, and plays it.

Read before: daemon/part_files.py, daemon/recordings.py, daemon/state_texts.py, recording/scrub.py.
Read next: cli/recording.py.
"""

from __future__ import annotations

import gzip
import json
import re
import secrets
from collections.abc import Iterator
from dis import opmap
from functools import cache, partial
from importlib.abc import InspectLoader
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import CodeType
from typing import Any, Final
from uuid import UUID

import attrs

import nexus_client
import propolis_stub
import sim_sled
from nexus_client.draw import KeyPart, draw
from nexus_client.dropshot import foreign
from sim_sled.daemon.checkpoint import resume, table_of, text_of
from sim_sled.daemon.graph import Table
from sim_sled.daemon.part_files import PartFiles
from sim_sled.daemon.recordings import Recording
from sim_sled.daemon.state_texts import replaced
from sim_sled.recording.lines import RESTORED, End, Header, Line, Turn, written
from sim_sled.recording.replaying import CannotReplay, Difference, Player, Replayed, key_of, rack_of
from sim_sled.recording.scrub import LineT, Names, StandIns, explicit, explicit_config

_ROOMS: Final = ("core", "engine", "http", "language", "play", "recording")
"""Of sim_sled: those whose words are in a recording."""
_CONSTANTS: Final = {number for name, number in opmap.items() if name in ("LOAD_CONST", "RETURN_CONST")}
_IMPORTS: Final = {number for name, number in opmap.items() if name.startswith("IMPORT_")}
PLAYED: Final = "personal things in it were replaced"


@attrs.frozen
class Scrubbed:
    """What came of it. `copy`: how it replays; `ids`, `words`: how many have stand-ins."""

    folder: Path
    copy: Replayed
    known: StandIns
    notes: list[str]
    said: str
    """Why the copy is not worth what its original is; empty if it is."""

    @property
    def ids(self) -> int:
        return len(self.known.uuids)

    @property
    def words(self) -> int:
        return sum(len(each) > 1 and each.lower() not in self.known.words for each in self.known.runs)

    def id_of(self, original: UUID | None) -> UUID | None:
        """Its stand-in."""
        return None if original is None else self.known.uuids.get(original, original)


@cache
def words() -> frozenset[str]:
    """What the program itself says: words of its texts and names, in lower case, long numbers behind them, ids."""
    text = "\n".join(set(_said()))
    found = re.findall(r"[^\W\d_]+", text.lower())
    found += re.findall(r"(?<=[a-z])\d{5,}", text)  # ed25519
    found += re.findall(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", text)
    return frozenset(found)


def _said() -> Iterator[str]:
    for code in _codes():
        yield from _texts_of(code)
    shapes = Path(sim_sled.__path__[0]) / "shapes" / "shapes.json.gz"
    table = foreign.loads(gzip.decompress(shapes.read_bytes()))["shapes"]
    yield from re.findall(r'"([A-Za-z]\w*)"', json.dumps(table))


def _codes() -> Iterator[CodeType]:
    """Of every module whose words are in a recording, as it runs: where sources are not at hand, too."""
    names = [nexus_client.__name__, propolis_stub.__name__, *(f"{sim_sled.__name__}.{room}" for room in _ROOMS)]
    for name in names:
        spec = find_spec(name)
        assert spec is not None, "a module of ours"
        assert isinstance(spec.loader, InspectLoader), "it can be imported"
        code = spec.loader.get_code(name)
        assert code is not None, "it is written in Python"
        yield code
        if spec.submodule_search_locations is not None:
            names += [each.name for each in iter_modules(spec.submodule_search_locations, f"{name}.")]


def _texts_of(code: CodeType) -> Iterator[str]:
    """Its texts but for what is written for people who read it, and the names of what it defines."""
    yield code.co_name
    yield from code.co_varnames[code.co_argcount + code.co_kwonlyargcount :]
    before, constant = 0, None
    for number, argument in _instructions(code):
        if number == opmap["STORE_NAME"]:
            name = code.co_names[argument]
            if before not in _IMPORTS:
                yield name
            if name == "__doc__":
                before = 0  # what is written for people
        elif number == opmap["IMPORT_NAME"]:
            before = 0  # the names that are imported
        if before in _CONSTANTS:
            yield from _texts_in(constant)
        before = number
        constant = code.co_consts[argument] if number in _CONSTANTS else None
    yield from _texts_in(constant)


def _instructions(code: CodeType) -> Iterator[tuple[int, int]]:
    """Their numbers and arguments, as they stand in the code: `dis` makes of each what a person wants to read, which
    takes four times as long as all the rest.
    """
    more = 0
    for number, argument in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        if number == opmap["EXTENDED_ARG"]:
            more = (more | argument) << 8
        elif number != opmap["CACHE"]:
            yield number, more | argument
            more = 0


def _texts_in(constant: object) -> Iterator[str]:
    match constant:
        case str():
            yield constant
        case tuple() | frozenset():
            for each in constant:
                yield from _texts_in(each)
        case CodeType():
            yield from _texts_of(constant)


def stand_ins(recording: Recording) -> StandIns:
    """For all that is in it. Raises `BadRecording`, `CannotReplay`."""
    names = Names(words(), secrets.token_bytes(32))

    def see(told: Any, field: str) -> Any:
        for each in told if isinstance(told, list) else [told]:
            if isinstance(each, str):
                names.see_text(each, field)
        return told

    for where, line in _played(recording):
        if isinstance(line, Header) and line.state:
            replaced(_state(where, line), see)
            line.state = ""
        names.see(explicit(line))
    return names.stand_ins()


def _played(recording: Recording) -> Iterator[tuple[str, Line]]:
    """Its lines, but for the beginnings of parts at which a replay goes on with what it has."""
    for nth, (where, line) in enumerate(recording.lines()):
        if nth == 0 or not isinstance(line, Header) or line.begins == RESTORED:
            yield where, line


def _state(where: str, line: Header) -> Table:
    """That of a checkpoint, with sleds whose pools and serial numbers follow from nothing. Raises `CannotReplay`."""
    try:
        rack = rack_of(line, None)
        resume(rack, line)
    except CannotReplay as error:
        raise CannotReplay(f"{where}: {error}") from error
    for sled in rack.passage.rack.sleds.values():
        sled.config = explicit_config(sled.config)
    return table_of(rack)


def scrub(recording: Recording, out: Path) -> Scrubbed:
    """Raises `CannotRecord` if the folder is not empty or cannot be written, `BadRecording`, `CannotReplay`."""
    files = PartFiles(out)
    copying = _Copying(stand_ins(recording))
    recording.notes.clear()  # the same are found once more
    with files.usable():
        files.begin()
        for nth, (where, line) in enumerate(_played(recording)):
            if isinstance(line, Header):
                line.of, line.part, line.files, line.scrubbed = files.of, 1, {}, PLAYED
            made = copying.copied(where, explicit(line))
            if nth and isinstance(made, Header):
                files.checkpoint(made)
            else:
                files.write(written(made) + b"\n")
        said = copying.said()
        if said:
            files.write(written(End(end=said)) + b"\n")
        files.close()
    return Scrubbed(out, copying.copy.found(), copying.known, recording.notes, said)


@attrs.define(eq=False)
class _Copying:
    """Plays the original and its copy side by side: of the one it learns what is drawn, of the other what a core
    makes of stand-ins.
    """

    known: StandIns
    original: Player = attrs.field(factory=partial(Player, resume=resume))
    copy: Player = attrs.field(factory=partial(Player, resume=resume))
    _drawn: dict[str, int] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.original.hears = self._hears

    def _hears(self, seed: int, key: tuple[KeyPart, ...], chance: int) -> None:
        other = self.known.key(key)
        if other != key and draw(seed, *other) != chance:
            self._drawn[key_of(seed, other)] = chance

    def copied(self, where: str, line: Line) -> Line:
        """The line of the copy."""
        self._drawn = {}
        if self.original.difference is None:
            self.original.play(where, line)
        state = ""
        if isinstance(line, Header) and line.state:
            state = text_of(replaced(_state(where, line), self.known.in_state))
            line.state = ""
        self.known.given(line)
        made = self._made(line)
        if isinstance(made, Header):
            made.state = state
        if self.copy.difference is not None:
            return made
        if not isinstance(made, Turn) or not isinstance(line, Turn):
            self.copy.play(where, made)
            return made
        came = self.copy.turn(made)
        if self.known.follow([line.out, line.told], list(came)):
            made = self._made(line)
        if self.original.difference is None and made.out != came[0] and _in_order(made.out) == _in_order(came[0]):
            made.out = came[0]  # a list that a core sorts by the texts of addresses
        self.copy.compare(where, made, came)
        return made

    def _made(self, line: LineT) -> LineT:
        made = self.known.line(line)
        if isinstance(made, Turn):
            made.drawn = self._drawn
        if isinstance(made, Header) and isinstance(line, Header):
            made.of, made.program = line.of, line.program  # our own: of the copy's other parts, of this build
        return made

    def said(self) -> str:
        """Why the copy is not worth what its original is; empty if it is."""
        one, other = (each.difference for each in (self.original, self.copy))
        if (None if one is None else one.where) == (None if other is None else other.where):
            return ""
        return (
            f"this copy differs from its replay first {_at(other)}, and its original {_at(one)}: "
            "something in it is decided by a name"
        )


def _in_order(value: Any) -> Any:
    """The value with all its lists in one order."""
    if isinstance(value, dict):
        return {key: _in_order(each) for key, each in value.items()}
    if isinstance(value, list):
        return sorted((_in_order(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def _at(different: Difference | None) -> str:
    return "nowhere" if different is None else f"at {different.where}"
