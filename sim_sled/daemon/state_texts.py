"""The texts of a table of objects (daemon/graph.py), each with the field it stands in, to be looked at and replaced.

What the program calls its own things stays: classes, functions, fields, members of enums. An id may stand as a
number, too, since a UUID hashes and compares in Python.

Read before: daemon/graph.py. Read next: daemon/scrubbing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from sim_sled.daemon.graph import BadTable, Table

Told: TypeAlias = "str | int | list[int]"
"""A text; a number that is too large for one that is counted; numbers in a row, which may be the bytes of a text."""
Replace: TypeAlias = "Callable[[Any, str], Any]"
"""Of something told, and the field it stands in: what is to stand there, of the same kind."""

_COUNTED_BITS: Final = 64
_BYTE: Final = 256
_KEPT: Final = frozenset(
    {"one", "shell", "enum", "class", "named function", "time", "float", "span", "range", "none", "bool", "count"}
)
_TEXTS: Final = frozenset({"uuid", "ip", "net", "str"})
_MANY: Final = frozenset({"list", "tuple", "set", "frozenset"})


def replaced(table: Table, replace: Replace) -> Table:
    """The table with whatever `replace` makes of its texts. Raises `BadTable`."""
    return _Replacing(replace).all(table)


class _Replacing:
    def __init__(self, replace: Replace) -> None:
        self._replace = replace
        self._fields: dict[int, str] = {}
        """By row: the field in which it was met first. A row stands behind the first one that has it."""

    def all(self, table: Table) -> Table:
        return [self._row(row, self._fields.get(number, "")) for number, row in enumerate(table)]

    def _row(self, row: list[Any], field: str) -> list[Any]:
        kind, *rest = row
        if kind in _KEPT:
            return row
        if kind in _TEXTS or kind == "int":
            return [kind, self._value(rest[0], field)]
        if kind == "bytes":
            return [kind, str(self._replace(f"~bytes {rest[0]}", field)).removeprefix("~bytes ")]
        if kind in _MANY:
            return [kind, *self._all(rest, field)]
        match kind:
            case "obj" | "struct":
                return [kind, rest[0], self._named(rest[1])]
            case "anchor":
                return [kind, rest[0], rest[1], self._named(rest[2])]
            case "dict" | "odict":
                return [kind, *(self._pair(key, value, field) for key, value in rest)]
            case "plain":
                return [kind, rest[0], self._value(rest[1], field)]
            case "deque" | "named":
                return [kind, rest[0], *self._all(rest[1:], field)]
            case "cell":
                return [kind, *(self._value(each, field) for each in rest)]
            case "method":
                return [kind, self._value(rest[0], field), rest[1]]
            case "function":
                module, name, cells, *defaults = rest
                return [kind, module, name, self._all(cells, field), *(self._value(each, field) for each in defaults)]
        raise BadTable(f"{kind!r:.40} is no kind of row")

    def _named(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: self._value(each, name) for name, each in fields.items()}

    def _pair(self, key: Any, value: Any, field: str) -> list[Any]:
        return [self._value(key, field), self._value(value, key if isinstance(key, str) else field)]

    def _all(self, values: list[Any], field: str) -> list[Any]:
        if values and all(type(each) is int and 0 <= each < _BYTE for each in values):
            return list(self._replace(values, field))
        return [self._value(each, field) for each in values]

    def _value(self, told: Any, field: str) -> Any:
        if isinstance(told, list):
            (number,) = told
            self._fields.setdefault(number, field)
            return told
        if isinstance(told, str):
            # what begins so in a recording is marked there
            return str(self._replace(f"~{told}", field))[1:] if told[:1] == "~" else self._replace(told, field)
        if type(told) is int and told.bit_length() > _COUNTED_BITS:
            return self._replace(told, field)
        return told
