"""A scenario's `expect` and invariants, judged on a running daemon: `serve|up --scenario F --junit OUT`.

The judge is that of `run`. What it needs the Nexus model for (what users see, a migration's sides as Nexus has them)
is only judged where the model runs in this process; what users see also where `nexus.external` says whom to ask, and
there the scenario's users are played, too (external.py). Whatever is not judged or not played is said at the start
(`cannot`), and at the end it is no success: an expectation that nobody judges must not look green.

Read before: antithesis.py, daemon/external.py, daemon/pausing.py, play/judge/expect.py, play/stage.py.
Read next: daemon/on_sockets.py, daemon/serve.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import attrs

from nexus_client.stub.nexus import Nexus
from sim_sled import logs
from sim_sled.core.happenings import Happening, Kind
from sim_sled.core.rack import Rack
from sim_sled.engine.cast import Subject
from sim_sled.engine.engine import Engine
from sim_sled.files import write_text
from sim_sled.http.answers import refusal
from sim_sled.language.actions import ExpungeSled, RestartNexus
from sim_sled.language.check import sleds_of
from sim_sled.language.schema import Expect, Scenario
from sim_sled.language.source import Mark
from sim_sled.play.calls import Call, Carried, Refused
from sim_sled.play.fleet import model_of
from sim_sled.play.judge.expect import Judge, label_of
from sim_sled.play.report import Run, junit, text_of
from sim_sled.play.run import Result, result_of
from sim_sled.play.stage import Answered, TasksSeen
from sim_sled.play.users import Users

if TYPE_CHECKING:
    from nexus_client.stub.server.host import Host
    from sim_sled.antithesis import Assertions, Tally
    from sim_sled.daemon.daemon import Daemon
    from sim_sled.daemon.external import External

OF_THE_MODEL: Final = frozenset({"instance", "sled", "migration_in", "migration_out", "migration"})
"""What is only known of a Nexus whose records are here."""
ONLY_OF_RECORDS: Final = frozenset({"migration_in", "migration_out", "migration"})
"""... and that the public API does not show."""
INVARIANTS_OF_THE_MODEL: Final = frozenset(
    {"no_leaks", "nexus_properties", "wishes_kept", "over_left_alone", "nexus_lives"}
)


def needs_model(expect: Expect, *, external: bool = False) -> bool:
    """Whether it speaks of what only Nexus knows. `external`: its public API can be asked."""
    unknown = ONLY_OF_RECORDS if external else OF_THE_MODEL
    return expect.that is not None and not unknown.isdisjoint(expect.that.subjects())


def needs_tasks(expect: Expect) -> bool:
    """Whether it speaks of Nexus's own tasks, which nobody plays on a daemon."""
    return expect.that is not None and expect.that.concerns_nobody


def cannot(scenario: Scenario, sleds: int, *, model: bool, judged: bool) -> list[str]:
    """What a daemon of so many sleds does not do of a file, a sentence each."""
    said = []
    external = scenario.nexus.external is not None and not model
    if external:
        said += _not_public(scenario)
    elif scenario.load:
        said.append("'load' is not played: on a daemon nobody plays users; ask the control plane for instances")
    if scenario.has("nexus") and not external:
        said.append("'nexus' is for the model of a closed world: this Nexus stays as it is")
    if not model and any(isinstance(action, RestartNexus) for rule in scenario.rules for action in rule.do):
        said.append(f"'{RestartNexus.key}' does nothing: this Nexus is not ours to restart")
    if not model and any(isinstance(action, ExpungeSled) for rule in scenario.rules for action in rule.do):
        said.append(f"'{ExpungeSled.key}' does nothing: this Nexus has its own operators")
    fleet = len(sleds_of(scenario.fleet))
    if scenario.has("fleet") and sleds < fleet:
        said.append(f"{sleds} of the fleet's {fleet} sleds {'is' if sleds == 1 else 'are'} here")
    if scenario.expect and not judged:
        said.append("'expect' is not judged; --junit FILE does that")
    elif judged:
        by_why: dict[str, list[str]] = {}
        for each in unjudged(scenario, model=model):
            by_why.setdefault(each.why, []).append(each.label)
        said += [f"{why} nobody judges {', '.join(names)}: exit 1 at the end" for why, names in by_why.items()]
    return said


@attrs.frozen
class Unjudged:
    """An expectation on which a daemon can reach no verdict. `why` ends before `nobody judges it`."""

    label: str
    mark: Mark
    why: str


