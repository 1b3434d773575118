"""Who may use a control API: its guard and its tokens, and that every answer is JSON."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from nexus_client.dropshot.answers import Refused
from nexus_client.dropshot.bearer import BadToken, carries, require_token, token_from
from nexus_client.dropshot.control import Guard, guarded, number, read_control_json
from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import SocketAddress


class Known(Exception):
    pass


async def look(_request: web.Request) -> web.Response:
    return web.json_response("seen")


async def change(request: web.Request) -> web.Response:
    body = await read_control_json(request, Json(dict)) if request.can_read_body else None
    return web.json_response(body)


async def fail(request: web.Request) -> web.Response:
    raise {"known": Known("told"), "bug": RuntimeError("secret"), "http": web.HTTPGone(reason="gone")}[
        request.match_info["how"]
    ]


@asynccontextmanager
async def serving(token=None, hosts=(), host="127.0.0.1"):
    def refusal_of(error):
        return Refused(409, str(error)) if isinstance(error, Known) else None

    app = web.Application(middlewares=[guarded(Guard(token, hosts), refusal_of)], client_max_size=1000)
    app.router.add_get("/look", look)
    app.router.add_post("/change", change)
    app.router.add_post("/fail/{how}", fail)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    port = runner.addresses[0][1]

    async def ask(line: str, *headers: str, body: bytes = b""):
        reader, writer = await asyncio.open_connection(host, port)
        told = [f"{line} HTTP/1.1", *headers, "connection: close"]
        if body:
            told.append(f"content-length: {len(body)}")
        writer.write("\r\n".join([*told, "", ""]).replace("PORT", str(port)).encode("latin-1") + body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), json.loads(content)

    try:
        yield ask
    finally:
        await runner.cleanup()


OURS = [
    "127.0.0.1:PORT",
    "127.0.0.1",
    "localhost:PORT",
    "LOCALHOST",
    "localhost.:PORT",
    "[::1]:PORT",
    "127.0.0.2:9",
    "ip6-localhost",
]
FOREIGN = ["evil.example", "evil.example:PORT", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1",
           "[fd00::1]:PORT", "x",
           "",
           "127.0.0.1@evil.example", "[127.0.0.1", "127.0.0.1:PORT:PORT", "localhost:x"]  # fmt: skip


@pytest.mark.parametrize("host", OURS)
async def test_a_name_of_the_listener_is_taken(host):
    async with serving() as ask:
        assert await ask("GET /look", f"host: {host}") == (200, "seen")


@pytest.mark.parametrize("host", FOREIGN)
async def test_a_foreign_host_is_refused_reading_and_writing(host):
    async with serving() as ask:
        for line in ("GET /look", "POST /change", "GET /nowhere"):
            status, body = await ask(line, f"host: {host}")
            assert status == 403
            assert "host" in body["message"]


async def test_names_may_be_added():
    async with serving(hosts=("Sled.Example",)) as ask:
        assert (await ask("GET /look", "host: sled.example:80"))[0] == 200
        assert (await ask("GET /look", "host: other.example:80"))[0] == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://127.0.0.1:PORT",
        "http://127.0.0.1:1",
        "http://localhost:PORT",
        "file://",
        "",
    ],
)  # fmt: skip
async def test_a_page_of_elsewhere_is_refused(origin):
    async with serving() as ask:
        for line in ("GET /look", "POST /change"):
            assert (await ask(line, "host: 127.0.0.1:PORT", f"origin: {origin}"))[0] == 403


async def test_a_page_of_our_own_would_be_taken():
    async with serving() as ask:
        assert (await ask("GET /look", "host: 127.0.0.1:PORT", "origin: http://127.0.0.1:PORT"))[0] == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "Multipart/form-data; boundary=x"]
)
async def test_what_a_page_can_send_unasked_is_refused(kind):
    async with serving() as ask:
        for body in (b"", b"{}"):
            assert (await ask("POST /change", "host: localhost", f"content-type: {kind}", body=body))[0] == 415


@pytest.mark.parametrize("kind", [None, "application/jsonx", "application/octet-stream", ""])
async def test_a_body_says_that_it_is_json(kind):
    more = [] if kind is None else [f"content-type: {kind}"]
    async with serving() as ask:
        assert (await ask("POST /change", "host: localhost", *more, body=b"{}"))[0] == 415
        assert (await ask("POST /change", "host: localhost", *more))[0] == 200


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=nonsense", "application/x+json"])
async def test_json_is_taken_whatever_its_charset_says(kind):
    async with serving() as ask:
        assert await ask("POST /change", "host: localhost", f"content-type: {kind}", body=b'{"a":1}') == (
            200,
            {"a": 1},
        )


async def test_no_body_needs_no_type():
    async with serving() as ask:
        assert await ask("POST /change", "host: localhost") == (200, None)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer secret", 200),
        ("bearer  secret", 200),
        ("secret", 401),
        ("Basic secret", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer secre", 401),
        ("Bearer secret2", 401),
        ("Bearer \xff\xfe", 401),
        ("", 401),
        (None, 401),
    ],
)
async def test_the_token_stands_behind_its_word(header, status):
    async with serving("secret") as ask:
        more = [] if header is None else [f"authorization: {header}"]
        assert (await ask("GET /look", "host: localhost", *more))[0] == status


@pytest.mark.parametrize(
    ("line", "body", "status", "message"),
    [
        ("POST /fail/known", b"", 409, "told"),
        ("POST /fail/bug", b"", 500, "Internal Server Error"),
        ("POST /fail/http", b"", 410, "gone"),
        ("POST /fail/other", b"", 500, "Internal Server Error"),
        ("GET /nowhere", b"", 404, "Not Found"),
        ("DELETE /look", b"", 405, "Method Not Allowed"),
        ("POST /change", b"{", 400, "unable to parse JSON body: "),
        ("POST /change", b"\xff", 400, "unable to parse JSON body: "),
        ("POST /change", b'{"a":' * 100, 400, "unable to parse JSON body: "),
        ("POST /change", b" " * 2000, 400, "request body exceeded"),
    ],
)
async def test_whatever_goes_wrong_is_told_as_json(line, body, status, message):
    async with serving() as ask:
        got, told = await ask(line, "host: localhost", "content-type: application/json", body=body)
        assert got == status
        assert told["message"].startswith(message)
        assert "secret" not in json.dumps(told)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "x", "9" * 5000, "\u0663", "1 "])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(Refused, match="is no number"):
        number(text, "it")


def test_numbers_are_read():
    assert number("0", "it") == 0
    assert number("18446744073709551615", "it") == 2**64 - 1
    with pytest.raises(Refused):
        number("18446744073709551616", "it")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.0.0.1:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1"])
@pytest.mark.parametrize("token", [None, ""])
def test_beyond_loopback_a_token_is_needed_and_an_empty_one_is_none(address, token):
    with pytest.raises(BadToken, match="needs a token"):
        require_token(SocketAddress.parse(address), token)
    require_token(SocketAddress.parse(address), "secret")


@pytest.mark.parametrize("text", ["", " ", "a b", "\n", "ä", "a\x00b"])
def test_what_can_be_no_token_is_refused(text, tmp_path):
    with pytest.raises(BadToken, match="empty or not printable"):
        token_from(text, None)
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(BadToken):
        token_from(None, file)


def test_a_token_comes_from_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_bytes(b" secret \nmore\n")
    assert token_from(None, file) == "secret"
    assert token_from("secret", None) == "secret"
    assert token_from(None, None) is None
    with pytest.raises(BadToken, match="one of them is enough"):
        token_from("secret", file)
    for bad in (tmp_path, tmp_path / "nowhere", Path("/dev/zero")):
        with pytest.raises(BadToken):
            token_from(None, bad)


def test_an_absent_header_carries_nothing():
    assert not carries(None, "secret")
    assert carries("Bearer secret", "secret")
