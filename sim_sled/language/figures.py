"""Figures as a person writes them: durations, sizes, percentages, ranges. Text to integers and back, exactly.

Times are microseconds, sizes bytes, shares parts per million. What cannot be read raises `BadValue` with the
code of scenarios.md 7 and a text that says what to write instead.

Read before: nexus_client/dropshot/durations.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from msgspec import Struct

from nexus_client.dropshot.durations import NUMBER, UNITS_US, microseconds

FOREVER: Final = 1 << 62
"""Microseconds that no run reaches (146,000 years); written `forever`."""
DURATION_MAX: Final = 100 * 365 * 86_400 * 1_000_000
"""Longest duration that can be written: 100 years, so that sums stay far below `FOREVER`."""
SHARE_ONE: Final = 1_000_000
"""100 %."""

_SIZES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_BARE: Final = re.compile(rf"-?{NUMBER}")
_SIZE: Final = re.compile(rf"({NUMBER}) ?([A-Za-z]+)")
_PERCENT: Final = re.compile(rf"(-?{NUMBER}) ?%")


class BadValue(Exception):
    """A value that cannot be read; `code` is the one of scenarios.md 7."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def clip(text: str) -> str:
    """What is quoted of the user's text in a message."""
    return text if len(text) <= 60 else text[:57] + "..."


def parse_duration(text: str, *, forever: bool = False) -> int:
    """Microseconds of `2s`, `1m30s`, `0.5h`; of `forever` where that may be. Raises E180 (no unit, unreadable) and
    E230 (negative).
    """
    text = text.strip()
    if forever and text == "forever":
        return FOREVER
    if text.startswith("-") and microseconds(text[1:]) is not None:
        raise BadValue("E230", f"'{clip(text)}' is negative; time only goes forward")
    us = microseconds(text)
    if us is None:
        if _BARE.fullmatch(text):
            raise BadValue("E180", f"'{clip(text)}' has no unit; write {text}ms, {text}s, {text}m or {text}h")
        others = "1m30s, 2h or forever" if forever else "1m30s or 2h"
        raise BadValue("E180", f"'{clip(text)}' is not a duration; write e.g. 200ms, 5s, {others}")
    if us > DURATION_MAX:
        raise BadValue("E180", f"'{clip(text)}' is longer than 100 years; write 'forever' where that is meant")
    return round(us)


def show_duration(us: int) -> str:
    """The shortest exact spelling: `1m30s`, `250ms`; `forever`."""
    if us >= FOREVER:
        return "forever"
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        n, us = divmod(us, UNITS_US[unit])
        if n:
            parts.append(f"{n}{unit}")
    return "".join(parts) or "0s"


def lasting(us: int) -> str:
    """How long, in a sentence: `for 30s`, `for ever`."""
    return "for ever" if us >= FOREVER else f"for {show_duration(us)}"


def parse_size(text: str) -> int:
    """Bytes of `8GiB`. Raises E140."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2] not in _SIZES:
        if _BARE.fullmatch(text.strip()):
            raise BadValue("E140", f"'{clip(text)}' has no unit; write {text}MiB, {text}GiB or {text}TiB")
        raise BadValue("E140", f"'{clip(text)}' is not a size; write e.g. 512MiB, 8GiB or 1TiB")
    size = Decimal(found[1]) * _SIZES[found[2]]
    if size != int(size) or size >= 2**63:
        raise BadValue("E140", f"'{clip(text)}' is not a whole number of bytes below 8 EiB")
    return int(size)


def show_size(size: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{unit}"
    return f"{size}B"


def parse_percent(text: str) -> int:
    """Parts per million of `1%`, `0.5%`. Raises E220."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise BadValue("E220", f"'{clip(text)}' is not a percentage; write e.g. 5% or 0.1%")
    ppm = Decimal(found[1]) * 10_000
    if not 0 <= ppm <= SHARE_ONE:
        raise BadValue("E220", f"'{clip(text)}' is outside 0%..100%")
    if ppm != int(ppm):
        raise BadValue("E220", f"'{clip(text)}' is finer than 0.0001%")
    return int(ppm)


def show_percent(ppm: int) -> str:
    text = f"{Decimal(ppm) / 10_000:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"


class Span(Struct, frozen=True):
    """`a..b`, both ends included; an open end is None."""

    low: int | None = None
    high: int | None = None

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int):
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def parse_span(text: str, one: Callable[[str], int], code: str) -> Span:
    """`a..b`, `a..`, `..b` or a single value. Raises `code` when the ends are the wrong way round."""
    if ".." not in text:
        value = one(text)
        return Span(value, value)
    low_text, _, high_text = text.partition("..")
    low = one(low_text) if low_text.strip() else None
    high = one(high_text) if high_text.strip() else None
    if low is None and high is None:
        raise BadValue(code, f"'{clip(text)}' has no end at all; write a..b, a.. or ..b")
    if low is not None and high is not None and low > high:
        raise BadValue(code, f"'{clip(text)}' is empty: {low_text} is more than {high_text}")
    return Span(low, high)


def show_span(span: Span, one: Callable[[int], str]) -> str:
    if span.low == span.high and span.low is not None:
        return one(span.low)
    return f"{'' if span.low is None else one(span.low)}..{'' if span.high is None else one(span.high)}"


def parse_count(text: str, code: str = "E201") -> int:
    """A plain whole number. Raises `code`."""
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise BadValue(code, f"'{clip(text)}' is not a whole number")
    return int(text)
