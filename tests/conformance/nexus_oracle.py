"""A naive oracle of Nexus's decisions: a few plain lines of NX for each recorded function, written from the text and
not from the model. Each takes the rule set and a recording's "input", and says its "output".

Over 500 lines: one function of the recordings after the other, each to be read beside its section of NX.
"""

import copy

TERMINAL = ("destroyed", "failed")
STATES = (
    "creating", "starting", "running", "stopping", "stopped", "rebooting", "migrating", "failed", "destroyed",
    "saga_unwound",
)  # fmt: skip
REPORTED = ("starting", "running", "stopping", "stopped", "rebooting", "migrating", "failed", "destroyed")
SIDES = ("pending", "in_progress", "completed", "failed")
REASONS = ("from_sled_agent", "no_such_instance", "sled_expunged", "sled_off")
GIB = 2**30
NOT_FOUND = {
    "error": {
        "status": 404,
        "error_code": "ObjectNotFound",
        "message": 'not found: instance with id "00000000-0000-0000-0000-000000000001"',
    }
}


def internal(why):
    error = {"status": 500, "error_code": "Internal", "message": "Internal Server Error", "internal_message": why}
    return {"error": error}


def process_vmm_update(_rules, given):
    """NX 3.2: the VMM part, then out, then in; an error takes all back; a saga iff this call ended something."""
    vmm, report = copy.deepcopy(given["vmm"]), report_of(given)
    migrations = {row["id"]: row for row in copy.deepcopy(given["migrations"])}
    before = {"vmm": given["vmm"], "migrations": given["migrations"]}
    sides = {"source": report["migration_out"], "target": report["migration_in"]}
    terminal = False
    if vmm["deleted"] is False and vmm["state_generation"] < report["vmm_state"]["gen"]:
        state = report["vmm_state"]["state"]
        vmm |= {"state": state, "state_generation": report["vmm_state"]["gen"]}
        if state == "failed":
            vmm["failure_reason"] = "from_sled_agent"
        terminal |= state in TERMINAL
    for side, told in sides.items():
        if told is None:
            continue
        row = migrations[told["migration_id"]]
        if row["deleted"]:
            return before | {"ok": False, "error": {"status": 410, "error_code": "Gone", "message": "Gone"}}
        if row[f"{side}_propolis_id"] != vmm["id"]:
            what = f"00000000-0000-0000-0000-00000000000a is not the {side} VMM of this migration"
            message = f'unsupported value for "{side} propolis UUID": {what}'
            return before | {"ok": False, "error": {"status": 400, "error_code": "InvalidValue", "message": message}}
        if row[f"{side}_gen"] < told["gen"]:
            row |= {f"{side}_state": told["state"], f"{side}_gen": told["gen"]}
            terminal |= told["state"] in ("completed", "failed")
    return {"ok": True, "saga": terminal, "vmm": vmm, "migrations": list(migrations.values())}


def report_of(given):
    return {"migration_in": None, "migration_out": None} | given["report"]


def mark_vmm_failed(_rules, given):
    """NX 4.4, 4.5: from the generation that was read; nothing if it already is Failed for this reason."""
    read, stored, reason = given["read"], given["stored"], given["reason"]
    same = read["state"] == "failed" and read["failure_reason"] == reason
    if same or stored["deleted"] or stored["state_generation"] != read["state_generation"]:
        return {"result": {"updated": False}, "vmm": stored}
    gen = read["state_generation"] + 1
    return {
        "result": {"updated": True},
        "vmm": stored | {"state": "failed", "state_generation": gen, "failure_reason": reason},
    }


def migration_mark_failed(_rules, given):
    """NX 4.3: both sides, each time; never a deleted row."""
    row = given["migration"]
    if row["deleted"]:
        return {"result": {"updated": False}, "migration": row}
    failed = {"source_state": "failed", "target_state": "failed"}
    gens = {"source_gen": row["source_gen"] + 1, "target_gen": row["target_gen"] + 1}
    return {"result": {"updated": True}, "migration": row | failed | gens}


