"""What a control API says of itself: its OpenAPI document, its list for people. Made from its table, when asked for.

Shapes of bodies and answers come from their types. An answer has the fields that its type names and no other, so that
a test can hold the type to what is sent.

Read before: dropshot/operations.py. Read next: dropshot/control_api.py, stub/server/control_answers.py.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from nexus_client.dropshot.operations import About, Answered, Named, OneOf, Operation, Text

Schema = dict[str, Any]

_TEMPLATE: Final = "#/components/schemas/{name}"
_ERROR: Final[Schema] = {
    "type": "object",
    "description": "Whatever is refused. `detail`: what the original would only write into its log, or more of it.",
    "properties": {key: {"type": "string"} for key in ("request_id", "error_code", "message", "detail")},
    "required": ["message", "request_id"],
    "additionalProperties": False,
}


def ref(name: str) -> Schema:
    """A schema of the document, by name."""
    return {"$ref": _TEMPLATE.format(name=name)}


def document(about: About, rows: Sequence[Operation[Any, Any]]) -> Schema:
    """OpenAPI 3.1, because the schemas of the bodies are JSON Schema of 2020-12."""
    bodies: list[Any] = []
    for row in rows:
        bodies += row.body.kinds.values() if isinstance(row.body, OneOf) else [] if row.body is None else [row.body]
    answers = [kind for row in rows for kind in row.answers.values() if not isinstance(kind, Text | Named | None)]
    of_bodies, named = msgspec.json.schema_components(bodies, ref_template=_TEMPLATE)
    of_answers, told = msgspec.json.schema_components(answers, ref_template=_TEMPLATE)
    assert not set(told) & set(named), "what is asked and what is told have names of their own"
    for schema in told.values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    shapes = _Shapes(iter(of_bodies), iter(of_answers))
    paths: dict[str, Schema] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": about.title, "description": about.description, "version": about.version},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR, **about.schemas, **named, **told, **shapes.choices}},
    }


class _Shapes:
    """Schemas in the order in which the rows have their bodies and answers."""

    def __init__(self, bodies: Any, answers: Any) -> None:
        self._bodies = bodies
        self._answers = answers
        self.choices: dict[str, Schema] = {}

    def body(self, kind: Any) -> Schema:
        if not isinstance(kind, OneOf):
            return dict(next(self._bodies))
        self.choices[kind.name] = {"oneOf": [next(self._bodies) for _ in kind.kinds]}
        return ref(kind.name)

    def content(self, kind: Any) -> Schema:
        match kind:
            case None:
                return {}
            case Text():
                return {media: {"schema": {"type": "string"}} for media in kind.media}
            case Named():
                return {"application/json": {"schema": ref(kind.name)}}
            case _:
                return {"application/json": {"schema": next(self._answers)}}


def _operation(row: Operation[Any, Any], shapes: _Shapes) -> Schema:
    name = "_".join(part.strip("{}").replace(".", "_") for part in row.path.split("/") if part) or "index"
    error = {"description": "Refused", "content": {"application/json": {"schema": ref("Error")}}}
    value: Schema = {"operationId": f"{row.method.lower()}_{name}", "summary": row.summary, "responses": {}}
    for status, kind in row.answers.items():
        content = shapes.content(kind)
        value["responses"][str(status)] = {"description": row.summary} | ({"content": content} if content else {})
    value["responses"] |= {"4XX": error, "5XX": error}
    parameters = [
        {"name": each.name, "in": each.where, "required": each.required, "schema": dict(each.schema)}
        | ({"description": each.says} if each.says else {})
        for each in row.all_parameters()
    ]
    if parameters:
        value["parameters"] = parameters
    if row.body is not None:
        content = {"application/json": {"schema": shapes.body(row.body)}}
        value["requestBody"] = {"required": not row.optional, "content": content}
    return value


# ---- for people ----------------------------------------------------------------------------------------------------


def _wants(row: Operation[Any, Any]) -> str:
    """Query and body of a row, in a few words."""
    query = "&".join(f"{each.name}={each.name.upper()}" for each in row.all_parameters() if each.where == "query")
    kinds = list(row.body.kinds.values()) if isinstance(row.body, OneOf) else [] if row.body is None else [row.body]
    bodies = " or ".join(_fields(kind) for kind in kinds)
    return " ".join(each for each in (f"?{query}" if query else "", bodies) if each)


def _fields(kind: Any) -> str:
    schema = msgspec.json.schema(kind)
    shape = schema.get("$defs", {}).get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    if "properties" not in shape:
        return "[...]" if shape.get("type") == "array" else "{...}"
    required = set(shape.get("required", ()))
    return "{" + ", ".join(f"{name}{'' if name in required else '?'}" for name in shape["properties"]) + "}"


def listing(about: About, rows: Sequence[Operation[Any, Any]]) -> str:
    """The table as text: what a terminal shows."""
    lines = [about.title, about.description, ""]
    for row in rows:
        lines.append(f"{row.method:6} {row.path:34} {row.summary}")
        wants = _wants(row)
        if wants:
            lines.append(f"       {wants}")
    return "\n".join(lines) + "\n"


_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "table{display:block;overflow-x:auto}td{padding:.3rem .8rem .3rem 0;vertical-align:top}"
    "code{white-space:nowrap}small{display:block;opacity:.75}"
)
_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


def page(about: About, rows: Sequence[Operation[Any, Any]]) -> Answered:
    """The table as a page: what a browser shows. It runs nothing and loads nothing."""
    title = html.escape(about.title)
    lines = "\n".join(
        f"<tr><td><code>{row.method}</code><td><code>{_linked(row)}</code><td>{html.escape(row.summary)}"
        + (f"<small>{html.escape(wants)}</small>" if (wants := _wants(row)) else "")
        for row in rows
    )
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>{html.escape(about.description)}"
        f"<table>\n{lines}\n</table></html>\n"
    )
    headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
    return Answered(text, media="text/html", headers=headers)


def _linked(row: Operation[Any, Any]) -> str:
    path = html.escape(row.path)
    return f'<a href="{path}">{path}</a>' if row.method == "GET" and "{" not in path else path
