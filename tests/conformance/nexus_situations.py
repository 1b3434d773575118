"""Inputs of Nexus's decisions that nobody recorded: other states, generations, sizes and times, in the recordings'
shapes.
"""

from conformance.nexus_oracle import GIB, REASONS, REPORTED, SIDES, STATES
from hypothesis import strategies as st

GENS = st.integers(1, 2**40)


def near(draw, gen):
    """Generations around another: equal, one off, far."""
    return max(1, gen + draw(st.sampled_from([-(2**20), -2, -1, 0, 1, 2, 2**20])))


def a_vmm(draw, name="A", gen=None, states=STATES):
    state = draw(st.sampled_from(states))
    return {
        "id": name,
        "state": state,
        "state_generation": draw(GENS) if gen is None else gen,
        "failure_reason": draw(st.sampled_from(REASONS)) if state == "failed" else None,
        "deleted": draw(st.booleans()),
    }


def an_instance(draw, **fixed):
    row = {
        "state": "vmm", "state_generation": draw(GENS), "active_propolis_id": "A", "target_propolis_id": None,
        "migration_id": None, "updater_id": draw(st.sampled_from([None, "L1", "L3"])), "updater_gen": draw(GENS),
        "intended_state": draw(st.sampled_from(["running", "stopped"])), "deleted": False,
    }  # fmt: skip
    return row | fixed


def a_migration(draw, name="M"):
    source, target = draw(st.sampled_from([("A", "T"), ("O", "A"), ("A", "O"), ("O", "T")]))
    return {
        "id": name, "source_propolis_id": source, "target_propolis_id": target,
        "source_state": draw(st.sampled_from(SIDES)), "source_gen": draw(GENS),
        "target_state": draw(st.sampled_from(SIDES)), "target_gen": draw(GENS),
        "deleted": draw(st.booleans()),
    }  # fmt: skip


@st.composite
def reports(draw):
    vmm = a_vmm(draw)
    rows = [a_migration(draw, name) for name in draw(st.sampled_from([(), ("M",), ("M2",), ("M", "M2")]))]
    slots = {"migration_in": None, "migration_out": None}
    for slot, row in zip(draw(st.permutations(sorted(slots))), rows, strict=False):
        side = "target" if slot == "migration_in" else "source"
        gen = near(draw, row[f"{side}_gen"])
        slots[slot] = {"migration_id": row["id"], "state": draw(st.sampled_from(SIDES)), "gen": gen}
    state = draw(st.sampled_from(REPORTED))
    told = {"state": state, "gen": near(draw, vmm["state_generation"])}
    return {
        "vmm": vmm,
        "instance": {"state": "vmm", "deleted": False},
        "migrations": rows,
        "report": {"vmm_state": told} | slots,
    }


@st.composite
def marks(draw):
    read = a_vmm(draw)
    stored = a_vmm(draw, gen=max(read["state_generation"], near(draw, read["state_generation"])))  # it only grows
    if stored["state_generation"] == read["state_generation"]:
        stored |= {name: read[name] for name in ("state", "failure_reason")}  # what has not moved has not changed
    return {"read": read | {"deleted": False}, "stored": stored, "reason": draw(st.sampled_from(REASONS))}


@st.composite
def decisions(draw):
    old = draw(st.booleans())
    migrates = draw(st.booleans())
    active = draw(st.sampled_from(["A", "A", "A", "T" if migrates else "A", None]))
    gone = active is None

    def vmm(name):
        states = [state for state in STATES if not (old and state == "failed")]
        sled = {"A": "sled1", "T": "sled2"}[name]
        return {"id": name, "sled_id": sled, "state": draw(st.sampled_from(states))}

    a = None if gone else vmm(active)
    target = draw(st.sampled_from(["T", "T", None])) if migrates and not gone else None
    t = None if target is None else (a if active == "T" else vmm("T"))
    row = {
        "state": draw(st.sampled_from(["no_vmm"] if old else ["no_vmm", "failed"])) if gone else "vmm",
        "state_generation": draw(GENS),
        "active_propolis_id": active,
        "target_propolis_id": target,
        "migration_id": "M" if migrates else None,
    }
    if not old:
        row["intended_state"] = draw(st.sampled_from(["running", "stopped"]))
    m = None
    if migrates:
        m = {"id": "M", "source_propolis_id": "A", "target_propolis_id": "T"}
        m |= {f"{side}_state": draw(st.sampled_from(SIDES)) for side in ("source", "target")}
    rules = "5749" if old else draw(st.sampled_from(["6455", "head"]))
    return rules, {"instance": row, "active_vmm": a, "target_vmm": t, "migration": m}


@st.composite
def errors(draw, statuses=(404, 404, 404, 400, 401, 403, 408, 409, 410, 421, 429, 451, 500, 502, 503, 504, 507, 599)):
    code = draw(st.sampled_from([None, "NO_SUCH_INSTANCE", "Internal", "InvalidRequest", "Gone"]))
    message = draw(st.text("abc xyz.:'", min_size=1, max_size=30))
    status = draw(st.sampled_from(statuses))
    return {"kind": "error_response", "status": status, "error_code": code, "message": message}


