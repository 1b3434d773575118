"""Makes the table of wire shapes out of a folder of OpenAPI documents: `python -m sim_sled.shapes.make FOLDER`.

The folder has a folder per API (`sled-agent/48.0.0.json`). Prose, examples, titles and defaults stay behind: a table
says what may be on the wire, not why. Documents are merged into the table that is there; `--check` only compares.

Read before: shapes/__init__.py.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nexus_client.dropshot import foreign
from sim_sled import shapes

_LISTS: Final = ("oneOf", "anyOf", "allOf")
_ONES: Final = ("items", "additionalProperties", "not")
_PLAIN: Final = (
    *("type", "required", "enum", "format", "nullable", "$ref", "pattern", "uniqueItems", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
)

# `Any` below: a schema as OpenAPI has it, of which only a part is looked at


def bare(schema: Any) -> Any:
    """A schema without what does not bear on the wire. An `allOf` of one that only carried prose is that one."""
    if not isinstance(schema, dict):
        return schema  # `additionalProperties: true`
    out = {key: schema[key] for key in _PLAIN if key in schema}
    if "properties" in schema:
        out["properties"] = {name: bare(one) for name, one in schema["properties"].items()}
    out |= {key: [bare(one) for one in schema[key]] for key in _LISTS if key in schema}
    out |= {key: bare(schema[key]) for key in _ONES if key in schema}
    return out["allOf"][0] if list(out) == ["allOf"] and len(out["allOf"]) == 1 else out


def _content(part: Mapping[str, Any]) -> dict[str, Any]:
    """A request body or an answer: `$ref`, or the shape per content type."""
    if "$ref" in part:
        return {"$ref": part["$ref"]}
    out: dict[str, Any] = {"required": True} if part.get("required") else {}
    if "content" in part:
        out["content"] = {kind: {"schema": bare(one.get("schema", {}))} for kind, one in part["content"].items()}
    return out


def bare_operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    """An operation's id, parameters, bodies and answers."""
    out: dict[str, Any] = {"operationId": operation["operationId"]}
    if parameters := operation.get("parameters"):
        out["parameters"] = [
            {
                key: bare(one[key]) if key == "schema" else one[key]
                for key in ("in", "name", "required", "schema")
                if key in one
            }
            for one in parameters
        ]
    if "requestBody" in operation:
        out["requestBody"] = _content(operation["requestBody"])
    out["responses"] = {status: _content(answer) for status, answer in operation["responses"].items()}
    return out


def bare_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """What of an OpenAPI document the table keeps, in the form of `shapes.document`."""
    components = document.get("components", {})
    return {
        "paths": {
            path: {method: bare_operation(one) for method, one in item.items() if "operationId" in one}
            for path, item in document["paths"].items()
        },
        "components": {
            "schemas": {name: bare(schema) for name, schema in components.get("schemas", {}).items()},
            "responses": {name: _content(answer) for name, answer in components.get("responses", {}).items()},
        },
    }


def table_of(documents: Mapping[str, Mapping[str, Any]]) -> shapes.Table:
    """The table of these documents (by name; bare ones). Equal shapes become one."""
    numbers: dict[str, int] = {}
    kept: list[shapes.Shape] = []

    def number(shape: shapes.Shape) -> int:
        text = json.dumps(shape, sort_keys=True)
        if text not in numbers:
            numbers[text] = len(kept)
            kept.append(shape)
        return numbers[text]

    entries: dict[str, dict[str, dict[str, int]]] = {}
    for name in sorted(documents, key=_by_version):
        components = documents[name]["components"]
        operations = {
            f"{method} {path}": one for path, item in documents[name]["paths"].items() for method, one in item.items()
        }
        entries[name] = {
            part: {key: number(shape) for key, shape in sorted(found.items())}
            for part, found in (*components.items(), ("operations", operations))
        }
    return shapes.Table(tuple(kept), entries)


def _by_version(name: str) -> tuple[str, list[int], str]:
    api, _, version = name.partition("/")
    numbers = version.split(".")
    return api, [int(n) for n in numbers] if all(n.isdigit() for n in numbers) else [], version


def written(table: shapes.Table) -> bytes:
    """The table as it is stored: the same table makes the same bytes."""
    text = json.dumps(
        {"shapes": table.shapes, "documents": table.documents}, separators=(",", ":"), ensure_ascii=False
    )
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Every document below a folder, by name, bare."""
    paths = sorted(folder.glob("*/*.json"))
    return {
        str(path.relative_to(folder).with_suffix("")): bare_document(foreign.loads(path.read_bytes()))
        for path in paths
    }


def differences(folder: Path) -> list[str]:
    """Names of the folder's documents that the table has not, or has otherwise."""
    found = read_folder(folder)
    return [name for name, one in found.items() if name not in shapes.names() or shapes.document(name) != one]


def main(arguments: list[str]) -> int:
    """Write the table, or compare it. 1: it is not that of the documents."""
    folder = Path(next(a for a in arguments if not a.startswith("-")))
    if "--check" in arguments:
        differing = differences(folder)
        sys.stdout.write("".join(f"{name}\n" for name in differing) or "the table is that of the documents\n")
        return 1 if differing else 0
    target = Path(shapes.__file__).parent / shapes.TABLE
    known: dict[str, Mapping[str, Any]] = {}
    if target.exists():
        known = {name: shapes.document(name) for name in shapes.names()}
    target.write_bytes(written(table_of({**known, **read_folder(folder)})))
    sys.stdout.write(f"{target.name}: {target.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
