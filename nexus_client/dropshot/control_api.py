"""Answers the requests of a control API by its table (dropshot/operations.py).

    api = ControlApi(control, OPERATIONS, guard, about)
    Server(api.handle)

`GET /` lists the table for people, `GET /openapi.json` for programs.

Read before: dropshot/control.py, dropshot/operations.py, dropshot/openapi.py.
Read next: propolis_stub/server/control.py, stub/server/control.py, sim_sled/daemon/control.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from nexus_client.dropshot import openapi, web
from nexus_client.dropshot.answers import Refused, bad_request, new_request_id
from nexus_client.dropshot.body import Bodies, Decoder, read_json
from nexus_client.dropshot.control import SAFE_HEADERS, Guard
from nexus_client.dropshot.json import Json
from nexus_client.dropshot.operations import About, Answered, Call, OneOf, Operation, Text, Value
from nexus_client.dropshot.response import RefusalOf, Response, failed_answer
from nexus_client.dropshot.routes import Paths, names, split_target

O = TypeVar("O")  # noqa: E741 -- the owner of the handlers

BODY_MAX: Final = 64 * 1024
"""Control requests are a few words; the largest is a scenario."""
_BODIES: Final = Bodies()
"""Of all control APIs of this process."""


class ControlApi(Generic[O]):
    """Answers requests by a table. `owner`: whose methods the handlers are; `headers`: on every answer.

    `refusal_of`: what a program's own error is told as; None: a bug, a 500, and the log has it.
    """

    def __init__(
        self,
        owner: O,
        operations: Sequence[Operation[O, Any]],
        guard: Guard,
        about: About,
        *,
        refusal_of: RefusalOf = lambda _error: None,
        body_max: int = BODY_MAX,
        headers: Mapping[str, str] | None = None,
        documents: Sequence[str] = ("/openapi.json",),
    ) -> None:
        self.about: Final = about
        self.operations: Final[tuple[Operation[Any, Any], ...]] = (
            Operation("GET", "/", _index, "This list", Text("text/plain", "text/html")),
            *(Operation("GET", path, _document, "The OpenAPI document", dict[str, Any]) for path in documents),
            *operations,
        )
        self._owner = owner
        self._guard = guard
        self._refusal_of = refusal_of
        self._body_max = body_max
        self._headers = {**SAFE_HEADERS, **(headers or {})}
        self._decoders: dict[Operation[Any, Any], Decoder[Any]] = {}  # made when a body comes: most are never used
        self._paths: Paths[Operation[Any, Any]] = Paths()
        for row in self.operations:
            self._paths.add(row.method, row.path, row)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The aiohttp handler."""
        request_id = new_request_id()
        try:
            self._guard.check(request, token=not self._is_open(request))
            row, call = await self._read(request)
            owner = self if row.handler in {_index, _document} else self._owner
            return self.told(row, await row.handler(owner, call), request_id)
        except Exception as error:  # noqa: BLE001 -- of every kind, told by `failed_answer`
            failed = failed_answer(error, request, request_id, self._refusal_of, self._headers)
            return cast("web.StreamResponse", failed)

    def find(self, method: str, target: str) -> tuple[Operation[Any, Any], tuple[str, ...]]:
        """The row and the texts of its path. What may be read may be asked for its head. Raises `Refused`."""
        return self._paths.find("GET" if method == "HEAD" else method, split_target(target)[0])

    def _is_open(self, request: web.BaseRequest) -> bool:
        """What is no row is not: who has no token is not told which other paths there are."""
        try:
            return self.find(request.method, request.raw_path)[0].open
        except Refused:
            return False

    async def _read(self, request: web.BaseRequest) -> tuple[Operation[Any, Any], Call[Any]]:
        row, texts = self.find(request.method, request.raw_path)
        in_path = dict(zip(names(row.path), texts, strict=True))
        sources: dict[str, Mapping[str, str]] = {"path": in_path, "query": request.query, "header": request.headers}
        values: dict[str, Value] = {}
        for each in row.all_parameters():
            text = sources[each.where].get(each.name)
            if text is None and not each.required:
                values[each.name] = each.default
                continue
            try:
                values[each.name] = each.read(text or "")
            except ValueError as error:
                raise bad_request(str(error)) from None
        return row, Call(request, values, await self._body(row, request))

    async def _body(self, row: Operation[Any, Any], request: web.BaseRequest) -> Any:
        kind = row.body
        if kind is None:
            return None
        if row.optional and not request.can_read_body:
            assert not isinstance(kind, OneOf), "only one shape can stand for nothing said"
            return kind()
        decoder = self._decoders.get(row)
        if decoder is None:
            decoder = self._decoders[row] = kind if isinstance(kind, OneOf) else Json(kind)
        return await read_json(request, decoder, _BODIES, row.body_max or self._body_max)

    def told(self, row: Operation[Any, Any], value: Any, request_id: str) -> web.StreamResponse:
        """The answer to a request. One that the row does not have is a bug."""
        if isinstance(value, web.StreamResponse):
            if not value.prepared:
                for name, text in self._headers.items():
                    value.headers.setdefault(name, text)
            return value
        done = value if isinstance(value, Answered) else Answered(value, row.status)
        assert done.status in row.answers, f"{row.method} {row.path} does not say that it answers {done.status}"
        kind = row.answers[done.status]
        headers = {**self._headers, **done.headers}
        if isinstance(kind, Text):
            media = f"{done.media or kind.media[0]}; charset=utf-8"
            headers |= {"content-type": media, "x-request-id": request_id}
            return web.Response(status=done.status, body=str(done.value).encode(), headers=headers)
        body = None if kind is None else _ENCODER.encode(done.value)
        return cast("web.StreamResponse", Response(done.status, request_id, body, headers=headers))


_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)  # addresses and the like are shown as their texts


async def _index(api: ControlApi[Any], call: Call[None]) -> Answered:
    """As a page for browsers, as text for `curl`."""
    if "text/html" in call.request.headers.get("accept", ""):
        return openapi.page(api.about, api.operations)
    return Answered(openapi.listing(api.about, api.operations))


async def _document(api: ControlApi[Any], _call: Call[None]) -> dict[str, Any]:
    return openapi.document(api.about, api.operations)