@st.composite
def sizes(draw):
    some = st.sampled_from([0, 1, 63, 64, 65, 253, 254, 255, 65_535])
    around = st.builds(lambda gib, by: max(0, gib * GIB + by), st.sampled_from([0, 1, 7, 256, 257, 1536, 1537]),
                       st.sampled_from([-1, 0, 1, 4096]))  # fmt: skip
    return {"ncpus": draw(some), "memory": draw(around)}


@st.composite
def checks(draw):
    sled = draw(st.sampled_from([("expunged", None), ("in_service", None), *(("in_service", p) for p in POWERS)]))
    lost = st.builds(lambda what: {"kind": "communication", "what": what}, st.sampled_from(["refused", "reset"]))
    vmm = a_vmm(draw)
    shown = {
        "id": "A",
        "state": vmm["state"],
        "gen": vmm["state_generation"],
        "failure_reason": vmm["failure_reason"],
    }
    return {
        "vmm": shown,
        "sled": {"policy": sled[0], "power": sled[1]},
        "answer": draw(st.one_of(lost, errors(statuses=(404, 410, 500)))),
    }


POWERS = ("a0", "a1", "a2", "a3", "off")


@st.composite
def restarts(draw):
    state = draw(st.sampled_from(["failed", "no_vmm", "vmm"]))
    vmm = {"id": "A", "state": draw(st.sampled_from(STATES))} if state == "vmm" else None
    row = {
        "state": state,
        "active_propolis_id": None if vmm is None else "A",
        "intended_state": draw(st.sampled_from(["running", "stopped", "guest_shutdown"])),
        "auto_restart_policy": draw(st.sampled_from([None, "best_effort", "never"])),
        "auto_restart_cooldown_s": draw(st.sampled_from([None, 0, 1, 60, 86_400])),
        "last_auto_restarted_s_ago": draw(st.sampled_from([None, 0, 1, 59, 61, 299, 301, 90_000])),
    }
    return {"instance": row, "active_vmm": vmm}


@st.composite
def unlinks(draw):
    state = draw(st.sampled_from(["vmm", "failed", "no_vmm"]))
    row = {
        "state": state, "state_generation": draw(GENS), "active_propolis_id": "T" if state == "vmm" else None,
        "migration_id": None, "deleted": False,
    }  # fmt: skip
    written = row["state_generation"] if state == "vmm" else 2**41
    return {"instance": row, "written_generation": near(draw, written), "propolis_id": "T"}


@st.composite
def stops(draw):
    state = draw(st.sampled_from(["failed", "no_vmm", "vmm"]))
    row = an_instance(draw, state=state, active_propolis_id="A" if state == "vmm" else None)
    return {"read_generation": near(draw, row["state_generation"]), "stored": row}


@st.composite
def locks(draw):
    return {"instance": an_instance(draw, deleted=draw(st.booleans())), "updater_id": "L1"}


@st.composite
def unlocks(draw):
    row = an_instance(draw)
    # the generation moves with each lock id: who holds it knows it
    gen = row["updater_gen"] if row["updater_id"] == "L1" else near(draw, row["updater_gen"])
    return {"instance": row, "lock": {"updater_id": "L1", "locked_gen": gen}}


@st.composite
def migrations(draw):
    return {"migration": a_migration(draw)}


@st.composite
def situations(draw, states=STATES):
    # `destroyed` is deleted, which a look-up answers with 404 before anything of this is asked
    state = draw(st.sampled_from(["vmm", "vmm", "vmm", "no_vmm", "creating", "failed"]))
    sled = draw(st.sampled_from(["sled1", "sled2"]))
    vmm = {"id": "A", "sled_id": sled, "state": draw(st.sampled_from(states))} if state == "vmm" else None
    migration = draw(st.sampled_from([None, "M"])) if state == "vmm" else None
    row = {"state": state, "active_propolis_id": None if vmm is None else "A", "migration_id": migration}
    return {"instance": row, "active_vmm": vmm}


@st.composite
def stops_and_reboots(draw):
    return draw(situations()) | {"request": draw(st.sampled_from(["stop", "reboot"]))}


@st.composite
def links(draw):
    state = draw(st.sampled_from(["no_vmm", "failed", "vmm", "vmm"]))
    name = draw(st.sampled_from(["A", "T"])) if state == "vmm" else None
    row = {
        "state": state, "state_generation": draw(GENS), "active_propolis_id": name, "migration_id": None,
        "deleted": name is None and draw(st.booleans()),
    }  # fmt: skip
    vmm = None if name is None else {"id": name, "state": draw(st.sampled_from(STATES))}
    read = near(draw, row["state_generation"])
    reason = draw(st.sampled_from(["user", "auto_restart"]))
    return {"instance": row, "active_vmm": vmm, "read_generation": read, "propolis_id": "T", "reason": reason}


