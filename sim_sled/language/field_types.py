"""Kinds of values: each knows how to read itself from a node, show itself, describe itself to editors and to people.

`schema.py` gives every field one kind; validation, JSON Schema, reference page and printing all come from here.
A kind reports what it cannot read and returns `BAD`; nothing raises, so one pass finds all problems.

Read before: language/load.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import attrs

from sim_sled.language import figures
from sim_sled.language.distribution import FORMS, parse_distribution
from sim_sled.language.figures import BadValue, Span, clip
from sim_sled.language.files import TooLong, inside, read_bounded
from sim_sled.language.load import Map, Node, Scalar, Seq
from sim_sled.language.source import Mark, Problems
from sim_sled.language.words import hint

ITEMS_MAX: Final = 10_000
"""Entries of one list (rules, expectations, load)."""
FILE_VALUES_MAX: Final = 1_000_000
"""Durations in a `file(x.csv)`."""
_CSV_MAX: Final = 32 * 1024 * 1024


class Bad(Enum):
    """What a kind returns after it told a problem."""

    BAD = "bad"


BAD: Final = Bad.BAD


@attrs.define(eq=False)
class Reader:
    """Where problems go, and where `file(...)` is looked up."""

    problems: Problems
    folder: Path | None = None
    """From where names of files are meant; None: there is none."""
    folders: tuple[Path, ...] = ()
    """Where those files may be, links followed."""
    values_left: int = FILE_VALUES_MAX

    def bad(self, code: str, mark: Mark, text: str) -> Bad:
        self.problems.add(code, mark, text)
        return BAD

    def durations(self, name: str) -> tuple[int, ...]:
        """The first column of a CSV file in the scenario's folder. Raises `BadValue` E120, E180."""
        if self.folder is None:
            raise BadValue("E120", "a text without a file cannot use file(...)")
        path = self.folder / name
        if not inside(self.folders, path):
            told = f"file '{clip(name)}' is not in the scenario's folder; --files-from FOLDER allows another"
            raise BadValue("E120", told)
        try:
            lines = read_bounded(path, _CSV_MAX, regular=True).decode().splitlines()
        except TooLong:
            lines = [""] * (FILE_VALUES_MAX + 1)
        except OSError as err:
            raise BadValue("E120", f"file '{clip(name)}' cannot be read: {err.strerror or err}") from None
        except ValueError:
            raise BadValue("E120", f"file '{clip(name)}' cannot be read: it is no UTF-8 text") from None
        self.values_left -= len(lines)
        if self.values_left < 0:
            raise BadValue("E109", f"file '{clip(name)}' has more than {FILE_VALUES_MAX} lines, or all together have")
        cells = [(n, line.split(",")[0].strip()) for n, line in enumerate(lines, 1)]
        cells = [(n, cell) for n, cell in cells if cell and not cell.startswith("#")]
        if cells and not cells[0][1][:1].isdigit():
            del cells[0]  # a heading
        if not cells:
            raise BadValue("E180", f"file '{clip(name)}' has no durations in its first column")
        try:
            return tuple(figures.parse_duration(cell) for n, cell in cells)
        except BadValue:
            for n, cell in cells:
                try:
                    figures.parse_duration(cell)
                except BadValue as err:
                    # not what stands there: it may be any file, and its lines are nobody's business
                    raise BadValue(err.code, f"{clip(name)}:{n}: not a duration with its unit") from None
            raise


class Kind(Protocol):
    """One kind of value."""

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        """The value, or `BAD` after the problem was told."""
        ...

    def show(self, value: Any) -> Any:
        """Plain text, numbers, lists and mappings, as they stand in YAML."""
        ...

    def schema(self) -> dict[str, Any]:
        """JSON Schema, draft 2020-12."""
        ...

    def words(self) -> str:
        """For the reference page."""
        ...


