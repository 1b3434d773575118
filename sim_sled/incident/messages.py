"""What a log line says, if it says anything of a VMM's life: one table of messages per program (LG 2).

Messages are matched on their stable middle, whatever the version (LG 2.4); values printed by Rust's `{:?}` are
read by regular expressions, since they are no JSON. The numbers beside the rows are those of LG 2.

Read before: incident/facts.py. Read next: incident/importing.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import attrs

from nexus_client.dropshot.durations import microseconds
from sim_sled.incident.facts import (
    Agent,
    Answered,
    Asked,
    Declined,
    Described,
    Doing,
    Dropped,
    Ended,
    Ending,
    Fact,
    Migrated,
    NexusStep,
    Noted,
    NotTaken,
    Observed,
    OnSled,
    Op,
    Phase,
    Published,
    Received,
    Sides,
    Starting,
    Unwound,
    User,
    Verdict,
    Wanted,
    Zone,
)
from sim_sled.incident.lines import LogLine

LATENCY_MAX_US: Final = 86_400_000_000
"""A day: nobody waits longer for an answer, so what says so is garbled."""
_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def facts_of(line: LogLine) -> list[Fact]:
    """What a line says; mostly nothing."""
    if line.time_us is None:
        return []
    found: list[Fact] = []
    low = line.msg.lower()
    if "logger dropped messages" in low:
        found += _make(Dropped, line, count=line.number("count") or 0)
    if low.startswith("request "):
        found += _request(line, low)
    for needle, make in _TABLES.get(line.program, ()):
        if needle in low:
            found += make(line)
    if line.program == "nexus":
        found += _answer_in_error(line)
    return found


def _head(line: LogLine) -> dict[str, object]:
    """The fields of every fact. A zone's name tells the VMM where no key does (LG 1.1)."""
    assert line.time_us is not None
    vmm = line.text("propolis_id") or line.text("vmm_id")
    if not vmm:
        around = f"{line.host} {line.text('zone_name')} {line.text('zone')} {line.msg[:300]}"
        named = re.search(rf"oxz_propolis-server_({_UUID})", around)
        metadata = re.search(rf'zone_name: "oxz_propolis-server_({_UUID})', line.text("metadata"))
        named = metadata or named
        vmm = named[1] if named is not None else ""
    return {
        "where": line.where,
        "host": line.host,
        "at_us": line.time_us,
        "pid": line.pid,
        "vmm": _id(vmm),
        "instance": _id(line.text("instance_id")),
    }


def _error(line: LogLine) -> str:
    """The text of an error, whatever its key is called (LG 1.1)."""
    return next((line.text(key) for key in ("error", "err", "reason", "errors") if line.text(key)), "")


def _id(text: str) -> str:
    """`uuid (propolis)` and `Some(uuid)` are ids too (LG 0 #4)."""
    found = re.search(_UUID, text)
    return "" if found is None else found[0]


def _make(kind: type[Fact], line: LogLine, **more: object) -> list[Fact]:
    return [kind(**(_head(line) | more))]  # type: ignore[arg-type]  # each row names the fields of its class


# ---- requests, the same line in all three programs (LG 1.2)

_SLED_PATHS: Final = (
    ("PUT", re.compile(rf"^/(?:vmms|instances)/({_UUID})$"), Op.REGISTER),
    ("DELETE", re.compile(rf"^/(?:vmms|instances)/({_UUID})$"), Op.UNREGISTER),
    ("PUT", re.compile(rf"^/(?:vmms|instances)/({_UUID})/state$"), Op.PUT_STATE),
    ("GET", re.compile(rf"^/(?:vmms|instances)/({_UUID})/state$"), Op.GET_STATE),
)
_USER_PATH: Final = re.compile(r"(?:^|https?://[^/]+)/v1/instances(?:/([^/?]+)(?:/(start|stop|reboot))?)?(?:\?.*)?$")
_MIGRATE_PATH: Final = re.compile(rf"/instances/({_UUID})/migrate")


