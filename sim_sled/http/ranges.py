"""The `Range` header, as the crate `http-range` 0.1.5 reads it, and answers that are parts of files (SR 4.1).

Read before: http/routes.py. Read next: http/bundles.py.
"""

from __future__ import annotations

import re
from typing import Final

from sim_sled.http.routes import RawAnswer

UNSATISFIED: Final = RawAnswer(400)
"""No overlap, several ranges, not to be read: an empty answer, no Dropshot error."""

ACCEPT: Final = {"accept-ranges": "bytes"}

_RANGE: Final = re.compile(r"\s*(\d*)\s*-\s*(\d*)\s*")
_DIGITS_MAX: Final = 19


def span(header: str, length: int) -> tuple[int, int] | None:
    """First byte and number of bytes that `header` asks for; None: refuse."""
    if not header.startswith("bytes="):
        return None
    spans = [each for each in header[6:].split(",") if each.strip()]
    found: list[tuple[int, int]] = []
    overlap = False
    for each in spans:
        match = _RANGE.fullmatch(each)
        if match is None or max(len(match[1]), len(match[2])) > _DIGITS_MAX or not (match[1] or match[2]):
            return None
        if not match[1]:
            size = min(int(match[2]), length)
            if size == 0:
                continue
            found.append((length - size, size))
            continue
        start = int(match[1])
        if match[2] and int(match[2]) < start:
            return None
        if start >= length:
            overlap = True
            continue
        end = min(int(match[2]), length - 1) if match[2] else length - 1
        found.append((start, end - start + 1))
    if len(found) != 1 or (overlap and not found):
        return None
    return found[0]


def head_of(header: str | None, length: int) -> tuple[int, int, int, dict[str, str]] | None:
    """Status, first byte, number of bytes and headers of an answer about something of `length`; None: refuse."""
    if header is None:
        return 200, 0, length, dict(ACCEPT)
    asked = span(header, length)
    if asked is None:
        return None
    first, size = asked
    return 206, first, size, ACCEPT | {"content-range": f"bytes {first}-{first + size - 1}/{length}"}
