"""A run for other eyes: Trace Event JSON (Perfetto, chrome://tracing) and a Mermaid sequence of one instance.

Read before: play/trace.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from sim_sled.play.trace import Line

MERMAID_MAX: Final = 400
"""Messages of one sequence diagram; browsers give up at about a thousand."""
_STATES: Final = frozenset(
    "creating starting running stopping stopped rebooting migrating failed destroyed".split()  # noqa: SIM905 (reads well)
)


def trace_events(lines: Iterable[Line]) -> str:
    """Sleds are processes, VMMs are threads; a VMM's states are slices, all else are instants."""
    sleds: dict[str, int] = {}
    threads: dict[tuple[str, str], int] = {}
    events: list[dict[str, Any]] = []
    running: dict[tuple[int, int], tuple[str, int]] = {}
    last_us = 0
    for line in lines:
        last_us = max(last_us, line.at_us)
        pid = sleds.setdefault(line.sled, len(sleds) + 1)
        tid = threads.setdefault((line.sled, line.vmm), len(threads) + 1)
        state = _state_of(line)
        if state is None:
            name = f"{line.kind} {line.text}"[:120]
            events.append(
                {"name": name, "cat": line.kind, "ph": "i", "s": "t", "ts": line.at_us, "pid": pid, "tid": tid}
            )
            continue
        _close(events, running, (pid, tid), line.at_us)
        running[pid, tid] = (state, line.at_us)
    for where in list(running):
        _close(events, running, where, last_us)
    named = [_name("process_name", pid, 0, sled) for sled, pid in sleds.items()]
    hosts = {(line.sled, line.vmm): line.hostname for line in lines} if isinstance(lines, list | tuple) else {}
    for (sled, vmm), tid in threads.items():
        host = hosts.get((sled, vmm), "-")
        named.append(_name("thread_name", sleds[sled], tid, f"{vmm} {host}" if vmm != "-" else "the sled"))
    return json.dumps({"traceEvents": named + events, "displayTimeUnit": "ms"}) + "\n"


def _close(
    events: list[dict[str, Any]], running: dict[tuple[int, int], tuple[str, int]], where: tuple[int, int], at_us: int
) -> None:
    open_one = running.pop(where, None)
    if open_one is not None:
        state, since_us = open_one
        pid, tid = where
        slice_ = {"name": state, "cat": "state", "ph": "X", "ts": since_us, "dur": at_us - since_us}
        events.append(slice_ | {"pid": pid, "tid": tid})


def _name(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "ts": 0, "pid": pid, "tid": tid, "args": {"name": name}}


def _state_of(line: Line) -> str | None:
    """The state a VMM enters with this line."""
    if line.kind == "registered":
        return line.text.split()[0]
    if line.kind == "propolis" and "->" in line.text:
        state = line.text.split("->")[1].split()[0]
        return state if state in _STATES else None
    return None


def mermaid(lines: Iterable[Line], hostname: str) -> str:
    """What Nexus, the sleds and the network did for one instance, as a `sequenceDiagram`."""
    mine = [line for line in lines if line.hostname == hostname or f" {hostname}" in f" {line.text}"]
    sleds = list(dict.fromkeys(line.sled for line in mine if line.sled not in ("-", "nexus")))
    out = ["sequenceDiagram", "  participant U as Users", "  participant N as Nexus"]
    out += [f"  participant S{i} as {sled}" for i, sled in enumerate(sleds)]
    told = 0
    for line in mine:
        where = f"S{sleds.index(line.sled)}" if line.sled in sleds else "N"
        drawn = _drawn(line, where)
        if drawn is None:
            continue
        told += 1
        if told > MERMAID_MAX:
            out.append(f"  Note over N: the first {MERMAID_MAX} of more")
            break
        out.append(f"  {drawn}")
    return "\n".join(out) + "\n"


def _drawn(line: Line, where: str) -> str | None:
    text = line.text.replace(";", ",").replace("#", "no. ")
    at = f"{line.at_us / 1e6:.3f} s"
    vmm = "" if line.vmm == "-" else f"{line.vmm} "
    match line.kind:
        case "user":
            return f"U->>N: {text} ({at})"
        case "request":
            return f"N->>{where}: {vmm}{text} ({at})"
        case "sent":
            return f"{where}->>N: {vmm}{text} ({at})"
        case "retrying" | "given-up":
            return f"N--x{where}: {text}"
        case "public" | "task":
            return f"Note over N: {text} ({at})"
        case "propolis" | "rule" | "net" | "lost" | "injected" | "failed":
            return f"Note over {where}: {vmm}{line.kind} {text} ({at})"
    return None