def _request(line: LogLine, low: str) -> list[Fact]:
    gone = "client disconnected" in low
    late = "already cancelled" in low
    if not (gone or late or low.startswith("request completed")):
        return []
    uri, method = line.text("uri"), line.text("method")
    if line.program == "sled-agent":
        for verb, path, op in _SLED_PATHS:
            found = path.match(uri)
            if verb == method and found is not None:
                return [
                    Asked(
                        **(_head(line) | {"vmm": found[1]}),  # type: ignore[arg-type]  # as in `_make`
                        op=op,
                        status=None if gone else _status(line),
                        latency_us=_latency_us(line),
                        req_id=line.text("req_id"),
                        why=line.text("error_message_internal"),
                        said=line.text("error_message_external"),
                        late=late,
                        peer=line.text("remote_addr").rpartition(":")[0],
                    )
                ]
        return _of_another_kind(line, uri, gone=gone)
    if line.program == "nexus":
        # a user who went away has asked nevertheless, once
        return ([] if gone else _declined(line, method, uri)) or ([] if late else _user(line, method, uri))
    return []


def _declined(line: LogLine, method: str, uri: str) -> list[Fact]:
    verb, path, _ = _SLED_PATHS[0]  # reports have the path of registrations
    found, status = path.match(uri), _status(line)
    if found is None or method != verb or status < 400:
        return []
    return [Declined(**(_head(line) | {"vmm": found[1]}), status=status)]  # type: ignore[arg-type]  # as in `_make`


_OTHER_PATH: Final = re.compile(
    rf"^/(?:(?:vmms|instances)/{_UUID}/)?(external-ip|multicast-group|attached-subnets|disks)\b"
)


def _status(line: LogLine) -> int:
    """Of an answer; 0 if it is not told or is none."""
    told = line.number("response_code") or 0
    return told if 100 <= told <= 599 else 0


def _latency_us(line: LogLine) -> int:
    """How long a request took, 0 if that is not told or cannot be."""
    told = line.number("latency_us") or 0
    return told if 0 <= told <= LATENCY_MAX_US else 0


def _of_another_kind(line: LogLine, uri: str, *, gone: bool) -> list[Fact]:
    """12: other requests of a VMM. Nobody makes them in a replay, so what went wrong with them is only told."""
    found = _OTHER_PATH.match(uri)
    status = _status(line)
    if found is None or not (gone or status >= 500):
        return []
    outcome = "not answered until its caller gave up" if gone else f"answered {status}"
    return _make(Noted, line, text=f"{line.text('method')} {found[1]} of a VMM was {outcome}")


def _user(line: LogLine, method: str, uri: str) -> list[Fact]:
    status, moved = _status(line), _MIGRATE_PATH.search(uri)
    found = _USER_PATH.search(uri)
    if method == "POST" and moved is not None:
        return _wish(line, "migrate", moved[1], status)
    if found is None or line.text("component") not in ("dropshot_external", "dropshot_external_techport", ""):
        return []
    key, verb = found[1] or "", found[2] or ""
    if method == "POST" and (verb or not key):
        return _wish(line, verb or "create", key, status)
    return _wish(line, "delete", key, status) if method == "DELETE" and key and not verb else []


def _wish(line: LogLine, verb: str, key: str, status: int) -> list[Fact]:
    assert line.time_us is not None
    return _make(User, line, verb=verb, key=key, status=status, at_us=line.time_us - _latency_us(line))


def _answer_in_error(line: LogLine) -> list[Fact]:
    req_id, status = _answer_in(_error(line) + line.text("result"))
    return _make(Answered, line, req_id=req_id, status=status) if req_id else []


def _answer_in(text: str) -> tuple[str, int]:
    """The sled's id of a request and its status, as progenitor's text of an error has them; else "" and 0."""
    found = re.search(rf'x-request-id"?: "?\\?"?({_UUID})', text) or re.search(rf'request_id: \\?"({_UUID})', text)
    status = re.search(r"status: (\d{3})", text)
    return "" if found is None else found[1], int(status[1]) if status else 0


