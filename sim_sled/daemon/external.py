"""`nexus.external`: users and `instance:` expectations of a scenario against the public API of a real Nexus.

The rest of the product looks at records of the model of Nexus. Here they are a mirror: every second the instances are
asked for (`GET /v1/instances`), and what users see of each becomes the rows that show the same by the table of NX 2.
What users of the scenario do (`ask`) becomes a request of that API, made once, as a user would; its answer comes back
as the model's. States that pass between two looks are not seen.

The public API has no migration (an operator's, since omicron#6311) and its silo is the token's.

Read before: play/users.py. Read next: daemon/judging.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid5

import attrs
import msgspec
from msgspec.structs import replace

from nexus_client.dropshot.text import shown
from nexus_client.stub import contract as nx
from nexus_client.stub.config import Config
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.records import Instance, InstanceDbState, IntendedState, Row, Vmm, VmmDbState
from sim_sled import logs
from sim_sled.language.files import TooLong, read_bounded
from sim_sled.play.stage import Answered

if TYPE_CHECKING:
    import aiohttp

    from sim_sled.daemon.daemon import Daemon
    from sim_sled.engine.cast import Subject
    from sim_sled.language.schema import Scenario

LOOK_S: Final = 1.0
"""Between two looks at all instances."""
TIMEOUT_S: Final = 60.0
"""For one request: as long as Nexus itself waits for a sled on a user's behalf."""
BODY_MAX: Final = 4 * 1024 * 1024
"""Of one answer: a page of a hundred instances is some 150 KiB."""
PAGE: Final = 100
PAGES_MAX: Final = 1_000
"""A hundred thousand instances of one project; more, and the look is told to be cut short."""
AT_ONCE: Final = 16
"""Requests under way."""
RETRY_MAX_S: Final = 60.0
"""Longest pause that a 429 or 503 can ask for."""
TOKEN_MAX: Final = 4_096

_ROWS: Final = {
    "creating": (InstanceDbState.CREATING, None),
    "starting": (InstanceDbState.VMM, VmmDbState.STARTING),
    "running": (InstanceDbState.VMM, VmmDbState.RUNNING),
    "stopping": (InstanceDbState.VMM, VmmDbState.STOPPING),
    "rebooting": (InstanceDbState.VMM, VmmDbState.REBOOTING),
    "migrating": (InstanceDbState.VMM, VmmDbState.MIGRATING),
    "stopped": (InstanceDbState.NO_VMM, None),
    "failed": (InstanceDbState.FAILED, None),
}
"""Rows that show each public state at HEAD (NX 2)."""


class _Page(msgspec.Struct):
    items: list[_Seen]
    next_page: str | None = None


class _Seen(msgspec.Struct):
    """What is looked at of the public view of an instance."""

    id: UUID
    name: str
    hostname: str
    project_id: UUID
    run_state: str
    ncpus: int
    memory: int


class _Project(msgspec.Struct):
    id: UUID


class _Error(msgspec.Struct):
    message: str
    error_code: str | None = None


_T = TypeVar("_T")
_PROJECT: Final = msgspec.json.Decoder(_Project)
_PAGE: Final = msgspec.json.Decoder(_Page)
_SEEN: Final = msgspec.json.Decoder(_Seen)
_ERROR: Final = msgspec.json.Decoder(_Error)


class TokenUnreadable(ValueError):
    """The file of the token cannot be used; the text says why."""


def token_in(path: Path) -> str:
    """The first line of the file. Raises `TokenUnreadable`."""
    try:
        lines = read_bounded(path, TOKEN_MAX, regular=True).decode("ascii").split()
    except OSError as err:
        raise TokenUnreadable(f"the token file {path} cannot be read: {err.strerror or err}") from None
    except (TooLong, UnicodeDecodeError):
        raise TokenUnreadable(f"the token file {path} holds no token: it is too long, or no text") from None
    if len(lines) != 1:
        raise TokenUnreadable(f"the token file {path} must hold one token and nothing else")
    return lines[0]


@attrs.frozen
class Told:
    """An answer, or why there is none (`status` 0)."""

    status: int
    body: bytes = b""
    why: str = ""
    retry_s: float = 0.0

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


