r"""A recording without personal things: every id, name, key and address in it becomes a stand-in of its kind.

    92eb7d61-3ffc-55f4-...   another UUID of that version    fd00:1122:3344:101::1   another ULA, in as many networks
    db-7.example.net         pqxvtm-7.example.wkeyzd         A8:40:25:F1:02:03       another Oxide MAC
    BRM42220057              Kqzjxw83170264                  sha256, keys, base64    as long, of the same characters

What is kept is what the program itself says: `words` are those of its own texts and names, and all numbers that are
values. Whatever else stands in a text is replaced, so a field that nobody thought of hides nothing. Fields that are
personal whatever is in them (`PERSONAL`) are replaced even where a word of the program is a host's name.

The same thing has the same stand-in on every line, and the order of ids and of words is kept, since a core sorts by
them. So the copy replays as its original does, but for chance, which is drawn by ids: those draws stand in the copy
(`Turn.drawn`). Stand-ins are drawn with a key that the caller forgets.

Read before: recording/forms.py, recording/lines.py, recording/replaying.py. Read next: daemon/scrubbing.py.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, TypeVar
from uuid import UUID

import attrs
import msgspec

from nexus_client.draw import KeyPart
from nexus_client.dropshot import foreign
from sim_sled.core.config import SledConfig
from sim_sled.recording.forms import BadForm, form, value_of
from sim_sled.recording.lines import Header, Http, Line, Turn

LineT = TypeVar("LineT", bound=Line)

PERSONAL: Final = frozenset(
    {
        "hostname", "serial", "serial_number", "baseboard_serial", "description", "comment", "password", "passphrase",
        "secret", "token", "authorization", "user", "username", "email", "public_key", "private_key", "md5_auth_key",
    }
)  # fmt: skip
"""Fields whose texts are replaced even if they are words of the program."""
_OF_HOSTS: Final = ("key", "_incarnations")
"""Fields of a rack's state with names of hosts in them: by those the rules draw and count (engine/cast.py)."""
_KEPT_MARKS: Final = ("~enum ", "~class ", "~function ", "~float ", "~time ")
_TYPE: Final = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?")
_HEX16: Final = 16
"""Digits from which on a run of hex is a digest or a key, and not a number or a word."""
_WORD: Final = 6
"""Letters of a word's stand-in: 300 million of them, and a host name stays short."""
_LONG_NUMBER: Final = 5
"""Digits beside letters from which on they are part of a serial number."""
_LONG_NUMBER_HERE: Final = 3
"""... in a personal field."""
_REMEMBERED: Final = 100_000
"""Texts, which mostly come again, and their stand-ins: some 30 MB."""
_SHA: Final = 32
"""Bytes of a digest that stands as a list of numbers."""
_SPELT: Final = 3
"""Letters from which on a list of numbers is a text, a number for each byte: the serial number of an NVMe disk."""

_THINGS: Final = re.compile(
    r"""
      (?P<uuid> [0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12} )
    | (?P<time> \d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)? )
    | (?P<mac>  (?<![0-9A-Za-z:])(?:(?:[0-9a-fA-F]{2}:){5}|(?:[0-9a-fA-F]{2}-){5})[0-9a-fA-F]{2}(?![0-9A-Za-z:]) )
    | (?P<ip>   (?<![0-9A-Za-z:.])(?:
                  (?:[0-9a-fA-F]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F]{1,4})?(?![0-9A-Za-z:])
                | (?:\d{1,3}\.){3}\d{1,3}(?![0-9A-Za-z]|\.\d)
                )(?:/(?P<bits>\d{1,3}))? )
    | (?P<host> (?<!\d)(?<!\d-)(?:\d{1,3}-){3}\d{1,3}(?!-?\d) )
    | (?P<pem>  (?<=-----\n)(?:[0-9A-Za-z+/]+={0,2}\n)+(?=-----END) )
    | (?P<hex>  (?<![0-9A-Za-z])(?:[0-9a-f]{16,}|[0-9A-F]{16,})(?![0-9A-Za-z]) )
    | (?P<blob> (?<![0-9A-Za-z+/])(?=[0-9A-Za-z+/]*[A-Z])(?=[0-9A-Za-z+/]*[a-z])(?=[0-9A-Za-z+/]*\d)
                (?!/[a-z]+/)[0-9A-Za-z+/]{20,}={0,2}
              | (?<![0-9A-Za-z+/])(?=[0-9A-Za-z+/]*[0-9A-Z])
                (?:[0-9A-Za-z+/]{4})*(?:[0-9A-Za-z+/]{3}=|[0-9A-Za-z+/]{2}==)(?![=\w]) )
    | (?P<mark> (?<![0-9A-Za-z])[0-9a-f]{8}(?![0-9A-Za-z]) )
    | (?P<word> [^\W\d_]+ )
    | (?P<number> \d+ )
    """,
    re.VERBOSE,
)


