"""Plays request tapes against a sled over a real socket, as the README of the tapes says.

    results = await play_file(path, sled)

A `SledUnderTest` starts and stops the sled; the player knows nothing else of it. Each exchange ends as one `Played`.
"""

import asyncio
import base64
import json
import os
import re
import urllib.parse
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, Self

import attrs
from conformance.raw_http import RawAnswer, RawClient
from conformance.sled_watch import SledWatch
from conformance.tape_match import mismatches, parse, subset
from support.nexus.fake_nexus import FakeNexus
from support.wire import documents

_POLL_S = 0.25
"""Between two looks while waiting, if no notification comes that says something has happened."""

_THINKING_S = 0.003
"""How long our Nexus takes: two reports of one VMM at a time would be seen to overlap."""

_NOT_IMPLEMENTED = "Method not implemented in sled-agent-sim"
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def tapes() -> list[Path]:
    """The tapes to play: `SIM_SLED_TAPES` names folders (separated as in PATH), else the copies under tests/data."""
    data = Path(__file__).resolve().parents[1] / "data"
    named = os.environ.get("SIM_SLED_TAPES")
    ours = [data / "tapes", data / "tapes-ext", data / "tapes-own"]
    folders = [Path(one) for one in named.split(os.pathsep)] if named else ours
    return [path for folder in folders for path in sorted(folder.glob("*.jsonl"))]


class SledUnderTest(Protocol):
    """A sled as the player needs it."""

    explicit: bool
    """It does nothing by itself: the player pokes."""

    capabilities: frozenset[str]
    """Of `zpools`, `crucible-agent`, `depot` (the sled can fetch from one), `sim-endpoints`."""

    async def start(self, sled: dict[str, Any], nexus: str) -> str:
        """A fresh sled as the tape's first line describes it; returns its address."""
        ...

    def server(self, server: dict[str, Any]) -> str | None:
        """The address of another server of the sled, e.g. a Crucible agent; None if it has none."""
        ...

    async def stop(self) -> None: ...


class How(Enum):
    """How an exchange ended."""

    PASSED = "passed"
    ALTERNATIVE = "by alternative"
    NOT_OFFERED = "not offered"
    SKIPPED = "skipped"  # needs what neither sled nor player has
    FAILED = "failed"


@attrs.frozen
class Played:
    tape: str
    line: int
    op: str
    how: How
    detail: str = ""
    succeeded: bool = False
    """Passed, and not with an error that was expected."""


@attrs.frozen
class Tape:
    name: str
    head: dict[str, Any]
    exchanges: tuple[tuple[int, dict[str, Any]], ...]  # line number, exchange


class TapeError(Exception):
    """The tape itself cannot be played: an unknown variable, a capability nobody has heard of."""


def load(path: Path) -> Tape:
    head, *rest = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    return Tape(head["tape"], head, tuple(enumerate(rest, 2)))


