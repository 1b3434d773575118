"""One control API in front of several workers: what somebody asks of the rack, asked of whom it concerns.

Each operation of a daemon's control API has its row in `SPREAD`: who of the workers is asked, and how their answers
become one. Nothing is kept here but the event feed, once somebody wants it.

Read before: daemon/control.py, daemon/event_feed.py, daemon/workers.py. Read next: cli/up.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from enum import Enum
from typing import Any, Final, cast

import aiohttp
import attrs
import msgspec
from yarl import URL

from nexus_client.dropshot import foreign, web
from nexus_client.dropshot.answers import Refused
from nexus_client.dropshot.bearer import require_token
from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.control_api import ControlApi
from nexus_client.dropshot.listen import Listener, Server, listen, streams
from nexus_client.dropshot.observing import MEDIA
from nexus_client.dropshot.operations import Call, Operation
from nexus_client.dropshot.routes import segment, split_target
from nexus_client.dropshot.text import SocketAddress
from sim_sled.daemon import page, page_api
from sim_sled.daemon.control import ABOUT, KEEP_ALIVE_S, OPERATIONS
from sim_sled.daemon.control_answers import Brief
from sim_sled.daemon.event_feed import ANSWER_S, LINE_MAX, EventFeed
from sim_sled.daemon.looking import NONE_YET, NOT_TAKEN
from sim_sled.daemon.page import PAGES_MAX
from sim_sled.daemon.worker import Ready
from sim_sled.daemon.workers import Worker, Workers

BRIEF: Final = tuple(Brief.__annotations__)
PARTS_WAIT: Final = 64
"""Messages of the workers that a page has not taken yet: a slow one lets the workers wait."""


class Spread(Enum):
    """Who is asked, and what becomes of the answers."""

    OWNER = "the one who has this VMM"
    HOLDER = "the one who has this sled"
    LIST = "all; their lists, one after the other"
    RULES = "all; the counters of each rule, added up"
    SUMS = "all; their figures, added up"
    EVERYBODY = "all; what one of them can do is done"
    RULES_IN = "all, and whoever starts again later"
    READY = "all; ready when all are"
    PROBES = "all; the first that is not ready, or anybody"
    HEALTH = "any; beside it, who of them does not answer"
    ANY = "any: they are the same there"
    FEED = "all, as they come"
    PAGE = "all; each is a part of the page"
    STORY = "the one who has this VMM, and whoever has the other side of its migration"
    ITSELF = "nobody: it is the same everywhere"
    NOBODY = "nobody: a rack of workers cannot do it"


SPREAD: Final[Mapping[tuple[str, str], Spread]] = {
    ("GET", "/page"): Spread.ITSELF,
    ("GET", "/page/words.json"): Spread.ITSELF,
    ("GET", "/page/{file}"): Spread.ITSELF,
    ("GET", "/page/feed"): Spread.PAGE,
    ("GET", "/ready"): Spread.READY,
    ("GET", "/version"): Spread.ANY,
    ("GET", "/healthz"): Spread.HEALTH,
    ("GET", "/readyz"): Spread.PROBES,
    ("GET", "/metrics"): Spread.SUMS,
    ("GET", "/sleds"): Spread.LIST,
    ("GET", "/sleds/{sled_id}/networking"): Spread.HOLDER,
    ("GET", "/sleds/{sled_id}/companions"): Spread.HOLDER,
    ("POST", "/sleds/{sled_id}/companions"): Spread.HOLDER,
    ("POST", "/sleds/{sled_id}/facts"): Spread.HOLDER,
    ("GET", "/vmms"): Spread.LIST,
    ("GET", "/vmms/{who}"): Spread.OWNER,
    ("GET", "/vmms/{who}/log"): Spread.OWNER,
    ("GET", "/vmms/{who}/story"): Spread.STORY,
    ("GET", "/vmms/{who}/expect"): Spread.OWNER,
    ("GET", "/events"): Spread.FEED,
    ("POST", "/vmms/{who}/inject"): Spread.OWNER,
    ("GET", "/rules"): Spread.RULES,
    ("POST", "/fire/{name}"): Spread.EVERYBODY,
    ("POST", "/release/{name}"): Spread.EVERYBODY,
    ("PUT", "/rules"): Spread.RULES_IN,
    ("POST", "/scale"): Spread.NOBODY,
    ("GET", "/time"): Spread.ANY,
    ("GET", "/scenario"): Spread.ANY,
    # each process has a clock of its own, and what one of them waits for may come from another
    ("POST", "/pause"): Spread.NOBODY,
    ("POST", "/resume"): Spread.NOBODY,
    ("POST", "/step"): Spread.NOBODY,
    ("POST", "/until"): Spread.NOBODY,
    ("GET", "/snapshot"): Spread.NOBODY,
    ("POST", "/restore"): Spread.NOBODY,
}


@attrs.frozen
class Said:
    """A worker's answer."""

    status: int
    kind: str
    body: bytes

    @property
    def good(self) -> bool:
        return self.status < 400

    def json(self) -> Any:
        return foreign.loads(self.body)


