"""JSON in and out: one decoder per type, made once; it takes and refuses what serde_json does (DS 1, SA 1.5).

msgspec decodes, and nearly always that is all. Where the two libraries differ, the body is read a second time into a
tree that remembers how it was written, and *fitted* to the type: a field given twice and `-0` are refused; a struct
as an array of its fields, a unit variant as `{"Name": null}`, spellings of UUIDs and times, and text after the
document are put as msgspec wants them. Unknown fields are ignored unless the type forbids them, absent and null are
the same for optional ones, null is what is written.

A class with exactly the fields `type` and `value` is an adjacently tagged enum.

Read before: dropshot/foreign.py. Read next: dropshot/body.py, dropshot/operations.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn, TypeVar, overload
from uuid import UUID

import attrs
import msgspec
from msgspec import inspect

from nexus_client.dropshot import text
from nexus_client.dropshot.text import scalar_hook

T = TypeVar("T")

DEPTH_MESSAGE: Final = "recursion limit exceeded"

_AT: Final = re.compile(r" - at `(?P<path>[^`]*)`(?: in `(?P<inner>\$[^`]*)`)?$")
_INT_DIGITS_MAX: Final = 40
"""Of a number that can fit any type; Python refuses to read very long ones."""

_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"\s*:?', re.DOTALL)
_FINER_THAN_MICROSECONDS: Final = re.compile(rb"\.[0-9]{7}")
_MINUS_ZEROS: Final = re.compile(rb"[\s:,\[]-0[\s,\]}]")
_COLON: Final = ord(":")
_KNOWN_PLAIN: Final[set[bytes]] = set()
"""Tiny bodies that are known to be plain: a handful of them are most of what Nexus sends."""
_KNOWN_MAX: Final = 1024
_KNOWN_BYTES_MAX: Final = 64
_SMALL: Final = 1024
"""Bytes up to which looking for two equal keys is cheaper by pattern."""


@attrs.frozen
class BadJson(ValueError):
    """The body is not JSON, or does not fit the type. `path` is `$` for the whole, `$.a.b` for a part."""

    path: str
    message: str

    def __str__(self) -> str:
        """As Dropshot puts it: `a.b: what is wrong`, or what is wrong."""
        return self.message if self.path == "$" else f"{self.path.removeprefix('$').lstrip('.')}: {self.message}"


class Json(Generic[T]):
    """A decoder of one type. Make it once, at import: that costs far more than a decode."""

    __slots__ = ("_decode", "_info", "type")

    @overload
    def __init__(self, kind: type[T]) -> None: ...

    @overload
    def __init__(self: Json[Any], kind: Any) -> None: ...

    def __init__(self, kind: Any) -> None:
        self.type: Any = kind
        self._decode: Callable[[bytes], T] = msgspec.json.Decoder(kind, dec_hook=scalar_hook).decode
        self._info: inspect.Type | None = None  # made when first needed: most types never do

    def decode(self, body: bytes) -> T:
        """The value. Raises `BadJson`."""
        try:
            value = self._decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return self._once_more(body, error)
        if body in _KNOWN_PLAIN or _plain(body):
            return value
        return self._once_more(body, None)

    def _once_more(self, body: bytes, error: Exception | None) -> T:
        try:
            tree, odd = _read(body)
            if self._info is None:
                self._info = inspect.type_info(self.type)
            fitted = _encode_fitted(_fit(self._info, tree, "$", odd))
            return self._decode(fitted)
        except BadJson:
            raise
        except RecursionError:
            raise BadJson("$", DEPTH_MESSAGE) from None
        except UnicodeDecodeError as bad:
            raise BadJson("$", f"invalid unicode code point at {_place(bad.object, bad.start)}") from None
        except UnicodeEncodeError as bad:
            raise BadJson("$", f"lone surrogate in a text: {bad.reason}") from None
        except msgspec.DecodeError as bad:
            raise _told(bad) from None
        except _NoJson as bad:
            # msgspec says it better, if it has noticed
            raise (_told(error) if isinstance(error, msgspec.DecodeError) else BadJson("$", str(bad))) from None

    @staticmethod
    def require(parse: Callable[[str], object], value: str, path: str) -> None:
        """Check a text that the type itself leaves open. Raises `BadJson`."""
        try:
            parse(value)
        except ValueError as error:
            raise BadJson(f"$.{path}", str(error)) from None


def _plain(body: bytes) -> bool:
    """Whether nothing in a body that msgspec has taken can be read in two ways."""
    if _MINUS_ZEROS.search(body) is not None or _FINER_THAN_MICROSECONDS.search(body) is not None:
        return False
    if len(body) > _SMALL:
        try:
            return not _read(body)[1]
        except (_NoJson, UnicodeDecodeError, RecursionError):
            return False
    keys = [each for each in _STRINGS.findall(body) if each[-1] == _COLON]
    if len(set(keys)) != len(keys) or b"\\" in body:
        return False
    if len(body) <= _KNOWN_BYTES_MAX and len(_KNOWN_PLAIN) < _KNOWN_MAX:
        _KNOWN_PLAIN.add(bytes(body))
    return True


def _told(error: Exception) -> BadJson:
    words = str(error)
    where = _AT.search(words)
    if where is None:
        return BadJson("$", words)
    return BadJson(where["inner"] or where["path"], words[: where.start()])


def _place(body: bytes, at: int) -> str:
    """Of the byte at `at`, as serde_json counts: from 1."""
    return f"line {body.count(10, 0, at) + 1} column {at - body.rfind(10, 0, at)}"


# ---- the tree ------------------------------------------------------------------------------------------------------


class _NoJson(ValueError):
    """Python's own reader of JSON does not take it either."""