def sentence(told: Told, url: str) -> str:
    """What went wrong, for the person who wrote the scenario."""
    said = shown(_error_in(told).message)[:200]
    match told.status:
        case 0:
            return f"the public API at {url} cannot be asked: {told.why}"
        case 401:
            return f"the public API at {url} does not know the token of `token_file` (401): {said}"
        case 403:
            return f"the public API at {url} allows this token's user not to do it (403): {said}"
        case 429:
            return f"the public API at {url} is asked too often (429); it is asked again after a pause: {said}"
        case status if status >= 500:
            return f"the public API at {url} is in trouble ({status}); it is asked again: {said}"
    return f"the public API at {url} answers {told.status}: {said}"


_NOT_THEIRS: Final = Told(400, b'{"message": "it is in none of the projects of this scenario, and left alone"}')


@attrs.define(eq=False)
class External:
    """One real Nexus. `moved` is told each instance whose public state has changed; `subjects` are the VMMs here."""

    url: str
    token: str | None
    mirror: Nexus
    subjects: Callable[[], Iterable[Subject]]
    moved: Callable[[UUID], None] = attrs.field(default=lambda _: None)
    named: Callable[[UUID, str], None] = attrs.field(default=lambda _id, _name: None)
    """Is told the name of each project that users have, before there is an instance in it."""
    projects: dict[str, UUID | None] = attrs.field(factory=dict)
    """Projects that users of the scenario have; None: not made sure of yet."""
    _intended: dict[UUID, IntendedState] = attrs.field(factory=dict)
    _theirs: set[UUID] = attrs.field(factory=set)
    """Instances of those projects: whatever else our sleds run is looked at and left alone."""
    _session: aiohttp.ClientSession | None = None
    _asking: set[asyncio.Task[None]] = attrs.field(factory=set)
    _trouble: str = ""
    _soon: asyncio.Event = attrs.field(factory=asyncio.Event)
    _ordinal: int = 0

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        import aiohttp  # noqa: PLC0415 -- only who has a public API to ask needs it

        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
            self._session = session
            try:
                while True:
                    pause_s = await self.look()
                    self._soon.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await self._soon.wait()
            finally:
                self._session = None
                for task in self._asking:
                    task.cancel()
                await asyncio.gather(*self._asking, return_exceptions=True)

    # ---- looking

    async def look(self) -> float:
        """One look at everything; returns how long to wait until the next."""
        seen: dict[UUID, _Seen] = {}
        for project in list(self.projects):
            told = await self._list(project, seen)
            if told is not None:
                return self._in_trouble(told)
        listed = set(seen)
        self._theirs = set(seen)
        here = {who.instance_id for who in self.subjects() if not who.gone}
        known = {row.id for row in self.mirror.instances()}
        gone: list[UUID] = []
        for instance_id in sorted((here | known) - listed, key=str):
            told = await self._request("GET", f"/v1/instances/{instance_id}")
            if told.status == 404:
                gone.append(instance_id)
                continue
            one = _read(_SEEN, told)
            if one is None:
                return self._in_trouble(told)
            if one.id != instance_id:
                return self._in_trouble(Told(0, why="asked for one instance, it tells of another"))
            seen[instance_id] = one
        if self._trouble:
            self._trouble = ""
            logs.get("external").info("the public API answers", url=self.url)
        for one in seen.values():
            self._mirror(one)
        for instance_id in gone:
            self._mirror_gone(instance_id)
        return LOOK_S

    async def _list(self, project: str, seen: dict[UUID, _Seen]) -> Told | None:
        """All pages; what went wrong, or None. A project that is not there yet has no instances."""
        wrong = await self._find_project(project)
        if wrong is not None:
            return None if wrong.status == 404 else wrong
        query = f"project={quote(project, safe='')}"
        for _ in range(PAGES_MAX):
            told = await self._request("GET", f"/v1/instances?limit={PAGE}&{query}")
            if told.status == 404:
                return None
            page = _read(_PAGE, told)
            if page is None:
                return told
            if any(one.project_id != self.projects[project] for one in page.items):
                # whoever forgets the parameter lists everybody's: none of those may be taken for ours
                return Told(0, why=f"asked for instances of project {project}, it lists those of another")
            seen.update((one.id, one) for one in page.items)
            if page.next_page is None or not page.items:
                return None
            query = f"page_token={quote(page.next_page, safe='')}"
        return Told(0, why=f"project {project} has more than {PAGES_MAX} pages of instances")

    def _in_trouble(self, told: Told) -> float:
        """Said once per cause."""
        text = (
            f"the public API at {self.url} answers what is not in its document"
            if told.good
            else sentence(told, self.url)
        )
        if text != self._trouble:
            self._trouble = text
            logs.get("external").warning(text)
        return min(RETRY_MAX_S, max(LOOK_S, told.retry_s))

    def _mirror(self, seen: _Seen) -> None:
        rows = _ROWS.get(seen.run_state)
        if rows is None:  # `repairing` is never produced, `destroyed` never shown (NX 1.1)
            return
        state, vmm_state = rows
        old = self.mirror.records.instances.get(seen.id)
        vmm = None if vmm_state is None else self._vmm(seen, vmm_state)
        now_us = 0 if old is None else old.time_state_updated + 1
        if old is None:
            self._ordinal += 1
        row = Instance(
            id=seen.id,
            ordinal=self._ordinal if old is None else old.ordinal,
            name=seen.name,
            description="",
            hostname=seen.hostname,
            ncpus=seen.ncpus,
            memory=seen.memory,
            project_id=seen.project_id,
            silo_id=UUID(int=0),
            time_created=0,
            time_state_updated=now_us,
            state=state,
            active_propolis_id=None if vmm is None else vmm.id,
            intended_state=self._intended.get(seen.id, IntendedState.RUNNING),
        )
        same = old is not None and replace(row, time_state_updated=old.time_state_updated) == old
        if same and (vmm is None or self.mirror.records.vmms.get(vmm.id) == vmm):
            return
        self._put([row] if vmm is None else [vmm, row])
        self.moved(seen.id)

    def _vmm(self, seen: _Seen, state: VmmDbState) -> Vmm:
        """The VMM that shows this state: the newest of ours, if one of our sleds runs it."""
        ours = [who for who in self.subjects() if who.instance_id == seen.id and not who.gone]
        newest = max(ours, key=lambda who: who.ordinal, default=None)
        return Vmm(
            id=uuid5(NAMESPACE_URL, f"{seen.id}/elsewhere") if newest is None else newest.propolis_id,
            instance_id=seen.id,
            sled_id=UUID(int=0) if newest is None else newest.sled.id,
            propolis_ip="::",
            state=state,
            time_created=0,
            time_state_updated=0,
        )

    def _mirror_gone(self, instance_id: UUID) -> None:
        old = self.mirror.records.instances.get(instance_id)
        if old is not None and old.time_deleted is None:
            self._put([replace(old, state=InstanceDbState.DESTROYED, active_propolis_id=None, time_deleted=1)])
            self.moved(instance_id)

    def _put(self, rows: list[Row]) -> None:
        self.mirror.restore(rows, [], {})

    # ---- what users do

    def ask(self, make: Callable[[int], Any], answered: Answered) -> None:
        """A user's input of the model, as a request of the public API. Call it in the event loop."""
        task = asyncio.get_running_loop().create_task(self._do(make(0), answered))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    @property
    def busy(self) -> bool:
        """Whether a user waits for an answer."""
        return bool(self._asking)

    async def _do(self, item: Any, answered: Answered) -> None:
        told = await self._carry_out(item)
        if told.status == 0:
            answered(nx.Dropped(0))
        elif told.good:
            answered(nx.Reply(0, told.status))
        else:
            error = _error_in(told)
            answered(nx.Reply(0, told.status, nx.ErrorBody(error.error_code, error.message)))
        if told.status in (0, 401, 403, 429) or told.status >= 500:
            self._in_trouble(told)
        self._soon.set()

    async def _carry_out(self, item: Any) -> Told:
        match item:
            case nx.CreateInstance():
                return await self._create(item)
            case nx.Start() | nx.Stop() | nx.Reboot():
                verb = {nx.Start: "start", nx.Stop: "stop", nx.Reboot: "reboot"}[type(item)]
                stops = isinstance(item, nx.Stop)
                if item.instance_id not in self._theirs:
                    return _NOT_THEIRS
                self._intended[item.instance_id] = IntendedState.STOPPED if stops else IntendedState.RUNNING
                return await self._request("POST", f"/v1/instances/{item.instance_id}/{verb}")
            case nx.Delete():
                if item.instance_id not in self._theirs:
                    return _NOT_THEIRS
                return await self._request("DELETE", f"/v1/instances/{item.instance_id}")
        return Told(400, b'{"message": "the public API has no such operation (an operator\'s, since omicron#6311)"}')

    async def _create(self, item: nx.CreateInstance) -> Told:
        made = await self._project(item.project)
        if made is not None:
            return made
        body = {
            "name": item.name,
            "description": item.description or "made by sim-sled",
            "hostname": item.hostname,
            "ncpus": item.ncpus,
            "memory": item.memory,
            "start": item.start,
            # the default is an interface in the project's default VPC, with an address of a pool: there may be none
            "network_interfaces": {"type": "none"},
        }
        if item.auto_restart_policy is not None:
            body["auto_restart_policy"] = item.auto_restart_policy
        return await self._request("POST", f"/v1/instances?project={quote(item.project, safe='')}", body)

    async def _project(self, name: str) -> Told | None:
        """Make sure that there is one; what went wrong, or None."""
        wrong = await self._find_project(name)
        if wrong is None or wrong.status != 404:
            return wrong
        told = await self._request("POST", "/v1/projects", {"name": name, "description": "made by sim-sled"})
        if told.status == 400 and b"ObjectAlreadyExists" in told.body:  # somebody was quicker
            return await self._find_project(name)
        return self._learn_project(name, told)

    async def _find_project(self, name: str) -> Told | None:
        """Know its id; what went wrong, or None."""
        if self.projects.get(name) is not None:
            return None
        return self._learn_project(name, await self._request("GET", f"/v1/projects/{quote(name, safe='')}"))

    def _learn_project(self, name: str, told: Told) -> Told | None:
        if not told.good:
            return told
        project = _decoded(_PROJECT, told.body)
        if project is None:
            return Told(0, why="its answer about a project is not in its document")
        self.projects[name] = project.id
        self.named(project.id, name)
        return None

    async def _request(self, method: str, path: str, body: Any = None) -> Told:
        """One request; a body of more than `BODY_MAX` bytes, a redirection and silence are no answers."""
        import aiohttp  # noqa: PLC0415 -- as in `run`

        if self._session is None:
            return Told(0, why="not connected")
        try:
            async with self._session.request(
                method, self.url.rstrip("/") + path, json=body, allow_redirects=False
            ) as answer:
                read = await answer.content.read(BODY_MAX + 1)
                while len(read) <= BODY_MAX and (more := await answer.content.read(BODY_MAX + 1 - len(read))):
                    read += more
                if len(read) > BODY_MAX:
                    return Told(0, why=f"its answer is longer than {BODY_MAX} bytes")
                return Told(answer.status, read, retry_s=_seconds(answer.headers.get("retry-after", "")))
        except TimeoutError:
            return Told(0, why=f"no answer within {TIMEOUT_S:.0f} s")
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
            return Told(0, why=shown(str(error) or type(error).__name__)[:200])


def external_of(daemon: Daemon, scenario: Scenario, folder: Path) -> External:
    """The Nexus that a scenario in this folder names. Raises `TokenUnreadable`."""
    assert scenario.nexus.external is not None, "asked for"
    token_file = scenario.nexus.token_file
    token = None if token_file is None else token_in(folder / token_file)
    projects = {load.create.project or "default" for load in scenario.load if load.create is not None}
    if any(load.churn is not None for load in scenario.load):
        projects.add("default")
    return External(
        scenario.nexus.external,
        token,
        Nexus(Config(), seed=daemon.options.seed),
        lambda: list(daemon.engine.cast.subjects.values()),
        projects=dict.fromkeys(sorted(projects)),
    )


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0


def _read(decoder: msgspec.json.Decoder[_T], told: Told) -> _T | None:
    """The value of a good answer; None: it is none."""
    return _decoded(decoder, told.body) if told.status == 200 else None


def _error_in(told: Told) -> _Error:
    return _decoded(_ERROR, told.body) or _Error("no error body that could be read")


def _decoded(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T | None:
    """None: not in its document, whatever else it is; also a thousand brackets, which no decoder follows."""
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors
        return None