def scalar(node: Node, reader: Reader, field: str, what: str) -> str | Bad:
    """The text of a scalar that is not null."""
    if not isinstance(node, Scalar):
        kind = "a list" if isinstance(node, Seq) else "a mapping"
        return reader.bad("E111", node.mark, f"'{field}' is {what}, not {kind}")
    if node.refused:
        return BAD
    if node.is_null:
        return reader.bad("E111", node.mark, f"'{field}' has no value; it is {what}")
    return node.text


@attrs.frozen
class Parsed:
    """Any value that is one word: `parse` raises `BadValue`, `show_one` is its reverse."""

    what: str
    parse: Callable[[str], Any]
    show_one: Callable[[Any], Any] = str
    pattern: str | None = None
    plain_number: bool = False

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        text = scalar(node, reader, field, self.what)
        if text is BAD:
            return BAD
        try:
            return self.parse(str(text))
        except BadValue as err:
            return reader.bad(err.code, node.mark, err.text)

    def show(self, value: Any) -> Any:
        return self.show_one(value)

    def schema(self) -> dict[str, Any]:
        text: dict[str, Any] = {"type": "string"}
        if self.pattern:
            text["pattern"] = f"^(?:{self.pattern}|.*\\$\\{{.*)$"
        return {"anyOf": [{"type": "number"}, text]} if self.plain_number else text

    def words(self) -> str:
        return self.what


@attrs.frozen
class Integer:
    """A whole number; `code` when it is none, or out of bounds."""

    low: int
    high: int
    code: str = "E111"
    note: str = ""

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        text = scalar(node, reader, field, self.words())
        if not isinstance(text, str):
            return BAD
        if not re.fullmatch(r"-?[0-9]{1,25}", text):
            return reader.bad(self.code, node.mark, f"'{field}' is a whole number, not '{clip(text)}'{self.note}")
        if not self.low <= int(text) <= self.high:
            return reader.bad(self.code, node.mark, f"'{field}' is {self.low}..{self.high}, not {text}{self.note}")
        return int(text)

    def show(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [number, {"type": "string", "pattern": "\\$\\{"}]}

    def words(self) -> str:
        high = "2^64-1" if self.high == 2**64 - 1 else str(self.high)
        return f"{self.low}..{high}"


@attrs.frozen
class Boolean:
    def read(self, node: Node, reader: Reader, field: str) -> Any:
        text = scalar(node, reader, field, "true or false")
        if text is BAD:
            return BAD
        if text not in ("true", "false"):
            return reader.bad("E111", node.mark, f"'{field}' is true or false, not '{clip(str(text))}'")
        return text == "true"

    def show(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def words(self) -> str:
        return "true or false"


@attrs.frozen
class OneOf:
    """A word of a fixed list; `aliases` of it are patterns such as `*`."""

    known: tuple[str, ...]
    code: str
    noun: str
    globs: bool = False
    extra: Mapping[str, str] = attrs.field(factory=dict, hash=False)  # word -> why it is refused

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        text = scalar(node, reader, field, self.words())
        if not isinstance(text, str):
            return BAD
        if text in self.extra:
            return reader.bad(self.code, node.mark, f"'{text}': {self.extra[text]}")
        if text in self.known:
            return self.known[self.known.index(text)]  # the list's own word, which may be a member of an enum
        if self.globs and any(c in text for c in "*?["):
            from sim_sled.language.words import matching  # noqa: PLC0415 (keeps the import list of this file short)

            if matching(text, self.known):
                return text
        near = hint(text, self.known)
        listed = f"; known: {', '.join(self.known)}" if not near and len(self.known) <= 12 else near
        return reader.bad(self.code, node.mark, f"no {self.noun} '{clip(text)}'{listed}")

    def show(self, value: Any) -> Any:
        return value if value is None else str(value)

    def schema(self) -> dict[str, Any]:
        if not self.globs:
            return {"anyOf": [{"enum": list(map(str, self.known))}, {"type": "string", "pattern": "\\$\\{"}]}
        return {"anyOf": [{"enum": sorted(map(str, self.known))}, {"type": "string", "pattern": "[*?\\[]|\\$\\{"}]}

    def words(self) -> str:
        if len(self.known) > 12:
            return f"{self.noun}{' or glob' if self.globs else ''}"
        return " \\| ".join(f"`{k}`" for k in self.known) + (", or a glob" if self.globs else "")


@attrs.frozen
class Many:
    """A list of `one`; a single item may stand without brackets."""

    one: Kind
    plural: str
    may_be_empty: bool = False

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        if not isinstance(node, Seq):
            value = self.one.read(node, reader, field)
            return BAD if value is BAD else (value,)
        if not node.items and not self.may_be_empty:
            return reader.bad("E111", node.mark, f"'{field}' is an empty list; leave it out, or name {self.plural}")
        if len(node.items) > ITEMS_MAX:
            return reader.bad("E109", node.mark, f"'{field}' has more than {ITEMS_MAX} entries")
        read = [self.one.read(item, reader, field) for item in node.items]
        good = tuple(v for v in read if v is not BAD)
        return good if good or not read else BAD  # the good ones are checked on

    def show(self, value: Any) -> Any:
        shown = [self.one.show(v) for v in value]
        return shown[0] if len(shown) == 1 else shown

    def schema(self) -> dict[str, Any]:
        one = self.one.schema()
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 0 if self.may_be_empty else 1}]}

    def words(self) -> str:
        return f"{self.one.words()}; or a list"


