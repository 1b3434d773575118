# ruff: noqa: RUF009 (a field of the language is declared by calling `f`)
"""The language, defined once: every field of a scenario with its kind, unit, default, meaning and error codes.

From these classes come the validation (`check.py`), the JSON Schema and the reference page (`reference.py`) and the
printing (`printing.py`). The classes are frozen values; two are equal if they say the same, wherever it stands.

Read before: language/actions.py, language/selector.py.
Read next: campaign/ambush.py, language/check.py, play/fleet.py, play/judge/expect.py, play/tasks.py, play/users.py.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

import attrs

from nexus_client.stub.hazards import Hazard
from nexus_client.stub.rules import RuleSet
from sim_sled.language.actions import Action, ActionsKind
from sim_sled.language.distribution import Distribution
from sim_sled.language.field_types import (
    Boolean,
    DistributionKind,
    Integer,
    Many,
    Mapped,
    OneOf,
    Parsed,
    Reader,
    Texts,
    duration,
    glob,
    interval,
    percent,
    size,
    slug,
    text,
    url,
)
from sim_sled.language.figures import FOREVER, SHARE_ONE, BadValue, Span, clip
from sim_sled.language.latency import Latency, LatencyKind
from sim_sled.language.load import Node, Scalar
from sim_sled.language.record import Located, Struct, Words, f
from sim_sled.language.selector import EVERYTHING, Selector, Trigger
from sim_sled.language.words import (
    ALL_OPERATIONS,
    DATASET_KINDS,
    INVARIANTS,
    MIGRATION_STATES,
    PUBLIC_STATES,
    PUBLISHED_STATES,
    STATES,
    TASKS,
    Ended,
)

VERSION: Final = 1
GIB: Final = 2**30
FLEET_MAX: Final = 20_000
"""Sleds of a fleet: each has a socket of its own, and one address has some 22,000 ports to give."""
_PATTERN: Final = re.compile(r"\{n(?::0([1-9]))?\}")


def numbered(pattern: str, n: int) -> str:
    """`web-{n}` or `s{n:02}` with its number."""
    if "{n:" not in pattern:  # most are so, and a fleet or a load has thousands of names
        return pattern.replace("{n}", str(n))
    return _PATTERN.sub(lambda m: f"{n:0{m[1]}}" if m[1] else str(n), pattern)


def _pattern(what: str) -> Parsed:
    def parse(word: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", numbered(word, 1024)):
            raise BadValue(
                "E110", f"'{clip(word)}' is not a pattern of letters, digits, '.', '_', '-' and {{n}} or {{n:02}}"
            )
        return word

    return Parsed(what, parse)


def _factor() -> Parsed:
    def parse(word: str) -> float:
        if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", word) or not 1 <= float(word) <= 1000:
            raise BadValue("E111", f"'{clip(word)}' is not a factor of 1..1000")
        return float(word)

    def show(value: float) -> float | int:
        return int(value) if value == int(value) else value

    return Parsed("number 1..1000", parse, show, plain_number=True)


@attrs.frozen
class Shape(Located):
    """What one sled has. The defaults are those of the simulated sled agent (SA 1.7)."""

    cpus: int = f(Integer(1, 4096), "Hardware threads.", default=32)
    ram: int = f(size(), "Memory.", default=64 * GIB, words="64GiB", codes="E140")
    reservoir: int = f(size(), "Memory for VMs; less than `ram`.", default=32 * GIB, words="32GiB", codes="E140 E141")
    zpools: int = f(Integer(0, 32), "Disks of 1 TiB, one pool each.", default=10)
    model: str = f(text("text", 100), "Model of the baseboard.", default="i86pc")
    cpu_family: str = f(
        OneOf(("unknown", "amd_milan", "amd_turin", "amd_turin_dense"), "E111", "CPU family"),
        "CPU family.",
        default="amd_milan",
    )
    role: str = f(OneOf(("gimlet", "scrimlet"), "E111", "role"), "Whether a switch is attached.", default="scrimlet")


@attrs.frozen
class Override(Located):
    """Sleds that differ from the rest."""

    sled: tuple[str, ...] = f(
        Many(glob("E201", "glob"), "sleds"), "Which sleds, by the name of the pattern.", codes="W300"
    )
    name: str | None = f(_pattern("name"), "Another name.", default=None, words="unchanged", codes="E110 E142")
    cpus: int | None = f(Integer(1, 4096), "Hardware threads.", default=None, words="as `shape`")
    ram: int | None = f(size(), "Memory.", default=None, words="as `shape`", codes="E140")
    reservoir: int | None = f(size(), "Memory for VMs.", default=None, words="as `shape`", codes="E140 E141")
    zpools: int | None = f(Integer(0, 32), "Disks.", default=None, words="as `shape`")
    model: str | None = f(text("text", 100), "Model.", default=None, words="as `shape`")
    cpu_family: str | None = f(
        OneOf(("unknown", "amd_milan", "amd_turin", "amd_turin_dense"), "E111", "CPU family"),
        "CPU family.",
        default=None,
        words="as `shape`",
    )
    role: str | None = f(OneOf(("gimlet", "scrimlet"), "E111", "role"), "Role.", default=None, words="as `shape`")


@attrs.frozen
class Fleet(Located):
    """The sleds of this process."""

    sleds: int = f(Integer(1, FLEET_MAX), "How many.", default=4)
    name: str = f(
        _pattern("pattern with `{n}` or `{n:02}`"),
        "Their names; numbers start at 1.",
        default="sled-{n}",
        codes="E110 E142",
    )
    shape: Shape = f(Struct(Shape), "What each has.", default=Shape(), words="the simulated agent's")
    overrides: tuple[Override, ...] = f(
        Many(Struct(Override), "overrides"), "Sleds that differ.", default=(), words="none"
    )


RULES: Final = tuple(rules.value for rules in RuleSet)
HAZARDS: Final = (*(hazard.value for hazard in Hazard), "none")


@attrs.frozen
class Nexus(Located):
    """A real Nexus. Without `internal` the built-in model is meant."""

    internal: str | None = f(url(), "Its internal API.", default=None, words="`--nexus`", codes="E150 E131")
    external: str | None = f(
        url(), "Its external API, for `instance:` and `load`.", default=None, words="none", codes="E150 E151"
    )
    token_file: str | None = f(text("path"), "A file with a token for it.", default=None, words="none")
    rules: str = f(OneOf(RULES, "E150", "rule set"), "The built-in model's rule set.", default="head")
    hazards: tuple[str, ...] | None = f(
        Many(OneOf(HAZARDS, "E150", "hazard"), "hazards"),
        "Which known wrongs of Nexus the built-in model plays (`sim-sled docs nexus-model`).",
        default=None,
        words="those that this page marks as played",
    )
    saga_node: int = f(
        duration(),
        "How long each node of a saga of the built-in model takes: the time in which something can come between.",
        default=5_000,
        words="5ms",
    )


@attrs.frozen
class NexusKind:
    """`model`, or where a real one is."""

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        if isinstance(node, Scalar) and not node.is_null:
            if node.text == "model":
                return Nexus(marks={"": node.mark})
            return reader.bad("E150", node.mark, f"'{clip(node.text)}' is neither 'model' nor {{internal: URL}}")
        return Struct(Nexus).read(node, reader, field)

    def show(self, value: Any) -> Any:
        return Struct(Nexus).show(value) or "model"

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": "model"}, Struct(Nexus).schema()]}

    def words(self) -> str:
        return f"`model`, or {Struct(Nexus).words()}"


@attrs.frozen
class Retry(Located):
    """How the agent repeats reports: pauses of `first` times `factor`, at most `max`, each 50 % .. 150 % of that."""

    unknown: ClassVar[str] = "E160"
    noun: ClassVar[str] = "constant"
    first: int = f(duration(), "First pause.", default=250_000, words="250ms")
    factor: float = f(_factor(), "Growth.", default=2.0, words="2")
    max: int = f(duration(), "Longest pause.", default=180_000_000, words="3m")


@attrs.frozen
class Agent(Located):
    """Constants of the sled agent; the defaults are the real agent's."""

    unknown: ClassVar[str] = "E160"
    noun: ClassVar[str] = "constant"
    stop_grace: int = f(
        duration(forever=True), "A stop not finished by then is forced.", default=600_000_000, words="10m"
    )
    recheck: int = f(
        duration(forever=True),
        "Pause between two looks whether Nexus still knows the sled, 1 s at least; if not, it registers again.",
        default=FOREVER,
        words="never",
    )
    queue: int = f(Integer(1, 10_000), "Requests one VMM may have waiting; more are answered 503.", default=32)
    reporting: str = f(
        OneOf(("push", "doorbell"), "E111", "way"), "Report states at once, or only when Nexus asks.", default="push"
    )
    retry: Retry = f(Struct(Retry), "Pauses between repeated reports.", default=Retry(), words="250ms, 2, 3m")
    hazards: tuple[str, ...] = f(
        Many(OneOf(("stop_before_start",), "E160", "hazard"), "hazards"),
        "Known wrongs of the real agent that are played.",
        default=(),
        words="none",
    )


