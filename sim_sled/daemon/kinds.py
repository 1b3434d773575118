"""Whether the fields of an object hold what their class says they do. For what a file has put into them.

A snapshot that somebody has edited can have an `int` where a `Happening` should be. Whoever meets that first is a
request of an hour later, which fails; so it is looked for while the file can still be refused. What is written beside
a field is all that is known: `Any` is anything, and of a callable only that it can be called.

Read before: recording/names.py. Read next: daemon/graph.py.
"""

from __future__ import annotations

import ast
import collections.abc
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Final

from sim_sled.recording.names import is_ours, state_of

Fits = Callable[[Any], bool]


class Misfit(TypeError):
    """A field holds something else; the text says which."""


def check(value: object) -> None:
    """Of an object of a class of ours: all its fields. Raises `Misfit`."""
    kind = type(value)
    fits = _KNOWN.get(kind)
    if fits is None:
        fits = _KNOWN[kind] = _fields(kind)
    for name, each in state_of(value):
        looked_at = fits.get(name)
        if looked_at is not None and not looked_at(each):
            raise Misfit(f"{name} of a {kind.__name__} cannot be {each!r:.60}")


_KNOWN: Final[dict[type, Mapping[str, Fits]]] = {}


def _fields(kind: type) -> Mapping[str, Fits]:
    """By name, of those that are annotated."""
    found: dict[str, Fits] = {}
    for each in reversed(kind.__mro__):
        if is_ours(each.__module__):
            told = {**_said_by_its_maker(each), **inspect.get_annotations(each)}
            found |= {name: _fits(_meant(hint, each.__module__)) for name, hint in told.items()}
    return found


def _said_by_its_maker(kind: type) -> dict[str, str]:
    """Of a class that writes its own `__init__`: `self.name: hint = …`, and `self.name = parameter`."""
    made = kind.__dict__.get("__init__")
    if not isinstance(made, types.FunctionType) or not made.__code__.co_filename.endswith(".py"):
        return {}  # attrs and msgspec make theirs of the annotations
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(made))).body
    assert isinstance(definition, ast.FunctionDef)
    given = {each.arg: each.annotation for each in (*definition.args.args, *definition.args.kwonlyargs)}
    found: dict[str, str] = {}
    for each in ast.walk(definition):
        match each:
            case ast.AnnAssign(target=ast.Attribute(ast.Name("self"), name), annotation=hint):
                found[name] = ast.unparse(hint)
            case ast.Assign([ast.Attribute(ast.Name("self"), name)], ast.Name(parameter)):
                if (hinted := given.get(parameter)) is not None:
                    found[name] = ast.unparse(hinted)
    return found


def _meant(told: object, module: str) -> Any:
    """The type that an annotation is. Some names are only imported for type checkers."""
    return eval(told, _names(module)) if isinstance(told, str) else told  # noqa: S307 -- text of our own sources


@cache
def _names(module: str) -> dict[str, Any]:
    found = dict(vars(import_module(module)))
    source = inspect.getsource(import_module(module))
    # a module that has none is not parsed: that would be half of what a restore takes
    for each in ast.parse(source).body if "\nif TYPE_CHECKING:" in source else ():
        if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(each.body, []), module, "exec"), found)  # noqa: S102 -- imports of our own sources
    return found | vars(import_module(module))  # what it is when it runs, where a checker is told otherwise


_ITEMS: Final = (list, set, frozenset, collections.deque, collections.abc.Sequence, collections.abc.Set)
_PAIRS: Final = (dict, collections.OrderedDict, collections.defaultdict, collections.abc.Mapping)
_OPEN: Final = {Any, object, typing.Final, typing.ClassVar}


def _fits(hint: Any) -> Fits:
    """What looks at a value. Of a hint that it does not understand it says nothing."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _OPEN or origin is typing.ClassVar or isinstance(hint, typing.TypeVar):
        return _anything
    if hint is None:
        return lambda value: value is None
    if origin in (typing.Final, typing.Annotated):
        return _fits(inner[0])
    if origin is typing.Literal:
        return lambda value: value in inner
    if origin in (typing.Union, types.UnionType):
        ways = [_fits(each) for each in inner]
        return lambda value: any(way(value) for way in ways)
    if origin is collections.abc.Callable or hint is collections.abc.Callable:
        return callable
    if origin is tuple:
        return _tuple(inner)
    if origin in _ITEMS:
        item = _fits(inner[0])
        return lambda value: isinstance(value, origin) and all(map(item, value))
    if origin in _PAIRS:
        key, held = map(_fits, inner)
        return lambda value: isinstance(value, origin) and all(key(k) and held(v) for k, v in value.items())
    return _of_class(origin or hint)


def _tuple(inner: tuple[Any, ...]) -> Fits:
    if inner[1:] == (...,):
        item = _fits(inner[0])
        return lambda value: isinstance(value, tuple) and all(map(item, value))
    items = [_fits(each) for each in inner]
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == len(items)
        and all(item(each) for item, each in zip(items, value, strict=True))
    )


def _of_class(kind: Any) -> Fits:
    if not isinstance(kind, type):
        return _anything
    if getattr(kind, "_is_protocol", False):
        asked = [name for each in kind.__mro__ if is_ours(each.__module__) for name in _told_of(each)]
        return lambda value: all(hasattr(value, name) for name in asked)
    if kind is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return lambda value: isinstance(value, float | int) and not isinstance(value, bool)
    return lambda value: isinstance(value, kind)


def _told_of(protocol: type) -> list[str]:
    """What whoever follows a protocol has."""
    return [name for name in {**inspect.get_annotations(protocol), **vars(protocol)} if not name.startswith("_")]


def _anything(_value: object) -> bool:
    return True
