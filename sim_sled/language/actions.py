# ruff: noqa: RUF009 (a field of the language is declared by calling `f`)
"""What a rule does: one class per action. The order in `do` is the order in time; a `delay` holds up what follows.

Over 500 lines: declarations, each with its sentences of the reference page.

Read before: language/knobs.py, language/record.py.
Read next: daemon/sled_facts.py, engine/cast.py, engine/plans.py, language/schema.py, language/selector.py.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import attrs

from sim_sled.language.distribution import Distribution, Fixed
from sim_sled.language.field_types import (
    BAD,
    Boolean,
    DistributionKind,
    Either,
    Integer,
    Many,
    Mapped,
    OneOf,
    Reader,
    Texts,
    duration,
    percent,
    size,
    slug,
    text,
)
from sim_sled.language.figures import FOREVER, SHARE_ONE
from sim_sled.language.knobs import (
    DATASET_KIND,
    NUMBER,
    OVERRIDE,
    REGION,
    REGION_STATE,
    SLOT,
    CrucibleKnobs,
    PantryKnobs,
)
from sim_sled.language.load import Map, Node, Scalar, Seq
from sim_sled.language.record import Located, Struct, f
from sim_sled.language.words import (
    PHASES,
    POOL_HEALTH,
    PUBLISHED_STATES,
    SMF_STATES,
    STATES,
    ZONE_KINDS,
    Truth,
    hint,
)

NEVER_PUBLISHED: Final = {
    "stopped": "a sled never publishes it; it says stopping until destroyed",
    "creating": "a sled never publishes it; it says starting",
    "repairing": "no VMM is ever in it",
    "saga_unwound": "it is a state of Nexus's own records",
}
UNREACHABLE: Final = {
    "repairing": "Propolis never enters it",
    "saga_unwound": "it is a state of Nexus's own records, no VMM is ever in it",
    "no_vmm": "it is a state of an instance, not of a VMM",
}
published = OneOf(PUBLISHED_STATES, "E211", "published state", globs=True, extra=NEVER_PUBLISHED)
state = OneOf(STATES, "E211", "state", extra=UNREACHABLE)


@attrs.frozen
class Action(Located):
    """Base of all actions; `key` is the word in `do`."""

    true_alone = True
    key: ClassVar[str] = ""
    example: ClassVar[str] = "true"
    """A value that has an effect and is soon over: for the reference page, and what `tests/parity` plays."""


@attrs.frozen
class Delay(Action):
    """Wait. Under `request`: the answer comes later; under `edge`, `migration`, `publish`: that happens later.

    Everywhere: what follows in `do` comes later. Delays of several rules add up.
    """

    key: ClassVar[str] = "delay"
    example: ClassVar[str] = "150ms"
    short: ClassVar[str] = "base"
    base: Distribution = f(DistributionKind(), "How long.", codes="E180 E230 W301")
    per_vmm: Distribution = f(
        DistributionKind(), "In addition for each VMM on the sled (of the request).", default=Fixed(0), codes="E230"
    )


@attrs.frozen
class Fail(Action):
    """Answer the request with an error instead of carrying it out."""

    key: ClassVar[str] = "fail"
    example: ClassVar[str] = "503"
    short: ClassVar[str] = "status"
    status: int = f(Integer(400, 599, "E231"), "Status of the answer.", default=500, codes="E231")
    code: str | None = f(text("error code"), "`error_code` of the body.", default=None, words="none", codes="W302")
    message: str = f(text("text"), "`message` of the body.", default="injected")
    headers: tuple[tuple[str, str], ...] = f(Texts("a mapping of header to value"), "Further headers.", default=())


@attrs.frozen
class Hang(Action):
    """Give no answer for that long, then carry out nothing and close the connection."""

    key: ClassVar[str] = "hang"
    example: ClassVar[str] = "150ms"
    short: ClassVar[str] = "lasts"
    lasts: int = f(duration(forever=True), "How long the caller waits.", default=FOREVER, codes="E232")


@attrs.frozen
class Reset(Action):
    """Close the connection without an answer, nothing carried out."""

    key: ClassVar[str] = "reset"


@attrs.frozen
class Dribble(Action):
    """The request is carried out, and its answer comes in small pieces."""

    key: ClassVar[str] = "dribble"
    example: ClassVar[str] = "100ms"
    short: ClassVar[str] = "lasts"
    lasts: int = f(duration(), "How long the whole answer takes.", default=5_000_000, words="5s", codes="E232")


@attrs.frozen
class Truncate(Action):
    """The request is carried out; its answer breaks off in the middle, and the connection with it."""

    key: ClassVar[str] = "truncate"


@attrs.frozen
class Garbage(Action):
    """The request is carried out; what is answered is nothing that anybody could read."""

    key: ClassVar[str] = "garbage"


@attrs.frozen
class Clock(Action):
    """The clock of the sled jumps: times in what it says are later from now on (`back`: earlier). Nothing waits
    longer or shorter for it.
    """

    key: ClassVar[str] = "clock"
    example: ClassVar[str] = "1h"
    short: ClassVar[str] = "jump"
    jump: int = f(duration(), "How far.", codes="E243")
    back: bool = f(Boolean(), "Back instead of ahead.", default=False)


@attrs.frozen
class Hold(Action):
    """Keep publications back; released they go out in order. Under `publish`: the one that fired the rule."""

    key: ClassVar[str] = "hold"
    example: ClassVar[str] = "{publish: running, lasts: 150ms}"
    short: ClassVar[str] = "lasts"
    publish: tuple[str, ...] = f(
        Many(attrs.evolve(published, code="E233"), "states"),
        "Which publications of the VMM (or of all VMMs that `for` means).",
        default=(),
        words="under `publish`: the one that fired",
        codes="E233",
    )
    lasts: int = f(duration(forever=True), "Released after that long.", default=FOREVER, words="until released")
    until: str | None = f(
        slug("E233", "rule or manual trigger"),
        "Released when this rule or manual trigger fires.",
        default=None,
        codes="E233",
    )


@attrs.frozen
class Release(Action):
    """Let go what another rule holds."""

    key: ClassVar[str] = "release"
    example: ClassVar[str] = "held"
    short: ClassVar[str] = "rule"
    rule: str = f(slug("E233", "rule"), "The rule that holds.", codes="E233")


@attrs.frozen
class Drop(Action):
    """The publication is lost on its way. With `retry` the sled notices and sends again."""

    key: ClassVar[str] = "drop"
    example: ClassVar[str] = "{retry: true}"
    retry: bool = f(Boolean(), "Whether the sled notices (a time-out) and sends again.", default=True, codes="E234")


@attrs.frozen
class Duplicate(Action):
    """The publication arrives more than once."""

    key: ClassVar[str] = "duplicate"
    example: ClassVar[str] = "{copies: 1, gap: 20ms}"
    short: ClassVar[str] = "copies"
    copies: int = f(Integer(1, 10), "How many more.", default=1, codes="E234")
    gap: Distribution = f(DistributionKind(), "Time between them.", default=Fixed(0))


@attrs.frozen
class Reorder(Action):
    """The publication arrives after later ones of the same VMM."""

    key: ClassVar[str] = "reorder"
    example: ClassVar[str] = "{window: 2}"
    short: ClassVar[str] = "window"
    window: int = f(Integer(2, 16), "It may fall behind that many less one.", default=2, codes="E234")


@attrs.frozen
class Stale(Action):
    """An older publication of the VMM arrives again, after this one."""

    key: ClassVar[str] = "stale"
    example: ClassVar[str] = "{back: 1}"
    short: ClassVar[str] = "back"
    back: int = f(Integer(1, 5), "How many publications older.", default=1, codes="E234")


@attrs.frozen
class SetState(Action):
    """The VMM goes to another state than it would: under `edge` instead of the edge's end, elsewhere at once."""

    key: ClassVar[str] = "set_state"
    example: ClassVar[str] = "failed"
    short: ClassVar[str] = "state"
    state: Truth = f(attrs.evolve(state, code="E240"), "The state.", codes="E240 E241")
    illegal: bool = f(Boolean(), "Allow a state that cannot follow.", default=False)


