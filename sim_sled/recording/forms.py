"""Values of our pure rooms as JSON, and back: what a recording's inputs are written in.

    PutState(3, UUID(...), ...)     {"~": "sim_sled.core.contract:PutState", "ticket": 3, "sled_id": "~uuid ..."}
    tuple, dict of texts            JSON array, JSON object
    UUID, bytes, Enum, class, ...   "~uuid ...", "~bytes ...", "~enum module:Class NAME", "~class module:Class"
    list, other dict, set           {"~": "list", "of": [...]}

A tree, not a graph (that is daemon/graph.py): an input is a value that nobody shares. As there, reading calls no code
of what it names: fields are put into new objects, and only pure rooms may be named.

Read before: recording/names.py. Read next: recording/lines.py, recording/scrub.py.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final
from uuid import UUID

import msgspec

from sim_sled.recording.names import BadName, by_name, class_of, enum_of, function_of, is_ours, state_of

DEPTH_MAX: Final = 64
"""Of values in values: an input has some ten, and a file that is made to be deep must not end the reader."""


class NoForm(TypeError):
    """A value that cannot be written down; the text says which."""


class BadForm(ValueError):
    """No form of `form`'s, or of another program."""


# ---- writing


def form(value: Any) -> Any:
    """The value as what JSON has. Raises `NoForm`, RecursionError."""
    return _WRITERS[type(value)](value)


Writer = Callable[[Any], Any]
_UNREAD: Final = {
    "sim_sled.core.contract:Registration": ("vmm_spec",),
    "sim_sled.play.baggage:Witness": ("desk",),
}
"""What no core reads, and is written as null: nine tenths of a registration; and whom only a shell has."""


_MADE_FROM: Final = {"sim_sled.language.pacer:PresetPacer": ("preset", "seed")}
"""Objects that follow from some of their fields: only these are written, and only these are read."""


class _Writers(dict[type, Writer]):
    """By type; how a class of ours is written is found out once."""

    def __missing__(self, kind: type) -> Writer:
        made = self[kind] = _writer(kind)
        return made


def _same(value: Any) -> Any:
    return value


def _text(value: str) -> str:
    return f"~{value}" if value[:1] == "~" else value


def _tuple(value: tuple[Any, ...]) -> list[Any]:
    return [_WRITERS[type(each)](each) for each in value]


def _list(value: list[Any]) -> dict[str, Any]:
    return {"~": "list", "of": [form(each) for each in value]}


def _dict(value: dict[Any, Any]) -> dict[str, Any]:
    if all(type(key) is str and key != "~" for key in value):
        return {key: form(each) for key, each in value.items()}
    return {"~": "dict", "of": [[form(key), form(each)] for key, each in value.items()]}


def _set(value: Any) -> dict[str, Any]:
    in_order = sorted(value, key=lambda each: (type(each).__name__, str(each)))
    return {"~": "set" if type(value) is set else "frozenset", "of": [form(each) for each in in_order]}


def _function(value: Any) -> str:
    if is_ours(value.__module__) and by_name(value.__module__, value.__qualname__) == value:
        return f"~function {value.__module__}:{value.__qualname__}"
    raise NoForm(f"the function {value.__module__}.{value.__qualname__}")


def _class(value: Any) -> str:
    return f"~class {_name(value)}"


def _float(value: float) -> Any:
    return value if value - value == 0 else f"~float {value.hex()}"  # JSON has no infinity


def _name(kind: type) -> str:
    if not is_ours(kind.__module__) or "<locals>" in kind.__qualname__:
        raise NoForm(f"a {kind.__module__}.{kind.__qualname__}")
    return f"{kind.__module__}:{kind.__qualname__}"


