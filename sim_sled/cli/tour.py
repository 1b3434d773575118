"""`make run`: a tour a person can watch. Two sled daemons and the model of Nexus, as processes on loopback sockets.

The tour is a client like any other: it talks to the control APIs of the three processes and to nothing else. It ends
with 0 only if the Nexus model and the sleds agree on how everything ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from nexus_client.dropshot import foreign
from nexus_client.dropshot.telling import fitted
from nexus_client.dropshot.text import shown
from sim_sled.machine import NO_IPV6, has_ipv6

POLL_S: Final = 0.1
"""Between two looks at the processes: public states of the tour last longer than this."""

STEP_S: Final = 15.0
"""Any single wish of the tour; all of it takes about ten seconds."""

NEXUS_AWAY_MS: Final = 1_500

_WISHES: Final = ("web", "db", "cache")


class TourError(Exception):
    """Something did not become what it had to."""


class Tour:
    """The three processes, what they say, and what is shown of it."""

    nexus_words: tuple[str, ...] = ("[::1]:0", "--unknown-vmm", "rules")
    """What the model of Nexus is started with."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.folder = Path()
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.control: dict[str, str] = {}
        self.sled_ids: dict[str, str] = {}
        self.http: aiohttp.ClientSession
        self.instances: dict[str, dict[str, Any]] = {}
        self.vmms: dict[str, dict[str, Any]] = {}
        self.nexus_up = True
        self.said: dict[str, str] = {}
        self.story: list[str] = []

    # --- processes --------------------------------------------------------------------------------------------------

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start the model of Nexus, then two sleds; returns when both are registered."""
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sim-sled-tour-")))
        self.http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)))
        nexus = await self.spawn(stack, "nexus", "nexus", *self.nexus_words)
        self.control["nexus"] = nexus["control"]
        starting = []
        for name in ("sled-a", "sled-b"):
            self.sled_ids[name] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"tour/{name}"))
            starting.append(
                self.spawn(
                    stack,
                    name,
                    "serve",
                    self.sled_ids[name],
                    "[::1]:0",
                    nexus["address"],
                    "--pace",
                    "fast",
                    "--propolis",
                    "registered",
                )
            )
        for name, ports in zip(("sled-a", "sled-b"), await asyncio.gather(*starting), strict=True):
            self.control[name] = ports["control"]
        for name in self.sled_ids:
            await self.until(f"{name} is registered", partial(self._ready, name))

    async def spawn(self, stack: contextlib.AsyncExitStack, name: str, *arguments: str) -> dict[str, Any]:
        """Start a process under this name; returns its addresses. TourError if it ends at once."""
        port_file = self.folder / f"{name}.json"
        log = (self.folder / f"{name}.log").open("wb")
        stack.callback(log.close)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sim_sled",
            *arguments,
            "--port-file",
            str(port_file),
            stdout=log,
            stderr=log,
            stdin=asyncio.subprocess.DEVNULL,
        )
        self.processes[name] = process
        stack.push_async_callback(_end, process)
        async with asyncio.timeout(STEP_S):
            while not port_file.exists():
                if process.returncode is not None:
                    raise TourError(f"{name} ended with {process.returncode}: {self.log(name)}")
                await asyncio.sleep(POLL_S / 2)
        ports: dict[str, Any] = foreign.loads(port_file.read_text(encoding="utf-8"))
        return ports

    def log(self, name: str) -> str:
        """The last lines that a process logged."""
        with contextlib.suppress(OSError):
            return "\n".join(
                (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
            )
        return ""

    # --- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, who: str, method: str, path: str, body: Any = None) -> Any:
        """One request to a control API. TourError if it is refused."""
        async with self.http.request(method, f"http://{self.control[who]}{path}", json=body) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise TourError(f"{who}: {method} {path}: {answer.status} {text.strip()}")
            return foreign.loads(text) if text.startswith(("{", "[")) else text

    async def _ready(self, sled: str) -> bool:
        async with self.http.get(f"http://{self.control[sled]}/ready") as answer:
            return answer.status == 200

    async def look(self) -> None:
        """Ask all three what they see, and show what is new."""
        with contextlib.suppress(aiohttp.ClientError, TourError, TimeoutError):
            state = await self.ask("nexus", "GET", "/v1/state")
            self.nexus_up = state["up"]
            if self.nexus_up:
                listed = await self.ask("nexus", "GET", "/v1/instances")
                self.instances = {each["name"]: each for each in listed["items"]}
        vmms: dict[str, dict[str, Any]] = {}
        for name in self.sled_ids:
            for each in await self.ask(name, "GET", "/vmms"):
                vmms[each["propolis_id"]] = each | {"sled": name}
        self.vmms = vmms
        if not self.live:
            self._lines()

    def _lines(self) -> None:
        for key, text in (
            [(f"instance {name}", str(each["run_state"])) for name, each in self.instances.items()]
            + [
                (f"VMM {key[:8]} of {each['hostname']} on {each['sled']}", _told(each))
                for key, each in self.vmms.items()
            ]
            + [("Nexus", "up" if self.nexus_up else "away")]
        ):
            if self.said.get(key) != text:
                self.said[key] = text
                self.console.print(f"  {key}: {text}", highlight=False)

    async def until(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        """Look again and again until `condition` holds. TourError if it does not within STEP_S."""
        try:
            async with asyncio.timeout(STEP_S):
                while not await condition():  # noqa: ASYNC110 -- another process has no event
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise TourError(f"it never happened that {what}") from None

    async def see(self, name: str, *states: str) -> None:
        """Wait until the public state of an instance is one of `states`."""

        async def there() -> bool:
            await self.look()
            return name in self.instances and self.instances[name]["run_state"] in states

        await self.until(f"{name} is {' or '.join(states)}", there)

    async def times(self, name: str, state: str) -> int:
        """How often users have seen this public state of an instance so far."""
        known = await self.ask("nexus", "GET", f"/v1/instances/{name}")
        return sum(line["what"] == "public" and line["text"] == state for line in known["timeline"])

    async def see_pass(self, name: str, state: str, before: int) -> None:
        """Wait until a public state was there once more: on a busy machine it may be over before anybody looks."""

        async def was() -> bool:
            await self.look()
            return await self.times(name, state) > before

        await self.until(f"{name} is {state}", was)

    def say(self, text: str) -> None:
        """The next scene."""
        self.story.append(text)
        if not self.live:
            self.console.print(f"* {text}", highlight=False)

    # --- what is shown ----------------------------------------------------------------------------------------------

    def __rich__(self) -> Table:
        frame = Table(box=None, show_header=False)
        frame.add_row("[bold]This is not Nexus[/bold]: a model of it, and two simulated sleds.")
        for text in self.story[-4:]:
            frame.add_row(f"[green]*[/green] {text}")
        # 80 columns, with the longest words of each
        names = ("instance", "public", "VMM", "sled", "published", "propolis", "acked")
        table = Table(*(Column(name, no_wrap=True) for name in names), box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for name, instance in self.instances.items():
            mine = [each for each in self.vmms.values() if each["hostname"] == name]
            if not mine:
                table.add_row(name, instance["run_state"], *["-"] * 5)
            for each in mine:
                table.add_row(
                    name,
                    instance["run_state"],
                    each["propolis_id"][:8],
                    each["sled"],
                    _told(each).replace(", migration", "\n", 1).replace(", migration", ","),
                    each["propolis"] or "-",
                    each["acked"] or "-",
                )
        frame.add_row(table)
        frame.add_row(f"Nexus is {'up' if self.nexus_up else '[red]away[/red]'}")
        return frame


def _told(vmm: dict[str, Any]) -> str:
    text = f"{vmm['state']} gen {vmm['gen']}"
    for side in ("migration_in", "migration_out"):
        if vmm[side] is not None:
            text += f", {side.replace('_', ' ')} {vmm[side]['state']}"
    return text


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def play(tour: Tour) -> None:
    """The scenes."""
    tour.say("three instances are created: web and db are started, cache is stopped before its start has finished")
    for name in _WISHES:
        await tour.ask("nexus", "POST", "/v1/instances", {"name": name, "start": True})
    await tour.ask("nexus", "POST", "/v1/instances/cache/stop")
    await tour.see("web", "running")
    await tour.see("db", "running")
    await tour.see("cache", "stopped")

    tour.say("web is rebooted")
    before = await tour.times("web", "rebooting")
    await tour.ask("nexus", "POST", "/v1/instances/web/reboot")
    await tour.see_pass("web", "rebooting", before)
    await tour.see("web", "running")

    here = (await tour.ask("nexus", "GET", "/v1/instances/db"))["sled_id"]
    there = next(sled_id for sled_id in tour.sled_ids.values() if sled_id != here)
    tour.say("db migrates to the other sled: the target finds its source by the address in the request")
    before = await tour.times("db", "migrating")
    await tour.ask("nexus", "POST", "/v1/instances/db/migrate", {"dst_sled_id": there})
    await tour.see_pass("db", "migrating", before)
    await tour.see("db", "running")
    moved = (await tour.ask("nexus", "GET", "/v1/instances/db"))["sled_id"]
    if moved != there:
        raise TourError(f"db is on {moved}, not on {there}")

    tour.say(f"web is rebooted again, and Nexus goes away for {NEXUS_AWAY_MS} ms before it can hear of it")
    await tour.ask("nexus", "POST", "/v1/instances/web/reboot")
    await tour.ask("nexus", "POST", "/v1/restart", {"down_ms": NEXUS_AWAY_MS})
    await asyncio.sleep(NEXUS_AWAY_MS / 2000)
    await tour.look()

    async def back() -> bool:
        await tour.look()
        return tour.nexus_up and all(each["acked"] == each["state"] for each in tour.vmms.values())

    await tour.until("Nexus is back and has heard everything", back)
    await tour.see("web", "running")

    await stuck(tour)

    tour.say("everything is stopped")
    for name in ("web", "db"):
        await tour.ask("nexus", "POST", f"/v1/instances/{name}/stop")
    for name in _WISHES:
        await tour.see(name, "stopped")

    async def gone() -> bool:
        await tour.look()
        return not tour.vmms

    await tour.until("the sleds have forgotten every VMM", gone)


_STUCK: Final = """version: 1
name: tour
rules:
- name: stuck
  for: {hostname: web}
  when: {state: running}
  times: 1
  do: {hold: {publish: running}}
