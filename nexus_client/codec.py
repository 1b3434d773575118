"""JSON on the wire: the only file of this package that knows the converter library (SA 1.5).

`types.py` says which fields there are; the rules of the wire are here:

* UUIDs are read hyphenated, without hyphens, in braces and as `urn:uuid:`, in either case; written hyphenated lower.
* Times are RFC 3339 with an offset; naive ones are refused. Finer than a microsecond is rounded.
* Integers are integers: `5.0`, `"5"` and `true` are refused, as is a generation outside 0 .. 2^63 - 1.
* Unknown fields are ignored. Absent and null are the same for optional fields; null is what is written.
* Whatever is wrong with a body, truncated and absurdly nested included, is a `CodecError` with its JSON path.

A decoder is made once, at import, and shared: `SLED_VMM_STATE.decode(raw)`. Bodies with types of their own
(registrations, for example) make theirs with `WireDecoder(Type)` and get the same rules.

Read before: types.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import inspect

from nexus_client.errors import CodecError
from nexus_client.types import SledAgentInfo, SledVmmState, UpdatedRuntime, VmmPutStateBody, VmmStateRequested

T = TypeVar("T")

_HYPHENATED = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_UUID_TEXT: Final = re.compile(
    rf"(?:{_HYPHENATED}|[0-9a-fA-F]{{32}}|\{{{_HYPHENATED}\}}|urn:uuid:{_HYPHENATED})", re.ASCII
)
_WHERE: Final = re.compile(r" - at `([^`]*)`(?: in `([^`]*)`)?$")
_BAD_UUID: Final = "Invalid UUID"
_TOO_DEEP: Final = CodecError("$", "JSON is nested too deeply")

Spell = Callable[[Any], Any]
"""Rewrites the UUID texts inside a decoded value, guided by its type."""


def parse_uuid(text: str) -> UUID:
    """A UUID in any spelling of the wire, for path parameters and the like. CodecError if it is none."""
    if _UUID_TEXT.fullmatch(text) is None:
        raise CodecError("$", f"{_BAD_UUID} {text[:64]!r}")
    return UUID(text)  # accepts more spellings than the wire does, so the pattern decides


class WireDecoder(Generic[T]):
    """Decodes one type under the rules above. Make it once, at import: that costs far more than a decode."""

    def __init__(self, type_: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(type_)
        # the library reads neither braces nor urn:uuid:, so those bodies are rewritten and read again
        self._spell = _speller(inspect.type_info(type_))

    def decode(self, raw: bytes | bytearray | memoryview | str) -> T:
        """The value that `raw` is. CodecError if it is not JSON or does not fit."""
        try:
            return self._decoder.decode(raw)
        except msgspec.DecodeError as error:
            if self._spell is None or not str(error).startswith(_BAD_UUID):
                raise _codec_error(error) from None
        except RecursionError:
            raise _TOO_DEEP from None
        except UnicodeError as error:  # inside a text; elsewhere it is a DecodeError
            raise CodecError("$", f"not UTF-8: {error}") from None
        try:
            return self._decoder.decode(msgspec.json.encode(self._spell(msgspec.json.decode(raw))))
        except msgspec.DecodeError as error:
            raise _codec_error(error) from None
        except RecursionError:
            raise _TOO_DEEP from None
        except UnicodeError as error:
            raise CodecError("$", f"not UTF-8: {error}") from None


encode: Final[Callable[[object], bytes]] = msgspec.json.Encoder().encode
"""Compact JSON of any wire type; absent optional values are written as null."""


def _codec_error(error: msgspec.DecodeError) -> CodecError:
    text = str(error)
    where = _WHERE.search(text)
    if where is None:
        return CodecError("$", text)
    return CodecError(where[2] or where[1], text[: where.start()])


def _plain_uuid(value: Any) -> Any:
    return str(UUID(value)) if isinstance(value, str) and _UUID_TEXT.fullmatch(value) else value


def _speller(info: inspect.Type, seen: tuple[type, ...] = ()) -> Spell | None:
    """What rewrites the UUIDs of a value of this type; None if there can be none."""
    match info:
        case inspect.UUIDType():
            return _plain_uuid
        case inspect.DataclassType(cls=cls) | inspect.StructType(cls=cls):
            if cls in seen:
                raise TypeError(f"{cls.__name__} contains itself: its UUIDs cannot be found")
            fields = {field.encode_name: _speller(field.type, (*seen, cls)) for field in info.fields}
            return _object_speller({name: spell for name, spell in fields.items() if spell is not None})
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            each = _speller(info.item_type, seen)
            return None if each is None else _array_speller(each)
        case inspect.DictType():
            return _dict_speller(_speller(info.key_type, seen), _speller(info.value_type, seen))
        case inspect.UnionType():
            return _union_speller(info, seen)
        case _:
            return None


def _object_speller(fields: dict[str, Spell]) -> Spell | None:
    if not fields:
        return None

    def spell(value: Any) -> Any:
        if isinstance(value, dict):
            for name, each in fields.items():
                if name in value:
                    value[name] = each(value[name])
        return value

    return spell


def _array_speller(each: Spell) -> Spell:
    return lambda value: [each(item) for item in value] if isinstance(value, list) else value


def _dict_speller(key: Spell | None, item: Spell | None) -> Spell | None:
    if key is None and item is None:
        return None

    def spell(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key(k) if key else k: item(v) if item else v for k, v in value.items()}

    return spell


def _union_speller(info: inspect.UnionType, seen: tuple[type, ...]) -> Spell | None:
    """Structs are told apart by their tag; of the other members at most one can be an object or an array."""
    tagged: dict[object, Spell] = {}
    tag_field = ""
    others: list[Spell] = []
    for member in info.types:
        spell = _speller(member, seen)
        if spell is None:
            continue
        if isinstance(member, inspect.StructType) and member.tag_field is not None:
            tag_field = member.tag_field
            tagged[member.tag] = spell
        else:
            others.append(spell)
    if not tagged and not others:
        return None

    def spell_union(value: Any) -> Any:
        if tagged and isinstance(value, dict):
            tag = value.get(tag_field)
            of_tag = tagged.get(tag) if isinstance(tag, str | int) else None
            return of_tag(value) if of_tag is not None else value
        for other in others:
            value = other(value)
        return value

    return spell_union


# After the functions that making a decoder needs.
SLED_VMM_STATE: Final = WireDecoder(SledVmmState)
UPDATED_RUNTIME: Final = WireDecoder(UpdatedRuntime)
VMM_PUT_STATE_BODY: Final = WireDecoder(VmmPutStateBody)
VMM_STATE_REQUESTED: Final = WireDecoder(VmmStateRequested)
SLED_AGENT_INFO: Final = WireDecoder(SledAgentInfo)