class _Twice(dict[str, Any]):
    """An object with a key given twice: the last value counts, as in the original's maps. `pairs` has all of them."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    @property
    def names(self) -> set[str]:
        return {key for key, times in Counter(key for key, _ in self.pairs).items() if times > 1}


class _MinusZero(float):
    """`-0`: the original's reader makes it a floating-point number, which no integer is."""


_MINUS_ZERO: Final = _MinusZero(-0.0)


def _read(body: bytes) -> tuple[Any, bool]:
    """The first value in `body`, and whether a `_Twice` or `_MinusZero` is in it. What follows does not count."""
    odd = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal odd
        value = dict(found)
        if len(value) == len(found):
            return value
        odd = True
        return _Twice(found)

    def integer(digits: str) -> int | float:
        nonlocal odd
        if digits == "-0":
            odd = True
            return _MINUS_ZERO
        return int(digits) if len(digits) <= _INT_DIGITS_MAX else float(digits)

    reader = json.JSONDecoder(object_pairs_hook=pairs, parse_int=integer, parse_constant=_no_constant)
    words = body.decode("utf-8")
    try:
        value, _ = reader.raw_decode(words, len(words) - len(words.lstrip(" \t\n\r")))
    except ValueError as error:
        raise _NoJson(str(error)) from None
    return value, odd


def _no_constant(name: str) -> NoReturn:
    raise _NoJson(f"{name} is no JSON")


def _unmarked(value: object) -> object:
    if isinstance(value, _Twice):
        return dict(value)
    assert isinstance(value, _MinusZero)
    return -0.0


_encode_fitted: Final = msgspec.json.Encoder(enc_hook=_unmarked).encode

# ---- fitting -------------------------------------------------------------------------------------------------------


def _fit(info: inspect.Type, value: Any, path: str, odd: bool) -> Any:
    """`value` as msgspec wants it for this type. What does not fit stays as it is, for msgspec to refuse.

    Raises `BadJson` for what only serde refuses.
    """
    match info:
        case inspect.AnyType():
            return _without_marks(value) if odd else value
        case inspect.RawType():
            return msgspec.Raw(_verbatim(value)) if odd else value
        case inspect.StructType() | inspect.DataclassType():
            return _fit_struct(info, value, path, odd)
        case inspect.UnionType():
            return _fit_union(info, value, path, odd)
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            if isinstance(value, list):
                return [_fit(info.item_type, each, f"{path}[{at}]", odd) for at, each in enumerate(value)]
        case inspect.TupleType():
            if isinstance(value, list) and len(value) == len(info.item_types):
                items = enumerate(zip(info.item_types, value, strict=True))
                return [_fit(kind, each, f"{path}[{at}]", odd) for at, (kind, each) in items]
        case inspect.DictType():
            if isinstance(value, dict):
                return {
                    _fit(info.key_type, key, path, odd): _fit(info.value_type, each, f"{path}.{key}", odd)
                    for key, each in value.items()
                }
        case inspect.EnumType() | inspect.LiteralType():
            if isinstance(value, dict) and len(value) == 1 and not isinstance(value, _Twice):
                (name, nothing), *_ = value.items()
                if nothing is None:
                    return name
        case _:
            return _fit_scalar(info, value, path)
    return value