@attrs.define(eq=False)
class _Player:
    tape: Tape
    sled: SledUnderTest
    nexus: FakeNexus
    not_offered: Collection[str]
    exact: bool
    variables: dict[str, str] = attrs.field(factory=dict)
    watch: SledWatch = attrs.field(factory=SledWatch)
    seen: int = 0  # notifications that the watch has seen
    client: RawClient | None = None
    others: dict[str, RawClient] = attrs.field(factory=dict)

    # --- one exchange -----------------------------------------------------------------------------------------------

    async def play(self, line: int, exchange: dict[str, Any]) -> Played:
        op = exchange.get("op") or "(none)"
        how, details = await self.outcome(op, exchange)
        faults = self.watch.take()
        if faults:
            how, details = How.FAILED, details + faults
        good = how in {How.PASSED, How.ALTERNATIVE} and exchange["expect"]["status"] < 400
        return Played(self.tape.name, line, op, how, "; ".join(details), good)

    async def outcome(self, op: str, exchange: dict[str, Any]) -> tuple[How, list[str]]:
        lacking = sorted(set(exchange.get("needs", ())) - self.sled.capabilities)
        if lacking:
            return How.SKIPPED, [f"needs {', '.join(lacking)}"]
        client = self.client_of(exchange.get("server"))
        if client is None:
            # Later requests mention its ports; a number that fits lets those be played all the same.
            self.variables.update(dict.fromkeys(exchange.get("save", {}), "1"))
            how = How.NOT_OFFERED if op in self.not_offered else How.FAILED
            return how, [f"no {exchange['server']['kind']}"]
        heard = len(self.nexus.acked)
        answer = await self.send(client, exchange)
        value = parse(answer.body)
        if client is self.client:
            self.look(exchange, answer, value)
        if op in self.not_offered and _is_not_implemented(exchange, answer, value):
            return How.NOT_OFFERED, []
        how, faults, expected = self.judge(exchange, answer, value)
        for name, pointer in exchange.get("save", {}).items():
            self.variables[name] = str(_point(value, pointer))
        # an answer may say itself what to wait for; after one that is not right there may be nothing
        if how is not How.FAILED and (wait := expected.get("wait", exchange.get("wait"))) is not None:
            faults = faults + await self.wait(wait, heard, value)
        self.hear()
        return (How.FAILED, faults) if faults else (how, [])

    def client_of(self, server: dict[str, Any] | None) -> RawClient | None:
        if server is None:
            return self.client
        address = self.sled.server(server)
        if address is None:
            return None
        if address not in self.others:
            self.others[address] = RawClient(address)
        return self.others[address]

    async def send(self, client: RawClient, exchange: dict[str, Any]) -> RawAnswer:
        target = self.fill(exchange["path"])
        if exchange.get("query"):
            query = [(name, self.fill_all(value)) for name, value in exchange["query"].items()]
            target += "?" + urllib.parse.urlencode([(name, _query_text(value)) for name, value in query])
        body = self.body(exchange)
        headers = {"accept": "application/json"}
        if body is not None and "body_base64" not in exchange:
            headers["content-type"] = "application/json"
        # a tape that says nothing at all about headers means its version; one that does means just what it says
        given = exchange.get("headers", {"api-version": self.tape.head["api_version"]})
        headers |= {name.lower(): value for name, value in given.items()}
        sent = {name: str(value) for name, value in headers.items() if value is not None}
        return await client.request(exchange["method"], target, sent, body)

    def body(self, exchange: dict[str, Any]) -> bytes | None:
        if "body" in exchange:
            return json.dumps(self.fill_all(exchange["body"]), ensure_ascii=False, separators=(",", ":")).encode()
        if "body_text" in exchange:
            return self.fill(exchange["body_text"]).encode()
        if "body_base64" in exchange:
            return base64.b64decode(exchange["body_base64"])
        if "body_repeat" in exchange:
            parts = exchange["body_repeat"]
            return (parts.get("prefix", "") + parts["unit"] * parts["count"] + parts.get("suffix", "")).encode()
        return None

    def fill(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1] not in self.variables:
                raise TapeError(f"{self.tape.name}: nobody knows ${{{found[1]}}}")
            return self.variables[found[1]]

        return _VARIABLE.sub(value, text) if "${" in text else text

    def fill_all(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.fill(value)
        if isinstance(value, list):
            return [self.fill_all(item) for item in value]
        if isinstance(value, dict):
            return {name: self.fill_all(item) for name, item in value.items()}
        return value

    # --- what came back ---------------------------------------------------------------------------------------------

    def judge(self, exchange: dict[str, Any], answer: RawAnswer, value: Any) -> tuple[How, list[str], dict[str, Any]]:
        """How the answer fits, why not, and which of the right answers (of `expect` and `expect_alt`) it is."""
        version = exchange.get("headers", {}).get("api-version")
        server = exchange.get("server", {}).get("kind")
        if exchange.get("wire"):  # as on the wire, where the document says something else (SR 10)
            validate = _nothing_to_validate
        else:
            validate = documents.validate_with(documents.for_server(server, version, self.tape.head["api_version"]))
        faults = mismatches(exchange["expect"], answer, validate)
        if not faults:
            if self.exact and "sim_subset" in exchange and not subset(exchange["sim_subset"], value):
                expected = json.dumps(exchange["sim_subset"])
                return How.FAILED, [f"sim_subset {expected} does not match {answer.body[:600]!r}"], {}
            return How.PASSED, [], exchange["expect"]
        for number, alternative in enumerate(exchange.get("expect_alt", ()), 1):
            others = mismatches(alternative, answer, validate)
            if not others:
                return How.ALTERNATIVE, [], alternative
            faults += [f"(alternative {number}) {fault}" for fault in others]
        return How.FAILED, faults, {}

    def look(self, exchange: dict[str, Any], answer: RawAnswer, value: Any) -> None:
        """What must hold of every answer of the sled agent API."""
        self.hear()
        self.watch.answer(exchange["method"], answer, value)
        match exchange["path"].split("/"):
            case ["", "vmms", vmm] if answer.status == 200 and exchange["method"] == "DELETE":
                self.watch.removed(vmm, value)
            case ["", "vmms", vmm] if answer.status == 200 and exchange["method"] == "PUT":
                self.watch.registered(vmm)
                self.watch.runtime(vmm, value)
            case ["", "vmms", vmm, "state"] if answer.status == 200:
                self.watch.runtime(vmm, value)
            case ["", "vmms", vmm, "state"] if answer.status == 404 and exchange["method"] == "GET":
                told = self.nexus.of(vmm)
                self.watch.forgotten(vmm, told[-1] if told else None)
            case _:
                pass

    def hear(self) -> None:
        for told in self.nexus.acked[self.seen :]:
            self.watch.notification(told)
        self.seen = len(self.nexus.acked)

    # --- waiting ----------------------------------------------------------------------------------------------------

    async def wait(self, wait: dict[str, Any], heard: int, value: Any) -> list[str]:
        until = wait["until"]
        runtime = value.get("updated_runtime", value) if isinstance(value, dict) else None
        gen = runtime["vmm_state"]["gen"] if isinstance(runtime, dict) and "vmm_state" in runtime else 0
        try:
            async with asyncio.timeout(wait["within_s"]):
                while not await self.reached(until, heard, gen):
                    if self.sled.explicit and "vmm" in until:
                        await self.ask("POST", f"/vmms/{until['vmm']}/poke")
                    else:
                        await self.nexus.news(_POLL_S)
        except TimeoutError:
            return [f"waited {wait['within_s']} s for {json.dumps(until)}"]
        return []

    async def reached(self, until: dict[str, Any], heard: int, gen: int) -> bool:
        if "artifact" in until:
            _, value = await self.ask("GET", "/artifacts")
            return isinstance(value, dict) and until["artifact"] in value.get("list", {})
        vmm, state = until["vmm"], until["state"]
        answer, value = await self.ask("GET", f"/vmms/{vmm}/state")
        if state == "gone":
            told = self.nexus.of(vmm)
            lost = isinstance(value, dict) and value.get("error_code") == "NO_SUCH_INSTANCE"
            return answer.status == 404 and lost and bool(told) and told[-1].state == "destroyed"
        if answer.status == 200 and value["vmm_state"]["state"] == state:
            return True
        # it may have passed by; what was notified before the request, or is older than its answer, does not count
        later = (told for told in self.nexus.acked[heard:] if told.vmm == vmm and told.gen >= gen)
        return any(told.state == state for told in later)

    async def ask(self, method: str, path: str) -> tuple[RawAnswer, Any]:
        """A request of the player's own, of which everything must hold that must hold of all."""
        assert self.client is not None
        headers = {"accept": "application/json", "api-version": self.tape.head["api_version"]}
        answer = await self.client.request(method, path, headers, None)
        value = parse(answer.body)
        self.look({"method": method, "path": path}, answer, value)
        return answer, value


def _nothing_to_validate(_schema: str, _value: Any) -> list[str]:
    return []


def _is_not_implemented(exchange: dict[str, Any], answer: RawAnswer, value: Any) -> bool:
    if answer.status != 405 or exchange["expect"]["status"] == 405:
        return False
    return exchange["method"] == "HEAD" or (isinstance(value, dict) and value.get("message") == _NOT_IMPLEMENTED)


def _query_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _point(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) points to; None if there is nothing."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def blobs_of(head: dict[str, Any]) -> dict[str, str]:
    return {name: "".join(text * times for text, times in parts) for name, parts in head.get("blobs", {}).items()}


class Depot:
    """Serves the artifacts of a tape's first line: GET /artifact/sha256/HASH. One may be, on purpose, not what its
    name says (SR 10)."""

    def __init__(self, artifacts: dict[str, str]) -> None:
        self._artifacts = {name: base64.b64decode(text) for name, text in artifacts.items()}
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "::1", 0)
        self.url = f"http://[::1]:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode("latin-1")
            content = self._artifacts.get(target.removeprefix("/artifact/sha256/"))
            status = b"404 Not Found" if content is None else b"200 OK"
            size = len(content or b"")
            writer.write(b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (status, size))
            writer.write(content or b"")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def play(
    tape: Tape, sled: SledUnderTest, *, not_offered: Collection[str] = (), exact: bool = False
) -> list[Played]:
    """Play one tape on a fresh sled. `exact`: compare `sim_subset` too (needs an explicit sled).

    An operation in `not_offered` may answer the original's "not implemented" 405; nothing else may.
    """
    known = {"zpools", "crucible-agent", "depot", "sim-endpoints"}
    if strange := {need for _, e in tape.exchanges for need in e.get("needs", ())} - known:
        raise TapeError(f"{tape.name} needs {strange}")
    async with FakeNexus(thinking_s=_THINKING_S) as nexus, Depot(tape.head.get("depot", {})) as depot:
        player = _Player(tape, sled, nexus, not_offered, exact)
        player.variables = blobs_of(tape.head) | {"crucible_ip": "::1", "depot_url": depot.url}
        try:
            player.client = RawClient(await sled.start(tape.head["sled"], nexus.address))
            results = [await player.play(line, exchange) for line, exchange in tape.exchanges]
        finally:
            for client in (player.client, *player.others.values()):
                if client is not None:
                    await client.aclose()
            await sled.stop()
        player.hear()
        faults = [*player.watch.take(), *nexus.faults]
        nexus.faults.clear()
        return results + [Played(tape.name, 0, "(notifications)", How.FAILED, fault) for fault in faults]


async def play_file(path: Path, sled: SledUnderTest, **options: Any) -> list[Played]:
    """`play` of a tape's file. Whatever is wrong with the tape itself is one failed line; others are played."""
    try:
        return await play(load(path), sled, **options)
    # a tape is data of others, and whatever it makes the player stumble over is the tape's fault
    except Exception as fault:  # noqa: BLE001
        return [Played(path.stem, 0, "(tape)", How.FAILED, f"cannot be played: {type(fault).__name__}: {fault}")]