@attrs.frozen
class Either:
    """One of two kinds, told apart by the shape of the node: `first` for scalars, `second` for all else."""

    first: Kind
    second: Kind

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        return (self.first if isinstance(node, Scalar) else self.second).read(node, reader, field)

    def show(self, value: Any) -> Any:
        return (self.first if isinstance(value, str | int) else self.second).show(value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self.first.schema(), self.second.schema()]}

    def words(self) -> str:
        return f"{self.first.words()}, or {self.second.words()}"


@attrs.frozen
class Texts:
    """A mapping of free names to one word each (headers, body paths, variables)."""

    what: str

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        if not isinstance(node, Map):
            return reader.bad("E111", node.mark, f"'{field}' is {self.what}")
        pairs = [(key.text, scalar(value, reader, key.text, "one value")) for key, value in node.pairs]
        return BAD if any(v is BAD for _, v in pairs) else tuple(pairs)

    def show(self, value: Any) -> Any:
        return dict(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}

    def words(self) -> str:
        return self.what


@attrs.frozen
class Mapped:
    """A mapping whose keys are of one kind and whose values are of another; read as pairs in the order given."""

    keys: Kind
    values: Kind
    what: str

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        if not isinstance(node, Map):
            return reader.bad("E111", node.mark, f"'{field}' is {self.what}")
        pairs = [(self.keys.read(key, reader, field), self.values.read(value, reader, key.text))
                 for key, value in node.pairs]  # fmt: skip
        return BAD if any(BAD in pair for pair in pairs) else tuple(pairs)

    def show(self, value: Any) -> Any:
        return {self.keys.show(key): self.values.show(one) for key, one in value}

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.values.schema()}

    def words(self) -> str:
        return self.what


@attrs.frozen
class DistributionKind:
    """How long something takes."""

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        text = scalar(node, reader, field, f"a duration or distribution: {FORMS}")
        if text is BAD:
            return BAD
        try:
            return parse_distribution(str(text), reader.durations)
        except BadValue as err:
            return reader.bad(err.code, node.mark, err.text)

    def show(self, value: Any) -> Any:
        return value.show()

    def schema(self) -> dict[str, Any]:
        names = "normal|lognormal|exp|choice|file"
        return {"type": "string", "pattern": f"^(?:[0-9].*[a-z]|(?:{names})\\(.*\\)|.*\\$\\{{.*)$"}

    def words(self) -> str:
        return "distribution"