@attrs.frozen
class Stall(Action):
    """The VMM stays where it is: what it waits for does not come."""

    key: ClassVar[str] = "stall"
    example: ClassVar[str] = "150ms"
    short: ClassVar[str] = "lasts"
    lasts: int = f(duration(forever=True), "How long.", default=FOREVER, codes="E241")


@attrs.frozen
class SkipStates(Action):
    """States that the VMM passes in no time, so that nobody sees them."""

    key: ClassVar[str] = "skip_states"
    example: ClassVar[str] = "[stopping]"
    short: ClassVar[str] = "states"
    states: tuple[Truth, ...] = f(Many(attrs.evolve(state, code="E240"), "states"), "Which.", codes="E240 E241")


@attrs.frozen
class KillPropolis(Action):
    """The Propolis process dies. If nobody answers in its place, the agent asks for ever (PR 3.9)."""

    key: ClassVar[str] = "kill_propolis"
    example: ClassVar[str] = "{restart: true}"
    restart: bool = f(
        Boolean(),
        "An empty Propolis answers in its place: the agent calls the VMM failed.",
        default=False,
        codes="E241",
    )


@attrs.frozen
class ForgetVmm(Action):
    """The agent loses the VMM: 404 `NO_SUCH_INSTANCE` from now on, nothing is reported."""

    key: ClassVar[str] = "forget_vmm"