def not_there(*workers: Worker) -> Said:
    """What is said for workers that do not answer."""
    whys = [each.why_not or f"{each.sleds} cannot be asked: the worker gave no answer; try again" for each in workers]
    return Said(503, "application/json", json.dumps({"message": "; ".join(whys)}).encode())


def rows() -> list[Operation[Front, Any]]:
    """The table of a daemon with other handlers."""

    def handler(row: Operation[Any, Any]) -> Any:
        spread = SPREAD[row.method, row.path]
        if spread is Spread.ITSELF:
            return row.handler

        async def handle(front: Front, call: Call[Any]) -> web.StreamResponse:
            return await front.answer(call, spread)

        return handle

    return [cast("Operation[Front, Any]", attrs.evolve(row, handler=handler(row))) for row in OPERATIONS]


class Front:
    """The control API of a rack of workers: `serve` binds it, `close` ends it."""

    def __init__(self, workers: Workers, token: str | None = None, hosts: tuple[str, ...] = ()) -> None:
        self._workers = workers
        self._token = token
        self.api: Final[ControlApi[Front]] = ControlApi(self, rows(), Guard(token, hosts), ABOUT)
        self._http: aiohttp.ClientSession | None = None
        self._feed: EventFeed | None = None
        self._listener: Listener | None = None
        self._pages = 0

    @property
    def address(self) -> str:
        """Where it is served."""
        assert self._listener is not None, "serve first"
        return self._listener.address

    async def serve(self, address: SocketAddress) -> str:
        """Binds it; returns the address. Raises `BadToken` beyond loopback without one, OSError if it is taken."""
        require_token(address, self._token)
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_S), connector=aiohttp.TCPConnector(limit=0)
        )
        try:
            self._listener = await listen(Server(self.api.handle), address)
        except BaseException:
            await self.close()
            raise
        return self.address

    async def close(self) -> None:
        """Ends it, and whatever listens to its feed."""
        if self._feed is not None:
            await self._feed.close()
        if self._listener is not None:
            await self._listener.close()
        if self._http is not None:
            await self._http.close()

    # ---- one worker

    async def ask(self, worker: Worker, call: Call[Any], path: str | None = None) -> Said:
        """The same request, of a worker; or only a look at `path` there. `not_there` if it does not answer."""
        ready, http = worker.ready, self._http
        if ready is None or http is None:
            return not_there(worker)
        request = call.request
        waits_s = call.number("within_ms") / 1000 if path is None and _waits(call) else 0.0
        try:
            async with (
                worker.pulse.answering(waits_s),
                http.request(
                    "GET" if path is not None else request.method,
                    _at(ready.control, request.raw_path if path is None else path),
                    data=None if path is not None or call.body is None else msgspec.json.encode(call.body),
                    headers=_headers(worker, request),
                    timeout=aiohttp.ClientTimeout(total=waits_s + ANSWER_S),
                ) as response,
            ):
                return Said(response.status, response.content_type, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError):
            return not_there(worker)

    async def ask_all(self, call: Call[Any], path: str | None = None) -> list[Said]:
        """Everybody's answers, in order."""
        return list(await asyncio.gather(*(self.ask(each, call, path) for each in self._workers.all)))

    # ---- manners

    async def answer(self, call: Call[Any], spread: Spread) -> web.StreamResponse:
        match spread:
            case Spread.FEED:
                return await self._events(call)
            case Spread.PAGE:
                return await self._page_feed(call)
            case Spread.STORY:
                return _told(await self._story(call))
            case Spread.NOBODY:
                raise Refused(409, "a rack of several workers cannot do this: start it without --workers")
            case Spread.ANY | Spread.HEALTH:
                first = await self._first(call, lambda said: said.good)
                if not first.good:
                    return _told(not_there(*self._workers.all))
                return self._health(first) if spread is Spread.HEALTH else _told(first)
            case Spread.OWNER:
                return _told(await self._owner(call))
        asked = [each.ready for each in self._workers.all]
        said = await self.ask_all(call)
        match spread:
            case Spread.RULES_IN:
                return _told(self._rules_in(call.body.scenario, asked, said))
            case Spread.HOLDER | Spread.EVERYBODY:
                # the sled is one worker's, a rule may be armed with one only; if nobody can, all say why in one way
                return _told(_best(said))
            case Spread.READY:
                return _ready(said)
            case Spread.PROBES:
                return _told(max(said, key=lambda each: each.status))
            case _:
                pass
        bad = next((each for each in said if not each.good), None)
        if bad is not None:
            return _told(bad)  # a part of a list would look like all of it
        match spread:
            case Spread.LIST:
                return web.json_response([row for each in said for row in each.json()])
            case Spread.RULES:
                return web.json_response(_added_up([each.json() for each in said]))
            case Spread.SUMS:
                return web.Response(text=sums([each.body.decode() for each in said]), headers={"content-type": MEDIA})
        raise AssertionError(spread)

    def _health(self, said: Said) -> web.Response:
        away = [why for each in self._workers.all if (why := each.why_not) is not None]
        return web.json_response(said.json() | {"message": "; ".join(away)}) if away else _told(said)

    def _rules_in(self, rules: str, asked: list[Ready | None], said: list[Said]) -> Said:
        """One who took them is enough for them to be in effect, since whoever starts again starts with them: who was
        on its way up does. Who was there and did not take them plays others, perhaps for long: that is said.
        """
        if any(each.good for each in said):
            self._workers.given(rules)
        behind = [
            worker.sleds
            for worker, ready, each in zip(self._workers.all, asked, said, strict=True)
            if ready is not None and not each.good
        ]
        if len(behind) in {0, len(said)}:
            return _best(said)
        left = f"{', '.join(behind)} have not taken the rules and play others until they do or start again"
        return Said(503, "application/json", json.dumps({"message": f"{left}; all others play these"}).encode())

    async def _owner(self, call: Call[Any]) -> Said:
        """Who of them has the VMM answers; if several have one of that name, nobody does (409)."""
        there = "/vmms/" + segment(call.text("who"))
        found = await self.ask_all(call, there)
        have = [(each, said.json()) for each, said in zip(self._workers.all, found, strict=True) if said.good]
        several = [said for said in found if said.status == 409]
        low = call.text("who").strip().lower()
        # whoever has had this host name before is out of it
        meant = [seen for _, seen in have if seen.get("hostname", "").lower() != low or not seen.get("gone")]
        if have and not several and len({seen["instance_id"] for seen in meant}) <= 1:
            # an instance lives through many VMMs, perhaps here and there: as in one process (`Sightings.named`)
            worker, _ = max(have, key=lambda each: _nearness(each[1]))
            return await self.ask(worker, call)
        if have or several:
            said = " ".join(sorted({each.json()["message"] for each in several})) or _listed(found)
            return Said(409, "application/json", json.dumps({"message": said}).encode())
        if _waits(call):
            return await self._first(call, lambda said: said.good and bool(said.json().get("met")))
        # who is not there may have it: nobody knows that there is no such VMM
        least = min(found, key=lambda each: (each.status, -_knows(each)))
        return next((said for said in found if said.status == 503), least)

    async def _story(self, call: Call[Any]) -> Said:
        """With the lives that others of them know of the same instance, where they share a migration."""
        own = await self._owner(call)
        if not own.good:
            return own
        story = own.json()
        lives = {life["id"]: life for life in story["lives"]}
        mine = {each for life in story["lives"] for each in life["migrations"]}
        others = {each["id"]: each for each in story["others"]}
        for said in await self.ask_all(call, f"/vmms/{story['lives'][0]['instance']}/story"):
            told = said.json() if said.good else {"lives": (), "others": ()}
            for life in told["lives"]:
                kept = lives if mine.intersection(life["migrations"]) else others
                kept.setdefault(life["id"], life)
            others |= {each["id"]: each for each in told["others"]}
        by_time = sorted(lives.values(), key=lambda life: int(life["events"][0]["at_us"]) if life["events"] else 0)
        rest = [{key: each[key] for key in BRIEF} for key, each in others.items() if key not in lives]
        return Said(200, own.kind, json.dumps(story | {"lives": by_time, "others": rest}).encode())

    async def _first(self, call: Call[Any], enough: Callable[[Said], bool]) -> Said:
        """Of all that are asked whoever answers so first; else the last answer. Nobody waits for one that hangs."""
        asked = [asyncio.create_task(self.ask(each, call)) for each in self._workers.all]
        try:
            last = not_there(*self._workers.all)
            for each in asyncio.as_completed(asked):
                last = await each
                if enough(last):
                    break
            return last
        finally:
            for task in asked:
                task.cancel()

    # ---- the feed

    async def _events(self, call: Call[Any]) -> web.StreamResponse:
        """As a daemon's own `GET /events`, in one order with one count."""
        if self._feed is None:
            assert self._http is not None, "we are serving"
            self._feed = EventFeed(self._http, self._workers)
        await self._feed.begun.wait()
        request, follow, resumed = call.request, call.flag("follow"), call.number("last-event-id")
        sse = "text/event-stream" in request.headers.get("accept", "")
        last = resumed if resumed >= 0 else call.number("after")
        streams(request)
        response = web.StreamResponse(headers={"cache-control": "no-store"})
        response.content_type = "text/event-stream" if sse else "application/jsonl"
        await response.prepare(request)
        while True:
            found = self._feed.after(last)
            for last, rest in found:
                text = b'{"number": %d, %b' % (last, rest)
                await response.write(b"id: %d\ndata: %b\n\n" % (last, text) if sse else text + b"\n")
            if found:
                continue
            if not follow:
                break
            await self._feed.change(KEEP_ALIVE_S)
            if sse and last == self._feed.number:
                await response.write(b": still here\n\n")
        await response.write_eof()
        return response

    # ---- the live page

    async def _page_feed(self, call: Call[Any]) -> web.StreamResponse:
        """The parts of all workers as one rack. It has no ids: whoever comes back gets everything, and so does the
        page if a worker has ended or begins anew. While one cannot be asked it is refused as lists are.
        """
        if away := [each for each in self._workers.all if each.why_not is not None]:
            return _told(not_there(*away))
        page_api.one_more(self._pages, PAGES_MAX)
        self._pages += 1
        try:
            async with contextlib.AsyncExitStack() as stack:
                return await page_api.stream(call, self._page_messages(stack, once=call.flag("once")))
        finally:
            self._pages -= 1

    async def _page_messages(self, stack: contextlib.AsyncExitStack, *, once: bool) -> AsyncGenerator[bytes]:
        found = await asyncio.gather(*(self._page_part(each, stack, once) for each in self._workers.all))
        begun = [each for each in found if each is not None]
        if len(begun) < len(found):
            return  # one is not there: the page asks again
        told = [foreign.loads(whole.data) for whole, _ in begun]
        yield page.message("whole", told[0] | {"counts": [each for whole in told for each in whole["counts"]]})
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(PARTS_WAIT)
        tasks = [asyncio.create_task(_pass_on(i, part, queue)) for i, (_, part) in enumerate(begun)]
        try:
            ended = 0
            while ended < (len(begun) if once else 1):
                message = await queue.get()
                if message is None:
                    ended += 1
                else:
                    yield message
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _page_part(
        self, worker: Worker, stack: contextlib.AsyncExitStack, once: bool
    ) -> tuple[page.Message, AsyncIterator[page.Message]] | None:
        """What a worker tells of its part: first the whole, then what changes. None: it is not there."""
        assert self._http is not None, "we are serving"
        if worker.ready is None:
            return None
        try:
            async with worker.pulse.answering():
                response = await stack.enter_async_context(
                    self._http.get(
                        f"http://{worker.ready.control}/page/feed{'?once=1' if once else ''}",
                        headers={"authorization": f"Bearer {worker.spec.token}"},
                        timeout=aiohttp.ClientTimeout(total=None),
                        read_bufsize=LINE_MAX,
                    )
                )
                messages = page.read_messages(response.content)
                whole = await anext(messages, None)
        except (aiohttp.ClientError, TimeoutError):
            return None
        return None if whole is None else (whole, messages)