def _unwound(op: Op) -> Callable[[LogLine], list[Fact]]:
    def make(line: LogLine) -> list[Fact]:
        req_id, status = _answer_in(_error(line))
        return (
            _make(Unwound, line, op=op, status=status, saga=line.text("saga_id"), req_id=req_id)
            if 400 <= status <= 599
            else []
        )

    return make


def _noted(text: str) -> Callable[[LogLine], list[Fact]]:
    return lambda line: _make(Noted, line, text=text)


# ---- Rust's debug texts

_VMM_STATE: Final = re.compile(
    r"vmm_state: VmmRuntimeState \{ state: (\w+)(?:\([^)]*\))?, gen(?:eration)?: Generation\((?:Generation\()?(\d+)"
)
_RUNTIME: Final = re.compile(r"state: (\w+)(?:\([^)]*\))?, gen(?:eration)?: Generation\((?:Generation\()?(\d+)")
_RUN_STATE: Final = re.compile(r"run_state: (\w+)\b.*?\bgen: Generation\((?:Generation\()?(\d+)", re.DOTALL)
"""Until 2023-10, before instances and their VMMs were told apart (LG 2.4)."""
_PROPOLIS: Final = re.compile(r"PropolisInstanceState\((\w+)\)")
_SIDE: Final = re.compile(r"migration_(in|out): (None|Some\(MigrationRuntimeState \{[^}]*?state: (\w+))")
_STATUS: Final = re.compile(r"(?:status:|answered) (\d{3})|\b([45]\d\d) [A-Z]")
_DURATION: Final = re.compile(r"(?:(\d+)m(?!s))?(?:([\d.]+)(ns|us|µs|ms|s))?")


def rust_duration_us(text: str) -> int | None:
    """Microseconds of `809.947502ms`, `1.9s`, `1m 2s` as Rust prints them."""
    units = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}
    total, seen = 0.0, False
    for number, unit in re.findall(r"([\d.]+)(ns|us|µs|ms|m|s)", text):
        seen = True
        total += float(number) * (60e6 if unit == "m" else units[unit])
    return round(total) if seen else None


def _described(line: LogLine) -> list[Fact]:
    config = line.text("local_config")
    spec = line.text("propolis_spec") + line.text("hardware") + line.text("initial_hardware")
    if line.text("vm"):  # our own
        memory_mib = line.number("memory_mib")
        return _make(
            Described,
            line,
            hostname=line.text("vm"),
            ncpus=line.number("ncpus"),
            memory=None if memory_mib is None else memory_mib * 1024**2,
            migration=line.text("migration_id"),
        )
    host = re.search(r'hostname: Hostname\("([^"]+)"\)|hostname: "([^"]+)"', config + spec)
    cpus = re.search(r"\b(?:n?cpus): (?:InstanceCpuCount\()?(\d+)", spec + config)
    memory = re.search(r"memory_mb: (\d+)", spec)
    size = re.search(r"memory: ByteCount\((?:ByteCount\()?(\d+)", spec + config)
    bytes_of = int(memory[1]) * 1024**2 if memory else int(size[1]) if size else None
    return _make(
        Described,
        line,
        hostname=(host[1] or host[2]) if host else "",
        ncpus=int(cpus[1]) if cpus else None,
        memory=bytes_of,
        migration=_id(line.text("migration_id")),
    )


_WANTED: Final = {
    "run": "start",
    "running": "start",
    "stop": "stop",
    "stopped": "stop",
    "reboot": "reboot",
    "migration_target": "migrate",
}


def _wanted(line: LogLine) -> list[Fact]:
    ours = line.text("to")
    verb = _WANTED.get((ours or line.text("state")).lower())
    return [] if verb is None else _make(Wanted, line, verb=verb, arrived=bool(ours))


