"""The servers beside a sled against their OpenAPI documents: no answer that no document knows, no 5xx, no hang.

schemathesis draws the requests, with a fixed seed, and judges the answers, in the nightly profile. Every run sends
those that are kept (`drawn_requests.py`), and judges here. What is not looked at: whether everything that a document
allows is taken; ids that are no UUIDs are not (SR 5.1), and the documents do not say so.
"""

import asyncio
import base64
import json
import sys
import uuid
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from conformance import drawn_requests
from conformance.drawn_requests import Drawn
from conformance.raw_http import RawAnswer, RawClient
from support.profile import by_profile
from support.rows import in_one_test
from support.wire.documents import faults, load

from sim_sled.companions.servers import Ports
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

EXAMPLES = by_profile("20", nightly="100")


@asynccontextmanager
async def serving(where):
    """The address of one of the servers."""
    config = SledConfig(uuid.uuid4(), "[::1]:0", hardware=Hardware(zpools=1))
    options = Options(nexus="[::1]:1", companions=Ports(), register=False, shutdown_wait_s=0.1)
    daemon = Daemon([config], options)
    await daemon.start()
    try:
        (beside,) = daemon.listening.companion_addresses().values()
        yield where(beside)
    finally:
        await daemon.stop()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("document", "where", "but"),
    [
        ("crucible-agent-1.0.0", lambda beside: next(iter(beside.crucible.values())), ()),
        # a volume that is attached already with another request: 500 is what the original says (SR 5.2)
        ("crucible-pantry-2.0.0", lambda beside: beside.pantry, ("--exclude-operation-id", "attach")),
        ("dns-server-2.0.0", lambda beside: beside.dns_http, ()),
        ("repo-depot-1.0.0", lambda beside: beside.repo_depot, ()),
    ],
)
async def test_every_answer_is_one_of_the_document(document, where, but, tmp_path, caplog):
    if drawn_requests.UPDATE:
        drawn_requests.write(document, telling(await draw(document, where, but, tmp_path)))
    await by_profile(send_kept, nightly=draw)(document, where, but, tmp_path)
    assert drawn_requests.crashed(caplog.records) == []


async def send_kept(document, where, but, _tmp_path):
    kept = list(drawn_requests.read(document))
    asked = {(each.method.lower(), each.path) for each in kept}
    operations = [
        (method, path, each["operationId"])
        for path, item in load(f"other/{document}")["paths"].items()
        for method, each in item.items()
    ]
    assert {op for *key, op in operations if tuple(key) not in asked} == set(but[1:]), "SIM_SLED_UPDATE=1 draws them"
    async with serving(where) as address, aclosing(RawClient(address, 10.0)) as client:
        for sent in kept:
            got = await client.request(sent.method, sent.target, sent.headers, sent.body)
            assert departures(document, sent, got) == [], (sent, got)


async def draw(document, where, but, tmp_path):
    """Gives what was sent, with the answers."""
    path, har = tmp_path / "document.json", tmp_path / "sent.har"
    path.write_text(
        json.dumps({"openapi": "3.0.3", "info": {"title": document, "version": "1"}} | load(f"other/{document}"))
    )
    version = document.rpartition("-")[2]
    async with serving(where) as address:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")), "run", str(path),
            "--url", f"http://{address}", "-H", f"api-version: {version}", "--seed", "7", "--no-color",
            "--max-examples", EXAMPLES, "--checks", CHECKS, "--request-timeout", "10",
            "--suppress-health-check", "all", "--phases", "coverage,fuzzing", *but,
            "--report-har-path", str(har), "--report-preserve-bytes", "--output-sanitize", "false",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode == 0, out.decode()[-6000:]
    assert "generated" in out.decode()
    return list(exchanges(document, json.loads(har.read_text())))


def exchanges(document, har):
    for entry in har["log"]["entries"]:
        request, answer = entry["request"], entry["response"]
        headers = {each["name"]: each["value"] for each in request["headers"]}
        data = request.get("postData")
        body = None if data is None else base64.b64decode(data["text"])
        path = path_of(document, request["url"])
        content = base64.b64decode(answer["content"].get("text", ""))
        yield (
            Drawn.sent(request["method"], path, request["url"], headers, body),
            RawAnswer(answer["status"], {}, content),
        )


def path_of(document, url):
    """As the document has it."""
    asked = url.split("?")[0].split("/")[3:]
    (found,) = (
        path
        for path in load(f"other/{document}")["paths"]
        if len(parts := path.split("/")[1:]) == len(asked)
        and all(part.startswith("{") or part == each for part, each in zip(parts, asked, strict=True))
    )
    return found


def departures(document, sent, got):
    """Why an answer is none of the document's; a method that it does not have is not allowed."""
    name = f"other/{document}"
    operation = load(name)["paths"][sent.path].get(sent.method.lower())
    if operation is None:
        return [] if got.status == 405 and "allow" in got.headers else ["not refused"]
    answers = operation["responses"]
    answer = answers.get(str(got.status), answers.get(f"{got.status // 100}XX"))
    if got.status >= 500 or answer is None:
        return ["such a status is not documented"]
    answer = answer if "$ref" not in answer else load(name)["components"]["responses"][answer["$ref"].split("/")[-1]]
    if "content" not in answer:
        return [] if got.body == b"" else ["a body is not documented"]
    media = got.headers["content-type"]
    if media not in answer["content"]:
        return [f"{media} is not documented"]
    schema = answer["content"][media].get("schema")
    return [] if media != "application/json" else faults(name, schema, json.loads(got.body))


def telling(exchanges):
    """The requests that do something, and those that are refused otherwise than every one before them."""
    refused = set()
    for sent, got in exchanges:
        key = sent.method, sent.path, got.status, got.status >= 400 and json.loads(got.body)["message"]
        if got.status < 400 or key not in refused:
            refused.add(key)
            yield sent


JSON = {"content-type": "application/json"}


@in_one_test(
    ("method", "got", "why"),
    [
        ("GET", RawAnswer(200, JSON, b"3"), "is not of type"),
        ("GET", RawAnswer(200, {"content-type": "text/plain"}, b"{}"), "text/plain is not documented"),
        ("GET", RawAnswer(302, JSON, b""), "such a status"),
        ("GET", RawAnswer(400, JSON, b'{"message":"x"}'), "request_id"),
        ("PUT", RawAnswer(500, JSON, b""), "such a status"),
        ("PUT", RawAnswer(204, {}, b"x"), "a body"),
        ("PATCH", RawAnswer(204, {}, b""), "not refused"),
    ],
)
def test_what_is_wrong_with_an_answer_is_seen(method, got, why):
    (departure, *_) = departures("dns-server-2.0.0", Drawn(method, "/config", "/config", {}, None), got)
    assert why in departure