def updater_lock(_rules, given):
    """NX 5.3: taken if nobody has it; one's own is success."""
    row, lock = given["instance"], given["updater_id"]
    if row["deleted"]:
        return {"result": NOT_FOUND, "instance": row}
    if row["updater_id"] == lock:
        return {"result": {"updater_id": lock, "locked_gen": row["updater_gen"]}, "instance": row}
    if row["updater_id"] is not None:
        return {"result": {"already_locked": True}, "instance": row}
    gen = row["updater_gen"] + 1
    return {
        "result": {"updater_id": lock, "locked_gen": gen},
        "instance": row | {"updater_id": lock, "updater_gen": gen},
    }


def updater_unlock(_rules, given):
    row, lock = given["instance"], given["lock"]
    if row["updater_id"] != lock["updater_id"]:
        return {"result": {"unlocked": False}, "instance": row}
    freed = row | {"updater_id": None, "updater_gen": lock["locked_gen"] + 1}
    return {"result": {"unlocked": True}, "instance": freed}


def update_decision(rules, given):
    """NX 5.2: the blocks as they stand there. #5749: only Destroyed is terminal. Intent and reservations: later."""
    old = rules == "5749"
    over = ("destroyed",) if old else TERMINAL
    row, a, t, m = given["instance"], given["active_vmm"], given["target_vmm"], given["migration"]
    active, target, migration = row["active_propolis_id"], row["target_propolis_id"], row["migration_id"]
    destroy_a = destroy_t = network = intent = reservations = None
    failed = changed = deprovision = False
    if a is not None and a["state"] in over:  # a
        active, destroy_a, changed = None, a["id"], True
        if a["state"] == "failed":
            failed = True
        elif row.get("intended_state") == "running" and m is None:
            intent = "guest_shutdown"
    if t is not None and t["state"] in over:  # b
        target, destroy_t, changed = None, t["id"], True
    if m is not None:
        ends = (m["source_state"], m["target_state"])
        if "failed" in ends:  # c1
            migration = target = None
            changed = True
            if destroy_a is None and a is not None:
                network = a["sled_id"]
        elif "completed" in ends and active != m["target_propolis_id"]:  # c2
            if t is None:
                return {"panic": "if we have gotten here, there must be a target VMM"}
            active, network, changed = m["target_propolis_id"], t["sled_id"], True
        if "failed" not in ends and "completed" in ends:
            if destroy_t is not None:
                active = None
            if m["target_state"] == "completed":
                migration = target = None
                changed = True
                reservations = {"source": m["source_propolis_id"], "target": m["target_propolis_id"]}
    if not changed:  # e
        return None
    state = row["state"]
    if active is None:  # d
        state, network, deprovision = "failed" if failed else "no_vmm", "delete", True
    update = {
        "state": state,
        "state_generation": row["state_generation"] + 1,
        "active_propolis_id": active,
        "target_propolis_id": target,
        "migration_id": migration,
        "destroy_active_vmm": destroy_a,
        "destroy_target_vmm": destroy_t,
        "deprovision": deprovision,
        "network": network,
    }
    return update | {"intended_state": intent, "reservations": reservations} if rules == "head" else update


def sled_error_gone(_rules, given):
    gone = given.get("status") == 404 and given.get("error_code") == "NO_SUCH_INSTANCE"
    return {"vmm_gone": gone and given["kind"] == "error_response"}


def answer(status, code, message):
    return {"status": status, "error_code": code, "message": message}


def sled_error_to_user(_rules, given):
    """NX 4.4."""
    status = given["status"]
    if status == 404 and given["error_code"] == "NO_SUCH_INSTANCE":
        return answer(
            503, None, "The instance was running but is no longer reachable. It is being moved to the Failed state."
        )
    if status < 500:
        return answer(400, "InvalidRequest", given["message"])
    if status == 503:
        return answer(503, "ServiceNotAvailable", "Service Unavailable")
    return answer(500, "Internal", "Internal Server Error")


