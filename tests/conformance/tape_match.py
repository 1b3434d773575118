"""How an answer is compared with what a tape expects (README of the tapes: subset, equal, schema)."""

import base64
import json
import math
from typing import Any

from conformance.raw_http import RawAnswer

_MISSING = object()


def subset(expected: Any, got: Any) -> bool:
    """Each expected member is there and matches; array elements match different elements, in any order."""
    return _match(expected, got, whole=False)


def equal(expected: Any, got: Any) -> bool:
    """The same without additional members or elements; null and missing are the same, array order does not count."""
    return _match(expected, got, whole=True)


def _match(expected: Any, got: Any, *, whole: bool) -> bool:
    if expected is None:
        return got is None or got is _MISSING
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return False
        if whole and any(value is not None and name not in expected for name, value in got.items()):
            return False
        return all(_match(value, got.get(name, _MISSING), whole=whole) for name, value in expected.items())
    if isinstance(expected, list):
        if not isinstance(got, list) or len(expected) > len(got) or (whole and len(expected) != len(got)):
            return False
        return _assignable([[n for n, item in enumerate(got) if _match(e, item, whole=whole)] for e in expected])
    return _same(expected, got)


def _same(expected: Any, got: Any) -> bool:
    """Equal scalars of JSON: `true` is not 1, but 1.0 is 1."""
    if isinstance(expected, bool) or isinstance(got, bool) or isinstance(expected, str):
        return type(expected) is type(got) and expected == got
    return isinstance(got, int | float) and expected == got and not math.isnan(got)


def _assignable(choices: list[list[int]]) -> bool:
    """Whether every element can have one of its choices for itself (bipartite matching by augmenting paths)."""
    taken: dict[int, int] = {}

    def place(element: int, tried: set[int]) -> bool:
        for choice in choices[element]:
            if choice not in tried:
                tried.add(choice)
                if choice not in taken or place(taken[choice], tried):
                    taken[choice] = element
                    return True
        return False

    return all(place(element, set()) for element in range(len(choices)))


def parse(body: bytes) -> Any:
    """The body as JSON; `_MISSING`-like marker text if it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return _MISSING


def mismatches(expect: dict[str, Any], answer: RawAnswer, validate: Any) -> list[str]:
    """Why `answer` is not what `expect` says; empty if it is. What is not mentioned is not compared.

    `validate(schema name, value)` gives the faults of a body by the OpenAPI document.
    """
    if answer.status != expect["status"]:
        # nothing else of another status is worth reading
        return [f"status {answer.status}, expected {expect['status']}; body {answer.body[:300]!r}"]
    faults = []
    value = parse(answer.body)
    if "schema" in expect:
        faults += _schema_faults(expect["schema"], answer, value, validate)
    error = value if isinstance(value, dict) else {}
    if "error_code" in expect and error.get("error_code") != expect["error_code"]:
        faults.append(f"error_code {error.get('error_code')!r}, expected {expect['error_code']!r}")
    if expect.get("error_code", _MISSING) is None and "error_code" in error:
        faults.append("error_code is there, if only as null; it must be absent")
    if "message" in expect and error.get("message") != expect["message"]:
        faults.append(f"message {error.get('message')!r}, expected {expect['message']!r}")
    if "message_prefix" in expect and not str(error.get("message", "")).startswith(expect["message_prefix"]):
        faults.append(f"message {error.get('message')!r}, expected to begin {expect['message_prefix']!r}")
    for key, compare in (("json_subset", subset), ("json_equal", equal)):
        if key in expect and not compare(expect[key], value):
            faults.append(f"{key} {_short(expect[key])} does not match {answer.body[:600]!r}")
    for name, text in expect.get("headers", {}).items():
        if answer.headers.get(name) != text:
            faults.append(f"header {name} {answer.headers.get(name)!r}, expected {text!r}")
    if "body_text" in expect and answer.body != expect["body_text"].encode():
        faults.append(f"body {answer.body[:300]!r}, expected {expect['body_text'][:300]!r}")
    if "body_base64" in expect and answer.body != base64.b64decode(expect["body_base64"]):
        faults.append(f"body of {len(answer.body)} bytes differs from the expected one")
    return faults


def _schema_faults(schema: str | None, answer: RawAnswer, value: Any, validate: Any) -> list[str]:
    if schema is None:
        return [f"a body where none belongs: {answer.body[:100]!r}"] if answer.body else []
    if schema == "binary":
        return []
    if value is _MISSING:
        return [f"the body is not JSON: {answer.body[:100]!r}"]
    kind = answer.headers.get("content-type", "")
    faults = [] if kind.split(";")[0].strip().lower() == "application/json" else [f"content-type {kind!r} for JSON"]
    return faults + [f"schema {schema}: {fault}" for fault in validate(schema, value)]


def _short(value: Any) -> str:
    return json.dumps(value)[:600]