# ---- who is there


@attrs.define(eq=False)
class Names:
    """Everything in a recording that needs a stand-in: `see` each of its lines, then `stand_ins`.

    `words`: what the program itself says, in lower case. `key`: of the caller, who forgets it.
    """

    words: frozenset[str]
    key: bytes
    _uuids: set[UUID] = attrs.field(factory=set)
    _addresses: dict[int, set[int]] = attrs.field(factory=dict)
    _runs: set[str] = attrs.field(factory=set)
    """Words and numbers that are to be replaced, somewhere at least."""
    _personal: set[str] = attrs.field(factory=set)
    _seen: set[str] = attrs.field(factory=set)
    """Texts of before."""

    def see(self, line: Line) -> None:
        """One line."""
        for text, personal in _texts(plain(line)):
            self._text(text, personal=personal)

    def see_text(self, text: str, field: str) -> None:
        """One text that stands in this field."""
        for each, personal in _texts(text, field):
            self._text(each, personal=personal)

    def _text(self, text: str, *, personal: bool) -> None:
        if personal:
            self._personal.add(text)
        if not _is_new(text, self._seen):
            return
        for found in _THINGS.finditer(text):
            kind = found.lastgroup
            if kind == "uuid":
                self._uuids.add(UUID(found[0]))
            elif kind == "host" or found["ip"] is not None:
                old = _address_of(found[0].partition("/")[0].replace("-", "."))
                if old is not None:
                    self._addresses.setdefault(old.max_prefixlen, set()).add(int(old))
            elif kind in ("word", "number", "mark"):
                self._runs.update(_runs(found[0]))

    def stand_ins(self) -> StandIns:
        """When all lines were seen."""
        chance = _Chance(self.key)
        uuids = [each for each in sorted(self._uuids) if str(each) not in self.words and 0 < each.int < 2**128 - 1]
        new = sorted(chance.number(16, "uuid", str(nth)) for nth in range(len(uuids)))
        found = {old: _uuid_like(old, number) for old, number in zip(uuids, new, strict=True)}
        taken = {*self.words, *(each.lower() for each in self._runs)}
        made: dict[str, str] = {}
        for kind, runs in _by_kind(self._runs):
            made.update(zip(runs, chance.in_order(kind, runs, taken), strict=True))
        addresses = {size: sorted(each) for size, each in self._addresses.items()}
        marks = {str(old)[:8]: str(new)[:8] for old, new in found.items()}
        known = StandIns(self.words, chance, found, addresses, made, marks)
        for each in sorted(self._personal):
            known.learn(each)
        return known


def _is_new(text: str, seen: set[str]) -> bool:
    """And is not any more."""
    if text in seen:
        return False
    if len(seen) >= _REMEMBERED:
        seen.clear()
    seen.add(text)
    return True


def _runs(text: str) -> Iterator[str]:
    """A piece of letters and digits, as words and numbers."""
    for each in re.finditer(r"[^\W\d_]+|\d+", text):
        yield each[0]


