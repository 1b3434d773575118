"""The table of wire shapes: what it keeps of an OpenAPI document, and that it is the table of the documents."""

import json

import pytest
from support.wire import documents

from sim_sled import shapes
from sim_sled.shapes import make

_DOCUMENT = {
    "openapi": "3.0.3",
    "info": {"title": "prose", "version": "1.0.0"},
    "paths": {
        "/things/{id}": {
            "put": {
                "operationId": "thing_put",
                "description": "prose",
                "parameters": [
                    {
                        "in": "path",
                        "name": "id",
                        "required": True,
                        "description": "prose",
                        "schema": {"type": "string"},
                    }
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                },
                "responses": {
                    "204": {"description": "resource updated"},
                    "4XX": {"$ref": "#/components/responses/Error"},
                },
            }
        }
    },
    "components": {
        "schemas": {
            "Thing": {
                "description": "prose",
                "type": "object",
                "properties": {
                    "description": {"description": "prose", "type": "string", "format": "ipv6", "example": "::1"},
                    "kind": {
                        "nullable": True,
                        "description": "prose",
                        "allOf": [{"$ref": "#/components/schemas/Kind"}],
                    },
                    "plain": {"description": "prose", "allOf": [{"$ref": "#/components/schemas/Kind"}]},
                    "count": {"type": "integer", "format": "uint8", "minimum": 0, "default": 3},
                    "more": {"type": "object", "additionalProperties": {"title": "prose", "type": "boolean"}},
                },
                "required": ["count", "description"],
            },
            "Kind": {
                "oneOf": [{"description": "prose", "type": "string", "enum": ["a"]}, {"type": "array", "items": {}}]
            },
        },
        "responses": {
            "Error": {"description": "Error", "content": {"application/json": {"schema": {"type": "object"}}}}
        },
    },
}


def test_types_required_enums_and_formats_are_kept_and_prose_is_not():
    bare = make.bare_document(_DOCUMENT)
    assert "prose" not in json.dumps(bare)
    assert bare["components"]["schemas"] == {
        "Thing": {
            "type": "object",
            "required": ["count", "description"],
            "properties": {
                "description": {"type": "string", "format": "ipv6"},
                "kind": {"nullable": True, "allOf": [{"$ref": "#/components/schemas/Kind"}]},
                "plain": {"$ref": "#/components/schemas/Kind"},
                "count": {"type": "integer", "format": "uint8", "minimum": 0},
                "more": {"type": "object", "additionalProperties": {"type": "boolean"}},
            },
        },
        "Kind": {"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "array", "items": {}}]},
    }
    assert bare["paths"]["/things/{id}"]["put"] == {
        "operationId": "thing_put",
        "parameters": [{"in": "path", "name": "id", "required": True, "schema": {"type": "string"}}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
        },
        "responses": {"204": {}, "4XX": {"$ref": "#/components/responses/Error"}},
    }


def test_a_table_gives_back_what_it_was_made_of_and_stores_a_shared_shape_once():
    bare = make.bare_document(_DOCUMENT)
    table = shapes.read(make.written(make.table_of({"a/1.0.0": bare, "a/2.0.0": bare})))
    assert shapes.rebuilt(table, "a/1.0.0") == shapes.rebuilt(table, "a/2.0.0") == bare
    assert len(table.shapes) == 4, "two schemas, an answer, an operation"


def test_versions_are_in_the_order_of_their_numbers():
    bare = make.bare_document(_DOCUMENT)
    assert list(make.table_of(dict.fromkeys(["a/10.0.0", "b/x", "a/9.0.0"], bare)).documents) == [
        "a/9.0.0",
        "a/10.0.0",
        "b/x",
    ]


def test_the_same_table_makes_the_same_bytes():
    table = make.table_of({"a/1.0.0": make.bare_document(_DOCUMENT)})
    assert make.written(table) == make.written(table)


def test_a_folder_is_compared_with_the_table(tmp_path, capsys):
    assert make.main([str(_folder(tmp_path, "sled-agent/99.0.0")), "--check"]) == 1
    assert capsys.readouterr().out == "sled-agent/99.0.0\n"
    assert make.main([str(_folder(tmp_path / "other", "sled-agent/1.0.0")), "--check"]) == 1
    assert capsys.readouterr().out == "sled-agent/1.0.0\n"


def _folder(folder, name):
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(_DOCUMENT))
    return folder


def test_every_version_is_in_the_table():
    names = set(shapes.names())
    assert {f"sled-agent/{n}.0.0" for n in range(1, 49)} <= names
    assert {f"propolis-server/{n}.0.0" for n in range(1, 6)} <= names
    assert {"nexus-internal/1.0.0", "other/nexus-lockstep", "other/crucible-pantry-2.0.0"} <= names


@pytest.mark.parametrize("name", ["sled-agent/49.0.0", "nothing"])
def test_a_document_that_is_not_there_is_an_error(name):
    with pytest.raises(KeyError):
        shapes.document(name)


if documents.FOLDER is not None:  # with the documents at hand there is one more thing to know

    def test_the_table_is_that_of_the_documents():
        assert make.differences(documents.FOLDER) == [], "python -m sim_sled.shapes.make FOLDER"
