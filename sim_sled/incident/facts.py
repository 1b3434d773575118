"""What a log line can say of a VMM's life, of a sled or of Nexus, as values. The numbers are those of LG 2.

Read before: incident/lines.py. Read next: incident/messages.py, incident/clocks.py, incident/silences.py,
incident/timeline.py.
"""

from __future__ import annotations

from enum import Enum

import attrs

from sim_sled.incident.lines import Where

A_MIGRATION: str = "a migration"
"""The id of one that no line tells."""


class Op(Enum):
    """A request of Nexus to a sled; values are the operation ids of the scenario language."""

    REGISTER = "vmm_register"
    PUT_STATE = "vmm_put_state"
    GET_STATE = "vmm_get_state"
    UNREGISTER = "vmm_unregister"


@attrs.frozen(kw_only=True)
class Fact:
    """Base. `at_us`: by the clock of `host`; `vmm` and `instance`: ids as text, "" if the line does not name them.
    Two are equal if they say the same: rotated and archived files repeat each other's lines (LG 1.3).
    """

    where: Where = attrs.field(eq=False)
    host: str
    at_us: int
    pid: int = 0
    vmm: str = ""
    instance: str = ""


@attrs.frozen(kw_only=True)
class Described(Fact):
    """1: a registration arrived; the one source of host name, size and role. `migration`: the id of that of which it
    is the target, "" if it is none.
    """

    hostname: str = ""
    ncpus: int | None = None
    memory: int | None = None
    migration: str = ""


@attrs.frozen(kw_only=True)
class Asked(Fact):
    """6 to 13: a request to a sled has ended. `at_us` is its end. `status` None: the caller had gone away.
    `late`: its handler ended after that. `peer`: the address of who asked.
    """

    op: Op
    status: int | None
    latency_us: int
    req_id: str
    code: str = ""
    why: str = ""
    said: str = ""
    late: bool = False
    peer: str = attrs.field(default="", eq=False)


@attrs.frozen(kw_only=True)
class Observed(Fact):
    """25, 129: a Propolis state. `exact`: Propolis's own word, else the agent's, which may be late (LG 0 #8).
    `whole`: our own sled's, with which Propolis, zone and agent end in one instant. `heard`: as Nexus took it, to
    whom a stop is one state until all is over.
    """

    state: str
    exact: bool = False
    whole: bool = False
    heard: bool = False


@attrs.frozen(kw_only=True)
class Wanted(Fact):
    """123, and our own line: which state was asked for. `verb`: "start", "stop", "reboot", "migrate".
    `arrived`: `at_us` is when the sled was asked; Propolis is asked later.
    """

    verb: str
    arrived: bool


@attrs.frozen(kw_only=True)
class Published(Fact):
    """27: an attempt to report. States are those of the sled agent; of a migration "" if there is none."""

    state: str
    gen: int
    migration_in: str = ""
    migration_out: str = ""
    migration: str = ""


@attrs.frozen(kw_only=True)
class NotTaken(Fact):
    """28, 29: Nexus did not take the report. `status` None: no answer came. `final`: it is not repeated."""

    status: int | None
    final: bool
    retry_us: int | None = None


@attrs.frozen(kw_only=True)
class Zone(Fact):
    """14 to 18: a step of the start. `step`: "configuring", "installing", "booting", "started", "online"."""

    step: str


class Ending(Enum):
    """What a VMM's agent says about an unusual or slow end."""

    BUNDLE_BEGINS = "zone bundle begins"
    BUNDLE_ENDS = "zone bundle ends"
    RUNNER_EXITED = "the runner exited"
    GRACE_OVER = "the grace period is over"
    ZONE_GONE = "the zone is gone"
    SILENT = "Propolis does not answer"
    EMPTY = "Propolis has no VM any more"
    SETUP_FAILED = "the zone could not be set up"
    ENSURE_FAILED = "Propolis refused the VM"
    GUEST_HALT = "the guest shut itself down"
    GUEST_RESET = "the guest reset itself"
    PROCESS_STARTED = "a Propolis process started"
    PROCESS_DIED = "the Propolis process died"


