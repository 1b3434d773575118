"""A rack whose sleds are spread over processes: one that watches, and workers that each have some of the sleds.

    parent ---- spec, stdin, signals ----> worker (daemon/worker.py): a daemon with its part of the sleds
       ^-- one line when ready, beats ----'

One process has one core's worth of turns. Sleds do not know of each other, so they can be anywhere; what two of them
have to do with each other, a migration, goes over their Propolis servers. A worker that dies is started again: its
sleds come back at the same addresses without their VMMs, as agents do after a crash, and Nexus finds out. One that
hangs is killed, and so dies, too.

Read before: daemon/pulse.py, daemon/worker.py. Read next: daemon/event_feed.py, daemon/front.py, cli/up.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

import attrs
import msgspec

from nexus_client.dropshot.command_line import ADDRESS_IN_USE
from nexus_client.stub.server.serve import NexusServer
from sim_sled import logs
from sim_sled.daemon.daemon import Undelivered
from sim_sled.daemon.pulse import BEAT, BEAT_S, HUNG_S, SILENT_S, Pulse, is_debugged
from sim_sled.daemon.serve import BadScenario, load_again
from sim_sled.daemon.small_rack import RackError, SledHandle, SmallRack, handle_of, model_of_rack
from sim_sled.daemon.worker import Ready, Spec

WORKERS_MAX: Final = 256
"""More than any machine has cores."""
END_S: Final = 20.0
"""How long a worker may take to end; it tries for 5 s to tell Nexus what is left."""
PAUSES_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
"""Before a worker is started again, by how often in turn it has died without being ready; the last is repeated."""
_LINE_MAX: Final = 4 * 1024 * 1024
"""Bytes of a worker's line: 20,000 addresses have half of it."""


def parts(sleds: int, workers: int) -> list[tuple[int, int]]:
    """(first number, count) of each worker's sleds: in order, and as even as can be."""
    share, more = divmod(sleds, workers)
    found, first = [], 1
    for number in range(workers):
        count = share + (number < more)
        found.append((first, count))
        first += count
    return found


class AddressTaken(OSError):
    """Somebody else has an address of a worker's sleds by now."""


@attrs.define(eq=False)
class Worker:
    """One of them. `ready` None: it is on its way, or again."""

    spec: Spec
    process: asyncio.subprocess.Process | None = None
    ready: Ready | None = None
    addresses: list[str] = attrs.field(factory=list)
    """Where its sleds are, and will be again when it has died."""
    deaths: int = 0
    """In turn, without having been ready in between."""
    hung_s: int | None = HUNG_S
    """After so many seconds of silence it is killed. None: never."""
    pulse: Pulse = attrs.field(factory=Pulse)
    beats: asyncio.Task[None] | None = None
    """Of one that is ready: until it says nothing any more."""

    @property
    def sleds(self) -> str:
        """Which it has."""
        first, count = self.spec.first, self.spec.count
        return f"sled-{first}" if count == 1 else f"sled-{first} to sled-{first + count - 1}"

    @property
    def why_not(self) -> str | None:
        """Why it cannot be asked, in a sentence; None if it can be."""
        if self.ready is None:
            why = "a worker that has ended is started again; try again in some seconds"
        elif self.pulse.is_silent:
            pid = "" if self.process is None else f" (process {self.process.pid})"
            then = "is left alone" if self.hung_s is None else f"is killed and started again after {self.hung_s} s"
            why = f"the worker{pid} has not answered for {self.pulse.silent_s} s, and {then}"
        else:
            return None
        return f"{self.sleds} cannot be asked: {why}"

    async def said(self) -> bytes:
        """The next line of its process that is no beat; not a whole one when it has ended."""
        assert self.process is not None, "somebody has started it"
        assert self.process.stdout is not None, "asked for"
        while (line := await self.process.stdout.readline()) == BEAT:
            self.pulse.heard()
        return line

    async def says_ready(self) -> Ready | None:
        """What it says when it is; None if it ends before. Whatever else is printed there, as by somebody's
        `sitecustomize`, is not for us.
        """
        while (line := await self.said()).endswith(b"\n"):
            with contextlib.suppress(msgspec.DecodeError):
                return msgspec.json.decode(line, type=Ready)
        return None

    async def ended(self) -> None:
        """Until it says nothing any more."""
        while await self.said():
            pass


