"""`load: {task: ...}`: what Nexus itself does with sleds beside VMMs (SR 7), as far as a scenario needs somebody who
notices: inventory, configuration, disks, artifacts, support bundles, expunged disks.

A task is a generator: it yields an `Ask` and gets the `Answer`, or yields how long it waits in microseconds. What it
returns is how it ended. No blueprint is planned: a configuration is one NTP zone, then what a new sled gets (SR 7.1).

Read before: language/schema.py, play/asks.py, play/stage.py. Read next: play/users.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from fnmatch import fnmatchcase
from typing import Any, Final
from uuid import UUID, uuid5

import attrs

from sim_sled.core.bundles.store import Where
from sim_sled.language.figures import show_duration
from sim_sled.language.schema import Task
from sim_sled.language.words import Ended
from sim_sled.play import asks
from sim_sled.play.asks import EXTENT, Answer, Ask
from sim_sled.play.fleet import NAMESPACE
from sim_sled.play.stage import Stage

Steps = Generator["Ask | int", Any, str]
"""Yields what to ask, or how long to wait; returns what is told when it is over. Any: an `Answer` after an `Ask`."""

POLL_US: Final = 1_000_000
"""First pause while something is awaited; doubled up to POLL_MAX_US, as `ensure_region_in_dataset` does (SR 5.1)."""
POLL_MAX_US: Final = 180_000_000
REPLICAS: Final = 3
"""Sleds that get an artifact from Nexus itself; the others copy it (SR 4.2)."""
COPIES: Final = 2
DEBUG: Final = "debug"
POOL_KINDS: Final = ("crucible", DEBUG, "local_storage_unencrypted")
"""Datasets that a pool gets when its sled is configured."""


class Failed(Exception):
    """A task is over and did not succeed; the text says why."""


@attrs.define
class Wanted:
    """A sled's configuration as its blueprint has it."""

    sled_id: UUID
    generation: int = 1
    disks: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    datasets: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    zones: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    def _id(self, what: str) -> str:
        return str(uuid5(self.sled_id, what))

    def adopt(self, told: dict[str, Any]) -> None:
        """All disks with pools of an inventory."""
        for disk in told["disks"]:
            if disk["slot"] >= len(told["zpools"]):
                continue
            pool = told["zpools"][disk["slot"]]  # pools stand in the order of the slots
            row = {"id": self._id(f"disk/{pool['id']}"), "identity": disk["identity"], "pool_id": pool["id"]}
            self.disks[row["id"]] = row

    def add_dataset(self, kind: str, pool: str) -> None:
        row: dict[str, Any] = {
            "id": self._id(f"{kind}/{pool}"), "name": {"pool_name": f"oxp_{pool}", "kind": kind},
            "compression": {"type": "off"}, "quota": None, "reservation": None,
        }  # fmt: skip
        self.datasets[row["id"]] = row

    def add_zone(self, kind: str, pool: str, **about: Any) -> None:
        row: dict[str, Any] = {
            "id": self._id(f"zone/{kind}/{pool}"), "filesystem_pool": f"oxp_{pool}",
            "zone_type": {"type": kind, "address": "[fd00:1122:3344:101::10]:123"} | about,
            "image_source": {"type": "install_dataset"},
        }  # fmt: skip
        self.zones[row["id"]] = row

    def drop_pool(self, nth: int) -> bool:
        """Without the `nth` of its disks, and whatever lies on it. False: there is none such."""
        pools = [row["pool_id"] for row in self.disks.values()]
        if nth > len(pools):
            return False
        gone = pools[nth - 1]
        self.disks = {key: row for key, row in self.disks.items() if row["pool_id"] != gone}
        self.datasets = {key: row for key, row in self.datasets.items() if row["name"]["pool_name"] != f"oxp_{gone}"}
        self.zones = {key: row for key, row in self.zones.items() if row["filesystem_pool"] != f"oxp_{gone}"}
        return True

    def next(self) -> dict[str, Any]:
        """The body of the next generation."""
        self.generation += 1
        slot = {"type": "current_contents"}
        return {
            "generation": self.generation, "disks": dict(self.disks), "datasets": dict(self.datasets),
            "zones": dict(self.zones), "remove_mupdate_override": None,
            "host_phase_2": {"slot_a": slot, "slot_b": slot}, "measurements": [],
        }  # fmt: skip


