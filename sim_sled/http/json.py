"""JSON in and out: one decoder per body type, made once; errors read like the original's.

Read before: http/scalars.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from sim_sled.http.scalars import scalar_hook

_AT = re.compile(r"^(?P<what>.*) - at `\$\.?(?P<path>.*)`$", re.DOTALL)

DEPTH_MESSAGE: Final = "recursion limit exceeded"


class BadJson(ValueError):
    """The body is not JSON, or does not fit the type. Text: `path: what is wrong`, or what is wrong."""


class Json:
    """A decoder of one type."""

    __slots__ = ("_decode", "type")

    def __init__(self, kind: Any) -> None:
        self.type = kind
        self._decode = msgspec.json.Decoder(kind, dec_hook=scalar_hook).decode

    def decode(self, body: bytes) -> Any:
        """The value. Raises `BadJson`."""
        try:
            return self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadJson(_tidy(str(error))) from None
        except RecursionError:
            raise BadJson(DEPTH_MESSAGE) from None

    @staticmethod
    def require(parse: Callable[[str], object], text: str, path: str) -> None:
        """Check a text that the type itself leaves open. Raises `BadJson`."""
        try:
            parse(text)
        except ValueError as error:
            raise BadJson(f"{path}: {error}") from None


def _tidy(text: str) -> str:
    """`Expected int - at $.a.b` as `a.b: Expected int`, the way Dropshot puts it."""
    if (match := _AT.match(text)) and match["path"]:
        return f"{match['path']}: {match['what']}"
    return text


def _enc_hook(value: object) -> object:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{type(value).__name__} is nothing this API answers")


encode = msgspec.json.Encoder(enc_hook=_enc_hook).encode
"""Compact JSON of answers."""


def plain(value: object) -> Any:
    """`value` as JSON values of plain types, for the parts which the core keeps without reading them."""
    return msgspec.json.decode(encode(value))