_BEGINNINGS: Final = frozenset({"creating", "starting"})


def _observed(line: LogLine) -> list[Fact]:
    if line.text("to"):  # our own, and as exact as Propolis
        found = _make(Observed, line, state=line.text("to"), exact=True, whole=True)
        if line.text("to") == "failed" and line.text("from") in _BEGINNINGS:
            found += _ended(Ending.SETUP_FAILED)(line)
        return found
    named = _PROPOLIS.search(line.text("state") or line.msg)
    return _make(Observed, line, state=named[1].lower()) if named is not None else []


def _failed_at_last(line: LogLine) -> list[Fact]:
    """A VMM that failed may have no Propolis to say so."""
    if line.text("to") != "failed":
        return []
    gone = [] if line.text("from") in _BEGINNINGS else _ended(Ending.ZONE_GONE)(line)
    return _make(Observed, line, state="failed") + gone


def _published(line: LogLine) -> list[Fact]:
    if line.text("to"):  # our own
        sides = {side: line.text(f"migration_{side}") for side in ("in", "out")}
        gen = line.number("gen") or 0
        return _make(
            Published, line, state=line.text("to"), gen=gen, migration_in=sides["in"], migration_out=sides["out"]
        )
    told = line.text("state")
    found = _VMM_STATE.search(told) or _RUN_STATE.search(told) or _RUNTIME.search(told)
    if found is None:
        return []
    sides = {side: (state or "").lower() for side, _, state in _SIDE.findall(line.text("state"))}
    return _make(
        Published,
        line,
        state=found[1].lower(),
        gen=int(found[2]),
        migration_in=_progress(sides.get("in", "")),
        migration_out=_progress(sides.get("out", "")),
        migration=_id(told.partition("MigrationRuntimeState")[2]),
    )


def _progress(state: str) -> str:
    return {"inprogress": "in_progress"}.get(state, state)


def _not_taken(line: LogLine) -> list[Fact]:
    found = _STATUS.search(line.msg + _error(line))
    told = int(found[1] or found[2]) if found is not None else 0
    status, final = told if 200 <= told <= 599 else None, "will not retry" in line.msg.lower()
    return _make(NotTaken, line, status=status, final=final, retry_us=rust_duration_us(line.text("retry_after")))


def _zone(step: str) -> Callable[[LogLine], list[Fact]]:
    return lambda line: _make(Zone, line, step=step)


def _ended(how: Ending) -> Callable[[LogLine], list[Fact]]:
    return lambda line: _make(Ended, line, how=how, text=(_error(line) or line.msg)[:200])


def _agent(step: str) -> Callable[[LogLine], list[Fact]]:
    return lambda line: _make(Agent, line, step=step)


def _own_down(line: LogLine) -> list[Fact]:
    """A sled of our own without power, or rebooted: the line says for how long. Not of one that stays off."""
    lasts_us = microseconds(line.msg.rpartition(" ")[2])
    if line.text("kind") != "sled" or line.time_us is None or lasts_us is None:
        return []
    up: dict[str, object] = {"pid": 0, "at_us": line.time_us + int(lasts_us)}  # the process of all sleds is one
    return [
        *_make(Agent, line, step="died", pid=0),
        *_make(Agent, line, step="boots", **up),
        *_make(Agent, line, step="starts", **up),
    ]


def _nexus(step: str) -> Callable[[LogLine], list[Fact]]:
    return lambda line: _make(NexusStep, line, step=step)


def _listening(line: LogLine) -> list[Fact]:
    return _make(Agent, line, step="listens") if line.text("component") == "dropshot (SledAgent)" else []


def _ensure_result(line: LogLine) -> list[Fact]:
    return _ended(Ending.ENSURE_FAILED)(line) if "call is err" in line.msg.lower() else []


