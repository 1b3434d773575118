"""Objects of our pure rooms as a table of plain values, and back. For snapshots.

    pack(root, anchors)            [["dict", ...], ["obj", "sim_sled.core.vmm:Vmm", {...}], ...]
    unpack(table, anchors, doors)  the same again, in new objects; an anchor gets its state in place

Why not pickle: a pickle is a program, and whoever loads it runs it. Here a file can only name classes and functions
of `names.ROOMS`, which do no I/O (contracts of import-linter), and loading calls none: state is put into fields;
only structs, which are values, are made of theirs.
Why not a `dump` and `load` per class, or cattrs: a rack is a net of some ninety classes that point at each other,
with a rule's timers among them; what somebody forgets to write down there is lost without a word. Here whatever
cannot be kept is refused by name (`CannotKeep`), and a field that is added tomorrow is kept from the start.

What is the same object before is the same object after; circles are no trouble. *Anchors* are objects that whoever
loads has already: a sled, whose state is put into it, or a shell, of which nothing is kept. Of a shell only its
`doors` may be called: the methods that its core was given.

Read before: daemon/kinds.py, recording/names.py. Read next: daemon/checkpoint.py, daemon/snapshot.py,
daemon/state_texts.py.
"""

from __future__ import annotations

import base64
import inspect
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from hashlib import blake2b
from importlib import import_module
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import count
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final
from uuid import UUID

import attrs
import msgspec

from sim_sled.daemon import kinds
from sim_sled.recording.names import by_name, class_of, enum_of, is_ours, ours, slots_of, state_of

Table = list[Any]
"""Rows: what kind of thing, and what it is made of. A list of one number in a row is another row."""


DOORS: Final = frozenset({"happened", "tell", "carried", "lost", "touch", "moved", "baggage"})
"""What the cores of a daemon may call of their shells."""


class CannotKeep(TypeError):
    """Something that no file can hold; the text says what and where it hangs."""


class BadTable(ValueError):
    """The table is none of `pack`'s, or of another program."""