def sled_error_in_saga(_rules, given):
    """NX 4.4: as to a user, but 404 + code is a refusal like others, and no answer is 500."""
    return sled_error_to_user(_rules, given | {"error_code": None})


def check_instance_cpu_memory_sizes(rules, given):
    """NX 4.2, sizes."""
    cpus, most = (254, 1536) if rules == "head" else (64, 256)
    size = 'unsupported value for "size": memory must be '
    if given["ncpus"] > cpus:
        message = f"cannot have more than {cpus} vCPUs per instance"
        return {"error": answer(400, "InvalidRequest", message)}
    if given["memory"] < GIB:
        return {"error": answer(400, "InvalidValue", size + "at least 1 GiB")}
    if given["memory"] % GIB:
        return {"error": answer(400, "InvalidValue", size + "divisible by 1 GiB")}
    if given["memory"] > most * GIB:
        return {"error": answer(400, "InvalidValue", size + f"less than or equal to {most} GiB")}
    return {"ok": True}


def watcher_check(_rules, given):
    """NX 4.5: what the health check makes of an answer."""
    vmm, sled, told = given["vmm"], given["sled"], given["answer"]
    reason = None
    if sled["policy"] == "expunged":
        reason = "sled_expunged"
    elif told["kind"] == "error_response" and (told["status"], told["error_code"]) == (404, "NO_SUCH_INSTANCE"):
        reason = "no_such_instance"
    elif told["kind"] == "communication" and sled["power"] not in (None, "a0"):
        reason = "sled_off"
    if reason is None:
        return {"report": None}
    same = vmm["state"] == "failed" and vmm["failure_reason"] == reason
    report = {
        "state": "failed",
        "gen": vmm["gen"] + (not same),
        "failure_reason": reason,
        "migrations": False,
    }
    title = "".join(word.capitalize() for word in reason.split("_"))
    return {"report": report, "outcome": f"Failure({title})", "result": "Ok(())"}


def auto_restart_status(_rules, given):
    """NX 2, last table: who needs it, who may, and when."""
    row, vmm = given["instance"], given["active_vmm"]
    lost = row["state"] == "failed" or (vmm is not None and vmm["state"] == "saga_unwound" and row["state"] == "vmm")
    needs = lost and row["intended_state"] == "running"
    ago, cooldown = row["last_auto_restarted_s_ago"], row["auto_restart_cooldown_s"]
    ends_s = None if ago is None else (300 if cooldown is None else cooldown) - ago
    can = "will_reincarnate"
    if row["auto_restart_policy"] == "never":
        can = "nirvana"
    elif ends_s is not None and ends_s > 0:
        can = {"cooling_down_s": ends_s}
    return needs, can, needs and can == "will_reincarnate"


def auto_restart_part(got):
    return got["needs_reincarnation"], got["can_reincarnate"], got["should_reincarnate"]


def start_unlink(_rules, given):
    """NX 4.3: back to NoVmm only if nobody advanced the generation."""
    row = given["instance"]
    if row["deleted"] or row["state_generation"] != given["written_generation"]:
        return {"ok": True, "instance": row}
    gen = row["state_generation"] + 1
    return {"ok": True, "instance": row | {"state": "no_vmm", "active_propolis_id": None, "state_generation": gen}}


def stop_failed_write(_rules, given):
    """NX 4.2: Failed to NoVmm, if it still is what was read."""
    row = given["stored"]
    if row["deleted"] or row["state"] != "failed" or row["state_generation"] != given["read_generation"]:
        return {"result": {"updated": False}, "instance": row}
    gen = row["state_generation"] + 1
    return {"result": {"updated": True}, "instance": row | {"state": "no_vmm", "state_generation": gen}}