def _received(line: LogLine) -> list[Fact]:
    told = line.text("vmm_state") or line.text("runtime_state")
    found = _RUN_STATE.search(told) or _RUNTIME.search(told)
    if found is None:
        return []
    uri = line.text("uri")
    return (
        _make(
            Received,
            line,
            state=found[1].lower(),
            gen=int(found[2]),
            pushed=uri.startswith(("/vmms/", "/instances/")),
        )
        if (line.text("propolis_id") or line.text("vmm_id") or uri)
        else []
    )


def _verdict(why: str) -> Callable[[LogLine], list[Fact]]:
    return lambda line: _make(Verdict, line, why=why)


def _unreachable(line: LogLine) -> list[Fact]:
    """Until 2026-04 the same words told of an answer that was an error."""
    return [] if "Error Response" in _error(line) else _verdict("unreachable")(line)


def _on_sled(line: LogLine) -> list[Fact]:
    if not line.text("sled_serial"):
        return []
    return _make(OnSled, line, serial=line.text("sled_serial"), sled_id=_id(line.text("sled_id")))


def _starting(line: LogLine) -> list[Fact]:
    automatic = "auto" in line.text("start_reason").lower()
    return _make(Starting, line, automatic=automatic, saga=line.text("saga_id"))


_FAILED_IN: Final = (
    (re.compile(r"device ?state|non-migratable device", re.IGNORECASE), "device"),
    (re.compile(r"specs incompatible|no compatible destination protocols", re.IGNORECASE), "sync"),
)


def _migrated(*, failed: bool, side: str = "") -> Callable[[LogLine], list[Fact]]:
    def make(line: LogLine) -> list[Fact]:
        phase = next((phase for pattern, phase in _FAILED_IN if pattern.search(_error(line) + line.msg)), "")
        found = _make(Migrated, line, failed=failed, side=side, phase=phase)
        source = _id(line.text("src_propolis_id") or line.text("source_propolis_id"))  # Nexus names both sides
        return [attrs.evolve(each, vmm=each.vmm or source) for each in found]

    return make


def _doing(line: LogLine) -> list[Fact]:
    return _make(Doing, line, text=line.msg[:120])


def _sides(line: LogLine) -> list[Fact]:
    source = _id(line.text("src_propolis_id") or line.text("source_propolis_id"))
    target = _id(line.text("dst_propolis_id") or line.text("target_propolis_id"))
    return _make(Sides, line, vmm=source, target=target) if source and target else []


def _own_state(line: LogLine) -> list[Fact]:
    """129: exact, and the phases of a migration beside it."""
    found: list[Fact] = []
    state = re.search(r"\w+", line.text("state"))
    if state is not None:
        found += _make(Observed, line, state=state[0].lower(), exact=True)
    for side, about, phase in re.findall(
        r"migration_(in|out): Some\(InstanceMigrationStatus \{([^}]*?)state: (\w+)", line.text("migration")
    ):
        word = re.sub(r"(?<!^)(?=[A-Z])", "_", phase).lower()
        found += _make(Phase, line, side=side, phase=word, migration=_id(about))
    return found


_Row = tuple[str, Callable[[LogLine], list[Fact]]]

_PROCESS_DIES: Final = (
    "smf: stopping because process dumped core",
    "smf: stopping because all processes in service exited",
)
"""What SMF writes of a process that ended by itself (LG 1.1)."""
_PROCESS_ENDS: Final = ("smf: stopping because service", "smf: executing stop method")
"""What it writes of one that was ended, or of what is left of it."""