@attrs.frozen
class Rule(Located):
    """If `when` happens to one that `for` means, `do` is done. Rules are tried in the order of the file."""

    name: str = f(
        slug("E110", "name"),
        "A name of its own, by which its counters survive a reload.",
        missing="E190",
        codes="E110 E190 E191",
    )
    for_: Selector = f(Struct(Selector), "Whom it means.", default=EVERYTHING, words="everything")
    when: Trigger = f(Struct(Trigger), "What sets it off.", missing="E210", codes="E210 E211 E212")
    do: tuple[Action, ...] = f(ActionsKind(), "What is done.", codes="E230 .. E245")
    skip: int = f(Integer(0, 2**31), "The first so many times do not count.", default=0)
    times: int | None = f(Integer(1, 2**31), "It fires at most so often.", default=None, words="unlimited")
    chance: int = f(percent(), "It fires with this chance.", default=SHARE_ONE, words="100%", codes="E220")
    between: Span | None = f(interval(), "Only in this time.", default=None, words="always", codes="E221")
    enabled: bool = f(Boolean(), "Switched on.", default=True)


def _states(states: tuple[str, ...]) -> Many:
    return Many(OneOf(states, "E253", "such state"), "states")


NOBODYS: Final = ("task", "inventory")
"""Subjects of expectations that concern no VMM."""