def text(what: str, max_chars: int = 1_000) -> Parsed:
    def parse(word: str) -> str:
        if len(word) > max_chars:
            raise BadValue("E111", f"longer than {max_chars} characters")
        return word

    return Parsed(what, parse, plain_number=True)


_SLUG: Final = "[a-z0-9-]{1,63}"


def slug(code: str, what: str) -> Parsed:
    def parse(word: str) -> str:
        if not re.fullmatch(_SLUG, word):
            raise BadValue(code, f"'{clip(word)}' is not a name; names are 1 to 63 of a-z, 0-9 and -")
        return word

    return Parsed(what, parse, pattern=_SLUG, plain_number=True)


def glob(code: str, what: str) -> Parsed:
    def parse(word: str) -> str:
        if len(word) > 200:
            raise BadValue(code, "a glob has at most 200 characters")
        if word.count("[") > word.count("]"):
            raise BadValue(code, f"glob '{clip(word)}' opens a '[' that nothing closes")
        if not word.strip():
            raise BadValue(code, "an empty glob matches nothing")
        return word

    return Parsed(what, parse, plain_number=True)


def url() -> Parsed:
    def parse(word: str) -> str:
        try:
            parts = urlsplit(word)
            good = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            good = False
        if not good:
            raise BadValue("E150", f"'{clip(word)}' is not a URL; write e.g. http://[::1]:12221")
        return word

    return Parsed("URL", parse, pattern="https?://.+")


def duration(*, forever: bool = False) -> Parsed:
    def parse(word: str) -> int:
        return figures.parse_duration(word, forever=forever)

    number = "[0-9][0-9.a-z]*"
    what = "duration or `forever`" if forever else "duration"
    return Parsed(what, parse, figures.show_duration, pattern=f"(?:{number}{'|forever' if forever else ''})")


def percent() -> Parsed:
    return Parsed("percentage", figures.parse_percent, figures.show_percent, pattern="[0-9.]+ ?%")


def size() -> Parsed:
    return Parsed("size", figures.parse_size, figures.show_size, pattern="[0-9.]+ ?[KMGT]i?B|[0-9]+ ?B")


def counts(code: str = "E201") -> Parsed:
    def parse(word: str) -> Span:
        return figures.parse_span(word, lambda w: figures.parse_count(w, code), code)

    return Parsed("number, `a..b`, `a..` or `..b`", parse, lambda v: figures.show_span(v, str), plain_number=True)


def sizes() -> Parsed:
    def parse(word: str) -> Span:
        try:
            return figures.parse_span(word, figures.parse_size, "E201")
        except BadValue as err:
            raise BadValue("E201", err.text) from None

    return Parsed("size, `a..b`, `a..` or `..b`", parse, lambda v: figures.show_span(v, figures.show_size))


def interval() -> Parsed:
    def parse(word: str) -> Span:
        if ".." not in word:
            raise BadValue("E221", f"'{clip(word)}' is not an interval; write a..b, e.g. 4m..8m")
        span = figures.parse_span(word, figures.parse_duration, "E221")
        if span.low is not None and span.low == span.high:
            raise BadValue("E221", f"'{clip(word)}' is empty")
        return span

    return Parsed("interval `a..b`", parse, lambda v: figures.show_span(v, figures.show_duration))


def edge(code: str, edges: Iterable[tuple[str, str]]) -> Parsed:
    known = {f"{a} -> {b}": (a, b) for a, b in edges}

    def parse(word: str) -> tuple[str, str]:
        a, arrow, b = (part.strip() for part in word.partition("->"))
        if not arrow:
            raise BadValue(code, f"'{clip(word)}' is not an edge; write e.g. starting -> running")
        found = known.get(f"{a} -> {b}")
        if found is None:
            raise BadValue(code, f"the state machine has no edge '{clip(word)}'{hint(f'{a} -> {b}', known)}")
        return found

    return Parsed("edge `a -> b`", parse, " -> ".join, pattern=" *[a-z]+ *-> *[a-z]+ *")