@attrs.frozen
class MigrationFate(Action):
    """How a migration ends, and what becomes of both sides."""

    key: ClassVar[str] = "migration"
    example: ClassVar[str] = "{result: failed, source: resumes, target: failed}"
    short: ClassVar[str] = "result"
    result: str = f(OneOf(("completed", "failed"), "E242", "result"), "Outcome.", default="completed", codes="E242")
    phase: str | None = f(
        OneOf(PHASES, "E170", "phase"), "Where it fails.", default=None, words="the phase that fired", codes="E170"
    )
    source: str | None = f(
        OneOf(("resumes", "dies", "silent"), "E242", "fate"),
        "The source afterwards.",
        default=None,
        words="by the result",
    )
    target: str | None = f(
        OneOf(("running", "failed", "silent"), "E242", "fate"),
        "The target afterwards.",
        default=None,
        words="by the result",
    )


@attrs.frozen
class RestartAgent(Action):
    """The agent process restarts: no answers while it is down, then only the VMMs that were kept are known."""

    key: ClassVar[str] = "restart_agent"
    example: ClassVar[str] = "{down: 150ms, keep_vmms: 100%}"
    short: ClassVar[str] = "down"
    down: Distribution = f(DistributionKind(), "How long.", default=Fixed(5_000_000), codes="E243")
    keep_vmms: int = f(percent(), "How many of its VMMs it still knows.", default=SHARE_ONE, codes="E220")


@attrs.frozen
class RebootSled(Action):
    """The sled reboots: its VMMs are lost, the agent answers again after `down`."""

    key: ClassVar[str] = "reboot_sled"
    example: ClassVar[str] = "{down: 150ms}"
    short: ClassVar[str] = "down"
    down: Distribution = f(DistributionKind(), "How long.", default=Fixed(90_000_000), codes="E243")
    early_accept: int = f(
        duration(), "The agent accepts VMMs that long before its disks exist; they fail (omicron#9095).", default=0
    )


@attrs.frozen
class PowerOffSled(Action):
    """The sled loses power: no TCP answer at all."""

    key: ClassVar[str] = "power_off_sled"
    example: ClassVar[str] = "{lasts: 150ms}"
    short: ClassVar[str] = "lasts"
    lasts: int = f(duration(forever=True), "How long.", default=FOREVER, codes="E243")


@attrs.frozen
class ExpungeSled(Action):
    """The operator removes the sled for good: Nexus gives up its VMMs and calls it no more (the built-in model only).

    What the sled itself does goes on.
    """

    key: ClassVar[str] = "expunge_sled"