_TABLES: Final[dict[str, tuple[_Row, ...]]] = {
    "sled-agent": (
        ("ensuring instance is registered", _described),  # 1
        ("observed new propolis state", _observed),  # 25
        ("observing new propolis state", _observed),  # 25 before 2025-04
        ("vmm state changed", _failed_at_last),  # our own
        ("power down for ", _own_down),  # our own
        ("reboot down for ", _own_down),  # our own
        ("nexus asks for a state", _wanted),  # our own
        ("refused a state that nexus asks for", _wanted),  # our own
        ("publishing instance state update to nexus", _published),  # 27
        ("failed to publish ", _not_taken),  # 28, 29
        ("configuring new omicron zone", _zone("configuring")),  # 14
        ("installing omicron zone", _zone("installing")),  # 15
        ("booting oxz_propolis", _zone("booting")),  # 16
        ("zone booting", _zone("booting")),  # 16, old
        ("started propolis in zone", _zone("started")),  # 18
        ("propolis http server online", _zone("online")),  # 19
        ("result of instance_ensure call", _ensure_result),  # 21
        ("failed to set up propolis zone", _ended(Ending.SETUP_FAILED)),  # 23
        ("instance setup failed", _ended(Ending.SETUP_FAILED)),  # 23, 2023
        ("vmm setup failed", _ended(Ending.SETUP_FAILED)),  # 23, until 2025-04
        ("failed to create propolis vm", _ended(Ending.ENSURE_FAILED)),  # 24
        ("creating zone bundle", _ended(Ending.BUNDLE_BEGINS)),  # 31
        ("finished zone bundle", _ended(Ending.BUNDLE_ENDS)),  # 31
        ("failed to take zone bundle", _ended(Ending.BUNDLE_ENDS)),  # 32
        ("instance runner exited main loop", _ended(Ending.RUNNER_EXITED)),  # 36
        ("failed to stop within the grace period", _ended(Ending.GRACE_OVER)),  # 38
        ("propolis zone is gone", _ended(Ending.ZONE_GONE)),  # 39
        ("propolis zone has gone away entirely", _ended(Ending.ZONE_GONE)),  # 39, a branch of 2025
        ("propolis zone is no longer running", _ended(Ending.ZONE_GONE)),  # 40
        ("propolis zone is way gone", _ended(Ending.ZONE_GONE)),  # 40
        (
            "propolis monitor returned unexpected error",
            _noted("Propolis's monitor answered what it should not"),
        ),  # 45
        ("error from propolis client", _noted("Propolis refused what the agent asked of it")),  # 46
        ("communication error checking up on propolis", _ended(Ending.SILENT)),  # 41
        ("unexpectedly reported no instance", _ended(Ending.EMPTY)),  # 43
        ("propolis vm is missing", _ended(Ending.EMPTY)),  # 44
        ("setting up sled agent server", _agent("starts")),  # 52
        ("sledagent::new(..) starting", _agent("starts")),  # 52
        ("listening", _listening),  # 53
        ("setting reservoir size to", _agent("boots")),  # 54
        ("smf: enabled.", _agent("enabled")),  # of a host that boots; a restart alone enables nothing (LG 6)
        *((each, _agent("died")) for each in _PROCESS_DIES),
        *((each, _agent("ends")) for each in _PROCESS_ENDS),
        ("request channel closed; shutting down", _agent("ends")),  # 56
        ("successfully put sledagentinfo", _agent("registered")),  # 55
        (
            "vmm in non-terminal state",
            _noted("the agent gave up a VMM that had not ended, which is a bug of its"),
        ),  # 37
        ("use_only_these_disks: removing instance", _noted("the agent ended a VMM whose disk was removed")),  # 50
        ("failed to setup vmm reservoir", _noted("no memory for VMs: the reservoir could not be set up")),  # 54
        ("sled agent decommissioned", _noted("Nexus has decommissioned the sled")),  # 55
    ),
    "nexus": (
        ("received new vmm runtime state", _received),  # 63
        ("received new runtime state from sled agent", _received),  # 63 before 2024-08
        ("updating instance state", _on_sled),  # 69
        ("vmm has failed!", _verdict("gone")),  # 70
        ("instance seems to be in a bad state", _verdict("gone")),  # 70 before 2024-09
        ("marking vmm failed due to sled agent api error", _verdict("gone")),  # 67
        ("sled-agent is unreachable", _verdict("unreachable")),  # 72, 73
        ("error checking up on instance", _unreachable),  # 72 before 2026-04
        ("sled that is not in a0", _verdict("sled off")),  # 74
        ("vmm on an expunged sled", _verdict("expunged")),  # 75
        ("moving instance to starting state via saga", _starting),  # 80
        ("attempting to reincarnate instance", lambda line: _make(Starting, line, automatic=True)),  # 101
        ("(active vmm destroyed): guest shut itself down", _ended(Ending.GUEST_HALT)),  # 94
        ("instance update (migration failed)", _migrated(failed=True)),  # 95
        ("instance update (migration completed): setting active", _migrated(failed=False)),  # 95
        ("migration", _sides),  # 89, 91, 95
        ("failed to register instance", _unwound(Op.REGISTER)),  # 82, 90
        ("internal error registering instance", _unwound(Op.REGISTER)),  # 82
        ("failed to set instance to running", _unwound(Op.PUT_STATE)),  # 83
        ("sled agent failed to start migration", _unwound(Op.PUT_STATE)),  # 90
        ("check incomplete due to", _unwound(Op.GET_STATE)),  # 71
        ("failed to start update saga", _noted("Nexus could not begin an update saga")),  # 66, 104
        ("update saga failed", _noted("an update saga of Nexus failed")),  # 76
        ("failed to unregister", _noted("a saga could not take back a registration")),  # 84
        ("failed to start successor saga", _noted("an update saga has no successor")),  # 100
        ("saga stuck", _noted("a saga is stuck: its undoing failed, inside of Nexus")),  # 79
        ("saga creation is disallowed", _noted("Nexus is quiescing and begins no sagas")),  # 104
        ("setting up nexus server", _nexus("starts")),  # 109
        *((each, _nexus("ends")) for each in (*_PROCESS_DIES, *_PROCESS_ENDS)),
    ),
    "propolis": (
        ("starting server...", _ended(Ending.PROCESS_STARTED)),  # 120
        *((each, _ended(Ending.PROCESS_DIED)) for each in _PROCESS_DIES),
        ("requested state via api", _wanted),  # 123
        ("publishing new instance state", _own_state),  # 129
        ("sending halt request to", _doing),  # 133
        ("stopping and detaching block backend", _doing),  # 133
        ("sending start request to", _doing),  # 127
        ("starting block backend", _doing),  # 127
        ("downstairs not responding", _doing),  # 146
        ("block backend start() returned an error", _doing),  # 128
        ("device start() returned an error", _doing),  # 128
        ("unhandled paging exit", _noted("a guest touched memory that is not there")),  # 145
        ("instruction emulation exit", _noted("a guest ran an instruction that could not be emulated")),  # 145
        ("halting due to vm suspend event", _ended(Ending.GUEST_HALT)),  # 130
        ("halting due to chipset-driven halt", _ended(Ending.GUEST_HALT)),  # 130
        ("resetting due to ", _ended(Ending.GUEST_RESET)),  # 131
        ("migration in succeeded", _migrated(failed=False, side="in")),  # 139
        ("migration out succeeded", _migrated(failed=False, side="out")),  # 139
        ("migration out failed", _migrated(failed=True, side="out")),  # 140
        ("migration in failed", _migrated(failed=True, side="in")),  # 141
        ("failed to activate new vm", _ended(Ending.ENSURE_FAILED)),  # 144
        ("vm startup failed", _ended(Ending.SETUP_FAILED)),  # 128
        ("migration failed due to error from", _migrated(failed=True)),  # 142
        ("instance specs incompatible", _migrated(failed=True)),  # 143, in its first phase
        ("no compatible destination protocols", _migrated(failed=True)),  # 143
        ("with non-migratable device", _migrated(failed=True)),  # 143
        ("migration source task exited: err", _migrated(failed=True, side="out")),  # 2024
        ("migration task failed", _migrated(failed=True)),  # 2023
    ),
}