@attrs.frozen
class That(Located):
    """What must be so, all at one moment within the time; a list names alternatives."""

    noun: ClassVar[str] = "subject"
    vmm: tuple[str, ...] = f(_states(STATES), "State of the VMM in truth.", default=(), words="-", codes="E253")
    acked: tuple[str, ...] = f(
        _states((*PUBLISHED_STATES, "same_as_vmm")),
        "The last state Nexus confirmed; `same_as_vmm`: all of the sled's latest is confirmed.",
        default=(),
        words="-",
        codes="E253",
    )
    instance: tuple[str, ...] = f(_states(PUBLIC_STATES), "What users see.", default=(), words="-", codes="E253 E151")
    migration_in: tuple[str, ...] = f(
        _states(MIGRATION_STATES),
        "The target's side in Nexus's record. A sled that is gone never ends it, nor does Nexus (omicron#6520).",
        default=(),
        words="-",
        codes="E253",
    )
    migration_out: tuple[str, ...] = f(
        _states(MIGRATION_STATES), "The source's side in Nexus's record.", default=(), words="-", codes="E253"
    )
    migration: tuple[str, ...] = f(
        _states(MIGRATION_STATES), "Nexus's own record of it: failed if a side has.", default=(), words="-",
        codes="E253",
    )  # fmt: skip
    sled: str | None = f(
        OneOf(("changed", "unchanged"), "E253", "such state"),
        "Where the instance is.",
        default=None,
        words="-",
        codes="E253",
    )
    request: tuple[str, ...] = f(
        Many(OneOf(tuple(sorted(ALL_OPERATIONS)), "E212", "operation", globs=True), "operations"),
        "Nexus makes this request for the VMM.",
        default=(),
        words="-",
        codes="E212",
    )
    task: tuple[tuple[str, str], ...] = f(
        Mapped(slug("E253", "load entry"), OneOf(tuple(Ended), "E253", "outcome"), "a mapping of task to outcome"),
        "What tasks of Nexus have come to.",
        default=(),
        words="-",
        codes="E253",
    )
    inventory: tuple[tuple[str, str], ...] = f(
        Texts("a mapping of dotted path to glob"),
        "What Nexus saw last of each sled that `for` means; `*` in a path is each of a list or an object.",
        default=(),
        words="-",
    )

    @property
    def concerns_nobody(self) -> bool:
        """Whether it is about tasks and inventories, and so about no VMM."""
        return bool(self.task or self.inventory)

    def subjects(self) -> list[str]:
        names = (
            "vmm", "acked", "instance", "migration_in", "migration_out", "migration", "sled", "request", *NOBODYS,
        )  # fmt: skip
        return [n for n in names if (self.has(n) if self.marks else getattr(self, n) not in (None, ()))]