PUBLIC = {
    "creating": "starting", "starting": "starting", "running": "running", "stopping": "stopping",
    "stopped": "stopping", "rebooting": "rebooting", "migrating": "migrating", "destroyed": "stopping",
    "failed": "stopping", "saga_unwound": "failed",
}  # fmt: skip
OLDER = {
    "5854": {"stopped": "stopped", "destroyed": "destroyed", "failed": "failed"},
    "5855": {"stopped": "stopped", "destroyed": "destroyed", "failed": "failed", "saga_unwound": "stopped"},
    "5749": {"failed": "failed", "saga_unwound": "stopped"},
    "6455": {"saga_unwound": "stopped"},
    "head": {},
}
LABEL = {"no_vmm": "no VMM", "creating": "creating", "failed": "failed", "destroyed": "destroyed"}
"""What the record's state is called where it is not translated for users."""
PLAIN = {"no_vmm": "stopped", "creating": "creating", "failed": "failed", "destroyed": "destroyed"}


def effective_state(rules, given):
    """NX 2, the table."""
    row, vmm = given["instance"], given["active_vmm"]
    if row["state"] != "vmm":
        return {"state": PLAIN[row["state"]]}
    if row["migration_id"] is not None and rules not in ("5854", "5855"):
        return {"state": "migrating"}
    return {"state": (PUBLIC | OLDER[rules])[vmm["state"]]}


def instance_start(_rules, given):
    """NX 4.2, first column."""
    public = effective_state("head", given)["state"]
    if public in ("starting", "running", "rebooting", "migrating"):
        return {"do": "already_started"}
    if public == "creating":
        message = f"instance is in state {public} but it must be stopped to be started"
        return {"error": answer(409, "Conflict", message)}
    if public == "stopping":
        return {"error": answer(409, "Conflict", "instance must finish stopping before it can be started")}
    return {"do": "start"}


def stop_or_reboot(_rules, given):
    """NX 4.2, second and third column."""
    public, verb, vmm = effective_state("head", given)["state"], given["request"], given["active_vmm"]
    if public == "creating":
        refused = "cannot change instance state while it is still being created"
    elif public in ("stopped", "failed") and vmm is None:
        if public == "stopped" and verb == "stop":
            return {"do": "already_done"}
        if verb == "stop":
            gen = given["instance"].get("state_generation", 5) + 1
            return {"do": "update_runtime", "state": "no_vmm", "state_generation": gen}
        refused = f"cannot reboot an instance in state {public} with no VMM"
        if public == "failed":
            refused = "instance state cannot be changed from failed"
    elif public == "failed":
        refused = 'instance state cannot be changed from state "failed"'
    else:
        return {"do": "send_to_sled", "sled_id": vmm["sled_id"], "propolis_id": vmm["id"]}
    return {"error": answer(400, "InvalidRequest", refused)}


def start_link(_rules, given):
    """NX 4.2: the node reads the instance anew, and whatever has changed since the request is no conflict."""
    row, vmm, mine = given["instance"], given["active_vmm"], given["propolis_id"]
    shown = row | {"auto_restarted": False}
    if row["deleted"]:
        return {"result": NOT_FOUND, "instance": shown, "reaper_woken": False}
    if row["active_propolis_id"] == mine:
        return {"result": "linked", "instance": shown, "reaper_woken": False}
    unwound = vmm is not None and vmm["state"] == "saga_unwound"
    if row["active_propolis_id"] is not None and not unwound:
        message = "instance changed state before it could be started"
        return {"result": {"error": answer(409, "Conflict", message)}, "instance": shown, "reaper_woken": False}
    linked = {"state": "vmm", "active_propolis_id": mine, "state_generation": row["state_generation"] + 1}
    return {
        "result": "linked",
        "instance": row | linked | {"auto_restarted": given["reason"] == "auto_restart"},
        "reaper_woken": unwound,
    }


def updater_inherit_lock(_rules, given):
    """NX 5.3: from the parent; already inherited is success."""
    row, parent, child = given["instance"], given["parent"], given["child_lock_id"]
    if row["deleted"]:
        return {"result": NOT_FOUND, "instance": row}
    gen = parent["locked_gen"] + 1
    taken = {"result": {"updater_id": child, "locked_gen": gen}}
    if row["updater_id"] == child:
        return taken | {"instance": row}
    if (row["updater_id"], row["updater_gen"]) == (parent["updater_id"], parent["locked_gen"]):
        return taken | {"instance": row | {"updater_id": child, "updater_gen": gen}}
    return {"result": {"already_locked": True}, "instance": row}


