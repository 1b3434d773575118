"""How an attrs class becomes a part of the language: `f` declares a field once, `Struct` reads and shows the class.

A declared field carries its kind, its sentence of documentation, its unit and default (by the kind) and its codes.

Read next: language/actions.py, language/knobs.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attrs

from sim_sled.language.field_types import BAD, Kind, Many, Reader, scalar
from sim_sled.language.load import Map, Node, Scalar, Seq
from sim_sled.language.source import NOWHERE, Mark
from sim_sled.language.words import BOOLEAN_KEYS, hint

_META: Final = "scenario"
LISTED_MAX: Final = 15
"""Who writes a key that is near none is told them all where there are so many: those of a trigger are."""

FACTORY: Final[Any] = type(attrs.Factory(list))
"""Class of defaults that are made anew each time; attrs' own annotations call it a function."""


@attrs.frozen
class FieldInfo:
    """What one field of the language is."""

    key: str
    attribute: str
    kind: Kind
    doc: str
    codes: str
    missing: str
    default: Any
    default_words: str

    @property
    def required(self) -> bool:
        return self.default is attrs.NOTHING


def f(
    kind: Kind, doc: str, *, default: Any = attrs.NOTHING, codes: str = "", missing: str = "E112", words: str = ""
) -> Any:
    """Declares a field. Without `default` it is required and `missing` is told when it is not there.

    `codes` are the errors of scenarios.md 7 that stand in its row; `words` replaces the default in the reference.
    """
    return attrs.field(
        default=default, kw_only=default is not attrs.NOTHING, metadata={_META: (kind, doc, codes, missing, words)}
    )


@attrs.frozen
class Located:
    """A part of a scenario that remembers where it stood; two parts are equal wherever they stand."""

    noun: ClassVar[str] = "key"
    """What an unknown key is called."""
    unknown: ClassVar[str] = "E102"
    short: ClassVar[str] = ""
    """The key that is meant when only a scalar is given."""
    true_alone: ClassVar[bool] = False
    """Whether editors offer a bare `true` where no field is required: that is how an action is written."""

    marks: Mapping[str, Mark] = attrs.field(factory=dict, eq=False, repr=False, kw_only=True)

    def has(self, key: str) -> bool:
        """Whether the file gives this key (even if its value was refused)."""
        return key in self.marks

    def misspelt(self) -> bool:
        """Whether the file gives a key that was not understood, so that nothing may be said to be missing."""
        return "?" in self.marks

    def mark(self, key: str = "") -> Mark:
        """Where the value of `key` stands (`key:` for the key itself, nothing for the whole)."""
        return self.marks.get(key, self.marks.get("", NOWHERE))


_known: Final[dict[str, dict[str, FieldInfo]]] = {}


def fields_of(cls: type[Located]) -> dict[str, FieldInfo]:
    """The fields of a class by their key."""
    infos = _known.get(cls.__name__)
    if infos is None:
        infos = _known[cls.__name__] = _declared(cls)
    return infos


def _declared(cls: type[Located]) -> dict[str, FieldInfo]:
    infos = {}
    for attribute in attrs.fields(cls):
        if _META not in attribute.metadata:
            continue
        kind, doc, codes, missing, words = attribute.metadata[_META]
        key = attribute.name.rstrip("_")
        infos[key] = FieldInfo(key, attribute.name, kind, doc, codes, missing, attribute.default, words)
    return infos


DEFINITIONS: Final[dict[str, dict[str, Any]]] = {}
"""JSON Schema of the classes that were referred to, by name."""


def refer(cls: type[Located]) -> dict[str, Any]:
    """A reference to the definition of a class, which is made at the first use (classes may contain themselves)."""
    if cls.__name__ not in DEFINITIONS:
        DEFINITIONS[cls.__name__] = {}
        DEFINITIONS[cls.__name__].update(_definition(cls))
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _definition(cls: type[Located]) -> dict[str, Any]:
    infos = fields_of(cls)
    made: dict[str, Any] = {
        "type": "object",
        "description": (cls.__doc__ or "").strip().splitlines()[0],
        "properties": {
            key: {"description": info.doc} | _with_default(info.kind.schema(), info) for key, info in infos.items()
        },
        "additionalProperties": False,
    }
    required = [key for key, info in infos.items() if info.required]
    if required:
        made["required"] = required
    shorts: list[dict[str, Any]] = []
    if cls.short:
        shorts.append(infos[cls.short].kind.schema())
    if not required and cls.true_alone:
        shorts.append({"const": True})
    return {"anyOf": [made, *shorts], "description": made["description"]} if shorts else made


def _with_default(schema: dict[str, Any], info: FieldInfo) -> dict[str, Any]:
    if isinstance(info.default, bool | int | str) and not info.default_words:
        shown = info.kind.show(info.default)
        return schema | {"default": shown}
    return schema


