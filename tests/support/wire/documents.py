"""The shapes that tests compare with: the table in the package, or the OpenAPI documents themselves.

`SIM_SLED_OPENAPI` names a folder of documents (`sled-agent/48.0.0.json`); then everything is compared with those.
Without it the table `sim_sled.shapes` is taken, which is made of the same documents. Either way a test runs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import msgspec

from nexus_client.dropshot.openapi import document
from nexus_client.stub.server import control
from sim_sled import shapes
from sim_sled.shapes.check import relax

FOLDER: Final = Path(os.environ["SIM_SLED_OPENAPI"]) if os.environ.get("SIM_SLED_OPENAPI") else None

_REFERENCE: Final = re.compile(r'"#/components/schemas/([^"]+)"')

_COMPANIONS: Final = {
    "crucible-agent": ("other/crucible-agent-{}", "1.0.0"),
    "crucible-pantry": ("other/crucible-pantry-{}", "2.0.0"),
    "repo-depot": ("other/repo-depot-{}", "1.0.0"),
    "internal-dns": ("other/dns-server-{}", "2.0.0"),
}
"""Kind of a server beside the sled (tapes) -> name of its document, and the version where nothing says one."""


def names() -> tuple[str, ...]:
    """Every document there is, `API/VERSION`."""
    if FOLDER is None:
        return shapes.names()
    return tuple(sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.json")))


@cache
def load(name: str) -> dict[str, Any]:
    """`sled-agent/48.0.0`, `other/nexus-lockstep`, ..., or `control` for our own. Raises KeyError."""
    if name == "control":
        return dict(json.loads(msgspec.json.encode(document(control.ABOUT, control.OPERATIONS))))
    if name not in names():
        raise KeyError(name)
    return shapes.document(name) if FOLDER is None else dict(json.loads((FOLDER / f"{name}.json").read_bytes()))


def for_server(kind: str | None, version: str | None, usual: str) -> str:
    """Name of the document for a request to a sled (`kind` None) or a server beside it, in a version.

    A version that no document has (or none) means `usual` to a sled, and the newest to the others.
    """
    if kind is None:
        asked = f"sled-agent/{version}"
        return asked if asked in names() else f"sled-agent/{usual}"
    name, newest = _COMPANIONS[kind]
    asked = name.format(version)
    return asked if asked in names() else name.format(newest)


# ---- validators ----------------------------------------------------------------------------------------------------


@cache
def _text(name: str, component: str) -> str:
    return json.dumps(load(name)["components"]["schemas"][component])


@cache
def _relaxed(text: str) -> tuple[Any, list[str]]:
    """A schema for the validator, and what it refers to."""
    return relax(json.loads(text)), _REFERENCE.findall(text)


@cache
def _validator(name: str, schema: str) -> jsonschema_rs.Validator:
    """Made with no more than the schema refers to: a document has a hundred kilobytes, and all would be copied."""
    needed: dict[str, str] = {}
    unread = [schema]
    while unread:
        for found in _relaxed(unread.pop())[1]:
            if found not in needed:
                needed[found] = _text(name, found)
                unread.append(needed[found])
    return _made(schema, tuple(sorted(needed.items())))


@cache
def _made(schema: str, needed: tuple[tuple[str, str], ...]) -> jsonschema_rs.Validator:
    """Of all versions that say the same."""
    components = {"schemas": {name: _relaxed(text)[0] for name, text in needed}}
    whole = {"components": components, "allOf": [_relaxed(schema)[0]]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def agree(names: Iterable[str], schema: dict[str, Any]) -> bool:
    """Whether these documents mean the same by a schema, with all that it refers to."""
    return len({id(_validator(name, json.dumps(schema))) for name in names}) == 1


def faults(name: str, schema: dict[str, Any], value: Any) -> list[str]:
    """Why a JSON value does not fit a schema of a document: the first five reasons; empty if it fits."""
    found: list[str] = []
    for fault in _validator(name, json.dumps(schema)).iter_errors(value):
        found.append(f"{fault.message[:200]} at /{'/'.join(map(str, fault.instance_path))}")
        if len(found) == 5:
            break
    return found


def component(schema: str) -> dict[str, Any]:
    """The schema that a name means: `Name`, `Name[]` for an array, `map of Name`; `string` and the like are types."""
    if schema.endswith("[]"):
        return {"type": "array", "items": component(schema[:-2])}
    if schema.startswith("map of "):
        return {"type": "object", "additionalProperties": component(schema.removeprefix("map of "))}
    if schema in {"string", "boolean", "integer", "number"}:
        return {"type": schema}
    return {"$ref": f"#/components/schemas/{schema}"}


def validate_with(name: str) -> Callable[[str, Any], list[str]]:
    """`validate(schema name, value) -> faults` by a document."""

    def validate(schema: str, value: Any) -> list[str]:
        wanted = component(schema)
        inner = wanted
        while "$ref" not in inner and ("items" in inner or "additionalProperties" in inner):
            inner = inner.get("items") or inner["additionalProperties"]
        known = load(name)["components"]["schemas"]
        if "$ref" in inner and inner["$ref"].rpartition("/")[2] not in known:
            return [f"{name} has no such schema"]
        return faults(name, wanted, value)

    return validate


def fits(name: str, schema: str, value: Any) -> list[str]:
    """`faults` of a value of ours, as it would be decoded from the wire, for a named schema."""
    return faults(name, component(schema), json.loads(msgspec.json.encode(value)))


def answer_schema(name: str, method: str, path: str, status: int) -> str | None:
    """Name of the schema of this answer's JSON body; None for no body. KeyError for an answer that is not there."""
    responses = load(name)["paths"][path][method]["responses"]
    found = responses[str(status) if str(status) in responses else f"{status // 100}XX"]
    if "$ref" in found:
        found = load(name)["components"]["responses"][found["$ref"].rpartition("/")[2]]
    content = found.get("content", {}).get("application/json")
    return None if content is None else str(content["schema"]["$ref"]).rpartition("/")[2]