def vmm_mark_deleted(_rules, given):
    """NX 4.3: only what is over, once."""
    may = given["vmm"]["state"] in (*TERMINAL, "saga_unwound") and not given["vmm"]["deleted"]
    return {"result": {"updated": may}, "vmm": given["vmm"] | {"deleted": may or given["vmm"]["deleted"]}}


def agent_publish_failure(_rules, given):
    """NX 3.2, sender rules: connections and 5xx are transient; ours are 408, 425 and 429, too (`tried_again`)."""
    status = given.get("status")
    again = given["kind"] == "communication" or (status is not None and (status >= 500 or status in (408, 425, 429)))
    return "transient" if again else "permanent"


def start_unregister_undo(_rules, given):
    """NX 4.3: 404 + code is trouble; the mark is from the generation that was registered, whatever came since."""
    stuck = sled_error_gone(_rules, given["answer"])["vmm_gone"]
    marks = given["registered_gen"] if stuck else None
    return {"undo": "stuck" if stuck else "goes on", "marks_failed_from_gen": marks}


def migrate_unregister_undo(_rules, given):
    return {"undo": "stuck" if sled_error_gone(_rules, given["answer"])["vmm_gone"] else "goes on"}


def vmm_mark_saga_unwound(_rules, given):
    """NX 4.3: each time, never a deleted row; the reason of a Failed one stays, which the database refuses."""
    vmm = given["vmm"]
    if vmm["deleted"]:
        return {"result": {"updated": False}, "vmm": vmm}
    if vmm["state"] == "failed":
        return {"result": internal('database error: Check("failure_reason_iff_failed")'), "vmm": vmm}
    gen = vmm["state_generation"] + 1
    return {"result": {"updated": True}, "vmm": vmm | {"state": "saga_unwound", "state_generation": gen}}


def instance_migrate(rules, given):
    """NX 4.2, the migrate checks in their order; what a disk is on was not asked before."""
    row, vmm = given["instance"], given["active_vmm"]
    instance_id = "00000000-0000-0000-0000-000000000001"
    message, status, code = "", 400, "InvalidRequest"
    if given["uses_local_storage"] and rules == "head":
        message = f"cannot migrate instance {instance_id} as it uses local storage"
    elif vmm is None or vmm["state"] != "running":
        message = "instance must be running before it can migrate"
    elif vmm["sled_id"] == given["dst_sled_id"]:
        message = "instance is already running on destination sled"
    elif row["migration_id"] is not None:
        message, status, code = "instance is already migrating", 409, "Conflict"
    return {"error": answer(status, code, message)} if message else {"do": "saga", "saga": True}


def agent_monitor_poll(_rules, given):
    """SA 2.10: a Propolis that cannot be reached is gone only if its zone is."""
    if given["answer"] == "ok":
        return {"update": "state"}
    return "transient" if given["zone"] in ("running", "cannot tell") else {"update": "zone_gone"}


def serial_console(rules, given):
    """NX 6.2: the VMM decides; what it is called changes with the rules."""
    row, vmm = given["instance"], given["active_vmm"]
    public = effective_state(rules, given)["state"]
    if vmm is None:
        shown = public if rules in ("6455", "head") else LABEL[row["state"]]
        return {
            "error": answer(400, "InvalidRequest", f"instance is {shown} and has no active serial console server")
        }
    if vmm["state"] in ("running", "rebooting", "migrating"):
        return {"connect": vmm["id"]}
    if rules == "5854" and vmm["state"] == "destroyed":
        message = "cannot connect to serial console of destroyed instance"
        return {"error": answer(400, "InvalidRequest", message)}
    shown = public if rules in ("6455", "head") else vmm["state"]
    if vmm["state"] in ("destroyed", "saga_unwound"):
        shown = "Stopped"
    message = f'cannot connect to serial console of instance in state "{shown}"'
    return {"error": answer(400, "InvalidRequest", message)}


