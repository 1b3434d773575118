"""The Sled Agent API, version by version: operations, schemas, and hypothesis strategies made of these."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import Any

import pytest
from hypothesis import strategies as st
from support.wire import documents

from sim_sled.shapes.check import INTEGER_BITS

VERSIONS = range(1, 49)


def document(level: int) -> dict[str, Any]:
    """The document of version `level`.0.0."""
    return documents.load(f"sled-agent/{level}.0.0")


@cache
def operations(level: int) -> dict[tuple[str, str], dict[str, Any]]:
    """(method, path) to operation."""
    return {
        (method.upper(), path): operation
        for path, item in document(level)["paths"].items()
        for method, operation in item.items()
    }


def body_schema(level: int, method: str, path: str) -> dict[str, Any]:
    return operations(level)[method, path]["requestBody"]["content"]["application/json"]["schema"]


def expanded(level: int, schema: Any, seen: tuple[str, ...] = ()) -> Any:
    """A schema with everything that it refers to, so that versions can be compared."""
    if isinstance(schema, list):
        return [expanded(level, each, seen) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name in seen:
            return name
        return expanded(level, document(level)["components"]["schemas"][name], (*seen, name))
    return {key: expanded(level, value, seen) for key, value in sorted(schema.items())}


def played(daily: Collection[int]) -> list[Any]:
    """Every version, for `pytest.mark.parametrize`: those of `daily` and the newest are played each day, the others
    are `long`. Of other documents than ours (`SIM_SLED_OPENAPI`) nobody knows what changed where: all are played.
    """
    each_day = VERSIONS if documents.FOLDER else {*daily, VERSIONS[-1]}
    return [pytest.param(level, marks=() if level in each_day else pytest.mark.long) for level in VERSIONS]


def said(levels: Iterable[int], of: Callable[[str], bool]) -> set[tuple[str, str, str, str]]:
    """Method, path, body and answers of the operations of these versions whose path is one `of` those meant."""
    found = set()
    for level in levels:
        for (method, path), operation in operations(level).items():
            if of(path):
                body = expanded(level, operation.get("requestBody", {}))
                found.add((method, path, json.dumps(body), json.dumps(_answers(level, operation))))
    return found


def _answers(level: int, operation: dict[str, Any]) -> dict[str, Any]:
    named = document(level)["components"]["responses"]
    answers = operation["responses"].items()
    return {
        status: expanded(level, named[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer)
        for status, answer in answers
    }


def faults(level: int, schema: dict[str, Any], value: Any) -> list[str]:
    """What does not fit; empty if all does."""
    return documents.faults(f"sled-agent/{level}.0.0", schema, value)


# ---- strategies ----------------------------------------------------------------------------------------------------


Special = Callable[[], st.SearchStrategy[Any]]


def _text_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    match schema.get("format"):
        case "uuid":
            return st.uuids().map(str)
        case "ip":
            return st.ip_addresses().map(str)
        case "ipv4":
            return st.ip_addresses(v=4).map(str)
        case "ipv6":
            return st.ip_addresses(v=6).map(str)
        case "date-time":
            return (
                st.datetimes(timezones=st.timezones())
                .map(lambda when: when.isoformat().partition("[")[0])
                .filter(lambda text: len(text.rpartition("+")[2]) <= 5)
            )
        case "hex string" | "hex string (32 bytes)" | "hex string (64 bytes)" as hexadecimal:
            size = {"hex string": 5, "hex string (32 bytes)": 32, "hex string (64 bytes)": 64}[hexadecimal]
            return st.binary(min_size=size, max_size=size).map(bytes.hex)
        case None:
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
        case other:
            raise AssertionError(f"format {other}")


class Bodies:
    """Strategies from the schemas of one version.

    `special` replaces schemas, by name or as `Owner.field`, whose rules the documents do not tell (an interface's
    address lies in its subnet; ports come in blocks).
    """

    def __init__(self, level: int, special: dict[str, Special]) -> None:
        self._schemas = document(level)["components"]["schemas"]
        self._special = special
        self._made: dict[str, st.SearchStrategy[Any]] = {}

    def of(self, schema: dict[str, Any], where: str = "") -> st.SearchStrategy[Any]:
        if where in self._special:
            made = self._special[where]()
        elif "$ref" in schema:
            made = self._named(schema["$ref"].rpartition("/")[2])
        elif "allOf" in schema:
            (only,) = schema["allOf"]
            made = self.of(only)
        elif "oneOf" in schema or "anyOf" in schema:
            made = st.one_of([self.of(branch) for branch in schema.get("oneOf") or schema["anyOf"]])
        elif "enum" in schema:
            made = st.sampled_from(schema["enum"])
        else:
            made = self._plain(schema, where)
        return st.none() | made if schema.get("nullable") else made

    def _named(self, name: str) -> st.SearchStrategy[Any]:
        if name not in self._made:
            special = self._special.get(name)
            self._made[name] = special() if special else self.of(self._schemas[name], name)
        return self._made[name]

    def _plain(self, schema: dict[str, Any], where: str) -> st.SearchStrategy[Any]:
        match schema.get("type"):
            case "object":
                return self._object(schema, where)
            case "array":
                items = self.of(schema["items"])
                least = schema.get("minItems", 0)
                unique = json.dumps if schema.get("uniqueItems") else None
                return st.lists(items, min_size=least, max_size=schema.get("maxItems", least + 3), unique_by=unique)
            case "integer":
                if schema["format"].startswith("int"):
                    half = 2 ** (int(schema["format"][3:]) - 1)
                    return st.integers(-half, half - 1)
                most = schema.get("maximum", 2 ** INTEGER_BITS[schema["format"]] - 1)
                return st.integers(schema["minimum"], most)
            case "boolean":
                return st.booleans()
            case "string" if "pattern" in schema:
                longest = schema.get("maxLength", 10_000)
                return st.from_regex(schema["pattern"], fullmatch=True, alphabet=st.characters(codec="ascii")).filter(
                    lambda text: len(text) <= longest
                )
            case "string":
                return _text_of(schema)
            case other:
                raise AssertionError(f"type {other} in {schema}")

    def _object(self, schema: dict[str, Any], where: str) -> st.SearchStrategy[Any]:
        if isinstance(extra := schema.get("additionalProperties"), dict):
            return st.dictionaries(
                self._special.get(f"{where}.keys", lambda: st.text(max_size=8))(), self.of(extra), max_size=3
            )
        fields = {key: self.of(value, f"{where}.{key}") for key, value in schema.get("properties", {}).items()}
        required = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {key: value for key, value in fields.items() if key in required},
            optional={key: value for key, value in fields.items() if key not in required},
        )