@attrs.define(eq=False)
class Tasks:
    """Nexus's own work. `seen`: by sled, the inventory of the last collection, or `{"error": why}`."""

    world: Stage
    later: Callable[[int, Callable[[], None]], None]
    state: dict[str, str] = attrs.field(factory=dict)
    """By the name of a load entry: what its task last came to."""
    seen: dict[UUID, dict[str, Any]] = attrs.field(factory=dict)
    _wanted: dict[UUID, Wanted] = attrs.field(factory=dict)
    _artifacts: dict[str, bytes] = attrs.field(factory=dict)
    _generation: int = 0

    def start(self, name: str, task: Task) -> None:
        """Begin one. One that is still under way is left alone: the task comes again, as Nexus's do."""
        if self.state.get(name) == Ended.WAITING:
            return
        sleds = [sled.id for sled in self.world.engine.cast.sleds.values() if _means(task, sled.name)]
        self._become(name, Ended.WAITING)
        self._go(name, _STEPS[task.does](self, name, task, sleds), None)

    def _go(self, name: str, steps: Steps, told: Any) -> None:
        try:
            wish = steps.send(told)
        except StopIteration as over:
            self._over(name, Ended.DONE, str(over.value))
        except Failed as why:
            self._over(name, Ended.FAILED, str(why))
        else:
            if isinstance(wish, Ask):
                self.world.request(wish, lambda answer: self._go(name, steps, answer))
            else:
                self.later(wish, lambda: self._go(name, steps, None))

    def _over(self, name: str, how: Ended, text: str) -> None:
        self.world.line("task", f"{name} {how}: {text}")
        self._become(name, how)

    def _become(self, name: str, state: Ended) -> None:
        self.state[name] = state
        self.world.judge.touch_tasks()

    def _name(self, sled: UUID) -> str:
        return self.world.engine.cast.by_id[sled].name

    def _tell(self, name: str, text: str) -> None:
        self.world.line("task", f"{name}: {text}")

    # ---- inventory (SR 7.3)

    def _look(self, sled: UUID) -> Generator[Ask | int, Any, dict[str, Any] | None]:
        answer: Answer = yield asks.inventory(sled)
        self.seen[sled] = answer.body if answer.good else {"error": f"{answer.status or 'no answer'} {answer.body}"}
        self.world.judge.touch_tasks()
        return answer.body if answer.good else None

    def collect(self, _name: str, _task: Task, sleds: list[UUID]) -> Steps:
        """Errors of a sled are stored; the rest stands."""
        for sled in sleds:
            yield from self._look(sled)
        bad = [f"{self._name(sled)} {why}" for sled in sleds if (why := self.seen[sled].get("error")) is not None]
        text = f"{len(sleds) - len(bad)} of {len(sleds)} sleds"
        return f"{text}; {'; '.join(bad)}" if bad else text

    # ---- configuration (SR 7.1, 7.4)

    def config(self, name: str, task: Task, sleds: list[UUID]) -> Steps:
        """NTP first; when it runs, Crucible and the rest of each pool."""
        for sled in sleds:
            told = yield from self._wait_for(task, sled, lambda _told: True)
            wanted = self._wanted[sled] = Wanted(sled)
            wanted.adopt(told)
            pools = [row["pool_id"] for row in wanted.disks.values()]
            if not pools:
                raise Failed(f"{self._name(sled)} has no pools")
            wanted.add_zone("internal_ntp", pools[0])
            yield from self._configure(name, task, sled)
            for pool in pools:
                for kind in POOL_KINDS:
                    wanted.add_dataset(kind, pool)
                wanted.add_zone("crucible", pool, dataset={"pool_name": f"oxp_{pool}"})
            yield from self._configure(name, task, sled)
        return f"{len(sleds)} sled{'s' * (len(sleds) != 1)} run what they should"

    def expunge_disk(self, name: str, task: Task, sleds: list[UUID]) -> Steps:
        """The configuration without it, until the sled has done so; what cannot be destroyed is waited for."""
        for sled in sleds:
            wanted = self._wanted.get(sled)
            if wanted is None or not wanted.drop_pool(task.disk):
                raise Failed(f"{self._name(sled)} was not configured, or has no disk {task.disk}")
            yield from self._configure(name, task, sled)
        return "decommissioned"

    def remove_datasets(self, name: str, task: Task, sleds: list[UUID]) -> Steps:
        """Those of one kind leave the configuration; over when none of them is an orphan."""
        for sled in sleds:
            wanted = self._wanted.get(sled)
            if wanted is None:
                raise Failed(f"{self._name(sled)} was not configured")
            wanted.datasets = {k: row for k, row in wanted.datasets.items() if row["name"]["kind"] != task.kind}
            yield from self._configure(name, task, sled)
        return f"no {task.kind} datasets are left"

    def _configure(self, name: str, task: Task, sled: UUID) -> Generator[Ask | int, Any, None]:
        """One step of execution: the sled is told again and again, and looked at until it has done everything."""
        body = self._wanted[sled].next()
        told = ""
        while True:
            answer: Answer = yield asks.put_config(sled, body)
            if answer.good:
                break
            if told != (told := f"{self._name(sled)} refuses generation {body['generation']}: {answer.status}"):
                self._tell(name, told)
            yield task.round
        yield from self._wait_for(task, sled, lambda told: not _missing(told, body["generation"]))

    def _wait_for(
        self, task: Task, sled: UUID, enough: Callable[[dict[str, Any]], bool]
    ) -> Generator[Ask | int, Any, dict[str, Any]]:
        pause = POLL_US
        while True:
            told = yield from self._look(sled)
            if told is not None and enough(told):
                return told
            pause = min(pause * 2, task.round)
            yield pause

    # ---- disks (SR 7.5)

    def disk(self, name: str, task: Task, sleds: list[UUID]) -> Steps:
        """A region on each of three sleds; what was made is deleted when one of them cannot be."""
        if len(sleds) < REPLICAS:
            raise Failed(f"{REPLICAS} different sleds are needed, {len(sleds)} are meant")
        made: list[tuple[UUID, UUID, UUID]] = []
        for sled in sleds[:REPLICAS]:
            hardware = self.world.rack.sleds[sled].config.hardware
            dataset = hardware.crucible_datasets_of(sled)[0].dataset_id
            region = uuid5(NAMESPACE, f"region/{name}/{self._name(sled)}")
            made.append((sled, dataset, region))
            answer = yield from self._region(name, sled, dataset, region, -(-task.size // EXTENT))
            if not answer.good or answer.body["state"] != "created":
                why = f"{answer.status} {answer.body}" if not answer.good else f"the region is {answer.body['state']}"
                for each in made:
                    yield asks.delete_region(*each)
                raise Failed(f"no region on {self._name(sled)}: {why}")
        return "created"

    def _region(
        self, name: str, sled: UUID, dataset: UUID, region: UUID, extents: int
    ) -> Generator[Ask | int, Any, Answer]:
        pause, waited = POLL_US, 0
        while True:
            answer: Answer = yield asks.create_region(sled, dataset, region, extents)
            if not (answer.again or (answer.good and answer.body["state"] == "requested")):
                return answer
            yield pause
            waited += pause
            pause = min(pause * 2, POLL_MAX_US)
            if pause == POLL_MAX_US:
                self._tell(name, f"still no region on {self._name(sled)} after {show_duration(waited)}")

    # ---- artifacts (SR 4.2)

    def artifact(self, name: str, task: Task, sleds: list[UUID]) -> Steps:
        """One more artifact on every sled, twice on each: round by round until it is so."""
        data = f"artifact {name}".encode()
        self._artifacts[name] = data
        sha256 = hashlib.sha256(data).hexdigest()
        self._generation += 1
        generation = self._generation
        hashes = frozenset(hashlib.sha256(each).hexdigest() for each in self._artifacts.values())
        for sled in sleds:
            while (answer := (yield asks.put_artifact_config(sled, generation, hashes))).again:
                yield task.round
            if not answer.good:
                raise Failed(f"{self._name(sled)} refuses the configuration: {answer.status} {answer.body}")
        before = -1
        while True:
            has, there = [], 0
            for sled in sleds:
                answer = yield asks.list_artifacts(sled)
                copies = answer.body["list"].get(sha256, 0) if answer.good else 0
                if copies > 0:
                    has.append(sled)
                there += copies == COPIES
            if there == len(sleds):
                return f"{COPIES} copies on each of {there} sleds"
            if before != (before := there):
                self._tell(name, f"{there} of {len(sleds)} sleds have all copies")
            for sled in sleds:
                if sled not in has and len(has) < REPLICAS:
                    answer = yield asks.put_artifact(sled, data, generation)
                elif sled not in has:
                    answer = yield asks.copy_artifact(sled, data, generation, has[0])
                elif len(has) < len(sleds) or there < len(sleds):
                    answer = yield asks.put_artifact(sled, data, generation)
                if answer.good and sled not in has:
                    has.append(sled)
            yield task.round

    # ---- support bundles (SR 7.8)

    def bundle(self, name: str, task: Task, sleds: list[UUID]) -> Steps:
        """From all sleds to a debug dataset of the first that has one in its configuration."""
        place = next((found for sled in sleds if (found := self._debug_dataset(sled)) is not None), None)
        if place is None:
            raise Failed("no sled has a debug dataset")
        lines = []
        for sled in (each.id for each in self.world.engine.cast.sleds.values()):
            for what in (*asks.QUERIES, "health-check"):
                answer: Answer = yield asks.query(sled, what)
                lines.append(f"{self._name(sled)} {what} {answer.status}")  # a failure is stored, never fatal
            answer = yield asks.log_zones(sled)
            if not answer.good:
                self._tell(name, f"{self._name(sled)} has no logs: {answer.status or 'no answer'}")
        data = "\n".join(lines).encode()
        sled, where = place
        bundle = uuid5(NAMESPACE, f"bundle/{name}")
        for step in (
            asks.start_bundle(sled, where, bundle),
            asks.transfer(sled, where, bundle, 0, data),
            asks.finalize(sled, where, bundle, hashlib.sha256(data).hexdigest()),
        ):
            while (answer := (yield step)).again:
                yield task.round
            if not answer.good:
                raise Failed(f"{step.op} on {self._name(sled)}: {answer.status} {answer.body}")
        return f"stored on {self._name(sled)}"

    def _debug_dataset(self, sled: UUID) -> tuple[UUID, Where] | None:
        wanted = self._wanted.get(sled)
        for row in wanted.datasets.values() if wanted is not None else ():
            if row["name"]["kind"] == DEBUG:
                return sled, Where(UUID(row["name"]["pool_name"].partition("_")[2]), UUID(row["id"]))
        return None

    # ---- expectations

    def path(self, sled: UUID, path: str) -> list[str]:
        """What the last inventory of a sled has there; `*` in a path is each of a list or of an object's values."""
        found: list[Any] = [self.seen.get(sled)]
        for part in path.split("."):
            found = [inner for each in found for inner in _inside(each, part)]
        return [_shown(each) for each in found]


def _missing(told: dict[str, Any], generation: int) -> bool:
    """Whether something of this generation is not as it should be (yet)."""
    last = told["last_reconciliation"]
    if last is None or last["last_reconciled_config"]["generation"] < generation:
        return True
    parts = (last["external_disks"], last["datasets"], last["zones"])
    return bool(last["orphaned_datasets"]) or any(row["result"] != "ok" for part in parts for row in part.values())


def _inside(value: Any, part: str) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values()) if part == "*" else [value[part]] if part in value else []
    if isinstance(value, list):
        if part == "*":
            return value
        return [value[int(part)]] if part.isdecimal() and int(part) < len(value) else []
    return []


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(len(value)) if isinstance(value, dict | list) else str(value)


def _means(task: Task, sled: str) -> bool:
    return not task.sled or any(fnmatchcase(sled, pattern) for pattern in task.sled)


_STEPS: Final[dict[str, Callable[[Tasks, str, Task, list[UUID]], Steps]]] = {
    "collect": Tasks.collect,
    "config": Tasks.config,
    "expunge_disk": Tasks.expunge_disk,
    "remove_datasets": Tasks.remove_datasets,
    "disk": Tasks.disk,
    "artifact": Tasks.artifact,
    "bundle": Tasks.bundle,
}
"""By the word of the language."""