def unjudged(scenario: Scenario, *, model: bool) -> list[Unjudged]:
    """Those of a file that nobody judges on a daemon; the invariants that a file asks for by name, too."""
    external = scenario.nexus.external is not None and not model
    found = []
    for i, each in enumerate(scenario.expect):
        label = label_of(each, i)
        if needs_tasks(each):
            found.append(Unjudged(label, each.mark(), "without 'load'"))
        elif not model and needs_model(each, external=external):
            found.append(Unjudged(label, each.mark(), "without the Nexus model"))
        elif not model:
            names = [name for name in each.always if name in INVARIANTS_OF_THE_MODEL]
            found += [Unjudged(name, each.mark(), "without the Nexus model") for name in names]
    return found


def _not_public(scenario: Scenario) -> list[str]:
    """What users cannot do by the public API."""
    said = []
    if any(load.migrate is not None or (load.churn is not None and load.churn.migrate) for load in scenario.load):
        said.append("'migrate' of 'load' is refused: the public API has no migration, an operator's has")
    if any(load.create is not None and load.create.silo is not None for load in scenario.load):
        said.append("'silo' of 'create' means nothing: the silo is that of the token's user")
    return said


def look_at_call(judge: Judge, nexus_5xx: list[str], call: Call, ending: Carried | Refused) -> None:
    """What the invariants want to know of a request that a sled has carried out or refused."""
    if isinstance(ending, Refused):
        answer = refusal(ending.error)
        if answer.status >= 500:
            nexus_5xx.append(f"{call.op} answered {answer.status}: {ending.error.message}")
    elif call.op == "vmm_register":
        judge.invariants.registered(call.item.sled_id)


