"""The file of a campaign: JSON lines, only ever appended to. What was written is there after a kill -9.

    {"campaign": 2, "of": "happy", "digest": "…", …, "sum": "…"}     which campaign this is: only the same one goes on
    {"seed": 0, "virtual_us": …, "steps": …, "sum": "…"}             one line per run, in the order of the seeds
    {"seed": 1, …, "failures": [{"what": …, "text": …}], "sum": "…"}

`sum` is a checksum of the line and of all lines before it: so a line that was changed, doubled, moved or lost is told
by its number. A last line without its end was being written when the process died: it is cut off, and its seed played
again.

Read before: campaign/job.py. Read next: campaign/explore.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final, Self

import attrs

from nexus_client.dropshot import foreign
from nexus_client.dropshot.streams import CannotWrite
from sim_sled.campaign.job import Job, Ran, read_ran
from sim_sled.language.printing import print_scenario

VERSION: Final = 2
LINE_MAX: Final = 1 << 20
"""Bytes of a line; ours have a few hundred."""


_SEALED: Final = re.compile(rb'(.*),"sum":"([0-9a-f]{8})"}\n', re.DOTALL)


class BadSheet(Exception):
    """The file is not one of this campaign; the sentence says why."""


def head_of(job: Job, order: str, version: str) -> str:
    """The first line: everything that decides what a seed gives, and in which order seeds come."""
    said = {
        "campaign": VERSION,
        "of": job.scenario.name,
        "digest": digest(print_scenario(job.scenario)),
        "variant": job.how.variant,
        "sled_variant": job.how.sled_variant,
        "hazard": job.hazard,
        "seeds": order,
        "version": version,
    }
    return sealed(json.dumps(said, ensure_ascii=True, separators=(",", ":")) + "\n", 0)[0]


def sealed(line: str, before: int) -> tuple[str, int]:
    """A line that is a JSON object with its checksum at the end, and that checksum. `before`: the last line's."""
    body = line.removesuffix("}\n")
    now = zlib.crc32(body.encode(), before)
    return f'{body},"sum":"{now:08x}"}}\n', now


def seal_of(line: bytes, before: int) -> int | None:
    """The checksum of a line, or None if it is none that follows the line with that checksum."""
    found = _SEALED.fullmatch(line)
    if found is None:
        return None
    now = zlib.crc32(found[1], before)
    return now if found[2] == b"%08x" % now else None


def digest(text: str) -> str:
    """A short name for a text; not a secret."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


@attrs.define(eq=False)
class Sheet:
    """An open file. `open` it, read what is there with `earlier`, then `append`; `close` at the end."""

    path: Path
    _file: int
    _kept: int = 0
    """Bytes that are whole lines."""
    _sum: int = 0
    """The checksum of the last of them."""

    @classmethod
    def open(cls, path: Path, head: str, *, resume: bool) -> Self:
        """Raises `BadSheet` if the file is another campaign's, or there already without `resume`; `CannotWrite`."""
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise CannotWrite(f"cannot write {path}: {error.strerror}") from None
        sheet = cls(path, file)
        try:
            sheet._begin(head, resume=resume)
        except BaseException:
            os.close(file)
            raise
        return sheet

    def _begin(self, head: str, *, resume: bool) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):  # a pipe has no beginning that could be read
            raise BadSheet(f"{self.path}: not a regular file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadSheet(f"{self.path}: another campaign is writing it") from None
        with self._reading() as lines:
            first = lines.readline(LINE_MAX)
        if not first.endswith(b"\n"):
            # empty, or it died in its first line: nothing is lost (but nobody else's file is taken for that)
            if not head.encode().startswith(first):
                raise BadSheet(f"{self.path}: this is no file of a campaign")
            os.ftruncate(self._file, 0)
            self.write(head)
            self._kept, self._sum = len(head.encode()), _sum_of_head(head.encode())
            return
        if not resume:
            raise BadSheet(f"{self.path} is there already; --resume goes on with it")
        if first.decode(errors="replace") != head:
            raise BadSheet(f"{self.path}: {_difference(first, head)}")
        self._kept, self._sum = len(first), _sum_of_head(first)

    def earlier(self) -> Iterator[Ran]:
        """The runs that are there, then cuts off what is no whole line. Raises `BadSheet` for a line that is none, or
        that is not as it was written; nothing is cut off then.
        """
        with self._reading() as lines:
            number = 1
            lines.seek(self._kept)
            while (line := lines.readline(LINE_MAX)).endswith(b"\n") or len(line) == LINE_MAX:
                number += 1
                seal = seal_of(line, self._sum)
                try:
                    ran = None if seal is None else read_ran(line.decode())
                except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                    ran = None
                if ran is None or seal is None:
                    raise BadSheet(
                        f"{self.path}: line {number} is no result of a run, or not as it was written there: its "
                        f"checksum does not fit. --resume goes on if it is cut off with all that follows"
                    )
                self._kept, self._sum = self._kept + len(line), seal
                yield ran
        os.ftruncate(self._file, self._kept)

    def append(self, ran: Ran) -> None:
        """One write for one line: the kernel has it whatever becomes of us."""
        line, self._sum = sealed(ran.line(), self._sum)
        self.write(line)

    def write(self, text: str) -> None:
        left = text.encode()
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            raise CannotWrite(f"cannot write {self.path}: {error.strerror}") from None

    def close(self) -> None:
        """What was written reaches the disk, too."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise CannotWrite(f"cannot write {self.path}: {error.strerror}") from None
        finally:
            os.close(self._file)

    def _reading(self) -> BinaryIO:
        """The file from its start, beside the appending."""
        file = os.fdopen(os.dup(self._file), "rb")
        file.seek(0)
        return file


def _sum_of_head(head: bytes) -> int:
    seal = seal_of(head, 0)
    assert seal is not None, "a head is sealed"
    return seal


_CALLED: Final = {"of": "scenario", "sled_variant": "sled variant", "version": "sim-sled"}
_CHANGED: Final = "what the scenario's files say has changed"


def _difference(first: bytes, head: str) -> str:
    if first.startswith(b'{"campaign":%d,' % VERSION) and seal_of(first, 0) is None:
        return "line 1 is damaged (its checksum does not fit)"
    try:
        there, ours = foreign.loads(first), foreign.loads(head)
        del ours["sum"]
        differ = [
            _CHANGED
            if key == "digest"
            else f"{_CALLED.get(key, key)} {there.get(key) or 'none'}, now {ours[key] or 'none'}"
            for key in ours
            if there.get(key) != ours[key]
        ]
    except (ValueError, AttributeError):
        differ = []
    if not differ or "campaign" not in there:
        return "this is no file of a campaign (line 1)"
    if differ[0].startswith("scenario "):
        differ = [each for each in differ if each is not _CHANGED]
    return f"it is of another campaign ({'; '.join(differ)})"