class Workers:
    """All workers of a rack. `changed` is called when one becomes ready again, and so has another control address;
    `told`, with a sentence, when one falls silent, dies or is back. `hung_s`: see `Worker`.
    """

    def __init__(
        self, specs: list[Spec], changed: Callable[[], None] = lambda: None, hung_s: int | None = HUNG_S
    ) -> None:
        self.all: Final = [Worker(spec, hung_s=hung_s) for spec in specs]
        self.changed = changed
        self.told: Callable[[str], None] = lambda _: None
        self._log = logs.get("workers")
        self._watching: list[asyncio.Task[None]] = []
        self._ending = False
        self._rules: str | None = None
        self._revision = 1
        self._by_file = True

    @classmethod
    def of(cls, spec: Spec, workers: int, hung_s: int | None = HUNG_S) -> Self:
        """`spec` with its sleds shared out. Each worker has a token of its own, which only this process knows."""
        return cls(
            [
                msgspec.structs.replace(spec, first=first, count=count, token=secrets.token_urlsafe(24))
                for first, count in parts(spec.sleds, workers)
            ],
            hung_s=hung_s,
        )

    async def start(self) -> None:
        """Returns when all are ready. Raises `RackError` if one cannot be.

        There is no limit of its own: each worker gives up by itself when nothing goes on any more
        (`small_rack.READY_S`), and ten thousand sleds on a busy machine may take as long as they need.
        """
        self._watching = [asyncio.create_task(self._count_seconds())]
        try:
            started = await asyncio.gather(*(self._start(each) for each in self.all), return_exceptions=True)
        except asyncio.CancelledError:  # somebody has asked for the end meanwhile
            await self.stop()
            raise
        failed = [each for each in started if isinstance(each, BaseException)]
        if failed:
            await self.stop()
            raise failed[0]
        self._watching += [asyncio.create_task(self._keep(each)) for each in self.all]

    async def _start(self, worker: Worker) -> None:
        worker.ready, worker.pulse = None, Pulse()
        worker.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sim_sled.daemon.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_MAX,
            # Ctrl-C reaches all of a terminal's group, and this process decides: a worker that is still importing
            # would answer it with a traceback. It ends with its parent, whose end of stdin closes.
            start_new_session=True,
        )
        assert worker.process.stdin is not None, "asked for"
        spec = msgspec.structs.replace(
            worker.spec,
            rules=self._rules,
            revision=self._revision,
            by_file=self._by_file,
            addresses=worker.addresses,
            again=worker.deaths > 0,
        )
        worker.process.stdin.write(msgspec.json.encode(spec) + b"\n")
        ready = await worker.says_ready()
        if ready is None:
            code = await worker.process.wait()
            which = f"a worker (sleds {worker.spec.first} and on)"
            if code == ADDRESS_IN_USE:
                raise AddressTaken(errno.EADDRNOTAVAIL, f"{which} could not listen")
            raise RackError(f"{which} has ended with {code} before it was ready")
        if spec.revision != self._revision:  # other rules have come meanwhile, of which it has not heard
            worker.process.kill()
            await worker.process.wait()
            await self._start(worker)
            return
        worker.ready = ready
        worker.addresses = ready.addresses
        worker.deaths = 0
        worker.beats = asyncio.create_task(worker.ended())

    async def _keep(self, worker: Worker) -> None:
        """Starts it again as often as it dies."""
        while True:
            if worker.process is not None and worker.beats is not None:
                await worker.beats
                code = await worker.process.wait()
                if self._ending:
                    return
                worker.ready = None
                self._log.error("a worker has died, its sleds come back", first=worker.spec.first, code=code)
                self.told(f"the worker of {worker.sleds} has ended with {code}; they come back without their VMMs")
            await asyncio.sleep(PAUSES_S[min(worker.deaths, len(PAUSES_S) - 1)])
            if self._ending:  # it was on its way up
                return
            worker.deaths += 1
            try:
                await self._start(worker)
            except (RackError, OSError) as error:
                worker.process = None
                if isinstance(error, AddressTaken):  # Nexus can be told of others
                    worker.addresses = []
                self._log.warning("a worker cannot be started", first=worker.spec.first, why=str(error))
            else:
                self._log.warning("a worker is back", first=worker.spec.first)
                self.told(f"the worker of {worker.sleds} is back")
                self.changed()

    async def _count_seconds(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self.second()

    def second(self) -> None:
        """One has gone by: who has said nothing for too long is killed, on its way up as well."""
        for each in self.all:
            process = each.process
            if process is None or process.returncode is not None:
                continue
            each.pulse.second()
            # one on its way up has much to do at once, and nobody waits for it yet
            if each.ready is not None and each.pulse.silent_s == SILENT_S and each.why_not is not None:
                self._log.warning("a worker does not answer", first=each.spec.first, worker=process.pid)
                self.told(each.why_not)
            if each.hung_s is not None and each.pulse.silent_s >= each.hung_s and not is_debugged(process.pid):
                self._log.error("a worker hangs, it is killed", first=each.spec.first, worker=process.pid)
                self.signal(signal.SIGKILL, [each])

    @property
    def addresses(self) -> list[str]:
        """Of all sleds, in order. A worker that is coming back takes the addresses it had."""
        return [address for each in self.all if each.ready is not None for address in each.ready.addresses]

    def signal(self, number: signal.Signals, to: Sequence[Worker] | None = None) -> None:
        """To each one that runs; of these, if given."""
        for each in self.all if to is None else to:
            if each.process is not None and each.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    each.process.send_signal(number)

    def given(self, rules: str, *, by_file: bool = False) -> None:
        """Other rules are in effect: a worker that starts again starts with them."""
        self._rules = rules
        self._by_file = by_file
        self._revision += 1

    def read_again(self, file: Path) -> None:
        """Every worker reads the file for itself; if it is bad, the rules stay, and they say so. One that is not
        ready would die of the signal, and is started with what is in effect by then.
        """
        with contextlib.suppress(BadScenario):
            self.given(_says(file), by_file=True)
        self.signal(signal.SIGHUP, [each for each in self.all if each.ready is not None])

    async def stop(self) -> None:
        """End all; one that does not within `END_S` is killed."""
        self._ending = True
        self.signal(signal.SIGTERM)
        running = [each.process for each in self.all if each.process is not None]
        try:
            async with asyncio.timeout(END_S):
                await asyncio.gather(*(process.wait() for process in running))
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await asyncio.gather(*(process.wait() for process in running))
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)