@attrs.frozen
class Struct:
    """A mapping with known keys."""

    cls: type[Located]

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        infos = fields_of(self.cls)
        if isinstance(node, Seq) and self.cls.short and isinstance(infos[self.cls.short].kind, Many):
            return self._short(node, reader)
        if isinstance(node, Scalar) and not node.is_null:
            short = self._read_short(node, reader)
            if short is not None:
                return short
        if not isinstance(node, Map):
            what = "a list" if isinstance(node, Seq) else "one value" if not node.is_null else "nothing"
            may = "a mapping"
            may_be_true = not any(info.required for info in infos.values())
            if may_be_true and isinstance(node, Scalar) and BOOLEAN_KEYS.get(node.text.lower()) == "true":
                may, what = "true or a mapping", f"'{node.text}'"
            listed = ", ".join(list(infos)[:6]) + (" ..." if len(infos) > 6 else "")
            named = node.text if isinstance(node, Scalar) and node.text in infos else None
            meant = f"; write {field}: {{{named}: ...}}" if named else ""
            return reader.bad("E111", node.mark, f"'{field}' is {may} ({listed}), not {what}{meant}")
        marks: dict[str, Mark] = {"": node.mark}
        given: dict[str, Any] = {}
        for key, value in node.pairs:
            info = infos.get(key.text)
            if info is None:
                self._tell_unknown(key, reader)
                marks["?"] = key.mark
                continue
            marks[key.text] = value.mark
            marks[f"{key.text}:"] = key.mark
            read = info.kind.read(value, reader, key.text)
            if read is not BAD:
                given[info.attribute] = read
        for info in infos.values():
            if info.required and info.attribute not in given:
                given[info.attribute] = None  # only checks see it: a scenario with errors is never handed out
                if info.key not in marks and (info.missing == "E190" or "?" not in marks):
                    reader.bad(info.missing, node.mark, self._missing(info))
        return self.cls(**given, marks=marks)

    def _missing(self, info: FieldInfo) -> str:
        if info.key == "version":
            return "'version' is missing; write 'version: 1' first"
        return f"'{info.key}' is missing: {info.doc[:1].lower()}{info.doc[1:]}"

    def _read_short(self, node: Scalar, reader: Reader) -> Any:
        infos = fields_of(self.cls)
        if self.cls.short and not (
            node.plain and node.text == "true" and not any(i.required for i in infos.values())
        ):
            return self._short(node, reader)
        if node.plain and node.text == "true" and not any(i.required for i in infos.values()):
            return self.cls(marks={"": node.mark})
        return None

    def _short(self, node: Node, reader: Reader) -> Any:
        """The value of the one field that is meant when no key is given."""
        info = fields_of(self.cls)[self.cls.short]
        value = info.kind.read(node, reader, info.key)
        if value is BAD:
            return BAD
        return self.cls(**{info.attribute: value}, marks={"": node.mark, info.key: node.mark})

    def _tell_unknown(self, key: Scalar, reader: Reader) -> None:
        if reader.problems.full:
            return
        infos, noun = fields_of(self.cls), self.cls.noun
        near = hint(key.text, infos)
        listed = "" if near or len(infos) > LISTED_MAX else f"; known: {', '.join(infos)}"
        reader.bad(self.cls.unknown, key.mark, f"unknown {noun} '{key.text[:60]}'{near}{listed}")

    def show(self, value: Any) -> Any:
        shown = {}
        for info in fields_of(self.cls).values():
            one = getattr(value, info.attribute)
            default: Any = info.default
            if isinstance(default, FACTORY):
                default = default.factory()
            if info.required or one != default:
                shown[info.key] = info.kind.show(one)
        if self.cls.short and list(shown) == [self.cls.short]:
            return shown[self.cls.short]
        return shown

    def schema(self) -> dict[str, Any]:
        return refer(self.cls)

    def words(self) -> str:
        return f"[{self.cls.__name__}](#{self.cls.__name__.lower()})"


@attrs.frozen
class Words:
    """A kind whose reference words are given by hand."""

    kind: Kind
    said: str

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        return self.kind.read(node, reader, field)

    def show(self, value: Any) -> Any:
        return self.kind.show(value)

    def schema(self) -> dict[str, Any]:
        return self.kind.schema()

    def words(self) -> str:
        return self.said


@attrs.frozen
class Nothing:
    """`true`, for an action that has no fields."""

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        text = scalar(node, reader, field, "true")
        if text == "true":
            return True
        return BAD if text is BAD else reader.bad("E111", node.mark, f"'{field}' is true, or it is left out")

    def show(self, _value: Any) -> Any:
        return True

    def schema(self) -> dict[str, Any]:
        return {"const": True}

    def words(self) -> str:
        return "`true`"
