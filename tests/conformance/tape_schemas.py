"""Validators made of the OpenAPI documents, which are not part of this repository (SIM_SLED_OPENAPI says where)."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs

_REPO = Path(__file__).resolve().parents[2]


def openapi_folder() -> Path | None:
    """Where the documents are; None if they are nowhere."""
    folder = Path(os.environ.get("SIM_SLED_OPENAPI") or _REPO.parent / "shared" / "openapi")
    return folder if (folder / "sled-agent").is_dir() else None


def relax(schema: Any) -> Any:
    """OpenAPI 3.0 as Dropshot writes it -> JSON Schema 2020-12.

    `oneOf` becomes `anyOf`: some of its branches overlap (a UUID is a string too), so strict validators would
    refuse every real body. `nullable` is a word of OpenAPI alone.
    """
    if isinstance(schema, list):
        return [relax(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    new = {("anyOf" if name == "oneOf" else name): relax(item) for name, item in schema.items()}
    return {"anyOf": [{"type": "null"}, new]} if new.pop("nullable", False) is True else new


_DOCUMENTS = {
    "crucible-agent": "crucible-agent-1.0.0",
    "crucible-pantry": "crucible-pantry-2.0.0",
    "repo-depot": "repo-depot-1.0.0",
    "internal-dns": "dns-server-2.0.0",
}
"""Of the servers beside a sled."""


@functools.cache
def _components(document: Path) -> dict[str, Any]:
    schemas = json.loads(document.read_text())["components"]["schemas"]
    return {name: relax(schema) for name, schema in schemas.items()}


@functools.cache
def _validator(document: Path, schema: str) -> Any:
    schemas = _components(document)
    name = schema.removesuffix("[]").removeprefix("map of ")
    if name not in schemas and name != "string":
        return None
    one = {"type": "string"} if name == "string" else {"$ref": f"#/components/schemas/{name}"}
    root = {"type": "array", "items": one} if schema.endswith("[]") else one
    if schema.startswith("map of "):
        root = {"type": "object", "additionalProperties": one}
    return jsonschema_rs.Draft202012Validator(root | {"components": {"schemas": schemas}}, validate_formats=True)


def is_known_version(version: str | None) -> bool:
    folder = openapi_folder()
    return folder is not None and version is not None and (folder / "sled-agent" / f"{version}.json").is_file()


def validate_with(version: str, server: str | None = None) -> Callable[[str, Any], list[str]]:
    """`validate(schema name, value) -> faults`, by the sled agent's document of this version or another server's.

    Without documents there is nothing to validate with and no faults; whoever relies on it asks `openapi_folder`.
    """
    folder = openapi_folder()
    if folder is None:
        return lambda _schema, _value: []
    document = folder / "sled-agent" / f"{version}.json"
    if server is not None:
        document = folder / "other" / f"{_DOCUMENTS[server]}.json"

    def validate(schema: str, value: Any) -> list[str]:
        validator = _validator(document, schema)
        if validator is None:
            return [f"{document.name} has no such schema"]
        # a body with a hundred faults is explained by the first few
        faults = []
        for fault in validator.iter_errors(value):
            faults.append(f"{fault.message[:200]} at /{'/'.join(map(str, fault.instance_path))}")
            if len(faults) == 5:
                break
        return faults

    return validate