def _fit_scalar(info: inspect.Type, value: Any, path: str) -> Any:
    match info:
        case inspect.IntType() if isinstance(value, _MinusZero):
            raise BadJson(path, "invalid type: floating point `-0.0`, expected an integer")
        case inspect.CustomType(cls=cls) if isinstance(value, _MinusZero) and issubclass(cls, int):
            raise BadJson(path, "invalid type: floating point `-0.0`, expected an integer")
        case inspect.UUIDType() if isinstance(value, str):
            return _spelled(text.Uuid.canonical, value, path)
        case inspect.DateTimeType() if isinstance(value, str):
            return _spelled(text.time, value, path)
        case _:
            return value


def _spelled(parse: Callable[[str], Any], value: str, path: str) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise BadJson(path, str(error)) from None


def _tag_of(info: inspect.StructType | inspect.DataclassType) -> str | None:
    return info.tag_field if isinstance(info, inspect.StructType) else None


def _fit_struct(info: inspect.StructType | inspect.DataclassType, value: Any, path: str, odd: bool) -> Any:
    fields = {field.encode_name: field.type for field in info.fields}
    tag = _tag_of(info)
    names = list(fields) if tag is None else [tag, *fields]
    if isinstance(value, list) and len(value) == len(names):
        value = dict(zip(names, value, strict=True))
    if not isinstance(value, dict):
        return value
    if isinstance(value, _Twice):
        for name in names:
            if name in value.names:
                raise BadJson(path, f"duplicate field `{name}`")
    adjacent = list(fields) == ["type", "value"]
    fitted: dict[str, Any] = {}
    for name, each in value.items():
        kind = fields.get(name)
        if kind is None:
            # nobody reads it; its name may be refused
            fitted[name] = each if name == tag else None
        elif adjacent and name == "type":
            fitted[name] = each  # a tag is a word, never `{"word": null}`
        else:
            fitted[name] = _fit(kind, each, f"{path}.{name}", odd)
    return fitted


def _fit_union(info: inspect.UnionType, value: Any, path: str, odd: bool) -> Any:
    """Of the members at most one can be an object without a tag, and at most one a text (msgspec's own rule)."""
    if value is None:
        return None
    structs = [each for each in info.types if isinstance(each, inspect.StructType | inspect.DataclassType)]
    tagged = {each.tag: each for each in structs if isinstance(each, inspect.StructType) and each.tag is not None}
    if tagged and isinstance(value, dict | list):
        tag_field = _tag_of(structs[0])
        tag = value.get(tag_field) if isinstance(value, dict) else next(iter(value), None)
        if isinstance(value, _Twice) and tag_field in value.names:
            raise BadJson(path, f"duplicate field `{tag_field}`")
        member = tagged.get(tag) if isinstance(tag, str | int) else None
        return value if member is None else _fit_struct(member, value, path, odd)
    for each in info.types:
        if not isinstance(each, inspect.NoneType):
            value = _fit(each, value, path, odd)
    return value


def _without_marks(value: Any) -> Any:
    match value:
        case _MinusZero():
            return -0.0
        case dict():
            return {key: _without_marks(each) for key, each in value.items()}
        case list():
            return [_without_marks(each) for each in value]
        case _:
            return value


def _verbatim(value: Any) -> bytes:
    """As it was written, keys given twice included: the reader of this part looks for them itself."""
    match value:
        case _MinusZero():
            return b"-0"
        case dict():
            pairs = value.pairs if isinstance(value, _Twice) else value.items()
            return b"{%b}" % b",".join(msgspec.json.encode(key) + b":" + _verbatim(each) for key, each in pairs)
        case list():
            return b"[%b]" % b",".join(map(_verbatim, value))
        case _:
            return msgspec.json.encode(value)


# ---- out -----------------------------------------------------------------------------------------------------------


def _enc_hook(value: object) -> object:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{type(value).__name__} is nothing this API answers")


encode: Final[Callable[[object], bytes]] = msgspec.json.Encoder(enc_hook=_enc_hook).encode
"""Compact JSON of answers; absent optional values are written as null."""


def plain(value: object) -> Any:
    """`value` as JSON values of plain types, for the parts which the core keeps without reading them."""
    return msgspec.json.decode(encode(value))


def parse_uuid(spelling: str) -> UUID:
    """A UUID in any spelling of the wire, for path parameters and the like. Raises `ValueError`."""
    return UUID(text.Uuid.canonical(spelling))