"""


async def stuck(tour: Tour) -> None:
    """A VM sticks, is explained, and recovers."""
    tour.say("the sleds get a rule: the next report that web runs is held. web is rebooted, and sticks")
    for sled in tour.sled_ids:
        await tour.ask(sled, "PUT", "/rules", {"scenario": _STUCK})
    await tour.ask("nexus", "POST", "/v1/instances/web/reboot")
    why: list[str] = []

    async def held() -> bool:
        await tour.look()
        here = next((each["sled"] for each in tour.vmms.values() if each["hostname"] == "web"), None)
        if here is not None:
            says = (await tour.ask(here, "GET", "/vmms/web"))["says"]
            why[:] = [here, *(each for each in says if "stuck" in each)]
        return len(why) > 1

    await tour.until("the rule holds web", held)
    here, explained, *_ = why
    tour.say(f"sim-sled why web: {explained}")
    await tour.see("web", "rebooting")
    tour.say("sim-sled release stuck: the report goes out, and users see web run again")
    await tour.ask(here, "POST", "/release/stuck")
    await tour.see("web", "running")


_NEXT: Final = """
What to do next:
  sim-sled up                  a rack of your own, with a page for the browser
  sim-sled ps, why NAME        what goes on, and why
  sim-sled scenario list       incidents to play: sim-sled run stuck-stop
  sim-sled up --nexus ADDR     beside your Nexus (sim-sled docs beside-nexus)
  sim-sled docs                everything else, page by page
