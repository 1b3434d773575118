"""What the control API of a daemon is asked with and what it answers: the types that its document is made of.

An answer has the fields named here and no other; times are RFC 3339, durations say their unit.

Read before: nexus_client/dropshot/operations.py. Read next: daemon/control.py.
"""

from __future__ import annotations

from typing import Any, Final, NotRequired, TypedDict

import msgspec

from nexus_client.types import VmmState
from propolis_stub.guest_events import GuestEvent

# ---- bodies --------------------------------------------------------------------------------------------------------


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What is said is told again in the answer, and nothing else."""


class StateFault(_Body):
    """The VMM is in a state, by way of those between; `illegal`: at once, as no Propolis would."""

    state: VmmState
    illegal: bool = False


class KillPropolis(_Body):
    """`restart`: whether the agent finds a new one in its place."""

    restart: bool


class KillFault(_Body):
    """Its Propolis dies."""

    kill_propolis: KillPropolis


class ForgetFault(_Body):
    """The agent forgets the VMM, if this is true."""

    forget_vmm: bool


class GuestFault(_Body):
    """The guest does something by itself."""

    guest: GuestEvent


class DoFault(_Body):
    """An action of the scenario language is done to it, as a rule would: `stall: 30s`, `hold: {publish: running}`."""

    do: str


VmmFault = StateFault | KillFault | ForgetFault | GuestFault | DoFault


class ScenarioText(_Body):
    """A scenario file as its text."""

    scenario: str


class FactsWanted(_Body):
    """Facts of a sled, in the words of the language (docs/scenario-reference.md, SetFacts)."""

    set: dict[str, Any]


class SledsWanted(_Body):
    """How many sleds the rack is to have."""

    sleds: int


class StepsWanted(_Body):
    """How many moments are to go by."""

    steps: int = 1


SNAPSHOT_TEXT_MAX: Final = 48 * 1024 * 1024
"""Bytes of a snapshot: some hundred thousand VMMs. A body may not be much larger."""


class SnapshotText(_Body):
    """A snapshot as its text."""

    snapshot: str


class UntilWanted(_Body):
    """How much time is to go by: at most, if a VMM (by any of its names) is to be in a state, which ends it."""

    within_ms: int
    who: str = ""
    state: str = ""


# ---- answers -------------------------------------------------------------------------------------------------------


class Readiness(TypedDict):
    """`message`: what is waited for."""

    ready: bool
    not_registered: list[str]
    handed_over: bool
    message: NotRequired[str]


class Version(TypedDict):
    name: str
    version: str


class Time(TypedDict):
    """What time it is on the clock of this daemon, and in how long something is due; null: nothing is."""

    now: str
    now_us: int
    paused: bool
    next_in_ms: float | None


class Moved(Time):
    """`steps`: how many moments went by; `met`: whether what was asked for came about, and `says` what if not."""

    steps: int
    met: bool
    says: list[str]


class Restored(TypedDict):
    """What was taken up, and what time it is now."""

    taken: str
    sleds: int
    vmms: int
    model: bool


class SledRow(TypedDict):
    """`unacknowledged`: reports that Nexus has not taken yet."""

    sled_id: str
    address: str | None
    mode: str
    vmms: int
    unacknowledged: int
    threads_used: int
    memory_mib_used: int
    registration: str | None


class Networking(TypedDict):
    """The virtual networks of a sled in effect (SA 6 #26)."""

    vmms: dict[str, Any]
    v2p: list[Any]
    vpc_routes: list[Any]
    firewall: dict[str, Any]
    eip_gateways: dict[str, Any]
    probes: list[Any]


class MigrationSide(TypedDict):
    migration_id: str
    state: str
    gen: int


class VmmFacts(TypedDict):
    """`resting`: where it will be when everything asked for is done; `acked`: what Nexus took last."""

    propolis_id: str
    sled_id: str
    instance_id: str
    hostname: str
    state: str
    gen: int
    resting: str
    propolis: str | None
    acked: str | None
    refused: str | None
    migration_in: MigrationSide | None
    migration_out: MigrationSide | None
    propolis_addr: str


_In = TypedDict("_In", {"in": str})  # a word of Python
_From = TypedDict("_From", {"from": NotRequired[str]})  # same


class VmmRow(VmmFacts, _In):
    """A line of `ps`. `in`: the state in words of the language; `rule`: the one that holds a report of it, or stalls
    it where it is; `sled`: as the scenario's fleet calls it, its id if none does; `unacknowledged`: how often its
    report has gone out, 0 once Nexus has taken it.
    """

    ordinal: str
    sled: str
    since: str | None
    asked: str | None
    unacknowledged: int
    rule: str | None
    restarts: int
    propolis_listens: str | None


class AskedFor(TypedDict):
    at: str
    request: str


class ToldNexus(TypedDict):
    """A report on its way."""

    pending: str
    in_flight: bool
    attempt: int
    last_failure: str | None
    retry_in_ms: int | None


class RuleNote(TypedDict):
    at: str
    rule: str
    where: str
    text: str


class Why(TypedDict):
    """Everything about a VMM; `says` is the same in sentences. Of one that is gone, what is still known."""

    propolis_id: str
    sled_id: str
    instance_id: str
    hostname: str
    state: str
    acked: str | None
    says: list[str]
    rules: list[RuleNote]
    registered_at: str
    since: str
    gone: NotRequired[bool]
    gen: NotRequired[int]
    resting: NotRequired[str]
    propolis: NotRequired[str | None]
    refused: NotRequired[str | None]
    migration_in: NotRequired[MigrationSide | None]
    migration_out: NotRequired[MigrationSide | None]
    propolis_addr: NotRequired[str]
    asked: NotRequired[list[AskedFor]]
    waits_for: NotRequired[str | None]
    due_in_ms: NotRequired[int | None]
    told_nexus: NotRequired[ToldNexus | None]


class LogLine(TypedDict):
    at: str
    sled_id: str
    kind: str
    text: str


class LifeEvent(_From):
    """As `events` has it; what is empty is left out."""

    at_us: int
    kind: str
    to: NotRequired[str]
    gen: NotRequired[int]
    attempt: NotRequired[int]
    text: NotRequired[str]


class Brief(TypedDict):
    """A VMM, also one that is gone. `n`: its ordinal."""

    id: str
    n: int
    name: str
    sled: str
    instance: str
    state: str
    acked: str
    gone: bool


class Life(Brief):
    """`states`: since when it was in which; `migrations`: those that its reports speak of; `says`: its why."""

    says: list[str]
    migrations: list[str]
    events: list[LifeEvent]
    states: list[tuple[int, str]]


class Story(TypedDict):
    """`lives`: this VMM and whoever it has migrated from or to, oldest first. `others`: more of its instance."""

    at_us: int
    why: Why
    lives: list[Life]
    others: list[Brief]


class Expected(TypedDict):
    """`met`: whether it was so in time; if not, `says` has the timeline and why."""

    met: bool
    says: NotRequired[list[str]]
    propolis_id: NotRequired[str]
    hostname: NotRequired[str]


class Injected(TypedDict):
    """The fault as it was understood. `rule`: of an action, by which it is known from now on."""

    injected: Any
    rule: NotRequired[str]


class RuleRow(TypedDict):
    """`at`: its place in the file."""

    name: str
    at: str
    enabled: bool
    matched: int
    fired: int


class Played(TypedDict):
    """The scenario in effect. `revision` counts from 1 and goes up with each other one; `last_error`: why the newest
    that was offered is not in effect.
    """

    name: str | None
    revision: int
    file: str | None
    last_error: str | None


class Rules(TypedDict):
    rules: int


class BadScenario(TypedDict):
    """`problems`: as `sim-sled check` prints them. A body that is no such text is refused like any other."""

    message: str
    problems: NotRequired[str]
    request_id: NotRequired[str]


class Sleds(TypedDict):
    sleds: int


class Fired(TypedDict):
    fired: str


class Released(TypedDict):
    released: str


class CompanionsShown(TypedDict):
    """Addresses of the servers beside a sled, their knobs, and what waits to be refused."""

    crucible: dict[str, str]
    pantry: str | None
    repo_depot: str | None
    dns: dict[str, str | None]
    knobs: dict[str, Any]
    refusals: list[Any]
