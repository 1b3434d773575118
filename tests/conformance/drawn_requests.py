"""Requests that schemathesis drew once, kept as they were sent: every run of the suite sends them again.

Drawing one takes a tenth of a second, sending one a hundredth of that, and with a fixed seed the same would be drawn
each time. `make campaign` draws others. `SIM_SLED_UPDATE=1` draws those of `tests/data/drawn` anew, a line each:
method, path as the document has it, target, headers, body.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Self

import attrs

UPDATE: Final = os.environ.get("SIM_SLED_UPDATE") == "1"
FOLDER: Final = Path(__file__).parents[1] / "data" / "drawn"

_OF_THE_SENDER: Final = frozenset(
    ("accept", "accept-encoding", "connection", "content-length", "host", "user-agent", "x-schemathesis-testcaseid")
)


@attrs.frozen
class Drawn:
    """One request. `path` is a template; `target` is path and query as they are on the wire."""

    method: str
    path: str
    target: str
    headers: dict[str, str]
    body: bytes | None

    @classmethod
    def sent(cls, method: str, path: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Self:
        """What a library sent; the headers that it adds to each request are not kept."""
        kept = {key.lower(): value for key, value in headers.items() if key.lower() not in _OF_THE_SENDER}
        return cls(method, path, "/" + url.split("/", 3)[3], kept, body)

    @classmethod
    def of_line(cls, line: str) -> Self:
        method, path, target, headers, body = json.loads(line)
        octets = body.encode() if isinstance(body, str) else body and base64.b64decode(body["base64"])
        return cls(method, path, target, headers, octets)

    def line(self) -> str:
        body: str | dict[str, str] | None
        try:
            body = None if self.body is None else self.body.decode()
        except UnicodeDecodeError:
            body = {"base64": base64.b64encode(self.body).decode()}
        return json.dumps([self.method, self.path, self.target, self.headers, body])


def read(name: str) -> Iterator[Drawn]:
    """What is kept for one document, in the order in which it was sent."""
    return map(Drawn.of_line, (FOLDER / f"{name}.jsonl").read_text().splitlines())


def write(name: str, drawn: Iterable[Drawn]) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.jsonl").write_text("".join(f"{each.line()}\n" for each in drawn))


def crashed(records: Iterable[logging.LogRecord]) -> list[str]:
    """What servers of this process told of handlers that raised what nobody names. They answer with 500, as they do
    where that is documented.
    """
    return [each.getMessage() for each in records if each.exc_info]