async def _pass_on(part: int, messages: AsyncIterator[page.Message], queue: asyncio.Queue[bytes | None]) -> None:
    """Until the worker is gone or begins anew: None in the queue."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async for each in messages:
            if each.event == "whole":
                break
            data = foreign.loads(each.data)
            if each.event == "frame":
                data["part"] = part
                data.pop("pace", None)  # nobody stops the time of several processes
            await queue.put(page.message(each.event, data))
    await queue.put(None)


# ---- answers made one


def _at(control: str, target: str) -> URL:
    """That target of a worker: to the letter, since a name may look like a way up (`%2e%2e`)."""
    path, query = split_target(target)
    return URL(f"http://{control}{path}?{query}" if query else f"http://{control}{path}", encoded=True)


def _headers(worker: Worker, request: web.BaseRequest) -> dict[str, str]:
    kept = {name: request.headers[name] for name in ("content-type", "accept") if name in request.headers}
    return kept | {"authorization": f"Bearer {worker.spec.token}"}


def _waits(call: Call[Any]) -> bool:
    """Whether the answer is to come once something is so (`expect`)."""
    return "within_ms" in call.values


def _told(said: Said) -> web.Response:
    return web.Response(status=said.status, body=said.body, content_type=said.kind)


def _best(said: list[Said]) -> Said:
    """Of several that were asked to do the same."""
    return next((each for each in said if each.good), min(said, key=lambda each: each.status))


def _knows(nobody: Said) -> int:
    """How much a worker knows of a VMM that nobody has: that it was asked for it, or who there is."""
    said = nobody.body.decode(errors="replace")
    return 2 if NOT_TAKEN in said else 0 if NONE_YET in said else 1


def _nearness(seen: dict[str, Any]) -> tuple[bool, str]:
    return (False, seen["since"]) if seen.get("gone") else (True, seen["registered_at"])


def _listed(found: list[Said]) -> str:
    them = ", ".join(f"{each.json().get('propolis_id')}" for each in found if each.good)
    return f"several VMMs are called so: {them}"


def _ready(said: list[Said]) -> web.Response:
    answers = [each.json() for each in said]
    ready = all(each.good for each in said)
    waiting = [one for each in answers for one in each.get("not_registered", ())]
    answer: dict[str, Any] = {"ready": ready, "not_registered": waiting, "handed_over": True}
    if not ready:
        answer["message"] = next(each["message"] for each in answers if "message" in each)
    return web.json_response(answer, status=200 if ready else 503)


def _added_up(answers: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each rule once, in the order of the file, with the counters of all."""
    rules: dict[str, dict[str, Any]] = {}
    for row in (row for rows in answers for row in rows):
        known = rules.setdefault(row["name"], row | {"matched": 0, "fired": 0})
        known["matched"] += row["matched"]
        known["fired"] += row["fired"]
    return list(rules.values())


def sums(texts: list[str]) -> str:
    """Prometheus texts as one: the values of a series with the same labels are added up, and what belongs to one
    metric stays together, as the format demands.
    """
    metrics: dict[str, dict[str, float | None]] = {}
    for text in texts:
        of = metrics.setdefault("", {})
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                of = metrics.setdefault(line.split(" ")[2], {})
            series, _, value = line.rpartition(" ")
            if line.startswith("#") or not series:
                of.setdefault(line, None)
            elif series.partition("{")[0] in _SAME:
                of[series] = max(of.get(series) or 0.0, float(value))
            else:
                of[series] = (of.get(series) or 0.0) + float(value)
    return "".join(
        f"{series}\n" if value is None else f"{series} {_exact(value)}\n"
        for of in metrics.values()
        for series, value in of.items()
        if series
    )


_SAME: Final = frozenset({"process_start_time_seconds", "process_max_fds", "target_info"})
"""Of processes that are alike: a sum would mean nothing, and what is multiplied by `target_info`, as OpenTelemetry's
queries do for its labels, would be as many times too much as there are workers."""


def _exact(value: float) -> str:
    """A counter of millions has all its digits."""
    return str(int(value)) if value.is_integer() else repr(value)
