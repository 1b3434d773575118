"""Validators made of OpenAPI documents: Nexus's own, the sled agent's by version, the control API's."""

import json
import os
from functools import cache
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from nexus_client.stub.server.control_openapi import document as control_document

FOLDER = Path(os.environ.get("SIM_SLED_OPENAPI") or Path(__file__).parents[4] / "shared" / "openapi")
HAVE_DOCUMENTS = (FOLDER / "nexus-internal" / "1.0.0.json").exists()
needs_documents = pytest.mark.skipif(not HAVE_DOCUMENTS, reason=f"no OpenAPI documents at {FOLDER}: SIM_SLED_OPENAPI")


def _relax(schema):
    """As JSON Schema 2020-12: `nullable` is a word of OpenAPI 3.0, and the branches of some `oneOf` overlap."""
    if isinstance(schema, list):
        return [_relax(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {("anyOf" if key == "oneOf" else key): _relax(value) for key, value in schema.items()}
    return {"anyOf": [{"type": "null"}, out]} if out.pop("nullable", False) is True else out


@cache
def load(name):
    """`nexus-internal/1.0.0`, `sled-agent/48.0.0`, `other/nexus-lockstep`, or `control` for our own."""
    if name == "control":
        return json.loads(msgspec.json.encode(control_document()))
    return json.loads((FOLDER / f"{name}.json").read_text())


@cache
def _validator(name, schema):
    components = _relax(load(name)["components"])
    root = {"components": components, "$ref": f"#/components/schemas/{schema}"}
    return jsonschema_rs.Draft202012Validator(root, validate_formats=True)


def faults(name, schema, value):
    """What does not fit; empty if all does. `value` as it would be decoded from the wire."""
    wire = json.loads(msgspec.json.encode(value))
    return [f"{error.message} at {list(error.instance_path)}" for error in _validator(name, schema).iter_errors(wire)]


def answer_schema(name, method, path, status):
    """Name of the schema of this answer's JSON body; None for no body; KeyError for an answer that is not there."""
    responses = load(name)["paths"][path][method]["responses"]
    found = responses.get(str(status)) or responses[f"{status // 100}XX"]
    if "$ref" in found:
        found = load(name)["components"]["responses"][found["$ref"].rpartition("/")[2]]
    content = found.get("content", {}).get("application/json")
    return None if content is None else content["schema"]["$ref"].rpartition("/")[2]
