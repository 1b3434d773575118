"""Distributions of durations. Parsed once to values; `at(u)` is a pure function of a 64-bit draw, in microseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final, Protocol

import attrs
from msgspec import Struct

from sim_sled.language.draw import DRAW_MAX, below, draw, remix
from sim_sled.language.figures import (
    DURATION_MAX,
    SHARE_ONE,
    BadValue,
    clip,
    parse_duration,
    parse_percent,
    show_duration,
    show_percent,
)

P99: Final = 2.3263478740408408
"""Standard normal quantile of 99 %."""
CHOICES_MAX: Final = 100
"""Alternatives of one `choice`."""


class Distribution(Protocol):
    """How long something takes."""

    def at(self, u: int, /) -> int:
        """Microseconds for a draw 0 <= u < 2**64; grows with u for all but `choice` and `file`."""
        ...

    def show(self) -> str:
        """As a scenario writes it."""
        ...

    def typical_most_us(self) -> int:
        """What 99 of 100 stay below: for warnings."""
        ...


class Fixed(Struct, frozen=True):
    us: int

    def at(self, _u: int, /) -> int:
        return self.us

    def show(self) -> str:
        return show_duration(self.us)

    def typical_most_us(self) -> int:
        return self.us


def drawn(takes: Distribution, seed: int, what: str, whom: object = "", nth: int = 0) -> int:
    """How long it takes this time, in microseconds. What always takes the same needs no draw."""
    return takes.us if type(takes) is Fixed else takes.at(draw(seed, what, whom, nth))


class Uniform(Struct, frozen=True):
    low_us: int
    high_us: int

    def at(self, u: int, /) -> int:
        return self.low_us + below(u, self.high_us - self.low_us + 1)

    def show(self) -> str:
        return f"{show_duration(self.low_us)}..{show_duration(self.high_us)}"

    def typical_most_us(self) -> int:
        return self.high_us


class Normal(Struct, frozen=True):
    """Cut off at zero."""

    mean_us: int
    sigma_us: int

    def at(self, u: int, /) -> int:
        return min(DURATION_MAX, max(0, round(self.mean_us + self.sigma_us * quantile(_unit(u)))))

    def show(self) -> str:
        return f"normal({show_duration(self.mean_us)} {show_duration(self.sigma_us)})"

    def typical_most_us(self) -> int:
        return round(self.mean_us + P99 * self.sigma_us)


class LogNormal(Struct, frozen=True):
    """Given by its median and its 99th percentile."""

    p50_us: int
    p99_us: int

    def at(self, u: int, /) -> int:
        sigma = math.log(self.p99_us / self.p50_us) / P99
        return min(DURATION_MAX, round(self.p50_us * math.exp(min(sigma * quantile(_unit(u)), 100.0))))

    def show(self) -> str:
        return f"lognormal(p50={show_duration(self.p50_us)} p99={show_duration(self.p99_us)})"

    def typical_most_us(self) -> int:
        return self.p99_us


class Exponential(Struct, frozen=True):
    mean_us: int

    def at(self, u: int, /) -> int:
        return round(-self.mean_us * math.log1p(-_unit(u)))

    def show(self) -> str:
        return f"exp({show_duration(self.mean_us)})"

    def typical_most_us(self) -> int:
        return round(self.mean_us * math.log(100))


class Choice(Struct, frozen=True):
    """Shares (ppm, together 100 %) with a fixed or uniform time each."""

    parts: tuple[tuple[int, Fixed | Uniform], ...]

    def at(self, u: int, /) -> int:
        point = below(u, SHARE_ONE)
        for share, inner in self.parts:
            if point < share:
                return inner.at(remix(u))
            point -= share
        raise AssertionError("shares sum up to 100 %")

    def show(self) -> str:
        return f"choice({' '.join(f'{show_percent(share)}={inner.show()}' for share, inner in self.parts)})"

    def typical_most_us(self) -> int:
        return max(inner.typical_most_us() for share, inner in self.parts if share)


@attrs.frozen
class FromFile:
    """One of the durations in a CSV file's first column, each as likely."""

    name: str
    values_us: tuple[int, ...] = attrs.field(repr=False)

    def at(self, u: int, /) -> int:
        return self.values_us[below(u, len(self.values_us))]

    def show(self) -> str:
        return f"file({self.name})"

    def typical_most_us(self) -> int:
        return sorted(self.values_us)[(len(self.values_us) * 99 - 1) // 100]


def _unit(u: int) -> float:
    """The draw as a float strictly between 0 and 1."""
    return (u + 0.5) / DRAW_MAX if u < DRAW_MAX - 2**11 else 1 - 2.0**-53


_A: Final = (-3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.383577518672690e2,
             -3.066479806614716e1, 2.506628277459239)  # fmt: skip
_B: Final = (
    -5.447609879822406e1,
    1.615858368580409e2,
    -1.556989798598866e2,
    6.680131188771972e1,
    -1.328068155288572e1,
)
_C: Final = (-7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734, 4.374664141464968,
             2.938163982698783)  # fmt: skip
_D: Final = (7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416)


def quantile(p: float) -> float:
    """Standard normal quantile (Acklam's rational approximation, relative error below 1.2e-9).

    Our own because the standard library's stands in a module that imports the global generator.
    """
    if p < 0.02425:
        q = math.sqrt(-2 * math.log(p))
        return _poly(_C, q) / (_poly(_D, q) * q + 1)
    if p > 1 - 0.02425:
        return -quantile(1 - p)
    q = p - 0.5
    r = q * q
    return _poly(_A, r) * q / (_poly(_B, r) * r + 1)


def _poly(coefficients: tuple[float, ...], x: float) -> float:
    total = 0.0
    for c in coefficients:
        total = total * x + c
    return total


FORMS: Final = "2s, 1s..3s, normal(m s), lognormal(p50= p99=), exp(m), choice(90%=1s 10%=30s) or file(x.csv)"
_CALL: Final = re.compile(r"([a-z]+)\((.*)\)")
ReadFile = Callable[[str], tuple[int, ...]]


def parse_distribution(text: str, read_file: ReadFile) -> Distribution:
    """Raises E180 (unreadable, no unit), E181 (a > b), E182 (shares), E230 (negative); what `read_file` raises."""
    text = text.strip()
    call = _CALL.fullmatch(text)
    if call is None:
        return _plain(text)
    name, inside = call[1], call[2].strip()
    words = inside.split()
    if name == "normal" and len(words) == 2:
        return Normal(parse_duration(words[0]), parse_duration(words[1]))
    if name == "lognormal" and len(words) == 2 and words[0].startswith("p50=") and words[1].startswith("p99="):
        return _lognormal(text, parse_duration(words[0][4:]), parse_duration(words[1][4:]))
    if name == "exp" and len(words) == 1:
        return Exponential(parse_duration(words[0]))
    if name == "choice" and words:
        return _choice(words)
    if name == "file" and inside:
        return FromFile(inside, read_file(inside))
    raise BadValue("E180", f"'{clip(text)}' is not a distribution; write {FORMS}")


def _plain(text: str) -> Fixed | Uniform:
    if ".." not in text:
        return Fixed(parse_duration(text))
    low_text, _, high_text = text.partition("..")
    low, high = parse_duration(low_text), parse_duration(high_text)
    if low > high:
        raise BadValue("E181", f"'{clip(text)}': {low_text.strip()} is more than {high_text.strip()}")
    return Uniform(low, high) if low < high else Fixed(low)


def _lognormal(text: str, p50: int, p99: int) -> LogNormal:
    if p50 == 0:
        raise BadValue("E180", f"'{clip(text)}': a lognormal's p50 is more than 0")
    if p50 > p99:
        raise BadValue("E181", f"'{clip(text)}': p50 is more than p99")
    return LogNormal(p50, p99)


def _choice(words: list[str]) -> Choice:
    if len(words) > CHOICES_MAX:
        raise BadValue("E180", f"more than {CHOICES_MAX} alternatives in one choice")
    parts = []
    for word in words:
        share_text, equals, value = word.partition("=")
        if not equals:
            raise BadValue("E180", f"'{clip(word)}' is not an alternative; write e.g. 90%=1s")
        try:
            share = parse_percent(share_text)
        except BadValue as err:
            raise BadValue("E182", err.text) from None
        parts.append((share, _plain(value)))
    total = sum(share for share, _ in parts)
    if total != SHARE_ONE:
        raise BadValue("E182", f"the shares of a choice sum up to {show_percent(total)}, not 100%")
    return Choice(tuple(parts))
