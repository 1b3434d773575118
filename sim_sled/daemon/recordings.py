"""Reads the folder of a recording: its parts in order, line by line, each with where it stands.

Read before: daemon/checkpoint.py, daemon/recorder.py, recording/lines.py, recording/replaying.py.
Read next: cli/recording.py, daemon/scrubbing.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import attrs

from sim_sled.daemon.graph import program
from sim_sled.recording.lines import BadLine, Header, Line, read

_PART: Final = re.compile(r"part-(\d{5,9})\.jsonl")
LINE_MAX: Final = 64 * 1024 * 1024
"""Bytes: the largest body a request may have, many times over. A file without line ends must not fill the memory."""


class BadRecording(ValueError):
    """The folder holds no recording that can be read; the text says why, and where."""


@attrs.define(eq=False)
class Recording:
    """One folder. Made by `opened`."""

    folder: Path
    parts: list[Path]
    header: Header
    notes: list[str] = attrs.field(factory=list)
    """What is to be said of it: another version, a torn end."""

    def lines(self) -> Iterator[tuple[str, Line]]:
        """Every line and its place, `file:number`. Raises `BadRecording`."""
        for number, part in enumerate(self.parts, self.header.part):
            yield from self._of_part(number, part)

    def _of_part(self, number: int, part: Path) -> Iterator[tuple[str, Line]]:
        last = part is self.parts[-1]
        try:
            with part.open("rb") as file:
                at = 0
                while text := file.readline(LINE_MAX):
                    at += 1
                    where = f"{part.name}:{at}"
                    if not text.endswith(b"\n"):
                        if not last or len(text) == LINE_MAX:
                            raise BadRecording(f"{where}: the line has no end")
                        self.notes.append(f"{where}: the last line is torn, and left out: the rack ended at once")
                        return
                    line = _read(where, text)
                    if at == 1:
                        self._begins(where, number, line)
                    elif isinstance(line, Header):
                        raise BadRecording(f"{where}: a part begins in the middle of a part")
                    yield where, line
                if at == 0 and not last:
                    raise BadRecording(f"{part.name}: is empty")
        except OSError as error:
            raise BadRecording(f"cannot read {part}: {error.strerror or error}") from error

    def _begins(self, where: str, number: int, line: Line) -> None:
        if not isinstance(line, Header):
            raise BadRecording(f"{where}: the first line of a part says which recording it is of; this one does not")
        if line.of != self.header.of:
            raise BadRecording(f"{where}: this part is of another recording ({line.of}, not {self.header.of})")
        if line.part != number:
            raise BadRecording(f"{where}: this says that it is part {line.part}, and it is in the place of {number}")


def of_workers(folder: Path) -> list[Path]:
    """The folders of a rack's workers, if that is what is in it."""
    try:
        there = sorted(folder.iterdir())
    except OSError:
        return []  # `opened` says why
    if any(_PART.fullmatch(each.name) for each in there):
        return []
    return [each for each in there if each.is_dir() and any(_PART.fullmatch(part.name) for part in each.iterdir())]


def opened(folder: Path) -> Recording:
    """The recording in a folder. Raises `BadRecording`."""
    try:
        there = sorted(folder.iterdir())
    except NotADirectoryError:
        raise BadRecording(f"{folder} is a file: a recording is the folder that --record was given") from None
    except OSError as error:
        raise BadRecording(f"cannot read {folder}: {error.strerror or error}") from error
    parts = {int(found[1]): each for each in there if (found := _PART.fullmatch(each.name))}
    if not parts:
        other = f"; there is: {', '.join(each.name for each in there[:4])}" if there else ", it is empty"
        raise BadRecording(f"{folder} has no recording in it{other}")
    for number in range(min(parts), max(parts) + 1):
        if number not in parts:
            raise BadRecording(
                f"{folder}: part {number} of {max(parts)} is missing: nothing after it can be replayed"
            )
    first = parts[min(parts)]
    try:
        with first.open("rb") as file:
            text = file.readline(LINE_MAX)
    except OSError as error:
        raise BadRecording(f"cannot read {first}: {error.strerror or error}") from error
    if not text.strip():
        raise BadRecording(f"{first.name} is empty: the rack ended before its first line was written")
    header = _read(f"{first.name}:1", text)
    if not isinstance(header, Header):
        raise BadRecording(f"{first.name}:1: the first line does not say how the rack began")
    if header.part > 1 and not header.state:
        raise BadRecording(
            f"{folder}: part {header.part - 1} of {max(parts)} is missing: nothing after it can be replayed"
        )
    recording = Recording(folder, [parts[number] for number in sorted(parts)], header)
    if header.program != program():
        here = version("sim-sled")
        other = f"sim-sled {header.version}" if header.version != here else f"another build of {here}"
        recording.notes.append(f"{first.name}:1: recorded by {other}; this is {here}, and may decide otherwise")
    return recording


def _read(where: str, text: bytes) -> Line:
    try:
        return read(text)
    except BadLine as error:
        raise BadRecording(f"{where}: {error}") from None
