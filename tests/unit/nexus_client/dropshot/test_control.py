"""Who may use a control API: its guard and its tokens; what its table reads and tells; and that errors are JSON."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict
from support.rows import in_one_test

from nexus_client.dropshot import openapi
from nexus_client.dropshot.answers import Refused
from nexus_client.dropshot.bearer import BadToken, carries, require_token, token_from
from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.control_api import ControlApi
from nexus_client.dropshot.listen import Server, listen
from nexus_client.dropshot.operations import About, Answered, Call, Operation, flag, number, one_of
from nexus_client.dropshot.text import SocketAddress


class Known(Exception):
    pass


class Owner:
    async def look(self, _call: Call[None]) -> str:
        return "seen"

    async def change(self, call: Call[dict[str, int]]) -> dict[str, int]:
        return call.body

    async def find(self, call: Call[None]) -> list[object]:
        return [call.number("most"), call.number("id"), call.flag("all"), call.text("word")]

    async def fail(self, call: Call[None]) -> None:
        raise {"known": Known("told"), "bug": RuntimeError("secret"), "other": KeyError("secret")}[call.text("how")]

    async def quiet(self, _call: Call[None]) -> None:
        """Nothing to say."""

    async def sent(self, _call: Call[None]) -> web.Response:
        return web.json_response("seen")

    async def lie(self, _call: Call[None]) -> Answered:
        return Answered(1, 201)


OPERATIONS = (
    Operation("GET", "/look", Owner.look, "Look", str),
    Operation("POST", "/change", Owner.change, "Change", dict[str, int], body=dict[str, int], optional=True),
    Operation("GET", "/find/{id}", Owner.find, "Find", list[Any], parameters=(
        number("id", "which", where="path"), number("most", "how many", default=7, least=1, most=9),
        flag("all", "or not"), one_of("word", "a word", ("yes", "no")),
    )),
    Operation("POST", "/fail/{how}", Owner.fail, "Fail"),
    Operation("POST", "/accepted", Owner.quiet, "Answers later", None, 202),
    Operation("POST", "/done", Owner.quiet, "Answers nothing", None, 204),
    Operation("GET", "/sent", Owner.sent, "An answer of aiohttp's", str),
    Operation("GET", "/open/{id}", Owner.look, "For everybody", str, open=True),
    Operation("GET", "/lie", Owner.lie, "Answers what its row does not have", int),
)  # fmt: skip


@asynccontextmanager
async def serving(token=None, hosts=(), host="127.0.0.1"):
    def refusal_of(error):
        return Refused(409, str(error)) if isinstance(error, Known) else None

    about = About("Ours & theirs", "For tests.")
    api = ControlApi(Owner(), OPERATIONS, Guard(token, hosts), about, refusal_of=refusal_of, body_max=1000)
    listener = await listen(Server(api.handle), SocketAddress(host, 0))
    port = SocketAddress.parse(listener.address).port

    async def ask(line: str, *headers: str, body: bytes = b"", whole: bool = False):
        reader, writer = await asyncio.open_connection(host, port)
        told = [f"{line} HTTP/1.1", *headers, "connection: close"]
        if body:
            told.append(f"content-length: {len(body)}")
        writer.write("\r\n".join([*told, "", ""]).replace("PORT", str(port)).encode("latin-1") + body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, content = answer.partition(b"\r\n\r\n")
        if whole:
            return head.decode().lower().split("\r\n")
        if b"application/json" not in head or not content:
            return int(head.split(b" ")[1]), content.decode()
        return int(head.split(b" ")[1]), json.loads(content)

    async def head(path):
        """The headers of an answer."""
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.headers

    ask.head = head
    try:
        yield ask
    finally:
        await listener.close()


OURS = [
    "127.0.0.1:PORT",
    "127.0.0.1",
    "localhost:PORT",
    "LOCALHOST",
    "localhost.:PORT",
    "[::1]:PORT",
    "127.0.0.2:9",
    "ip6-localhost",
    "0.0.0.0:PORT",  # where `--control 0.0.0.0:0` listens, as port files say it
    "[::]:PORT",
]
FOREIGN = ["evil.example", "evil.example:PORT", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1",
           "[fd00::1]:PORT", "x",
           "",
           "127.0.0.1@evil.example", "[127.0.0.1", "127.0.0.1:PORT:PORT", "localhost:x"]  # fmt: skip


@in_one_test("host", OURS)
async def test_a_name_of_the_listener_is_taken(host):
    async with serving() as ask:
        assert await ask("GET /look", f"host: {host}") == (200, "seen")


@in_one_test(
    ("host", "answer"),
    [
        ("127.0.0.1:12300", nullcontext()),
        ("[::1]:12300", nullcontext()),
        ("172.17.0.2:12300", nullcontext()),
        ("172.17.0.3:12300", pytest.raises(Refused, match="--control-host")),
        ("sleds:12300", pytest.raises(Refused, match="--control-host")),
    ],
)
def test_a_port_that_a_container_engine_publishes_is_asked_for_by_the_machine_s_own_address(host, answer):
    transport = SimpleNamespace(get_extra_info=lambda _: ("172.17.0.2", 12300))
    request = SimpleNamespace(headers=CIMultiDict(host=host), transport=transport, method="GET", can_read_body=False)
    with answer:
        Guard(None).check(request)


@in_one_test("host", FOREIGN)
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


@in_one_test(
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


@in_one_test("kind", [None, "application/jsonx", "application/octet-stream", ""])
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
        assert await ask("POST /change", "host: localhost") == (200, {})


@in_one_test(
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


@in_one_test(
    ("line", "body", "status", "message"),
    [
        ("POST /fail/known", b"", 409, "told"),
        ("POST /fail/bug", b"", 500, "Internal Server Error"),
        ("POST /fail/other", b"", 500, "Internal Server Error"),
        ("GET /lie", b"", 500, "Internal Server Error"),
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


@in_one_test("text", ["", "-1", "+1", "1.0", "x", "9" * 5000, "%D9%A3", "1%20", "10", "0", "--1"])
async def test_what_is_no_number_in_its_bounds_is_refused(text):
    async with serving() as ask:
        status, told = await ask(f"GET /find/1?word=yes&most={text}", "host: localhost")
        assert status == 400
        assert told["message"].startswith("most is a number from 1 to 9, not ")
        assert len(told["message"]) < 100


@in_one_test(
    ("target", "answer"),
    [
        ("/find/0?word=no", [7, 0, False, "no"]),
        ("/find/9223372036854775807?word=yes&most=1&all=1", [1, 2**63 - 1, True, "yes"]),
        ("/find/3?all=0&word=yes&most=9&unknown=x", [9, 3, False, "yes"]),
        ("/find/3?all=false&word=yes", [7, 3, False, "yes"]),
    ],
)
async def test_parameters_are_read_as_their_row_says(target, answer):
    async with serving() as ask:
        assert await ask(f"GET {target}", "host: localhost") == (200, answer)


@in_one_test(
    ("target", "message"),
    [
        ("/find/9223372036854775808?word=yes", "id is a number from 0 to 9223372036854775807"),
        ("/find/x?word=yes", "id is a number"),
        ("/find/1", "word is one of yes, no, not ''"),
        ("/find/1?word=maybe", "word is one of yes, no, not 'maybe'"),
    ],
)
async def test_a_parameter_that_its_row_does_not_take_is_refused(target, message):
    async with serving() as ask:
        status, told = await ask(f"GET {target}", "host: localhost")
        assert (status, told["message"][: len(message)]) == (400, message)


@pytest.mark.parametrize(("size", "status"), [(999, 200), (1000, 200), (1001, 400)])
async def test_a_body_may_be_exactly_as_large_as_is_said(size, status):
    async with serving() as ask:
        said = ("host: localhost", "content-type: application/json")
        assert (await ask("POST /change", *said, body=b"{}".ljust(size)))[0] == status


async def test_an_answer_without_a_body_says_so_or_nobody_knows_where_it_ends():
    async with serving() as ask:
        accepted = await ask("POST /accepted", "host: localhost", whole=True)
        assert accepted[0] == "http/1.1 202 accepted"
        assert "content-length: 0" in accepted
        done = await ask("POST /done", "host: localhost", whole=True)
        assert done[0] == "http/1.1 204 no content"
        assert not [line for line in done if line.startswith("content-length")], "a 204 has none (RFC 9110 8.6)"


async def test_what_may_be_read_may_be_asked_for_its_head():
    async with serving() as ask:
        assert await ask("HEAD /look", "host: localhost") == (200, "")
        assert (await ask("HEAD /change", "host: localhost"))[0] == 405


def test_an_answer_has_the_fields_that_its_type_names_and_no_other():
    class Seen(TypedDict):
        how: str

    async def look(_owner: Owner, _call: Call[None]) -> Seen:
        return Seen(how="well")

    made = openapi.document(About("Ours", "For tests."), (Operation("GET", "/seen", look, "Look", Seen),))
    assert made["components"]["schemas"]["Seen"]["additionalProperties"] is False


async def test_a_browser_gets_a_page_and_a_terminal_a_list():
    async with serving() as ask:
        _, text = await ask("GET /", "host: localhost")
        assert "POST   /change " in text
        assert "?most=MOST&all=ALL&word=WORD" in text
        _, page = await ask("GET /", "host: localhost", "accept: text/html,*/*")
        assert page.startswith("<!doctype html>")
        assert "Ours &amp; theirs" in page
        assert "<script" not in page


@in_one_test("address", ["0.0.0.0:0", "[::]:0", "10.0.0.1:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1"])
@in_one_test("token", [None, ""])
def test_beyond_loopback_a_token_is_needed_and_an_empty_one_is_none(address, token):
    with pytest.raises(BadToken, match="needs a token"):
        require_token(SocketAddress.parse(address), token)
    require_token(SocketAddress.parse(address), "secret")


@in_one_test("text", ["", " ", "a b", "\n", "ä", "a\x00b"])
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


HERE = "host: 127.0.0.1:PORT"
SAFE = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@in_one_test("site", ["cross-site", "same-site"])
@in_one_test("line", ["GET /look", "POST /change", "GET /nowhere"])
@in_one_test("how", ["no-cors", "cors", "navigate"])
async def test_what_a_page_of_elsewhere_loads_without_an_origin_is_refused(site, line, how):
    async with serving() as ask:
        told = (f"sec-fetch-site: {site}", f"sec-fetch-mode: {how}", "sec-fetch-dest: iframe")
        status, body = await ask(line, HERE, *told)
        assert status == 403
        assert "elsewhere" in body["message"]


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_ones_own_pages_and_the_address_bar_may(site):
    async with serving() as ask:
        assert (await ask("GET /look", HERE, f"sec-fetch-site: {site}", "sec-fetch-mode: cors"))[0] == 200


async def test_a_link_may_be_followed_but_a_form_may_not_be_sent():
    async with serving() as ask:
        told = ("sec-fetch-site: cross-site", "sec-fetch-mode: navigate", "sec-fetch-dest: document")
        assert (await ask("GET /look", HERE, *told))[0] == 200
        assert (await ask("POST /change", HERE, *told))[0] == 403


@in_one_test("path", ["/look", "/nowhere", "/fail/bug", "/fail/known", "/sent", "/"])
async def test_every_answer_tells_browsers_that_nobody_else_may_use_it(path):
    async with serving() as ask:
        head = await ask.head(path)
        for name, value in SAFE.items():
            if (name, path) != ("content-security-policy", "/"):  # the list has a style of its own
                assert head[name] == value


async def test_what_is_open_needs_no_token_and_everything_else_does():
    async with serving(token="secret") as ask:
        assert (await ask("GET /open/7", HERE))[0] == 200
        for line in ("GET /look", "GET /nowhere", "GET /", "POST /open/7"):
            assert (await ask(line, HERE))[0] == 401
        assert (await ask("GET /open/7", "host: evil.example"))[0] == 403, "open, and still not for everybody"