@attrs.frozen
class Guest(Action):
    """The guest halts, resets or faults for good, which reboots it (PR 3.4): nobody asked for it."""

    key: ClassVar[str] = "guest"
    example: ClassVar[str] = "reset"
    short: ClassVar[str] = "event"
    event: str = f(OneOf(("halt", "reset", "triple-fault"), "E111", "event"), "What it does.", codes="E241")


@attrs.frozen
class SetFacts(Action):
    """Facts of a sled beside its VMMs; what is not said stays as it is. They hold until they are set again.

    Disks and pools have numbers from 1, in the order of the inventory. The reconciler runs again when one of its
    facts has changed; a text `ok` ends what another text began.
    """

    key: ClassVar[str] = "set"
    example: ClassVar[str] = "{time_synchronized: false, pools: {1: degraded}, crucible: {born: failed}}"
    reconciler: int | None = f(
        duration(forever=True), "How long a run of the configuration's reconciler takes.", default=None, words="-"
    )
    time_synchronized: bool | None = f(Boolean(), "Whether NTP has the time.", default=None, words="-")
    missing_disks: tuple[int, ...] | None = f(
        Many(NUMBER, "numbers", may_be_empty=True), "Disks that are not in the sled.", default=None, words="-"
    )
    pools: tuple[tuple[int, str], ...] | None = f(
        Mapped(NUMBER, OneOf(POOL_HEALTH, "E111", "health"), "a mapping of number to health"),
        "What the inventory says of the health of pools.",
        default=None,
        words="-",
    )
    pool_sizes: tuple[tuple[int, int], ...] | None = f(
        Mapped(NUMBER, size(), "a mapping of number to size"), "How large pools are.", default=None, words="-"
    )
    disks: tuple[tuple[int, str], ...] | None = f(
        Mapped(NUMBER, text("text", 200), "a mapping of number to text"),
        "Disks that cannot be managed, and why.",
        default=None,
        words="-",
    )
    datasets: tuple[tuple[str, str], ...] | None = f(
        Mapped(DATASET_KIND, text("text", 200), "a mapping of kind to text"),
        "Datasets that cannot be made, by kind, and why.",
        default=None,
        words="-",
    )
    zones: tuple[tuple[str, str], ...] | None = f(
        Mapped(OneOf(ZONE_KINDS, "E111", "kind of zone"), text("text", 200), "a mapping of kind to text"),
        "Zones that cannot be started, by kind, and why.",
        default=None,
        words="-",
    )
    orphans: bool | None = f(
        Boolean(), "Datasets that leave the configuration cannot be destroyed.", default=None, words="-"
    )
    boot_slot: str | None = f(
        SLOT, "The M.2 disk that the sled booted from: after a reboot another.", default=None, words="-"
    )
    boot_disk: str | None = f(text("text", 200), "Why the boot disk is not known.", default=None, words="-")
    slots: tuple[tuple[str, str], ...] | None = f(
        Mapped(SLOT, text("text", 200), "a mapping of `a` or `b` to text"),
        "Host phase 2 slots that can be neither read nor written, and why.",
        default=None,
        words="-",
    )
    mupdate_override: str | None = f(
        OVERRIDE, "The MUPdate override on its disks, or `none`.", default=None, words="-"
    )
    services: tuple[tuple[str, str], ...] | None = f(
        Mapped(text("name", 200), OneOf(SMF_STATES, "E111", "state of a service"), "a mapping of name to state"),
        "SMF services that are enabled and not online: all there are.",
        default=None,
        words="-",
    )
    fmd: str | None = f(text("text", 200), "Why its fault manager says nothing.", default=None, words="-")
    strict_artifacts: bool | None = f(
        Boolean(), "Configurations with artifacts that it does not have are refused.", default=None, words="-"
    )
    m2_disks: int | None = f(Integer(0, 2), "M.2 disks that take artifacts.", default=None, words="-")
    unmounted: tuple[str, ...] | None = f(
        Many(DATASET_KIND, "kinds", may_be_empty=True),
        "Kinds of datasets that are not mounted: their bundles cannot be reached.",
        default=None,
        words="-",
    )
    hash_mismatches: int | None = f(
        Integer(0, 1_000_000), "So many bundles to come have another hash than announced.", default=None, words="-"
    )
    local_storage_errors: int | None = f(
        Integer(0, 1_000_000), "So many calls to come for local storage are answered 503.", default=None, words="-"
    )
    trust_quorum_silent: bool | None = f(
        Boolean(), "The sled acknowledges no trust quorum configuration.", default=None, words="-"
    )
    trust_quorum_pending: bool | None = f(
        Boolean(), "It commits no trust quorum configuration: that stays pending.", default=None, words="-"
    )
    bootstore_strict: bool | None = f(
        Boolean(), "Network configurations that are not newer are refused.", default=None, words="-"
    )
    crucible: CrucibleKnobs | None = f(Struct(CrucibleKnobs), "Its Crucible agents.", default=None, words="-")
    regions: str | tuple[tuple[str, str], ...] | None = f(
        Either(REGION_STATE, Mapped(REGION, REGION_STATE, "a mapping of number or id to state")),
        "The state that all its regions take, or single ones: by id, or by number in the order of the datasets, then "
        "of their making.",
        default=None,
        words="-",
    )
    broken_downstairs: tuple[tuple[str, int], ...] | None = f(
        Mapped(REGION, duration(forever=True), "a mapping of number or id to duration"),
        "Regions whose downstairs stops now, named as in `regions`, and how long its repair takes; `forever`: it is "
        "given up, and the region fails. Whoever writes to it tells Nexus: stopped, repair, progress, finished.",
        default=None,
        words="-",
    )
    pantry: PantryKnobs | None = f(Struct(PantryKnobs), "Its Crucible pantry.", default=None, words="-")
    volumes_taken_over: bool | None = f(
        Boolean(), "Others have activated the volumes of its pantry: who works on them is told 410.", default=None,
        words="-",
    )  # fmt: skip
    depot_broken: bool | None = f(Boolean(), "Its repo depot fails whoever asks.", default=None, words="-")