def unavailable(why):
    return {"error": answer(503, "ServiceNotAvailable", "Service Unavailable") | {"internal_message": why}}


def ip_instance_state(rules, given):
    """NX 6.1, step 2."""
    row, vmm, verb = given["instance"], given["active_vmm"], given["verb"]
    both = "IPs or subnets" if rules == "head" else "IPs"
    one = "IP or subnets" if rules == "head" else "IPs"
    state = row["state"] if vmm is None else vmm["state"]
    unhealthy = answer(400, "InvalidRequest", f"cannot modify instance {both}, instance is in unhealthy state")
    if vmm is None:
        if state == "creating":
            message = f"cannot modify instance {one}, instance is still being created"
            return {"error": answer(400, "InvalidRequest", message)}
        return {"failed": {"error": unhealthy}, "destroyed": NOT_FOUND, "no_vmm": {"tell": None}}[state]
    if state in ("running", "rebooting"):
        return {"tell": vmm["id"]}
    if state == "saga_unwound":
        return {"tell": None}
    if state == "failed":
        return {"error": unhealthy}
    if state == "destroyed":
        return internal("instance 00000000-0000-0000-0000-000000000001 points to destroyed VMM")
    return unavailable(f"can't {verb} in transient state {state}")


def instance_delete(_rules, given):
    """NX 4.2, last column: no active id, whatever else; the generation and the ids stay."""
    row = given["instance"]
    if row["state"] == "creating":
        return {"error": answer(400, "InvalidRequest", 'instance cannot be deleted in state "creating"')}
    if row["active_propolis_id"] is not None:
        message = "cannot delete instance: instance is running or has not yet fully stopped"
        return {"error": answer(400, "InvalidRequest", message)}
    return {"ok": True, "instance": row | {"state": "destroyed", "deleted": True}}


def commit_update(_rules, given):
    """NX 5.3: with one's lock, if the state has not moved; success without effect if both have moved on."""
    row, lock, new = given["instance"], given["lock"], given["new"]
    moved = row["state_generation"] >= new["state_generation"]
    if row["deleted"]:
        return {"result": NOT_FOUND, "instance": row}
    if row["updater_id"] == lock["updater_id"]:
        if moved:
            return {"result": {"error": answer(409, "Conflict", "instance state has changed")}, "instance": row}
        written = {key: value for key, value in new.items() if key != "intended_state" or value is not None}
        freed = {"updater_id": None, "updater_gen": lock["locked_gen"] + 1}
        return {"result": {"committed": True}, "instance": row | written | freed}
    if moved:
        return {"result": {"committed": False}, "instance": row}
    whose = "is not locked" if row["updater_id"] is None else "is locked by another saga!"
    return {"result": internal(f"cannot commit instance updates: the instance {whose}"), "instance": row}


def start_vmm_undo(rules, given):
    """NX 4.3: SagaUnwound, each time; never a deleted row; refused for a Failed one, which 11294 lets go on."""
    vmm, may = given["vmm"], given["auto_restart_policy"] != "never"
    told = {"state": vmm["state"], "state_generation": vmm["state_generation"]}
    if vmm["deleted"]:
        return {"undo": "goes on", "vmm": told, "reincarnation_woken": may}
    if vmm["state"] == "failed" and rules == "head":
        return {"undo": "stuck", "vmm": told, "reincarnation_woken": False}
    told = {"state": "saga_unwound", "state_generation": vmm["state_generation"] + 1}
    return {"undo": "goes on", "vmm": told, "reincarnation_woken": may}


def vmm_state_predicates(rules, given):
    """NX 1.1, the classes."""
    state = given["state"]
    answer = {"label": state, "is_destroyable": state in ("destroyed", "saga_unwound")}
    if rules != "5749":
        answer["is_destroyable"] |= state == "failed"
        answer |= {
            "is_terminal": state in TERMINAL,
            "exists_on_sled": state not in ("creating", "saga_unwound", "destroyed"),
        }
    return answer


