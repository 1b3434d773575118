"""Why a VMM is where it is: what was asked, what it waits for, what Nexus acknowledged last."""

from __future__ import annotations

from typing import Any

from nexus_client.types import SledVmmState, brief, stamp
from sim_sled.core.sled import Sled
from sim_sled.core.vmm import Vmm


def row(vmm: Vmm) -> dict[str, Any]:
    """One line of `ps`."""
    return {
        "propolis_id": str(vmm.propolis_id),
        "sled_id": str(vmm.sled_id),
        "instance_id": str(vmm.about.instance_id),
        "hostname": vmm.about.hostname,
        "state": vmm.state.value,
        "gen": vmm.record.vmm_state.gen,
        "resting": vmm.resting().value,
        "propolis": vmm.vm.state.value if vmm.vm is not None and vmm.vm.state is not None else None,
        "acked": _state(vmm.acked),
        "refused": vmm.refused or None,
        "migration_in": _migration(vmm.record.migration_in),
        "migration_out": _migration(vmm.record.migration_out),
        "propolis_addr": vmm.about.propolis_addr,
    }


def why(sled: Sled, vmm: Vmm, now_us: int) -> dict[str, Any]:
    """Everything known about one VMM at `now_us`; `says` is the same in sentences."""
    pending = sled.outbox.pending_of(vmm.propolis_id)
    due_us = vmm.deadline_us()
    waits_for = vmm.vm.waits_for() if vmm.vm is not None else None
    answer = row(vmm) | {
        "asked": [{"at": stamp(each.at_us), "request": each.requested.type.value} for each in vmm.asked],
        "waits_for": waits_for,
        "due_in_ms": None if due_us is None else max(0, (due_us - now_us) // 1000),
        "told_nexus": None
        if pending is None
        else {
            "pending": told(pending.body),
            "in_flight": pending.in_flight,
            "attempt": pending.attempt,
            "last_failure": pending.why,
            "retry_in_ms": None if pending.due_us is None else max(0, (pending.due_us - now_us) // 1000),
        },
    }
    answer["says"] = _sentences(vmm, answer)
    return answer


def _sentences(vmm: Vmm, answer: dict[str, Any]) -> list[str]:
    propolis = answer["propolis"]
    # `ps` and `expect` go by Propolis, and what a sled tells may be ahead of it: both are said where they differ
    differs = propolis is not None and propolis.lower() != answer["state"]
    apart = f" (its Propolis: {propolis})" if differs else ""
    lines = [
        f"{vmm.propolis_id} ({vmm.about.hostname}) is {told(vmm.record)}{apart} and will rest in {answer['resting']}."
    ]
    if vmm.asked:
        last = answer["asked"][-1]
        lines.append(f"Nexus last asked for {last['request']} at {last['at']}.")
    else:
        lines.append("Nexus has asked for nothing yet.")
    if vmm.silent is not None:
        lines.append("Its Propolis died and does not answer; the agent asks it for ever.")
    elif answer["waits_for"] is not None:
        due = answer["due_in_ms"]
        lines.append(f"Propolis waits: {answer['waits_for']}{_how_long(answer['waits_for'], due)}.")
    elif vmm.vm is None:
        lines.append(
            "Its Propolis is gone." if vmm.terminal or vmm.seen else "It has no Propolis: none was needed yet."
        )
    else:
        lines.append("Propolis waits for nothing.")
    nexus = answer["told_nexus"]
    if nexus is None and vmm.refused:
        lines.append(f"Nexus has refused the last publication for good: {vmm.refused}.")
    elif nexus is None:
        lines.append(
            f"Nexus acknowledged {told(vmm.acked) if vmm.acked else 'nothing yet; the answers told it all'}."
        )
    elif nexus["in_flight"]:
        lines.append(f"Nexus is being told {nexus['pending']} (attempt {nexus['attempt']}).")
    elif nexus["last_failure"]:
        again = nexus["retry_in_ms"]
        when = "" if again is None else f"; next try in {brief(again * 1000)}"
        lines.append(f"Nexus does not take {nexus['pending']}: {nexus['last_failure']}{when}.")
    else:
        lines.append(f"Nexus is about to be told {nexus['pending']}.")
    return lines


def _how_long(waits_for: str, due_ms: int | None) -> str:
    """What ends the waiting: one thing, never two that exclude each other."""
    if due_ms is not None:
        due = brief(due_ms * 1000)
        # for ever by itself, so what is due is the agent's patience; held, Propolis's own time stands
        if waits_for.endswith("for ever") or waits_for.startswith("held"):
            return f"; the agent acts in {due}"
        return f", for {due} more"
    if waits_for.startswith("held"):
        return ", until it is let go"
    if waits_for.startswith("a step"):
        return ", until somebody pokes it"
    if waits_for.startswith("a message"):
        return ", however long that takes"
    return "; only a request or a fault ends that" if waits_for.endswith("for ever") else ""


def _state(body: SledVmmState | None) -> str | None:
    return None if body is None else body.vmm_state.state.value


def _migration(side: Any) -> dict[str, Any] | None:
    if side is None:
        return None
    return {"migration_id": str(side.migration_id), "state": side.state.value, "gen": side.gen}


def told(body: SledVmmState) -> str:
    """`running gen 3 in=completed/3`."""
    text = f"{body.vmm_state.state.value} gen {body.vmm_state.gen}"
    for side, migration in (("in", body.migration_in), ("out", body.migration_out)):
        if migration is not None:
            text += f" {side}={migration.state.value}/{migration.gen}"
    return text
