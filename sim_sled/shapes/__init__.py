"""Wire shapes of the APIs that are played here, every version of each: types, required, enums, formats; no prose.

    shapes.document("sled-agent/48.0.0")["components"]["schemas"]["SledVmmState"]

`shapes.json.gz` is made of the originals' OpenAPI documents by `make.py`. A shape that several versions share is
stored once. What `document` gives is again an OpenAPI document as far as a validator or a client cares.

Read next: shapes/check.py, shapes/make.py.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

import attrs

Shape = Mapping[str, object]
"""A schema or an operation, as OpenAPI has it."""

TABLE: Final = "shapes.json.gz"


@attrs.frozen
class Table:
    """`documents`: by name (`sled-agent/48.0.0`), where each schema and operation is in `shapes`."""

    shapes: tuple[Shape, ...]
    documents: Mapping[str, Mapping[str, Mapping[str, int]]]


def read(data: bytes) -> Table:
    """The table from what `make.written` makes."""
    raw = json.loads(gzip.decompress(data))  # noqa: TID251 -- a table of our own
    return Table(tuple(raw["shapes"]), raw["documents"])


@cache
def _table() -> Table:
    return read(files(__package__).joinpath(TABLE).read_bytes())


def names() -> tuple[str, ...]:
    """Every document there is: `API/VERSION`, or `other/NAME`."""
    return tuple(_table().documents)


def rebuilt(table: Table, name: str) -> dict[str, object]:
    """One document of a table. Raises KeyError for a name that is not there."""
    entry = table.documents[name]
    paths: dict[str, dict[str, Shape]] = {}
    for key, number in entry["operations"].items():
        method, path = key.split(" ", 1)
        paths.setdefault(path, {})[method] = table.shapes[number]
    components = {
        part: {key: table.shapes[number] for key, number in entry[part].items()} for part in ("schemas", "responses")
    }
    return {"paths": paths, "components": components}


@cache
def document(name: str) -> dict[str, object]:
    """The document `name`: `paths` and `components` of OpenAPI 3.0. Not to be changed. Raises KeyError."""
    return rebuilt(_table(), name)
