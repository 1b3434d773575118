"""Why a VMM is where it is, at this moment of a run. Read before: play/virtual.py."""

from __future__ import annotations

from typing import Final

from nexus_client.stub.records import IntendedState
from sim_sled.engine.cast import Subject
from sim_sled.play.stage import Stage
from sim_sled.play.translate import describe

_WANTED: Final = {
    IntendedState.RUNNING: "they want it running",
    IntendedState.STOPPED: "they want it stopped",
    IntendedState.GUEST_SHUTDOWN: "its guest has shut down, so nobody wants it running",
    IntendedState.DESTROYED: "they want it deleted",
}


def why(world: Stage, who: Subject) -> list[str]:
    """Sentences: the state, what was asked, what is pending and due when, which rules touched it, what Nexus has."""
    says = [
        f"{who.short} ({who.hostname}) on {who.sled.name} is {who.truth}" + (", and gone" if who.gone else "") + "."
    ]
    sled = world.rack.sleds.get(who.sled.id)
    vmm = sled.vmms.get(who.propolis_id) if sled is not None else None
    says.append(f"Nexus last asked it to be {who.asked}." if who.asked else "Nexus has asked it for nothing.")
    if vmm is not None and vmm.silent is not None:
        says.append("Its Propolis is dead and the agent asks it for ever.")
    elif vmm is not None and vmm.vm is not None:
        waits = vmm.vm.waits_for()
        due = vmm.vm.next_deadline_us()
        when = "" if due is None else f", due at {_at(world, due)}"
        says.append(f"Propolis waits for {waits}{when}." if waits else "Propolis waits for nothing.")
    if who.sled.down:
        says.append(f"{who.sled.name} is down ({who.sled.down}).")
    for held in world.engine.post.held_of(who):
        state = held.publication.body.vmm_state.state.value
        says.append(f"Its report {state} is kept back: {'rule ' + held.rule if held.rule else held.why}.")
    cut = world.engine.post.cut(who.sled.name, "nexus", "out", world.now_us)
    if cut is not None:
        says.append(f"Its sled cannot reach Nexus: rule {cut.rule.name} ({cut.rule.mark()}).")
    pending = sled.outbox.pending_of(who.propolis_id) if sled is not None else None
    if pending is not None:
        told = f"Nexus is being told {describe(pending.body)}, attempt {pending.attempt + 1}"
        told += f", again at {_at(world, pending.due_us)}" if pending.due_us is not None else ""
        says.append(told + (f" ({pending.why})." if pending.why else "."))
    says.append(
        f"Nexus last confirmed {describe(who.acked)}." if who.acked is not None else "Nexus confirmed nothing yet."
    )
    says += [f"At {_at(world, n.at_us)} rule {n.rule} ({n.mark}) {n.text}." for n in who.notes]
    row = world.nexus.records.instances.get(who.instance_id)
    if row is not None:
        public = "deleted" if row.time_deleted is not None else world.nexus.public_state(row.id).value
        says.append(f"Users see {who.hostname} as {public}; {_WANTED[row.intended_state]}.")
    return says


def why_it_failed(world: Stage, who: Subject | None) -> tuple[str, ...]:
    """The sentences that go with a failure; none where nobody in particular has failed."""
    return () if who is None else tuple(why(world, who))


def _at(world: Stage, at_us: int) -> str:
    return f"{(at_us - world.engine.start_us) / 1e6:.3f} s"