@cache
def program() -> str:
    """A fingerprint of the sources of all rooms, as they are when it is first asked for: what is kept is only
    understood by the very same.
    """
    digest = blake2b(digest_size=16)
    for name in ("nexus_client", "propolis_stub", "sim_sled"):
        root = Path(str(import_module(name).__file__)).parent
        for file in sorted(root.rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


# ---- packing


def pack(root: object, anchors: Mapping[str, object]) -> Table:
    """See the module; `root` is the first row. Raises `CannotKeep`."""
    return _Packer(anchors).all(root)


class _Packer:
    def __init__(self, anchors: Mapping[str, object]) -> None:
        self._anchors = {id(value): name for name, value in anchors.items()}
        self._single = {id(value): name for name, value in _singletons()}
        self._rows: Table = []
        self._names: dict[type, str] = {}
        self._index: dict[int, int] = {}
        self._alive: list[object] = []  # an id is only good as long as its object is
        self._from: list[tuple[int, str]] = []
        self._at = -1

    def all(self, root: object) -> Table:
        self._refer(root, "")
        while self._at + 1 < len(self._alive):
            self._at += 1
            self._rows.append(self._row(self._alive[self._at]))
        return self._rows

    def _value(self, value: object, label: str) -> Any:
        """A plain value as it is, or where its row is."""
        if value is None or type(value) in (bool, int, str):
            return value
        return [self._refer(value, label)]

    def _refer(self, value: object, label: str) -> int:
        known = self._index.get(id(value))
        if known is None:
            known = self._index[id(value)] = len(self._alive)
            self._alive.append(value)
            self._from.append((self._at, label))
        return known

    def _where(self) -> str:
        labels, at = [], self._at
        while at >= 0:
            at, label = self._from[at]
            labels.append(label)
        return "".join(reversed(labels)).lstrip(".") or "the root"

    def _all(self, values: Iterable[object]) -> list[Any]:
        return [self._value(each, f"[{i}]") for i, each in enumerate(values)]

    def _row(self, value: Any) -> list[Any]:
        name = self._single.get(id(value))
        if name is not None:
            return ["one", name]
        kind = type(value)
        anchor = self._anchors.get(id(value))
        if anchor is not None and not is_ours(kind.__module__):
            return ["shell", anchor]
        if anchor is not None:
            return ["anchor", anchor, self._name(kind), self._fields(value)]
        plain = _PLAIN.get(kind)
        if plain is not None:
            return [plain[0], plain[1](value)]
        match value:
            case Enum():
                return ["enum", self._name(kind), value.name]
            case int() | str():  # of a class of ours: a number of the wire
                return ["plain", self._name(kind), int(value) if isinstance(value, int) else str(value)]
            case type():
                return ["class", self._name(value)]
            case FunctionType():
                return self._function(value)
            case BuiltinFunctionType():
                return self._builtin(value)
            case MethodType():
                return ["method", self._value(value.__self__, ""), value.__func__.__name__]
            case CellType():
                return ["cell", *self._cell(value)]
            case deque():
                return ["deque", value.maxlen, *self._all(value)]
            case dict() if kind in (dict, OrderedDict):
                pairs = [[self._value(k, f"[{k!s:.40}]"), self._value(v, f"[{k!s:.40}]")] for k, v in value.items()]
                return ["dict" if kind is dict else "odict", *pairs]
            case list() if kind is list:
                return ["list", *self._all(value)]
            case set() | frozenset():
                return ["set" if kind is set else "frozenset", *self._all(sorted(value, key=_order))]
            case tuple() if kind is tuple:
                return ["tuple", *self._all(value)]
            case tuple():
                return ["named", self._name(kind), *self._all(value)]
            case count():
                return ["count", int(repr(value)[6:-1].split(",")[0])]
        return ["struct" if isinstance(value, msgspec.Struct) else "obj", self._name(kind), self._fields(value)]

    def _fields(self, value: object) -> dict[str, Any]:
        return {name: self._value(each, f".{name}") for name, each in state_of(value)}

    def _cell(self, cell: CellType) -> list[Any]:
        try:
            return [self._value(cell.cell_contents, "")]
        except ValueError:
            return []  # not filled yet

    def _function(self, function: FunctionType) -> list[Any]:
        module, code = function.__module__, function.__code__
        if not is_ours(module):
            raise self._cannot(f"the function {module}.{function.__qualname__}")
        named = by_name(module, function.__qualname__)
        if named is function:
            return ["named function", f"{module}:{function.__qualname__}"]
        closed = zip(code.co_freevars, function.__closure__ or (), strict=True)
        cells = [self._value(each, f"<{name}>") for name, each in closed]
        defaults = self._value(function.__defaults__, "<defaults>")
        return [
            "function",
            module,
            _code_name(code),
            cells,
            defaults,
            self._value(function.__kwdefaults__, "<defaults>"),
        ]

    def _builtin(self, function: Any) -> list[Any]:
        owner = function.__self__
        if owner is None or isinstance(owner, ModuleType):
            raise self._cannot(f"the function {function.__name__}")
        return ["method", self._value(owner, ""), function.__name__]

    def _name(self, kind: type) -> str:
        name = self._names.get(kind)
        if name is None:
            # a class that was made at run time, and is not called so in its module, could not be found again
            if not is_ours(kind.__module__) or by_name(kind.__module__, kind.__qualname__) is not kind:
                raise self._cannot(f"a {kind.__module__}.{kind.__qualname__}")
            name = self._names[kind] = f"{kind.__module__}:{kind.__qualname__}"
        return name

    def _cannot(self, what: str) -> CannotKeep:
        return CannotKeep(f"{what} cannot be kept in a file, and hangs at {self._where()}")


def _order(value: object) -> tuple[str, str]:
    """Of a set, whose own differs from process to process."""
    return type(value).__name__, str(value)


# ---- unpacking


def unpack(
    table: Table,
    anchors: Mapping[str, object],
    doors: Container[str] = (),
    holds: Callable[[Any], object] = lambda _root: None,
) -> Any:
    """The first row's object. `holds` looks at it when everything is in place, and raises something if it is not what
    it should be. Raises `BadTable`, and has changed no anchor then.
    """
    before = [(each, dict(state_of(each))) for each in anchors.values() if is_ours(type(each).__module__)]
    try:
        root = _Unpacker(table, anchors, doors).all()
        holds(root)
    except Exception as error:
        for anchor, state in before:
            _put_back(anchor, state)
        if isinstance(error, BadTable):
            raise
        # values of wrong types, numbers that no machine has, modules that are none: a file can say anything
        raise BadTable(f"no snapshot of this program: {type(error).__name__}: {error}") from error
    return root


def _put_back(anchor: object, state: Mapping[str, object]) -> None:
    for name in [name for name, _ in state_of(anchor) if name not in state]:
        object.__delattr__(anchor, name)
    for name, value in state.items():
        object.__setattr__(anchor, name, value)


_WITH_FIELDS: Final = frozenset({"obj", "struct", "anchor"})


class _Unpacker:
    def __init__(self, table: Table, anchors: Mapping[str, object], doors: Container[str]) -> None:
        self._doors = doors
        self._table = table
        self._anchors = anchors
        self._made: dict[int, Any] = {}
        self._keyed: list[Callable[[], None]] = []  # dicts and sets: when what they hash is whole
        self._last: list[Callable[[], None]] = []  # anchors: when nothing can fail any more

    def all(self) -> Any:
        for number in range(len(self._table)):
            self._object(number)
        for number, row in enumerate(self._table):
            self._fill(number, row)
        for each in (*self._keyed, *self._last):
            each()
        for number, row in enumerate(self._table):
            if row[0] in _WITH_FIELDS:
                kinds.check(self._made[number])
        return self._made[0]

    def _value(self, told: Any) -> Any:
        if isinstance(told, list):
            (number,) = told
            return self._object(number)
        if told is None or isinstance(told, bool | int | str):
            return told
        raise BadTable(f"{told!r:.60} is no value")

    def _object(self, number: Any) -> Any:
        if number in self._made:
            return self._made[number]
        if not isinstance(number, int) or not 0 <= number < len(self._table):
            raise BadTable(f"there is no row {number!r:.40}")
        made = self._made[number] = self._shell(self._table[number])
        return made

    def _shell(self, row: Any) -> Any:
        """The object without what can point back at it."""
        kind, *rest = row
        if kind in _UNPLAIN:
            return _UNPLAIN[kind](rest[0])
        match kind:
            case "one":
                module, _, name = rest[0].partition(":")
                return vars(import_module(ours(module)))[name]
            case "anchor" | "shell":
                if rest[0] not in self._anchors:
                    raise BadTable(f"there is no {rest[0]} here")
                return self._anchors[rest[0]]
            case "obj":
                kept: Any = class_of(rest[0])
                return kept.__new__(kept)
            case "struct":
                kept = class_of(rest[0])
                if not issubclass(kept, msgspec.Struct):
                    raise BadTable(f"{rest[0]} is no struct")
                return kept(**{name: self._value(each) for name, each in rest[1].items()})
            case "enum":
                return enum_of(rest[0])[rest[1]]
            case "plain":
                return _plain(class_of(rest[0]), rest[1])
            case "class":
                return class_of(rest[0])
            case "named function":
                module, _, name = rest[0].partition(":")
                function = by_name(ours(module), name)
                if isinstance(function, FunctionType) and function.__module__ == module:
                    return function
            case "function":
                module, name, cells, _, _ = rest
                code = _codes(ours(module))[name]
                made = FunctionType(code, vars(import_module(module)), None, None, tuple(map(self._value, cells)))
                made.__module__ = module
                return made
            case "method":
                return self._method(self._value(rest[0]), rest[1])
            case "cell":
                return CellType()
            case "deque":
                return deque(maxlen=rest[0])
            case "dict" | "odict":
                return {} if kind == "dict" else OrderedDict()
            case "list":
                return []
            case "set":
                return set()
            case "frozenset":
                return frozenset(map(self._value, rest))
            case "tuple":
                return tuple(map(self._value, rest))
            case "named":
                named = class_of(rest[0])
                return tuple.__new__(named, map(self._value, rest[1:]))
            case "count":
                return count(rest[0])
        raise BadTable(f"{kind!r:.40} is no kind of row")

    def _method(self, owner: Any, name: str) -> Any:
        kind = type(owner)
        ours = is_ours(kind.__module__) or kind in (dict, list, set, deque)
        if name.startswith("__") or not (ours or name in self._doors):
            raise BadTable(f"{name!r:.40} of a {kind.__name__} is not to be called")
        method = getattr(owner, name) if hasattr(kind, name) else None
        if not isinstance(method, MethodType | BuiltinFunctionType):
            raise BadTable(f"a {kind.__name__} has no method {name!r:.40}")
        return method

    def _fill(self, number: int, row: Any) -> None:
        made = self._made[number]
        kind, *rest = row
        match kind:
            case "obj":
                _whole(type(made), rest[1])
                self._put(made, {name: self._value(each) for name, each in rest[1].items()})
            case "anchor":
                if f"{type(made).__module__}:{type(made).__qualname__}" != rest[1]:
                    raise BadTable(f"{rest[0]} is no {rest[1]} here")
                _whole(type(made), rest[2])
                state = {name: self._value(each) for name, each in rest[2].items()}
                for name, value in state.items():
                    if not _alike(value, getattr(made, name, None)):
                        raise BadTable(f"{rest[0]}.{name} is no {type(value).__name__}")
                self._last.append(lambda: self._put(made, state))
            case "function":
                made.__defaults__, made.__kwdefaults__ = self._value(rest[3]), self._value(rest[4])
            case "cell" if rest:
                made.cell_contents = self._value(rest[0])
            case "deque":
                made.extend(map(self._value, rest[1:]))
            case "list":
                made.extend(map(self._value, rest))
            case "dict" | "odict":
                pairs = [(self._value(k), self._value(v)) for k, v in rest]
                self._keyed.append(lambda: made.update(pairs))
            case "set":
                members = list(map(self._value, rest))
                self._keyed.append(lambda: made.update(members))

    def _put(self, made: Any, state: dict[str, Any]) -> None:
        known = slots_of(type(made))
        for name, value in state.items():
            if name in known or hasattr(made, "__dict__"):
                object.__setattr__(made, name, value)
            else:
                raise BadTable(f"a {type(made).__name__} has no {name}")


def _plain(kind: type, told: object) -> object:
    """A number or a text of a class of ours, of which no code is called. Raises `BadTable`."""
    if isinstance(told, int) and issubclass(kind, int) and not issubclass(kind, Enum):
        return int.__new__(kind, told)
    if isinstance(told, str) and issubclass(kind, str) and not issubclass(kind, Enum):
        return str.__new__(kind, told)
    raise BadTable(f"{told!r:.40} is no {kind.__name__}")


def _whole(kind: type, told: Mapping[str, Any]) -> None:
    """Whether everything that its maker must be given is told. Raises `BadTable`."""
    needed = {each.name for each in attrs.fields(kind) if each.init} if attrs.has(kind) else set()
    if missing := needed.difference(told):
        raise BadTable(f"a {kind.__name__} has {', '.join(sorted(missing))}, and the table does not say what")


def _alike(told: object, here: object) -> bool:
    """Whether `told` can stand where `here` stands. What is there only sometimes is None at other times, and of our
    own classes one may be another's alternative.
    """
    kinds = (type(told), type(here))
    return (
        told is None
        or here is None
        or kinds[0] is kinds[1]
        or all(is_ours(kind.__module__) for kind in kinds)
        or all(callable(each) for each in (told, here))
    )


# ---- names


def _code_name(code: CodeType) -> str:
    return f"{code.co_qualname}@{code.co_firstlineno}"


_CODES: Final[dict[str, dict[str, CodeType]]] = {}


def _codes(module: str) -> Mapping[str, CodeType]:
    """Every function that is written in a module, by its place."""
    found = _CODES.get(module)
    if found is None:
        found = _CODES[module] = {}
        source = inspect.getsource(import_module(module))
        waiting: list[CodeType] = [compile(source, module, "exec", dont_inherit=True)]
        while waiting:
            code = waiting.pop()
            found[_code_name(code)] = code
            waiting += [each for each in code.co_consts if isinstance(each, CodeType)]
    return found


def _singletons() -> Iterator[tuple[object, str]]:
    """Objects that a module of ours has made once and that are known by who they are."""
    single: dict[type, bool] = {object: True}  # many names have values of few types
    for name, module in sorted(sys.modules.items()):
        if not is_ours(name) or module is None:
            continue
        for attribute, value in vars(module).items():
            kind = type(value)
            if kind not in single:
                single[kind] = is_ours(kind.__module__) and not issubclass(kind, type | Enum)
            if single[kind]:
                yield value, f"{name}:{attribute}"


def _text(value: object) -> str:
    return str(value)


_PLAIN: Final[Mapping[type, tuple[str, Callable[[Any], Any]]]] = {
    UUID: ("uuid", _text),
    float: ("float", float.hex),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode()),
    datetime: ("time", datetime.isoformat),
    timedelta: ("span", lambda value: [value.days, value.seconds, value.microseconds]),
    range: ("range", lambda value: [value.start, value.stop, value.step]),
    IPv4Address: ("ip", _text),
    IPv6Address: ("ip", _text),
    IPv4Network: ("net", _text),
    IPv6Network: ("net", _text),
    type(None): ("none", lambda _: None),
    bool: ("bool", bool),
    int: ("int", int),
    str: ("str", str),
}
_UNPLAIN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "uuid": UUID,
    "float": float.fromhex,
    "bytes": base64.b64decode,
    "time": datetime.fromisoformat,
    "span": lambda told: timedelta(*told),
    "range": lambda told: range(*told),
    "ip": ip_address,
    "net": ip_network,
    "none": lambda _: None,
    "bool": bool,
    "int": int,
    "str": str,
}