def _by_kind(runs: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Runs that look alike, each kind in its order."""
    kinds: dict[str, list[str]] = {}
    for each in sorted(runs):
        kind = f"{len(each)} digits" if each.isdigit() else "Word" if each[0].isupper() else "word"
        kinds.setdefault(kind, []).append(each)
    yield from sorted(kinds.items())


def _uuid_like(old: UUID, number: int) -> UUID:
    """Of the same version, and the variant that it has in every RFC."""
    made = number & ~(0xF << 76) & ~(0x3 << 62)
    return UUID(int=made | (old.int & (0xF << 76)) | (old.int & (0x3 << 62)))


@attrs.frozen
class _Chance:
    """Numbers that nobody can guess without the key."""

    key: bytes

    def bytes(self, size: int, *what: str) -> bytes:
        made = b""
        while len(made) < size:
            told = "\0".join((*what, str(len(made)))).encode()
            made += blake2b(told, key=self.key, digest_size=64).digest()
        return made[:size]

    def number(self, size: int, *what: str) -> int:
        return int.from_bytes(self.bytes(size, *what), "big")

    def in_order(self, kind: str, runs: list[str], taken: set[str]) -> list[str]:
        """As many stand-ins as runs, in the same order, none of them taken."""
        digits = runs[0].isdigit()
        size = len(runs[0]) if digits else _WORD
        if digits and len(runs) * 2 > 10**size:
            size += 2  # else there are too few of them
        made: set[str] = set()
        nth = 0
        while len(made) < len(runs):
            number = self.number(12, kind, str(nth))
            nth += 1
            text = str(number % 10**size).zfill(size) if digits else _letters(number, size)
            text = text.capitalize() if kind == "Word" else text
            if text.lower() not in taken:
                made.add(text)
        return sorted(made)


def _letters(number: int, size: int) -> str:
    made = ""
    for _ in range(size):
        number, letter = divmod(number, 26)
        made += chr(97 + letter)
    return made


# ---- what stands for whom


@attrs.define(eq=False)
class StandIns:
    """What is written instead of what. Made by `Names`."""

    words: frozenset[str]
    chance: _Chance
    uuids: dict[UUID, UUID]
    addresses: dict[int, list[int]]
    """All of them, in order, by their size in bits."""
    runs: dict[str, str]
    marks: dict[str, str]
    """First eight digits of ids, as logs have them."""
    _whole: dict[str, str] = attrs.field(factory=dict)
    """Personal values with words of the program in them: whole, and wherever they stand."""
    _alone: dict[str, str] = attrs.field(factory=dict)
    """Personal values that are one word of the program: only where they are a value, and in keys of draws."""
    _given: set[str] = attrs.field(factory=set)
    """What has come from outside so far."""
    _seen: set[str] = attrs.field(factory=set)
    """Texts that have."""
    _made: dict[str, str] = attrs.field(factory=dict)
    """Digests that a core makes: what it makes of stand-ins."""
    _blobs: dict[str, str] = attrs.field(factory=dict)
    """Stored bytes in base64, as the core gives them back."""
    _bits: dict[tuple[int, int], int] = attrs.field(factory=dict)
    _known: re.Pattern[str] | None = None
    _texts: dict[str, str] = attrs.field(factory=dict)
    """Texts of before: most come again."""

    def learn(self, value: str) -> None:
        """A personal value."""
        new = self._personal(value)
        if new != self.text(value):
            (self._alone if value.lower() in self.words else self._whole)[value] = new
            self._known = None
            self._texts.clear()

    def line(self, line: LineT) -> LineT:
        """The line, with stand-ins."""
        return msgspec.convert(self._value(plain(line), ""), type(line))

    def given(self, line: Line) -> None:
        """What comes from outside with this line, before it is played."""
        told: Any = plain(line)
        if isinstance(line, Http):
            return
        self._give(told["in"] if isinstance(line, Turn) else told, "")

    def _give(self, told: Any, field: str) -> None:
        for text, _ in _texts(told, field):
            if _is_new(text, self._seen):
                self._given.update(found[0].lower() for found in _THINGS.finditer(text))

    def in_state(self, told: Any, field: str) -> Any:
        """A text in the state of a rack, a number that may be an id, or numbers that may be the bytes of a text."""
        if isinstance(told, int):
            known = self.uuids.get(UUID(int=told)) if told < 1 << 128 else None
            return told if known is None else known.int
        self._give(told, field)
        return self._part(told, first=False) if field in _OF_HOSTS else self._value(told, field)

    def follow(self, original: Any, copy: Any) -> bool:
        """A core makes ids, digests and words of what it is given. What the original's core said, and never came from
        outside, stands from now on for what the copy's core says there; whether anything does.
        """
        if isinstance(original, str) and isinstance(copy, str):
            return self._follow_text(original, copy)
        if isinstance(original, dict) and isinstance(copy, dict):
            learnt = [self.follow(original[key], copy[key]) for key in original if key in copy]
            olds = [[key, original[key]] for key in original if key not in copy]
            news = [[key, copy[key]] for key in copy if key not in original]
            return any((*learnt, self.follow(olds, news)))
        if isinstance(original, list) and isinstance(copy, list):
            if _is_digest(original) and _is_digest(copy):
                return self._follow_text(bytes(original).hex(), bytes(copy).hex())
            learnt = [self.follow(old, new) for old, new in zip(original, copy, strict=False)]
            return any(learnt)
        return False

    def _follow_text(self, original: str, copy: str) -> bool:
        things, others = _things(original), _things(copy)
        if len(things) != len(others) or _THINGS.sub("", original) != _THINGS.sub("", copy):
            return False
        learnt = [self._stands_for(*each) for each in zip(things, others, strict=True)]
        return any(learnt)

    def _stands_for(self, old: re.Match[str], new: re.Match[str]) -> bool:
        if old.lastgroup != new.lastgroup or old[0].lower() in self._given:
            return False
        if self._thing(old) == new[0]:
            return False
        match old.lastgroup:
            case "uuid":
                self.uuids[UUID(old[0])] = UUID(new[0])
            case "hex" | "blob" | "pem":
                self._made[old[0]] = new[0]
            case "word" | "number":
                self.runs[old[0]] = new[0]
            case _:
                return False
        self._texts.clear()
        return True

    def key(self, key: tuple[KeyPart, ...]) -> tuple[KeyPart, ...]:
        """The key that a draw has in the copy."""
        return tuple(self._part(each, first=nth == 0) for nth, each in enumerate(key))

    def _part(self, part: KeyPart, *, first: bool) -> KeyPart:
        if isinstance(part, UUID):
            return self.uuids.get(part, part)
        if not isinstance(part, str):
            return part
        if not first:  # for whom: a host name and a number
            name, slash, number = part.partition("/")
            if name in self._alone:
                return f"{self._alone[name]}{slash}{number}"
        return self.text(part)

    def _value(self, value: Any, field: str) -> Any:
        if isinstance(value, str):
            return self._leaf(value, field)
        if isinstance(value, dict):
            return {self.text(key): self._value(each, key) for key, each in value.items()}
        if isinstance(value, list):
            if _is_digest(value):
                return list(bytes.fromhex(self._alike(bytes(value).hex())))
            if _is_spelt(value, field):
                return list(self._spelt(bytes(value)))
            return [self._value(each, field) for each in value]
        return value

    def _leaf(self, text: str, field: str) -> str:
        if (field == "~" and _TYPE.fullmatch(text)) or text.startswith(_KEPT_MARKS):
            return text
        for mark in ("~bytes ", "~raw "):
            if text.startswith(mark):
                return mark + self._blob(text.removeprefix(mark))
        if field == "body_base64" or text in self._blobs:
            return self._blob(text)
        if text[:1] in ("{", "["):
            inner = _json_of(text)
            if inner is not None:
                return json.dumps(self._value(inner, field), separators=_TIGHT, ensure_ascii=False)
        return self._personal(text) if field in PERSONAL else self.text(text)

    def text(self, text: str) -> str:
        """Any text: what is in it and is not the program's has stand-ins."""
        known = self._texts.get(text)
        if known is None:
            if len(self._texts) >= _REMEMBERED:
                self._texts.clear()
            known = self._texts[text] = self._text(text)
        return known

    def _text(self, text: str) -> str:
        if self._whole:
            if self._known is None:
                longest = sorted(self._whole, key=len, reverse=True)
                self._known = re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, longest))})(?![^\W_])")
            at, made = 0, []
            for found in self._known.finditer(text):
                made += [_THINGS.sub(self._thing, text[at : found.start()]), self._whole[found[0]]]
                at = found.end()
            return "".join((*made, _THINGS.sub(self._thing, text[at:])))
        return _THINGS.sub(self._thing, text)

    def _personal(self, text: str) -> str:
        # with an id in it the rest was made by the program: `sim-<sled id>`
        if any(found.lastgroup == "uuid" for found in _THINGS.finditer(text)):
            return _THINGS.sub(self._thing, text)
        return _THINGS.sub(self._personal_thing, text)

    def _personal_thing(self, found: re.Match[str]) -> str:
        if found.lastgroup in ("word", "mark"):
            return "".join(self.runs.get(each, each) for each in _runs(found[0]))
        if found.lastgroup == "number" and len(found[0]) >= _LONG_NUMBER_HERE:
            return self.runs.get(found[0], found[0])
        return self._thing(found)

    def _thing(self, found: re.Match[str]) -> str:
        text = found[0]
        match found.lastgroup:
            case "uuid":
                return _as(text, str(self.uuids.get(UUID(text), text)))
            case "mac":
                return self._mac(text)
            case "ip" | "bits":
                return self._ip(text)
            case "host":  # `ip-10-1-2-3`
                return self._ip(text.replace("-", ".")).replace(".", "-")
            case "hex" | "blob" | "pem":
                return self._alike(text)
            case "mark":
                return self.marks.get(text) or "".join(self._run(each, text) for each in _runs(text))
            case "word":
                return self._run(text, "")
            case "number":
                return self._run(text, found.string[max(found.start() - 1, 0) : found.end() + 1])
        return text

    def _run(self, run: str, beside: str) -> str:
        if run.isdigit():
            serial = len(run) >= _LONG_NUMBER and any(each.isalpha() for each in beside) and run not in self.words
            return self.runs.get(run, run) if serial else run
        return run if len(run) == 1 or run.lower() in self.words else self.runs.get(run, run)

    def _alike(self, text: str) -> str:
        """As long, each character of the kind that it was; hex stays hex."""
        if text in self._made:
            return self._made[text]
        if len(text) == 32 and (known := self.uuids.get(_uuid_of(text) or UUID(int=0))):
            return _as(text, known.hex)
        base = text.lower()
        is_hex = re.fullmatch(r"[0-9a-f]+", base) is not None and (text == base or text == text.upper())
        made = []
        for old, new in zip(text, self.chance.bytes(len(text), "alike", base if is_hex else text), strict=True):
            if is_hex:
                made.append("0123456789abcdef"[new % 16])
            elif old.isdigit():
                made.append(chr(48 + new % 10))
            elif old.isalpha():
                made.append(chr((65 if old.isupper() else 97) + new % 26))
            else:
                made.append(old)
        return _as(text, "".join(made)) if is_hex else "".join(made)

    def _blob(self, text: str) -> str:
        known = self._blobs.get(text)
        if known is None:
            try:
                known = base64.b64encode(self._bytes(base64.b64decode(text, validate=True))).decode()
            except (binascii.Error, ValueError):
                known = self.text(text)
            self._blobs[text] = known
        return known

    def _spelt(self, data: bytes) -> bytes:
        """As long, since some have a fixed length: what fills it up stays."""
        said = data.rstrip(b"\0")
        made = self._alike(said.decode()) if said.isascii() else self.chance.bytes(len(said), "bytes", said.hex())
        return (made.encode() if isinstance(made, str) else made).ljust(len(data), b"\0")

    def _bytes(self, data: bytes) -> bytes:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return self.chance.bytes(len(data), "bytes", data.hex())
        return self._leaf(text, "").encode()

    # ---- addresses

    def _mac(self, text: str) -> str:
        """Oxide's stay Oxide's; of others what says whether they are unicast and global."""
        mark = text[2]
        old = bytes.fromhex(text.replace(mark, ""))
        new = self.chance.bytes(6, "mac", old.hex())
        kept = old[:3] if old[:3] == b"\xa8\x40\x25" else bytes([(new[0] & 0xFC) | (old[0] & 3)]) + new[1:3]
        return _as(text, (kept + new[3:]).hex(mark))

    def _ip(self, text: str) -> str:
        address, slash, bits = text.partition("/")
        old = _address_of(address)
        if old is None:  # `::` of another language, 1.2.3.400
            return text
        size = old.max_prefixlen
        new = self._address(old)
        if slash and int(bits) <= size and int(old) & ((1 << (size - int(bits))) - 1) == 0:
            new = int(new) >> (size - int(bits)) << (size - int(bits))  # a network stays one
        made = IPv4Address(new) if size == 32 else IPv6Address(new)
        return f"{made}{slash}{bits}"

    def _address(self, old: IPv4Address | IPv6Address) -> int:
        """Two addresses share as many leading bits as they did, so a network has the same members as before."""
        number, size = int(old), old.max_prefixlen
        if isinstance(old, IPv6Address) and number >> 32 == 0xFFFF:  # an IPv4 address in disguise
            return number >> 32 << 32 | self._address(IPv4Address(number & 0xFFFF_FFFF))
        kept = _kept4(number) if size == 32 else _kept6(number)
        made = number >> (size - kept)
        for at in range(kept, size):
            before = number >> (size - at)
            # a low host number is a place, as `::1` of a sled
            low = at >= 64 and before & ((1 << (at - 64)) - 1) == 0
            made = (made << 1) | (((number >> (size - 1 - at)) & 1) ^ (0 if low else self._bit(size, before, at)))
        return made

    def _bit(self, size: int, before: int, at: int) -> int:
        """Whether the bit after these is turned: where addresses part it is not, so their order is kept."""
        where = (size << 8 | at, before)
        found = self._bits.get(where)
        if found is None:
            half = 1 << (size - at - 1)
            first = before << (size - at)
            known = self.addresses.get(size, [])
            least, middle, most = (bisect_left(known, each) for each in (first, first + half, first + 2 * half))
            chance = self.chance.number(1, "bit", str(size), str(at), str(before)) & 1
            found = self._bits[where] = 0 if least < middle < most else chance
        return found


