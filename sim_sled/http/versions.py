"""The `api-version` header (SA 1.2).

A version is reduced to its *level*: the number of the newest published version that is not above it. Level 48 is the
newest; level 0 is below everything published and still served, by what was there from the beginning.

Read next: http/routes.py.
"""

from __future__ import annotations

import re
from typing import Final

NEWEST: Final = 48
"""Major number of the newest Sled Agent API; all published versions are N.0.0."""

_NUMBER: Final = r"(0|[1-9][0-9]*)"
_PRE_PART: Final = r"(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(?:-(?P<pre>{_PRE_PART}(?:\.{_PRE_PART})*))?"
    r"(?:\+(?P<build>[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?"
)
_DIGITS_MAX: Final = 19  # more do not fit 64 bits in the original; also keeps int() cheap


class BadVersion(ValueError):
    """Message of the 400. `newer`: well-formed, but above the newest known version."""

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.newer = newer


def level_of(header: str | None) -> int:
    """Level of a request. Raises `BadVersion`."""
    if header is None:
        raise BadVersion('missing expected header "api-version"')
    if not header.isascii():
        raise BadVersion('bad value for header "api-version": not ASCII')
    match = _SEMVER.fullmatch(header)
    if match is None or any(len(match[i]) > _DIGITS_MAX for i in (1, 2, 3)):
        raise BadVersion(f'bad value for header "api-version": not a semantic version: {header}')
    major, rest = int(match[1]), (int(match[2]), int(match[3]))
    # Build metadata counts in the original's order: 48.0.0+x is above 48.0.0. A pre-release is below.
    above = rest > (0, 0) or (match["pre"] is None and match["build"] is not None)
    if major > NEWEST or (major == NEWEST and above):
        raise BadVersion(f"server does not support this API version: {header}", newer=True)
    if match["pre"] is not None and rest == (0, 0):
        return max(major - 1, 0)
    return major
