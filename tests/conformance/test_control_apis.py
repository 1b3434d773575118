"""The three control APIs keep what their tables say: all operations are in the document, and answer as it says."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache

import jsonschema_rs
import pytest
from support.wire.control_apis import ALL, NOBODY

from sim_sled.shapes.check import relax

pytestmark = pytest.mark.parametrize("which", ALL)


def refs(value):
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [each for part in value.values() for each in refs(part)]
    return [each for part in value for each in refs(part)] if isinstance(value, list) else []


@cache
def validator(served, schema):
    """Of one schema of the document, as text. To make it takes longer than to judge hundreds of answers."""
    whole = {"components": relax(served.document["components"]), "allOf": [relax(json.loads(schema))]}
    return jsonschema_rs.Draft202012Validator(whole)


def faults(served, schema, value):
    """Why a value does not fit a schema of the document."""
    return [each.message for each in validator(served, json.dumps(schema)).iter_errors(value)]


def answer_faults(served, method, template, answer):
    """Why an answer is not one that the document has."""
    status, media, value = answer
    responses = served.document["paths"][template][method.lower()]["responses"]
    told = responses.get(str(status)) or responses[f"{status // 100}XX"]
    if "content" not in told:
        return [] if value == "" else [f"no body is documented: {value}"]
    if media not in told["content"]:
        return [f"{media} is not documented"]
    return faults(served, told["content"][media]["schema"], value)


ERROR = {"$ref": "#/components/schemas/Error"}


async def test_each_row_is_a_route_a_line_of_the_list_and_an_operation_of_the_document(which):
    async with ALL[which]() as served:
        rows = [(row.method, row.path) for row in served.api.operations]
        documented = [
            (method.upper(), path) for path, methods in served.document["paths"].items() for method in methods
        ]
        assert sorted(rows) == sorted(documented)
        _, _, told = await served.ask("GET", "/openapi.json")
        assert told == served.document
        _, _, listing = await served.ask("GET", "/")
        _, media, page = await served.ask("GET", "/", accept="text/html")
        assert media == "text/html"
        for method, path in rows:
            assert re.search(rf"^{method} +{re.escape(path)} ", listing, re.MULTILINE)
            assert f"<code>{method}</code>" in page
            assert path in page


async def test_the_document_is_one(which):
    async with ALL[which]() as served:
        document = served.document
        for name, schema in document["components"]["schemas"].items():
            jsonschema_rs.meta.validate(schema)
            assert not name.startswith("_"), "a name for people"
        for each in refs(document):
            assert each.rpartition("/")[2] in document["components"]["schemas"], each
        ids = Counter(op["operationId"] for path in document["paths"].values() for op in path.values())
        assert [each for each, times in ids.items() if times > 1] == []


async def test_every_operation_answers_as_its_row_and_the_document_say(which):
    async with ALL[which]() as served:
        asked = set()
        async for method, template, path, body in served.story():
            answer = await served.ask(method, path, body)
            assert answer[0] < 400, (method, path, answer)
            assert answer_faults(served, method, template, answer) == [], (method, path, answer)
            asked.add((method, template))
        assert {(row.method, row.path) for row in served.api.operations} - asked == set()


async def test_a_wrong_body_is_refused_with_the_documented_error(which):
    async with ALL[which]() as served:
        for row in (row for row in served.api.operations if row.body is not None):
            path = re.sub(r"\{.*?\}", str(NOBODY), row.path)
            for wrong in (b"3", b"[{}]", b"{", b"\xff", b'"text"', b"null", b""):
                answer = await served.ask(row.method, path, wrong)
                if wrong or not row.optional:
                    assert answer[0] == 400, (row.method, path, wrong, answer)
                    assert answer_faults(served, row.method, row.path, answer) == [], (row.path, wrong, answer)
            answer = await served.ask(row.method, path, b'{"no-such-field": {}}')
            assert answer_faults(served, row.method, row.path, answer) == [], (row.path, answer)
            answer = await served.ask(row.method, path, b"{}", **{"content-type": "text/plain"})
            assert answer[0] == 415
            assert answer_faults(served, row.method, row.path, answer) == []


async def test_what_is_no_operation_is_refused_with_the_documented_error(which):
    async with ALL[which]() as served:
        for row in served.api.operations:
            path = re.sub(r"\{.*?\}", str(NOBODY), row.path)
            for method, asked, status in (
                ("PATCH", path, 405),
                (row.method, f"{path.rstrip('/')}/no/such/path", 404),
            ):
                answer = await served.ask(method, asked)
                assert answer[0] == status
                assert faults(served, ERROR, answer[2]) == []


async def test_a_path_that_means_nobody_is_a_404_or_a_400(which):
    async with ALL[which]() as served:
        for row in (row for row in served.api.operations if "{" in row.path):
            for value in ("nobody", str(NOBODY), "%C3%A4", "%00", "7" * 30):
                path = re.sub(r"\{.*?\}", value, row.path)
                answer = await served.ask(row.method, path, None if row.body is None else b"{}")
                waited = row.path.endswith("/expect")  # that one would wait for a VMM that may come
                assert answer[0] in ({400} if waited else {400, 404}), (row.method, path, answer)
                assert faults(served, ERROR, answer[2]) == []