@attrs.frozen
class Partition(Action):
    """Messages do not pass between the sleds of `for` (or all) and a peer. `out`: what the sleds send is lost."""

    key: ClassVar[str] = "partition"
    example: ClassVar[str] = "{from: nexus, lasts: 150ms}"
    short: ClassVar[str] = "from"
    from_: str = f(text("`nexus` or a sled"), "The peer.", codes="E244")
    direction: str = f(OneOf(("in", "out", "both"), "E111", "direction"), "As seen from the sled.", default="both")
    lasts: int = f(duration(forever=True), "How long.", default=FOREVER)


@attrs.frozen
class NexusReplies(Action):
    """Nexus answers reports (of the sleds of `for`) with this status, its records unchanged."""

    key: ClassVar[str] = "nexus_replies"
    example: ClassVar[str] = "{status: 503, lasts: 150ms}"
    short: ClassVar[str] = "status"
    status: int = f(Integer(200, 599, "E231"), "Status.", codes="E231")
    chance: int = f(percent(), "Share of the reports.", default=SHARE_ONE, codes="E220")
    lasts: int = f(duration(forever=True), "How long.", default=FOREVER)


@attrs.frozen
class RestartNexus(Action):
    """Nexus dies and starts again: what it was doing goes on from its records (the built-in model only).

    `after_commit`: at the next report that needs an update, its rows written and nobody answered; `in_commit`: when
    the next update has been written and not yet logged.
    """

    key: ClassVar[str] = "restart_nexus"
    example: ClassVar[str] = "{down: 150ms}"
    short: ClassVar[str] = "down"
    down: Distribution = f(DistributionKind(), "How long.", default=Fixed(5_000_000))
    point: str = f(OneOf(("now", "after_commit", "in_commit"), "E111", "point"), "Where it strikes.", default="now")


@attrs.frozen
class Snapshot(Action):
    """Write the state of everything into the trace (of a daemon: into its log) under this name."""

    key: ClassVar[str] = "snapshot"
    example: ClassVar[str] = "here"
    short: ClassVar[str] = "name"
    name: str = f(slug("E110", "name"), "Its name.")