def _writer(kind: type) -> Writer:
    if issubclass(kind, type):
        return _class
    name = _name(kind)
    if issubclass(kind, Enum):
        known = {member: f"~enum {name} {member.name}" for member in kind}
        return known.__getitem__
    if issubclass(kind, int | str):  # a number of the wire, which is checked where it is read
        plain = int if issubclass(kind, int) else str
        return lambda value: form(plain(value))
    if issubclass(kind, tuple | list | dict | set | frozenset | bytes | float | BaseException):
        raise NoForm(f"a {name}, whose fields are not all of it")

    made_from = _MADE_FROM.get(name)

    def write(value: Any) -> dict[str, Any]:
        made: dict[str, Any] = {"~": name}
        for field, each in state_of(value):
            if made_from is None or field in made_from:
                made[field] = _WRITERS[type(each)](each)
        return made

    unread = _UNREAD.get(name, ())
    named = getattr(kind, "__struct_fields__", None) or [each.name for each in getattr(kind, "__attrs_attrs__", ())]
    fields = [each for each in named if each not in unread]
    if made_from is not None or not fields or kind.__dictoffset__:  # with a `__dict__` there may be more in it
        return write

    def write_fields(value: Any) -> dict[str, Any]:
        made: dict[str, Any] = {"~": name, **nothing}
        for field in fields:
            each = getattr(value, field)
            made[field] = _WRITERS[type(each)](each)
        return made

    nothing: dict[str, None] = dict.fromkeys(unread)
    return write_fields


_WRITERS: Final = _Writers(
    {
        type(None): _same,
        bool: _same,
        int: _same,
        str: _text,
        float: _float,
        UUID: lambda value: f"~uuid {value}",
        bytes: lambda value: f"~bytes {base64.b64encode(value).decode()}",
        datetime: lambda value: f"~time {value.isoformat()}",
        IPv4Address: lambda value: f"~ip {value}",
        IPv6Address: lambda value: f"~ip {value}",
        IPv4Network: lambda value: f"~net {value}",
        IPv6Network: lambda value: f"~net {value}",
        msgspec.UnsetType: lambda _: "~unset",
        msgspec.Raw: lambda value: f"~raw {base64.b64encode(bytes(value)).decode()}",
        FunctionType: _function,
        BuiltinFunctionType: _function,
        tuple: _tuple,
        list: _list,
        dict: _dict,
        set: _set,
        frozenset: _set,
    }
)


# ---- reading


def value_of(told: Any, depth: int = 0) -> Any:
    """What `form` has written. Raises `BadForm`."""
    if depth > DEPTH_MAX:
        raise BadForm(f"values in values, {DEPTH_MAX} deep")
    try:
        if isinstance(told, str):
            return _marked(told) if told[:1] == "~" else told
        if isinstance(told, list):
            return tuple(value_of(each, depth + 1) for each in told)
        if isinstance(told, dict):
            return _made(told, depth)
    except BadForm:
        raise
    except (BadName, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise BadForm(f"{str(told)[:80]!r}: {error}") from error
    return told


def _marked(told: str) -> Any:
    if told[:2] == "~~":
        return told[1:]
    kind, _, rest = told[1:].partition(" ")
    return _MARKS[kind](rest)


def _enum(rest: str) -> Enum:
    name, _, member = rest.partition(" ")
    return enum_of(name)[member]


def _made(told: Mapping[str, Any], depth: int) -> Any:
    name = told.get("~")
    if name is None:
        return {key: value_of(each, depth + 1) for key, each in told.items()}
    if name == "list":
        return [value_of(each, depth + 1) for each in told["of"]]
    if name in ("set", "frozenset"):
        members = (value_of(each, depth + 1) for each in told["of"])
        return set(members) if name == "set" else frozenset(members)
    if name == "dict":
        return {value_of(key, depth + 1): value_of(each, depth + 1) for key, each in told["of"]}
    kind: Any = class_of(name)
    if issubclass(kind, Enum | tuple | type | Exception):
        raise BadForm(f"{name} is no class of values")
    fields = {field: value_of(each, depth + 1) for field, each in told.items() if field != "~"}
    if issubclass(kind, msgspec.Struct):
        return kind(**fields)
    if name in _MADE_FROM:
        return kind(*(fields[field] for field in _MADE_FROM[name]))
    made: Any = kind.__new__(kind)
    for field, value in fields.items():
        object.__setattr__(made, field, value)
    return made


_MARKS: Final[Mapping[str, Callable[[str], Any]]] = {
    "uuid": UUID,
    "bytes": lambda rest: base64.b64decode(rest, validate=True),
    "time": datetime.fromisoformat,
    "float": float.fromhex,
    "ip": ip_address,
    "net": ip_network,
    "unset": lambda _: msgspec.UNSET,
    "raw": lambda rest: msgspec.Raw(base64.b64decode(rest, validate=True)),
    "enum": _enum,
    "class": class_of,
    "function": function_of,
}