@attrs.frozen
class Expect(Located):
    """`always`, or (`for`, `after`, `within`, `that`), or (`for`, `after`, `lasts`, `never`)."""

    name: str | None = f(slug("E110", "name"), "For messages.", default=None, words="its number")
    always: tuple[str, ...] = f(
        Many(OneOf(tuple(INVARIANTS), "E252", "invariant"), "invariants"),
        "Invariants of the whole run.",
        default=(),
        codes="E252",
    )
    for_: Selector = f(Struct(Selector), "Whom it means.", default=EVERYTHING, words="everything")
    after: Trigger | None = f(Struct(Trigger), "What arms it, for each VMM anew.", default=None, codes="E251 W310")
    within: int | None = f(duration(), "How long it may take.", default=None, codes="E251")
    that: That | None = f(Struct(That), "What must become so.", default=None, codes="E250 E253")
    lasts: int | None = f(duration(), "How long `never` holds.", default=None)
    never: Trigger | None = f(Struct(Trigger), "What must not happen.", default=None)


@attrs.frozen
class Create(Located):
    """New instances."""

    hostname: str = f(_pattern("pattern with `{n}`"), "Host names; numbers start at 1.", codes="E110 E261")
    count: int = f(Integer(1, 1_000_000), "How many.", default=1)
    ncpus: int = f(Integer(1, 4096), "Virtual CPUs.", default=2)
    memory: int = f(size(), "Memory.", default=4 * GIB, words="4GiB", codes="E140")
    project: str | None = f(text("name", 63), "Project.", default=None, words="`default`")
    silo: str | None = f(text("name", 63), "Silo.", default=None, words="`default`")
    start: bool = f(Boolean(), "Start them.", default=True)
    spread: int = f(duration(), "Spread evenly over that time.", default=0, words="0s")
    sled: tuple[str, ...] = f(
        Many(text("sled"), "sleds"),
        "Each start is on this sled while it is in service, of a list the second start on the second one, and so on; "
        "a Nexus of your own places them itself.",
        default=(),
        words="where there is room",
        codes="E262",
    )
    auto_restart: str | None = f(
        OneOf(("never", "best_effort"), "E111", "policy"),
        "Whether Nexus starts them again by itself after they have failed.",
        default=None,
        words="Nexus's own, `best_effort`",
    )


@attrs.frozen
class Migrate(Selector):
    """Instances to move, and where to."""

    to: str = f(text("sled or `any`"), "The new sled; `any`: another one.", default="any", codes="E262")


@attrs.frozen
class Churn(Located):
    """One random action at a time; the weights say how often each. Below `population` more are created."""

    population: int = f(Integer(1, 1_000_000), "Instances at most.")
    create: int = f(Integer(0, 1_000_000), "Weight.", default=0, codes="E263")
    start: int = f(Integer(0, 1_000_000), "Weight.", default=0, codes="E263")
    stop: int = f(Integer(0, 1_000_000), "Weight.", default=0, codes="E263")
    reboot: int = f(Integer(0, 1_000_000), "Weight.", default=0, codes="E263")
    migrate: int = f(Integer(0, 1_000_000), "Weight.", default=0, codes="E263")
    delete: int = f(Integer(0, 1_000_000), "Weight.", default=0, codes="E263")
    hostname: str = f(_pattern("pattern with `{n}`"), "Host names of the created.", default="churn-{n}", codes="E261")
    ncpus: int = f(Integer(1, 4096), "Virtual CPUs of the created.", default=2)
    memory: int = f(size(), "Memory of the created.", default=4 * GIB, words="4GiB", codes="E140")


@attrs.frozen
class Task(Located):
    """What Nexus itself does with sleds beside VMMs. Its outcome is told under the name of the load entry.

    `collect`: one inventory; `config`: NTP, then Crucible and the datasets of every pool; `disk`: three regions;
    `artifact`: on all sleds, twice on each; `bundle`: from all sleds to a debug dataset; `expunge_disk`: one leaves
    the configuration with what lies on it; `remove_datasets`: all of a kind do. What can pass is tried again.
    """

    short: ClassVar[str] = "does"
    does: str = f(OneOf(TASKS, "E111", "task"), "Which task.", codes="E111")
    sled: tuple[str, ...] = f(Many(glob("E201", "glob"), "globs"), "With which sleds.", default=(), words="all")
    round: int = f(duration(), "How long until it looks or tries again.", default=10_000_000, words="10s")
    size: int = f(size(), "`disk`: how large.", default=GIB, words="1GiB", codes="E140")
    disk: int = f(Integer(1, 64), "`expunge_disk`: its number.", default=1)
    kind: str = f(OneOf(DATASET_KINDS, "E111", "kind of dataset"), "`remove_datasets`: which.", default="debug")