@attrs.define(eq=False)
class Judging:
    """Of one daemon: a stage (`play/stage.py`). `model`: the one in this process. `external`: the real Nexus whose
    users are played; without it nobody plays users. `assertions`: of an Antithesis environment, told as it goes.
    """

    daemon: Daemon
    scenario: Scenario
    seed: int
    model: Host | None = None
    external: External | None = None
    variant: str | None = None
    sled_variant: str | None = None
    assertions: Assertions | None = None
    steps: int = 0
    nexus_5xx: list[str] = attrs.field(factory=list)
    judge: Judge = attrs.field(init=False)
    users: Users = attrs.field(init=False)
    _nobody: Nexus = attrs.field(init=False)
    _unjudged: dict[str, Unjudged] = attrs.field(factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _soon: bool = False
    _tally: Tally | None = None

    def __attrs_post_init__(self) -> None:
        self._nobody = Nexus(model_of(self.scenario, None), seed=self.seed)
        if self.external is not None:
            self._nobody = self.external.mirror
            self.external.moved = self._seen
            self.external.named = lambda project_id, name: self.engine.names.update({project_id: name})
        self.load(self.scenario)
        self.users = Users(self)
        self.daemon.judging = self
        self.daemon.watchers.append(self._watch)
        self.daemon.carriers.append(self._carried)
        self.daemon.pausing.all.append(self)
        if self.model is not None:
            self.model.nexus.watch_public(self.moved)

    def load(self, scenario: Scenario) -> None:
        """Judge by this one from now on; what has failed has failed."""
        beyond = unjudged(scenario, model=self.model is not None)
        self._unjudged = {each.label: each for each in beyond}
        judged = [
            attrs.evolve(each, name=label_of(each, i))
            for i, each in enumerate(scenario.expect)
            if label_of(each, i) not in self._unjudged or each.always
        ]
        scenario = attrs.evolve(scenario, expect=tuple(judged))
        self.scenario = scenario
        before = getattr(self, "judge", None)
        self.judge = Judge(scenario, self, [] if before is None else before.failures)
        if before is not None:
            self.judge.goes_on_from(before)
        if self.model is None:
            names = self.judge.invariants.names
            self.judge.invariants.names = tuple(name for name in names if name not in INVARIANTS_OF_THE_MODEL)
        self.engine.listener = self.judge
        if self.assertions is not None:
            from sim_sled.antithesis import Tally  # noqa: PLC0415 -- nobody else pays for it

            watched = self.judge.invariants.names + (("nexus_properties",) if self.model is not None else ())
            self._tally = Tally(self.assertions, scenario, self.seed, watched)
            self._tally.goes_on_from(self.judge.failures, self.judge.met_count, self._fired())

    # ---- a stage

    @property
    def tasks(self) -> TasksSeen:
        """Of the users; see `Stage`."""
        return self.users.tasks

    @property
    def engine(self) -> Engine:
        return self.daemon.engine

    @property
    def rack(self) -> Rack:
        return self.daemon.rack

    @property
    def nexus(self) -> Nexus:
        return self._nobody if self.model is None else self.model.nexus

    @property
    def now_us(self) -> int:
        return self.daemon.clock.now_us()

    @property
    def elapsed_us(self) -> int:
        return max(0, self.now_us - self.engine.start_us) if self.daemon.passage.begun else 0

    def ask(self, make: Callable[[int], Any], answered: Answered, /) -> None:
        assert self.external is not None, "nobody plays users here"
        self.external.ask(make, answered)

    def request(self, _wish: object, _answered: object, /) -> None:
        raise AssertionError("Nexus's own tasks are its own here")

    def line(self, kind: str, text: str, who: Subject | None = None, sled: str = "-") -> None:
        """Of all that is told what failed, and what users did: the rest is in the daemon's own log."""
        if kind == "user":
            logs.get("users").info(text)
        elif kind == "failed":
            logs.get("judge").error(text, sled=sled, vmm=None if who is None else who.short)

    def readable(self, text: str) -> str:
        return text

    # ---- what happens

    def _watch(self, happening: Happening) -> None:
        who = self.engine.cast.subjects.get(happening.propolis_id) if happening.propolis_id is not None else None
        if who is None:
            return
        if happening.kind is Kind.SENT:
            self.judge.invariants.sent(who, happening)
        self.judge.touch(who)
        self._settle_soon()

    def _carried(self, call: Call, ending: Carried | Refused) -> None:
        look_at_call(self.judge, self.nexus_5xx, call, ending)
        self._settle_soon()

    def moved(self, instance: Any, *_: object) -> None:
        """Users see another state of an instance of the model."""
        self.judge.touch_instance(instance.id)
        self._settle_soon()

    def _seen(self, instance_id: UUID) -> None:
        """Users see another state of an instance of the real Nexus."""
        self.judge.touch_instance(instance_id)
        self._settle_soon()

    async def play_users(self) -> None:
        """From when all sleds are registered on, as everywhere."""
        for registered in list(self.daemon.reporting.registered.values()):
            await registered.wait()
        self.users.begin()
        self.catch_up()

    def _settle_soon(self) -> None:
        """After this turn, whatever else happens in it: half of it is no state to be judged by."""
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self.catch_up)

    # ---- time (`Timed`)

    on_the_network: Final = 0

    def next_deadline_us(self) -> int | None:
        dues = (self.judge.next_deadline_us(), self.users.next_deadline_us())
        return min((due for due in dues if due is not None), default=None)

    def catch_up(self) -> None:
        """Look at what has changed, and at what is due by now."""
        self._soon = False
        self.users.act(self.now_us)
        self.judge.settle(self.now_us)
        self.judge.nexus_moved()
        self._tell()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_us = self.next_deadline_us()
        if due_us is not None and not self.daemon.clock.stands:
            delay_s = max(0.001, (due_us - self.now_us) / 1e6)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.catch_up)

    def _tell(self, *, over: bool = False) -> None:
        if self._tally is not None:
            self._tally.look(self.judge.failures, self.judge.met_count, self._fired(), self.elapsed_us, over=over)

    def _fired(self) -> dict[str, int]:
        return {name: counter.fired for name, counter in self.engine.counters.items()}

    # ---- the end

    def ending(self) -> None:
        """The daemon is about to stop: what is not decided by now never will be."""
        self.judge.look()
        self.catch_up()
        self.judge.undecided()
        self._tell()
        for each in self._unjudged.values():
            self.judge.unjudged(each.label, each.mark, f"{each.why} nobody can")
        if self._timer is not None:
            self._timer.cancel()

    def result(self) -> Result:
        """After the daemon has told Nexus what it could."""
        self.judge.invariants.finish(settled=False, leaks=self.model is not None)
        self._tell(over=True)
        return result_of(self, f"{self.elapsed_us / 1e6:.3f} s, on a daemon", (), "daemon")


def verdict(judging: Judging, shown: str, out: Path, took_s: float) -> tuple[str, bool]:
    """Writes the JUnit file; what is to be said, and whether all is well. Raises `CannotWrite`."""
    run = Run(shown, judging.result(), took_s)
    write_text(out, junit([run], require_fired=False))
    return text_of(run, require_fired=False), run.passed(require_fired=False)