def migration_predicates(_rules, given):
    ends = (given["source_state"], given["target_state"])
    failed, completed = "failed" in ends, "completed" in ends
    return {
        "is_terminal": failed or completed,
        "either_side_failed": failed,
        "either_side_completed": completed,
    }


def ip_begin_attach(_rules, given):
    """NX 6.1, step 1: the address first, then the migration, then the state."""
    kind, ip, row = given["kind"], given["ip"], given["instance"]
    ours = ip["instance"] == "I"
    if ip["state"] == "attached":
        if ours:
            return {"ok": True, "do_saga": False}
        message = f"{kind} IP cannot be attached to one instance while still attached to another"
        return {"error": answer(400, "InvalidRequest", message)}
    if ip["state"] == "attaching" and ours:
        return {"ok": True, "do_saga": True}
    if ip["state"] != "detached":
        retry = "attach will be safe to retry once operation on same IP resource completes"
        return unavailable(f"tried to attach {kind} IP mid-attach/detach: {retry}")
    if row["migration_id"] is not None:
        retry = "detach will be safe to retry once migrate completes"
        return unavailable(f"tried to attach {kind} IP while instance was migrating: {retry}")
    if row["state"] not in ("no_vmm", "vmm"):
        message = f"cannot attach {kind} IP to instance in {row['state']} state"
        return {"error": answer(400, "InvalidRequest", message)}
    if given["attached_count_with_snat"] > 32:
        message = "an instance may not have more than 32 external IP addresses"
        return {"error": answer(400, "InvalidRequest", message)}
    if not given["nic_matches"]:
        message = (
            f"The {kind} external IP is an IPv4 address, but the instance with ID "
            "00000000-0000-0000-0000-000000000001 does not have a primary network interface with a VPC-private IPv4 "
            "address. Add a VPC-private IPv4 address to the interface, or attach a different IP address"
        )
        return {"error": answer(400, "InvalidRequest", message)}
    return {"ok": True, "do_saga": True}


def ip_begin_detach(_rules, given):
    kind, ip, row = given["kind"], given["ip"], given["instance"]
    ours = ip["instance"] == "I"
    if ip["state"] == "detached":
        return {"ok": True, "do_saga": False}
    if ip["state"] == "attached" and not ours:
        return {"error": answer(400, "InvalidRequest", f"{kind} IP is not attached to the target instance")}
    if ip["state"] == "detaching" and ours:
        return {"ok": True, "do_saga": True}
    if ip["state"] != "attached":
        retry = "detach will be safe to retry once operation on same IP resource completes"
        return unavailable(f"tried to detach {kind} IP mid-attach/detach: {retry}")
    if row["migration_id"] is not None:
        retry = "detach will be safe to retry once migrate completes"
        return unavailable(f"tried to detach {kind} IP while instance was migrating: {retry}")
    if row["state"] not in ("no_vmm", "vmm"):
        message = f"cannot detach {kind} IP from instance in {row['state']} state"
        return {"error": answer(400, "InvalidRequest", message)}
    return {"ok": True, "do_saga": True}


def subnet_begin_attach(_rules, given):
    """NX 6.1: the same order, with other words."""
    ip, row = given["ip"], given["instance"]
    ours = ip["instance"] == "I"
    if ip["state"] == "attached" and not ours:
        message = "External subnets cannot be attached to one instance while still attached to another"
        return {"error": answer(400, "InvalidRequest", message)}
    if ip["state"] in ("attached", "attaching") and ours:
        return {"ok": True, "do_saga": ip["state"] == "attaching"}
    if ip["state"] != "detached":
        return unavailable(
            "The external subnet is in the process of attaching to or detaching from another instance."
        )
    if row["state"] not in ("no_vmm", "vmm"):
        message = f"Cannot attach subnet to instance in {row['state']} state"
        return {"error": answer(400, "InvalidRequest", message)}
    return {"ok": True, "do_saga": True}