"""


async def check(tour: Tour) -> list[str]:
    """Where the model and the sleds do not agree; empty is good."""
    wrong: list[str] = []
    state = await tour.ask("nexus", "GET", "/v1/state")
    wrong += [f"Nexus model: {each}" for each in state["breaches"] + state["broken"]]
    for name in _WISHES:
        known = await tour.ask("nexus", "GET", f"/v1/instances/{name}")
        if known["instance"]["run_state"] != "stopped":
            wrong.append(f"{name} is {known['instance']['run_state']}, not stopped")
        for vmm in known["vmms"]:
            log = await _log_of(tour, vmm["id"])
            if vmm["state"] != "destroyed":
                wrong.append(f"Nexus believes that VMM {vmm['id']} of {name} is {vmm['state']}")
            if not log or not log[-1].startswith("forgotten destroyed"):
                wrong.append(f"the sled did not see VMM {vmm['id']} of {name} to its end")
    return wrong


async def _log_of(tour: Tour, propolis_id: str) -> list[str]:
    for sled in tour.sled_ids:
        with contextlib.suppress(TourError):
            return [line["text"] for line in await tour.ask(sled, "GET", f"/vmms/{propolis_id}/log")]
    return []


async def summary(tour: Tour) -> None:
    """What each instance went through, and what it took to tell."""
    console = tour.console
    console.print()
    for name in _WISHES:
        known = await tour.ask("nexus", "GET", f"/v1/instances/{name}")
        states = [line["text"] for line in known["timeline"] if line["what"] == "public"]
        through = fitted(f"{name:6} {' > '.join(states)}\n")
        console.print(through, end="", highlight=False, soft_wrap=True)
    for sled in tour.sled_ids:
        counts = _counts(await tour.ask(sled, "GET", "/metrics"))
        console.print(
            f"{sled:6} updates sent {counts['sent']}, retried {counts['retrying']}, "
            f"acknowledged {counts['acked']}, refused {counts['given_up']}",
            highlight=False,
        )


def _counts(metrics: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("sim_sled_happenings_total"):
            counts[name.partition('kind="')[2].partition('"')[0]] = int(float(value))
    return counts


async def run() -> int:
    """The whole tour; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    tour = Tour(console)
    console.print("[bold]This is not Nexus[/bold], and these are no sleds: a simulation on loopback sockets.")
    if not has_ipv6():
        console.print(f"the tour cannot start: {NO_IPV6}", highlight=False, markup=False)
        return 1
    async with contextlib.AsyncExitStack() as stack:
        try:
            await tour.start(stack)
            with Live(tour, console=console, refresh_per_second=8) if tour.live else contextlib.nullcontext():
                await play(tour)
            wrong = await check(tour)
            await summary(tour)
        except (TourError, aiohttp.ClientError, TimeoutError) as error:
            console.print("[red]the tour failed[/red]:", end=" ")
            console.print(shown(str(error) or type(error).__name__), highlight=False, markup=False)
            for name in tour.control:
                console.print(f"--- {name}\n{tour.log(name)}", highlight=False, markup=False)
            return 1
    for each in wrong:
        console.print(f"[red]disagreement[/red]: {each}", highlight=False)
    console.print("the model and the sleds agree" if not wrong else "the model and the sleds disagree")
    console.print(_NEXT, end="", highlight=False, markup=False)
    return 1 if wrong else 0
