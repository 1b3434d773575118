"""The `api-version` header (SA 1.2, DS 2).

A version is reduced to its *level*: the number of the newest published version that is not above it. With a newest
version of 48.0.0, level 48 is the newest; level 0 is below everything published and still served, by what was there
from the beginning. All published versions are N.0.0.

The parser's texts are those of the original's semver library.

Read next: sim_sled/http/routes.py.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

U64_MAX: Final = 2**64 - 1
_DIGITS_MAX: Final = 20
"""Of an integer of 64 bits; also keeps int() cheap."""

_MAJOR, _MINOR, _PATCH = "major version number", "minor version number", "patch version number"
_PRE, _BUILD = "pre-release identifier", "build metadata"
_DIGITS: Final = frozenset("0123456789")
_IDENTIFIER: Final = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-")


class BadVersion(ValueError):
    """Message of the 400. `newer`: well-formed, but above the newest known version."""

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.newer = newer


class Semver(Struct, frozen=True):
    """A semantic version; `pre` and `build` are empty if there are none."""

    major: int
    minor: int
    patch: int
    pre: str = ""
    build: str = ""

    @classmethod
    def parse(cls, text: str) -> Semver:
        """Raises `ValueError` with the text of the original's parser."""
        if not text:
            raise ValueError("empty string, expected a semver version")
        major, rest = _number(text, _MAJOR)
        minor, rest = _number(_dot(rest, _MAJOR), _MINOR)
        patch, rest = _number(_dot(rest, _MINOR), _PATCH)
        pre = build = ""
        place = _PATCH
        if rest.startswith("-"):
            place = _PRE
            pre, rest = _identifiers(rest[1:], place)
        if rest.startswith("+"):
            place = _BUILD
            build, rest = _identifiers(rest[1:], place)
        if rest:
            raise ValueError(f"unexpected character {_quoted(rest[0])} after {place}")
        return cls(major, minor, patch, pre, build)


def _number(text: str, place: str) -> tuple[int, str]:
    end = 0
    while end < len(text) and text[end] in _DIGITS:
        if end == 1 and text[0] == "0":
            raise ValueError(f"invalid leading zero in {place}")
        end += 1
    if end == 0:
        if text:
            raise ValueError(f"unexpected character {_quoted(text[0])} while parsing {place}")
        raise ValueError(f"unexpected end of input while parsing {place}")
    if end > _DIGITS_MAX or int(text[:end]) > U64_MAX:
        raise ValueError(f"value of {place} exceeds u64::MAX")
    return int(text[:end]), text[end:]


def _dot(text: str, place: str) -> str:
    if text.startswith("."):
        return text[1:]
    if text:
        raise ValueError(f"unexpected character {_quoted(text[0])} after {place}")
    raise ValueError(f"unexpected end of input while parsing {place}")


def _identifiers(text: str, place: str) -> tuple[str, str]:
    """Segments joined by dots, and what follows them."""
    end = start = 0
    while True:
        while end < len(text) and text[end] in _IDENTIFIER:
            end += 1
        segment = text[start:end]
        if not segment:
            raise ValueError(f"empty identifier segment in {place}")
        if place is _PRE and len(segment) > 1 and segment[0] == "0" and _DIGITS.issuperset(segment):
            raise ValueError(f"invalid leading zero in {place}")
        if text[end : end + 1] != ".":
            return text[:end], text[end:]
        end = start = end + 1


def _quoted(character: str) -> str:
    return "'\\''" if character == "'" else "'\\\\'" if character == "\\" else f"'{character}'"


def level_of(header: str | None, newest: int) -> int:
    """Level of a request to an API whose newest version is `newest`.0.0. Raises `BadVersion`."""
    if header is None:
        raise BadVersion('missing expected header "api-version"')
    if not header.isascii():
        raise BadVersion('bad value for header "api-version": not ASCII')
    try:
        asked = Semver.parse(header)
    except ValueError as why:
        raise BadVersion(f'bad value for header "api-version": {why}: {header}') from None
    beyond = (asked.minor, asked.patch) > (0, 0)
    # Build metadata counts in the original's order: 48.0.0+x is above 48.0.0. A pre-release is below.
    if asked.major > newest or (asked.major == newest and (beyond or (not asked.pre and asked.build))):
        raise BadVersion(f"server does not support this API version: {header}", newer=True)
    return max(asked.major - 1, 0) if asked.pre and not beyond else asked.major
