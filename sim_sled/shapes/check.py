"""Whether a value fits a shape of a document: `sim-sled api --validate`, and what tests hold answers against.

The work is jsonschema-rs's, an extra of its own (`sim-sled[validate]`): a sled that serves needs no validator.

Read before: shapes/__init__.py. Read next: cli/api.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sim_sled import shapes

INTEGER_BITS: Final = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "uint": 63}

FAULTS_MAX: Final = 20
"""A value with a hundred faults is explained by the first few."""


def relax(schema: Any) -> Any:
    """OpenAPI 3.0 as Dropshot writes it -> JSON Schema 2020-12.

    `oneOf` becomes `anyOf`: some of its branches overlap (a UUID is a string too), so strict validators would
    refuse every real body. `nullable` is a word of OpenAPI alone, and JSON Schema knows no format of an integer.
    """
    if isinstance(schema, list):
        return [relax(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {("anyOf" if key == "oneOf" else key): relax(value) for key, value in schema.items()}
    if out.get("type") == "integer" and (bits := INTEGER_BITS.get(str(out.get("format")))):
        out.setdefault("maximum", 2**bits - 1)
    return {"anyOf": [{"type": "null"}, out]} if out.pop("nullable", False) is True else out


class NoValidator(RuntimeError):
    """jsonschema-rs is not installed."""


def faults(document: str, schema: Mapping[str, Any], value: Any) -> list[str]:
    """What of `value` does not fit `schema` of a document, as `/path/in/it: why`. Raises `NoValidator`, KeyError."""
    try:
        import jsonschema_rs  # noqa: PLC0415 -- an extra
    except ImportError:
        raise NoValidator("schemas are checked by an extra: pip install 'sim-sled[validate]'") from None
    whole = {"components": relax(shapes.document(document)["components"]), "allOf": [relax(schema)]}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    found = []
    for fault in validator.iter_errors(value):
        found.append(f"/{'/'.join(map(str, fault.instance_path))}: {fault.message[:200]}")
        if len(found) == FAULTS_MAX:
            break
    return found


def of_operation(document: str, operation: str) -> Mapping[str, Any]:
    """The operation with this id in a document. Raises KeyError."""
    paths: Any = shapes.document(document)["paths"]
    for methods in paths.values():
        for found in methods.values():
            if found.get("operationId") == operation:
                return dict(found)
    raise KeyError(operation)


def request_schema(document: str, operation: str) -> Mapping[str, Any] | None:
    """Shape of an operation's JSON body; None if it has none. Raises KeyError."""
    content = of_operation(document, operation).get("requestBody", {}).get("content", {})
    return dict(content["application/json"]["schema"]) if "application/json" in content else None


def answer_schema(document: str, operation: str) -> Mapping[str, Any] | None:
    """Shape of the JSON of an operation's success; None if that has none. Raises KeyError."""
    for status, answer in of_operation(document, operation)["responses"].items():
        content = answer.get("content", {})
        if status.startswith("2") and "application/json" in content:
            return dict(content["application/json"]["schema"])
    return None