def _kept4(number: int) -> int:
    """Leading bits that say of which kind it is."""
    first = number >> 24
    return 32 if first in (0, 127, 255) else 16 if first in (100, 169, 172, 192, 198, 203) else 8


def _kept6(number: int) -> int:
    first = number >> 112
    if first == 0:  # `::1`, and what nobody has
        return 128 if number >> 32 == 0 else 96
    return 64 if first >> 6 == 0x3FA else 32 if first == 0x2001 else 8 if first >> 9 == 0x7E else 16


# ---- values of lines

_TIGHT: Final = (",", ":")


def plain(line: Line) -> dict[str, Any]:
    """A line as JSON has it."""
    made: dict[str, Any] = msgspec.to_builtins(line)
    return made


def explicit(line: Line) -> Line:
    """The line with sleds whose pools and serial numbers follow from nothing; of a stand-in others would follow."""
    if isinstance(line, Header) and line.sleds is not None:
        line.sleds = [form(explicit_config(value_of(each))) for each in line.sleds]
    elif not isinstance(line, Header) and getattr(line, "did", {}).get("kind") == "joins":
        did: dict[str, Any] = line.did  # type: ignore[union-attr]  # only `Did` has one
        did["config"] = form(explicit_config(value_of(did["config"])))
    return line