@st.composite
def inheritances(draw):
    row = an_instance(draw, updater_id=draw(st.sampled_from([None, "L1", "L2", "L3"])))
    # the generation moves with each lock id: who has it knows it
    gen = {"L1": row["updater_gen"], "L2": max(1, row["updater_gen"] - 1)}.get(row["updater_id"])
    if row["updater_id"] == "L2":
        row["updater_gen"] = gen + 1
    gen = near(draw, row["updater_gen"]) if gen is None else gen
    return {"instance": row, "parent": {"updater_id": "L1", "locked_gen": gen}, "child_lock_id": "L2"}


@st.composite
def unregisterings(draw):
    """What a sled answers to DELETE, and what it has told meanwhile."""
    registered = draw(st.integers(2, 2**40))
    stored = registered + draw(st.sampled_from([0, 0, 1, 5]))
    return {"answer": draw(errors()), "registered_gen": registered, "stored_gen": stored}


@st.composite
def migrates(draw):
    sled, local = draw(st.sampled_from(["sled1", "sled2"])), draw(st.booleans())
    return draw(situations(("running", "running", *STATES))) | {"dst_sled_id": sled, "uses_local_storage": local}


@st.composite
def addresses(draw):
    """An address and the instance that it is to be attached to, or detached from."""
    state = draw(st.sampled_from(["vmm", "vmm", "no_vmm", "creating", "failed"]))
    row = {"state": state, "migration_id": draw(st.sampled_from([None, "M"])) if state == "vmm" else None}
    held = draw(st.sampled_from(["detached", "detached", "attached", "attaching", "detaching"]))
    owner = None if held == "detached" else draw(st.sampled_from(["I", "other"]))
    return {"instance": row, "ip": {"state": held, "instance": owner}}


@st.composite
def attachments(draw):
    return draw(addresses()) | {
        "kind": draw(st.sampled_from(["ephemeral", "floating"])),
        "attached_count_with_snat": draw(st.sampled_from([0, 1, 2, 30, 31, 32, 33, 34, 2**20])),
        "nic_matches": draw(st.booleans()),
    }


@st.composite
def subnets(draw):
    """While it migrates a detached one is refused, in words that nobody recorded."""
    given = draw(addresses())
    if given["ip"]["state"] == "detached":
        given["instance"]["migration_id"] = None
    return given


@st.composite
def deletions(draw):
    given = draw(situations())
    row = given["instance"] | {"state_generation": draw(GENS), "deleted": False}
    return given | {"instance": row}


@st.composite
def commits(draw):
    owner = draw(st.sampled_from(["L1", "L1", "L2", "L3", None]))
    row = an_instance(draw, updater_id=owner, deleted=draw(st.sampled_from([False, False, False, True])))
    # whoever has lost the lock, or given it back, had it in an earlier generation
    locked = row["updater_gen"] if owner == "L1" else draw(st.integers(0, row["updater_gen"] - 1))
    new = {
        "state": draw(st.sampled_from(["no_vmm", "failed", "vmm"])),
        "state_generation": near(draw, row["state_generation"]),
        "active_propolis_id": draw(st.sampled_from([None, "T"])),
        "intended_state": draw(st.sampled_from([None, "guest_shutdown"])),
    }
    return {"instance": row, "lock": {"updater_id": "L1", "locked_gen": locked}, "new": new}


@st.composite
def undos(draw):
    policy = draw(st.sampled_from([None, "never", "best_effort"]))
    return {"vmm": a_vmm(draw, "T"), "auto_restart_policy": policy}


LOST = st.sampled_from(["refused", "reset", "timeout", "name"]).map(lambda what: {"communication": what})
POLLS = st.builds(
    lambda told, zone: {"answer": told, "zone": zone},
    st.just("ok") | LOST,
    st.sampled_from(["running", "cannot tell", "none", "installed", "shutting down"]),
)
VMMS = st.composite(lambda draw: {"vmm": a_vmm(draw)})()
OLD_STATES = tuple(state for state in STATES if state not in ("creating", "saga_unwound"))
FAILURES = st.one_of(errors(), st.just({"kind": "communication", "what": "refused"}))
RULE_SETS = st.one_of(
    st.tuples(st.just("5854"), situations(OLD_STATES)),
    st.tuples(st.sampled_from(["5855", "5749"]), situations(tuple(state for state in STATES if state != "creating"))),
    st.tuples(st.sampled_from(["6455", "head"]), situations()),
)
HEAD = st.just("head")
ANY_RULES = st.sampled_from(["5854", "5855", "5749", "6455", "head"])

VERBS = st.sampled_from(["attach", "detach"])
FROM_6455 = st.sampled_from(["6455", "head"])
ENDS = st.fixed_dictionaries({"source_state": st.sampled_from(SIDES), "target_state": st.sampled_from(SIDES)})
PREDICATES = st.one_of(
    st.tuples(FROM_6455, st.builds(lambda state: {"state": state}, st.sampled_from(STATES))),
    st.tuples(
        st.just("5749"),
        st.builds(lambda state: {"state": state}, st.sampled_from([one for one in STATES if one != "creating"])),
    ),
)