def _says(file: Path) -> str:
    """What a scenario file says by now, with all that it includes, as one text. Raises `BadScenario`."""
    from sim_sled.language.printing import print_scenario  # noqa: PLC0415 -- most racks play none

    return print_scenario(load_again(file))


@attrs.define(eq=False)
class WorkersRack:
    """A rack of several processes: the workers and, unless a Nexus is given, the model of Nexus in this one.

    `spec`: what holds for all of it; `nexus`, `first`, `count` and `token` are found out. Has the face of a
    `SmallRack` as far as `sim-sled up` looks at it.
    """

    shared_out: ClassVar = True
    spec: Spec
    count: int
    nexus: str | None = None
    hung_s: int | None = HUNG_S
    names: Sequence[str] = attrs.field(
        default=attrs.Factory(lambda self: SmallRack(sleds=self.spec.sleds).names, takes_self=True)
    )
    """Of the sleds, as rules know them."""
    server: NexusServer | None = attrs.field(default=None, init=False)
    workers: Workers = attrs.field(init=False)
    left_over: list[Undelivered] = attrs.field(factory=list, init=False)
    """A worker tells its own."""

    def __attrs_post_init__(self) -> None:
        most = min(WORKERS_MAX, self.spec.sleds)
        if not 1 <= self.count <= most:
            raise RackError(f"a rack of {self.spec.sleds:,} sleds has 1 to {most} workers, not {self.count}")

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def sleds_wanted(self) -> int:
        """Of one process, the most: each may have as many open files as this one."""
        return max(count for _, count in parts(self.spec.sleds, self.count))

    @property
    def handles(self) -> list[SledHandle]:
        """Every sled whose worker is there."""
        return [
            handle_of(self.name, number, address, self.names[number - 1])
            for worker in self.workers.all
            if worker.ready is not None
            for number, address in enumerate(worker.ready.addresses, worker.spec.first)
        ]

    async def start(self) -> None:
        """Everything listens and every sled is registered. Raises OSError, `RackError`, `BadScenario`."""
        # a worker that starts again later gets this and not the file, which somebody may be editing
        made_by = None if self.spec.scenario is None else _says(Path(self.spec.scenario))
        if self.nexus is None:
            self.server = NexusServer(config=model_of_rack(self.name), seed=self.spec.seed)
            await self.server.__aenter__()
            self.nexus = self.server.internal
        spec = msgspec.structs.replace(self.spec, nexus=self.nexus, made_by=made_by)
        self.workers = Workers.of(spec, self.count, self.hung_s)
        try:
            await self.workers.start()
        except BaseException:
            await self._stop_model()
            raise

    async def stop(self) -> None:
        """Ends the workers, then the model."""
        await self.workers.stop()
        await self._stop_model()

    async def _stop_model(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.__aexit__()