def explicit_config(config: SledConfig) -> SledConfig:
    """The configuration of a sled, in which nothing is left to be derived from its id. Raises `BadForm`."""
    if not isinstance(config, SledConfig):
        raise BadForm("this is no configuration of a sled")
    hardware, sled_id = config.hardware, config.sled_id
    return attrs.evolve(
        config,
        hardware=attrs.evolve(
            hardware,
            zpools=hardware.pools_of(sled_id),
            crucible_datasets=hardware.crucible_datasets_of(sled_id),
            baseboard_serial=hardware.serial_of(sled_id),
        ),
    )


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, bool]]:
    """Every text in a value, and whether it is personal whatever it says."""
    if isinstance(value, str):
        for mark in ("~bytes ", "~raw "):
            if value.startswith(mark):
                value = _readable(value.removeprefix(mark))
        if field == "body_base64":
            value = _readable(value)
        inner = _json_of(value) if value[:1] in ("{", "[") else None
        if inner is None:
            yield value, field in PERSONAL
        else:
            yield from _texts(inner, field)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key, False
            yield from _texts(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, field)


def _readable(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def _json_of(text: str) -> Any:
    """What is written in a text that is JSON, if it can be written again in the same way; else None."""
    try:
        found = foreign.loads(text)
        return found if json.dumps(found, separators=_TIGHT, ensure_ascii=False) == text else None
    except (ValueError, RecursionError):
        return None


def _is_digest(value: list[Any]) -> bool:
    return len(value) == _SHA and all(type(each) is int and 0 <= each < 256 for each in value)


def _is_spelt(value: list[Any], field: str) -> bool:
    if not value or not all(type(each) is int and 0 <= each < 256 for each in value):
        return False
    try:
        said = bytes(value).rstrip(b"\0").decode()
    except UnicodeDecodeError:
        said = ""
    text = all(each.isprintable() or each.isspace() for each in said) and sum(map(str.isalpha, said)) >= _SPELT
    return field in PERSONAL or text


def _address_of(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _things(text: str) -> list[re.Match[str]]:
    return list(_THINGS.finditer(text))


def _uuid_of(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _as(old: str, new: str) -> str:
    """In capitals if that was."""
    return new.upper() if old != old.lower() else new