@attrs.frozen(kw_only=True)
class Ended(Fact):
    """30 to 43, 120, 130, 131."""

    how: Ending
    text: str = ""


@attrs.frozen(kw_only=True)
class Agent(Fact):
    """52 to 56: the sled's agent. `step`: "starts", "listens", "registered"; "died": its process did, by itself;
    "ends": it was ended; "boots", "enabled": only when its host does; "lives": it answered a check that is not
    kept, the last one before a start.
    """

    step: str


@attrs.frozen(kw_only=True)
class Dropped(Fact):
    """The logger threw lines away: conclusions from what is not there are uncertain before this line."""

    count: int


@attrs.frozen(kw_only=True)
class User(Fact):
    """60, 61: a user's (or the migration saga's) wish as Nexus took it. `key`: the instance's id or name. `at_us`:
    when it was asked for; its line comes when it was answered (LG 0 #7). `status` 0: its caller did not wait.
    `begun`: what was wished for had begun, whatever was answered: a saga that unwinds answers with an error.
    """

    verb: str
    key: str
    status: int
    begun: bool = False

    @property
    def counts(self) -> bool:
        """Whether it is to be wished for in a replay, too."""
        return self.begun or self.status < 400


@attrs.frozen(kw_only=True)
class Received(Fact):
    """63: Nexus took a state. `pushed`: by a report; else by an answer or a health check."""

    state: str
    gen: int
    pushed: bool


@attrs.frozen(kw_only=True)
class Declined(Fact):
    """62: Nexus's own line about a report that it did not take."""

    status: int


@attrs.frozen(kw_only=True)
class Doing(Fact):
    """127, 133, 146: what a Propolis was at, which names a culprit if nothing follows (LG 2.3)."""

    text: str


@attrs.frozen(kw_only=True)
class Answered(Fact):
    """107, 70 and others: an error text of a sled in Nexus's log; `req_id` is the sled's own (LG 0 #6)."""

    req_id: str
    status: int


@attrs.frozen(kw_only=True)
class Verdict(Fact):
    """70 to 75, 67: Nexus gave a VMM up. `why`: "gone", "sled off", "expunged", "unreachable"."""

    why: str


@attrs.frozen(kw_only=True)
class Starting(Fact):
    """80, 101: a start saga or a reincarnation. `automatic`: nobody asked for it. `saga`: its id."""

    automatic: bool
    saga: str = ""


@attrs.frozen(kw_only=True)
class Unwound(Fact):
    """82, 83, 90: a sled refused what a saga asked. `req_id` is the sled's own, "" if the text has none."""

    op: Op
    status: int
    saga: str
    req_id: str


@attrs.frozen(kw_only=True)
class Noted(Fact):
    """Something that no action of a sled makes, or that explains the rest; it is quoted and plays nothing (LG 6)."""

    text: str


@attrs.frozen(kw_only=True)
class Migrated(Fact):
    """95, 138 to 143: how a migration ended. `failed_in`: "" if it is not known."""

    failed: bool
    side: str
    phase: str = ""


@attrs.frozen(kw_only=True)
class Phase(Fact):
    """129: a phase of a migration, as Propolis says it."""

    side: str
    phase: str
    migration: str = ""


@attrs.frozen(kw_only=True)
class Sides(Fact):
    """89 to 91, 95: which VMMs a migration is of, as Nexus says it; `vmm` is its source."""

    target: str


@attrs.frozen(kw_only=True)
class OnSled(Fact):
    """69: which sled a VMM is on; `serial` is the sled's host name in its own log."""

    serial: str
    sled_id: str


@attrs.frozen(kw_only=True)
class NexusStep(Fact):
    """109, and SMF's words: a process of Nexus. `step`: "starts", "ends"; "lives": the last record before a start."""

    step: str
