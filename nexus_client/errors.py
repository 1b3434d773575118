"""Errors of `nexus_client`. They carry data; what status code they become is the business of the HTTP shells."""

from __future__ import annotations

import attrs


@attrs.frozen
class CodecError(ValueError):
    """A body that is not JSON or does not fit its type (SA 1.3: a 400).

    `path` is the JSON path of the failing part (`$` for the whole), `message` says what is wrong with it.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"