@attrs.frozen
class Note(Action):
    """A line of text in the trace."""

    key: ClassVar[str] = "note"
    example: ClassVar[str] = "seen"
    short: ClassVar[str] = "text"
    text: str = f(text("text"), "What to say.")


@attrs.frozen
class Fire(Action):
    """Fire a manual trigger."""

    key: ClassVar[str] = "fire"
    example: ClassVar[str] = "further"
    short: ClassVar[str] = "manual"
    manual: str = f(slug("E245", "manual trigger"), "Its name.", codes="E245")


ACTIONS: Final[dict[str, type[Action]]] = {
    cls.key: cls
    for cls in (
        Delay, Fail, Hang, Reset, Dribble, Truncate, Garbage, Hold, Release, Drop, Duplicate, Reorder, Stale,
        SetState, Stall, SkipStates, KillPropolis, ForgetVmm, MigrationFate, Guest, RestartAgent, RebootSled,
        PowerOffSled, ExpungeSled, SetFacts, Clock, Partition, NexusReplies, RestartNexus, Snapshot, Note,
        Fire,
    )
}  # fmt: skip
SPOILING: Final = (Dribble, Truncate, Garbage)
REQUEST_ONLY: Final = (Fail, Hang, Reset, *SPOILING)
PUBLISH_ONLY: Final = (Drop, Duplicate, Reorder, Stale)
ON_VMM: Final = (SetState, Stall, SkipStates, KillPropolis, ForgetVmm, MigrationFate, Guest)
ON_SLED: Final = (RestartAgent, RebootSled, PowerOffSled, ExpungeSled, SetFacts, Clock)


def _as_mapping(item: Node) -> str:
    """What may have been meant by an action that is only named."""
    cls = ACTIONS.get(item.text) if isinstance(item, Scalar) else None
    return "{delay: 3s}" if cls is None else f"{{{cls.key}: {cls.example}}}"


@attrs.frozen
class ActionsKind:
    """`do`: one mapping of actions, or a list of them."""

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        items = node.items if isinstance(node, Seq) else [node]
        if not items or (isinstance(node, Scalar) and node.is_null):
            return reader.bad("E111", node.mark, f"'{field}' names no action")
        actions: list[Any] = []
        for item in items:
            if not isinstance(item, Map):
                reader.bad("E111", item.mark, f"an action is a mapping, e.g. {_as_mapping(item)}")
                actions.append(BAD)
                continue
            actions += self._one(item, reader)
        good = tuple(a for a in actions if a is not BAD)
        return good or BAD  # the good ones are checked on; a scenario with errors is never handed out

    def _one(self, item: Map, reader: Reader) -> list[Any]:
        read: list[Any] = []
        for key, value in item.pairs:
            if key.text == "illegal" and item.get("set_state") is not None:
                continue
            cls = ACTIONS.get(key.text)
            if cls is None:
                # whoever is nowhere near one has to see what there is
                advice = hint(key.text, ACTIONS) or f"; known: {', '.join(ACTIONS)}"
                read.append(reader.bad("E102", key.mark, f"unknown action '{key.text[:60]}'{advice}"))
                continue
            action = Struct(cls).read(value, reader, key.text)
            if isinstance(action, Action):
                action = attrs.evolve(action, marks={**action.marks, "do:": key.mark})
                forced = item.get("illegal")
                if isinstance(action, SetState) and forced is not None:
                    flag = Boolean().read(forced, reader, "illegal")
                    action = BAD if flag is BAD else attrs.evolve(action, illegal=flag)
            read.append(action)
        return read

    def show(self, value: Any) -> Any:
        shown = []
        for action in value:
            body = Struct(type(action)).show(action)
            shown.append({action.key: True if body == {} else body})
        return shown[0] if len(shown) == 1 else shown

    def schema(self) -> dict[str, Any]:
        one = {
            "type": "object",
            "properties": {k: Struct(c).schema() for k, c in ACTIONS.items()} | {"illegal": {"type": "boolean"}},
            "additionalProperties": False,
            "minProperties": 1,
        }
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}

    def words(self) -> str:
        return "[actions](#actions)"