USER_ACTIONS: Final = ("create", "start", "stop", "reboot", "delete", "migrate", "churn", "task")


@attrs.frozen
class Load(Located):
    """What users of the control plane do: `at` or `every`, and one action."""

    name: str | None = f(slug("E110", "name"), "For messages.", default=None, words="its number")
    at: int | None = f(duration(), "Once.", default=None, codes="E260")
    every: Distribution | None = f(DistributionKind(), "Again and again.", default=None, codes="E260")
    from_: int | None = f(duration(), "With `every`: since when.", default=None, words="-", codes="E260")
    to: int | None = f(duration(), "With `every`: until when.", default=None, words="-", codes="E260")
    create: Create | None = f(Struct(Create), "Create instances.", default=None, words="-", codes="E261 E264")
    start: Selector | None = f(Struct(Selector), "Start these.", default=None, words="-", codes="W311")
    stop: Selector | None = f(Struct(Selector), "Stop these.", default=None, words="-", codes="W311")
    reboot: Selector | None = f(Struct(Selector), "Reboot these.", default=None, words="-", codes="W311")
    delete: Selector | None = f(Struct(Selector), "Delete these.", default=None, words="-", codes="W311")
    migrate: Migrate | None = f(Struct(Migrate), "Migrate these.", default=None, words="-", codes="E262 W311")
    churn: Churn | None = f(Struct(Churn), "Random actions.", default=None, words="-", codes="E263")
    task: Task | None = f(Struct(Task), "Something that Nexus itself does.", default=None, words="-", codes="E111")

    def action(self) -> str:
        return next((a for a in USER_ACTIONS if getattr(self, a) is not None), "")


@attrs.frozen
class Scenario(Located):
    """One file, its includes merged and its variables replaced."""

    noun: ClassVar[str] = "field"
    version: int = f(Integer(1, 10**9, "E101"), "Version of the language: 1.", missing="E100", codes="E100 E101")
    name: str = f(slug("E110", "name"), "Name of the scenario.", default="unnamed", words="the file's", codes="E110")
    include: tuple[str, ...] = f(
        Words(Many(text("file"), "files"), "list of files"),
        "Files merged below this one.",
        default=(),
        words="none",
        codes="E120 E121",
    )
    vars: tuple[tuple[str, str], ...] = f(
        Texts("a mapping of name to value"), "Used as `${name}` in any value.", default=(), words="none", codes="E122"
    )
    seed: int | None = f(
        Integer(0, 2**64 - 1, "E130"),
        "All chance of a run follows from it; `--seed` wins.",
        default=None,
        words="random, printed",
        codes="E130",
    )
    clock: str | None = f(
        OneOf(("wall", "virtual"), "E131", "clock"), "Real or virtual time.", default=None,
        words="`virtual` with the Nexus model, else `wall`", codes="E131",
    )  # fmt: skip
    fleet: Fleet = f(Struct(Fleet), "The sleds.", default=Fleet(), words="4 sleds", codes="E140 E141 E142")
    nexus: Nexus = f(NexusKind(), "Which Nexus.", default=Nexus(), words="`model`", codes="E150 E151")
    agent: Agent = f(
        Struct(Agent), "Constants of the agent.", default=Agent(), words="the real agent's", codes="E160"
    )
    latency: Latency = f(
        LatencyKind(),
        "How long things take.",
        default=Latency(),
        words="preset `dev`",
        codes="E170 E171 E180 .. E182",
    )
    rules: tuple[Rule, ...] = f(
        Many(Struct(Rule), "rules", may_be_empty=True), "What is out of the ordinary.", default=(), words="none"
    )
    expect: tuple[Expect, ...] = f(
        Many(Struct(Expect), "expectations", may_be_empty=True),
        "What must be so.",
        default=(),
        words="the first three invariants",
    )
    load: tuple[Load, ...] = f(
        Many(Struct(Load), "load entries", may_be_empty=True), "What users do.", default=(), words="none"
    )


def paced(scenario: Scenario, pace: str | None) -> Scenario:
    """The scenario at that pace, unless it has latencies of its own (`--pace`)."""
    if pace is None or scenario.has("latency"):
        return scenario
    return attrs.evolve(scenario, latency=Latency(pace))
